// SPDX-License-Identifier: Apache-2.0
// A batch of observations as the inputs of pi0's graphs: who sees whom, and where each token stands.
//
// Positions count valid tokens only: a masked camera or a padded prompt costs none, so a token's place depends on what precedes it and
// not on how much padding does. Blocks: prefix 0; then the state (pi0), then the actions, each seeing what came before and itself.
#include "model/pi0/pi0.h"

#include <string.h>

// One row of the prefix's keys: block 0 where there is something to see.
static void prefix_row(const pi0_config *c, const soma_batch *b, int64_t row, int32_t *k_block) {
    int64_t side = c->vision.image / c->vision.patch, n = side * side, C = c->model.info.n_cameras, L = c->model.info.max_tokens;
    for (int64_t cam = 0; cam < C; cam++) {
        bool there = !b->image_mask || b->image_mask[row * C + cam];
        for (int64_t i = 0; i < n && soma__looked_at(b->saving, cam); i++) *k_block++ = there ? 0 : SOMA_BLOCK_NEVER;
    }
    for (int64_t i = 0; i < pi0_n_tokens(c, b->saving); i++) *k_block++ = b->token_mask[row * L + i] ? 0 : SOMA_BLOCK_NEVER;
}

typedef struct mask {
    int32_t *pos, *q_block, *k_block;
} mask;

// The arrays "<name>.position" and "<name>.q_block" [rows, T], "<name>.k_block" [rows, keys].
static bool own_mask(mask *m, soma_feed *feed, const char *const names[3], int64_t rows, int64_t T, int64_t keys) {
    m->pos = soma__feed_own(feed, names[0], sizeof *m->pos * (size_t)(rows * T));
    m->q_block = soma__feed_own(feed, names[1], sizeof *m->pos * (size_t)(rows * T));
    m->k_block = soma__feed_own(feed, names[2], sizeof *m->pos * (size_t)(rows * keys));
    return m->pos && m->q_block && m->k_block;
}

static soma_status prepare_masks(const pi0_config *c, const soma_batch *b, soma_feed *feed, soma_error *err) {
    static const char *const prefix_names[] = {"prefix.position", "prefix.q_block", "prefix.k_block"},
                             *const state_names[] = {"state.position", "state.q_block", "state.k_block"},
                             *const suffix_names[] = {"suffix.position", "suffix.q_block", "suffix.k_block"};
    const int64_t S = pi0_prefix_len(c, b->saving), kept = pi0_kept_len(c, b->saving), P = S + kept, T = pi0_suffix_len(c, b->saving),
                  N = b->n * b->draws;
    mask prefix, state, suffix;
    if (!own_mask(&prefix, feed, prefix_names, b->n, S, S) || !own_mask(&suffix, feed, suffix_names, N, T, P + T) ||
        (kept && !own_mask(&state, feed, state_names, b->n, 1, P)))
        return soma__no_memory(err, "a batch's masks");
    memset(prefix.q_block, 0, sizeof(int32_t) * (size_t)(b->n * S)); // padded queries see the prefix too: finite, and nobody reads them
    for (int64_t row = 0; row < b->n; row++) {
        int32_t *k = prefix.k_block + row * S, valid = 0;
        prefix_row(c, b, row, k);
        for (int64_t i = 0; i < S; i++) {
            valid += k[i] == 0;
            prefix.pos[row * S + i] = valid - 1;
        }
        if (kept) {
            memcpy(state.k_block + row * P, k, sizeof *k * (size_t)S);
            state.q_block[row] = state.k_block[row * P + S] = 1;
            state.pos[row] = valid;
        }
        for (int64_t n = row * b->draws; n < (row + 1) * b->draws; n++) {
            int32_t *keys = suffix.k_block + n * (P + T);
            memcpy(keys, k, sizeof *k * (size_t)S);
            if (kept) keys[S] = 1;
            for (int64_t i = 0; i < T; i++) {
                int32_t block = c->pi05 || i + kept == 0 ? 1 : 2;
                suffix.q_block[n * T + i] = keys[P + i] = block;
                suffix.pos[n * T + i] = valid + (int32_t)(kept + i);
            }
        }
    }
    return SOMA_OK;
}

// Entries that count, as weights whose sum is one: the loss is a mean over them.
static soma_status prepare_loss(const pi0_config *c, const soma_batch *b, soma_feed *feed, soma_error *err) {
    int64_t row = c->model.info.horizon * c->model.info.action_dim, n = b->n * row, counted = 0;
    float *w = soma__feed_own(feed, "loss_weight", sizeof *w * (size_t)(n * b->draws));
    if (!w) return soma__no_memory(err, "a batch's loss weights");
    for (int64_t i = 0; i < n; i++) counted += !b->action_mask || b->action_mask[i];
    if (!counted) return soma__fail(err, SOMA_BAD_INPUT, "a training batch has no action that counts: every entry is masked");
    float each = (float)(1.0 / ((double)counted * (double)b->draws));
    for (int64_t i = 0; i < b->n; i++)
        for (int64_t r = 0; r < b->draws; r++)
            for (int64_t j = 0; j < row; j++) *w++ = !b->action_mask || b->action_mask[i * row + j] ? each : 0;
    return SOMA_OK;
}

soma_status pi0_prepare(const soma_model *model, const soma_batch *given, soma_feed *feed, soma_error *err) {
    const pi0_config *c = (const pi0_config *)model;
    const soma_model_info *info = &model->info;
    soma_batch batch = *given, *b = &batch;
    if (!b->actions) b->draws = 1;
    SOMA_CHECK(b->n > 0 && b->draws > 0 && b->images && b->tokens && b->token_mask, "a batch has pictures, tokens and their mask");
    SOMA_CHECK(!info->state_input || b->state, "this model needs the state");
    SOMA_TRY(soma__feed_observation(feed, info, b, err));
    SOMA_TRY(prepare_masks(c, b, feed, err));
    if (info->state_input) soma__feed_borrow(feed, "state", b->state, sizeof *b->state * (size_t)(b->n * info->state_dim));
    if (!b->actions) return SOMA_OK;
    size_t chunk = sizeof(float) * (size_t)(info->horizon * info->action_dim), n = (size_t)b->n, N = (size_t)(b->n * b->draws);
    soma__feed_borrow(feed, "actions", b->actions, n * chunk);
    soma__feed_borrow(feed, "noise", b->noise, N * chunk);
    soma__feed_borrow(feed, "time", b->time, N * sizeof(float));
    return prepare_loss(c, b, feed, err);
}
