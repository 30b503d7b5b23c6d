// SPDX-License-Identifier: Apache-2.0
// A batch of observations as the inputs of SmolVLA's graphs: who sees whom, and where each token stands.
//
// Positions count valid tokens only. Blocks: pictures and prompt 0; the state 1, which sees them; then the actions one after the other,
// each seeing what came before and itself. Where they look at the prefix alone their positions begin at 0.
#include "model/flow.h"
#include "model/smolvla/smolvla.h"

#include <string.h>

enum { STATE = 1, FIRST_ACTION = 2 }; // blocks

static soma_status prepare_masks(const smolvla_config *c, const soma_batch *b, soma_feed *feed, soma_error *err) {
    static const char *const prefix_names[] = {"prefix.position", "prefix.q_block", "prefix.k_block"},
                             *const suffix_names[] = {"suffix.position", "suffix.q_block", "suffix.k_block"},
                             *const across_names[] = {"across.position", "across.q_block", "across.k_block"};
    const int64_t P = smolvla_prefix_len(c, b->saving), S = c->model.info.horizon, N = b->n * b->draws, keys = P + S;
    soma_flow_rows prefix, suffix, across;
    if (!soma__flow_rows(&prefix, feed, prefix_names, b->n, P, P) || !soma__flow_rows(&suffix, feed, suffix_names, N, S, keys) ||
        !soma__flow_rows(&across, feed, across_names, N, S, P))
        return soma__no_memory(err, "a batch's masks");
    for (int64_t row = 0; row < b->n; row++) {
        int32_t *k = prefix.k_block + row * P, *q = prefix.q_block + row * P, valid = 0;
        soma__flow_prefix(k, &c->model.info, b, row, smolvla_picture_len(c));
        k[P - 1] = STATE;
        for (int64_t i = 0; i < P; i++) {
            q[i] = i == P - 1 ? STATE : 0; // padded queries see the prefix too: finite, and nobody reads them
            valid += k[i] != SOMA_BLOCK_NEVER;
            prefix.pos[row * P + i] = valid - 1;
        }
        for (int64_t n = row * b->draws; n < (row + 1) * b->draws; n++) {
            memcpy(suffix.k_block + n * keys, k, sizeof *k * (size_t)P);
            memcpy(across.k_block + n * P, k, sizeof *k * (size_t)P);
            for (int64_t i = 0; i < S; i++) {
                const int32_t block = FIRST_ACTION + (int32_t)i;
                suffix.q_block[n * S + i] = across.q_block[n * S + i] = suffix.k_block[n * keys + P + i] = block;
                suffix.pos[n * S + i] = valid + (int32_t)i;
                across.pos[n * S + i] = (int32_t)i;
            }
        }
    }
    return SOMA_OK;
}

soma_status smolvla_prepare(const soma_model *model, const soma_batch *given, soma_feed *feed, soma_error *err) {
    const smolvla_config *c = (const smolvla_config *)model;
    soma_batch batch = *given, *b = &batch;
    if (!b->actions) b->draws = 1;
    SOMA_CHECK(b->n > 0 && b->draws > 0 && b->images && b->tokens && b->token_mask && b->state,
               "a batch has pictures, tokens and their mask, and the state");
    SOMA_TRY(soma__feed_observation(feed, &model->info, b, err));
    SOMA_TRY(prepare_masks(c, b, feed, err));
    return soma__flow_feed(feed, &model->info, b, err);
}
