// SPDX-License-Identifier: Apache-2.0
// soma bench data: statistics of rows as they are and relative to the state over a horizon, and what it costs to open and to sample a
// dataset of many frames: the episodes by themselves, and by the loader under a limit of memory. The rows are made in memory and the
// dataset in a folder of its own, so that the figures are of the work and not of a disk.
#include "bench/bench.h"
#include "base/rng.h"
#include "bench/large_set.h"
#include "data/exact.h"
#include "data/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTS_TYPE soma_bench_data_opts
SOMA_OPTS_DEFINE(soma_bench_data_opts, SOMA_BENCH_DATA_OPTS, soma__bench_data_defaults)
#undef OPTS_TYPE

enum { EPISODE = 200, PER_FILE = 1000, SAMPLES = 50, BATCH = 32, WINDOWS = 3 };

// ---- statistics

typedef struct rows {
    soma_dataset d;
    soma_dataset_format format;
    soma_episode *episodes;
    int64_t *listed;
    float *values; // [frames, 2 width] by episode: states, then actions
    int width;
} rows;

static soma_status open_nothing(soma_dataset_reader **r, const soma_dataset *d, soma_error *err) {
    (void)d;
    (void)err;
    *r = NULL;
    return SOMA_OK;
}
static void close_nothing(soma_dataset_reader *r) { (void)r; }

static soma_status read_rows(void *user, soma_dataset_reader *reader, int64_t episode, float *out, soma_error *err) {
    const rows *r = user;
    size_t n = (size_t)EPISODE * 2 * (size_t)r->width;
    (void)reader;
    (void)err;
    memcpy(out, r->values + (size_t)episode * n, n * sizeof *out);
    return SOMA_OK;
}

// A walk per joint, as joints move; the action is where the joint goes next.
static soma_status make_rows(rows *r, int64_t frames, int width, soma_error *err) {
    int64_t n = frames / EPISODE;
    soma_rng rng = soma__rng(1);
    r->width = width;
    r->format = (soma_dataset_format){.name = "rows", .reader_open = open_nothing, .reader_close = close_nothing};
    r->episodes = soma__calloc((size_t)n, sizeof *r->episodes);
    r->listed = soma__calloc((size_t)n, sizeof *r->listed);
    r->values = soma__alloc((size_t)(n * EPISODE * 2 * width) * sizeof *r->values);
    if (!r->episodes || !r->listed || !r->values) return soma__no_memory(err, "the rows");
    r->d = (soma_dataset){.format = &r->format, .path = "rows", .n_episodes = n, .episodes = r->episodes};
    for (int64_t e = 0; e < n; e++) {
        float *states = r->values + e * EPISODE * 2 * width, *actions = states + EPISODE * width;
        r->episodes[e] = (soma_episode){e, EPISODE, "", true, true};
        r->listed[e] = e;
        for (int64_t f = 0; f < EPISODE; f++)
            for (int k = 0; k < width; k++) {
                float from = f ? actions[(f - 1) * width + k] : 0;
                states[f * width + k] = from;
                actions[f * width + k] = from + 0.02f * (float)soma__rng_normal(&rng);
            }
    }
    return SOMA_OK;
}

static soma_status time_stats(json_t **out, const rows *r, int64_t horizon, const soma_bench_opts *o, soma_error *err) {
    static const double quantiles[] = {0.01, 0.99};
    int n = r->width;
    soma_exact_column *columns = soma__calloc((size_t)n, sizeof *columns);
    soma_column_stats *stats = soma__calloc((size_t)n, sizeof *stats);
    double *seconds = soma__calloc((size_t)o->repeats, sizeof *seconds);
    soma_exact x = {.dataset = &r->d,
                    .episodes = r->listed,
                    .n_episodes = r->d.n_episodes,
                    .memory = (size_t)4 << 30,
                    .row = 2 * r->width,
                    .split = r->width,
                    .read = read_rows,
                    .user = (void *)(uintptr_t)r,
                    .n_columns = n,
                    .n_quantiles = SOMA_COUNT(quantiles),
                    .columns = columns,
                    .quantiles = quantiles};
    soma_status status = columns && stats && seconds ? soma__pool_new(&x.pool, (int)o->threads, err) : soma__no_memory(err, "statistics");
    for (int c = 0; status == SOMA_OK && c < n; c++) columns[c] = (soma_exact_column){r->width + c, horizon > 1 ? c : -1, horizon};
    for (int64_t i = 0; i < o->repeats && status == SOMA_OK; i++) {
        double started = soma__seconds();
        status = soma__exact_take(stats, &x, NULL, err);
        seconds[i] = soma__seconds() - started;
    }
    if (status == SOMA_OK) {
        soma_spread s = soma__bench_spread(seconds, o->repeats);
        *out = json_pack("{s:I, s:i, s:I, s:[f,f,f]}", "rows", (json_int_t)(r->d.n_episodes * EPISODE), "width", r->width, "horizon",
                         (json_int_t)horizon, "seconds", s.median, s.low, s.high);
    }
    soma__pool_free(x.pool);
    soma__free(columns);
    soma__free(stats);
    soma__free(seconds);
    return status;
}

static soma_status bench_stats(json_t **raw, json_t **delta, const soma_bench_opts *o, const soma_bench_data_opts *data, soma_error *err) {
    rows r = {0};
    soma_status status = make_rows(&r, data->rows, (int)data->width, err);
    if (status == SOMA_OK) status = time_stats(raw, &r, 1, o, err);
    if (status == SOMA_OK) status = time_stats(delta, &r, data->horizon, o, err);
    soma__free(r.episodes);
    soma__free(r.listed);
    soma__free(r.values);
    return status;
}

// ---- a large dataset

static double memory_used(void) { // bytes of this process that are in memory
    long all = 0, here = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld %ld", &all, &here) != 2) here = 0;
    if (file) fclose(file);
    return (double)here * 4096;
}

static soma_status sample(double *seconds, const soma_dataset *d, soma_error *err) {
    int action = soma__dataset_feature(d, "action");
    float *out = soma__alloc((size_t)(EPISODE * d->features[action].size) * sizeof *out);
    soma_dataset_reader *r = NULL;
    soma_rng rng = soma__rng(2);
    soma_status status = out ? d->format->reader_open(&r, d, err) : soma__no_memory(err, "an episode");
    for (int i = 0; i < SAMPLES && status == SOMA_OK; i++) {
        int64_t e = (int64_t)soma__rng_below(&rng, (uint64_t)d->episodes_present);
        double started = soma__seconds();
        status = d->format->read_vectors(r, e, action, out, err);
        seconds[i] = soma__seconds() - started;
    }
    d->format->reader_close(r);
    soma__free(out);
    return status;
}

// Samples per second of the loader, window after window: the first ones fill the memory that the limit gives.
static soma_status sample_loader(json_t **out, const soma_dataset *d, const soma_bench_opts *o, const soma_bench_data_opts *data,
                                 soma_error *err) {
    soma_loader_opts l = soma__loader_defaults();
    soma_loader *loader = NULL;
    const soma_loader_batch *batch;
    int64_t *episodes = soma__alloc((size_t)d->n_episodes * sizeof *episodes), n = 0;
    if (!episodes) return soma__no_memory(err, "the episodes");
    for (; n < d->n_episodes; n++) episodes[n] = n;
    l.state = soma__dataset_feature(d, "observation.state");
    l.action = soma__dataset_feature(d, "action");
    l.episodes = episodes;
    l.n_episodes = d->n_episodes;
    l.horizon = data->horizon;
    l.batch = BATCH;
    l.workers = o->threads ? (int)o->threads : 1;
    l.vectors_size = (size_t)data->limit << 20;
    double before = memory_used(), peak = before, started = soma__seconds();
    soma_status status = soma__loader_open(&loader, d, &l, err);
    double opened = soma__seconds() - started;
    json_t *rates = json_array();
    for (int w = 0; w < WINDOWS && status == SOMA_OK; w++) {
        double start = soma__seconds(), now = start;
        for (n = 0; status == SOMA_OK && now < start + data->seconds / WINDOWS; now = soma__seconds(), n += BATCH) {
            status = soma__loader_next(loader, &batch, err);
            peak = SOMA_MAX(peak, memory_used());
        }
        json_array_append_new(rates, json_real((double)n / (now - start)));
    }
    if (status == SOMA_OK)
        *out =
            json_pack("{s:I, s:f, s:O, s:f, s:I}", "limit_bytes", (json_int_t)l.vectors_size, "open_seconds", opened, "samples_per_second",
                      rates, "peak_bytes", peak - before, "held_bytes", (json_int_t)soma__vectors_held(soma__loader_vectors(loader)));
    json_decref(rates);
    soma__loader_close(loader);
    soma__free(episodes);
    return status;
}

static soma_status bench_large(json_t **out, const char *dir, const soma_bench_opts *o, const soma_bench_data_opts *data, soma_error *err) {
    const large_set set = {data->frames / EPISODE, EPISODE, PER_FILE, INT64_MAX, (int)data->width, false};
    json_t *loader = NULL;
    double sampled[SAMPLES], *seconds = soma__calloc((size_t)o->repeats, sizeof *seconds), before = 0, opened = 0, after = 0;
    if (!seconds) return soma__no_memory(err, "the figures");
    soma_status status = write_large_set(&set, dir, err);
    for (int64_t i = 0; i < o->repeats && status == SOMA_OK; i++) {
        soma_dataset *d;
        if (!i) before = memory_used();
        double started = soma__seconds();
        status = soma__dataset_open(&d, dir, err);
        seconds[i] = soma__seconds() - started;
        if (!i) opened = memory_used();
        if (i == o->repeats - 1 && status == SOMA_OK) status = sample(sampled, d, err);
        after = memory_used();
        if (i == o->repeats - 1 && status == SOMA_OK) status = sample_loader(&loader, d, o, data, err);
        soma__dataset_close(d);
    }
    if (status == SOMA_OK) {
        soma_spread s = soma__bench_spread(seconds, o->repeats), p = soma__bench_spread(sampled, SAMPLES);
        *out = json_pack("{s:I, s:I, s:[f,f,f], s:f, s:[f,f,f], s:f, s:O}", "frames", (json_int_t)(set.episodes * EPISODE), "episodes",
                         (json_int_t)set.episodes, "open_seconds", s.median, s.low, s.high, "open_bytes", opened - before,
                         "episode_seconds", p.median, p.low, p.high, "sampling_bytes", SOMA_MAX(after - opened, 0.0), "loader", loader);
    }
    json_decref(loader);
    soma__free(seconds);
    return status;
}

soma_status soma__bench_data(json_t **out, const soma_bench_opts *o, const soma_bench_data_opts *data, soma_error *err) {
    char dir[] = "/tmp/soma_bench_data_XXXXXX";
    json_t *raw = NULL, *delta = NULL, *large = NULL;
    if (o->repeats < 1 || data->rows < EPISODE || data->frames < EPISODE || data->width < 1 || data->width > 256 || data->horizon < 2 ||
        data->horizon > 4096 || data->limit < 0 || data->limit > 1 << 20 || !(data->seconds > 0))
        return soma__fail(err, SOMA_BAD_INPUT,
                          "rows and frames of %d and more, a width of 1 to 256, a horizon of 2 to 4096, a limit of 0 to 1048576 MiB and "
                          "seconds above 0 are possible",
                          EPISODE);
    if (!mkdtemp(dir)) return soma__fail(err, SOMA_IO, "%s: cannot be made", dir);
    soma_status status = bench_stats(&raw, &delta, o, data, err);
    if (status == SOMA_OK) status = bench_large(&large, dir, o, data, err);
    soma__dir_remove(dir, NULL);
    *out = json_pack("{s:s, s:o, s:o*, s:o*, s:o*}", "what", "data", "machine", soma__bench_machine("", (int)o->threads), "statistics", raw,
                     "delta_statistics", delta, "large", large);
    if (status != SOMA_OK) json_decref(*out);
    return status;
}

static double at(const json_t *r, const char *key, size_t i) { return json_number_value(json_array_get(json_object_get(r, key), i)); }
static double real(const json_t *r, const char *key) { return json_number_value(json_object_get(r, key)); }

void soma__bench_data_print(const json_t *r) {
    const json_t *large = json_object_get(r, "large");
    printf("data on %s, %.0f threads (0: all)\n", json_string_value(json_object_get(json_object_get(r, "machine"), "processor")),
           real(json_object_get(r, "machine"), "threads"));
    static const char *const keys[] = {"statistics", "delta_statistics"};
    for (int i = 0; i < 2; i++) {
        const json_t *s = json_object_get(r, keys[i]);
        printf("%-28s %.0f x %.0f", i ? "relative to the state" : "statistics", real(s, "rows"), real(s, "width"));
        if (i) printf(", horizon %.0f", real(s, "horizon"));
        printf(": %.3f s (%.3f to %.3f)\n", at(s, "seconds", 0), at(s, "seconds", 1), at(s, "seconds", 2));
    }
    printf("%-28s %.0f frames in %.0f episodes: %.3f s (%.3f to %.3f), %.1f MB\n", "open", real(large, "frames"), real(large, "episodes"),
           at(large, "open_seconds", 0), at(large, "open_seconds", 1), at(large, "open_seconds", 2), real(large, "open_bytes") / 1e6);
    printf("%-28s %.1f ms each (%.1f to %.1f), %.1f MB\n", "episodes at random", 1e3 * at(large, "episode_seconds", 0),
           1e3 * at(large, "episode_seconds", 1), 1e3 * at(large, "episode_seconds", 2), real(large, "sampling_bytes") / 1e6);
    const json_t *loader = json_object_get(large, "loader");
    printf("%-28s %.3f s to open, then %.0f, %.0f, %.0f samples/s; at most %.1f MB, states and actions %.1f of %.1f MB\n", "loader",
           real(loader, "open_seconds"), at(loader, "samples_per_second", 0), at(loader, "samples_per_second", 1),
           at(loader, "samples_per_second", 2), real(loader, "peak_bytes") / 1e6, real(loader, "held_bytes") / 1e6,
           real(loader, "limit_bytes") / 1e6);
}
