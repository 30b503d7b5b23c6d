// SPDX-License-Identifier: Apache-2.0
// A robot's conventions from demonstrations to actions: statistics are those of converted, relative numbers, and what a policy gives back
// is in the robot's own. The dot always goes the same way, so that whatever the net says, its chunk must come back as that step.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/dots.h"
#include "train/trainer.h"

static soma_error err;

static soma_train_opts options(const char *robot) {
    soma_train_opts o = soma_train_defaults();
    path(o.data, "data");
    path(o.model, "model.json");
    path(o.out, "policy");
    strcpy(o.robot, robot);
    o.steps = 2;
    o.batch = 4;
    o.horizon = 1;
    o.threads = 1;
    return o;
}

static void test_conventions(void **state) {
    static const char text[] = "{\"delta\": [2], \"convert\": [{\"state\": [0], \"actions\": [0], \"scale\": -2, \"offset\": 1}]}";
    char robot[SOMA_OPT_TEXT], folder[SOMA_OPT_TEXT];
    path(robot, "arm.json");
    path(folder, "policy");
    assert_int_equal(soma__file_write(robot, text, strlen(text), &err), SOMA_OK);
    soma_train_opts o = options(robot);
    if (soma_train(&o, NULL, NULL, &err)) fail_msg("%s", err.text);
    soma_policy *policy;
    soma_pilot *pilot;
    soma_actions actions;
    if (soma_policy_open(&policy, folder, NULL, &err)) fail_msg("%s", err.text);
    const soma_robot *r = soma__policy_robot(policy);
    assert_true(r->delta[0] && r->delta[1] && r->state_forms[0].scale == -2 && r->action_forms[0].offset == 1);
    assert_float_equal(r->actions->mean[0], -0.2, 1e-6); // a step of 0.1 in the robot's numbers
    assert_float_equal(r->actions->mean[1], -0.1, 1e-6);
    assert_true(r->actions->std[0] < 1e-6);
    static const uint8_t picture[SIDE * SIDE * 3];
    static const float place[] = {0.25f, -0.5f};
    const soma_obs obs = {
        .prompt = "chase the dot", .state = place, .n_state = 2, .n_images = 1, .images = {{"scene", picture, SIDE, SIDE}}};
    if (soma_pilot_new(&pilot, policy, NULL, &err) || soma_pilot_act(pilot, &obs, &actions, &err)) fail_msg("%s", err.text);
    assert_float_equal(actions.values[0], 0.35, 1e-4);
    assert_float_equal(actions.values[1], -0.6, 1e-4);
    soma_pilot_free(pilot);
    soma_policy_close(policy);
}

static void test_refused(void **state) {
    soma_train_opts o = options("droid");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "has 2 state and 2 action values, the robot droid 8 and 8"));
    o = options("droid");
    o.delta = true;
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "--delta and --robot"));
    o = options("nobody");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_conventions), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, make_dots, remove_dots);
}
