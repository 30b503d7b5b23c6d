// SPDX-License-Identifier: Apache-2.0
// The server's policy as the public API has it: one soma_pilot per client, requests answered together where that shortens the longest
// wait. A file of its own, so that a server of something else does not link the models.
//
// What n requests cost together was measured before serving (soma__server_pilots_measure), so that the first robots do not wait for plans
// to be made. Those that wait are split into turns such that the last of them is done soonest, but none grows so long that its first one is
// late; and as a row's answer does not depend on what else is in its batch, a robot cannot tell.
#include "serve/server.h"

#include "base/base.h"
#include "policy/policy.h"

#include <math.h>
#include <string.h>

enum { SIDE = 224, REPEATS = 3 };
#define LONGEST 0.25     // seconds: a turn that takes longer lets the others wait too long to be worth trying
#define ALIKE (1 - 1e-9) // sums of the same numbers in another order
#define WORTH 0.9 // of what the same requests cost in smaller turns: for less, those whom a smaller turn answers sooner should not wait

static soma_status open_pilot(void *ctx, void **pilot, soma_error *err) {
    const soma_server_pilots *p = ctx;
    soma_pilot *made;
    SOMA_TRY(soma_pilot_new(&made, p->policy, &p->opts, err));
    *pilot = made;
    return SOMA_OK;
}

// Seconds for `waiting` requests in the best turns of measured sizes.
static double best_split(const soma_server_pilots *p, int waiting, double left, int *first) {
    double total[SOMA_SERVER_TURN + 1] = {0};
    for (int k = 1; k <= waiting; k++) {
        total[k] = total[k - 1] + p->seconds[1];
        for (int n = 2; n <= SOMA_MIN(k, p->largest); n++) total[k] = fmin(total[k], total[k - n] + p->seconds[n]);
    }
    double best = total[waiting - 1] + p->seconds[1]; // turns may be taken in any order: of equals the smallest goes first
    *first = 1;
    for (int n = 2; n <= SOMA_MIN(waiting, p->largest); n++) {
        const double with = total[waiting - n] + p->seconds[n];
        if (p->seconds[n] > left || !(with < best * ALIKE)) continue;
        best = with;
        *first = n;
    }
    return total[waiting];
}

static double cost(const void *ctx, int waiting, double left, int *first) {
    const soma_server_pilots *p = ctx;
    const int n = SOMA_MIN(waiting, SOMA_SERVER_TURN);
    *first = 1;
    return p->largest ? best_split(p, n, left, first) * waiting / n : 0;
}

// At once; and where one of them is refused, one by one, so that the others are not refused with it. A refusal changes no pilot.
static void act(void *ctx, int n, void *const *pilots, const soma_obs *obs, soma_actions *actions, soma_error *errors) {
    const soma_server_pilots *p = ctx;
    soma_pilot *all[SOMA_SERVER_TURN];
    for (int i = 0; i < n; i++) all[i] = pilots[i];
    if (n > 1 && soma_policy_act_many(p->policy, n, all, obs, actions, NULL) == SOMA_OK) return;
    for (int i = 0; i < n; i++) soma_pilot_act(all[i], &obs[i], &actions[i], &errors[i]);
}

static bool hold(void *ctx, const soma_obs *obs, const float *last, float *action) {
    const soma_robot *robot = soma__policy_robot(((const soma_server_pilots *)ctx)->policy);
    return obs->n_state == robot->n_state && soma__robot_hold(robot, obs->state, last, action);
}

static soma_status look(void *ctx, const soma_image *image, soma_live_picture *out, soma_error *err) {
    const soma_policy *policy = ((const soma_server_pilots *)ctx)->policy;
    out->width = out->height = (int)soma__policy_model(policy)->info.image_size;
    return soma__robot_look(&out->rgb, soma__policy_robot(policy), soma__policy_model(policy), image, err);
}

static void reset(void *pilot) { soma_pilot_reset(pilot); }
static void close_pilot(void *pilot) { soma_pilot_free(pilot); }

soma_server_policy soma__server_pilots(soma_server_pilots *pilots) {
    return (soma_server_policy){.ctx = pilots,
                                .info = soma_policy_describe(pilots->policy),
                                .open = open_pilot,
                                .cost = cost,
                                .act = act,
                                .hold = hold,
                                .look = look,
                                .reset = reset,
                                .close = close_pilot};
}

// ---- measuring

// The least of a few turns of n, after one that makes the plans.
static soma_status measure(double *seconds, const soma_policy *policy, int n, soma_pilot *const *pilots, const soma_obs *obs,
                           soma_error *err) {
    soma_actions actions[SOMA_SERVER_TURN];
    *seconds = 0;
    for (int r = 0; r <= REPEATS; r++) {
        const double start = soma__seconds();
        SOMA_TRY(soma_policy_act_many(policy, n, pilots, obs, actions, err));
        const double took = soma__seconds() - start;
        if (took > 4 * LONGEST) r = REPEATS; // hopeless, plans made or not
        if (r == REPEATS && !(*seconds > 0)) *seconds = took;
        if (r == 1 || (r > 1 && took < *seconds)) *seconds = took;
    }
    return SOMA_OK;
}

// A turn of one is measured again beside each larger one: all are held against it, and a slow moment of the machine would speak for them.
static soma_status measure_all(soma_server_pilots *p, int most, soma_pilot **pilots, const soma_obs *obs, soma_error *err) {
    double took[SOMA_SERVER_TURN + 1], one = INFINITY;
    int n = 0, first;
    do {
        n++;
        SOMA_TRY(soma_pilot_new(&pilots[n - 1], p->policy, &p->opts, err));
        SOMA_TRY(measure(&took[n], p->policy, n, pilots, obs, err));
        if (n > 1) SOMA_TRY(measure(&took[1], p->policy, 1, pilots, obs, err));
        one = fmin(one, took[1]);
    } while (n < most && took[n] <= LONGEST);
    p->seconds[1] = one;
    p->largest = 1;
    for (int k = 2; k <= n; k++) {
        const bool pays = took[k] <= LONGEST && took[k] < WORTH * best_split(p, k, INFINITY, &first);
        p->seconds[k] = pays ? took[k] : INFINITY;
        if (pays) p->largest = k;
    }
    return SOMA_OK;
}

soma_status soma__server_pilots_measure(soma_server_pilots *p, int most, soma_error *err) {
    if (most < 1 || most > SOMA_SERVER_TURN)
        return soma__fail(err, SOMA_BAD_INPUT, "%d requests together: 1 to %d are possible", most, SOMA_SERVER_TURN);
    const soma_policy_info info = soma_policy_describe(p->policy);
    soma_pilot *pilots[SOMA_SERVER_TURN] = {0};
    uint8_t *pixels = soma__calloc(SIDE * SIDE, 3);
    float *state = soma__calloc((size_t)SOMA_MAX(info.n_state, 1), sizeof *state);
    soma_obs obs[SOMA_SERVER_TURN] = {{.state = state, .n_state = info.n_state, .n_images = info.n_cameras}};
    for (int c = 0; c < info.n_cameras; c++) obs[0].images[c] = (soma_image){info.camera_names[c], pixels, SIDE, SIDE};
    for (int i = 1; i < most; i++) obs[i] = obs[0];
    soma_status status = pixels && state ? measure_all(p, most, pilots, obs, err) : soma__no_memory(err, "an observation");
    for (int i = 0; i < most; i++) soma_pilot_free(pilots[i]);
    soma__free(pixels);
    soma__free(state);
    return status;
}
