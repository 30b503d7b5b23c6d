// SPDX-License-Identifier: Apache-2.0
// A batch of observations as the inputs of ACT's graphs.
#include "model/act/act.h"

#include "base/rng.h"

#include <string.h>

// Place i of n as the 2-D positions count: from 2 pi / n to 2 pi.
static soma_status feed_places(soma_feed *feed, const char *name, int64_t n, soma_error *err) {
    float *at = soma__feed_own(feed, name, sizeof *at * (size_t)n);
    if (!at) return soma__no_memory(err, "a batch's positions");
    for (int64_t i = 0; i < n; i++) at[i] = (float)((double)(i + 1) / ((double)n + 1e-6) * 6.283185307179586);
    return SOMA_OK;
}

// The chunk's encoder sees a class token, the state and the actions up to the episode's end.
static soma_status feed_chunk(soma_feed *feed, const act_config *c, const soma_batch *b, soma_error *err) {
    const int64_t S = c->model.info.horizon, T = S + 2;
    float *at = soma__feed_own(feed, "vae.position", sizeof *at * (size_t)T),
          *noise = soma__feed_own(feed, "latent_noise", sizeof *noise * (size_t)(b->n * c->latent));
    int32_t *q = soma__feed_own(feed, "vae.q_block", sizeof *q * (size_t)(b->n * T)),
            *k = soma__feed_own(feed, "vae.k_block", sizeof *k * (size_t)(b->n * T));
    if (!at || !noise || !q || !k) return soma__no_memory(err, "a batch's chunks");
    for (int64_t t = 0; t < T; t++) at[t] = (float)t;
    for (int64_t i = 0; i < b->n * T; i++) {
        q[i] = 0;
        k[i] = i % T >= 2 && b->action_pad && b->action_pad[i / T * S + i % T - 2] ? SOMA_BLOCK_NEVER : 0;
    }
    soma_rng rng = soma__rng(b->seed);
    soma__rng_normals(&rng, noise, (size_t)(b->n * c->latent));
    return SOMA_OK;
}

static soma_status feed_dropout(soma_feed *feed, const soma_batch *b, soma_error *err) {
    const soma_rng all = soma__rng(b->seed), own = soma__rng_fold(&all, 1); // beside the latent's noise
    int32_t *key = soma__feed_own(feed, "dropout.key", 2 * sizeof *key);
    if (!key) return soma__no_memory(err, "a batch's dropout");
    memcpy(key, &own.key, sizeof own.key);
    return SOMA_OK;
}

soma_status act_prepare(const soma_model *model, const soma_batch *b, soma_feed *feed, soma_error *err) {
    const act_config *c = (const act_config *)model;
    const soma_model_info *info = &model->info;
    SOMA_CHECK(b->n > 0 && b->images && b->state, "a batch has pictures and a state");
    SOMA_TRY(soma__feed_pictures(feed, info, &c->pictures, NULL, b, err));
    SOMA_TRY(feed_places(feed, "map.row", soma_resnet_side(info->image_size), err));
    SOMA_TRY(feed_places(feed, "map.column", soma_resnet_side(soma__image_width(info)), err));
    soma__feed_borrow(feed, "state", b->state, sizeof *b->state * (size_t)(b->n * info->state_dim));
    if (!b->actions) return SOMA_OK;
    soma__feed_borrow(feed, "actions", b->actions, sizeof *b->actions * (size_t)(b->n * info->horizon * info->action_dim));
    SOMA_TRY(soma__feed_loss_weights(feed, info, b, 1, true, err));
    SOMA_TRY(feed_dropout(feed, b, err));
    return c->vae ? feed_chunk(feed, c, b, err) : SOMA_OK;
}
