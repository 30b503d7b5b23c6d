// SPDX-License-Identifier: Apache-2.0
// A synthetic dataset is written and read back: numbers to the bit, pictures within what H.264 may change (mean absolute error below 4 of
// 255 on smooth pictures that name their frame by colour); crashes at every point; what a spec or a frame may not be.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/writer.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { W = 32, H = 24, STATE = 3, ACTION = 2, CAMERAS = 2 };
static char root[] = "/tmp/soma_writer_XXXXXX";

static void in_root(char out[SOMA_PATH_MAX], const char *name) { assert_int_equal(soma__path_join(out, root, name, NULL), SOMA_OK); }

static const char *const states[] = {"a", "b", "c"}, *const actions[] = {"x", "y"}, *const cameras[] = {"scene", "wrist"};
static soma_dataset_spec spec_of(int shard_episodes) {
    return (soma_dataset_spec){.robot_type = "toy",
                               .fps = 20,
                               .n_state = STATE,
                               .n_actions = ACTION,
                               .n_cameras = CAMERAS,
                               .state_names = states,
                               .action_names = actions,
                               .camera_names = cameras,
                               .image_width = W,
                               .image_height = H,
                               .shard_episodes = shard_episodes};
}

static int length_of(int episode) { return 5 + episode * 3; }
static float state_of(int e, int f, int k) { return (float)e + 0.1f * (float)f - (float)k; }
static float action_of(int e, int f, int k) { return sinf((float)(e + f)) + (float)k; }
static uint8_t pixel_of(int e, int f, int camera, int x, int y, int channel) {
    int base[3] = {40 + 30 * (e % 6), 30 + 7 * f, camera ? 200 : 60};
    return (uint8_t)(base[channel] + (channel == 1 ? 0 : x / 2 + y / 2));
}

static void add_frame(soma_dataset_writer *w, int e, int f) {
    float s[STATE], a[ACTION];
    static uint8_t images[CAMERAS][H * W * 3];
    const uint8_t *pictures[CAMERAS];
    for (int k = 0; k < STATE; k++) s[k] = state_of(e, f, k);
    for (int k = 0; k < ACTION; k++) a[k] = action_of(e, f, k);
    for (int c = 0; c < CAMERAS; c++) {
        pictures[c] = images[c];
        for (int i = 0; i < H * W * 3; i++) images[c][i] = pixel_of(e, f, c, i / 3 % W, i / 3 / W, i % 3);
    }
    soma_error err = {0};
    if (soma__dataset_writer_frame(w, s, a, pictures, &err)) fail_msg("%s", err.text);
}

static void add_episode(soma_dataset_writer *w, int e) {
    soma_error err = {0};
    for (int f = 0; f < length_of(e); f++) add_frame(w, e, f);
    if (soma__dataset_writer_episode(w, e % 2 ? "touch red" : "it's \"blue\"", &err)) fail_msg("%s", err.text);
}

static soma_dataset *open_dataset(const char *path) {
    soma_dataset *d;
    soma_error err = {0};
    if (soma__dataset_open(&d, path, &err)) fail_msg("%s", err.text);
    return d;
}

static void check_pictures(const soma_dataset *d, soma_dataset_reader *r, int e, int f) {
    static const char *const keys[] = {"observation.images.scene", "observation.images.wrist"};
    static uint8_t rgb[H * W * 3];
    soma_error err = {0};
    for (int c = 0; c < CAMERAS; c++) {
        if (d->format->read_image(r, e, f, soma__dataset_feature(d, keys[c]), rgb, &err)) fail_msg("%s", err.text);
        double error = 0;
        for (int i = 0; i < H * W * 3; i++) error += abs(rgb[i] - pixel_of(e, f, c, i / 3 % W, i / 3 / W, i % 3));
        error /= H * W * 3;
        if (!(error < 4)) fail_msg("episode %d, frame %d, camera %d: mean error %.2f", e, f, c, error);
    }
}

static void check_dataset(const char *path, int n_episodes) {
    soma_dataset *d = open_dataset(path);
    soma_dataset_reader *r;
    soma_error err = {0};
    int total = 0;
    assert_string_equal(d->version, "v3.0");
    assert_string_equal(d->robot_type, "toy");
    assert_true(d->fps == 20);
    assert_int_equal(d->n_episodes, n_episodes);
    assert_int_equal(d->episodes_present, n_episodes);
    assert_int_equal(d->n_absent, 0);
    assert_int_equal(d->format->reader_open(&r, d, &err), SOMA_OK);
    float values[64 * STATE];
    for (int e = 0; e < n_episodes; e++) {
        assert_int_equal(d->episodes[e].index, e);
        assert_int_equal(d->episodes[e].n_frames, length_of(e));
        assert_true(d->episodes[e].present && d->episodes[e].video_present);
        assert_string_equal(d->episodes[e].task, e % 2 ? "touch red" : "it's \"blue\"");
        if (d->format->read_vectors(r, e, soma__dataset_feature(d, "observation.state"), values, &err)) fail_msg("%s", err.text);
        for (int i = 0; i < length_of(e) * STATE; i++) assert_true(values[i] == state_of(e, i / STATE, i % STATE));
        if (d->format->read_vectors(r, e, soma__dataset_feature(d, "action"), values, &err)) fail_msg("%s", err.text);
        for (int i = 0; i < length_of(e) * ACTION; i++) assert_true(values[i] == action_of(e, i / ACTION, i % ACTION));
        if (d->format->read_vectors(r, e, soma__dataset_feature(d, "index"), values, &err)) fail_msg("%s", err.text);
        for (int f = 0; f < length_of(e); f++) assert_true(values[f] == (float)(total + f));
        for (int f = 0; f < length_of(e); f++) check_pictures(d, r, e, f);
        for (int f = length_of(e) - 1; f >= 0; f -= 2) check_pictures(d, r, e, f); // backwards: every one a seek
        total += length_of(e);
    }
    assert_int_equal(d->n_frames, total);
    d->format->reader_close(r);
    soma__dataset_close(d);
}

static void round_trip(void **state) {
    char path[SOMA_PATH_MAX], file[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_dataset_writer *w;
    soma_dataset_spec spec = spec_of(3); // 7 episodes: two full shards and one of a single episode
    in_root(path, "round trip");
    if (soma__dataset_writer_open(&w, path, &spec, &err)) fail_msg("%s", err.text);
    for (int e = 0; e < 7; e++) {
        add_frame(w, 9, 9);
        add_frame(w, 9, 10);
        soma__dataset_writer_drop(w);
        add_episode(w, e);
    }
    assert_int_equal(soma__dataset_writer_episodes(w), 7);
    in_root(file, "round trip/meta/incomplete");
    assert_true(soma__file_exists(file));
    add_frame(w, 9, 9); // never ended
    if (soma__dataset_writer_finish(w, &err)) fail_msg("%s", err.text);
    assert_false(soma__file_exists(file));
    soma__dataset_writer_close(w);
    check_dataset(path, 7);

    json_t *stats;
    in_root(file, "round trip/meta/stats.json");
    assert_int_equal(soma__json_load(&stats, file, &err), SOMA_OK);
    json_t *s = json_object_get(stats, "observation.state"), *p = json_object_get(stats, "observation.images.wrist");
    assert_true(json_number_value(json_array_get(json_object_get(s, "max"), 0)) == state_of(6, length_of(6) - 1, 0));
    json_t *blue = json_array_get(json_array_get(json_array_get(json_object_get(p, "mean"), 2), 0), 0);
    assert_true(fabs(json_number_value(blue) - 213.0 / 255) < 0.02); // 200 and x/2 + y/2: 7.5 + 5.5 on average
    assert_int_equal(json_integer_value(json_array_get(json_object_get(p, "count"), 0)), 7 * 5 + 3 * 21);
    json_decref(stats);
    assert_int_equal(soma__dataset_writer_open(&w, path, &spec, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "not empty"));
}

static void resumed(void **state) {
    char path[SOMA_PATH_MAX], file[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_dataset_writer *w;
    soma_dataset_spec spec = spec_of(2);
    in_root(path, "resumed");
    assert_int_equal(soma__dataset_writer_open(&w, path, &spec, &err), SOMA_OK);
    for (int e = 0; e < 3; e++) add_episode(w, e);
    soma__dataset_writer_close(w); // as if the program had died: one shard of two is on the disk
    check_dataset(path, 2);
    // what a real death may leave: files of the next shard without its episode table
    in_root(file, "resumed/data/chunk-000/file-001.parquet");
    assert_int_equal(soma__file_write(file, "half", 4, &err), SOMA_OK);
    in_root(file, "resumed/videos/observation.images.scene/chunk-000/file-001.mp4.part-7");
    assert_int_equal(soma__file_write(file, "half", 4, &err), SOMA_OK);
    spec.fps = 10;
    assert_int_equal(soma__dataset_writer_resume(&w, path, &spec, &err), SOMA_BAD_INPUT);
    assert_null(w);
    spec.fps = 20;
    if (soma__dataset_writer_resume(&w, path, &spec, &err)) fail_msg("%s", err.text);
    assert_false(soma__file_exists(file));
    assert_int_equal(soma__dataset_writer_episodes(w), 2);
    for (int e = 2; e < 5; e++) add_episode(w, e);
    if (soma__dataset_writer_finish(w, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__dataset_writer_episode(w, "more", &err), SOMA_IO);
    soma__dataset_writer_close(w);
    check_dataset(path, 5);
    if (soma__dataset_writer_resume(&w, path, &spec, &err)) fail_msg("%s", err.text); // a finished one can grow, too
    add_episode(w, 5);
    if (soma__dataset_writer_finish(w, &err)) fail_msg("%s", err.text);
    soma__dataset_writer_close(w);
    check_dataset(path, 6);
}

// A process that is killed in the middle of its third episode's shard: two episodes count, no partial file survives the resuming.
static void killed(void **state) {
    char path[SOMA_PATH_MAX], dir[SOMA_PATH_MAX], **left;
    soma_error err = {0};
    soma_dataset_writer *w;
    soma_dataset_spec spec = spec_of(2);
    in_root(path, "killed");
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        if (soma__dataset_writer_open(&w, path, &spec, &err)) _exit(1);
        for (int e = 0; e < 3; e++) add_episode(w, e);
        add_frame(w, 3, 0);
        raise(SIGKILL);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    check_dataset(path, 2);
    size_t n;
    in_root(dir, "killed/videos/observation.images.wrist/chunk-000");
    assert_int_equal(soma__dir_list(&left, &n, dir, &err), SOMA_OK);
    assert_int_equal(n, 2); // file-000.mp4 and what was being written
    soma__dir_list_free(left, n);
    if (soma__dataset_writer_resume(&w, path, &spec, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__dir_list(&left, &n, dir, &err), SOMA_OK);
    assert_int_equal(n, 1);
    soma__dir_list_free(left, n);
    assert_int_equal(soma__dataset_writer_episodes(w), 2);
    for (int e = 2; e < 4; e++) add_episode(w, e);
    if (soma__dataset_writer_finish(w, &err)) fail_msg("%s", err.text);
    soma__dataset_writer_close(w);
    check_dataset(path, 4);
}

// The n-th allocation fails: an error, never a crash; what had been counted stays readable, and resuming mends the rest.
static void every_allocation(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_dataset_writer *w = NULL;
    soma_dataset_spec spec = spec_of(1);
    in_root(path, "fault");
    for (int64_t n = 0;; n += n < 60 ? 1 : n / 10) { // all of the first, then ever wider steps
        assert_int_equal(soma__dir_remove(path, &err), SOMA_OK);
        soma__alloc_fail_after(n);
        soma_status status = soma__dataset_writer_open(&w, path, &spec, &err);
        float s[STATE] = {0}, a[ACTION] = {0};
        static uint8_t image[H * W * 3];
        const uint8_t *images[] = {image, image};
        for (int e = 0; e < 2 && !status; e++) {
            if (!status) status = soma__dataset_writer_frame(w, s, a, images, &err);
            if (!status) status = soma__dataset_writer_episode(w, "task", &err);
        }
        int64_t ended = w ? soma__dataset_writer_episodes(w) : 0;
        if (!status) status = soma__dataset_writer_finish(w, &err);
        soma__alloc_fail_after(-1);
        soma__dataset_writer_close(w);
        if (!status) break;
        assert_true(err.text[0]);
        assert_in_range(ended, 0, 2);
        assert_in_range(n, 0, 5000);
    }
}

static void refused(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_dataset_writer *w;
    in_root(path, "refused");
    soma_dataset_spec spec = spec_of(0);
    spec.image_width = 33;
    assert_int_equal(soma__dataset_writer_open(&w, path, &spec, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "even"));
    spec = spec_of(0);
    const char *const bad[] = {"scene", "../wrist"};
    spec.camera_names = bad;
    assert_int_equal(soma__dataset_writer_open(&w, path, &spec, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "../wrist"));
    spec = spec_of(0);
    assert_int_equal(soma__dataset_writer_open(&w, path, &spec, &err), SOMA_OK);
    float s[STATE] = {0, NAN, 0}, a[ACTION] = {0};
    static uint8_t image[H * W * 3];
    const uint8_t *images[] = {image, image};
    assert_int_equal(soma__dataset_writer_frame(w, s, a, images, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "state[1]"));
    assert_int_equal(soma__dataset_writer_episode(w, "", &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "without frames"));
    if (soma__dataset_writer_finish(w, &err)) fail_msg("%s", err.text);
    soma__dataset_writer_close(w);
    soma_dataset *d = open_dataset(path);
    assert_int_equal(d->n_episodes, 0);
    soma__dataset_close(d);
}

int main(void) {
    if (!mkdtemp(root)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),       cmocka_unit_test(resumed), cmocka_unit_test(killed),
        cmocka_unit_test(every_allocation), cmocka_unit_test(refused),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    soma__dir_remove(root, NULL);
    return failed;
}
