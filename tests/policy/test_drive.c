// SPDX-License-Identifier: Apache-2.0
// Real time: a source that takes its time, a robot that does not wait for it, and what the drive measures of both; then a policy with
// real-time chunking behind the public functions.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/dots.h"
#include "train/trainer.h"
#include "policy/drive.h"

#include <unistd.h>

enum { H = 20, A = 2 };

// Chunk c's row r says 1000 c + r; every call takes `took` seconds; the third one fails where `fails`.
typedef struct slow {
    double took;
    bool fails;
    int calls, resets, seen, delay, executed;
    float values[H * A], state;
    char prompt[32];
} slow;

static soma_status slow_act(void *ctx, const soma_obs *obs, soma_actions *actions, soma_error *err) {
    slow *s = ctx;
    s->calls++;
    s->delay = obs->delay;
    s->executed = obs->executed;
    s->state = obs->state[0];
    snprintf(s->prompt, sizeof s->prompt, "%s", obs->prompt);
    assert_int_equal(obs->images[0].pixels[11], 7);
    assert_string_equal(obs->images[0].camera, "scene");
    usleep((useconds_t)(1e6 * s->took));
    if (s->fails && s->calls == 3) return soma__fail(err, SOMA_IO, "the third call fails");
    for (int i = 0; i < H * A; i++) s->values[i] = (float)(1000 * s->calls + i / A);
    *actions = (soma_actions){.values = s->values, .horizon = H, .n_actions = A};
    return SOMA_OK;
}

static void slow_reset(void *ctx) { ((slow *)ctx)->resets++; }

static soma_status slow_see(void *ctx, const soma_obs *obs, soma_error *err) {
    ((slow *)ctx)->seen++;
    return SOMA_OK;
}

static soma_drive *make(slow *s, const char *how, int execute) {
    const soma_drive_source source = {s, slow_act, slow_reset, slow_see};
    soma_chunk_opts o = soma_chunk_defaults();
    soma_drive *d;
    soma_error err;
    strcpy(o.chunks, how);
    o.execute = execute;
    if (soma__drive_new(&d, &source, &o, H, A, 50, &err)) fail_msg("%s", err.text);
    return d;
}

// What the robot sees is gone when the call returns.
static soma_status step(soma_drive *d, float value, const float **action, soma_error *err) {
    uint8_t pixels[12];
    char camera[] = "scene", prompt[] = "go";
    memset(pixels, 7, sizeof pixels);
    soma_obs obs = {.prompt = prompt, .state = &value, .n_state = 1, .n_images = 1, .images = {{camera, pixels, 2, 2}}};
    const soma_status status = soma_drive_step(d, &obs, action, err);
    memset(pixels, 0, sizeof pixels);
    camera[0] = prompt[0] = 'x';
    value = -1;
    return status;
}

static void async_never_waits_but_once(void **state) {
    slow s = {.took = 0.05};
    soma_drive *d = make(&s, "async", 4);
    const float *action;
    soma_error err;
    double longest = 0, begin = soma__seconds();
    assert_int_equal(step(d, 1, &action, &err), SOMA_OK);
    assert_true(soma__seconds() - begin >= 0.05 && action[0] >= 1000 && action[0] < 1010);
    for (int tick = 0; tick < 100; tick++) { // 0.5 s at 200 Hz
        usleep(5000);
        begin = soma__seconds();
        if (step(d, (float)tick, &action, &err)) fail_msg("%s", err.text);
        longest = fmax(longest, soma__seconds() - begin);
        assert_true(action[0] == action[1]);
    }
    soma_chunk_report r = soma_drive_read(d);
    print_message("%lld chunks in %lld steps, delay %.1f (%.0f ms), longest step %.2f ms, %lld held\n", (long long)r.chunks,
                  (long long)r.steps, r.delay_mean, r.delay_mean * r.step_ms, 1e3 * longest, (long long)r.held);
    assert_true(s.calls >= 3 && r.steps == 101 && r.step_ms == 20);
    assert_true(r.delay_mean >= 2.5 && r.delay >= 2.5); // 50 ms are 2.5 steps of 20 ms
    assert_true(s.delay >= 3 && s.executed >= 4 && !strcmp(s.prompt, "go") && s.state > 0);
    assert_true(r.seams >= 1 && r.seam_mean >= 900);
    soma_drive_reset(d);
    assert_int_equal(s.resets, 1);
    const int calls = s.calls;
    assert_int_equal(step(d, 1, &action, &err), SOMA_OK);
    assert_true(s.calls == calls + 1 && s.executed == 0 && action[0] >= 1000.0f * (float)s.calls);
    soma_drive_free(d);
}

static void open_waits_for_each(void **state) {
    slow s = {.took = 0.01};
    soma_drive *d = make(&s, "open", 2);
    const float *action;
    soma_error err;
    for (int tick = 0; tick < 20; tick++) {
        if (step(d, 1, &action, &err)) fail_msg("%s", err.text);
        usleep(5000);
    }
    soma_chunk_report r = soma_drive_read(d);
    assert_true(s.calls >= 2 && r.chunks == s.calls && s.executed == 0);
    soma_drive_free(d);
}

static void failures_are_told_once(void **state) {
    slow s = {.took = 0.001, .fails = true};
    soma_drive *d = make(&s, "async", 1);
    const float *action;
    soma_error err;
    int failed = 0;
    for (int tick = 0; tick < 200 && s.calls < 6; tick++) {
        const soma_status status = step(d, 1, &action, &err);
        failed += status == SOMA_IO;
        if (status == SOMA_IO) assert_string_equal(err.text, "the third call fails");
        usleep(5000);
    }
    assert_true(failed == 1 && s.calls >= 6);
    soma_drive_free(d);
    assert_int_equal(soma__drive_new(&d, &(soma_drive_source){&s, slow_act, NULL}, NULL, H, A, 0, &err), SOMA_BAD_INPUT);
    assert_null(d);
}

// ---- a policy

static uint8_t picture[SIDE * SIDE * 3];

static int make_policy(void **state) {
    if (make_dots(state)) return 1;
    soma_train_opts o = soma_train_defaults();
    path(o.data, "data");
    path(o.model, "model.json");
    path(o.out, "policy");
    o.steps = 2;
    o.batch = 4;
    o.horizon = 8;
    o.threads = 1;
    return soma_train(&o, NULL, NULL, NULL) != SOMA_OK;
}

static soma_policy *open_policy(bool gradient) {
    char dir[SOMA_OPT_TEXT];
    soma_policy *p;
    soma_error err;
    soma_policy_opts o = soma_policy_defaults();
    path(dir, "policy");
    o.threads = 1;
    o.gradient = gradient;
    if (soma_policy_open(&p, dir, &o, &err)) fail_msg("%s", err.text);
    return p;
}

static soma_obs observation(int executed, int delay) {
    static const float place[] = {0.25f, -0.5f};
    return (soma_obs){.prompt = "chase the dot",
                      .state = place,
                      .n_state = 2,
                      .n_images = 1,
                      .images = {{"scene", picture, SIDE, SIDE}},
                      .executed = executed,
                      .delay = delay};
}

static soma_pilot *pilot_of(const soma_policy *p, const char *rtc, soma_status wanted) {
    soma_pilot *pilot;
    soma_error err;
    soma_pilot_opts o = soma_pilot_defaults();
    strcpy(o.rtc, rtc);
    const soma_status status = soma_pilot_new(&pilot, p, &o, &err);
    if (status != wanted) fail_msg("%s", err.text);
    return pilot;
}

// The second chunk's first rows are the first one's from where it was left, the better the more they bind; without rtc they are not.
static void chunks_continue(void **state) {
    static const char *const modes[] = {"", "guided", "gradient"};
    double off[3] = {0};
    for (int m = 0; m < 3; m++) {
        soma_policy *p = open_policy(m == 2);
        soma_pilot *pilot = pilot_of(p, modes[m], SOMA_OK);
        soma_actions a;
        float first[8 * 2];
        soma_obs obs = observation(0, 0);
        soma_error err;
        if (soma_pilot_act(pilot, &obs, &a, &err)) fail_msg("%s", err.text);
        memcpy(first, a.values, sizeof first);
        obs = observation(3, 2);
        if (soma_pilot_act(pilot, &obs, &a, &err)) fail_msg("%s", err.text);
        for (int i = 0; i < 4; i++) off[m] += fabs((double)a.values[i] - (double)first[6 + i]);
        obs.delay = -1;
        assert_int_equal(soma_pilot_act(pilot, &obs, &a, &err), SOMA_BAD_INPUT);
        soma_pilot_free(pilot);
        soma_policy_close(p);
    }
    print_message("off by %.4f without, %.4f guided, %.4f by the gradient\n", off[0], off[1], off[2]);
    assert_true(off[1] < 0.1 * off[0] && off[2] < 0.1 * off[0]);
}

static void what_is_missing_is_told(void **state) {
    soma_policy *p = open_policy(false);
    assert_null(pilot_of(p, "gradient", SOMA_BAD_INPUT));
    assert_null(pilot_of(p, "trained", SOMA_BAD_INPUT));
    assert_null(pilot_of(p, "magic", SOMA_BAD_INPUT));
    soma_policy_close(p);
}

static void a_pilot_drives(void **state) {
    soma_policy *p = open_policy(false);
    soma_pilot *pilot = pilot_of(p, "guided", SOMA_OK);
    soma_chunk_opts o = soma_chunk_defaults();
    soma_drive *d;
    soma_error err;
    const float *action;
    strcpy(o.chunks, "async");
    o.execute = 2;
    assert_ptr_equal(soma_pilot_policy(pilot), p);
    if (soma_drive_new(&d, pilot, &o, 0, &err)) fail_msg("%s", err.text); // 10 Hz, as the policy says
    for (int tick = 0; tick < 60; tick++) {
        soma_obs obs = observation(0, 0);
        if (soma_drive_step(d, &obs, &action, &err)) fail_msg("%s", err.text);
        usleep(10000);
    }
    soma_chunk_report r = soma_drive_read(d);
    assert_true(r.chunks >= 2 && r.step_ms == 100);
    soma_drive_free(d);
    soma_pilot_free(pilot);
    soma_policy_close(p);
}

// A policy that looks back is shown every step for which no chunk is asked.
static void sees_what_lies_between(void **state) {
    enum { STEPS = 12 };
    slow s = {.took = 0.001};
    soma_drive *d = make(&s, "open", 4);
    const float *action;
    soma_error err;
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(step(d, (float)i, &action, &err), SOMA_OK);
        usleep(20000);
    }
    assert_true(s.calls >= 2 && s.seen >= 4);
    assert_int_equal(s.calls + s.seen, STEPS);
    soma_drive_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sees_what_lies_between), cmocka_unit_test(async_never_waits_but_once),
                                       cmocka_unit_test(open_waits_for_each),    cmocka_unit_test(failures_are_told_once),
                                       cmocka_unit_test(chunks_continue),        cmocka_unit_test(what_is_missing_is_told),
                                       cmocka_unit_test(a_pilot_drives)};
    return cmocka_run_group_tests(tests, make_policy, remove_dots);
}
