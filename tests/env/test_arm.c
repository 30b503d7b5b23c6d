// SPDX-License-Identifier: Apache-2.0
// The arm against closed forms: forward kinematics as an independent product of transforms with the published lengths, the inverse and
// back, a servo's step response, gravity compensation, limits.
#include "env_test.h"

#include <string.h>

// ---- forward kinematics, written out here from the published numbers

typedef struct pose {
    double r[3][3], p[3];
} pose;

static pose shift(pose t, double x, double y, double z) {
    for (int i = 0; i < 3; i++) t.p[i] += t.r[i][0] * x + t.r[i][1] * y + t.r[i][2] * z;
    return t;
}

static pose turn(pose t, int axis, double angle) { // about the pose's own axis: columns j and k mix
    int j = (axis + 1) % 3, k = (axis + 2) % 3;
    pose out = t;
    for (int i = 0; i < 3; i++) {
        out.r[i][j] = cos(angle) * t.r[i][j] + sin(angle) * t.r[i][k];
        out.r[i][k] = -sin(angle) * t.r[i][j] + cos(angle) * t.r[i][k];
    }
    return out;
}

static pose viperx_tip(const double *q) {
    enum { X, Y, Z };
    pose t = {.r = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
    t = turn(shift(t, 0, 0, 0.079), Z, q[0]);
    t = turn(shift(t, 0, 0, 0.04805), Y, q[1]);
    t = turn(shift(t, 0.05955, 0, 0.3), Y, q[2]);
    t = turn(shift(t, 0.2, 0, 0), X, q[3]);
    t = turn(shift(t, 0.1, 0, 0), Y, q[4]);
    t = turn(shift(t, 0.069744, 0, 0), X, q[5]);
    return shift(t, 0.13, 0, 0);
}

static void test_forward_kinematics(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    soma_rng rng = soma__rng(3);
    for (int n = 0; n < 200; n++) {
        for (int i = 0; i < SOMA_ARM_JOINTS; i++) env->data->qpos[i] = soma__rng_range(&rng, -1.7, 1.2);
        mj_kinematics(env->model, env->data);
        pose want = viperx_tip(env->data->qpos);
        for (int i = 0; i < 3; i++) {
            assert_near(soma__tabletop_tip(env)[i], want.p[i], 1e-12);
            for (int j = 0; j < 3; j++) assert_near(env->data->site_xmat[9 * env->tip_site + 3 * i + j], want.r[i][j], 1e-12);
        }
    }
    soma__tabletop_close(env);
}

static void test_inverse_round_trip(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    soma_rng rng = soma__rng(4);
    for (int n = 0; n < 2000; n++) {
        double tip[3] = {soma__rng_range(&rng, SOMA_TABLE_X0, SOMA_TABLE_X1), soma__rng_range(&rng, SOMA_TABLE_Y0, SOMA_TABLE_Y1),
                         soma__rng_range(&rng, 0.005, 0.12)};
        double roll = soma__rng_range(&rng, -0.8, 0.8), q[SOMA_ARM_JOINTS];
        assert_true(soma__arm_reach(env->model, tip, roll, q)); // the whole workspace is within reach and limits
        pose got = viperx_tip(q);
        for (int i = 0; i < 3; i++) assert_near(got.p[i], tip[i], 1e-9);
        assert_near(got.r[2][0], -1, 1e-9); // the hand's x points straight down
        assert_near(q[5], roll, 0);
    }
    soma__tabletop_close(env);
}

static void test_out_of_reach(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    double q[SOMA_ARM_JOINTS];
    assert_false(soma__arm_reach(env->model, (double[3]){0.9, 0.1, 0.05}, 0, q));
    for (int i = 0; i < SOMA_ARM_JOINTS; i++) {
        assert_true(isfinite(q[i]) && q[i] >= env->model->jnt_range[2 * i] && q[i] <= env->model->jnt_range[2 * i + 1]);
    }
    assert_near(q[0], atan2(0.1, 0.9), 1e-12); // still turned towards it
    soma__tabletop_close(env);
}

// wrist_rotate turns about its own axis of symmetry, so it is one inertia I, a spring and a damper:
// I q'' = kp (u - q) - d q', overdamped, from rest: q = u (1 - (s2 exp(s1 t) - s1 exp(s2 t)) / (s2 - s1)).
static void test_servo_step_response(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    must_reset(env, 1, false);
    float action[SOMA_ARM_ACTIONS];
    soma__arm_state(env->data, action);
    for (int k = 0; k < 60; k++) must_step(env, action); // let the start-up transient die
    enum { DOF = 5 };
    static double mass[64 * 64];
    assert_true(env->model->nv <= 64);
    mj_fullM(env->model, mass, env->data->qM);
    double inertia = mass[DOF * env->model->nv + DOF], kp = 10, d = 1.2, u = 0.2, q0 = env->data->qpos[DOF];
    double root = sqrt(d * d - 4 * inertia * kp), s1 = (-d + root) / (2 * inertia), s2 = (-d - root) / (2 * inertia);
    action[DOF] = (float)(q0 + u);
    for (int k = 1; k <= 20; k++) {
        must_step(env, action);
        double t = k / SOMA_TABLETOP_RATE, want = u * (1 - (s2 * exp(s1 * t) - s1 * exp(s2 * t)) / (s2 - s1));
        assert_near(env->data->qpos[DOF] - q0, want, 0.02 * u); // the integrator is of first order: h / 2 over 0.12 s is 2 %
    }
    assert_near(env->data->qpos[DOF] - q0, u, 1e-3 * u);
    soma__tabletop_close(env);
}

static void test_holds_against_gravity(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    must_reset(env, 2, false);
    double q[SOMA_ARM_JOINTS];
    float action[SOMA_ARM_ACTIONS];
    assert_true(soma__arm_reach(env->model, (double[3]){0.5, -0.2, 0.13}, 0, q)); // far out: the largest torque
    for (int i = 0; i < SOMA_ARM_JOINTS; i++) action[i] = (float)q[i];
    action[SOMA_ARM_GRIPPER] = 0.03F;
    for (int k = 0; k < 60; k++) must_step(env, action);
    for (int i = 0; i < SOMA_ARM_JOINTS; i++) assert_near(env->data->qpos[i], action[i], 1e-4);
    float reached[SOMA_ARM_ACTIONS];
    soma__arm_state(env->data, reached);
    assert_near(reached[SOMA_ARM_GRIPPER], 0.03, 1e-4);
    soma__tabletop_close(env);
}

static void test_limits(void **state) {
    soma_env *env = must_open("touch_color", 16, false);
    for (int side = -1; side <= 1; side += 2) {
        must_reset(env, 3, false);
        float action[SOMA_ARM_ACTIONS];
        for (int i = 0; i < SOMA_ARM_ACTIONS; i++) action[i] = side * 1e30F; // clipped, not refused
        for (int k = 0; k < 60; k++) {
            must_step(env, action);
            for (int i = 0; i < SOMA_ARM_DOFS; i++) {
                double low = env->model->jnt_range[2 * i], high = env->model->jnt_range[2 * i + 1];
                assert_true(env->data->ctrl[i] == (side < 0 ? low : high));
                assert_true(env->data->qpos[i] > low - 0.04 &&
                            env->data->qpos[i] < high + 0.04); // a soft stop; here the hand jams on the table
            }
        }
    }
    soma__tabletop_close(env);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_kinematics),  cmocka_unit_test(test_inverse_round_trip),    cmocka_unit_test(test_out_of_reach),
        cmocka_unit_test(test_servo_step_response), cmocka_unit_test(test_holds_against_gravity), cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
