// SPDX-License-Identifier: Apache-2.0
// The error on held-out episodes, on a dataset whose baselines are known in closed form; and a policy through both kinds of evaluation.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "toy_dataset.h"
#include "eval/openloop.h"
#include "eval/rollout.h"

#include <soma/train.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 16, FRAMES = 30, EPISODES = 3 };

static char dir[] = "/tmp/soma-open-XXXXXX", data[100], policy[100], twice[201];

static void near(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.9g is not %.9g", a, b);
}

static int n_frames(int episode) { return FRAMES; }
static const char *task(int episode) { return "climb"; }

// Two actions: the first climbs by 0.01 a frame, the second never moves. The state is the action of the same frame.
static void climb(int episode, int frame, float *state, float *action, uint8_t *picture) {
    action[0] = state[0] = 0.01f * (float)frame;
    action[1] = state[1] = 5;
}

static void write_dataset(void) {
    static const char *const names[] = {"a", "b"};
    const toy_dataset toy = {2, 2, SIDE, 10, names, EPISODES, 0, n_frames, task, climb};
    assert_int_equal(write_toy_dataset(&toy, data, NULL), SOMA_OK);
}

static soma_openloop_opts opts(const char *episodes) {
    soma_openloop_opts o = soma_openloop_defaults();
    strcpy(o.data, data);
    strcpy(o.episodes, episodes);
    o.stride = 3;
    return o;
}

static soma_status judge(soma_openloop *r, const char *policies, const soma_openloop_opts *o, soma_error *err) {
    soma_policy_opts po = soma_policy_defaults();
    soma_pilot_opts pilot = soma_pilot_defaults();
    pilot.steps = 2;
    return soma__openloop(r, policies, o, &po, &pilot, NULL, NULL, err);
}

static void baselines_in_closed_form(void **state) {
    soma_openloop r;
    soma_openloop_opts o = opts("1");
    assert_int_equal(judge(&r, policy, &o, NULL), SOMA_OK);
    assert_int_equal(r.horizon, 10); // one second at 10 Hz
    assert_int_equal(r.frames, 7);   // t = 1, 4, ... 19
    assert_true(r.n_dims == 1 && r.n_still == 1 && r.can_hold);
    double std = 0.01 * sqrt((FRAMES * FRAMES - 1) / 12.0); // of 0 .. n-1 climbing by one
    // the last action is behind by h + 1 climbs at step h (from 0), the present state by h
    near(r.last.at[0], 0.01 / std, 1e-5);
    near(r.last.at[1], 0.05 / std, 1e-5);
    near(r.last.chunk, 0.055 / std, 1e-5);
    near(r.hold.at[0], 0, 1e-5);
    near(r.hold.chunk, 0.045 / std, 1e-5);
    assert_true(isnan(r.last.at[2]) && isnan(r.last.at[3]));
    double sum = 0; // the mean action: half-way up, against every judged step
    for (int t = 1; t <= 19; t += 3)
        for (int h = 0; h < 10; h++) sum += fabs(0.01 * (t + h) - 0.01 * (FRAMES - 1) / 2.0) / std;
    near(r.average.chunk, sum / 70, 1e-5);
    assert_true(isfinite(r.policies[0].chunk) && r.policies[0].chunk > 0);
}

static void several_policies_have_a_mean(void **state) {
    soma_openloop one, two;
    soma_openloop_opts o = opts("0,2");
    o.horizon = 4;
    assert_int_equal(judge(&one, policy, &o, NULL), SOMA_OK);
    assert_int_equal(judge(&two, twice, &o, NULL), SOMA_OK);
    assert_int_equal(two.n_policies, 2);
    assert_true(two.policies[0].chunk == one.policies[0].chunk && two.policies[1].chunk == one.policies[0].chunk); // bit for bit
    near(two.mean.chunk, one.policies[0].chunk, 1e-12);
    near(two.spread.chunk, 0, 1e-12);
    assert_true(isnan(one.spread.chunk));
    json_t *json = soma__openloop_json(&two);
    assert_int_equal(json_array_size(json_object_get(json, "policies")), 2);
    assert_int_equal(json_object_size(json_object_get(json, "baselines")), 3);
    json_decref(json);
}

static void what_cannot_be_judged_is_told(void **state) {
    static const struct {
        const char *episodes, *told;
        int horizon;
    } cases[] = {{"", "--episodes 3,7", 0}, {"0,1,2", "every episode", 0}, {"7", "episode 7", 0},
                 {"1,1", "twice", 0},       {"1;2", "commas", 0},          {"1", "chunks of 16", 17}};
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        soma_openloop r;
        soma_error err = {0};
        soma_openloop_opts o = opts(cases[i].episodes);
        o.horizon = cases[i].horizon;
        assert_int_not_equal(judge(&r, policy, &o, &err), SOMA_OK);
        if (!strstr(err.text, cases[i].told)) fail_msg("case %zu: %s", i, err.text);
    }
}

static int set_up(void **state) {
    if (!mkdtemp(dir)) return -1;
    snprintf(data, sizeof data, "%s/data", dir);
    snprintf(policy, sizeof policy, "%s/policy", dir);
    snprintf(twice, sizeof twice, "%s,%s", policy, policy);
    write_dataset();
    soma_train_opts o = soma_train_defaults();
    strcpy(o.data, data);
    strcpy(o.out, policy);
    o.steps = 0;
    o.horizon = 16;
    soma_error err = {0};
    if (soma_train(&o, NULL, NULL, &err) == SOMA_OK) return 0;
    print_message("%s\n", err.text);
    return -1;
}
static int tear_down(void **state) { return soma__dir_remove(dir, NULL); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(baselines_in_closed_form),
        cmocka_unit_test(several_policies_have_a_mean),
        cmocka_unit_test(what_cannot_be_judged_is_told),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
