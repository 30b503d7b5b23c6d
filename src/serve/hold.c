// SPDX-License-Identifier: Apache-2.0
// Pause and emergency stop. Only an answer can stop a robot that asks for chunks: while held, each request is answered with the action that
// keeps its robot where it is, for a whole chunk, or, where nobody knows that action, with a sentence and no actions.
#include "serve/inside.h"

#include <string.h>

void soma__server_hold(soma_server *s, bool held) {
    pthread_mutex_lock(&s->mutex); // a paused line begins to move
    const bool change = atomic_exchange(&s->held, held) != held;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
    if (!change) return;
    soma__event(s->events, SOMA_LOG_WARN, held ? "held" : "released", NULL,
                held ? "emergency stop: every request is answered with hold" : "released: the policy answers again");
}

void soma__server_pause(soma_server *s, bool paused) {
    pthread_mutex_lock(&s->mutex);
    const bool change = s->paused != paused;
    s->paused = paused;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
    if (change) soma__event(s->events, SOMA_LOG_WARN, paused ? "paused" : "resumed", NULL, paused ? "paused: requests wait" : "resumed");
}

bool soma__server_paused(soma_server *s) {
    pthread_mutex_lock(&s->mutex);
    const bool paused = s->paused;
    pthread_mutex_unlock(&s->mutex);
    return paused;
}

void soma__hold_sent(soma_server *s, soma_client *c, const soma_actions *a) {
    const size_t size = (size_t)a->horizon * (size_t)a->n_actions * sizeof *c->chunk;
    if (!c->chunk) c->chunk = soma__alloc((size_t)s->policy.info.horizon * (size_t)s->policy.info.n_actions * sizeof *c->chunk);
    c->chunk_rows = c->chunk && a->horizon <= s->policy.info.horizon && a->n_actions == s->policy.info.n_actions ? a->horizon : 0;
    if (c->chunk_rows) memcpy(c->chunk, a->values, size);
    c->chunk_sent = soma__seconds();
}

// The row that the robot was at when it was first held, and from then on the only one: held again, it must not move along its old chunk.
static const float *last_sent(const soma_server *s, soma_client *c) {
    const int n = s->policy.info.n_actions;
    if (!c->chunk_rows) return NULL;
    const double passed = (soma__seconds() - c->chunk_sent) * s->policy.info.rate; // 0 where the rate is not known: the chunk's first
    const int row = passed < c->chunk_rows ? (int)passed : c->chunk_rows - 1;
    memmove(c->chunk, c->chunk + row * n, (size_t)n * sizeof *c->chunk);
    c->chunk_rows = 1;
    return c->chunk;
}

soma_status soma__hold(soma_server *s, soma_client *c, const soma_obs *obs, soma_actions *actions, soma_error *err) {
    const soma_policy_info *info = &s->policy.info;
    float *values = soma__arena_alloc(&c->arena, (size_t)info->horizon * (size_t)info->n_actions * sizeof *values);
    *err = (soma_error){0};
    if (!values) return soma__no_memory(err, "an answer");
    if (!s->policy.hold || !s->policy.hold(s->policy.ctx, obs, last_sent(s, c), values))
        return soma__fail(err, SOMA_BUSY,
                          "held by the emergency stop; how this robot is kept still is not known (\"hold\" of its robot file)");
    for (int i = 1; i < info->horizon; i++) memcpy(values + i * info->n_actions, values, (size_t)info->n_actions * sizeof *values);
    *actions = (soma_actions){.values = values, .horizon = info->horizon, .n_actions = info->n_actions};
    c->held = true;
    return SOMA_OK;
}
