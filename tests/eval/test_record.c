// SPDX-License-Identifier: Apache-2.0
// Demonstrations as they are written: enough of them, the same for any number of threads, clean labels on a disturbed path; and a policy
// made from them drives, with the same bits whatever else is driven beside it.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/dataset.h"
#include "eval/record.h"
#include "env/task.h"
#include "eval/rollout.h"

#include <soma/train.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, EPISODES = 5 };

static char dir[] = "/tmp/soma-record-XXXXXX";
static bool drawable; // the machine gives an offscreen OpenGL

static soma_record_opts opts(const char *name) {
    soma_record_opts o = soma_record_defaults();
    snprintf(o.out, sizeof o.out, "%s/%s", dir, name);
    o.episodes = EPISODES;
    o.image = SIDE;
    return o;
}

// All values of a feature, episode after episode; to be released.
static float *read_all(const char *name, const char *feature, int64_t *n) {
    char path[200];
    soma_dataset *d;
    soma_dataset_reader *reader;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(soma__dataset_open(&d, path, NULL), SOMA_OK);
    assert_int_equal(d->format->reader_open(&reader, d, NULL), SOMA_OK);
    int f = soma__dataset_feature(d, feature);
    assert_true(f >= 0);
    int64_t size = d->features[f].size, at = 0;
    float *all = soma__calloc((size_t)(d->n_frames * size), sizeof *all);
    for (int64_t e = 0; e < d->n_episodes; e++) {
        assert_int_equal(d->format->read_vectors(reader, e, f, all + at * size, NULL), SOMA_OK);
        assert_non_null(strstr(d->episodes[e].task, "touch the "));
        at += d->episodes[e].n_frames;
    }
    assert_int_equal(at, d->n_frames);
    *n = at * size;
    d->format->reader_close(reader);
    soma__dataset_close(d);
    return all;
}

static void tasks_take_turns(void **state) {
    if (!drawable) skip();
    soma_record_opts o = opts("both");
    strcpy(o.task, "touch_color,pick_place");
    o.episodes = 4;
    o.noise = 0;
    soma_record_result r;
    soma_error err;
    if (soma__record(&r, &o, NULL, NULL, &err)) fail_msg("%s", err.text);
    soma_dataset *d;
    assert_int_equal(soma__dataset_open(&d, o.out, NULL), SOMA_OK);
    assert_int_equal(d->n_episodes, 4);
    for (int64_t e = 0; e < 4; e++) assert_non_null(strstr(d->episodes[e].task, e % 2 ? "into the bowl" : "touch the "));
    soma__dataset_close(d);
    strcpy(o.task, "touch_color,juggle");
    assert_int_equal(soma__record(&r, &o, NULL, NULL, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "juggle"));
}

static void same_dataset_for_any_threads(void **state) {
    if (!drawable) skip();
    soma_record_opts o = opts("a");
    soma_record_result a, b;
    o.threads = 1;
    assert_int_equal(soma__record(&a, &o, NULL, NULL, NULL), SOMA_OK);
    o = opts("b");
    o.threads = 3;
    assert_int_equal(soma__record(&b, &o, NULL, NULL, NULL), SOMA_OK);
    assert_int_equal(a.episodes, EPISODES);
    assert_int_equal(a.frames, b.frames);
    static const char *const features[] = {"observation.state", "action"};
    for (int i = 0; i < 2; i++) {
        int64_t n, m;
        float *x = read_all("a", features[i], &n), *y = read_all("b", features[i], &m);
        assert_true(n == m && n == a.frames * 7);
        assert_memory_equal(x, y, (size_t)n * sizeof *x);
        soma__free(x);
        soma__free(y);
    }
}

// The forearm never rolls for the expert. So its label stays zero, while under noise the joint itself is pushed about.
static void labels_are_clean_and_states_are_not(void **state) {
    if (!drawable) skip();
    soma_record_opts o = opts("still");
    soma_record_result r;
    o.noise = 0;
    assert_int_equal(soma__record(&r, &o, NULL, NULL, NULL), SOMA_OK);
    static const char *const names[] = {"a", "still"};
    double moved[2] = {0};
    for (int i = 0; i < 2; i++) {
        int64_t n, m;
        float *x = read_all(names[i], "observation.state", &n), *u = read_all(names[i], "action", &m);
        for (int64_t t = 0; t < n / 7; t++) {
            assert_true(fabsf(u[t * 7 + 3]) < 1e-6f);
            moved[i] = fmax(moved[i], fabs(x[t * 7 + 3]));
        }
        soma__free(x);
        soma__free(u);
    }
    assert_true(moved[0] > moved[1] + 0.01);
}

static bool after_two(void *user, const soma_record_result *so_far) { return so_far->episodes < 2; }

static void a_stop_leaves_whole_episodes(void **state) {
    if (!drawable) skip();
    soma_record_opts o = opts("stopped");
    soma_record_result r;
    int64_t n;
    assert_int_equal(soma__record(&r, &o, after_two, NULL, NULL), SOMA_OK);
    assert_true(r.stopped && r.episodes == 2);
    soma__free(read_all("stopped", "action", &n));
    assert_int_equal(n, r.frames * 7);
}

static void wrong_options_are_told(void **state) {
    soma_record_result r;
    soma_error err = {0};
    soma_record_opts o = opts("never");
    o.seed = SOMA_EVAL_SEEDS; // an evaluation's scene
    assert_int_not_equal(soma__record(&r, &o, NULL, NULL, &err), SOMA_OK);
    if (soma__task_registry[0]) assert_non_null(strstr(err.text, "evaluation"));
    o = opts("never");
    o.image = 33;
    assert_int_not_equal(soma__record(&r, &o, NULL, NULL, &err), SOMA_OK);
    o = opts("never");
    strcpy(o.task, "juggle");
    assert_int_not_equal(soma__record(&r, &o, NULL, NULL, &err), SOMA_OK);
    o = opts("never");
    o.out[0] = 0;
    assert_int_not_equal(soma__record(&r, &o, NULL, NULL, &err), SOMA_OK);
    char path[200];
    snprintf(path, sizeof path, "%s/never", dir);
    assert_false(soma__dir_exists(path));
}

static soma_rollouts drive(const soma_policy *policy, int seats) {
    soma_rollout_opts o = soma_rollout_defaults();
    o.seeds = 3;
    o.image = SIDE;
    o.films = 3;
    soma_chunk_opts chunks = soma_chunk_defaults();
    chunks.execute = 16;
    o.seats = seats;
    soma_pilot_opts pilot = soma_pilot_defaults();
    pilot.steps = 2;
    soma_driver driver;
    soma_rollouts r;
    assert_int_equal(soma__driver_policy(&driver, policy, &pilot, soma__task_find("touch_color"), seats, NULL), SOMA_OK);
    assert_int_equal(soma__rollouts_run(&r, &driver, &o, &chunks, NULL, NULL, NULL), SOMA_OK);
    soma__driver_close(&driver);
    return r;
}

static void a_policy_drives_the_same_alone_and_in_company(void **state) {
    if (!drawable) skip();
    soma_train_opts t = soma_train_defaults();
    snprintf(t.data, sizeof t.data, "%s/a", dir);
    snprintf(t.out, sizeof t.out, "%s/policy", dir);
    t.steps = 0;
    soma_error err = {0};
    soma_policy *policy;
    if (soma_train(&t, NULL, NULL, &err) || soma_policy_open(&policy, t.out, NULL, &err)) fail_msg("%s", err.text);
    soma_rollouts alone = drive(policy, 1), company = drive(policy, 3);
    for (int i = 0; i < 3; i++) {
        const soma_film *a = alone.episodes[i].film, *b = company.episodes[i].film;
        assert_int_equal(a->n_steps, b->n_steps);
        assert_memory_equal(a->actions, b->actions, (size_t)a->n_steps * 7 * sizeof(float));
    }
    soma__rollouts_free(&alone);
    soma__rollouts_free(&company);
    soma_policy_close(policy);
}

static int set_up(void **state) {
    const soma_task *task = soma__task_find("touch_color");
    soma_env *env = NULL;
    soma_env_obs obs;
    drawable = task && !task->open(&env, &(soma_env_opts){SIDE, SIDE, true}, NULL) &&
               !task->reset(env, &(soma_env_reset){.seed = 1}, NULL) && !task->observe(env, &obs, NULL);
    if (env) task->close(env);
    return mkdtemp(dir) ? 0 : -1;
}
static int tear_down(void **state) { return soma__dir_remove(dir, NULL); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_dataset_for_any_threads),
        cmocka_unit_test(tasks_take_turns),
        cmocka_unit_test(labels_are_clean_and_states_are_not),
        cmocka_unit_test(a_stop_leaves_whole_episodes),
        cmocka_unit_test(wrong_options_are_told),
        cmocka_unit_test(a_policy_drives_the_same_alone_and_in_company),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
