// SPDX-License-Identifier: Apache-2.0
// Touch the cube that the prompt names, and no other: three cubes anywhere on 0.3 x 0.4 m, the first contact of any part of the arm with a
// cube ends the episode. What is hard is to know where and which, not to move; so it is the smallest test that a policy looks and reads.
#include "env/tabletop.h"

#include <math.h>

#define APART 0.12   // metres between centres: a finger pair is 4 cm wide, so 3 cm stay free when it stands in the middle
#define STRIDE 0.026 // metres ahead; over the servos' 0.12 s this is about 0.2 m/s
#define HOVER 0.11   // metres: finger tips at this height clear every cube by 6 cm
#define PRESS 0.03   // metres: aims this high, inside the cube, so that contact comes at speed

static soma_status touch_open(soma_env **env, const soma_env_opts *opts, soma_error *err);

static soma_status touch_reset(soma_env *env, const soma_env_reset *reset, soma_error *err) {
    soma_rng rng;
    soma__tabletop_reset(env, reset, "touch the %s cube", APART, M_PI / 4, &rng);
    soma__tabletop_settle(env);
    return SOMA_OK;
}

static soma_status touch_step(soma_env *env, const float *action, soma_error *err) {
    SOMA_TRY(soma__tabletop_step(env, action, err));
    soma_env_outcome *o = &env->outcome;
    o->success = env->touched_first == env->goal;
    o->prompted = env->touched_first == env->named;
    o->acted = env->touched_first >= 0;
    o->done = env->touched_first != SOMA_CUBE_NONE || o->steps >= env->max_steps;
    return SOMA_OK;
}

static soma_env_outcome touch_outcome(const soma_env *env) { return env->outcome; }

// Straight to a place over the named cube, and in the last centimetres down onto it.
static void touch_expert(const soma_env *env, float *action) {
    const soma_hand hand = {.stride = STRIDE, .gripper = SOMA_ARM_CLOSED};
    soma__tabletop_descend(env, soma__tabletop_cube(env, env->named), HOVER, PRESS, &hand, action);
}

const soma_task soma__task_touch_color = {
    .name = "touch_color",
    .about = "touch the named one of three coloured cubes, and no other",
    .robot = "viperx_300_6dof",
    .rate = SOMA_TABLETOP_RATE,
    .max_steps = 100,
    .n_state = SOMA_ARM_ACTIONS,
    .n_actions = SOMA_ARM_ACTIONS,
    .n_cameras = SOMA_TABLETOP_CAMERAS,
    .state_names = soma__arm_names,
    .action_names = soma__arm_names,
    .camera_names = soma__tabletop_cameras,
    .open = touch_open,
    .close = soma__tabletop_close,
    .reset = touch_reset,
    .observe = soma__tabletop_observe,
    .step = touch_step,
    .outcome = touch_outcome,
    .expert = touch_expert,
};

static soma_status touch_open(soma_env **env, const soma_env_opts *opts, soma_error *err) {
    return soma__tabletop_open(env, &soma__task_touch_color, "", 32, opts, err);
}
