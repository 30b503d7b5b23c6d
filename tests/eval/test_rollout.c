// SPDX-License-Identifier: Apache-2.0
// The closed loop: with the expert behind the interface of a policy, with nobody, with a wrong prompt, and with drivers that misbehave.
// Where the machine gives no offscreen OpenGL the tests are skipped.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "eval/rollout.h"

#include <math.h>
#include <string.h>

static soma_rollout_opts small(int seeds) {
    soma_rollout_opts o = soma_rollout_defaults();
    o.seeds = seeds;
    o.image = 16;
    o.films = 1;
    return o;
}

static bool no_opengl(void) {
    const soma_task *task = soma__task_find("touch_color");
    soma_env *env = NULL;
    soma_env_obs obs;
    bool fails = !task || task->open(&env, &(soma_env_opts){16, 16, true}, NULL) || task->reset(env, &(soma_env_reset){.seed = 1}, NULL) ||
                 task->observe(env, &obs, NULL);
    if (env) task->close(env);
    return fails;
}

// A driver as a policy looks from the loop's side: it counts, and answers with chunks of HORIZON times the expert's next action.
enum { HORIZON = 4, SEATS = 64, VALUES = 16 };
typedef struct {
    const soma_task *task;
    int begun, acts, largest;
    float chunks[SEATS][HORIZON * VALUES];
    bool fail;
    float poison;
} fake;

static soma_status fake_begin(void *ctx, int seat, soma_error *err) {
    fake *f = ctx;
    f->begun++;
    return SOMA_OK;
}

static soma_status fake_act(void *ctx, soma_seat **seats, int n, soma_error *err) {
    fake *f = ctx;
    if (f->fail && f->acts > 20) return soma__fail(err, SOMA_IO, "the robot fell asleep");
    f->largest = SOMA_MAX(f->largest, n);
    f->acts += n;
    int A = f->task->n_actions;
    for (int i = 0; i < n; i++) {
        assert_int_equal(seats[i]->obs.n_state, f->task->n_state);
        assert_int_equal(seats[i]->obs.n_images, f->task->n_cameras);
        assert_non_null(seats[i]->obs.images[0].pixels);
        assert_non_null(strstr(seats[i]->obs.prompt, "cube"));
        float *chunk = f->chunks[seats[i]->index];
        f->task->expert(seats[i]->env, chunk);
        chunk[0] += f->poison;
        for (int h = 1; h < HORIZON; h++) memcpy(chunk + h * A, chunk, A * sizeof(float));
        seats[i]->plan = (soma_actions){chunk, HORIZON, A, 2.5};
    }
    return SOMA_OK;
}

static soma_driver fake_driver(fake *f) {
    *f = (fake){.task = soma__task_find("touch_color")};
    return (soma_driver){.name = "fake", .seats = SEATS, .ctx = f, .begin = fake_begin, .act = fake_act};
}

static void expert_through_the_policys_door(void **state) {
    if (no_opengl()) skip();
    fake f;
    soma_driver driver = fake_driver(&f);
    soma_rollout_opts o = small(20);
    soma_chunk_opts chunks = soma_chunk_defaults();
    chunks.execute = 2;
    soma_rollouts r;
    assert_int_equal(soma__rollouts_run(&r, &driver, &o, &chunks, NULL, NULL, NULL), SOMA_OK);
    assert_int_equal(r.n, 20);
    assert_int_equal(f.begun, 20);
    assert_true(f.largest == 8 && r.acts == f.acts);
    assert_true(r.success.rate >= 0.95 && r.prompted.rate == r.success.rate);
    assert_true(r.model_ms == 2.5 && r.act_ms > 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(r.episodes[i].seed, 1000000 + i);
        assert_true(r.episodes[i].first && r.episodes[i].last);
        assert_true(!r.episodes[i].film == (i > 0));
    }
    // the film tells the same story: one picture more than actions, a plan every second step
    const soma_film *film = r.episodes[0].film;
    assert_int_equal(film->n_steps, r.episodes[0].outcome.steps);
    assert_int_equal(film->n_plans, (film->n_steps + 1) / 2);
    assert_memory_equal(film->pictures, r.episodes[0].first, 2 * 16 * 16 * 3);
    assert_memory_equal(film->pictures + (size_t)film->n_steps * 2 * 16 * 16 * 3, r.episodes[0].last, 2 * 16 * 16 * 3);
    assert_memory_equal(film->actions + 7, film->actions, 7 * sizeof(float)); // the second of two from one chunk
    assert_int_equal(film->plan_step[1], 2);
    soma__rollouts_free(&r);
}

static void wrong_prompt_is_judged_by_the_goal(void **state) {
    if (no_opengl()) skip();
    soma_rollout_opts o = small(20);
    o.wrong_prompt = true;
    soma_driver driver;
    soma_rollouts r;
    assert_int_equal(soma__driver_expert(&driver, soma__task_find("touch_color"), 8, NULL), SOMA_OK);
    assert_int_equal(soma__rollouts_run(&r, &driver, &o, NULL, NULL, NULL, NULL), SOMA_OK);
    assert_true(r.success.rate <= 0.05 && r.prompted.rate >= 0.95 && r.acted.rate >= 0.95); // the expert obeys the prompt
    soma__driver_close(&driver);
    soma__rollouts_free(&r);
}

static void holding_still_never_succeeds(void **state) {
    if (no_opengl()) skip();
    soma_rollout_opts o = small(3);
    soma_driver driver;
    soma_rollouts r;
    assert_int_equal(soma__driver_hold(&driver, soma__task_find("touch_color"), 8, NULL), SOMA_OK);
    assert_int_equal(soma__rollouts_run(&r, &driver, &o, NULL, NULL, NULL, NULL), SOMA_OK);
    assert_true(r.success.rate == 0 && r.prompted.rate == 0 && r.episodes[0].outcome.steps == 100);
    soma__driver_close(&driver);
    soma__rollouts_free(&r);
}

static void same_result_for_any_seats_and_threads(void **state) {
    if (no_opengl()) skip();
    soma_rollouts a, b;
    fake f;
    soma_driver driver = fake_driver(&f);
    soma_rollout_opts o = small(6);
    o.seats = 1, o.threads = 1;
    assert_int_equal(soma__rollouts_run(&a, &driver, &o, NULL, NULL, NULL, NULL), SOMA_OK);
    o.seats = 4, o.threads = 3;
    assert_int_equal(soma__rollouts_run(&b, &driver, &o, NULL, NULL, NULL, NULL), SOMA_OK);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(a.episodes[i].outcome.steps, b.episodes[i].outcome.steps);
        assert_memory_equal(a.episodes[i].last, b.episodes[i].last, 2 * 16 * 16 * 3);
    }
    soma__rollouts_free(&a);
    soma__rollouts_free(&b);
}

static bool stop_after_three(void *user, int64_t done, int64_t successes) { return done < 3; }

static void a_stop_keeps_what_is_over(void **state) {
    if (no_opengl()) skip();
    fake f;
    soma_driver driver = fake_driver(&f);
    soma_rollout_opts o = small(50);
    soma_rollouts r;
    assert_int_equal(soma__rollouts_run(&r, &driver, &o, NULL, stop_after_three, NULL, NULL), SOMA_OK);
    assert_true(r.stopped && r.n >= 3 && r.n < 50 && r.success.n == r.n);
    for (int i = 0; i < r.n; i++) assert_true(r.episodes[i].outcome.done && r.episodes[i].last);
    soma__rollouts_free(&r);
}

static void failures_name_the_seed(void **state) {
    if (no_opengl()) skip();
    fake f;
    soma_error err = {0};
    soma_driver driver = fake_driver(&f);
    soma_rollout_opts o = small(8);
    soma_rollouts r;
    f.fail = true;
    assert_int_equal(soma__rollouts_run(&r, &driver, &o, NULL, NULL, NULL, &err), SOMA_IO);
    assert_string_equal(err.text, "the robot fell asleep");
    driver = fake_driver(&f);
    f.poison = NAN;
    assert_int_equal(soma__rollouts_run(&r, &driver, &o, NULL, NULL, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "seed 1000000: touch_color: action 0 (waist) is"));
    assert_null(r.episodes);
}

static void wrong_options_are_told(void **state) {
    soma_task task;
    soma_error err = {0};
    soma_rollout_opts o = small(1);
    strcpy(o.task, "juggle");
    assert_int_not_equal(soma__rollout_task(&task, &o, &err), SOMA_OK);
    o = small(0);
    assert_int_not_equal(soma__rollout_task(&task, &o, &err), SOMA_OK);
    o = small(1);
    o.delay = -1;
    assert_int_not_equal(soma__rollout_task(&task, &o, &err), SOMA_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expert_through_the_policys_door), cmocka_unit_test(wrong_prompt_is_judged_by_the_goal),
        cmocka_unit_test(holding_still_never_succeeds),    cmocka_unit_test(same_result_for_any_seats_and_threads),
        cmocka_unit_test(a_stop_keeps_what_is_over),       cmocka_unit_test(failures_name_the_seed),
        cmocka_unit_test(wrong_options_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
