// SPDX-License-Identifier: Apache-2.0
// round_guard against closed forms: the servo's exponential, its top speed, the swing; then its rules and its expert.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "env/task.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOOL_X, TOOL_Y, TARGET_X, TARGET_Y, TARGET_VY, N_STATE };

static void must(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

static const soma_task *task(void) {
    const soma_task *t = soma__task_find("round_guard");
    assert_non_null(t);
    return t;
}

static soma_env *make(double rate) {
    soma_env *env;
    soma_error err;
    must(task()->open(&env, &(soma_env_opts){.image_width = 16, .image_height = 16, .rate = rate}, &err), &err);
    return env;
}

static void reset(soma_env *env, uint64_t seed, bool wrong_prompt) {
    soma_error err;
    must(task()->reset(env, &(soma_env_reset){.seed = seed, .wrong_prompt = wrong_prompt}, &err), &err);
}

static void look(soma_env *env, float state[N_STATE]) {
    soma_env_obs obs;
    soma_error err;
    must(task()->observe(env, &obs, &err), &err);
    memcpy(state, obs.state, N_STATE * sizeof *state);
}

static void step(soma_env *env, float x, float y) {
    soma_error err;
    must(task()->step(env, (float[]){x, y}, &err), &err);
}

// From d metres away the tool goes at 0.4 m/s while d / 0.06 s is more, and then d falls as exp(-t / 0.06).
static void servo_is_a_lag_with_a_top_speed(void **state) {
    soma_env *env = make(0);
    float at[N_STATE];
    reset(env, 3, false);
    look(env, at);
    const float x = at[TOOL_X], y = at[TOOL_Y];
    double d = 0.02; // below 0.4 * 0.06: no limit
    for (int k = 1; k <= 10; k++) {
        step(env, x - 0.02f, y);
        look(env, at);
        if (fabs(at[TOOL_X] - (x - 0.02 + d * exp(-k * 0.05 / 0.06))) > 1e-6) fail_msg("step %d: tool_x %.8f", k, (double)at[TOOL_X]);
    }
    reset(env, 3, false);
    for (int k = 1; k <= 3; k++) { // 0.15 m away: full speed while 0.024 m are left or more, exactly but for the substep
        step(env, x, y - 0.15f);
        look(env, at);
        if (fabs(at[TOOL_Y] - (y - 0.02 * k)) > 1e-6) fail_msg("step %d: tool_y %.8f", k, (double)at[TOOL_Y]);
    }
    task()->close(env);
}

// y'' = -1.5^2 y, whatever the seed: y and its speed at one moment tell all others.
static void target_swings(void **state) {
    soma_env *env = make(0);
    for (uint64_t seed = 0; seed < 5; seed++) {
        float first[N_STATE], at[N_STATE];
        reset(env, seed, false);
        look(env, first);
        for (int k = 1; k <= 40; k++) {
            step(env, 0, 0);
            look(env, at);
            const double a = 1.5 * k * 0.05, y = first[TARGET_Y] * cos(a) + first[TARGET_VY] / 1.5 * sin(a);
            assert_true(fabs(at[TARGET_Y] - y) < 1e-6);
            assert_true(at[TARGET_X] == first[TARGET_X]);
        }
    }
    task()->close(env);
}

static soma_env_outcome play(soma_env *env, uint64_t seed, bool wrong_prompt, double noise, int *side) {
    soma_rng rng = soma__rng(seed);
    float at[N_STATE], action[2];
    *side = 0;
    reset(env, seed, wrong_prompt);
    while (!task()->outcome(env).done) {
        look(env, at);
        const double off = at[TOOL_X] - (at[TARGET_X] - 0.15);
        if (fabs(off) < 0.02) *side = at[TOOL_Y] > at[TARGET_Y] ? 1 : -1;
        task()->expert(env, action);
        for (int i = 0; i < 2; i++) action[i] += (float)(noise * soma__rng_normal(&rng));
        step(env, action[0], action[1]);
    }
    return task()->outcome(env);
}

static void expert_goes_around_either_side(void **state) {
    const double rates[] = {0, 50, 100};
    for (int r = 0; r < 3; r++) {
        soma_env *env = make(rates[r]);
        int sides[3] = {0}, side, disturbed = 0;
        for (uint64_t seed = 0; seed < 40; seed++) {
            soma_env_outcome o = play(env, seed, false, 0, &side);
            if (!o.success || !o.prompted) fail_msg("seed %d: %d steps, no success", (int)seed, o.steps);
            sides[side + 1]++;
            disturbed += play(env, seed, false, 0.004, &side).success;
        }
        printf("at rate %g: %d below, %d above; with 4 mm of noise %d of 40\n", rates[r], sides[0], sides[2], disturbed);
        assert_true(sides[0] >= 10 && sides[2] >= 10 && disturbed >= 36);
        task()->close(env);
    }
}

static void the_guard_ends_it(void **state) {
    soma_env *env = make(0);
    int side;
    soma_env_outcome o = play(env, 1, true, 0, &side); // the prompt names the guard, and the expert obeys
    assert_true(o.done && !o.success && o.prompted);
    reset(env, 1, false);
    int steps = 0;
    while (!task()->outcome(env).done) {
        float at[N_STATE];
        look(env, at);
        step(env, at[TOOL_X], at[TOOL_Y]); // standing still
        steps++;
    }
    o = task()->outcome(env);
    assert_true(steps == task()->max_steps && o.steps == steps && !o.success && !o.prompted);
    task()->close(env);
}

static void same_seed_same_bits(void **state) {
    soma_env *a = make(0), *b = make(0);
    float x[N_STATE], y[N_STATE];
    int side;
    play(a, 7, false, 0.002, &side);
    play(b, 7, false, 0.002, &side);
    look(a, x);
    look(b, y);
    assert_memory_equal(x, y, sizeof x);
    soma_env_obs oa, ob;
    must(task()->observe(a, &oa, NULL), NULL);
    must(task()->observe(b, &ob, NULL), NULL);
    assert_memory_equal(oa.images[0], ob.images[0], 16 * 16 * 3);
    task()->close(a);
    task()->close(b);
}

static void what_is_wrong_is_told(void **state) {
    soma_env *env = make(0), *none;
    soma_error err;
    reset(env, 0, false);
    assert_int_equal(task()->step(env, (float[]){0, NAN}, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "action 1 (y)"));
    task()->close(env);
    assert_int_equal(task()->open(&none, &(soma_env_opts){.image_width = 4, .image_height = 16}, &err), SOMA_BAD_INPUT);
    assert_int_equal(task()->open(&none, &(soma_env_opts){.image_width = 16, .image_height = 16, .rate = 30}, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "30 Hz"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(servo_is_a_lag_with_a_top_speed),
                                       cmocka_unit_test(target_swings),
                                       cmocka_unit_test(expert_goes_around_either_side),
                                       cmocka_unit_test(the_guard_ends_it),
                                       cmocka_unit_test(same_seed_same_bits),
                                       cmocka_unit_test(what_is_wrong_is_told)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
