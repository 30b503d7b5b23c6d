// SPDX-License-Identifier: Apache-2.0
// Draws films with cairo and hands the frames to the video writer. Scales are shared by all films of a result, so that they compare.
#include "eval/film.h"
#include "format/video.h"

#include <cairo.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MARGIN = 16,   // pixels, as all of these
    PICTURE = 352, // a camera's side
    HEADER = 52,
    COLUMNS = 4, // plots side by side
    PLOT = 84,   // a plot's height
    CAPTION = 24,
    SHORTEST = 40,    // steps that the time axis has at least
    HOLD_FRAMES = 20, // the outcome stays for this many
};

typedef struct {
    double r, g, b;
} colour;
static const colour INK = {0.13, 0.15, 0.19}, PALE = {0.55, 0.58, 0.63}, PAPER = {0.98, 0.98, 0.97}, PANEL = {1, 1, 1},
                    RULE = {0.85, 0.86, 0.88}, ACTION = {0.10, 0.38, 0.80}, STATE = {0.62, 0.65, 0.70}, PLAN = {0.95, 0.55, 0.10},
                    GOOD = {0.12, 0.60, 0.30}, BAD = {0.80, 0.18, 0.18};

typedef struct {
    const soma_rollouts *r;
    int width, height;
    cairo_surface_t *surface;
    cairo_t *cr;
    double *low, *high; // [n_actions] of the plots
} canvas;

static void set(cairo_t *cr, colour c) { cairo_set_source_rgb(cr, c.r, c.g, c.b); }

static void text(cairo_t *cr, double x, double y, double size, bool bold, colour c, const char *s) {
    cairo_select_font_face(cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL, bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, size);
    set(cr, c);
    cairo_move_to(cr, x, y);
    cairo_show_text(cr, s);
}

static double text_width(cairo_t *cr, const char *s) {
    cairo_text_extents_t e;
    cairo_text_extents(cr, s, &e);
    return e.x_advance;
}

// ---- parts of a frame

static void draw_header(const canvas *v, const soma_rollout *e, int step) {
    char line[100];
    bool over = step >= e->film->n_steps;
    text(v->cr, MARGIN, 33, 20, true, INK, e->prompt);
    if (over) {
        const soma_env_outcome *o = &e->outcome;
        const char *word = o->success ? "success" : v->r->opts.wrong_prompt && o->prompted ? "did as prompted" : "failure";
        double x = MARGIN + text_width(v->cr, e->prompt) + 14;
        text(v->cr, x, 33, 20, true, o->success || (v->r->opts.wrong_prompt && o->prompted) ? GOOD : BAD, word);
    }
    snprintf(line, sizeof line, "seed %llu   %4.1f s", (unsigned long long)e->seed, step / v->r->task.rate);
    cairo_set_font_size(v->cr, 15);
    text(v->cr, v->width - MARGIN - text_width(v->cr, line), 33, 15, false, PALE, line);
}

static void draw_picture(const canvas *v, const uint8_t *rgb, int camera, const char *name) {
    int side = (int)v->r->opts.image, stride;
    cairo_surface_t *picture = cairo_image_surface_create(CAIRO_FORMAT_RGB24, side, side);
    uint8_t *data = cairo_image_surface_get_data(picture);
    if (data) {
        stride = cairo_image_surface_get_stride(picture);
        for (int y = 0; y < side; y++) {
            for (int x = 0; x < side; x++, rgb += 3) {
                uint32_t pixel = (uint32_t)rgb[0] << 16 | (uint32_t)rgb[1] << 8 | rgb[2];
                memcpy(data + (size_t)y * (size_t)stride + (size_t)x * 4, &pixel, 4);
            }
        }
        cairo_surface_mark_dirty(picture);
    }
    double x = MARGIN + camera * (PICTURE + MARGIN);
    cairo_save(v->cr);
    cairo_translate(v->cr, x, HEADER);
    cairo_scale(v->cr, (double)PICTURE / side, (double)PICTURE / side);
    cairo_set_source_surface(v->cr, picture, 0, 0);
    cairo_pattern_set_filter(cairo_get_source(v->cr), CAIRO_FILTER_BILINEAR);
    cairo_pattern_set_extend(cairo_get_source(v->cr), CAIRO_EXTEND_PAD);
    cairo_rectangle(v->cr, 0, 0, side, side);
    cairo_fill(v->cr);
    cairo_restore(v->cr);
    cairo_set_font_size(v->cr, 13);
    cairo_rectangle(v->cr, x + 8, HEADER + PICTURE - 28, text_width(v->cr, name) + 14, 20);
    cairo_set_source_rgba(v->cr, 1, 1, 1, 0.75);
    cairo_fill(v->cr);
    text(v->cr, x + 15, HEADER + PICTURE - 13, 13, false, INK, name);
    cairo_surface_destroy(picture);
}

typedef struct {
    double x, y, width, per_step; // of the plot
    double low, high;
} axes;

// values[i * stride] at steps first, first + 1, ...
static void draw_curve(const canvas *v, const axes *a, const float *values, int stride, int first, int n, colour c, double thickness) {
    cairo_t *cr = v->cr;
    for (int i = 0; i < n; i++) {
        double x = a->x + (first + i) * a->per_step, y = a->y + PLOT * (1 - (values[(size_t)i * stride] - a->low) / (a->high - a->low));
        if (i)
            cairo_line_to(cr, x, y);
        else
            cairo_move_to(cr, x, y);
    }
    set(cr, c);
    cairo_set_line_width(cr, thickness);
    cairo_stroke(cr);
}

static void draw_plot(const canvas *v, const soma_film *f, int k, int step) {
    const soma_task *t = &v->r->task;
    cairo_t *cr = v->cr;
    double width = (v->width - MARGIN * (COLUMNS + 1.0)) / COLUMNS;
    axes a = {.x = MARGIN + k % COLUMNS * (width + MARGIN),
              .y = HEADER + PICTURE + CAPTION + 6 + k / COLUMNS * (PLOT + CAPTION),
              .width = width,
              .per_step = width / SOMA_MAX(SHORTEST, f->n_steps),
              .low = v->low[k],
              .high = v->high[k]};
    text(cr, a.x, a.y - 6, 12, false, INK, t->action_names[k]);
    cairo_rectangle(cr, a.x, a.y, width, PLOT);
    set(cr, PANEL);
    cairo_fill_preserve(cr);
    set(cr, RULE);
    cairo_set_line_width(cr, 1);
    cairo_stroke(cr);
    cairo_save(cr);
    cairo_rectangle(cr, a.x, a.y, width, PLOT);
    cairo_clip(cr);
    if (t->n_state == t->n_actions) draw_curve(v, &a, f->states + k, t->n_state, 0, step + 1, STATE, 1.5);
    int plan = f->n_plans - 1;
    while (plan >= 0 && f->plan_step[plan] > step) plan--;
    if (plan >= 0) {
        const float *values = f->plans + (size_t)plan * f->horizon * t->n_actions + k;
        draw_curve(v, &a, values, t->n_actions, f->plan_step[plan], f->horizon, PLAN, 1.5);
    }
    draw_curve(v, &a, f->actions + k, t->n_actions, 0, SOMA_MIN(step + 1, f->n_steps), ACTION, 2);
    cairo_move_to(cr, a.x + step * a.per_step, a.y);
    cairo_line_to(cr, a.x + step * a.per_step, a.y + PLOT);
    set(cr, PALE);
    cairo_set_line_width(cr, 1);
    cairo_stroke(cr);
    cairo_restore(cr);
}

static void draw_legend(const canvas *v, int slot) {
    static const struct {
        const colour *c;
        const char *name;
    } rows[] = {{&ACTION, "executed"}, {&PLAN, "planned chunk"}, {&STATE, "robot's state"}};
    double width = (v->width - MARGIN * (COLUMNS + 1.0)) / COLUMNS, x = MARGIN + slot % COLUMNS * (width + MARGIN);
    double y = HEADER + PICTURE + CAPTION + 6 + slot / COLUMNS * (PLOT + CAPTION);
    for (size_t i = 0; i < SOMA_COUNT(rows); i++) {
        double at = y + 18 + 24.0 * (double)i;
        cairo_move_to(v->cr, x, at - 4);
        cairo_line_to(v->cr, x + 24, at - 4);
        set(v->cr, *rows[i].c);
        cairo_set_line_width(v->cr, 3);
        cairo_stroke(v->cr);
        text(v->cr, x + 34, at, 13, false, INK, rows[i].name);
    }
}

static void draw_frame(const canvas *v, const soma_rollout *e, int step, uint8_t *rgb) {
    const soma_task *t = &v->r->task;
    size_t picture = (size_t)v->r->opts.image * (size_t)v->r->opts.image * 3;
    set(v->cr, PAPER);
    cairo_paint(v->cr);
    draw_header(v, e, step);
    for (int c = 0; c < t->n_cameras; c++) {
        draw_picture(v, e->film->pictures + ((size_t)step * t->n_cameras + c) * picture, c, t->camera_names[c]);
    }
    for (int k = 0; k < t->n_actions; k++) draw_plot(v, e->film, k, step);
    draw_legend(v, t->n_actions);
    cairo_surface_flush(v->surface);
    const uint8_t *data = cairo_image_surface_get_data(v->surface);
    int stride = cairo_image_surface_get_stride(v->surface);
    for (int y = 0; y < v->height; y++) {
        for (int x = 0; x < v->width; x++, rgb += 3) {
            uint32_t pixel;
            memcpy(&pixel, data + (size_t)y * (size_t)stride + (size_t)x * 4, 4);
            rgb[0] = (uint8_t)(pixel >> 16), rgb[1] = (uint8_t)(pixel >> 8), rgb[2] = (uint8_t)pixel;
        }
    }
}

// ---- the canvas

static void widen(canvas *v, const float *values, int stride, int n) {
    for (int k = 0; k < v->r->task.n_actions && k < stride; k++) {
        for (int i = 0; i < n; i++) {
            v->low[k] = fmin(v->low[k], values[(size_t)i * stride + k]);
            v->high[k] = fmax(v->high[k], values[(size_t)i * stride + k]);
        }
    }
}

static void canvas_close(canvas *v) {
    if (v->cr) cairo_destroy(v->cr);
    if (v->surface) cairo_surface_destroy(v->surface);
    soma__free(v->low);
    soma__free(v->high);
}

static soma_status canvas_open(canvas *v, const soma_rollouts *r, soma_error *err) {
    const soma_task *t = &r->task;
    int rows = t->n_actions / COLUMNS + 1; // the legend takes one place
    *v = (canvas){.r = r, .width = MARGIN + t->n_cameras * (PICTURE + MARGIN)};
    v->height = HEADER + PICTURE + rows * (PLOT + CAPTION) + MARGIN;
    v->low = soma__calloc(t->n_actions, sizeof *v->low);
    v->high = soma__calloc(t->n_actions, sizeof *v->high);
    v->surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, v->width, v->height);
    v->cr = cairo_create(v->surface);
    if (!v->low || !v->high || cairo_status(v->cr) != CAIRO_STATUS_SUCCESS) {
        canvas_close(v);
        return soma__no_memory(err, "a video's canvas");
    }
    for (int k = 0; k < t->n_actions; k++) v->low[k] = INFINITY, v->high[k] = -INFINITY;
    for (int64_t i = 0; i < r->n; i++) {
        const soma_film *f = r->episodes[i].film;
        if (!f) continue;
        widen(v, f->actions, t->n_actions, f->n_steps);
        if (t->n_state == t->n_actions) widen(v, f->states, t->n_state, f->n_steps + 1);
    }
    for (int k = 0; k < t->n_actions; k++) {
        double room = fmax(0.08 * (v->high[k] - v->low[k]), 0.01); // rad or m: a still joint is a line in the middle
        v->low[k] -= room, v->high[k] += room;
    }
    return SOMA_OK;
}

soma_status soma__film_frame(const soma_rollouts *r, int64_t episode, int step, int *width, int *height, uint8_t *rgb, soma_error *err) {
    SOMA_CHECK(episode >= 0 && episode < r->n && r->episodes[episode].film, "an episode that was filmed");
    SOMA_CHECK(step >= 0 && step <= r->episodes[episode].film->n_steps, "a step of the film");
    canvas v;
    SOMA_TRY(canvas_open(&v, r, err));
    *width = v.width, *height = v.height;
    if (rgb) draw_frame(&v, &r->episodes[episode], step, rgb);
    canvas_close(&v);
    return SOMA_OK;
}

static soma_status write_films(const canvas *v, soma_video_writer *writer, uint8_t *rgb, soma_error *err) {
    for (int64_t i = 0; i < v->r->n; i++) {
        const soma_rollout *e = &v->r->episodes[i];
        if (!e->film) continue;
        for (int step = 0; step <= e->film->n_steps + HOLD_FRAMES; step++) {
            if (step <= e->film->n_steps) draw_frame(v, e, step, rgb);
            SOMA_TRY(soma__video_writer_frame(writer, rgb, err));
        }
    }
    return soma__video_writer_commit(writer, err);
}

soma_status soma__film_write(const char *path, const soma_rollouts *r, soma_error *err) {
    int64_t films = 0;
    for (int64_t i = 0; i < r->n; i++) films += r->episodes[i].film != NULL;
    if (!films) return soma__fail(err, SOMA_BAD_INPUT, "%s: no episode was filmed; --films says how many are", path);
    canvas v;
    SOMA_TRY(canvas_open(&v, r, err));
    soma_video_writer *writer = NULL;
    soma_video_spec spec = {.width = v.width, .height = v.height, .fps = r->task.rate, .gop = 30, .crf = 20, .preset = "fast"};
    uint8_t *rgb = soma__alloc((size_t)v.width * (size_t)v.height * 3);
    soma_status status = rgb ? soma__video_writer_open(&writer, path, &spec, err) : soma__no_memory(err, "a video's frame");
    if (status == SOMA_OK) status = write_films(&v, writer, rgb, err);
    soma__video_writer_close(writer);
    soma__free(rgb);
    canvas_close(&v);
    return status;
}
