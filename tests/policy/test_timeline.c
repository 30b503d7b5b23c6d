// SPDX-License-Identifier: Apache-2.0
// Which action is sent when: openpi-client's broker row by row, LeRobot's asynchronous form, ACT's and ICRT's weights, interpolation to
// another rate, and what is measured.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "policy/timeline.h"

#include <math.h>
#include <string.h>

enum { H = 8, A = 2 };

static soma_timeline *make(const char *how, int execute, double delay) {
    soma_chunk_opts o = soma_chunk_defaults();
    soma_timeline *t;
    soma_error err;
    strcpy(o.chunks, how);
    o.execute = execute;
    if (soma__timeline_new(&t, &o, H, A, delay, &err)) fail_msg("%s", err.text);
    return t;
}

// Row r of chunk c says 100 c + r, and its negative.
static void arrive(soma_timeline *t, double now, int c) {
    float values[H * A];
    for (int r = 0; r < H; r++) {
        values[r * A] = (float)(100 * c + r);
        values[r * A + 1] = -values[r * A];
    }
    soma__timeline_arrive(t, now, values, H);
}

static double action(soma_timeline *t, double now) {
    float a[A];
    soma__timeline_action(t, now, a);
    assert_true(a[1] == -a[0]);
    return (double)a[0];
}

// As openpi-client's ActionChunkBroker: rows 0 to execute - 1 of a chunk, then the next one.
static void open_is_the_broker(void **state) {
    soma_timeline *t = make("open", 3, 0);
    int asked = 0, executed, delay;
    for (int step = 0; step < 12; step++) {
        if (soma__timeline_wants(t, step)) {
            soma__timeline_ask(t, step, &executed, &delay);
            assert_int_equal(executed, 0);
            arrive(t, step, ++asked);
        }
        assert_true(action(t, step) == 100 * asked + step % 3);
    }
    assert_int_equal(asked, 4);
    soma__timeline_free(t);
}

// While a chunk is under way the robot stands; then it follows the chunk from its first row.
static void open_stands_still_meanwhile(void **state) {
    soma_timeline *t = make("open", 3, 2);
    int executed, delay;
    soma__timeline_ask(t, 0, &executed, &delay);
    arrive(t, 0, 1);
    for (int step = 0; step < 3; step++) assert_true(action(t, step) == 100 + step);
    assert_true(soma__timeline_wants(t, 3));
    soma__timeline_ask(t, 3, &executed, &delay);
    assert_true(action(t, 3) == 102 && action(t, 4) == 102);
    assert_false(soma__timeline_wants(t, 5));
    arrive(t, 5, 2);
    assert_true(action(t, 5) == 200 && action(t, 6) == 201);
    soma_chunk_report r = soma__timeline_read(t);
    assert_int_equal(r.held, 2);
    assert_true(r.delay == 2 && r.seams == 1 && r.seam == 200 - 103); // row 3 of the first was next
    soma__timeline_free(t);
}

static void async_skips_what_is_past(void **state) {
    soma_timeline *t = make("async", 4, 2);
    int executed, delay;
    soma__timeline_ask(t, 0, &executed, &delay);
    assert_true(executed == 0 && delay == 2);
    arrive(t, 0, 1);
    for (int step = 0; step < 4; step++) {
        assert_false(soma__timeline_wants(t, step));
        assert_true(action(t, step) == 100 + step);
    }
    assert_true(soma__timeline_wants(t, 4));
    soma__timeline_ask(t, 4, &executed, &delay);
    assert_true(executed == 4 && delay == 2);
    for (int step = 4; step < 7; step++) assert_true(action(t, step) == 100 + step); // it goes on
    arrive(t, 7, 2);                                                                 // later than expected
    assert_true(action(t, 7) == 203);
    soma_chunk_report r = soma__timeline_read(t);
    assert_true(r.delay == 3 && r.delay_max == 3 && r.seam == 203 - 107 && r.held == 0);
    assert_true(soma__timeline_wants(t, 8));
    soma__timeline_ask(t, 8, &executed, &delay);
    assert_true(executed == 4 && delay == 3); // the longest of the last
    soma__timeline_lost(t);
    assert_true(soma__timeline_wants(t, 9));
    soma__timeline_ask(t, 9, &executed, &delay);
    assert_int_equal(executed, 5);                             // since the observation of the last chunk that came
    assert_true(action(t, 11) == 207 && action(t, 12) == 207); // behind its last row it stands
    assert_int_equal(soma__timeline_read(t).held, 1);
    soma__timeline_reset(t);
    assert_true(soma__timeline_wants(t, 0) && action(t, 0) == 0);
    soma__timeline_free(t);
}

static void ensembles_weigh_as_published(void **state) {
    const double weights[] = {0.01, -0.05, 0}; // ACT, ICRT, CrossFormer
    for (int w = 0; w < 3; w++) {
        soma_chunk_opts o = soma_chunk_defaults();
        soma_timeline *t;
        strcpy(o.chunks, "ensemble");
        o.execute = 1;
        o.ensemble_weight = weights[w];
        assert_int_equal(soma__timeline_new(&t, &o, H, A, 0, NULL), SOMA_OK);
        for (int step = 0; step < 12; step++) {
            int executed, delay;
            assert_true(soma__timeline_wants(t, step));
            soma__timeline_ask(t, step, &executed, &delay);
            arrive(t, step, step); // chunk c was made at step c
            double sum = 0, of = 0;
            for (int c = SOMA_MAX(0, step - H + 1), i = 0; c <= step; c++, i++) {
                sum += exp(-weights[w] * i) * (100 * c + step - c);
                of += exp(-weights[w] * i);
            }
            assert_true(fabs(action(t, step) - sum / of) < 1e-3);
        }
        soma__timeline_free(t);
    }
}

// A robot at five times the policy's rate: on straight lines between the rows.
static void faster_robots_interpolate(void **state) {
    soma_timeline *t = make("async", 4, 0);
    int executed, delay;
    soma__timeline_ask(t, 0, &executed, &delay);
    arrive(t, 0.4, 1);
    for (int tick = 2; tick < 40; tick++) {
        const double now = tick / 5.0;
        assert_true(fabs(action(t, now) - (100 + fmin(now, 7))) < 1e-4);
    }
    soma__timeline_free(t);
}

static void what_is_wrong_is_told(void **state) {
    soma_chunk_opts o = soma_chunk_defaults();
    soma_timeline *t;
    soma_error err;
    strcpy(o.chunks, "closed");
    assert_int_equal(soma__timeline_new(&t, &o, H, A, 0, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "closed"));
    o = soma_chunk_defaults();
    o.execute = -1;
    assert_int_equal(soma__timeline_new(&t, &o, H, A, 0, &err), SOMA_BAD_INPUT);
    o = soma_chunk_defaults();
    o.ensemble_depth = 0;
    assert_int_equal(soma__timeline_new(&t, &o, H, A, 0, &err), SOMA_BAD_INPUT);
    o = soma_chunk_defaults();
    o.ensemble_weight = NAN;
    assert_int_equal(soma__timeline_new(&t, &o, H, A, 0, &err), SOMA_BAD_INPUT);
    assert_null(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(open_is_the_broker),        cmocka_unit_test(open_stands_still_meanwhile),
                                       cmocka_unit_test(async_skips_what_is_past),  cmocka_unit_test(ensembles_weigh_as_published),
                                       cmocka_unit_test(faster_robots_interpolate), cmocka_unit_test(what_is_wrong_is_told)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
