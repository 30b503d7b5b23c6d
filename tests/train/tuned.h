// SPDX-License-Identifier: Apache-2.0
// A small checkpoint to tune (root/base), and what a policy answers.
#ifndef SOMA_TESTS_TRAIN_TUNED_H
#define SOMA_TESTS_TRAIN_TUNED_H

#include "train/dots.h"
#include "train/trainer.h"

static soma_train_opts options(const char *out) {
    soma_train_opts o = soma_train_defaults();
    path(o.data, "data");
    path(o.out, out);
    path(o.init, "base");
    o.steps = 6;
    o.batch = 4;
    o.eval_every = 3;
    o.save_every = 4;
    o.warmup = 2;
    o.lr = 5e-3;
    o.ema = 0;
    o.holdout_share = 0.2;
    o.threads = 1;

    strcpy(o.dtype, "f32");
    strcpy(o.keep, "last");
    return o;
}

static int make_base(void **state) {
    if (make_dots(state)) return 1;
    soma_train_opts o = options("base");
    o.init[0] = 0;
    path(o.model, "model.json");
    o.horizon = 4;
    o.steps = 20;
    soma_error err;
    if (soma_train(&o, NULL, NULL, &err) == SOMA_OK) return 0;
    print_error("%s\n", err.text);
    return 1;
}

// The chunk that the policy in root/name answers with.
static void act(const char *name, float out[8]) {
    char dir[SOMA_OPT_TEXT];
    soma_error err = {0};
    path(dir, name);
    soma_policy *policy = NULL;
    soma_pilot *pilot = NULL;
    soma_policy_opts po = soma_policy_defaults();
    strcpy(po.dtype, "f32");
    po.threads = 1;
    if (soma_policy_open(&policy, dir, &po, &err)) fail_msg("%s", err.text);
    soma_pilot_opts o = soma_pilot_defaults();
    o.seed = 5;
    if (soma_pilot_new(&pilot, policy, &o, &err)) fail_msg("%s", err.text);
    static uint8_t picture[SIDE * SIDE * 3];
    for (int i = 0; i < SIDE * SIDE * 3; i++) picture[i] = (uint8_t)(i * 7);
    float now[] = {0.3f, -0.2f};
    soma_obs obs = {.prompt = "chase the dot", .state = now, .n_state = 2, .n_images = 1, .images = {{"scene", picture, SIDE, SIDE}}};
    soma_actions actions;
    if (soma_pilot_act(pilot, &obs, &actions, &err)) fail_msg("%s", err.text);
    assert_int_equal(actions.horizon * actions.n_actions, 8);
    memcpy(out, actions.values, 8 * sizeof *out);
    soma_pilot_free(pilot);
    soma_policy_close(policy);
}

static double distance(const float *a, const float *b) {
    double most = 0;
    for (int i = 0; i < 8; i++) most = fmax(most, fabs((double)a[i] - b[i]));
    return most;
}

#endif
