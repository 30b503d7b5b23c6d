// SPDX-License-Identifier: Apache-2.0
// Pictures are encoded as H.264 into a file beside the page, which is taken into it as base64 and removed. Curves are SVG, drawn through at
// most CURVE_POINTS frames each.
#include "data/view.h"
#include "base/file.h"
#include "base/str.h"
#include "format/video.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { WIDTH = 560, HEIGHT = 90, CURVE_POINTS = 1000, MAX_DIMENSIONS = 64, VIDEO_MAX = 512 << 20 };
#define USUAL_RATE 10.0

typedef struct viewing {
    const soma_dataset *d;
    int64_t episode, n_frames;
    double fps;
    soma_dataset_reader *reader;
    soma_str page;
    const char *path;
} viewing;

// ---- pictures

// Rows and columns beyond an even size are cut off: H.264 wants it so.
static void crop(uint8_t *rgb, int64_t width, int64_t height, int64_t to) {
    for (int64_t y = 1; y < height; y++) memmove(rgb + y * to * 3, rgb + y * width * 3, (size_t)to * 3);
}

static soma_status encode(viewing *v, int feature, const char *path, soma_error *err) {
    const soma_feature *f = &v->d->features[feature];
    soma_video_spec spec = {
        .width = (int)(f->shape[1] & ~1), .height = (int)(f->shape[0] & ~1), .fps = v->fps, .gop = 15, .crf = 23, .preset = "veryfast"};
    soma_video_writer *w = NULL;
    uint8_t *rgb = soma__alloc((size_t)f->size);
    soma_status status = rgb ? soma__video_writer_open(&w, path, &spec, err) : soma__no_memory(err, "a picture");
    for (int64_t t = 0; t < v->n_frames && status == SOMA_OK; t++) {
        status = v->d->format->read_image(v->reader, v->episode, t, feature, rgb, err);
        if (status == SOMA_OK && spec.width != f->shape[1]) crop(rgb, f->shape[1], spec.height, spec.width);
        if (status == SOMA_OK) status = soma__video_writer_frame(w, rgb, err);
    }
    if (status == SOMA_OK) status = soma__video_writer_commit(w, err);
    soma__video_writer_close(w);
    soma__free(rgb);
    return status;
}

static soma_status add_camera(viewing *v, int feature, soma_error *err) {
    char path[SOMA_PATH_MAX], *bytes = NULL;
    size_t size = 0;
    const soma_feature *f = &v->d->features[feature];
    if (f->shape[0] < 2 || f->shape[1] < 2) return SOMA_OK;
    if (snprintf(path, sizeof path, "%s.camera-%d.mp4", v->path, feature) >= (int)sizeof path)
        return soma__fail(err, SOMA_BAD_INPUT, "%.60s...: the path is too long", v->path);
    soma_status status = encode(v, feature, path, err);
    if (status == SOMA_OK) status = soma__file_read(&bytes, &size, path, VIDEO_MAX, err);
    unlink(path);
    if (status != SOMA_OK) return status;
    soma__str_add(&v->page, "<figure><video controls muted loop playsinline src='data:video/mp4;base64,");
    soma__str_add_base64(&v->page, bytes, size);
    soma__str_add(&v->page, "'></video><figcaption>");
    soma__str_add_html(&v->page, f->name);
    soma__str_add(&v->page, "</figcaption></figure>\n");
    soma__free(bytes);
    return SOMA_OK;
}

// ---- curves

static void add_line(viewing *v, const float *x, int64_t size, int64_t j, double low, double high, const char *class) {
    int64_t step = v->n_frames / CURVE_POINTS + 1;
    soma__str_printf(&v->page, "<polyline class=%s points='", class);
    for (int64_t t = 0; t < v->n_frames; t += step)
        soma__str_printf(&v->page, "%.1f,%.1f ", v->n_frames > 1 ? (double)t / (double)(v->n_frames - 1) * WIDTH : 0.0,
                         HEIGHT - 4 - ((double)x[t * size + j] - low) / (high - low) * (HEIGHT - 8));
    soma__str_add(&v->page, "'/>");
}

static void add_name(viewing *v, const soma_feature *f, int64_t j) {
    if (f->names && f->n_dims == 1)
        soma__str_add_html(&v->page, f->names[j]);
    else {
        soma__str_add_html(&v->page, f->name);
        if (f->size > 1) soma__str_printf(&v->page, " %lld", (long long)j);
    }
}

static void widen(double *low, double *high, const float *x, int64_t n, int64_t size, int64_t j) {
    for (int64_t t = 0; t < n; t++) {
        *low = SOMA_MIN(*low, (double)x[t * size + j]);
        *high = SOMA_MAX(*high, (double)x[t * size + j]);
    }
}

// One plot per dimension; where state and action are of one size, a dimension's two curves share it.
static void add_plots(viewing *v, const soma_feature *f, const float *x, const float *beside) {
    for (int64_t j = 0; j < SOMA_MIN(f->size, MAX_DIMENSIONS); j++) {
        double low = INFINITY, high = -INFINITY;
        widen(&low, &high, x, v->n_frames, f->size, j);
        if (beside) widen(&low, &high, beside, v->n_frames, f->size, j);
        soma__str_add(&v->page, "<div class=plot><b>");
        add_name(v, f, j);
        soma__str_printf(&v->page, "</b> <small>%.4g to %.4g</small><svg width=%d height=%d>", low, high, WIDTH, HEIGHT);
        if (high <= low) high = low + 1;
        if (beside) add_line(v, beside, f->size, j, low, high, "action");
        add_line(v, x, f->size, j, low, high, "state");
        soma__str_printf(&v->page, "<line class=now y2=%d /></svg></div>\n", HEIGHT);
    }
}

static int first_of(const soma_dataset *d, const char *a, const char *b) {
    int f = soma__dataset_feature(d, a);
    if (f < 0) f = soma__dataset_feature(d, b);
    return f >= 0 && d->features[f].kind == SOMA_FEATURE_VECTOR ? f : -1;
}

static soma_status read_values(viewing *v, float **out, int feature, soma_error *err) {
    if (feature < 0) return SOMA_OK;
    *out = soma__alloc((size_t)(v->n_frames * v->d->features[feature].size) * sizeof **out + 1);
    if (!*out) return soma__no_memory(err, "the curves of an episode");
    return v->d->format->read_vectors(v->reader, v->episode, feature, *out, err);
}

static soma_status add_curves(viewing *v, soma_error *err) {
    int state = first_of(v->d, "observation.state", "state"), action = first_of(v->d, "action", "actions");
    float *x = NULL, *y = NULL;
    soma_status status = read_values(v, &x, state, err);
    if (status == SOMA_OK) status = read_values(v, &y, action, err);
    if (status == SOMA_OK) {
        bool together = x && y && v->d->features[state].size == v->d->features[action].size;
        if (together) soma__str_add(&v->page, "<p><span class=state>state</span> and <span class=action>action</span></p>\n");
        if (x) add_plots(v, &v->d->features[state], x, together ? y : NULL);
        if (y && !together) add_plots(v, &v->d->features[action], y, NULL);
    }
    soma__free(x);
    soma__free(y);
    return status;
}

// ---- the page

static void add_head(viewing *v) {
    const soma_episode *e = &v->d->episodes[v->episode];
    soma__str_add(
        &v->page,
        "<!doctype html><meta charset=utf-8><title>episode</title><style>body{font:14px sans-serif;margin:24px;color:#1f2430}"
        "figure{display:inline-block;margin:0 12px 12px 0}video{max-width:480px;display:block}figcaption,small{color:#6b7280}"
        ".plot{display:inline-block;margin:0 16px 12px 0}svg{display:block;background:#f7f8f9}polyline{fill:none;stroke-width:1.5}"
        "polyline.state{stroke:#2563eb}polyline.action{stroke:#f59e0b}span.state{color:#2563eb}span.action{color:#b45309}"
        ".now{stroke:#dc2626}</style>\n<h2>");
    soma__str_add_html(&v->page, *e->task ? e->task : "an episode without an instruction");
    soma__str_add(&v->page, "</h2><p>");
    soma__str_add_html(&v->page, v->d->path);
    soma__str_printf(&v->page, ", episode %lld: %lld frames, ", (long long)e->index, (long long)v->n_frames);
    soma__str_printf(&v->page, v->d->fps > 0 ? "%g frames/s</p>\n" : "rate not told, shown at %g frames/s</p>\n", v->fps);
}

// All videos run as the first one does, and a line marks the frame in every plot.
static void add_script(viewing *v) {
    soma__str_printf(
        &v->page,
        "<script>const V=[...document.querySelectorAll('video')],L=document.querySelectorAll('.now'),T=%.9g;if(V.length){const m=V[0];"
        "m.onplay=()=>V.slice(1).forEach(v=>v.play());m.onpause=()=>V.slice(1).forEach(v=>v.pause());"
        "m.onseeked=()=>V.slice(1).forEach(v=>v.currentTime=m.currentTime);"
        "(function f(){const x=m.currentTime/T*%d;L.forEach(l=>{l.setAttribute('x1',x);l.setAttribute('x2',x)});"
        "requestAnimationFrame(f)})()}</script>\n",
        SOMA_MAX((double)v->n_frames - 1, 1.0) / v->fps, WIDTH);
}

static soma_status make_page(viewing *v, soma_error *err) {
    add_head(v);
    SOMA_TRY(v->d->format->reader_open(&v->reader, v->d, err));
    for (int f = 0; f < v->d->n_features; f++)
        if (v->d->features[f].kind == SOMA_FEATURE_IMAGE && v->d->format->present(v->d, v->episode, f)) SOMA_TRY(add_camera(v, f, err));
    SOMA_TRY(add_curves(v, err));
    add_script(v);
    return v->page.failed ? soma__no_memory(err, "the page") : soma__file_write(v->path, v->page.text, v->page.len, err);
}

soma_status soma__dataset_view(const char *path, const soma_dataset *d, int64_t episode, soma_error *err) {
    SOMA_CHECK(episode >= 0 && episode < d->n_episodes, "an episode is a position in the dataset");
    const soma_episode *e = &d->episodes[episode];
    if (!e->present || !e->n_frames)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: episode %lld is not there, or has no frames", d->path, (long long)e->index);
    viewing v = {.d = d, .episode = episode, .n_frames = e->n_frames, .fps = d->fps > 0 ? d->fps : USUAL_RATE, .path = path};
    soma_status status = make_page(&v, err);
    if (v.reader) d->format->reader_close(v.reader);
    soma__str_free(&v.page);
    return status;
}
