// SPDX-License-Identifier: Apache-2.0
// soma bench record: cameras that film made-up pictures at their rate through the recorder, and how many frames are left out; then as fast
// as it goes, which says what a core encodes.
#include "base/file.h"
#include "bench/bench.h"

#include <soma/record.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define OPTS_TYPE soma_bench_record_opts
SOMA_OPTS_DEFINE(soma_bench_record_opts, SOMA_BENCH_RECORD_OPTS, soma__bench_record_defaults)
#undef OPTS_TYPE

enum { PAINTED = 16, CAMERAS_MAX = 8, VALUES = 14 };

typedef struct filming {
    const soma_bench_record_opts *o;
    char folder[SOMA_PATH_MAX];
    uint8_t *pictures[PAINTED]; // [cameras, height, width, 3]
    size_t size;                // of one picture
} filming;

typedef struct figures {
    int64_t frames, left_out;
    double seconds, processor_seconds, longest; // longest: of one call, seconds
} figures;

static double processor_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void sleep_until(double time) {
    double left = time - soma__seconds();
    if (left > 0) usleep((useconds_t)(1e6 * left));
}

static soma_status film(figures *f, soma_recorder *r, const filming *b, bool paced, soma_error *err) {
    const double started = soma__seconds(), processor = processor_seconds();
    const int64_t n = (int64_t)(b->o->seconds * b->o->rate);
    for (int64_t i = 0; i < n; i++) {
        float values[VALUES];
        const uint8_t *images[CAMERAS_MAX];
        for (int k = 0; k < VALUES; k++) values[k] = (float)(i + k);
        for (int c = 0; c < b->o->cameras; c++) images[c] = b->pictures[i % PAINTED] + (size_t)c * b->size;
        if (paced) sleep_until(started + (double)i / b->o->rate);
        double before = soma__seconds();
        SOMA_TRY(soma_recorder_frame(r, values, values, images, err));
        f->longest = SOMA_MAX(f->longest, soma__seconds() - before);
    }
    soma_recorder_counts counts = soma_recorder_count(r);
    f->frames = counts.episode_frames;
    f->left_out = counts.left_out;
    SOMA_TRY(soma_recorder_episode(r, "film", err));
    f->seconds = soma__seconds() - started;
    f->processor_seconds = processor_seconds() - processor;
    return SOMA_OK;
}

static soma_status measure(figures *f, const filming *b, bool paced, soma_error *err) {
    static const char *const names[] = {"c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"};
    char path[SOMA_PATH_MAX];
    int sizes[CAMERAS_MAX][2];
    for (int c = 0; c < CAMERAS_MAX; c++) sizes[c][0] = (int)b->o->camera_width, sizes[c][1] = (int)b->o->camera_height;
    const soma_recorder_spec spec = {.fps = b->o->rate,
                                     .n_state = VALUES,
                                     .n_actions = VALUES,
                                     .n_cameras = (int)b->o->cameras,
                                     .camera_names = names,
                                     .image_sizes = (const int(*)[2])sizes,
                                     .wait = !paced};
    soma_recorder *r;
    SOMA_TRY(soma__path_join(path, b->folder, paced ? "paced" : "fast", err));
    SOMA_TRY(soma_recorder_open(&r, path, &spec, err));
    soma_status status = film(f, r, b, paced, err);
    soma_recorder_close(r);
    return status;
}

static soma_status paint_all(filming *b, soma_error *err) {
    soma_rng rng = soma__rng(3);
    b->size = (size_t)(b->o->camera_width * b->o->camera_height) * 3;
    for (int i = 0; i < PAINTED; i++) {
        if (!(b->pictures[i] = soma__alloc((size_t)b->o->cameras * b->size))) return soma__no_memory(err, "the pictures");
        for (int c = 0; c < b->o->cameras; c++)
            soma__bench_paint(b->pictures[i] + (size_t)c * b->size, (int)b->o->camera_width, (int)b->o->camera_height, 3 * i, c, &rng);
    }
    return SOMA_OK;
}

static soma_status check_opts(const soma_bench_record_opts *o, soma_error *err) {
    if (o->cameras < 1 || o->cameras > CAMERAS_MAX || o->camera_width < 2 || o->camera_width > 4096 || o->camera_height < 2 ||
        o->camera_height > 4096 || !(o->rate > 0) || o->rate > 1000 || !(o->seconds * o->rate >= 1) || o->seconds > 3600)
        return soma__fail(err, SOMA_BAD_INPUT, "1 to %d cameras of 2 to 4096 pixels a side, a rate and seconds above 0 are needed",
                          CAMERAS_MAX);
    return SOMA_OK;
}

soma_status soma__bench_record(json_t **out, const soma_bench_record_opts *o, soma_error *err) {
    filming b = {.o = o};
    figures paced = {0}, fast = {0};
    *out = NULL;
    SOMA_TRY(check_opts(o, err));
    snprintf(b.folder, sizeof b.folder, "%s/soma-bench-XXXXXX", *o->scratch ? o->scratch : "/tmp");
    if (!mkdtemp(b.folder)) return soma__fail(err, SOMA_IO, "%s: cannot be made", b.folder);
    soma_status status = paint_all(&b, err);
    if (status == SOMA_OK) status = measure(&paced, &b, true, err);
    if (status == SOMA_OK) status = measure(&fast, &b, false, err);
    soma__dir_remove(b.folder, NULL);
    for (int i = 0; i < PAINTED; i++) soma__free(b.pictures[i]);
    if (status != SOMA_OK) return status;
    double pictures = (double)(fast.frames * o->cameras);
    *out = json_pack("{s:s, s:o, s:I, s:I, s:I, s:f, s:{s:I, s:I, s:f, s:f}, s:{s:f, s:f}}", "what", "record", "machine",
                     soma__bench_machine("any", (int)o->cameras), "cameras", (json_int_t)o->cameras, "width", (json_int_t)o->camera_width,
                     "height", (json_int_t)o->camera_height, "rate", o->rate, "filmed", "frames", (json_int_t)paced.frames, "left_out",
                     (json_int_t)paced.left_out, "cores", paced.processor_seconds / paced.seconds, "longest_call_ms", 1e3 * paced.longest,
                     "fast", "pictures_per_second", pictures / fast.seconds, "pictures_per_core_second", pictures / fast.processor_seconds);
    return *out ? SOMA_OK : soma__no_memory(err, "the figures");
}

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

void soma__bench_record_print(const json_t *r) {
    const json_t *filmed = json_object_get(r, "filmed"), *fast = json_object_get(r, "fast");
    printf("record on %s: %.0f cameras of %.0fx%.0f\n", json_string_value(json_object_get(json_object_get(r, "machine"), "processor")),
           real(r, "cameras"), real(r, "width"), real(r, "height"));
    printf("at %g Hz: %.0f frames, %.0f left out, %.2f cores, longest call %.2f ms\n", real(r, "rate"), real(filmed, "frames"),
           real(filmed, "left_out"), real(filmed, "cores"), real(filmed, "longest_call_ms"));
    printf("as fast as it goes: %.0f pictures/s, %.0f per second of a core\n", real(fast, "pictures_per_second"),
           real(fast, "pictures_per_core_second"));
}
