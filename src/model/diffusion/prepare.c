// SPDX-License-Identifier: Apache-2.0
// A batch of observations as the inputs of Diffusion Policy's graphs.
#include "model/diffusion/diffusion.h"

#include "base/rng.h"

#include <math.h>
#include <string.h>

void diffusion_place(const diffusion_config *c, int64_t i, float *x, float *y) {
    const int64_t h = soma_resnet_side(diffusion_height(c)), w = soma_resnet_side(diffusion_width(c));
    *x = w > 1 ? (float)(-1 + 2 * (double)(i % w) / (double)(w - 1)) : -1;
    *y = h > 1 ? (float)(-1 + 2 * (double)(i / w) / (double)(h - 1)) : -1;
}

// x [n], then y [n].
static soma_status feed_grid(soma_feed *feed, const diffusion_config *c, soma_error *err) {
    const int64_t n = diffusion_places(c);
    float *grid = soma__feed_own(feed, "grid", sizeof *grid * (size_t)(2 * n));
    if (!grid) return soma__no_memory(err, "a batch's grid");
    for (int64_t i = 0; i < n; i++) diffusion_place(c, i, &grid[i], &grid[n + i]);
    return SOMA_OK;
}

static soma_status feed_sampler(soma_feed *feed, const diffusion_config *c, const soma_batch *b, const float *alphas, soma_error *err) {
    const soma_model_info *info = &c->model.info;
    const int64_t n = b->saving ? b->saving->steps : info->n_steps;
    if (n > c->train_steps)
        return soma__fail(err, SOMA_BAD_INPUT, "%lld steps: the diffusion has %lld", (long long)n, (long long)c->train_steps);
    diffusion_step *steps = soma__feed_own(feed, "sampler", sizeof *steps * (size_t)n);
    if (!steps) return soma__no_memory(err, "a sampler's steps");
    diffusion_steps(steps, n, c, alphas);
    if (info->step_noise && b->step_noise)
        soma__feed_borrow(feed, "step_noise", b->step_noise, sizeof(float) * (size_t)(n * b->n * info->horizon * info->action_dim));
    return SOMA_OK;
}

// Of each (noise, step) pair the step is drawn here.
static soma_status feed_lesson(soma_feed *feed, const diffusion_config *c, const soma_batch *b, const float *alphas, soma_error *err) {
    const soma_model_info *info = &c->model.info;
    const int64_t S = info->horizon, A = info->action_dim, N = b->n * b->draws;
    float *t = soma__feed_own(feed, "timestep", sizeof *t * (size_t)N),
          *shares = soma__feed_own(feed, "shares", sizeof *shares * (size_t)(2 * c->train_steps));
    if (!t || !shares) return soma__no_memory(err, "a training batch");
    soma_rng rng = soma__rng(b->seed);
    for (int64_t i = 0; i < N; i++) t[i] = (float)soma__rng_below(&rng, (uint64_t)c->train_steps);
    for (int64_t i = 0; i < c->train_steps; i++) {
        shares[2 * i] = sqrtf(alphas[i]);
        shares[2 * i + 1] = sqrtf(1 - alphas[i]);
    }
    soma__feed_borrow(feed, "actions", b->actions, sizeof(float) * (size_t)(b->n * S * A));
    soma__feed_borrow(feed, "noise", b->noise, sizeof(float) * (size_t)(N * S * A));
    return soma__feed_loss_weights(feed, info, b, b->draws, c->mask_padding, err);
}

soma_status diffusion_prepare(const soma_model *model, const soma_batch *b, soma_feed *feed, soma_error *err) {
    const diffusion_config *c = (const diffusion_config *)model;
    const soma_model_info *info = &model->info;
    SOMA_CHECK(b->n > 0 && b->images && b->state, "a batch has pictures and a state");
    float *alphas = soma__feed_own(feed, "alphas", sizeof *alphas * (size_t)c->train_steps);
    if (!alphas) return soma__no_memory(err, "a diffusion's steps");
    diffusion_alphas(alphas, c);
    SOMA_TRY(soma__feed_pictures(feed, info, &c->pictures, &c->crop, b, err));
    SOMA_TRY(feed_grid(feed, c, err));
    soma__feed_borrow(feed, "state", b->state, sizeof *b->state * (size_t)(b->n * (1 + info->history) * info->state_dim));
    SOMA_TRY(feed_sampler(feed, c, b, alphas, err));
    return b->actions ? feed_lesson(feed, c, b, alphas, err) : SOMA_OK;
}
