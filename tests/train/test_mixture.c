// SPDX-License-Identifier: Apache-2.0
// Training on several datasets at once: shares by weight, a run that is stopped goes on to the same weights, robots of different sizes with
// statistics of their own; and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/json.h"
#include "dots.h"
#include "train/trainer.h"

static int arm_frames(int episode) { return 15; }
static const char *arm_task(int episode) { return "wave"; }
static void arm(int episode, int frame, float *state, float *action, uint8_t *picture) {
    for (int k = 0; k < 3; k++) action[k] = state[k] = 100 + 10 * sinf((float)(episode + frame * k) / 4);
    memset(picture, 40 + 10 * (frame % 4), 24 * 24 * 3);
}

// A second robot: three joints, other pictures, another instruction.
static int make_both(void **state) {
    static const char *const names[] = {"a", "b", "c"};
    const toy_dataset toy = {3, 3, 24, 10, names, 4, 0, arm_frames, arm_task, arm};
    char dir[SOMA_OPT_TEXT];
    if (make_dots(state)) return 1;
    path(dir, "arms");
    return write_toy_dataset(&toy, dir, NULL);
}

static soma_train_opts options(const char *out) {
    soma_train_opts o = soma_train_defaults();
    char dots[SOMA_OPT_TEXT / 4], arms[SOMA_OPT_TEXT / 4];
    snprintf(dots, sizeof dots, "%.100s/data", root);
    snprintf(arms, sizeof arms, "%.100s/arms", root);
    snprintf(o.data, sizeof o.data, "%s,%s", dots, arms);
    path(o.model, "model.json");
    path(o.out, out);
    o.horizon = 4, o.steps = 8, o.batch = 4, o.warmup = 2, o.eval_every = 4, o.save_every = 3, o.threads = 1, o.holdout_share = 0.2;
    return o;
}

static bool stop(void *user, const soma_train_progress *p) { return p->step < 5; }

static void train(const soma_train_opts *o, soma_train_report *report, soma_status wanted) {
    soma_error err = {0};
    if (soma_train(o, report, NULL, &err) != wanted) fail_msg("%s", err.text);
}

static char *read_file(size_t *size, const char *folder, const char *name) {
    char dir[SOMA_OPT_TEXT], file[SOMA_PATH_MAX], *bytes;
    path(dir, folder);
    assert_int_equal(soma__path_join(file, dir, name, NULL), SOMA_OK);
    assert_int_equal(soma__file_read(&bytes, size, file, 1 << 26, NULL), SOMA_OK);
    return bytes;
}

static void stopped_and_resumed(void **state) {
    size_t size[3];
    soma_train_opts o = options("whole");
    strcpy(o.weights, "1,3");
    train(&o, NULL, SOMA_OK);
    o = options("stopped");
    strcpy(o.weights, "1,3");
    o.workers = 2;
    train(&o, stop, SOMA_CANCELLED);
    o.resume = true;
    train(&o, NULL, SOMA_OK);
    o = options("other");
    strcpy(o.weights, "3,1");
    train(&o, NULL, SOMA_OK);
    char *whole = read_file(&size[0], "whole", "model.safetensors"), *stopped = read_file(&size[1], "stopped", "model.safetensors"),
         *other = read_file(&size[2], "other", "model.safetensors");
    assert_true(size[0] == size[1] && size[0] == size[2]);
    assert_memory_equal(whole, stopped, size[0]);
    assert_memory_not_equal(whole, other, size[0]);
    soma__free(whole);
    soma__free(stopped);
    soma__free(other);

    // each robot has statistics of its own: the arm's joints are near 100
    json_t *stats;
    char *text = read_file(&size[0], "whole", "norm_stats_2.json");
    assert_int_equal(soma__json_parse(&stats, text, size[0], "norm_stats_2.json", NULL), SOMA_OK);
    const json_t *mean = json_object_get(json_object_get(json_object_get(stats, "norm_stats"), "state"), "mean");
    assert_int_equal(json_array_size(mean), 3);
    assert_true(json_number_value(json_array_get(mean, 0)) > 90);
    json_decref(stats);
    soma__free(text);
}

// Rows come as often as the weights say, and a seek is where going there step by step would be.
static void shares(void **state) {
    enum { BATCHES = 300, ROWS = 4 };
    soma_trainer t;
    soma_error err = {0};
    soma_train_opts o = options("shares");
    strcpy(o.weights, "1,3");
    if (soma__trainer_open(&t, &o, NULL, &err)) fail_msg("%s", err.text);
    assert_true(t.model->info.action_dim >= 3 && t.n_others == 1 && t.others[0].robot.n_actions == 3);
    int64_t seen[BATCHES * ROWS][3], count[2] = {0};
    for (int pass = 0; pass < 2; pass++) {
        int64_t first = pass ? 117 : 0;
        assert_int_equal(soma__mixture_seek(&t.rows, first, &err), SOMA_OK);
        for (int64_t b = first; b < BATCHES; b++)
            for (int64_t r = 0; r < ROWS; r++) {
                const soma_loader_batch *from;
                int64_t at, *was = seen[b * ROWS + r];
                int source;
                assert_int_equal(soma__mixture_next(&t.rows, b, r, &source, &from, &at, &err), SOMA_OK);
                const int64_t now[] = {source, from->episode[at], from->frame[at]};
                if (pass) assert_memory_equal(was, now, sizeof now);
                memcpy(was, now, sizeof now);
                count[source] += !pass;
            }
    }
    assert_float_equal((double)count[1] / (BATCHES * ROWS), 0.75, 0.05);
    soma__trainer_close(&t);
}

static void refused(void **state) {
    static const struct {
        const char *weights, *says;
    } cases[] = {{"1", "there are 2 datasets"}, {"0,0", "are all zero"}, {"1,x", "wanted numbers"}, {"1,-2", "wanted numbers"}};
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        soma_trainer t;
        soma_error err = {0};
        soma_train_opts o = options("refused");
        strcpy(o.weights, cases[i].weights);
        assert_int_equal(soma__trainer_open(&t, &o, NULL, &err), SOMA_BAD_INPUT);
        if (!strstr(err.text, cases[i].says)) fail_msg("%s", err.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(stopped_and_resumed), cmocka_unit_test(shares), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, make_both, remove_dots);
}
