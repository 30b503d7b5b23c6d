// SPDX-License-Identifier: Apache-2.0
// See cmd_fast.h.
#include "cmd/cmd_fast.h"

#include "base/file.h"
#include "base/str.h"
#include "text/fast_batch.h"
#include "text/fast_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 640, HEIGHT = 320, MARGIN = 60 };

// ---- one tokenizer on one dataset

static int by_count(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

// {mean, median, p99, max} of the rows' lengths; rows that were refused are left out.
static json_t *token_counts(const soma_fast_rows *rows) {
    int64_t n = 0, sum = 0, *counts = soma__alloc(((size_t)rows->n + 1) * sizeof *counts);
    if (!counts) return NULL;
    for (int64_t i = 0; i < rows->n; i++)
        if (rows->ok[i]) sum += counts[n++] = rows->offsets[i + 1] - rows->offsets[i];
    qsort(counts, (size_t)n, sizeof *counts, by_count);
    json_t *result =
        n ? json_pack("{s:f,s:f,s:I,s:I}", "mean", (double)sum / (double)n, "median", 0.5 * (double)(counts[(n - 1) / 2] + counts[n / 2]),
                      "p99", (json_int_t)counts[(int64_t)(0.99 * (double)(n - 1))], "max", (json_int_t)counts[n - 1])
          : json_pack("{s:f,s:f,s:i,s:i}", "mean", 0.0, "median", 0.0, "p99", 0, "max", 0);
    soma__free(counts);
    return result;
}

typedef struct errors {
    double *rms, *max; // [A] robot units
    double normalised; // root mean square over all values
} errors;

// `back` [n, T, A] is what was decoded; it is used up.
static void count_errors(errors *e, const soma_chunks *c, double *back, double *original, const uint8_t *ok) {
    int64_t size = c->T * c->A, n = 0;
    for (int64_t i = 0; i < c->n; i++) {
        if (!ok[i]) continue;
        n++;
        for (int64_t k = 0; k < size; k++) {
            double d = back[i * size + k] - c->values[i * size + k];
            e->normalised += d * d;
        }
        memcpy(original, c->values + i * size, (size_t)size * sizeof *original);
        soma__chunks_undo(c, original, c->T);
        soma__chunks_undo(c, back + i * size, c->T);
        for (int64_t k = 0; k < size; k++) {
            double d = fabs(back[i * size + k] - original[k]);
            e->rms[k % c->A] += d * d;
            e->max[k % c->A] = fmax(e->max[k % c->A], d);
        }
    }
    e->normalised = n ? sqrt(e->normalised / (double)(n * size)) : 0;
    for (int64_t a = 0; a < c->A; a++) e->rms[a] = n ? sqrt(e->rms[a] / (double)(n * c->T)) : 0;
}

static json_t *list_of(const double *values, int64_t n) {
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_real(values[i]));
    return list;
}

static json_t *as_json(const char *name, const soma_chunks *c, const soma_fast *fast, const soma_fast_rows *rows, const errors *e) {
    int64_t limits = 0;
    for (int64_t i = 0; i < rows->n; i++) limits += rows->limits[i];
    json_t *counts = token_counts(rows);
    if (!counts) return NULL;
    double mean = json_real_value(json_object_get(counts, "mean"));
    return json_pack("{s:s,s:I,s:f,s:I,s:o,s:I,s:f,s:f,s:{s:o,s:o},s:f,s:I,s:s}", "tokenizer", name, "vocab",
                     (json_int_t)soma__fast_vocab(fast), "scale", soma__fast_scale(fast), "min_token",
                     (json_int_t)soma__fast_min_token(fast), "tokens", counts, "binned", (json_int_t)(c->T * c->A), "ratio",
                     mean > 0 ? (double)(c->T * c->A) / mean : 0.0, "error_rms", e->normalised, "error", "rms", list_of(e->rms, c->A),
                     "max", list_of(e->max, c->A), "limits", c->n ? (double)limits / (double)c->n : 0.0, "refused",
                     (json_int_t)rows->n_refused, "first_refusal", rows->n_refused ? rows->first.text : "");
}

soma_status soma__fast_measure(json_t **result, const soma_fast *fast, const char *name, const soma_chunks *c, soma_pool *pool,
                               soma_error *err) {
    soma_fast_rows rows = {0};
    size_t size = (size_t)(c->T * c->A);
    double *back = soma__alloc(((size_t)c->n * size + 1) * sizeof *back), *original = soma__alloc(size * sizeof *original);
    uint8_t *ok = soma__calloc((size_t)c->n + 1, 1);
    errors e = {soma__calloc((size_t)c->A, sizeof *e.rms), soma__calloc((size_t)c->A, sizeof *e.max), 0};
    soma_status status = back && original && ok && e.rms && e.max ? SOMA_OK : soma__no_memory(err, "the decoded chunks");
    *result = NULL;
    if (status == SOMA_OK) status = soma__fast_encode_batch(&rows, fast, c->values, c->n, c->T, c->A, pool, err);
    if (status == SOMA_OK)
        status = soma__fast_decode_batch(back, ok, fast, rows.ids, rows.offsets, c->n, SOMA_FAST_STRICT, c->T, c->A, pool, err);
    if (status == SOMA_OK) {
        count_errors(&e, c, back, original, ok);
        *result = as_json(name, c, fast, &rows, &e);
        if (!*result) status = soma__no_memory(err, "the statistics");
    }
    soma__fast_rows_free(&rows);
    soma__free(back);
    soma__free(original);
    soma__free(ok);
    soma__free(e.rms);
    soma__free(e.max);
    return status;
}

// ---- the curve

static const double scales[] = {2, 5, 10, 20, 50};
static const int64_t vocabs[] = {256, 512, 1024, 2048};

static soma_status point(json_t *list, const soma_chunks *c, double scale, int64_t vocab, soma_pool *pool, soma_error *err) {
    soma_fast_fit *fit;
    soma_fast *fast = NULL;
    json_t *one = NULL;
    SOMA_TRY(soma__fast_fit_new(&fit, scale, NULL, err));
    soma_status status = soma__fast_fit_add(fit, c->values, c->n, c->T, c->A, pool, err);
    bool room = status == SOMA_OK && soma__fast_fit_size(fit).range + 100 <= vocab; // else there is no point worth drawing
    if (status == SOMA_BAD_INPUT) status = SOMA_OK;                                 // nor of chunks that none can be learnt from
    if (room) status = soma__fast_fit_run(&fast, fit, vocab, pool, err);
    if (room && status == SOMA_OK) status = soma__fast_measure(&one, fast, "", c, pool, err);
    if (room && status == SOMA_OK)
        json_array_append_new(list, json_pack("{s:f,s:I,s:O,s:O}", "scale", scale, "vocab", (json_int_t)vocab, "tokens",
                                              json_object_get(json_object_get(one, "tokens"), "mean"), "error_rms",
                                              json_object_get(one, "error_rms")));
    json_decref(one);
    soma__fast_close(fast);
    soma__fast_fit_free(fit);
    return status;
}

soma_status soma__fast_curve(json_t **result, const soma_chunks *c, soma_pool *pool, soma_error *err) {
    soma_status status = SOMA_OK;
    *result = json_array();
    for (size_t s = 0; s < SOMA_COUNT(scales); s++)
        for (size_t v = 0; v < SOMA_COUNT(vocabs) && status == SOMA_OK; v++) status = point(*result, c, scales[s], vocabs[v], pool, err);
    if (status == SOMA_OK) return SOMA_OK;
    json_decref(*result);
    *result = NULL;
    return status;
}

// ---- the page

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }
static const char *text(const json_t *object, const char *key) {
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static void add_rows(soma_str *page, const json_t *dataset) {
    size_t i;
    json_t *m;
    json_array_foreach(json_object_get(dataset, "tokenizers"), i, m) {
        const json_t *tokens = json_object_get(m, "tokens");
        soma__str_add(page, "<tr><td>");
        soma__str_add_html(page, i ? "" : text(dataset, "name"));
        soma__str_printf(page, "</td><td>%.0f</td><td>%.3g</td><td>%.0f</td><td>%.0f</td><td>", real(dataset, "dimensions"),
                         real(dataset, "rate"), real(dataset, "steps"), real(dataset, "chunks"));
        soma__str_add_html(page, text(m, "tokenizer"));
        soma__str_printf(
            page, "</td><td>%.1f</td><td>%.1f</td><td>%.0f</td><td>%.0f</td><td>%.2f</td><td>%.4f</td><td>%.2f %%</td><td>%.0f</td></tr>",
            real(tokens, "mean"), real(tokens, "median"), real(tokens, "p99"), real(m, "binned"), real(m, "ratio"), real(m, "error_rms"),
            100 * real(m, "limits"), real(m, "refused"));
    }
}

// The root mean square of each dimension's error in robot units, of every tokenizer.
static void add_errors(soma_str *page, const json_t *dataset) {
    size_t i, a;
    json_t *m, *value;
    soma__str_add(page, "<table><tr><th>error in robot units, root mean square (largest), by dimension</th>");
    json_array_foreach(json_object_get(dataset, "tokenizers"), i, m) {
        soma__str_add(page, "<th>");
        soma__str_add_html(page, text(m, "tokenizer"));
        soma__str_add(page, "</th>");
    }
    soma__str_add(page, "</tr>");
    const json_t *first = json_array_get(json_object_get(dataset, "tokenizers"), 0);
    json_array_foreach(json_object_get(json_object_get(first, "error"), "rms"), a, value) {
        soma__str_printf(page, "<tr><td>%zu</td>", a);
        json_array_foreach(json_object_get(dataset, "tokenizers"), i, m) {
            const json_t *e = json_object_get(m, "error");
            soma__str_printf(page, "<td>%.4g (%.4g)</td>", json_number_value(json_array_get(json_object_get(e, "rms"), a)),
                             json_number_value(json_array_get(json_object_get(e, "max"), a)));
        }
        soma__str_add(page, "</tr>");
    }
    soma__str_add(page, "</table>");
}

typedef struct axes {
    double low, high, most; // log10 of the error; tokens
} axes;

static double across(const axes *x, double tokens) { return MARGIN + WIDTH * tokens / x->most; }
static double down(const axes *x, double error) { return 20 + HEIGHT * (x->high - log10(fmax(error, 1e-9))) / (x->high - x->low); }

static void add_ticks(soma_str *page, const axes *x) {
    soma__str_printf(page, "<svg viewBox='0 0 %d %d'><rect x='%d' y='20' width='%d' height='%d' class='frame'/>", WIDTH + MARGIN + 180,
                     HEIGHT + 60, MARGIN, WIDTH, HEIGHT);
    for (int i = 0; i <= 4; i++) {
        soma__str_printf(page, "<text x='%d' y='%.1f' text-anchor='end'>%.2g</text>", MARGIN - 6, 24 + (1 - i / 4.0) * HEIGHT,
                         pow(10, x->low + (x->high - x->low) * i / 4));
        soma__str_printf(page, "<text x='%.1f' y='%d' text-anchor='middle'>%.0f</text>", MARGIN + WIDTH * i / 4.0, HEIGHT + 38,
                         x->most * i / 4);
    }
    soma__str_printf(page, "<text x='%d' y='%d' text-anchor='middle'>tokens per chunk; error (normalised, root mean square) upwards</text>",
                     MARGIN + WIDTH / 2, HEIGHT + 55);
}

// One line per vocabulary over the scales; each tokenizer of the table as a ring.
static void add_curve(soma_str *page, const json_t *dataset) {
    static const char *const colours[] = {"#9ab", "#27a", "#c33", "#383"};
    axes x = {INFINITY, -INFINITY, 1};
    size_t i, v;
    json_t *p;
    const json_t *curve = json_object_get(dataset, "curve"), *tokenizers = json_object_get(dataset, "tokenizers");
    if (!json_array_size(curve)) return;
    for (int which = 0; which < 2; which++) json_array_foreach(which ? tokenizers : curve, i, p) {
            double error = log10(fmax(real(p, "error_rms"), 1e-9));
            x.low = fmin(x.low, error);
            x.high = fmax(x.high, error);
            x.most = fmax(x.most, which ? real(json_object_get(p, "tokens"), "mean") : real(p, "tokens"));
        }
    if (!(x.high > x.low)) x.high = x.low + 1;
    add_ticks(page, &x);
    for (v = 0; v < SOMA_COUNT(vocabs); v++) {
        soma__str_printf(page, "<text x='%d' y='%zu' style='fill:%s'>vocabulary %lld</text><polyline fill='none' stroke='%s' points='",
                         MARGIN + WIDTH + 10, 40 + 18 * v, colours[v], (long long)vocabs[v], colours[v]);
        json_array_foreach(curve, i, p) if (real(p, "vocab") == (double)vocabs[v])
            soma__str_printf(page, "%.1f,%.1f ", across(&x, real(p, "tokens")), down(&x, real(p, "error_rms")));
        soma__str_add(page, "'/>");
        json_array_foreach(curve, i, p) if (real(p, "vocab") == (double)vocabs[v])
            soma__str_printf(page, "<circle cx='%.1f' cy='%.1f' r='3' fill='%s'><title>scale %.3g</title></circle>",
                             across(&x, real(p, "tokens")), down(&x, real(p, "error_rms")), colours[v], real(p, "scale"));
    }
    json_array_foreach(tokenizers, i, p) {
        double at = across(&x, real(json_object_get(p, "tokens"), "mean")), y = down(&x, real(p, "error_rms"));
        soma__str_printf(page, "<circle cx='%.1f' cy='%.1f' r='5' fill='none' stroke='#222'/><text x='%.1f' y='%.1f'>", at, y, at + 8,
                         y - 6);
        soma__str_add_html(page, text(p, "tokenizer"));
        soma__str_add(page, "</text>");
    }
    soma__str_add(page, "</svg>");
}

soma_status soma__fast_page(const char *path, const json_t *stats, soma_error *err) {
    soma_str page = {0};
    size_t i;
    json_t *d;
    soma__str_add(
        &page,
        "<!doctype html><meta charset='utf-8'><title>FAST</title><style>body{font:15px system-ui,sans-serif;max-width:1100px;margin:2em "
        "auto;color:#222}h1{font-size:1.4em}h2{font-size:1.1em;margin:1.6em 0 .4em}table{border-collapse:collapse;margin:.6em 0}td,th{"
        "padding:2px 10px;text-align:right;border-bottom:1px solid #ddd;font-weight:normal}th{color:#555}td:first-child,th:first-child{"
        "text-align:left}text{font-size:12px;fill:#555}.frame{fill:none;stroke:#ccc}</style><h1>Action tokenizers</h1><table><tr><th>"
        "dataset</th><th>dimensions</th><th>Hz</th><th>steps</th><th>chunks</th><th>tokenizer</th><th>tokens</th><th>median</th><th>p99"
        "</th><th>256 bins</th><th>ratio</th><th>error</th><th>at limits</th><th>refused</th></tr>");
    json_array_foreach(json_object_get(stats, "datasets"), i, d) add_rows(&page, d);
    soma__str_add(&page, "</table>");
    json_array_foreach(json_object_get(stats, "datasets"), i, d) {
        soma__str_add(&page, "<h2>");
        soma__str_add_html(&page, text(d, "name"));
        soma__str_add(&page, "</h2>");
        add_curve(&page, d);
        add_errors(&page, d);
    }
    soma_status status = page.failed ? soma__no_memory(err, "the page") : soma__file_write(path, page.text, page.len, err);
    soma__str_free(&page);
    return status;
}
