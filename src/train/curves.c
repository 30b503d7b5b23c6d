// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl, one line a step, and curves.html drawn from it: a page that needs nothing but itself.
#include "base/str.h"
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { METRICS_MAX = 1 << 30, WIDTH = 860, HEIGHT = 240, MARGIN = 60 };

static soma_status metrics_path(char path[SOMA_PATH_MAX], const char *out, soma_error *err) {
    return soma__path_join(path, out, "metrics.jsonl", err);
}

soma_status soma__metrics_add(const char *out, const soma_train_progress *p, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(metrics_path(path, out, err));
    FILE *file = fopen(path, "a");
    if (!file) return soma__fail(err, SOMA_IO, "%s: cannot be appended to", path);
    fprintf(file, "{\"step\": %lld, \"loss\": %.9g, \"grad_norm\": %.9g, \"lr\": %.9g, \"samples_per_second\": %.6g, \"wait_share\": %.4g",
            (long long)p->step, p->loss, p->grad_norm, p->lr, p->samples_per_second, p->wait_share);
    if (!isnan(p->eval_loss)) fprintf(file, ", \"eval_loss\": %.9g", p->eval_loss);
    fputs("}\n", file);
    return fclose(file) ? soma__fail(err, SOMA_IO, "%s: cannot be written", path) : SOMA_OK;
}

static int64_t step_of(const char *line) {
    const char *at = strstr(line, "\"step\": ");
    return at ? strtoll(at + 8, NULL, 10) : INT64_MAX;
}

soma_status soma__metrics_cut(const char *out, int64_t step, soma_error *err) {
    char path[SOMA_PATH_MAX], *text;
    size_t len, kept = 0;
    SOMA_TRY(metrics_path(path, out, err));
    if (!soma__file_exists(path)) return SOMA_OK;
    SOMA_TRY(soma__file_read(&text, &len, path, METRICS_MAX, err));
    for (char *line = text, *end; (end = strchr(line, '\n')) && step_of(line) <= step; line = end + 1) kept = (size_t)(end + 1 - text);
    soma_status status = soma__file_write(path, text, kept, err);
    soma__free(text);
    return status;
}

// ---- the page

typedef struct {
    const char *key, *title, *colour, *other, *other_colour; // `other`: a second curve over the same axes, or NULL
    bool logarithmic;
} chart;

typedef struct {
    double *steps, *values;
    size_t n, room_steps, room_values;
} series;

static bool read_series(series *s, const char *text, const char *key) {
    char field[40];
    snprintf(field, sizeof field, "\"%s\": ", key);
    for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        const char *at = strstr(line, field);
        if (!at || at > end) continue;
        if (!SOMA_PUSH_ROOM(s->steps, s->n, s->room_steps) || !SOMA_PUSH_ROOM(s->values, s->n, s->room_values)) return false;
        s->steps[s->n] = (double)step_of(line);
        s->values[s->n++] = strtod(at + strlen(field), NULL);
    }
    return true;
}

static double height_of(double value, bool logarithmic) { return logarithmic ? log10(fmax(value, 1e-12)) : value; }

// At most about 800 points are drawn: each is the mean of the steps that share a pixel.
static void add_line(soma_str *page, const series *s, const chart *c, const char *colour, double last, double low, double high) {
    if (!s->n) return;
    soma__str_printf(page, "<polyline fill='none' stroke='%s' stroke-width='1.6' points='", colour);
    for (size_t i = 0; i < s->n;) {
        size_t first = i;
        double column = floor(s->steps[i] / last * WIDTH), sum = 0;
        while (i < s->n && floor(s->steps[i] / last * WIDTH) == column) sum += height_of(s->values[i++], c->logarithmic);
        double y = (sum / (double)(i - first) - low) / (high - low);
        soma__str_printf(page, "%.1f,%.1f ", MARGIN + column, 20 + (1 - y) * HEIGHT);
    }
    soma__str_add(page, "'/>");
}

static void widen(const series *s, bool logarithmic, double *low, double *high) {
    for (size_t i = 0; i < s->n; i++) {
        *low = fmin(*low, height_of(s->values[i], logarithmic));
        *high = fmax(*high, height_of(s->values[i], logarithmic));
    }
}

static bool add_chart(soma_str *page, const char *text, const chart *c) {
    series a = {0}, b = {0};
    bool ok = read_series(&a, text, c->key) && (!c->other || read_series(&b, text, c->other));
    if (ok && a.n) {
        double low = INFINITY, high = -INFINITY, last = fmax(a.steps[a.n - 1], 1);
        widen(&a, c->logarithmic, &low, &high);
        widen(&b, c->logarithmic, &low, &high);
        if (!(high > low)) high = low + 1;
        soma__str_printf(page, "<h2>%s</h2><svg viewBox='0 0 %d %d'><rect x='%d' y='20' width='%d' height='%d' class='frame'/>", c->title,
                         WIDTH + MARGIN + 20, HEIGHT + 50, MARGIN, WIDTH, HEIGHT);
        for (int i = 0; i <= 4; i++) {
            double y = low + (high - low) * i / 4, shown = c->logarithmic ? pow(10, y) : y;
            soma__str_printf(page, "<text x='%d' y='%.1f' text-anchor='end'>%.3g</text>", MARGIN - 6, 24 + (1 - i / 4.0) * HEIGHT, shown);
            soma__str_printf(page, "<text x='%.1f' y='%d' text-anchor='middle'>%.0f</text>", MARGIN + WIDTH * i / 4.0, HEIGHT + 40,
                             last * i / 4);
        }
        add_line(page, &a, c, c->colour, last, low, high);
        if (c->other) add_line(page, &b, c, c->other_colour, last, low, high);
        soma__str_add(page, "</svg>");
    }
    soma__free(a.steps);
    soma__free(a.values);
    soma__free(b.steps);
    soma__free(b.values);
    return ok;
}

soma_status soma__curves_add(soma_str *page, const char *out, soma_error *err) {
    static const chart charts[] = {
        {"loss", "loss: <span style='color:#9ab'>training</span>, <span style='color:#c33'>held out</span>", "#9ab", "eval_loss", "#c33",
         true},
        {"lr", "learning rate", "#27a", NULL, NULL, false},
        {"grad_norm", "norm of the gradient before clipping", "#27a", NULL, NULL, true},
        {"samples_per_second", "observations per second", "#27a", NULL, NULL, false},
    };
    char path[SOMA_PATH_MAX], *text;
    size_t len;
    SOMA_TRY(metrics_path(path, out, err));
    SOMA_TRY(soma__file_read(&text, &len, path, METRICS_MAX, err));
    bool ok = true;
    for (size_t i = 0; i < SOMA_COUNT(charts) && ok; i++) ok = add_chart(page, text, &charts[i]);
    soma__free(text);
    return ok ? SOMA_OK : soma__no_memory(err, "the curves");
}

soma_status soma__curves_write(const char *out, const char *title, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(path, out, "curves.html", err));
    soma_str page = {0};
    soma__str_add(&page,
                  "<!doctype html><meta charset='utf-8'><title>training</title><style>body{font:15px system-ui,sans-serif;max-width:960px;"
                  "margin:2em auto;color:#222}h1{font-size:1.4em}h2{font-size:1em;margin:1.4em 0 0}text{font-size:12px;fill:#555}"
                  ".frame{fill:none;stroke:#ccc}</style><h1>Training of ");
    soma__str_add_html(&page, title);
    soma__str_add(&page, "</h1>");
    soma_status status = soma__curves_add(&page, out, err);
    if (status == SOMA_OK && page.failed) status = soma__no_memory(err, "the page of curves");
    if (status == SOMA_OK) status = soma__file_write(path, page.text, page.len, err);
    soma__str_free(&page);
    return status;
}
