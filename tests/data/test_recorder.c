// SPDX-License-Identifier: Apache-2.0
// The recorder: cameras of several sizes, dropped episodes, frames that come too fast, a process that is killed, every failed allocation.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/dataset.h"

#include <soma/record.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FRAMES = 9 };
static const int sizes[2][2] = {{64, 48}, {32, 40}};
static const char *const cameras[] = {"front", "wrist"};
static char root[] = "/tmp/soma_recorder_XXXXXX";

static soma_recorder_spec spec_of(void) {
    return (soma_recorder_spec){.robot_type = "toy",
                                .fps = 30,
                                .n_state = 2,
                                .n_actions = 1,
                                .n_cameras = 2,
                                .camera_names = cameras,
                                .image_sizes = sizes,
                                .wait = true};
}

static void in_root(char out[SOMA_PATH_MAX], const char *name) { assert_int_equal(soma__path_join(out, root, name, NULL), SOMA_OK); }

// Frame f of episode e: its pictures tell which.
static soma_status add_frame(soma_recorder *r, int e, int f, soma_error *err) {
    static uint8_t pictures[2][64 * 48 * 3];
    const uint8_t *images[] = {pictures[0], pictures[1]};
    const float state[] = {(float)e, (float)f}, action[] = {(float)(10 * e + f)};
    for (int c = 0; c < 2; c++) memset(pictures[c], 20 + 30 * e + 8 * f + 100 * c, sizeof pictures[c]);
    return soma_recorder_frame(r, state, action, images, err);
}

static void add_episode(soma_recorder *r, int e) {
    soma_error err = {0};
    for (int f = 0; f < FRAMES; f++)
        if (add_frame(r, e, f, &err)) fail_msg("%s", err.text);
    if (soma_recorder_episode(r, e % 2 ? "put" : "take", &err)) fail_msg("%s", err.text);
}

static void check(const char *path, int n_episodes, bool cut_off) {
    soma_dataset *d;
    soma_dataset_reader *reader;
    soma_error err = {0};
    uint8_t rgb[64 * 48 * 3];
    if (soma__dataset_open(&d, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(d->n_episodes, n_episodes);
    assert_int_equal(d->n_frames, n_episodes * FRAMES);
    assert_int_equal(d->n_absent, 0);
    assert_true(cut_off == (strstr(d->hint, "cut off") != NULL));
    assert_int_equal(d->format->reader_open(&reader, d, &err), SOMA_OK);
    for (int e = 0; e < n_episodes; e++) {
        float action[FRAMES];
        assert_true(d->episodes[e].present && d->episodes[e].video_present && d->episodes[e].n_frames == FRAMES);
        assert_string_equal(d->episodes[e].task, e % 2 ? "put" : "take");
        assert_int_equal(d->format->read_vectors(reader, e, soma__dataset_feature(d, "action"), action, &err), SOMA_OK);
        for (int f = 0; f < FRAMES; f++) assert_true(action[f] == (float)(10 * e + f));
        for (int c = 0; c < 2; c++) {
            int feature = soma__dataset_feature(d, c ? "observation.images.wrist" : "observation.images.front");
            assert_true(d->features[feature].shape[1] == sizes[c][0] && d->features[feature].shape[0] == sizes[c][1]);
            for (int f = 0; f < FRAMES; f++) {
                if (d->format->read_image(reader, e, f, feature, rgb, &err)) fail_msg("%s", err.text);
                assert_in_range(rgb[700] + 3 - (uint8_t)(20 + 30 * e + 8 * f + 100 * c), 0, 6);
            }
        }
    }
    d->format->reader_close(reader);
    soma__dataset_close(d);
}

static bool incomplete(const char *name) {
    char file[SOMA_PATH_MAX], whole[200];
    snprintf(whole, sizeof whole, "%s/meta/incomplete", name);
    in_root(file, whole);
    return soma__file_exists(file);
}

static void records(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_recorder *r;
    soma_recorder_spec spec = spec_of();
    in_root(path, "records");
    if (soma_recorder_open(&r, path, &spec, &err)) fail_msg("%s", err.text);
    for (int e = 0; e < 2; e++) {
        for (int f = 0; f < 3; f++) assert_int_equal(add_frame(r, 6, f, &err), SOMA_OK);
        assert_int_equal(soma_recorder_count(r).episode_frames, 3);
        soma_recorder_drop(r);
        add_episode(r, e);
        assert_true(incomplete("records"));
        check(path, e + 1, true); // on the disk at once
    }
    const float state_values[] = {0, NAN}, action[] = {0};
    static uint8_t picture[64 * 48 * 3];
    const uint8_t *images[] = {picture, picture};
    assert_int_equal(soma_recorder_frame(r, state_values, action, images, &err), SOMA_BAD_INPUT);
    assert_int_equal(soma_recorder_episode(r, "", &err), SOMA_BAD_INPUT);
    assert_int_equal(add_frame(r, 5, 5, &err), SOMA_OK); // never ended
    if (soma_recorder_finish(r, &err)) fail_msg("%s", err.text);
    soma_recorder_counts n = soma_recorder_count(r);
    assert_true(n.episodes == 2 && n.frames == 2 * FRAMES && !n.left_out && !n.episode_frames);
    soma_recorder_close(r);
    assert_false(incomplete("records"));
    check(path, 2, false);
    assert_int_equal(soma_recorder_open(&r, path, &spec, &err), SOMA_BAD_INPUT);
    spec.resume = true;
    assert_int_equal(soma_recorder_open(&r, path, &spec, &err), SOMA_OK);
    n = soma_recorder_count(r);
    assert_true(n.episodes == 2 && n.frames == 2 * FRAMES);
    add_episode(r, 2);
    soma_recorder_close(r); // without its end
    assert_true(incomplete("records"));
    check(path, 3, true);
    spec.n_state = 0;
    assert_int_equal(soma_recorder_open(&r, path, &spec, &err), SOMA_BAD_INPUT);
    assert_null(r);
}

// A burst that no encoder keeps up with: the caller is not held up, what is left out is counted, and rows and pictures still belong
// together.
static void too_fast(void **state) {
    enum { BURST = 400, SIDE = 512 };
    static uint8_t picture[SIDE * SIDE * 3];
    static const int size[1][2] = {{SIDE, SIDE}};
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_recorder *r;
    soma_recorder_spec spec = {
        .fps = 30, .n_state = 1, .n_actions = 1, .n_cameras = 1, .camera_names = cameras, .image_sizes = size, .queue = 3};
    const uint8_t *images[] = {picture};
    uint32_t noise = 1;
    in_root(path, "fast");
    assert_int_equal(soma_recorder_open(&r, path, &spec, &err), SOMA_OK);
    for (int i = 0; i < BURST; i++) {
        for (int k = 0; k < 1000; k++) {
            noise = noise * 1664525 + 1013904223;
            picture[noise % sizeof picture] = (uint8_t)(noise >> 24);
        }
        if (soma_recorder_frame(r, &(float){(float)i}, &(float){(float)i}, images, &err)) fail_msg("%s", err.text);
    }
    soma_recorder_counts n = soma_recorder_count(r);
    assert_int_equal(n.episode_frames + n.left_out, BURST);
    assert_true(n.episode_frames >= 3 && n.left_out > 0);
    assert_int_equal(soma_recorder_episode(r, NULL, &err), SOMA_OK);
    assert_int_equal(soma_recorder_finish(r, &err), SOMA_OK);
    soma_recorder_close(r);
    soma_dataset *d;
    soma_dataset_reader *reader;
    assert_int_equal(soma__dataset_open(&d, path, &err), SOMA_OK);
    assert_int_equal(d->episodes[0].n_frames, n.episode_frames);
    assert_int_equal(d->format->reader_open(&reader, d, &err), SOMA_OK);
    assert_int_equal(
        d->format->read_image(reader, 0, n.episode_frames - 1, soma__dataset_feature(d, "observation.images.front"), picture, &err),
        SOMA_OK);
    d->format->reader_close(reader);
    soma__dataset_close(d);
}

static void killed(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_recorder *r;
    soma_recorder_spec spec = spec_of();
    in_root(path, "killed");
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        if (soma_recorder_open(&r, path, &spec, &err)) _exit(1);
        for (int e = 0; e < 2; e++) add_episode(r, e);
        for (int f = 0; f < 5; f++)
            if (add_frame(r, 2, f, &err)) _exit(1);
        raise(SIGKILL);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    assert_true(incomplete("killed"));
    check(path, 2, true);
    spec.resume = true;
    if (soma_recorder_open(&r, path, &spec, &err)) fail_msg("%s", err.text);
    add_episode(r, 2);
    assert_int_equal(soma_recorder_finish(r, &err), SOMA_OK);
    soma_recorder_close(r);
    assert_false(incomplete("killed"));
    check(path, 3, false);
}

static void every_allocation(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_recorder_spec spec = spec_of();
    in_root(path, "fault");
    for (int64_t n = 0;; n += n < 60 ? 1 : n / 10) {
        soma_recorder *r = NULL;
        assert_int_equal(soma__dir_remove(path, &err), SOMA_OK);
        soma__alloc_fail_after(n);
        soma_status status = soma_recorder_open(&r, path, &spec, &err);
        for (int f = 0; f < 3 && !status; f++) status = add_frame(r, 0, f, &err);
        if (!status) status = soma_recorder_episode(r, "task", &err);
        if (!status) status = soma_recorder_finish(r, &err);
        soma__alloc_fail_after(-1);
        soma_recorder_close(r);
        if (!status) break;
        assert_true(err.text[0]);
        assert_in_range(n, 0, 5000);
    }
}

int main(void) {
    if (!mkdtemp(root)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(records), cmocka_unit_test(killed), cmocka_unit_test(too_fast),
                                       cmocka_unit_test(every_allocation)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__dir_remove(root, NULL);
    return failed;
}
