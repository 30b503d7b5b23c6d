// SPDX-License-Identifier: Apache-2.0
// The loader: the same batches for 1, 2 and 3 workers, after a seek, with pictures in memory or decoded on demand; every frame once per
// epoch, however many ranks share them; chunks padded at the end of an episode; pictures kept in a folder; the failures of workers reach
// the consumer.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"
#include "data/loader.h"
#include "toy_dataset.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { W = 16, H = 16, EPISODES = 7, S = 6, BATCH = 5, BATCHES = 40 };
static char root[] = "/tmp/soma_loader_XXXXXX", path[SOMA_PATH_MAX];

static int length_of(int e) { return 4 + 3 * (e % 4); }

static const char *task_of(int e) { return e % 2 ? "odd" : "even"; }

static void frame_of(int e, int f, float *state, float *action, uint8_t *picture) {
    action[0] = state[0] = (float)(100 * e + f);
    action[1] = -state[0];
    memset(picture, 30 * e + 3 * f, H * W * 3);
}

static int make_dataset(void **state) {
    static const char *const names[] = {"x", "y"};
    const toy_dataset toy = {1, 2, W, 10, names, EPISODES, 3, length_of, task_of, frame_of};
    return !mkdtemp(root) || soma__path_join(path, root, "toy", NULL) || write_toy_dataset(&toy, path, NULL) ? -1 : 0;
}

static int remove_dataset(void **state) { return soma__dir_remove(root, NULL) ? -1 : 0; }

static soma_dataset *open_dataset(void) {
    soma_dataset *d;
    soma_error err = {0};
    if (soma__dataset_open(&d, path, &err)) fail_msg("%s", err.text);
    return d;
}

static const int64_t episodes[] = {6, 0, 2, 3, 5}; // 1 and 4 are held out
static soma_loader_opts opts_of(const soma_dataset *d, int workers) {
    soma_loader_opts o = soma__loader_defaults();
    o.state = soma__dataset_feature(d, "observation.state");
    o.action = soma__dataset_feature(d, "action");
    o.n_cameras = 1;
    o.cameras[0] = soma__dataset_feature(d, "observation.images.scene");
    o.episodes = episodes;
    o.n_episodes = SOMA_COUNT(episodes);
    o.horizon = S;
    o.batch = BATCH;
    o.workers = workers;
    o.queue = 3;
    o.seed = 11;
    return o;
}

static uint64_t hash_batch(const soma_loader_batch *b) {
    uint64_t h = soma__hash(SOMA_HASH_START, b->state, BATCH * sizeof(float));
    h = soma__hash(h, b->actions, sizeof(float) * BATCH * S * 2);
    h = soma__hash(h, b->pad, (size_t)BATCH * S);
    h = soma__hash(h, b->images[0], (size_t)BATCH * H * W * 3);
    h = soma__hash(h, b->image_present[0], BATCH);
    for (int i = 0; i < BATCH; i++) h = soma__hash(h, b->tasks[i], strlen(b->tasks[i]));
    h = soma__hash(h, b->episode, sizeof(int64_t) * BATCH);
    return soma__hash(h, b->frame, sizeof(int64_t) * BATCH);
}

// Batches from..BATCHES-1 into hashes.
static void run(const soma_dataset *d, soma_loader_opts o, int64_t from, uint64_t hashes[BATCHES]) {
    soma_loader *l;
    soma_error err = {0};
    const soma_loader_batch *b;
    if (soma__loader_open(&l, d, &o, &err)) fail_msg("%s", err.text);
    if (from) {
        assert_int_equal(soma__loader_next(l, &b, &err), SOMA_OK); // what the queue holds by then must be forgotten
        assert_int_equal(soma__loader_seek(l, from, &err), SOMA_OK);
    }
    for (int64_t i = from; i < BATCHES; i++) {
        if (soma__loader_next(l, &b, &err)) fail_msg("%s", err.text);
        assert_int_equal(b->index, i);
        hashes[i] = hash_batch(b);
    }
    assert_int_equal(soma__loader_seek(l, 3, &err), SOMA_OK);
    assert_int_equal(soma__loader_next(l, &b, &err), SOMA_OK);
    if (!from) assert_true(hash_batch(b) == hashes[3]);
    soma__loader_close(l);
}

static void same_batches(void **state) {
    soma_dataset *d = open_dataset();
    uint64_t want[BATCHES], got[BATCHES];
    run(d, opts_of(d, 1), 0, want);
    for (int workers = 2; workers <= 3; workers++) {
        run(d, opts_of(d, workers), 0, got);
        assert_memory_equal(want, got, sizeof want);
    }
    run(d, opts_of(d, 2), 17, got);
    assert_memory_equal(want + 17, got + 17, sizeof want - 17 * sizeof *want);
    soma_loader_opts o = opts_of(d, 3);
    o.cache_size = 0; // decoded on demand
    run(d, o, 0, got);
    assert_memory_equal(want, got, sizeof want);
    o = opts_of(d, 1);
    o.seed = 12;
    run(d, o, 0, got);
    assert_true(want[0] != got[0] && want[7] != got[7]);
    soma__dataset_close(d);
}

// States and actions that do not fit: the same batches whatever the limit, which holds.
static void little_memory(void **state) {
    soma_dataset *d = open_dataset();
    uint64_t want[BATCHES], got[BATCHES];
    size_t held[4];
    run(d, opts_of(d, 1), 0, want);
    for (int i = 0; i < 4; i++) {
        static const size_t limits[] = {0, 150, 350, SIZE_MAX};
        soma_loader_opts o = opts_of(d, 3);
        soma_loader *l;
        const soma_loader_batch *b;
        o.vectors_size = limits[i];
        run(d, o, 0, got);
        assert_memory_equal(want, got, sizeof want);
        run(d, o, 23, got);
        assert_memory_equal(want + 23, got + 23, sizeof want - 23 * sizeof *want);
        assert_int_equal(soma__loader_open(&l, d, &o, NULL), SOMA_OK);
        for (int k = 0; k < BATCHES; k++) assert_int_equal(soma__loader_next(l, &b, NULL), SOMA_OK);
        held[i] = soma__vectors_held(soma__loader_vectors(l));
        assert_in_range(held[i], 0, limits[i]);
        int64_t episode = 5, frame = 2;
        assert_int_equal(soma__loader_read(l, 1, &episode, &frame, &b, NULL), SOMA_OK);
        assert_true(b->state[0] == 502);
        soma__loader_close(l);
    }
    assert_true(!held[0] && held[1] && held[2] > held[1]);
    assert_int_equal(held[3], (10 + 4 + 10 + 13 + 7) * 3 * sizeof(float));
    soma__dataset_close(d);
}

// However many ranks share the work: together they see the batches of one that takes as much at once, and in an epoch every frame once.
static void ranks(void **state) {
    enum { ALL = 12, STEPS = 9 };
    soma_dataset *d = open_dataset();
    int64_t seen[3][STEPS * ALL];
    for (int n = 1; n <= 3; n++)
        for (int rank = 0; rank < n; rank++) {
            soma_loader_opts o = opts_of(d, 2);
            soma_loader *l;
            soma_error err = {0};
            const soma_loader_batch *b;
            o.batch = ALL / n;
            o.rank = rank;
            o.ranks = n;
            if (soma__loader_open(&l, d, &o, &err)) fail_msg("%s", err.text);
            for (int step = 0; step < STEPS; step++) {
                assert_int_equal(soma__loader_next(l, &b, &err), SOMA_OK);
                for (int i = 0; i < o.batch; i++) seen[n - 1][step * ALL + rank * o.batch + i] = 100 * b->episode[i] + b->frame[i];
            }
            int64_t epoch = soma__loader_samples(l);
            assert_in_range(epoch, 1, STEPS * ALL / 2);
            if (rank == n - 1)
                for (int64_t i = 0; i < 2 * epoch; i++)
                    for (int64_t k = i / epoch * epoch; k < i; k++) assert_int_not_equal(seen[n - 1][i], seen[n - 1][k]);
            soma__loader_close(l);
        }
    assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
    assert_memory_equal(seen[0], seen[2], sizeof seen[0]);
    soma__dataset_close(d);
}

// The files of a folder, and their bytes.
static int64_t count_files(const char *folder, int64_t *bytes) {
    char **names, file[SOMA_PATH_MAX];
    size_t n;
    struct stat st;
    assert_int_equal(soma__dir_list(&names, &n, folder, NULL), SOMA_OK);
    *bytes = 0;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(soma__path_join(file, folder, names[i], NULL), SOMA_OK);
        assert_int_equal(stat(file, &st), 0);
        *bytes += st.st_size;
        assert_null(strstr(names[i], ".part-"));
    }
    soma__dir_list_free(names, n);
    return (int64_t)n;
}

static void copy_dataset(const char *to) {
    char command[2 * SOMA_PATH_MAX + 40];
    snprintf(command, sizeof command, "cp -r '%s' '%s'", path, to);
    assert_int_equal(system(command), 0);
}

// Pictures kept in a folder: the same batches, from the folder and after it was made; two processes at once; what was damaged is made
// again; a limit that does not hold all; a source that changed.
static void folder(void **state) {
    char kept[SOMA_PATH_MAX], before[SOMA_PATH_MAX];
    int64_t bytes, first_bytes;
    uint64_t want[BATCHES], got[BATCHES];
    assert_int_equal(soma__path_join(kept, root, "kept/pictures", NULL), SOMA_OK);
    pid_t child = fork(); // before any thread is started
    assert_true(child >= 0);
    soma_dataset *d = open_dataset();
    soma_loader_opts o = opts_of(d, 2);
    run(d, o, 0, want);
    o.cache_size = 0;
    o.folder = kept;
    o.folder_size = 1 << 20;
    run(d, o, 0, got);
    if (!child) _exit(memcmp(want, got, sizeof want) != 0);
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code) && !WEXITSTATUS(code));
    assert_memory_equal(want, got, sizeof want);
    assert_int_equal(count_files(kept, &first_bytes), SOMA_COUNT(episodes));

    char **names;
    size_t n;
    assert_int_equal(soma__dir_list(&names, &n, kept, NULL), SOMA_OK);
    assert_int_equal(soma__path_join(before, kept, names[0], NULL), SOMA_OK);
    assert_int_equal(soma__file_write(before, "not pictures", 12, NULL), SOMA_OK);
    soma__dir_list_free(names, n);
    run(d, o, 0, got);
    assert_memory_equal(want, got, sizeof want);
    count_files(kept, &bytes);
    assert_int_equal(bytes, first_bytes);

    // another limit in another folder: some are kept, some decoded on demand
    assert_int_equal(soma__path_join(kept, root, "kept/few", NULL), SOMA_OK);
    o.folder_size = (size_t)first_bytes / 2;
    soma_loader *l;
    int64_t disk, memory, on_demand;
    assert_int_equal(soma__loader_open(&l, d, &o, NULL), SOMA_OK);
    soma__pictures_places(soma__loader_pictures(l), &disk, &memory, &on_demand);
    assert_true(disk > 0 && !memory && on_demand > 0 && disk + on_demand == soma__loader_samples(l));
    soma__loader_close(l);
    run(d, o, 0, got);
    assert_memory_equal(want, got, sizeof want);
    count_files(kept, &bytes);
    assert_in_range(bytes, 1, first_bytes / 2);

    // the same dataset elsewhere has files of its own; old ones make room, new ones do not
    char copy[SOMA_PATH_MAX];
    assert_int_equal(soma__path_join(copy, root, "copy", NULL), SOMA_OK);
    copy_dataset(copy);
    soma_dataset *other;
    assert_int_equal(soma__dataset_open(&other, copy, NULL), SOMA_OK);
    for (int old = 0; old <= 1; old++) {
        const struct timespec long_ago[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
        char file[SOMA_PATH_MAX];
        assert_int_equal(soma__dir_list(&names, &n, kept, NULL), SOMA_OK);
        for (size_t i = 0; i < n && old; i++) {
            assert_int_equal(soma__path_join(file, kept, names[i], NULL), SOMA_OK);
            assert_int_equal(utimensat(AT_FDCWD, file, long_ago, 0), 0);
        }
        soma__dir_list_free(names, n);
        assert_int_equal(soma__loader_open(&l, other, &o, NULL), SOMA_OK);
        int64_t others;
        soma__pictures_places(soma__loader_pictures(l), &others, &memory, &on_demand);
        assert_int_equal(others, old ? disk : 0);
        soma__loader_close(l);
        count_files(kept, &bytes);
        assert_in_range(bytes, 1, first_bytes / 2);
    }
    soma__dataset_close(other);
    soma__dataset_close(d);
}

// Half of the pictures fit in memory; and pictures resized as openpi does it.
static void sizes(void **state) {
    enum { SIDE = 10 };
    soma_dataset *d = open_dataset();
    soma_loader_opts o = opts_of(d, 2);
    soma_loader *l;
    soma_error err = {0};
    const soma_loader_batch *b;
    uint64_t want[BATCHES], got[BATCHES];
    int64_t disk, memory, on_demand;
    run(d, o, 0, want);
    o.cache_size = 20 * W * H * 3;
    assert_int_equal(soma__loader_open(&l, d, &o, &err), SOMA_OK);
    soma__pictures_places(soma__loader_pictures(l), &disk, &memory, &on_demand);
    assert_true(!disk && memory > 0 && memory <= 20 && on_demand > 0);
    soma__loader_close(l);
    run(d, o, 0, got);
    assert_memory_equal(want, got, sizeof want);

    soma_resizer *resizer;
    uint8_t small[SIDE * SIDE * 3];
    assert_int_equal(soma__resizer_new(&resizer, SOMA_RESIZE_PIL, W, H, SIDE, SIDE, &err), SOMA_OK);
    soma_loader *whole;
    const soma_loader_batch *same;
    assert_int_equal(soma__loader_open(&whole, d, &o, &err), SOMA_OK);
    o.side = SIDE;
    for (int kept = 0; kept <= 1; kept++) {
        o.cache_size = kept ? 1 << 20 : 0;
        assert_int_equal(soma__loader_open(&l, d, &o, &err), SOMA_OK);
        assert_int_equal(soma__pictures_width(soma__loader_pictures(l), 0), SIDE);
        assert_int_equal(soma__loader_seek(whole, 0, &err), SOMA_OK);
        for (int k = 0; k < 4; k++) {
            assert_int_equal(soma__loader_next(l, &b, &err), SOMA_OK);
            assert_int_equal(soma__loader_next(whole, &same, &err), SOMA_OK);
            for (int i = 0; i < BATCH; i++) {
                soma__resizer_u8(resizer, same->images[0] + i * W * H * 3, small);
                assert_memory_equal(b->images[0] + i * SIDE * SIDE * 3, small, sizeof small);
            }
        }
        soma__loader_close(l);
    }
    soma__resizer_free(resizer);
    soma__loader_close(whole);
    soma__dataset_close(d);
}

static void contents(void **state) {
    soma_dataset *d = open_dataset();
    soma_loader_opts o = opts_of(d, 2);
    soma_loader *l;
    soma_error err = {0};
    const soma_loader_batch *b;
    if (soma__loader_open(&l, d, &o, &err)) fail_msg("%s", err.text);
    int64_t n = soma__loader_samples(l), wanted = 0;
    for (size_t i = 0; i < SOMA_COUNT(episodes); i++) wanted += length_of((int)episodes[i]);
    assert_int_equal(n, wanted);
    int seen[EPISODES][32] = {0};
    int64_t first[2][64]; // the order of the first two epochs
    for (int64_t at = 0; at < 4 * n;) {
        assert_int_equal(soma__loader_next(l, &b, &err), SOMA_OK);
        for (int i = 0; i < BATCH && at < 4 * n; i++, at++) {
            int e = (int)b->episode[i], f = (int)b->frame[i], end = length_of(e) - 1;
            seen[e][f]++;
            if (at < 2 * n) first[at / n][at % n] = 100 * e + f;
            assert_true(b->state[i] == (float)(100 * e + f));
            assert_string_equal(b->tasks[i], e % 2 ? "odd" : "even");
            for (int h = 0; h < S; h++) {
                const float *a = b->actions + (i * S + h) * 2;
                float want = (float)(100 * e + SOMA_MIN(f + h, end));
                assert_true(a[0] == want && a[1] == -want);
                assert_int_equal(b->pad[i * S + h], f + h > end);
            }
            assert_in_range(b->images[0][i * H * W * 3 + 100] + 4 - (30 * e + 3 * f), 0, 8); // 4 of 255 lost to H.264
        }
        for (int e = 0; e < EPISODES && at % n == 0; e++)
            for (int f = 0; f < length_of(e); f++) assert_int_equal(seen[e][f], e == 1 || e == 4 ? 0 : at / n);
    }
    assert_memory_not_equal(first[0], first[1], (size_t)n * sizeof **first);

    int64_t given_episodes[] = {3, 0}, given_frames[] = {2, 0};
    assert_int_equal(soma__loader_read(l, 2, given_episodes, given_frames, &b, &err), SOMA_OK);
    assert_true(b->state[0] == 302 && b->state[1] == 0 && b->index == -1);
    given_episodes[0] = 1;
    assert_int_equal(soma__loader_read(l, 1, given_episodes, given_frames, &b, &err), SOMA_BAD_INPUT);
    given_episodes[0] = 0, given_frames[0] = length_of(0);
    assert_int_equal(soma__loader_read(l, 1, given_episodes, given_frames, &b, &err), SOMA_BAD_INPUT);
    soma__loader_close(l);
    soma__dataset_close(d);
}

static void count_progress(void *user, int64_t done, int64_t total) {
    assert_in_range(done, 1, total);
    if (done == total) ++*(int *)user;
}

static void failures(void **state) {
    soma_dataset *d = open_dataset();
    soma_loader_opts o = opts_of(d, 2);
    soma_loader *l;
    soma_error err = {0};
    const soma_loader_batch *b;
    int finished = 0;
    o.progress = count_progress;
    o.user = &finished;
    for (int64_t n = 0;; n += n < 30 ? 1 : n / 10) {
        soma__alloc_fail_after(n);
        soma_status status = soma__loader_open(&l, d, &o, &err);
        soma__alloc_fail_after(-1);
        if (!status) break;
        assert_null(l);
        assert_in_range(n, 0, 20000);
    }
    assert_true(finished >= 1);
    soma__loader_close(l);

    o.cache_size = 0; // a video that vanishes while training: the batch that needs it says so, and closing works
    if (soma__loader_open(&l, d, &o, &err)) fail_msg("%s", err.text);
    char video[SOMA_PATH_MAX];
    for (int i = 0; i < 3; i++) {
        char name[120];
        snprintf(name, sizeof name, "toy/videos/observation.images.scene/chunk-000/file-%03d.mp4", i);
        assert_int_equal(soma__path_join(video, root, name, NULL), SOMA_OK);
        assert_int_equal(soma__file_write(video, "gone", 4, &err), SOMA_OK);
    }
    soma_status status = SOMA_OK;
    for (int i = 0; i < 200 && !status; i++) status = soma__loader_next(l, &b, &err);
    // the decoders may have opened their files before: then all batches come; else the sentence names the file
    if (status) assert_non_null(strstr(err.text, ".mp4"));
    soma__loader_close(l);
    o.cache_size = 1 << 30;
    assert_int_not_equal(soma__loader_open(&l, d, &o, &err), SOMA_OK);
    assert_non_null(strstr(err.text, ".mp4"));
    soma__dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_batches), cmocka_unit_test(little_memory), cmocka_unit_test(contents),
                                       cmocka_unit_test(ranks),        cmocka_unit_test(folder),        cmocka_unit_test(sizes),
                                       cmocka_unit_test(failures)};
    return cmocka_run_group_tests(tests, make_dataset, remove_dataset);
}
