// SPDX-License-Identifier: Apache-2.0
// Datasets of many frames: opening one reads its list of episodes and not its frames, and one episode is had without the whole file that
// holds it. Held by counting bytes and allocations, never by time.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../bench/large_set.h"
#include "data/loader.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { EPISODES = 60, FRAMES = 4000, WIDTH = 2 };
static char root[] = "/tmp/soma_large_XXXXXX";

// Bytes that this process has read from files so far; -1 where the system does not tell.
static int64_t bytes_read(void) {
    long long n = -1;
    FILE *io = fopen("/proc/self/io", "r");
    if (io && fscanf(io, "rchar: %lld", &n) != 1) n = -1;
    if (io) fclose(io);
    return n;
}

static const char *make(const char *name, int64_t frames, bool reversed) {
    static char path[SOMA_PATH_MAX];
    soma_error err = {0};
    const large_set set = {EPISODES, frames, EPISODES, 1, WIDTH, reversed};
    assert_int_equal(soma__path_join(path, root, name, &err), SOMA_OK);
    if (!soma__dir_exists(path) && write_large_set(&set, path, &err)) fail_msg("%s", err.text);
    return path;
}

static soma_dataset *open_set(const char *path) {
    soma_dataset *d;
    soma_error err = {0};
    if (soma__dataset_open(&d, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(d->episodes_present, EPISODES);
    return d;
}

// A hundred times the frames cost neither bytes nor memory to open.
static void opening(void **state) {
    int64_t bytes[2];
    uint64_t allocations[2];
    static const int64_t lengths[] = {FRAMES / 100, FRAMES};
    if (bytes_read() < 0) skip();
    for (int i = 0; i < 2; i++) {
        const char *path = make(i ? "long" : "short", lengths[i], false);
        bytes[i] = bytes_read();
        allocations[i] = soma__alloc_count();
        soma_dataset *d = open_set(path);
        bytes[i] = bytes_read() - bytes[i];
        allocations[i] = soma__alloc_count() - allocations[i];
        assert_int_equal(d->n_frames, EPISODES * lengths[i]);
        soma__dataset_close(d);
    }
    if (bytes[1] > bytes[0] + bytes[0] / 10 || allocations[1] > allocations[0] + 20)
        fail_msg("%lld bytes and %llu allocations for %d frames, %lld and %llu for %d", (long long)bytes[0],
                 (unsigned long long)allocations[0], EPISODES * FRAMES / 100, (long long)bytes[1], (unsigned long long)allocations[1],
                 EPISODES * FRAMES);
}

static void read_one(soma_dataset_reader *r, const soma_dataset *d, int64_t e) {
    static float out[FRAMES * WIDTH];
    soma_error err = {0};
    if (d->format->read_vectors(r, e, soma__dataset_feature(d, "action"), out, &err)) fail_msg("%s", err.text);
    for (int64_t f = 0; f < FRAMES; f += 333)
        for (int k = 0; k < WIDTH; k++) assert_true(out[f * WIDTH + k] == (float)(d->episodes[e].index * FRAMES + f) + (float)k / 16);
}

// One episode out of the middle of a file is read without most of it; and where the list of episodes is in another order than the file,
// each is found all the same.
static void sampling(void **state) {
    soma_dataset_reader *r;
    soma_error err = {0};
    struct stat file;
    char path[SOMA_PATH_MAX];
    soma_dataset *d = open_set(make("long", FRAMES, false));
    assert_int_equal(soma__path_join(path, d->path, "data/chunk-000/file-000.parquet", &err), SOMA_OK);
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    int64_t before = bytes_read();
    read_one(r, d, 40);
    if (before >= 0 && bytes_read() - before > file.st_size / 2)
        fail_msg("one of %d episodes took %lld bytes of %lld", EPISODES, (long long)(bytes_read() - before), (long long)file.st_size);
    for (int64_t e = 0; e < EPISODES; e += 7) read_one(r, d, (e * 31) % EPISODES);
    d->format->reader_close(r);
    soma__dataset_close(d);

    d = open_set(make("reversed", FRAMES, true));
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    assert_int_equal(d->episodes[0].index, EPISODES - 1);
    read_one(r, d, 0);
    read_one(r, d, 33);
    d->format->reader_close(r);
    soma__dataset_close(d);
}

// A loader under a limit: what it holds stays below it, what it gives is right, and it reads what its samples need and not all.
static void loading(void **state) {
    enum { LIMIT = 1 << 20, BATCHES = 30, BATCH = 4, HORIZON = 3 };
    int64_t episodes[EPISODES], before = bytes_read();
    soma_dataset *d = open_set(make("long", FRAMES, false));
    soma_loader *l;
    soma_error err = {0};
    const soma_loader_batch *b;
    for (int e = 0; e < EPISODES; e++) episodes[e] = e;
    soma_loader_opts o = soma__loader_defaults();
    o.state = soma__dataset_feature(d, "observation.state");
    o.action = soma__dataset_feature(d, "action");
    o.episodes = episodes;
    o.n_episodes = EPISODES;
    o.horizon = HORIZON;
    o.batch = BATCH;
    o.vectors_size = LIMIT;
    if (soma__loader_open(&l, d, &o, &err)) fail_msg("%s", err.text);
    if (before >= 0) assert_true(bytes_read() - before < EPISODES * FRAMES); // a byte per frame would be little
    for (int k = 0; k < BATCHES; k++) {
        if (soma__loader_next(l, &b, &err)) fail_msg("%s", err.text);
        for (int i = 0; i < BATCH; i++) {
            const float first = (float)(b->episode[i] * FRAMES + b->frame[i]), last = (float)((b->episode[i] + 1) * FRAMES - 1);
            assert_true(b->state[i * WIDTH] == first);
            for (int h = 0; h < HORIZON; h++)
                assert_true(b->actions[(i * HORIZON + h) * WIDTH] == (first + (float)h < last ? first + (float)h : last));
        }
    }
    assert_in_range(soma__vectors_held(soma__loader_vectors(l)), LIMIT / 2, LIMIT);
    soma__loader_close(l);
    soma__dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(opening), cmocka_unit_test(sampling), cmocka_unit_test(loading)};
    if (!mkdtemp(root)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__dir_remove(root, NULL);
    return failed;
}
