// SPDX-License-Identifier: Apache-2.0
// Put the cube that the prompt names into the bowl. The cubes lie anywhere on 0.3 x 0.4 m, each turned a little; the bowl stands beside the
// arm. The episode ends when a cube lies in the bowl and the arm has let go of it, or at the time limit.
#include "base/str.h"
#include "env/tabletop.h"

#include <math.h>

// The bowl: twelve slanted boards around a disc, metres.
#define BOWL_X 0.06
#define BOWL_Y 0.30
#define BOWL_SPREAD 0.02  // it stands this much to any side of the place above
#define BOWL_RADIUS 0.060 // of the boards' middle
#define BOWL_HEIGHT 0.044
#define BOWL_SLANT 0.35 // radians
enum { BOARDS = 12 };

#define APART 0.13    // metres between centres: an open gripper is 11 cm wide and closes across one cube
#define YAW 0.4       // radians from the direction to the arm's base: one of the two ways to grip is always the nearer
#define STRIDE 0.030  // metres ahead; about 0.25 m/s
#define HOVER 0.12    // metres: tips over the other cubes
#define GRASP 0.012   // metres: tips at the sides of the cube, off the table
#define CARRY 0.15    // metres: tips; the cube hangs 1.5 cm below them
#define RELEASE 0.095 // metres: tips over the bowl
#define HELD (SOMA_CUBE_HALF + SOMA_ARM_PAD + 0.004) // finger distance when they stand on the cube's faces

static soma_status pick_open(soma_env **env, const soma_env_opts *opts, soma_error *err);

static const double *bowl(const soma_env *env) { return env->data->mocap_pos; } // the only body of that kind

static soma_status pick_reset(soma_env *env, const soma_env_reset *reset, soma_error *err) {
    soma_rng rng;
    soma__tabletop_reset(env, reset, "put the %s cube into the bowl", APART, YAW, &rng);
    env->data->mocap_pos[0] = BOWL_X + soma__rng_range(&rng, -BOWL_SPREAD, BOWL_SPREAD);
    env->data->mocap_pos[1] = BOWL_Y + soma__rng_range(&rng, -BOWL_SPREAD, BOWL_SPREAD);
    soma__tabletop_settle(env);
    return SOMA_OK;
}

// ---- the rules

static double across(const double a[3], const double b[3]) { return hypot(a[0] - b[0], a[1] - b[1]); }

static bool in_bowl(const soma_env *env, int cube) {
    const double *at = soma__tabletop_cube(env, cube);
    return across(at, bowl(env)) < BOWL_RADIUS && at[2] < BOWL_HEIGHT + 0.015;
}

static soma_status pick_step(soma_env *env, const float *action, soma_error *err) {
    SOMA_TRY(soma__tabletop_step(env, action, err));
    soma_env_outcome *o = &env->outcome;
    int n = 0, cube = SOMA_CUBE_NONE;
    for (int c = 0; c < SOMA_CUBES; c++) {
        if (!in_bowl(env, c) || soma__tabletop_touching(env, c)) continue;
        n++;
        cube = c;
    }
    o->success = n == 1 && cube == env->goal;
    o->prompted = n == 1 && cube == env->named;
    o->acted = n == 1;
    o->done = n > 0 || o->steps >= env->max_steps;
    return SOMA_OK;
}

static soma_env_outcome pick_outcome(const soma_env *env) { return env->outcome; }

// ---- the expert

// The hand's turn that brings the fingers flat onto the cube's sides, by the shorter way: the cube's yaw against its bearing, modulo 90
// degrees.
static double roll_for(const soma_env *env, int cube) {
    const double *at = soma__tabletop_cube(env, cube), *turn = env->data->xmat + 9 * env->cube_bodies[cube];
    bool tipped = hypot(turn[0], turn[3]) < 0.5; // its x axis stands upright: look at y
    double yaw = tipped ? atan2(turn[4], turn[1]) : atan2(turn[3], turn[0]);
    return -remainder(yaw - atan2(at[1], at[0]), M_PI / 2);
}

static void pick_expert(const soma_env *env, float *action) {
    const double *tip = soma__tabletop_tip(env), *cube = soma__tabletop_cube(env, env->named), *to = bowl(env);
    double fingers = (env->data->qpos[SOMA_ARM_JOINTS] + env->data->qpos[SOMA_ARM_JOINTS + 1]) / 2;
    double off = across(tip, cube);
    soma_hand hand = {.stride = STRIDE, .roll = 0.7 * env->data->qpos[5], .gripper = SOMA_ARM_OPEN};
    bool between = off < 0.03 && cube[2] > tip[2] - 0.018 && cube[2] < tip[2] + 0.03;
    if (across(cube, to) < 0.03 && tip[2] < RELEASE + 0.015) { // over or in the bowl: let go, straight up
        double goal[3] = {to[0], to[1], in_bowl(env, env->named) ? CARRY : RELEASE};
        soma__tabletop_move(env, goal, &hand, action);
    } else if (between && fingers < HELD) { // carried; its yaw is the hand's own now, so the hand turns back without a jump
        hand.gripper = SOMA_ARM_CLOSED;
        soma__tabletop_descend(env, to, CARRY, RELEASE, &hand, action);
    } else { // down over the cube with open fingers; they close near the table, and only there
        double deep = fmin(fmax((0.026 - tip[2]) / 0.010, 0), 1), close = between && off < 0.012 ? deep * deep * (3 - 2 * deep) : 0;
        hand.roll = roll_for(env, env->named);
        hand.gripper += (SOMA_ARM_CLOSED - SOMA_ARM_OPEN) * close;
        soma__tabletop_descend(env, cube, HOVER, GRASP, &hand, action);
    }
}

const soma_task soma__task_pick_place = {
    .name = "pick_place",
    .about = "put the named one of three coloured cubes into the bowl",
    .robot = "viperx_300_6dof",
    .rate = SOMA_TABLETOP_RATE,
    .max_steps = 240,
    .n_state = SOMA_ARM_ACTIONS,
    .n_actions = SOMA_ARM_ACTIONS,
    .n_cameras = SOMA_TABLETOP_CAMERAS,
    .state_names = soma__arm_names,
    .action_names = soma__arm_names,
    .camera_names = soma__tabletop_cameras,
    .open = pick_open,
    .close = soma__tabletop_close,
    .reset = pick_reset,
    .observe = soma__tabletop_observe,
    .step = pick_step,
    .outcome = pick_outcome,
    .expert = pick_expert,
};

static soma_status pick_open(soma_env **env, const soma_env_opts *opts, soma_error *err) {
    soma_str xml = {0};
    soma__str_printf(
        &xml, "<body name='bowl' mocap='true' pos='%g %g 0'>\n<geom class='furniture' type='cylinder' size='%g 0.003' pos='0 0 0.003'/>\n",
        BOWL_X, BOWL_Y, BOWL_RADIUS - 0.005);
    for (int i = 0; i < BOARDS; i++) {
        double a = 2 * M_PI * i / BOARDS, c = cos(a), s = sin(a);
        soma__str_printf(&xml, "<geom class='furniture' type='box' size='0.003 %g %g' pos='%g %g %g' xyaxes='%g %g %g %g %g 0'/>\n",
                         1.25 * BOWL_RADIUS * tan(M_PI / BOARDS), BOWL_HEIGHT / 2, BOWL_RADIUS * c, BOWL_RADIUS * s, BOWL_HEIGHT / 2,
                         cos(BOWL_SLANT) * c, cos(BOWL_SLANT) * s, -sin(BOWL_SLANT), -s, c);
    }
    soma__str_add(&xml, "</body>\n");
    soma_status status =
        xml.failed ? soma__no_memory(err, "the bowl") : soma__tabletop_open(env, &soma__task_pick_place, xml.text, 38, opts, err);
    soma__str_free(&xml);
    return status;
}
