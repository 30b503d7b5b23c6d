// SPDX-License-Identifier: Apache-2.0
// What a trainer gets from the loader: samples and pictures per second from cameras' files as they lie there, from pictures that were
// decoded before, and the share of time that a trainer of nano, as the demo trains it, waits. The limit of the first is the speed at which
// the same threads decode the same files from beginning to end. With --save the samples are written in their order, so that
// tools/peer_loader.py can read the very same ones in Python.
#include "base/file.h"
#include "base/pool.h"
#include "base/rng.h"
#include "bench/bench.h"
#include "data/loader.h"
#include "data/writer.h"

#include <soma/train.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTS_TYPE soma_bench_loader_opts
SOMA_OPTS_DEFINE(soma_bench_loader_opts, SOMA_BENCH_LOADER_OPTS, soma__bench_loader_defaults)
#undef OPTS_TYPE

enum { HORIZON = 16, WINDOWS = 3, SAVED = 200, SIDE = 256, MADE_EPISODES = 8, MADE_FRAMES = 100 };

// ---- a dataset where none is given

void soma__bench_paint(uint8_t *rgb, int width, int height, int frame, int camera, soma_rng *rng) {
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint8_t *p = rgb + (y * width + x) * 3;
            bool square = abs(x - (40 + frame) % width) < 30 && abs(y - (80 + camera * 60)) < 30;
            uint64_t noise = soma__rng_u64(rng);
            p[0] = (uint8_t)(square ? 220 : 128 * x / width + (int)(noise & 7));
            p[1] = (uint8_t)(square ? 40 : 128 * y / height + (int)(noise >> 8 & 7));
            p[2] = (uint8_t)(square ? 60 : 90 + camera * 40 + (int)(noise >> 16 & 7));
        }
}

static soma_status make_frames(soma_dataset_writer *w, soma_error *err) {
    static uint8_t pictures[2][SIDE * SIDE * 3];
    const uint8_t *images[] = {pictures[0], pictures[1]};
    soma_rng rng = soma__rng(5);
    for (int e = 0; e < MADE_EPISODES; e++) {
        for (int f = 0; f < MADE_FRAMES; f++) {
            float state[7], action[7];
            for (int i = 0; i < 7; i++) {
                state[i] = (float)(0.01 * f * (i + 1) + 0.1 * e);
                action[i] = state[i] + 0.01f * (float)soma__rng_normal(&rng);
            }
            for (int c = 0; c < 2; c++) soma__bench_paint(pictures[c], SIDE, SIDE, f + 17 * e, c, &rng);
            SOMA_TRY(soma__dataset_writer_frame(w, state, action, images, err));
        }
        SOMA_TRY(soma__dataset_writer_episode(w, e % 2 ? "push the square" : "follow the square", err));
    }
    return soma__dataset_writer_finish(w, err);
}

static soma_status make_dataset(const char *path, soma_error *err) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g"}, *const cameras[] = {"front", "wrist"};
    const soma_dataset_spec spec = {.robot_type = "made up",
                                    .fps = 20,
                                    .n_state = 7,
                                    .n_actions = 7,
                                    .n_cameras = 2,
                                    .state_names = names,
                                    .action_names = names,
                                    .camera_names = cameras,
                                    .image_width = SIDE,
                                    .image_height = SIDE};
    soma_dataset_writer *w;
    SOMA_TRY(soma__dataset_writer_open(&w, path, &spec, err));
    soma_status status = make_frames(w, err);
    soma__dataset_writer_close(w);
    return status;
}

// ---- one dataset

typedef struct bench {
    const soma_bench_opts *all;
    const soma_bench_loader_opts *o;
    char folder[SOMA_PATH_MAX]; // for what is made here
    soma_dataset *d;
    soma_loader_opts l; // of the dataset
    int64_t *episodes, n_frames, n_pictures;
    FILE *saved; // NULL: nothing is saved
} bench;

// The first vector features that are called as a state and an action, and all cameras that are there.
static soma_status choose(bench *b, soma_error *err) {
    static const char *const words[2][3] = {{"observation.state", "state", NULL}, {"action", "actions", NULL}};
    int *features[] = {&b->l.state, &b->l.action};
    b->l = soma__loader_defaults();
    for (int i = 0; i < 2; i++) {
        for (int k = 0; words[i][k] && *features[i] < 0; k++) *features[i] = soma__dataset_feature(b->d, words[i][k]);
        if (*features[i] < 0) return soma__fail(err, SOMA_BAD_INPUT, "%s: has no \"%s\"", b->d->path, words[i][0]);
    }
    for (int f = 0; f < b->d->n_features && b->l.n_cameras < SOMA_LOADER_CAMERAS; f++)
        if (b->d->features[f].kind == SOMA_FEATURE_IMAGE && soma__dataset_has(b->d, f)) b->l.cameras[b->l.n_cameras++] = f;
    b->episodes = soma__alloc(((size_t)b->d->n_episodes + 1) * sizeof *b->episodes);
    if (!b->episodes) return soma__no_memory(err, "the episodes");
    for (int64_t e = 0; e < b->d->n_episodes; e++) {
        if (!b->d->episodes[e].present || !b->d->episodes[e].video_present) continue;
        b->episodes[b->l.n_episodes++] = e;
        b->n_frames += b->d->episodes[e].n_frames;
    }
    b->n_pictures = b->n_frames * b->l.n_cameras;
    b->l.episodes = b->episodes;
    b->l.horizon = HORIZON;
    b->l.batch = b->all->batch;
    b->l.workers = (int)b->o->workers;
    b->l.cache_size = 0;
    if (b->n_pictures) return SOMA_OK;
    return soma__fail(err, SOMA_NOT_FOUND, "%s: has no episode with pictures", b->d->path);
}

typedef struct sequence {
    bench *b;
    soma_dataset_reader **readers;
    uint8_t **pictures;
    int64_t *counts;
    double until;
    soma_status status; // of the thread that failed last
    soma_error err;
} sequence;

static void decode_one(void *ctx, int64_t item, int thread) {
    sequence *s = ctx;
    bench *b = s->b;
    int64_t e = b->episodes[item / b->l.n_cameras];
    int camera = b->l.cameras[item % b->l.n_cameras];
    for (int64_t i = 0; i < b->d->episodes[e].n_frames && soma__seconds() < s->until; i++) {
        soma_error err = {0};
        soma_status status = b->d->format->read_image(s->readers[thread], e, i, camera, s->pictures[thread], &err);
        s->counts[thread] += status == SOMA_OK;
        if (status == SOMA_OK) continue;
        s->status = status;
        s->err = err;
        return;
    }
}

// Pictures per second from beginning to end, every thread with a file of its own.
static soma_status measure_limit(double *rate, bench *b, soma_error *err) {
    soma_pool *pool;
    SOMA_TRY(soma__pool_new(&pool, (int)b->o->workers, err));
    size_t n = (size_t)soma__pool_threads(pool), largest = 0;
    for (int c = 0; c < b->l.n_cameras; c++) largest = SOMA_MAX(largest, (size_t)b->d->features[b->l.cameras[c]].size);
    sequence s = {.b = b,
                  .readers = soma__calloc(n, sizeof *s.readers),
                  .pictures = soma__calloc(n, sizeof *s.pictures),
                  .counts = soma__calloc(n, sizeof *s.counts)};
    soma_status status = s.readers && s.pictures && s.counts ? SOMA_OK : soma__no_memory(err, "the decoders");
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        status = b->d->format->reader_open(&s.readers[i], b->d, err);
        if (status == SOMA_OK && !(s.pictures[i] = soma__alloc(largest))) status = soma__no_memory(err, "a picture");
    }
    double start = soma__seconds(), total = 0;
    s.until = start + b->o->seconds;
    if (status == SOMA_OK) soma__pool_run(pool, b->l.n_episodes * b->l.n_cameras, decode_one, &s);
    for (size_t i = 0; i < n && status == SOMA_OK; i++) total += (double)s.counts[i];
    *rate = total / (soma__seconds() - start);
    if (status == SOMA_OK && s.status != SOMA_OK) status = soma__fail(err, s.status, "%s", s.err.text);
    for (size_t i = 0; i < n; i++) {
        if (s.readers && s.readers[i]) b->d->format->reader_close(s.readers[i]);
        if (s.pictures) soma__free(s.pictures[i]);
    }
    soma__free(s.readers);
    soma__free(s.pictures);
    soma__free(s.counts);
    soma__pool_free(pool);
    return status;
}

static void save_batch(bench *b, const soma_loader_batch *batch) {
    for (int64_t i = 0; i < b->l.batch; i++)
        fprintf(b->saved, "%s[%lld, %lld]", i ? ", " : "[", (long long)b->d->episodes[batch->episode[i]].index, (long long)batch->frame[i]);
    fputs("]\n", b->saved);
}

// Samples per second, window after window; the queue is filled before the first.
static soma_status measure_samples(json_t **out, bench *b, const soma_loader_opts *o, bool save, soma_error *err) {
    soma_loader *l;
    const soma_loader_batch *batch;
    double seconds[WINDOWS], opened = soma__seconds();
    SOMA_TRY(soma__loader_open(&l, b->d, o, err));
    opened = soma__seconds() - opened;
    soma_status status = SOMA_OK;
    for (int i = 0; i < o->queue + o->workers && status == SOMA_OK; i++) status = soma__loader_next(l, &batch, err);
    for (int w = 0; w < WINDOWS && status == SOMA_OK; w++) {
        double start = soma__seconds(), now = start;
        int64_t n = 0;
        while (status == SOMA_OK && now < start + b->o->seconds / WINDOWS) {
            status = soma__loader_next(l, &batch, err);
            n += o->batch;
            now = soma__seconds();
        }
        seconds[w] = (now - start) / (double)n;
    }
    if (status == SOMA_OK && save) status = soma__loader_seek(l, 0, err);
    for (int i = 0; i < SAVED && save && status == SOMA_OK; i++) {
        status = soma__loader_next(l, &batch, err);
        if (status == SOMA_OK) save_batch(b, batch);
    }
    soma__loader_close(l);
    if (status != SOMA_OK) return status;
    soma_spread s = soma__bench_spread(seconds, WINDOWS);
    *out = json_pack("{s:f, s:[f, f, f], s:f}", "open_seconds", opened, "samples_per_second", 1 / s.median, 1 / s.high, 1 / s.low,
                     "pictures_per_second", (double)b->l.n_cameras / s.median);
    return *out ? SOMA_OK : soma__no_memory(err, "the figures");
}

// Only the order is of interest here, so nothing is decoded for it: without cameras.
static soma_status save_order(bench *b, soma_error *err) {
    soma_loader_opts o = b->l;
    json_t *ignored = NULL;
    o.n_cameras = 0;
    fprintf(b->saved, "{\"data\": \"%s\", \"horizon\": %d, \"batch\": %lld}\n", b->d->path, HORIZON, (long long)b->l.batch);
    soma_status status = measure_samples(&ignored, b, &o, true, err);
    json_decref(ignored);
    return status;
}

static json_t *describe(const bench *b) {
    const soma_feature *f = &b->d->features[b->l.cameras[0]];
    return json_pack("{s:s, s:I, s:I, s:i, s:I, s:I}", "data", b->d->path, "episodes", (json_int_t)b->l.n_episodes, "frames",
                     (json_int_t)b->n_frames, "cameras", b->l.n_cameras, "width", (json_int_t)f->shape[1], "height",
                     (json_int_t)f->shape[0]);
}

// From the files; from memory or, where the pictures are too many for it, at openpi's size; from a folder that another run filled.
static soma_status measure_dataset(json_t *row, bench *b, soma_error *err) {
    double limit = 0;
    json_t *one = NULL;
    soma_loader_opts o = b->l;
    SOMA_TRY(choose(b, err));
    json_object_update_new(row, describe(b));
    if (b->saved) SOMA_TRY(save_order(b, err));
    SOMA_TRY(measure_limit(&limit, b, err));
    json_object_set_new(row, "limit_pictures_per_second", json_real(limit));
    SOMA_TRY(measure_samples(&one, b, &b->l, false, err));
    json_object_set_new(one, "share_of_limit", json_real(json_number_value(json_object_get(one, "pictures_per_second")) / limit));
    json_object_set_new(row, "decoded", one);
    o = b->l;
    o.side = 224;
    o.cache_size = (size_t)2 << 30;
    SOMA_TRY(measure_samples(&one, b, &o, false, err));
    json_object_set_new(row, "memory", one);
    o.cache_size = 0;
    o.folder = b->folder;
    o.folder_size = (size_t)2 << 30;
    for (int again = 0; again <= 1; again++) {
        SOMA_TRY(measure_samples(&one, b, &o, false, err));
        json_object_set_new(row, again ? "folder_again" : "folder", one);
    }
    return SOMA_OK;
}

static soma_status add_dataset(json_t *rows, bench *b, const char *path, soma_error *err) {
    json_t *row = json_object();
    SOMA_TRY(soma__dataset_open(&b->d, path, err));
    soma_status status = row ? measure_dataset(row, b, err) : soma__no_memory(err, "the figures");
    soma__dataset_close(b->d);
    soma__free(b->episodes);
    b->episodes = NULL;
    b->n_frames = 0;
    if (status == SOMA_OK)
        json_array_append_new(rows, row);
    else
        json_decref(row);
    return status;
}

// ---- a trainer

static bool keep(void *user, const soma_train_progress *p) {
    *(soma_train_progress *)user = *p;
    return true;
}

// As scripts/demo.sh trains.
static soma_status measure_trainer(json_t **out, const bench *b, const char *data, soma_error *err) {
    soma_train_opts t = soma_train_defaults();
    soma_train_progress last = {0};
    char policy[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(policy, b->folder, "policy", err));
    if (snprintf(t.data, sizeof t.data, "%s", data) >= (int)sizeof t.data ||
        snprintf(t.out, sizeof t.out, "%s", policy) >= (int)sizeof t.out)
        return soma__fail(err, SOMA_BAD_INPUT, "%.60s...: the path of --scratch is too long", b->folder);
    t.batch = b->all->batch;
    t.draws = 2;
    t.steps = t.save_every = t.eval_every = b->o->steps;
    t.threads = b->all->threads;
    SOMA_TRY(soma_train(&t, keep, &last, err));
    *out = json_pack("{s:s, s:I, s:I, s:f, s:f}", "preset", t.preset, "steps", (json_int_t)t.steps, "batch", (json_int_t)t.batch,
                     "samples_per_second", last.samples_per_second, "wait_share", last.wait_share);
    return *out ? SOMA_OK : soma__no_memory(err, "the figures");
}

// ---- all

static soma_status check_opts(const soma_bench_opts *all, const soma_bench_loader_opts *o, soma_error *err) {
    if (all->batch < 1 || all->batch > 4096 || o->workers < 1 || o->workers > 256 || o->steps < 0 || !(o->seconds > 0))
        return soma__fail(err, SOMA_BAD_INPUT, "batch 1 to 4096, workers 1 to 256, steps 0 or more and seconds above 0 are needed");
    return SOMA_OK;
}

static soma_status measure(json_t *rows, json_t **trainer, bench *b, soma_error *err) {
    char made[SOMA_PATH_MAX], path[SOMA_OPT_TEXT];
    SOMA_TRY(soma__path_join(made, b->folder, "made", err));
    if (!*b->o->data || b->o->steps) SOMA_TRY(make_dataset(made, err));
    if (!*b->o->data) SOMA_TRY(add_dataset(rows, b, made, err));
    for (const char *at = b->o->data; *at; at += *at == ',') {
        size_t len = strcspn(at, ",");
        snprintf(path, sizeof path, "%.*s", (int)len, at);
        at += len;
        if (len) SOMA_TRY(add_dataset(rows, b, path, err));
    }
    return b->o->steps ? measure_trainer(trainer, b, made, err) : SOMA_OK;
}

soma_status soma__bench_loader(json_t **out, const soma_bench_opts *all, const soma_bench_loader_opts *o, soma_error *err) {
    bench b = {.all = all, .o = o};
    json_t *rows = json_array(), *trainer = NULL;
    *out = NULL;
    soma_status status = check_opts(all, o, err);
    snprintf(b.folder, sizeof b.folder, "%s/soma-bench-XXXXXX", *o->scratch ? o->scratch : "/tmp");
    const bool made = status == SOMA_OK && mkdtemp(b.folder);
    if (status == SOMA_OK && !made) status = soma__fail(err, SOMA_IO, "%s: cannot be made", b.folder);
    if (status == SOMA_OK && *o->save && !(b.saved = fopen(o->save, "w")))
        status = soma__fail(err, SOMA_IO, "%s: cannot be written", o->save);
    if (status == SOMA_OK) status = rows ? measure(rows, &trainer, &b, err) : soma__no_memory(err, "the figures");
    if (b.saved && fclose(b.saved) && status == SOMA_OK) status = soma__fail(err, SOMA_IO, "%s: cannot be written", o->save);
    if (made) soma__dir_remove(b.folder, NULL);
    if (status == SOMA_OK) {
        *out = json_pack("{s:s, s:o, s:I, s:I, s:O, s:O?}", "what", "loader", "machine", soma__bench_machine("any", (int)o->workers),
                         "batch", (json_int_t)all->batch, "horizon", (json_int_t)HORIZON, "datasets", rows, "trainer", trainer);
        if (!*out) status = soma__no_memory(err, "the figures");
    }
    json_decref(rows);
    json_decref(trainer);
    return status;
}

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

static void print_way(const json_t *row, const char *key, const char *what) {
    const json_t *r = json_object_get(row, key), *s = json_object_get(r, "samples_per_second");
    printf("  %-34s %8.1f samples/s (%.1f to %.1f), %8.1f pictures/s", what, json_number_value(json_array_get(s, 0)),
           json_number_value(json_array_get(s, 1)), json_number_value(json_array_get(s, 2)), real(r, "pictures_per_second"));
    if (json_object_get(r, "share_of_limit"))
        printf(", %.2f of the limit\n", real(r, "share_of_limit"));
    else
        printf("; opened in %.2f s\n", real(r, "open_seconds"));
}

void soma__bench_loader_print(const json_t *result) {
    size_t i;
    json_t *row;
    const json_t *machine = json_object_get(result, "machine"), *trainer = json_object_get(result, "trainer");
    printf("loader on %s, %.0f workers, batches of %.0f\n", json_string_value(json_object_get(machine, "processor")),
           real(machine, "threads"), real(result, "batch"));
    json_array_foreach(json_object_get(result, "datasets"), i, row) {
        printf("%s: %.0f episodes, %.0f frames, %.0f cameras of %.0fx%.0f\n", json_string_value(json_object_get(row, "data")),
               real(row, "episodes"), real(row, "frames"), real(row, "cameras"), real(row, "width"), real(row, "height"));
        printf("  %-34s %41s %8.1f pictures/s\n", "files from beginning to end", "", real(row, "limit_pictures_per_second"));
        print_way(row, "decoded", "samples decoded from the files");
        print_way(row, "memory", "224x224, kept in memory");
        print_way(row, "folder", "224x224, kept in a folder");
        print_way(row, "folder_again", "the same, opened again");
    }
    if (json_is_object(trainer))
        printf("a trainer of %s (batch %.0f, made-up data): %.1f samples/s, %.2f %% of its time waiting for data\n",
               json_string_value(json_object_get(trainer, "preset")), real(trainer, "batch"), real(trainer, "samples_per_second"),
               100 * real(trainer, "wait_share"));
}
