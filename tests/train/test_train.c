// SPDX-License-Identifier: Apache-2.0
// Whole training runs on a small dataset of our own making: the loss falls, the number of threads changes no bit, a run that was stopped or
// killed goes on to the same bits, and a dataset with a NaN is refused by name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/dots.h"
#include "train/trainer.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static soma_train_opts options(const char *out) {
    soma_train_opts o = soma_train_defaults();
    path(o.data, "data");
    path(o.model, "model.json");
    path(o.out, out);
    o.steps = 12;
    o.batch = 8;
    o.draws = 2;
    o.mean_steps = 2;
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
    o.mean_steps = 0;
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

static bool keep_looks(void *user, const soma_train_progress *p) {
    double *looks = user;
    if (isfinite(p->eval_loss)) looks[p->step] = p->eval_loss;
    return true;
}

// Whoever learns only the mean chunk is served that way; and each phase's looks are at what it learns: the mean's error of normalised
// actions is below 1 after some steps, the flow's velocity has the noise in it, too.
static void test_mean_chunk_alone(void **state) {
    soma_train_opts o = options("mean");
    o.steps = o.mean_steps = 60;
    o.eval_every = 30;
    double looks[100] = {0};
    train(&o, keep_looks, looks, SOMA_OK);
    assert_true(looks[60] > 0 && looks[60] < 1);
    soma_policy *p;
    char dir[SOMA_PATH_MAX];
    path(dir, "mean");
    assert_int_equal(soma_policy_open(&p, dir, NULL, NULL), SOMA_OK);
    assert_int_equal(soma__policy_model(p)->info.n_steps, 1);
    assert_true(soma__policy_model(p)->info.noise == 0);
    soma_policy_close(p);
    o = options("flow"); // what goes on from it learns the flow, and is served so again
    path(o.init, "mean");
    o.model[0] = 0;
    o.mean_steps = 0;
    train(&o, NULL, NULL, SOMA_OK);
    path(dir, "flow");
    assert_int_equal(soma_policy_open(&p, dir, NULL, NULL), SOMA_OK);
    assert_int_equal(soma__policy_model(p)->info.n_steps, 10);
    assert_true(soma__policy_model(p)->info.noise == 1);
    soma_policy_close(p);
    o = options("both");
    o.steps = 62;
    o.mean_steps = 60;
    o.eval_every = 1;
    train(&o, keep_looks, looks, SOMA_OK);
    if (!(looks[61] > 1.3 * looks[60])) fail_msg("the mean's look is %.3f, the flow's %.3f", looks[60], looks[61]);
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
    soma_train_opts o = options("bad");
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
        cmocka_unit_test(test_mean_chunk_alone),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_accumulation_splits_a_step),
        cmocka_unit_test(test_resume_gives_the_same_bits),
        cmocka_unit_test(test_kill_and_resume),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, make_dots, remove_dots);
}
