// SPDX-License-Identifier: Apache-2.0
// Turns against a deadline, with a policy that sleeps as long as its turns cost: more robots than it can serve get answers in time or
// "busy", and one long turn does not keep a server from trying again.
#include "loopback.h"
#include "serve/toy_server.h"

#include <math.h>
#include <pthread.h>

enum { ROBOTS = 16, LARGEST = 4 };
static const double ONE = 0.02, MORE = 0.01, WAIT = 0.15, RUN = 1.5; // seconds: a turn of one, each further request; max_wait; of the test

static double turn_of(int n) { return ONE + MORE * (n - 1); }

// As pilots.c has it, for costs that always favour the largest turn.
static double nap_cost(const void *ctx, int waiting, double left, int *first) {
    int n = SOMA_MIN(waiting, LARGEST);
    while (n > 1 && turn_of(n) > left) n--;
    *first = n;
    return waiting / LARGEST * turn_of(LARGEST) + (waiting % LARGEST ? turn_of(waiting % LARGEST) : 0);
}

static void nap(void *ctx, int n, void *const *pilots, const soma_obs *obs, soma_actions *actions, soma_error *errors) {
    int *largest = ctx;
    *largest = SOMA_MAX(*largest, n);
    usleep((useconds_t)(1e6 * turn_of(n)));
    toy_act(NULL, n, pilots, obs, actions, errors);
}

typedef struct robot {
    pthread_t thread;
    soma_wire *wire;
    int answered, busy, late, other;
} robot;

static void *drive(void *arg) {
    robot *r = arg;
    soma_error error = {0};
    const soma_obs obs = look("x");
    for (const double end = soma__seconds() + RUN; soma__seconds() < end;) {
        soma_actions a;
        const double begin = soma__seconds();
        const soma_status status = soma__wire_infer(r->wire, &obs, &a, &error);
        r->answered += status == SOMA_OK;
        r->busy += status == SOMA_BUSY;
        r->other += status != SOMA_OK && status != SOMA_BUSY;
        r->late += status == SOMA_OK && soma__seconds() - begin > WAIT + 0.05; // the way there and back, on a machine with other work
        if (status != SOMA_OK) usleep(20000);
    }
    return NULL;
}

// 16 robots that ask at once need 0.2 s of turns of four; 0.15 s are allowed.
static void test_overload(void **state) {
    fixture f = {0};
    int largest = 0;
    robot robots[ROBOTS] = {0}, sum = {0};
    soma_server_policy policy = toy;
    soma_server_opts o = soma__server_defaults();
    policy.ctx = &largest;
    policy.act = nap;
    policy.cost = nap_cost;
    o.port = 0;
    o.max_wait = WAIT;
    n_opened = n_closed = 0;
    if (soma__server_open(&f.server, &policy, &o, NULL, &err)) fail_msg("%s", err.text);
    f.port = soma__server_port(f.server);
    for (int i = 0; i < ROBOTS; i++) robots[i].wire = toy_join(&f);
    for (int i = 0; i < ROBOTS; i++) assert_int_equal(pthread_create(&robots[i].thread, NULL, drive, &robots[i]), 0);
    for (int i = 0; i < ROBOTS; i++) {
        pthread_join(robots[i].thread, NULL);
        soma__wire_close(robots[i].wire);
        sum.answered += robots[i].answered;
        sum.busy += robots[i].busy;
        sum.late += robots[i].late;
        sum.other += robots[i].other;
    }
    print_message("%d answered, %d busy, %d late, turns of up to %d\n", sum.answered, sum.busy, sum.late, largest);
    assert_int_equal(sum.other, 0);
    assert_true(sum.answered > RUN / turn_of(LARGEST)); // at least a fourth of what can be
    assert_true(sum.busy > 0);
    assert_true(sum.late <= sum.answered / 10); // before answers were bound to the deadline most were late
    assert_int_equal(largest, LARGEST);
    toy_stop(&f);
}

// A turn of 1.5 s where 0.3 s are allowed: the next requests are refused, but not for ever.
static void test_doubt(void **state) {
    fixture f;
    soma_server_opts o = soma__server_defaults();
    o.max_wait = 0.3;
    toy_start(&f, o);
    soma_wire *w = toy_join(&f);
    assert_int_equal(toy_ask(w, "slower"), SOMA_OK);
    assert_int_equal(toy_ask(w, "x"), SOMA_BUSY);
    int tries = 0;
    while (toy_ask(w, "x") == SOMA_BUSY && tries < 50) tries++;
    assert_in_range(tries, 1, 49);
    assert_int_equal(toy_ask(w, "x"), SOMA_OK);
    soma__wire_close(w);
    toy_stop(&f);
}

// The toy's chunk is {sum of the state, count, pixels, length of the prompt, 0 ...}: one step later row 0 stands where row 1 stood.
static void test_seam(void **state) {
    fixture f;
    char text[8192];
    soma_actions a;
    soma_obs obs = look("x");
    toy_start(&f, soma__server_defaults());
    soma_wire *w = toy_join(&f);
    for (int i = 0; i < 2; i++) {
        if (soma__wire_infer(w, &obs, &a, &err)) fail_msg("%s", err.text);
        obs.executed = 1;
    }
    assert_int_equal(toy_get(f.port, "/metrics", "", text, sizeof text), 200);
    assert_non_null(strstr(text, "soma_seam_sum 33.500000\nsoma_seam_count 1\n")); // |6.5 - 40|
    assert_non_null(strstr(text, "soma_seam_most 33.500000\n"));
    obs.executed = 2;
    obs.delay = H; // behind the chunk's end
    if (soma__wire_infer(w, &obs, &a, &err)) fail_msg("%s", err.text);
    assert_int_equal(toy_get(f.port, "/metrics", "", text, sizeof text), 200);
    assert_non_null(strstr(text, "soma_seam_count 1\n"));
    assert_non_null(strstr(text, "soma_delay_steps_sum 4.000000\nsoma_delay_steps_count 2\n"));
    soma__wire_close(w);
    toy_stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_overload), cmocka_unit_test(test_doubt), cmocka_unit_test(test_seam)};
    return loopback_ready() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
