// SPDX-License-Identifier: Apache-2.0
// The server's policy as the public API has it: one soma_pilot per client. A file of its own, so that a server of something else does not
// link the models.
#include "serve/server.h"

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

static void reset(void *pilot) { soma_pilot_reset(pilot); }
static void close_pilot(void *pilot) { soma_pilot_free(pilot); }

soma_server_policy soma__server_pilots(soma_server_pilots *pilots) {
    return (soma_server_policy){
        .ctx = pilots, .info = soma_policy_describe(pilots->policy), .open = open_pilot, .act = act, .reset = reset, .close = close_pilot};
}
