// SPDX-License-Identifier: Apache-2.0
// --skip-bad: what is damaged is told with file and place, left out, and nothing else is.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/screen.h"
#include "toy_dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EPISODES = 5, FRAMES = 12, N = 2, SIDE = 16 };
static char root[] = "/tmp/soma_screen_XXXXXX", path[SOMA_PATH_MAX];
static const char *const names[] = {"shoulder", "elbow"};

static int n_frames(int e) { return FRAMES; }
static const char *task_of(int e) { return "move"; }
static void frame_of(int e, int f, float *state, float *action, uint8_t *picture) {
    for (int k = 0; k < N; k++) state[k] = action[k] = (float)(e + f * k);
    for (int i = 0; i < SIDE * SIDE * 3; i++) picture[i] = (uint8_t)((i * 7 + f * 31 + e * 59) ^ (i >> 3));
}

// Five episodes, each in files of its own.
static int make(void **state) {
    const toy_dataset toy = {N, N, SIDE, 10, names, EPISODES, 1, n_frames, task_of, frame_of};
    return soma__path_join(path, root, "toy", NULL) || soma__dir_remove(path, NULL) || write_toy_dataset(&toy, path, NULL) ? -1 : 0;
}

// Keeps the first `share` percent of a file of the dataset.
static void cut(const char *name, size_t share) {
    char file[SOMA_PATH_MAX], *bytes;
    size_t size;
    assert_int_equal(soma__path_join(file, path, name, NULL), SOMA_OK);
    assert_int_equal(soma__file_read(&bytes, &size, file, 1 << 24, NULL), SOMA_OK);
    assert_int_equal(soma__file_write(file, bytes, size * share / 100, NULL), SOMA_OK);
    soma__free(bytes);
}

static char told[4000];
static void tell(void *user, const char *why) {
    size_t at = strlen(told);
    snprintf(told + at, sizeof told - at, "%s\n", why);
}

static int64_t screen(soma_dataset *d, bool skip_bad, int threads, soma_status wanted, soma_error *err) {
    const int features[] = {soma__dataset_feature(d, "observation.state"), soma__dataset_feature(d, "action"),
                            soma__dataset_feature(d, "observation.images.scene")};
    const soma_screen how = {.skip_bad = skip_bad, .features = features, .n_features = 3, .threads = threads, .told = tell};
    int64_t skipped;
    told[0] = 0;
    soma_status status = soma__dataset_screen(&skipped, d, &how, err);
    if (status != wanted) fail_msg("status %d: %s", status, err->text);
    return skipped;
}

static soma_dataset *open_toy(void) {
    soma_dataset *d;
    soma_error err = {0};
    if (soma__dataset_open(&d, path, &err)) fail_msg("%s", err.text);
    return d;
}

static void leaves_out(void **state) {
    soma_error err = {0};
    soma_dataset *d = open_toy();
    assert_int_equal(screen(d, true, 1, SOMA_OK, &err), 0); // nothing is wrong with it
    assert_int_equal(d->episodes_present, EPISODES);
    assert_string_equal(told, "");
    soma__dataset_close(d);

    cut("data/chunk-000/file-001.parquet", 60);
    cut("videos/observation.images.scene/chunk-000/file-003.mp4", 70);
    for (int threads = 1; threads <= 3; threads++) {
        d = open_toy();
        assert_int_equal(screen(d, true, threads, SOMA_OK, &err), 2);
        for (int e = 0; e < EPISODES; e++) assert_int_equal(d->episodes[e].present, e != 1 && e != 3);
        assert_true(d->episodes_present == EPISODES - 2 && d->frames_present == (EPISODES - 2) * FRAMES);
        const char *second = strstr(told, "\n") + 1; // in the episodes' order
        assert_non_null(strstr(told, "data/chunk-000/file-001.parquet"));
        assert_non_null(strstr(second, "videos/observation.images.scene/chunk-000/file-003.mp4"));
        soma__dataset_close(d);
    }
}

static void demands(void **state) {
    soma_error err = {0};
    char info[SOMA_PATH_MAX];
    json_t *value;
    assert_int_equal(soma__path_join(info, path, "meta/info.json", NULL), SOMA_OK);
    assert_int_equal(soma__json_load(&value, info, NULL), SOMA_OK);
    json_object_set_new(value, "total_frames", json_integer(7));
    assert_int_equal(soma__json_save(value, info, NULL), SOMA_OK);
    json_decref(value);
    soma_dataset *d = open_toy();
    screen(d, false, 1, SOMA_BAD_INPUT, &err);
    assert_non_null(strstr(err.text, "meta/info.json: says 5 episodes with 7 frames"));
    assert_non_null(strstr(err.text, "(--skip-bad goes on without what is damaged)"));
    assert_int_equal(screen(d, true, 1, SOMA_OK, &err), 1);
    assert_int_equal(d->episodes_present, EPISODES);
    soma__dataset_close(d);
}

static void out_of_memory(void **state) {
    soma_dataset *d = open_toy();
    for (int n = 0;; n++) {
        soma_error err = {0};
        soma__alloc_fail_after(n);
        const int features[] = {soma__dataset_feature(d, "action")};
        soma_status status = soma__dataset_screen(NULL, d, &(soma_screen){true, features, 1, NULL, 0, 1, NULL, NULL, NULL}, &err);
        soma__alloc_fail_after(-1);
        assert_int_equal(d->episodes_present, EPISODES); // no memory is no damage
        if (status == SOMA_OK) break;
        assert_int_equal(status, SOMA_NO_MEMORY);
        assert_true(n < 2000);
    }
    soma__dataset_close(d);
}

int main(void) {
    if (!mkdtemp(root)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(leaves_out, make), cmocka_unit_test_setup(demands, make),
                                       cmocka_unit_test_setup(out_of_memory, make)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__dir_remove(root, NULL);
    return failed;
}
