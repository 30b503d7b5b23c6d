// SPDX-License-Identifier: Apache-2.0
// A batch of observations as the inputs of pi0-FAST's graphs: who sees whom, where each token stands, which tokens are learned.
//
// Positions count valid tokens only. Blocks: pictures and prompt 0; the answer's tokens 1, 2, 3 .. one after the other.
#include "model/pi0_fast/pi0_fast.h"

#include <string.h>

typedef struct sizes {
    int64_t B, P, L, S, G, row; // observations; tokens of pictures; text; both; of an answer; text tokens of a row of the batch
} sizes;

static sizes sizes_of(const pi0_fast_config *c, const soma_batch *b) {
    sizes z = {.B = b->n,
               .P = pi0_fast_pictures(c, b->saving),
               .L = pi0_fast_tokens(c, b->n_tokens, b->saving, b->token_causal),
               .row = pi0_fast_tokens(c, b->n_tokens, NULL, b->token_causal),
               .G = c->model.info.answer.max};
    z.S = z.P + z.L;
    return z;
}

// One row's blocks and positions, one token after the other.
typedef struct walk {
    int32_t *pos, *q, *k;
    int32_t valid, block; // tokens so far that are there; the block that the next one belongs to
} walk;

static void step(walk *w, bool there) {
    w->valid += there;
    *w->pos++ = w->valid - 1;
    *w->q++ = w->block; // padded queries see what stands before them: they are finite, and nobody reads them
    *w->k++ = there ? w->block : SOMA_BLOCK_NEVER;
}

// Returns how many tokens are there.
static int32_t fill_row(const pi0_fast_config *c, const soma_batch *b, const sizes *z, int64_t row, walk w) {
    const int64_t C = c->model.info.n_cameras, side = c->vision.image / c->vision.patch;
    for (int64_t camera = 0; camera < C; camera++)
        for (int64_t i = 0; i < side * side && soma__looked_at(b->saving, camera); i++)
            step(&w, !b->image_mask || b->image_mask[row * C + camera]);
    for (int64_t t = row * z->row; t < row * z->row + z->L; t++) {
        w.block += b->token_causal && b->token_causal[t];
        step(&w, b->token_mask[t]);
    }
    return w.valid;
}

static soma_status prepare_masks(const pi0_fast_config *c, const soma_batch *b, const sizes *z, soma_feed *feed, soma_error *err) {
    size_t n = sizeof(int32_t) * (size_t)(z->B * z->S), each = sizeof(int32_t) * (size_t)z->B;
    int32_t *pos = soma__feed_own(feed, "position", n), *q = soma__feed_own(feed, "q_block", n), *k = soma__feed_own(feed, "k_block", n);
    int32_t *last = soma__feed_own(feed, "last", each), *last_pos = soma__feed_own(feed, "last.position", each);
    int32_t *row = soma__feed_own(feed, "cache.row", each), *cache_pos = soma__feed_own(feed, "cache.position", each);
    int32_t *cache_k = soma__feed_own(feed, "cache.k_block", sizeof *cache_k * (size_t)(z->B * (z->S + z->G)));
    if (!pos || !q || !k || !last || !last_pos || !row || !cache_pos || !cache_k) return soma__no_memory(err, "a batch's masks");
    for (int64_t i = 0; i < z->B; i++) {
        int32_t *keys = k + i * z->S, *cached = cache_k + i * (z->S + z->G);
        int32_t valid = fill_row(c, b, z, i, (walk){pos + i * z->S, q + i * z->S, keys, 0, 0}), at = 0;
        for (int32_t t = 0; t < (int32_t)z->S; t++)
            if (keys[t] != SOMA_BLOCK_NEVER) at = t;
        last[i] = (int32_t)(i * z->S) + at;
        last_pos[i] = valid - 1;
        row[i] = (int32_t)z->S; // where the first written token goes, and where it stands
        cache_pos[i] = valid + (int32_t)c->model.info.answer.gap;
        memcpy(cached, keys, sizeof *keys * (size_t)z->S);
        for (int64_t g = 0; g < z->G; g++) cached[z->S + g] = SOMA_BLOCK_NEVER;
    }
    return SOMA_OK;
}

// Slot i learns token i + 1. openpi takes the mean of each row's mean, LeRobot the mean over the batch's tokens.
static soma_status prepare_loss(const pi0_fast_config *c, const soma_batch *b, const sizes *z, soma_feed *feed, soma_error *err) {
    int32_t *target = soma__feed_own(feed, "target", sizeof *target * (size_t)(z->B * z->L));
    float *weight = soma__feed_own(feed, "loss_weight", sizeof *weight * (size_t)(z->B * z->L));
    if (!target || !weight) return soma__no_memory(err, "a batch's targets");
    int64_t all = 0;
    for (int64_t i = 0; i < z->B * z->L; i++) all += i % z->L && b->token_loss[i];
    for (int64_t r = 0; r < z->B; r++) {
        const uint8_t *learn = b->token_loss + r * z->L;
        int64_t own = 0;
        for (int64_t i = 1; i < z->L; i++) own += learn[i] != 0;
        if (!own) return soma__fail(err, SOMA_BAD_INPUT, "row %lld of a training batch has no token to learn", (long long)r);
        double each = c->model.info.answer.lerobot ? 1.0 / (double)all : 1.0 / ((double)own * (double)z->B);
        for (int64_t i = 0; i < z->L; i++) {
            bool inside = i + 1 < z->L;
            target[r * z->L + i] = inside ? b->tokens[r * z->L + i + 1] : -1;
            weight[r * z->L + i] = inside && learn[i + 1] ? (float)each : 0;
        }
    }
    return SOMA_OK;
}

soma_status pi0_fast_prepare(const soma_model *model, const soma_batch *b, soma_feed *feed, soma_error *err) {
    const pi0_fast_config *c = (const pi0_fast_config *)model;
    const sizes z = sizes_of(c, b);
    SOMA_CHECK(b->n > 0 && b->images && b->tokens && b->token_mask, "a batch has pictures, tokens and their mask");
    SOMA_CHECK(!b->token_causal || b->token_loss, "an answer to learn from says which of its tokens count");
    SOMA_TRY(soma__feed_observation(feed, &model->info, b, err));
    SOMA_TRY(prepare_masks(c, b, &z, feed, err));
    return b->token_causal ? prepare_loss(c, b, &z, feed, err) : SOMA_OK;
}
