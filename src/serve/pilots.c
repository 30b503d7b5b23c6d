// SPDX-License-Identifier: Apache-2.0
// The server's policy as the public API has it: one soma_pilot per client. A file of its own, so that a server of something else does not
// link the models.
#include "serve/server.h"

#include "policy/policy.h"

static soma_status open_pilot(void *ctx, void **pilot, soma_error *err) {
    const soma_server_pilots *p = ctx;
    soma_pilot *made;
    SOMA_TRY(soma_pilot_new(&made, p->policy, &p->opts, err));
    *pilot = made;
    return SOMA_OK;
}

static void act(void *ctx, int n, void *const *pilots, const soma_obs *obs, soma_actions *actions, soma_error *errors) {
    for (int i = 0; i < n; i++) soma_pilot_act(pilots[i], &obs[i], &actions[i], &errors[i]);
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
                                .act = act,
                                .hold = hold,
                                .look = look,
                                .reset = reset,
                                .close = close_pilot};
}
