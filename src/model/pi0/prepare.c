// SPDX-License-Identifier: Apache-2.0
// A batch of observations as the inputs of pi0's graphs: who sees whom, and where each token stands.
//
// Positions count valid tokens only: a masked camera or a padded prompt costs none, so a token's place depends on what precedes it and
// not on how much padding does. Blocks: prefix 0; then the state (pi0), then the actions, each seeing what came before and itself.
#include "model/flow.h"
#include "model/pi0/pi0.h"

#include <string.h>

static soma_status prepare_masks(const pi0_config *c, const soma_batch *b, soma_feed *feed, soma_error *err) {
    static const char *const prefix_names[] = {"prefix.position", "prefix.q_block", "prefix.k_block"},
                             *const state_names[] = {"state.position", "state.q_block", "state.k_block"},
                             *const suffix_names[] = {"suffix.position", "suffix.q_block", "suffix.k_block"};
    const int64_t S = pi0_prefix_len(c, b->saving), kept = pi0_kept_len(c, b->saving), P = S + kept, T = pi0_suffix_len(c, b->saving),
                  N = b->n * b->draws, side = c->vision.image / c->vision.patch;
    soma_flow_rows prefix, state, suffix;
    if (!soma__flow_rows(&prefix, feed, prefix_names, b->n, S, S) || !soma__flow_rows(&suffix, feed, suffix_names, N, T, P + T) ||
        (kept && !soma__flow_rows(&state, feed, state_names, b->n, 1, P)))
        return soma__no_memory(err, "a batch's masks");
    memset(prefix.q_block, 0, sizeof(int32_t) * (size_t)(b->n * S)); // padded queries see the prefix too: finite, and nobody reads them
    for (int64_t row = 0; row < b->n; row++) {
        int32_t *k = prefix.k_block + row * S, valid = 0;
        soma__flow_prefix(k, &c->model.info, b, row, side * side);
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

soma_status pi0_prepare(const soma_model *model, const soma_batch *given, soma_feed *feed, soma_error *err) {
    const pi0_config *c = (const pi0_config *)model;
    const soma_model_info *info = &model->info;
    soma_batch batch = *given, *b = &batch;
    if (!b->actions) b->draws = 1;
    SOMA_CHECK(b->n > 0 && b->draws > 0 && b->images && b->tokens && b->token_mask, "a batch has pictures, tokens and their mask");
    SOMA_CHECK(!info->state_input || b->state, "this model needs the state");
    SOMA_TRY(soma__feed_observation(feed, info, b, err));
    SOMA_TRY(prepare_masks(c, b, feed, err));
    return soma__flow_feed(feed, info, b, err);
}
