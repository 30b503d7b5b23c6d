// SPDX-License-Identifier: Apache-2.0
// Files of a LeRobot dataset that are cut, altered, or say of themselves that they are huge: parquet and video at random bytes, each in a
// process of its own with bounded memory and time. What is refused is refused with a sentence that names the file, and the other episodes
// can be read all the same.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "format/parquet.h"
#include "toy_dataset.h"
#include "whole_dataset.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EPISODES = 3, FRAMES = 8, N = 2, SIDE = 16, SECONDS = 20 };
static char root[] = "/tmp/soma_damage_XXXXXX", path[SOMA_PATH_MAX];
static const char data_file[] = "data/chunk-000/file-001.parquet", video_file[] = "videos/observation.images.scene/chunk-000/file-001.mp4",
                  table_file[] = "meta/episodes/chunk-000/file-001.parquet";

static int n_frames(int e) { return FRAMES; }
static const char *task_of(int e) { return "move"; }
static void frame_of(int e, int f, float *state, float *action, uint8_t *picture) {
    for (int k = 0; k < N; k++) state[k] = action[k] = (float)(e * 10 + f * k) * 1.37f;
    for (int i = 0; i < SIDE * SIDE * 3; i++) picture[i] = (uint8_t)((i * 7 + f * 31 + e * 59) ^ (i >> 3));
}

static int make(void **state) {
    static const char *const names[] = {"a", "b"};
    const toy_dataset toy = {N, N, SIDE, 10, names, EPISODES, 1, n_frames, task_of, frame_of};
    return soma__path_join(path, root, "toy", NULL) || soma__dir_remove(path, NULL) || write_toy_dataset(&toy, path, NULL) ? -1 : 0;
}

static const char *in_dataset(const char *name) {
    static char out[SOMA_PATH_MAX];
    assert_int_equal(soma__path_join(out, path, name, NULL), SOMA_OK);
    return out;
}

// ---- one look at the dataset, in a process of its own

enum { FINE = 0, REFUSED = 1, NAMELESS = 2, OTHERS_LOST = 3 };

// `spoilt`: the file's name must be in the sentence, and the episodes that do not lie in it must be readable.
static int look(const char *spoilt) {
    soma_dataset *d;
    soma_error err = {0};
    int read = 0;
    soma_status status = soma__dataset_open(&d, path, &err);
    if (status != SOMA_OK) return strstr(err.text, path) || strstr(err.text, "meta/episodes") ? REFUSED : NAMELESS;
    status = read_whole(d, &read, &err);
    soma__dataset_close(d);
    if (status == SOMA_OK) return FINE;
    if (!strstr(err.text, spoilt)) return NAMELESS;
    return read >= EPISODES - 1 ? REFUSED : OTHERS_LOST;
}

static size_t memory_now(void) { // virtual bytes
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld", &pages) != 1) pages = 0;
    if (file) fclose(file);
    return (size_t)pages * 4096;
}

static int look_apart(const char *spoilt) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        struct rlimit most = {memory_now() + ((size_t)3 << 30), memory_now() + ((size_t)3 << 30)};
#ifndef __SANITIZE_ADDRESS__
        if (setrlimit(RLIMIT_AS, &most)) _exit(99);
#endif
        alarm(SECONDS);
        _exit(look(spoilt));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status)) fail_msg("%s: ended by signal %d", spoilt, WTERMSIG(status));
    return WEXITSTATUS(status);
}

static void judge(int outcome, const char *file, const char *what, size_t at) {
    static const char *const words[] = {"", "", "the sentence does not name the file", "other episodes were lost"};
    if (outcome > REFUSED) fail_msg("%s, %s byte %zu: %s", file, what, at, outcome < 4 ? words[outcome] : "an unknown end");
}

// Cuts and altered bytes at random places of one file; returns how many were refused.
static int spoil(const char *file, int cuts, int flips, soma_rng *rng) {
    char *bytes;
    size_t size;
    int refused = 0;
    assert_int_equal(soma__file_read(&bytes, &size, in_dataset(file), 1 << 24, NULL), SOMA_OK);
    for (int i = 0; i < cuts; i++) {
        size_t at = (size_t)soma__rng_below(rng, size);
        assert_int_equal(soma__file_write(in_dataset(file), bytes, at, NULL), SOMA_OK);
        int outcome = look_apart(file);
        judge(outcome, file, "cut at", at);
        refused += outcome == REFUSED;
    }
    for (int i = 0; i < flips; i++) {
        size_t at = (size_t)soma__rng_below(rng, size);
        char kept = bytes[at];
        bytes[at] = (char)(i % 3 ? soma__rng_u64(rng) : 0xff);
        assert_int_equal(soma__file_write(in_dataset(file), bytes, size, NULL), SOMA_OK);
        judge(look_apart(file), file, "altered at", at);
        bytes[at] = kept;
    }
    assert_int_equal(soma__file_write(in_dataset(file), bytes, size, NULL), SOMA_OK);
    soma__free(bytes);
    return refused;
}

static void parquet(void **state) {
    soma_rng rng = soma__rng(1);
    assert_int_equal(look_apart(data_file), FINE);
    assert_int_equal(spoil(data_file, 8, 20, &rng), 8); // a parquet file ends with its index: no cut leaves it whole
    spoil(table_file, 4, 10, &rng);
}

static void video(void **state) {
    soma_rng rng = soma__rng(2);
    assert_int_equal(look_apart(video_file), FINE);
    assert_true(spoil(video_file, 10, 20, &rng) >= 7); // its index may stand before the pictures
}

// A few kilobytes that unfold to millions of rows: refused with the file's name before they fill the memory.
static void bomb(void **state) {
    enum { ROWS = 3000000 };
    int64_t *zeros = calloc(ROWS, sizeof *zeros);
    soma_parquet *pq;
    soma_error err = {0};
    const soma_parquet_field field = {.name = "episode_index", .type = SOMA_PARQUET_I64, .values = zeros};
    assert_int_equal(soma__parquet_open(&pq, NULL, &err), SOMA_OK);
    assert_int_equal(soma__parquet_write(pq, in_dataset(data_file), &field, 1, ROWS, NULL, NULL, &err), SOMA_OK);
    soma__parquet_close(pq);
    free(zeros);
    soma_dataset *d;
    soma_dataset_reader *r;
    float out[FRAMES * N];
    assert_int_equal(soma__dataset_open(&d, path, &err), SOMA_OK);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    assert_int_equal(d->format->read_vectors(r, 1, soma__dataset_feature(d, "action"), out, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, data_file));
    assert_non_null(strstr(err.text, "holds more than"));
    assert_int_equal(d->format->read_vectors(r, 2, soma__dataset_feature(d, "action"), out, &err), SOMA_OK);
    d->format->reader_close(r);
    soma__dataset_close(d);
}

int main(void) {
    if (!mkdtemp(root)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(parquet, make), cmocka_unit_test_setup(video, make),
                                       cmocka_unit_test_setup(bomb, make)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__dir_remove(root, NULL);
    return failed;
}
