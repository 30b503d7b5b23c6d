// SPDX-License-Identifier: Apache-2.0
// FAST: one chunk at a time, many on all threads, and fitting. With --save the chunks are written, so that tools/bench_fast.py can give the
// very same ones to the Python way. A single chunk's time is told whole and without the search for tokens (transform and rounding alone),
// since these are what it is made of.
#include "bench/bench.h"
#include "base/file.h"
#include "base/pool.h"
#include "base/rng.h"
#include "cmd/cmd_chunks.h"
#include "format/safetensors.h"
#include "text/fast_batch.h"
#include "text/fast_dct.h"
#include "text/fast_fit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define OPTS_TYPE soma_bench_fast_opts
SOMA_OPTS_DEFINE(soma_bench_fast_opts, SOMA_BENCH_FAST_OPTS, soma__bench_fast_defaults)
#undef OPTS_TYPE

enum { SINGLES = 100, SINGLE_REPEATS = 20, BATCH = 20000, FIT_T = 16, FIT_A = 7, PIECE = 20000 };

static const int shapes[][2] = {{10, 7}, {16, 26}, {50, 14}};

// ---- chunks

typedef struct source {
    soma_chunks *sets; // [n], of one number of steps
    int n;
} source;

static void close_source(source *s) {
    for (int i = 0; i < s->n; i++) soma__chunks_free(&s->sets[i]);
    soma__free(s->sets);
    *s = (source){0};
}

// The datasets' chunks of T steps; none without --data.
static soma_status open_source(source *s, const char *list, int64_t T, soma_error *err) {
    soma_chunk_opts o = {.horizon = T, .stride = 1, .max_chunks = 20000, .feature = "", .normalise = true, .clip = true};
    char path[SOMA_OPT_TEXT];
    *s = (source){0};
    s->sets = soma__calloc(SOMA_OPT_TEXT, sizeof *s->sets);
    if (!s->sets) return soma__no_memory(err, "the datasets");
    for (const char *at = list; *at; at += *at == ',') {
        size_t len = strcspn(at, ",");
        snprintf(path, sizeof path, "%.*s", (int)len, at);
        at += len;
        if (!len) continue;
        SOMA_TRY(soma__chunks_read(&s->sets[s->n++], path, &o, err));
        if (!s->sets[s->n - 1].n) s->n--;
    }
    return SOMA_OK;
}

// A chunk [T, A]: one of a dataset, its dimensions taken in order from a random one on, with a little noise (0.01 of the normalised range);
// without datasets a smooth motion. Rounded to f32, as it is saved.
static void make_chunk(double *x, const source *s, int64_t T, int64_t A, soma_rng rng) {
    const soma_chunks *c = s->n ? &s->sets[soma__rng_below(&rng, (uint64_t)s->n)] : NULL;
    const double *from = c ? c->values + (int64_t)soma__rng_below(&rng, (uint64_t)c->n) * c->T * c->A : NULL;
    int64_t first = c ? (int64_t)soma__rng_below(&rng, (uint64_t)c->A) : 0;
    for (int64_t a = 0; a < A; a++) {
        double at = 0.4 * soma__rng_normal(&rng), speed = 0.3 / (double)T * soma__rng_normal(&rng);
        for (int64_t t = 0; t < T; t++, at += speed) {
            double value = c ? from[t * c->A + (first + a) % c->A] : at;
            x[t * A + a] = (double)(float)(value + 0.01 * soma__rng_normal(&rng));
        }
    }
}

static soma_status save(const char *dir, const char *name, const double *x, int64_t n, int64_t T, int64_t A, soma_error *err) {
    char path[SOMA_PATH_MAX];
    float *narrow = soma__alloc((size_t)(n * T * A) * sizeof *narrow);
    soma_status status = narrow ? soma__dir_make(dir, err) : soma__no_memory(err, "the chunks");
    for (int64_t i = 0; status == SOMA_OK && i < n * T * A; i++) narrow[i] = (float)x[i];
    soma_safetensor tensor = {.name = "chunks", .dtype = SOMA_F32, .n_dims = 3, .shape = {n, T, A}, .data = narrow};
    if (status == SOMA_OK) status = soma__path_join(path, dir, name, err);
    if (status == SOMA_OK) status = soma__safetensors_write(path, &tensor, 1, NULL, err);
    soma__free(narrow);
    return status;
}

static json_t *spread_json(soma_spread s, double per) { return json_pack("[f,f,f]", s.median / per, s.low / per, s.high / per); }

// ---- one chunk at a time

typedef struct single {
    soma_fast_work *work;
    soma_dct *dct;
    double *x, *back;
    int32_t *ids, *codes;
    int64_t *offsets;
    int64_t n, T, A;
} single;

static soma_status run_singles(single *s, int64_t repeats, double *seconds[3], soma_error *err) {
    int64_t size = s->T * s->A, clipped;
    int32_t all;
    for (int64_t r = -1; r < repeats; r++) { // once to warm up
        double t0 = soma__seconds();
        for (int64_t i = 0; i < s->n; i++) {
            soma_fast_ids out;
            SOMA_TRY(soma__fast_encode(s->work, s->x + i * size, s->T, s->A, &out, err));
            memcpy(s->ids + s->offsets[i], out.ids, out.n * sizeof *s->ids);
            s->offsets[i + 1] = s->offsets[i] + (int64_t)out.n;
        }
        double t1 = soma__seconds();
        for (int64_t i = 0; i < s->n; i++)
            SOMA_TRY(soma__fast_decode(s->work, s->ids + s->offsets[i], (size_t)(s->offsets[i + 1] - s->offsets[i]), SOMA_FAST_STRICT, s->T,
                                       s->A, s->back, err));
        double t2 = soma__seconds();
        for (int64_t i = 0; i < s->n; i++) {
            soma__dct_forward(s->dct, s->x + i * size, s->back, s->A);
            soma__quantise(s->back, size, 10, -354, s->codes, &clipped, &all);
        }
        double t3 = soma__seconds();
        if (r < 0) continue;
        seconds[0][r] = t1 - t0;
        seconds[1][r] = t2 - t1;
        seconds[2][r] = t3 - t2;
    }
    return SOMA_OK;
}

static soma_status bench_shape(json_t *rows, const soma_fast *fast, const int shape[2], const soma_bench_opts *o,
                               const soma_bench_fast_opts *f, soma_error *err) {
    single s = {.n = SINGLES, .T = shape[0], .A = shape[1]};
    size_t size = (size_t)(s.T * s.A), repeats = SINGLE_REPEATS * (size_t)SOMA_MAX(o->repeats, 1); // short ones: most are undisturbed
    double *seconds[3] = {soma__alloc(repeats * 8), soma__alloc(repeats * 8), soma__alloc(repeats * 8)};
    source src = {0};
    char name[64];
    s.x = soma__alloc((size_t)s.n * size * sizeof *s.x);
    s.back = soma__alloc(size * sizeof *s.back);
    s.codes = soma__alloc(size * sizeof *s.codes);
    s.ids = soma__alloc(4 * (size_t)s.n * size * sizeof *s.ids);
    s.offsets = soma__calloc((size_t)s.n + 1, sizeof *s.offsets);
    bool ok = seconds[0] && seconds[1] && seconds[2] && s.x && s.back && s.codes && s.ids && s.offsets;
    soma_status status = ok ? open_source(&src, f->data, s.T, err) : soma__no_memory(err, "the chunks");
    soma_rng rng = soma__rng(1);
    for (int64_t i = 0; status == SOMA_OK && i < s.n; i++)
        make_chunk(s.x + i * (int64_t)size, &src, s.T, s.A, soma__rng_fold(&rng, (uint64_t)i));
    snprintf(name, sizeof name, "chunks_%dx%d.safetensors", shape[0], shape[1]);
    if (status == SOMA_OK && *f->save) status = save(f->save, name, s.x, s.n, s.T, s.A, err);
    if (status == SOMA_OK) status = soma__fast_work_new(&s.work, fast, err);
    if (status == SOMA_OK) status = soma__dct_new(&s.dct, s.T, err);
    if (status == SOMA_OK) status = soma__dct_reserve(s.dct, s.A, err);
    if (status == SOMA_OK) status = run_singles(&s, (int64_t)repeats, seconds, err);
    if (status == SOMA_OK) {
        soma_spread e = soma__bench_spread(seconds[0], (int64_t)repeats), d = soma__bench_spread(seconds[1], (int64_t)repeats),
                    t = soma__bench_spread(seconds[2], (int64_t)repeats);
        json_array_append_new(rows, json_pack("{s:i,s:i,s:f,s:o,s:o,s:o,s:f}", "T", shape[0], "A", shape[1], "tokens",
                                              (double)s.offsets[s.n] / (double)s.n, "encode", spread_json(e, (double)s.n), "decode",
                                              spread_json(d, (double)s.n), "transform", spread_json(t, (double)s.n), "encode_ns_per_code",
                                              1e9 * e.median / (double)s.n / (double)size));
    }
    soma__fast_work_free(s.work);
    soma__dct_free(s.dct);
    close_source(&src);
    void *all[] = {seconds[0], seconds[1], seconds[2], s.x, s.back, s.codes, s.ids, s.offsets};
    for (size_t i = 0; i < SOMA_COUNT(all); i++) soma__free(all[i]);
    return status;
}

// ---- batches

static soma_status bench_batch(json_t *out, const soma_fast *fast, const soma_bench_opts *o, const soma_bench_fast_opts *f, soma_pool *pool,
                               soma_error *err) {
    size_t repeats = (size_t)SOMA_MAX(o->repeats, 1);
    double *x = soma__alloc((size_t)BATCH * FIT_T * FIT_A * sizeof *x), *encode = soma__alloc(repeats * 8),
           *decode = soma__alloc(repeats * 8);
    double *back = soma__alloc((size_t)BATCH * FIT_T * FIT_A * sizeof *back);
    source src = {0};
    soma_status status = x && encode && decode && back ? open_source(&src, f->data, FIT_T, err) : soma__no_memory(err, "the chunks");
    soma_rng rng = soma__rng(2);
    for (int64_t i = 0; status == SOMA_OK && i < BATCH; i++)
        make_chunk(x + i * FIT_T * FIT_A, &src, FIT_T, FIT_A, soma__rng_fold(&rng, (uint64_t)i));
    if (status == SOMA_OK && *f->save) status = save(f->save, "chunks_batch.safetensors", x, BATCH, FIT_T, FIT_A, err);
    for (size_t r = 0; status == SOMA_OK && r < repeats; r++) {
        soma_fast_rows rows;
        double t0 = soma__seconds();
        status = soma__fast_encode_batch(&rows, fast, x, BATCH, FIT_T, FIT_A, pool, err);
        double t1 = soma__seconds();
        if (status == SOMA_OK)
            status = soma__fast_decode_batch(back, NULL, fast, rows.ids, rows.offsets, BATCH, SOMA_FAST_STRICT, FIT_T, FIT_A, pool, err);
        encode[r] = t1 - t0;
        decode[r] = soma__seconds() - t1;
        if (status == SOMA_OK) soma__fast_rows_free(&rows);
    }
    if (status == SOMA_OK) {
        soma_spread e = soma__bench_spread(encode, (int64_t)repeats), d = soma__bench_spread(decode, (int64_t)repeats);
        json_object_set_new(out, "batch",
                            json_pack("{s:i,s:i,s:i,s:o,s:o,s:f}", "chunks", BATCH, "T", FIT_T, "A", FIT_A, "encode", spread_json(e, 1),
                                      "decode", spread_json(d, 1), "encode_chunks_per_second", BATCH / e.median));
    }
    close_source(&src);
    soma__free(x);
    soma__free(back);
    soma__free(encode);
    soma__free(decode);
    return status;
}

// ---- fitting

static int64_t peak_memory(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (int64_t)usage.ru_maxrss * 1024;
}

// Chunks are made and added piece by piece; with --save they are all kept, to be written, and the peak memory counts them.
static soma_status bench_fit(json_t *out, const soma_bench_fast_opts *f, soma_pool *pool, soma_error *err) {
    source src = {0};
    soma_fast_fit *fit = NULL;
    soma_fast *fast = NULL;
    int64_t n = f->fit_chunks, size = FIT_T * FIT_A, kept = *f->save ? n : SOMA_MIN(n, PIECE);
    double *x = soma__alloc((size_t)(kept * size) * sizeof *x), adding = 0, running = 0;
    soma_rng rng = soma__rng(3);
    soma_status status = x ? open_source(&src, f->data, FIT_T, err) : soma__no_memory(err, "the chunks");
    if (status == SOMA_OK) status = soma__fast_fit_new(&fit, 10, NULL, err);
    for (int64_t from = 0; status == SOMA_OK && from < n; from += PIECE) {
        int64_t some = SOMA_MIN(n - from, PIECE);
        double *at = x + (kept == n ? from * size : 0);
        for (int64_t i = 0; i < some; i++) make_chunk(at + i * size, &src, FIT_T, FIT_A, soma__rng_fold(&rng, (uint64_t)(from + i)));
        double t = soma__seconds();
        status = soma__fast_fit_add(fit, at, some, FIT_T, FIT_A, pool, err);
        adding += soma__seconds() - t;
    }
    if (status == SOMA_OK && *f->save) status = save(f->save, "chunks_fit.safetensors", x, n, FIT_T, FIT_A, err);
    double t = soma__seconds();
    if (status == SOMA_OK) status = soma__fast_fit_run(&fast, fit, 1024, pool, err);
    running = soma__seconds() - t;
    if (status == SOMA_OK && *f->save) {
        char dir[SOMA_PATH_MAX];
        status = soma__path_join(dir, f->save, "fitted", err);
        if (status == SOMA_OK) status = soma__fast_save(fast, dir, err);
    }
    if (status == SOMA_OK)
        json_object_set_new(out, "fit",
                            json_pack("{s:I,s:i,s:i,s:I,s:f,s:f,s:f,s:I}", "chunks", (json_int_t)n, "T", FIT_T, "A", FIT_A, "vocab",
                                      (json_int_t)soma__fast_vocab(fast), "quantise", adding, "learn", running, "seconds", adding + running,
                                      "peak_memory", (json_int_t)peak_memory()));
    soma__fast_close(fast);
    soma__fast_fit_free(fit);
    close_source(&src);
    soma__free(x);
    return status;
}

soma_status soma__bench_fast(json_t **out, const soma_bench_opts *o, const soma_bench_fast_opts *f, soma_error *err) {
    soma_fast *fast;
    soma_pool *pool = NULL;
    if (!*f->tokenizer) return soma__fail(err, SOMA_BAD_INPUT, "--tokenizer is missing: the folder of a FAST tokenizer");
    if (f->fit_chunks < 0 || f->fit_chunks > 100000000)
        return soma__fail(err, SOMA_BAD_INPUT, "--fit-chunks: 0 to 100 million are possible");
    SOMA_TRY(soma__fast_open(&fast, f->tokenizer, err));
    soma_status status = soma__pool_new(&pool, (int)o->threads, err);
    json_t *rows = json_array();
    *out =
        json_pack("{s:s,s:o,s:O}", "what", "fast", "machine", soma__bench_machine("", pool ? soma__pool_threads(pool) : 0), "single", rows);
    for (size_t i = 0; status == SOMA_OK && i < SOMA_COUNT(shapes); i++) status = bench_shape(rows, fast, shapes[i], o, f, err);
    if (status == SOMA_OK) status = bench_batch(*out, fast, o, f, pool, err);
    if (status == SOMA_OK && f->fit_chunks) status = bench_fit(*out, f, pool, err);
    json_decref(rows);
    soma__pool_free(pool);
    soma__fast_close(fast);
    if (status == SOMA_OK) return SOMA_OK;
    json_decref(*out);
    *out = NULL;
    return status;
}

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }
static double at(const json_t *object, const char *key, size_t i) {
    return json_number_value(json_array_get(json_object_get(object, key), i));
}

void soma__bench_fast_print(const json_t *r) {
    size_t i;
    json_t *row;
    const json_t *m = json_object_get(r, "machine"), *batch = json_object_get(r, "batch"), *fit = json_object_get(r, "fit");
    printf("fast on %s, %.0f threads; median (fastest to slowest)\n", json_string_value(json_object_get(m, "processor")),
           real(m, "threads"));
    json_array_foreach(json_object_get(r, "single"), i, row)
        printf("  %2.0fx%-2.0f  %5.1f tokens  encode %6.2f us (%.2f to %.2f), %.1f ns per code, %.2f us of it transform and rounding; "
               "decode %.2f us "
               "(%.2f to %.2f)\n",
               real(row, "T"), real(row, "A"), real(row, "tokens"), 1e6 * at(row, "encode", 0), 1e6 * at(row, "encode", 1),
               1e6 * at(row, "encode", 2), real(row, "encode_ns_per_code"), 1e6 * at(row, "transform", 0), 1e6 * at(row, "decode", 0),
               1e6 * at(row, "decode", 1), 1e6 * at(row, "decode", 2));
    printf("  batch of %.0f chunks of %.0fx%.0f: encode %.1f ms (%.0f chunks/s), decode %.1f ms\n", real(batch, "chunks"), real(batch, "T"),
           real(batch, "A"), 1e3 * at(batch, "encode", 0), real(batch, "encode_chunks_per_second"), 1e3 * at(batch, "decode", 0));
    if (fit)
        printf("  fit on %.0f chunks of %.0fx%.0f: %.2f s (%.2f quantising, %.2f learning), %.0f tokens, peak memory %.0f MB\n",
               real(fit, "chunks"), real(fit, "T"), real(fit, "A"), real(fit, "seconds"), real(fit, "quantise"), real(fit, "learn"),
               real(fit, "vocab"), 1e-6 * real(fit, "peak_memory"));
}
