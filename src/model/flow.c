// SPDX-License-Identifier: Apache-2.0
// Flow matching as openpi and LeRobot's policies have it.
#include "model/flow.h"

#include <math.h>
#include <stdio.h>

// ---- graphs

soma_flow_lesson soma__flow_lesson(soma_graph *g, const soma_model_info *info, int64_t B, int64_t R) {
    const int64_t S = info->horizon, A = info->action_dim, N = B * R;
    soma_tensor *actions = soma_repeat_rows(soma_input(g, "actions", SOMA_F32, 3, (int64_t[]){B, S, A}), R); // [N, S, A]
    soma_tensor *noise = soma_input(g, "noise", SOMA_F32, 3, (int64_t[]){N, S, A});
    soma_flow_lesson l = {.weight = soma_input(g, "loss_weight", SOMA_F32, 3, (int64_t[]){N, S, A}),
                          .time = soma_input(g, "time", SOMA_F32, 1, (int64_t[]){N * soma__flow_each(info)})};
    soma_tensor *t = soma_reshape(l.time, 3, (int64_t[]){N, soma__flow_each(info), 1});
    l.x_t = soma_tap(soma_add(soma_mul(t, noise), soma_mul(soma_affine(t, -1, 1), actions)), "train.x_t");
    l.velocity = soma_sub(noise, actions);
    return l;
}

void soma__flow_loss(const soma_flow_lesson *l, soma_tensor *v) {
    soma_tap(v, "train.v_t");
    soma_tensor *off = soma_tap(soma_apply(soma_sub(v, l->velocity), SOMA_UNARY_SQUARE), "train.loss_elementwise"); // [N, S, A]
    soma_tensor *loss = soma_reshape(soma_sum(soma_mul(off, l->weight), 7), 1, (int64_t[]){1});
    soma_output(soma_affine(loss, 1, 0), "loss");
}

soma_flow_step soma__flow_step(soma_graph *g, const soma_model_info *info, const soma_saving *saving, int64_t B) {
    const int64_t n = B * soma__flow_each(info);
    return (soma_flow_step){.x_t = soma_input(g, "x_t", SOMA_F32, 3, (int64_t[]){B, info->horizon, info->action_dim}),
                            .time = saving ? NULL : soma_input(g, "time", SOMA_F32, 1, &n),
                            .step = saving ? soma_input(g, "step", SOMA_I32, 1, &n) : NULL,
                            .dt = soma_input(g, "dt", SOMA_F32, 1, (int64_t[]){1})};
}

void soma__flow_step_end(const soma_flow_step *s, soma_tensor *v) {
    soma_output(v, "v_t");
    soma_output(soma_add(s->x_t, soma_mul(v, s->dt)), "x_next");
}

soma_tensor *soma__flow_times(soma_graph *g, int64_t steps, int64_t D) {
    return soma_state(g, "time.embedding", SOMA_F32, 2, (int64_t[]){steps, D});
}

soma_tensor *soma__flow_tokens(const soma_scope *root, soma_tensor *x_t, soma_tensor *emb, int64_t D) {
    const int64_t N = x_t->shape[0], S = x_t->shape[1];
    soma_tensor *tok = soma_linear(root, "action_in_proj", x_t, D, true); // [N, S, D]
    emb = soma_expand(soma_reshape(emb, 3, (int64_t[]){N, 1, D}), 3, (int64_t[]){N, S, D});
    tok = soma_concat((soma_tensor *[]){tok, emb}, 2, 2); // [N, S, 2D]: action first, time second
    tok = soma_apply(soma_linear(root, "action_time_mlp_in", tok, D, true), SOMA_UNARY_SILU);
    return soma_linear(root, "action_time_mlp_out", tok, D, true); // [N, S, D]
}

// It starts small: an untrained policy's first guess is "no movement of the noise", not a large random one.
soma_tensor *soma__flow_velocity(const soma_scope *root, soma_tensor *h, int64_t A) {
    return soma_linear_init(root, "action_out_proj", h, A, true, soma_init_normal(0.1 / sqrt((double)h->shape[h->n_dims - 1])));
}

void soma__flow_mask(soma_graph *g, soma_stream *s, const char *name, int64_t B, int64_t T, int64_t keys) {
    char full[32];
    snprintf(full, sizeof full, "%s.position", name);
    s->pos = soma_input(g, full, SOMA_I32, 2, (int64_t[]){B, T});
    snprintf(full, sizeof full, "%s.q_block", name);
    s->mask.q_block = soma_input(g, full, SOMA_I32, 2, (int64_t[]){B, T});
    snprintf(full, sizeof full, "%s.k_block", name);
    s->mask.k_block = soma_input(g, full, SOMA_I32, 2, (int64_t[]){B, keys});
}

// ---- batches

bool soma__flow_rows(soma_flow_rows *rows, soma_feed *feed, const char *const names[3], int64_t n, int64_t T, int64_t keys) {
    rows->pos = soma__feed_own(feed, names[0], sizeof *rows->pos * (size_t)(n * T));
    rows->q_block = soma__feed_own(feed, names[1], sizeof *rows->pos * (size_t)(n * T));
    rows->k_block = soma__feed_own(feed, names[2], sizeof *rows->pos * (size_t)(n * keys));
    return rows->pos && rows->q_block && rows->k_block;
}

void soma__flow_prefix(int32_t *k_block, const soma_model_info *info, const soma_batch *b, int64_t row, int64_t each) {
    const int64_t C = info->n_cameras, L = info->max_tokens, n = soma__saved_tokens(info, b->saving);
    for (int64_t cam = 0; cam < C; cam++) {
        bool there = !b->image_mask || b->image_mask[row * C + cam];
        for (int64_t i = 0; i < each && soma__looked_at(b->saving, cam); i++) *k_block++ = there ? 0 : SOMA_BLOCK_NEVER;
    }
    for (int64_t i = 0; i < n; i++) *k_block++ = b->token_mask[row * L + i] ? 0 : SOMA_BLOCK_NEVER;
}

static soma_status feed_weights(soma_feed *feed, const soma_model_info *info, const soma_batch *b, soma_error *err) {
    const int64_t S = info->horizon, A = info->action_dim, each = soma__flow_each(info), n = b->n * b->draws * S;
    int64_t counted = 0;
    float *w = soma__feed_own(feed, "loss_weight", sizeof *w * (size_t)(n * A));
    if (!w) return soma__no_memory(err, "a batch's loss weights");
    for (int64_t i = 0; i < n; i++) { // an action of a draw
        const int64_t row = i / S, s = i % S;
        const uint8_t *mask = b->action_mask ? b->action_mask + (row / b->draws * S + s) * A : NULL;
        const bool given = each > 1 && b->time[row * S + s] == 0;
        for (int64_t j = 0; j < A; j++) counted += w[i * A + j] = !given && (!mask || mask[j]);
    }
    if (!counted) return soma__fail(err, SOMA_BAD_INPUT, "a training batch has no action that counts: every entry is masked");
    const float one = (float)(1.0 / (double)counted);
    for (int64_t i = 0; i < n * A; i++) w[i] *= one;
    return SOMA_OK;
}

soma_status soma__flow_feed(soma_feed *feed, const soma_model_info *info, const soma_batch *b, soma_error *err) {
    if (info->state_input) soma__feed_borrow(feed, "state", b->state, sizeof *b->state * (size_t)(b->n * info->state_dim));
    if (!b->actions) return SOMA_OK;
    size_t chunk = sizeof(float) * (size_t)(info->horizon * info->action_dim), n = (size_t)b->n, N = (size_t)(b->n * b->draws);
    soma__feed_borrow(feed, "actions", b->actions, n * chunk);
    soma__feed_borrow(feed, "noise", b->noise, N * chunk);
    soma__feed_borrow(feed, "time", b->time, N * (size_t)soma__flow_each(info) * sizeof(float));
    return feed_weights(feed, info, b, err);
}
