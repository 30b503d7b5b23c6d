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
        for (int64_t i = 0; i < n; i++) *k_block++ = there ? 0 : SOMA_BLOCK_NEVER;
    }
    for (int64_t i = 0; i < L; i++) *k_block++ = b->token_mask[row * L + i] ? 0 : SOMA_BLOCK_NEVER;
}

static soma_status prepare_masks(const pi0_config *c, const soma_batch *b, soma_feed *feed, soma_error *err) {
    int64_t S = pi0_prefix_len(c), T = pi0_suffix_len(c), N = b->n * b->draws;
    int32_t *pos = soma__feed_own(feed, "prefix.position", sizeof *pos * (size_t)(b->n * S));
    int32_t *q_block = soma__feed_own(feed, "prefix.q_block", sizeof *pos * (size_t)(b->n * S));
    int32_t *k_block = soma__feed_own(feed, "prefix.k_block", sizeof *pos * (size_t)(b->n * S));
    int32_t *suffix_pos = soma__feed_own(feed, "suffix.position", sizeof *pos * (size_t)(N * T));
    int32_t *suffix_q = soma__feed_own(feed, "suffix.q_block", sizeof *pos * (size_t)(N * T));
    int32_t *suffix_k = soma__feed_own(feed, "suffix.k_block", sizeof *pos * (size_t)(N * (S + T)));
    if (!pos || !q_block || !k_block || !suffix_pos || !suffix_q || !suffix_k) return soma__no_memory(err, "a batch's masks");
    memset(q_block, 0, sizeof *q_block * (size_t)(b->n * S)); // padded queries see the prefix too: finite, and nobody reads them
    for (int64_t row = 0; row < b->n; row++) {
        int32_t *k = k_block + row * S, valid = 0;
        prefix_row(c, b, row, k);
        for (int64_t i = 0; i < S; i++) {
            valid += k[i] == 0;
            pos[row * S + i] = valid - 1;
        }
        for (int64_t n = row * b->draws; n < (row + 1) * b->draws; n++) {
            memcpy(suffix_k + n * (S + T), k, sizeof *k * (size_t)S);
            for (int64_t i = 0; i < T; i++) {
                int32_t block = c->pi05 || i == 0 ? 1 : 2;
                suffix_q[n * T + i] = suffix_k[n * (S + T) + S + i] = block;
                suffix_pos[n * T + i] = valid + (int32_t)i;
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
    int64_t L = info->max_tokens;
    for (int64_t i = 0; i < b->n * L; i++)
        if (b->token_mask[i] && (b->tokens[i] < 0 || b->tokens[i] >= info->vocab))
            return soma__fail(err, SOMA_BAD_INPUT, "token id %d at place %lld of the prompt: the model knows 0 to %lld", b->tokens[i],
                              (long long)(i % L), (long long)info->vocab - 1);
    SOMA_TRY(prepare_masks(c, b, feed, err));
    size_t pixels = (size_t)(b->n * info->n_cameras * info->image_size * info->image_size) * 3;
    soma__feed_borrow(feed, "images", b->images, pixels * soma_dtype_size(b->image_dtype));
    soma__feed_borrow(feed, "tokens", b->tokens, sizeof *b->tokens * (size_t)(b->n * L));
    if (info->state_input) soma__feed_borrow(feed, "state", b->state, sizeof *b->state * (size_t)(b->n * info->state_dim));
    if (!b->actions) return SOMA_OK;
    size_t chunk = sizeof(float) * (size_t)(info->horizon * info->action_dim), n = (size_t)b->n, N = (size_t)(b->n * b->draws);
    soma__feed_borrow(feed, "actions", b->actions, n * chunk);
    soma__feed_borrow(feed, "noise", b->noise, N * chunk);
    soma__feed_borrow(feed, "time", b->time, N * sizeof(float));
    return prepare_loss(c, b, feed, err);
}
