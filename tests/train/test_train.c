// SPDX-License-Identifier: Apache-2.0
// Whole training runs on a small dataset of our own making: the loss falls, the number of threads changes no bit, a run that was stopped or
// killed goes on to the same bits, and a dataset with a NaN is refused by name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data/writer.h"
#include "train/trainer.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIDE = 32, EPISODES = 6, FRAMES = 20 };
static char root[] = "/tmp/soma_train_XXXXXX";

static void path(char out[SOMA_PATH_MAX], const char *name) { snprintf(out, SOMA_PATH_MAX, "%s/%s", root, name); }

// A dot moves over the picture; the state is its place a step ago, the action where it goes.
static void write_dataset(const char *name, bool with_nan) {
    char dir[SOMA_PATH_MAX];
    path(dir, name);
    static const char *const dims[] = {"x", "y"}, *const cameras[] = {"scene"};
    soma_dataset_spec spec = {.robot_type = "dot",
                              .fps = 10,
                              .n_state = 2,
                              .n_actions = 2,
                              .n_cameras = 1,
                              .state_names = dims,
                              .action_names = dims,
                              .camera_names = cameras,
                              .image_width = SIDE,
                              .image_height = SIDE};
    soma_dataset_writer *w;
    soma_error err;
    if (soma__dataset_writer_open(&w, dir, &spec, &err)) fail_msg("%s", err.text);
    for (int e = 0; e < EPISODES; e++) {
        for (int f = 0; f < FRAMES; f++) {
            static uint8_t picture[SIDE * SIDE * 3];
            memset(picture, 40, sizeof picture);
            float x = sinf(0.3f * (float)f + (float)e), y = cosf(0.2f * (float)f);
            int px = 16 + (int)(10 * x), py = 16 + (int)(10 * y);
            for (int i = -3; i < 3; i++)
                for (int j = -3; j < 3; j++) picture[((py + i) * SIDE + px + j) * 3 + e % 3] = 250;
            const uint8_t *images[] = {picture};
            float state[] = {x, y}, action[] = {x + 0.1f, with_nan && e == 2 && f == 5 ? NAN : y - 0.1f};
            if (soma__dataset_writer_frame(w, state, action, images, &err)) fail_msg("%s", err.text);
        }
        if (soma__dataset_writer_episode(w, e % 2 ? "follow the dot" : "chase the dot", &err)) fail_msg("%s", err.text);
    }
    if (soma__dataset_writer_finish(w, &err)) fail_msg("%s", err.text);
    soma__dataset_writer_close(w);
}

static int make_data(void **state) {
    if (!mkdtemp(root)) return 1;
    char file[SOMA_PATH_MAX];
    path(file, "model.json");
    const char *sizes =
        "{\"paligemma\": {\"width\": 32, \"depth\": 2, \"mlp_dim\": 32, \"num_heads\": 2, \"num_kv_heads\": 1, \"head_dim\": 16},"
        "\"action_expert\": {\"width\": 32, \"depth\": 2, \"mlp_dim\": 32, \"num_heads\": 2, \"num_kv_heads\": 1, \"head_dim\": 16},"
        "\"vision\": {\"hidden_size\": 32, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 32,"
        "\"patch_size\": 8, \"image_size\": 32}}";
    if (soma__file_write(file, sizes, strlen(sizes), NULL)) return 1;
    write_dataset("data", false);
    return 0;
}

static int remove_data(void **state) { return soma__dir_remove(root, NULL) != SOMA_OK; }

static soma_train_opts options(const char *out) {
    soma_train_opts o = soma_train_defaults();
    path(o.data, "data");
    path(o.model, "model.json");
    path(o.out, out);
    o.steps = 12;
    o.batch = 8;
    o.draws = 2;
    o.horizon = 4;
    o.eval_every = 5;
    o.save_every = 4;
    o.warmup = 3;
    o.lr = 2e-3;
    o.holdout_share = 0.2;
    o.threads = 1;
    return o;
}

static void train(const soma_train_opts *o, soma_train_report *report, void *user, soma_status wanted) {
    soma_error err = {0};
    soma_status status = soma_train(o, report, user, &err);
    if (status != wanted) fail_msg("%s", err.text);
}

static void assert_same_file(const char *a, const char *b, const char *name) {
    char pa[SOMA_PATH_MAX * 2], pb[SOMA_PATH_MAX * 2], *da, *db;
    size_t na, nb;
    snprintf(pa, sizeof pa, "%s/%s/%s", root, a, name);
    snprintf(pb, sizeof pb, "%s/%s/%s", root, b, name);
    assert_int_equal(soma__file_read(&da, &na, pa, 1 << 30, NULL), SOMA_OK);
    assert_int_equal(soma__file_read(&db, &nb, pb, 1 << 30, NULL), SOMA_OK);
    if (na != nb || memcmp(da, db, na)) fail_msg("%s and %s are not the same bytes", pa, pb);
    soma__free(da);
    soma__free(db);
}

typedef struct {
    double first, last;
    int64_t stop_at;
} watch;

static bool keep_loss(void *user, const soma_train_progress *p) {
    watch *w = user;
    if (p->step == 1) w->first = p->loss;
    w->last = p->loss;
    return p->step != w->stop_at;
}

static void test_loss_falls(void **state) {
    soma_train_opts o = options("falls");
    o.steps = 150;
    o.eval_every = 50;
    watch w = {0};
    train(&o, keep_loss, &w, SOMA_OK);
    if (!(w.last < 0.6 * w.first)) fail_msg("the loss went from %.3f to %.3f", w.first, w.last);
    char file[SOMA_PATH_MAX];
    const char *left[] = {"falls/model.safetensors", "falls/config.json",   "falls/train_config.json", "falls/norm_stats.json",
                          "falls/vocab.json",        "falls/metrics.jsonl", "falls/curves.html"};
    for (size_t i = 0; i < SOMA_COUNT(left); i++) {
        path(file, left[i]);
        if (!soma__file_exists(file)) fail_msg("%s is missing", file);
    }
}

static void test_threads_do_not_matter(void **state) {
    for (int threads = 1; threads <= 3; threads++) {
        char name[16];
        snprintf(name, sizeof name, "threads%d", threads);
        soma_train_opts o = options(name);
        o.threads = o.workers = threads;
        train(&o, NULL, NULL, SOMA_OK);
    }
    assert_same_file("threads1", "threads2", "model.safetensors");
    assert_same_file("threads1", "threads3", "model.safetensors");
    assert_same_file("threads1", "threads3", "training_state.safetensors");
}

static void test_accumulation_splits_a_step(void **state) {
    soma_train_opts o = options("parts");
    o.accumulate = 2;
    o.steps = 3;
    watch w = {0};
    train(&o, keep_loss, &w, SOMA_OK);
    assert_true(isfinite(w.last));
}

static void test_resume_gives_the_same_bits(void **state) {
    soma_train_opts o = options("whole");
    train(&o, NULL, NULL, SOMA_OK);
    o = options("stopped");
    watch w = {.stop_at = 7};
    train(&o, keep_loss, &w, SOMA_CANCELLED);
    o.resume = true;
    train(&o, NULL, NULL, SOMA_OK);
    assert_same_file("whole", "stopped", "model.safetensors");
    assert_same_file("whole", "stopped", "training_state.safetensors");
}

static bool slow(void *user, const soma_train_progress *p) {
    usleep(20000);
    return true;
}

static void test_kill_and_resume(void **state) {
    for (int wait_ms = 60; wait_ms <= 240; wait_ms += 60) { // at other places of the run: before, between and during saves
        soma_train_opts o = options("killed");
        pid_t child = fork();
        assert_true(child >= 0);
        if (!child) _exit(soma_train(&o, slow, NULL, NULL) != SOMA_OK);
        usleep((useconds_t)wait_ms * 1000);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        o.resume = true;
        train(&o, NULL, NULL, SOMA_OK);
        assert_same_file("whole", "killed", "model.safetensors");
        assert_same_file("whole", "killed", "training_state.safetensors");
        char dir[SOMA_PATH_MAX];
        path(dir, "killed");
        assert_int_equal(soma__dir_remove(dir, NULL), SOMA_OK);
    }
}

static void test_bad_input(void **state) {
    soma_error err;
    write_dataset("nan", true);
    soma_train_opts o = options("bad");
    path(o.data, "nan");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "episode 2"));
    o = options("bad");
    strcpy(o.action_key, "torque");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "torque"));
    o = options("bad");
    path(o.data, "nowhere");
    assert_int_not_equal(soma_train(&o, NULL, NULL, &err), SOMA_OK);
    assert_non_null(strstr(err.text, "nowhere"));
    o = options("bad");
    o.batch = 7;
    o.accumulate = 2;
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_falls),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_accumulation_splits_a_step),
        cmocka_unit_test(test_resume_gives_the_same_bits),
        cmocka_unit_test(test_kill_and_resume),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, make_data, remove_data);
}
