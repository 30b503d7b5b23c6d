// SPDX-License-Identifier: Apache-2.0
// Diffusion Policy's graph. ENCODE makes one condition of all observations of the history: of each picture, where the key points of its
// ResNet's map are (spatial softmax), beside the states. DENOISE is the UNet and one step of the sampler, whose coefficients come from a
// table by the step's number. Weights: LeRobot's, name for name.
#include "model/diffusion/diffusion.h"

#include <math.h>
#include <stdio.h>

typedef struct builder {
    const diffusion_config *c;
    const soma_build *b;
    soma_graph *g;
    const soma_scope *root;
    int64_t B, R, V, G; // observations; draws; observations of each row's history; values of the condition
} builder;

// ---- pictures

// Where each key point is in maps [N, h, w, C]: softmax over the places, then the mean place, -1..1. [N, 2 K], x before y
static soma_tensor *key_points(const builder *m, const soma_scope *s, soma_tensor *maps, const char *taps) {
    const int64_t K = m->c->key_points, N = maps->shape[0], n = maps->n_dims == 4 ? maps->shape[1] * maps->shape[2] : 1;
    soma_tensor *grid = soma_input(m->g, "grid", SOMA_F32, 2, (int64_t[]){2, n});
    soma_tensor *x = soma_conv_2d(s, "nets", maps, K, 1, 1, 0, true); // [N, h, w, K]
    if (taps) soma_tap_picture(x, "%s.pool.nets", taps);
    x = soma_softmax(soma_contiguous(soma_transpose(soma_reshape(x, 3, (int64_t[]){N, n, K})))); // [N, K, n]
    x = soma_matmul(x, grid, NULL, SOMA_F32);                                                    // [N, K, 2]
    if (taps) soma_tap(x, "%s.pool", taps);
    return soma_reshape(x, 2, (int64_t[]){N, 2 * K});
}

static soma_tensor *encode(const builder *m, const soma_scope *s, soma_tensor *x, const char *taps) { // [N, H, W, 3] -> [N, 2 K]
    char inner[96];
    snprintf(inner, sizeof inner, "%s.backbone", taps ? taps : "");
    soma_tensor *maps = soma_resnet(soma_scope_in(s, "backbone"), x, &m->c->backbone, taps ? inner : NULL);
    x = soma_linear(s, "out", key_points(m, soma_scope_in(s, "pool"), maps, taps), 2 * m->c->key_points, true);
    if (taps) soma_tap(x, "%s.out", taps);
    return soma_apply(x, SOMA_UNARY_RELU);
}

static soma_tensor *encode_pictures(const builder *m) { // [B V, C 2 K]
    const diffusion_config *c = m->c;
    const int64_t C = c->model.info.n_cameras, H = diffusion_height(c), W = diffusion_width(c), N = m->B * m->V;
    const bool tapped = m->g->keep_taps && m->b->program == SOMA_PROGRAM_ENCODE;
    soma_tensor *x = soma__picture_input(m->g, m->b->image, N * C, H, W), *parts[SOMA_MODEL_CAMERAS];
    if (!c->own_encoders)
        return soma_reshape(encode(m, soma_scope_in(m->root, "rgb_encoder"), x, tapped && C == 1 ? "infer.rgb_encoder" : NULL), 2,
                            (int64_t[]){N, C * 2 * c->key_points});
    x = soma_reshape(x, 5, (int64_t[]){N, C, H, W, 3});
    for (int i = 0; i < C; i++) {
        soma_tensor *own = soma_reshape(soma_slice(x, 1, i, 1), 4, (int64_t[]){N, H, W, 3});
        parts[i] = encode(m, soma_scope_in(m->root, "rgb_encoder.%d", i), own, tapped && !i ? "infer.rgb_encoder.0" : NULL);
    }
    return soma_concat(parts, (int)C, 1);
}

// [B, G]: observation after observation of the history its state and its pictures
static soma_tensor *condition(const builder *m) {
    const int64_t N = m->c->model.info.state_dim, rows = m->B * m->V;
    soma_tensor *state = soma_input(m->g, "state", SOMA_F32, 3, (int64_t[]){m->B, m->V, N});
    soma_tensor *all = soma_concat((soma_tensor *[]){soma_reshape(state, 2, (int64_t[]){rows, N}), encode_pictures(m)}, 2, 1);
    return soma_reshape(all, 2, (int64_t[]){m->B, m->G});
}

// ---- the programs

static soma_tensor *kept(const builder *m) { return soma_state(m->g, "condition", SOMA_F32, 2, (int64_t[]){m->B, m->G}); }

// Column i of rows [N, columns], to be broadcast over chunks: [N, 1, 1].
static soma_tensor *column(soma_tensor *rows, int i) {
    return soma_reshape(soma_slice(rows, 1, i, 1), 3, (int64_t[]){rows->shape[0], 1, 1});
}

// To -range..range, as PyTorch's clamp.
static soma_tensor *clip(soma_tensor *x, float range) {
    x = soma_apply(soma_affine(x, 1, range), SOMA_UNARY_RELU);      // from below
    x = soma_apply(soma_affine(x, -1, 2 * range), SOMA_UNARY_RELU); // from above, mirrored
    return soma_affine(x, -1, range);
}

static void build_denoise(const builder *m) {
    const diffusion_config *c = m->c;
    const soma_model_info *info = &c->model.info;
    const int64_t B = m->B, S = info->horizon, A = info->action_dim, steps = m->b->saving ? m->b->saving->steps : info->n_steps;
    soma_tensor *x = soma_input(m->g, "x_t", SOMA_F32, 3, (int64_t[]){B, S, A}), *step = soma_input(m->g, "step", SOMA_I32, 1, &B);
    soma_tensor *table = soma_input(m->g, "sampler", SOMA_F32, 2, (int64_t[]){steps, sizeof(diffusion_step) / sizeof(float)});
    soma_tensor *now = soma_embed(table, step); // [B, 8]
    soma_tensor *t = soma_reshape(soma_slice(now, 1, 0, 1), 1, &B);
    soma_tensor *said = soma_unet(soma_scope_in(m->root, "unet"), x, t, kept(m), &c->unet, m->g->keep_taps ? "infer.unet.step0" : NULL);
    soma_output(said, "v_t");
    soma_tensor *x_0 = soma_add(soma_mul(x, column(now, 1)), soma_mul(said, column(now, 2)));
    if (c->clip) x_0 = clip(x_0, (float)c->clip_range);
    soma_tensor *next = soma_add(soma_mul(x_0, column(now, 3)), soma_add(soma_mul(x, column(now, 4)), soma_mul(said, column(now, 5))));
    if (info->step_noise) {
        soma_tensor *noise = soma_input(m->g, "step_noise", SOMA_F32, 2, (int64_t[]){steps, B * S * A});
        noise = soma_reshape(soma_embed(noise, soma_slice(step, 0, 0, 1)), 3, (int64_t[]){B, S, A}); // all rows are at one step
        next = soma_add(next, soma_mul(noise, column(now, 6)));
    }
    soma_output(next, "x_next");
}

// Noise of a drawn step is added to the chunk; the net learns the noise (or the chunk).
static void build_train(const builder *m) {
    const diffusion_config *c = m->c;
    const int64_t N = m->B * m->R, S = c->model.info.horizon, A = c->model.info.action_dim, chunk[] = {N, S, A};
    soma_tensor *actions = soma_repeat_rows(soma_input(m->g, "actions", SOMA_F32, 3, (int64_t[]){m->B, S, A}), m->R);
    soma_tensor *noise = soma_input(m->g, "noise", SOMA_F32, 3, chunk), *weight = soma_input(m->g, "loss_weight", SOMA_F32, 3, chunk);
    soma_tensor *t = soma_input(m->g, "timestep", SOMA_F32, 1, &N);
    soma_tensor *shares = soma_embed(soma_input(m->g, "shares", SOMA_F32, 2, (int64_t[]){c->train_steps, 2}), soma_cast(t, SOMA_I32));
    soma_tensor *x = soma_add(soma_mul(actions, column(shares, 0)), soma_mul(noise, column(shares, 1)));
    soma_tap(x, "train.noisy");
    soma_tensor *cond = soma_repeat_rows(condition(m), m->R);
    soma_tensor *said = soma_unet(soma_scope_in(m->root, "unet"), x, t, cond, &c->unet, m->g->keep_taps ? "train.unet" : NULL);
    soma_tap(said, "train.pred");
    soma_tensor *off = soma_apply(soma_sub(said, c->predicts_actions ? actions : noise), SOMA_UNARY_SQUARE);
    soma_output(soma_affine(soma_reshape(soma_sum(soma_mul(off, weight), 7), 1, (int64_t[]){1}), 1, 0), "loss");
}

static void build_encode(const builder *m) {
    soma_tensor *cond = condition(m);
    soma_tap(cond, "infer.global_cond");
    soma_store(cond, kept(m));
}

void diffusion_build(const soma_model *model, const soma_build *b, soma_graph *graph) {
    const diffusion_config *c = (const diffusion_config *)model;
    const soma_precision f32 = SOMA_PRECISION_F32;
    // norms, the step's embedding, what makes places of key points, and the last layer, whose result is fed back
    const soma_precision_rule rules[] = {{"*", b->precision},     {"*.bn?", f32},     {"*.backbone.1", f32},
                                         {"*.downsample.1", f32}, {"*.block.1", f32}, {"*step_encoder*", f32},
                                         {"*.pool*", f32},        {"*.out", f32},     {"*.final_conv.1", f32}};
    const soma_scope_spec spec = soma__build_scopes(b, rules, SOMA_COUNT(rules));
    const soma_scope root = soma_scope_root(graph, &spec);
    const soma_model_info *info = &model->info;
    const builder m = {.c = c,
                       .b = b,
                       .g = graph,
                       .root = soma_scope_in(&root, "diffusion"),
                       .B = b->batch,
                       .R = b->program == SOMA_PROGRAM_TRAIN ? b->draws : 1,
                       .V = 1 + info->history,
                       .G = (1 + info->history) * (info->state_dim + info->n_cameras * 2 * c->key_points)};
    switch (b->program) {
    case SOMA_PROGRAM_ENCODE: build_encode(&m); break;
    case SOMA_PROGRAM_DENOISE: build_denoise(&m); break;
    case SOMA_PROGRAM_TRAIN: build_train(&m); break;
    case SOMA_PROGRAM_DECODE: soma__mistake(graph, "Diffusion Policy writes no tokens"); break;
    case SOMA_PROGRAM_SCHEDULE: break; // the sampler's table is an input
    }
}
