// SPDX-License-Identifier: Apache-2.0
// The tasks' rules and their experts: success over seeds, the same with disturbed actions, what a wrong prompt changes and what it does
// not, what happens when the wrong cube is touched or nothing moves.
#include "env_test.h"

#include <stdio.h>
#include <string.h>

enum { SEEDS = 20, SIZE = 32 };
static const char *const tasks[] = {"touch_color", "pick_place"};

// Runs the expert with normal noise of `noise` radians on what is executed, as demonstrations are recorded.
static soma_env_outcome episode(soma_env *env, uint64_t seed, bool wrong_prompt, double noise, double *largest_change) {
    soma_error err = {0};
    soma_rng rng = soma__rng(seed + 1000);
    float action[SOMA_ARM_ACTIONS], before[SOMA_ARM_ACTIONS];
    must_reset(env, seed, wrong_prompt);
    while (!env->task->outcome(env).done) {
        env->task->expert(env, action);
        for (int i = 0; i < SOMA_ARM_ACTIONS; i++) {
            assert_true(isfinite(action[i]));
            double low = env->model->jnt_range[2 * i], high = env->model->jnt_range[2 * i + 1];
            assert_true(action[i] >= low - 1e-6 && action[i] <= high + 1e-6);
            if (env->outcome.steps && i < SOMA_ARM_JOINTS) *largest_change = fmax(*largest_change, fabs(action[i] - before[i]));
        }
        memcpy(before, action, sizeof before);
        for (int i = 0; i < SOMA_ARM_JOINTS; i++) action[i] += (float)(noise * soma__rng_normal(&rng));
        must(env->task->step(env, action, &err), &err);
    }
    return env->task->outcome(env);
}

static void test_expert_succeeds(void **state) {
    static const double noises[] = {0, 0.02};
    for (size_t t = 0; t < SOMA_COUNT(tasks); t++) {
        soma_env *env = must_open(tasks[t], SIZE, true);
        for (size_t n = 0; n < SOMA_COUNT(noises); n++) {
            int good = 0, steps = 0;
            double change = 0;
            for (uint64_t seed = 0; seed < SEEDS; seed++) {
                soma_env_outcome o = episode(env, seed, false, noises[n], &change);
                assert_true(o.success == o.prompted && o.success <= o.acted);
                good += o.success;
                steps += o.steps;
            }
            printf("%s: expert with noise %.2f rad: %d of %d, %.0f steps, largest change of a target %.3f rad\n", tasks[t], noises[n], good,
                   SEEDS, (double)steps / SEEDS, change);
            assert_int_equal(good, SEEDS);
            if (noises[n] == 0) assert_true(change < 0.3); // no jumps; 0.05 s at the slowest joint limit, 3 rad/s, would be 0.15
        }
        soma__tabletop_close(env);
    }
}

static void test_wrong_prompt(void **state) {
    for (size_t t = 0; t < SOMA_COUNT(tasks); t++) {
        soma_env *right = must_open(tasks[t], SIZE, true), *wrong = must_open(tasks[t], SIZE, true);
        soma_error err = {0};
        for (uint64_t seed = 0; seed < 5; seed++) {
            must_reset(right, seed, false);
            must_reset(wrong, seed, true);
            soma_env_obs a, b;
            must(right->task->observe(right, &a, &err), &err);
            must(wrong->task->observe(wrong, &b, &err), &err);
            assert_string_not_equal(a.prompt, b.prompt);
            assert_non_null(strstr(a.prompt, soma__cube_names[right->goal]));
            assert_null(strstr(b.prompt, soma__cube_names[right->goal]));
            assert_int_equal(right->goal, wrong->goal);
            assert_memory_equal(a.state, b.state, SOMA_ARM_ACTIONS * sizeof(float));
            for (int i = 0; i < SOMA_TABLETOP_CAMERAS; i++) assert_memory_equal(a.images[i], b.images[i], (size_t)SIZE * SIZE * 3);
            double change = 0;
            soma_env_outcome o = episode(wrong, seed, true, 0, &change); // the expert does what the prompt says
            assert_true(o.done && o.prompted && o.acted && !o.success);
        }
        soma__tabletop_close(right);
        soma__tabletop_close(wrong);
    }
}

static void test_doing_nothing_times_out(void **state) {
    for (size_t t = 0; t < SOMA_COUNT(tasks); t++) {
        soma_env *env = must_open(tasks[t], SIZE, true);
        soma_error err = {0};
        must_reset(env, 0, false);
        float action[SOMA_ARM_ACTIONS];
        soma__arm_state(env->data, action);
        while (!env->task->outcome(env).done) must(env->task->step(env, action, &err), &err);
        soma_env_outcome o = env->task->outcome(env);
        assert_int_equal(o.steps, env->task->max_steps);
        assert_false(o.success || o.prompted || o.acted);
        soma__tabletop_close(env);
    }
}

// The same arm, limit and expert at other rates; a period that is no whole number of physics steps is refused.
static void test_other_rates(void **state) {
    static const double rates[] = {10, 20, 50};
    for (size_t t = 0; t < SOMA_COUNT(tasks); t++) {
        const soma_task *task = soma__task_find(tasks[t]);
        for (size_t i = 0; i < SOMA_COUNT(rates); i++) {
            soma_error err = {0};
            soma_env *env;
            soma_task at = soma__task_at(task, rates[i]);
            assert_int_equal(at.max_steps, lround(task->max_steps * rates[i] / 20));
            must(at.open(&env, &(soma_env_opts){.image_width = SIZE, .image_height = SIZE, .rate = rates[i]}, &err), &err);
            double change = 0;
            soma_env_outcome o = episode(env, 3, false, 0, &change);
            assert_true(o.success);
            double seconds = env->data->time;
            assert_true(fabs(seconds - o.steps / rates[i]) < 1e-9);
            soma__tabletop_close(env);
        }
        soma_error err = {0};
        soma_env *env = NULL;
        assert_int_equal(task->open(&env, &(soma_env_opts){.image_width = SIZE, .image_height = SIZE, .rate = 30}, &err), SOMA_BAD_INPUT);
        assert_non_null(strstr(err.text, "30 Hz"));
        assert_int_equal(soma__task_at(task, 0).max_steps, task->max_steps);
    }
}

// Two cubes under the hand at once: a failure, whichever was meant.
static void test_two_at_once_fail(void **state) {
    soma_env *env = must_open("touch_color", SIZE, false);
    soma_error err = {0};
    must_reset(env, 0, false);
    const double *tip = soma__tabletop_tip(env);
    for (int c = 0; c < SOMA_CUBES - 1; c++) {
        double *q = env->data->qpos + env->model->jnt_qposadr[env->model->body_jntadr[env->cube_bodies[c]]];
        memcpy(q, (double[7]){tip[0], tip[1] + (c ? 0.03 : -0.03), tip[2], 1, 0, 0, 0}, 7 * sizeof *q);
    }
    float action[SOMA_ARM_ACTIONS];
    soma__arm_state(env->data, action);
    must(env->task->step(env, action, &err), &err);
    soma_env_outcome o = env->task->outcome(env);
    assert_true(o.done && !o.success && !o.prompted && !o.acted);
    assert_int_equal(env->touched_first, SOMA_CUBE_SEVERAL);
    soma__tabletop_close(env);
}

// A second cube in the bowl spoils it; the goal alone does not.
static void test_bowl_counts(void **state) {
    soma_env *env = must_open("pick_place", SIZE, false);
    soma_error err = {0};
    for (int n = 1; n <= 2; n++) {
        must_reset(env, 0, false);
        for (int k = 0; k < n; k++) {
            int c = (env->goal + k) % SOMA_CUBES;
            double *q = env->data->qpos + env->model->jnt_qposadr[env->model->body_jntadr[env->cube_bodies[c]]];
            const double *bowl = env->data->mocap_pos;
            memcpy(q, (double[7]){bowl[0], bowl[1], 0.031 + 0.02 * k + 0.01 * (n - 1), 1, 0, 0, 0}, 7 * sizeof *q);
            if (k) q[0] += 0.03;
        }
        float action[SOMA_ARM_ACTIONS];
        soma__arm_state(env->data, action);
        must(env->task->step(env, action, &err), &err);
        soma_env_outcome o = env->task->outcome(env);
        assert_true(o.done);
        assert_true(o.success == (n == 1));
    }
    soma__tabletop_close(env);
}

static void test_registry(void **state) {
    int n = 0;
    for (const soma_task *const *task = soma__task_registry; *task; task++, n++) {
        const soma_task *t = *task;
        assert_ptr_equal(soma__task_find(t->name), t);
        assert_true(t->rate >= 20 && t->max_steps > 0 && t->n_state > 0 && t->n_actions > 0);
        assert_true(t->n_cameras > 0 && t->n_cameras <= SOMA_ENV_MAX_CAMERAS);
        for (int i = 0; i < t->n_state; i++) assert_non_null(t->state_names[i]);
        for (int i = 0; i < t->n_actions; i++) assert_non_null(t->action_names[i]);
        for (int i = 0; i < t->n_cameras; i++) assert_non_null(t->camera_names[i]);
    }
    assert_true(n >= 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registry),     cmocka_unit_test(test_expert_succeeds),
        cmocka_unit_test(test_wrong_prompt), cmocka_unit_test(test_doing_nothing_times_out),
        cmocka_unit_test(test_other_rates),  cmocka_unit_test(test_two_at_once_fail),
        cmocka_unit_test(test_bowl_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
