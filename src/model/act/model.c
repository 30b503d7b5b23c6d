// SPDX-License-Identifier: Apache-2.0
// ACT's graph. A ResNet makes tokens of every picture; with a latent and the state they are the memory of a transformer encoder; a decoder
// of learned queries, one for each action, reads the chunk out of it. In training a second encoder (the CVAE's) makes the latent of the
// chunk that is to be learned; acting takes zeros, its prior's mean.
//
// TRAIN drops values in the transformers as LeRobot's does, where the build asks for it.
//
// ENCODE leaves the memory, DENOISE is the decoder, once. Weights: LeRobot's, name for name.
#include "model/act/act.h"

#include <math.h>
#include <stdio.h>

typedef struct builder {
    const act_config *c;
    const soma_build *b;
    soma_graph *g;
    const soma_scope *root;
    const char *run; // begins the taps' names: "infer" or "train"
    act_layer layer;
    int64_t B, D, h, w, T; // observations; width; a camera's map; tokens of the memory
} builder;

// ---- positions

// Sines and cosines of positions [n], alternating: [n, D], period i being 2 pi 10000^(2 i / D).
static soma_tensor *sinusoid(soma_tensor *positions, int64_t D) {
    const double turn = 2 * 3.141592653589793;
    const int64_t n = positions->shape[0];
    soma_tensor *e = soma_time_embed(positions, D, turn, turn * pow(10000, (double)(D - 2) / (double)D)); // sines, then cosines
    e = soma_permute(soma_reshape(e, 3, (int64_t[]){n, 2, D / 2}), (int[]){0, 2, 1});
    return soma_reshape(e, 2, (int64_t[]){n, D});
}

// Of a camera's map, row-major: half of the width says the row, half the column. [h w, D]
static soma_tensor *map_positions(const builder *m) {
    const int64_t half = m->D / 2, wide[] = {m->h, m->w, half};
    soma_tensor *y = sinusoid(soma_input(m->g, "map.row", SOMA_F32, 1, &m->h), half),
                *x = sinusoid(soma_input(m->g, "map.column", SOMA_F32, 1, &m->w), half);
    y = soma_expand(soma_reshape(y, 3, (int64_t[]){m->h, 1, half}), 3, wide);
    x = soma_expand(soma_reshape(x, 3, (int64_t[]){1, m->w, half}), 3, wide);
    soma_tensor *pos = soma_concat((soma_tensor *[]){y, x}, 2, 2); // [h, w, D]
    soma_tap_picture(soma_reshape(pos, 4, (int64_t[]){1, m->h, m->w, m->D}), "%s.encoder_cam_feat_pos_embed", m->run);
    return soma_reshape(pos, 2, (int64_t[]){m->h * m->w, m->D});
}

// A learned table [n, D]: "<name>.weight".
static soma_tensor *table(const builder *m, const char *name, int64_t n) {
    return soma_scope_weight(soma_scope_in(m->root, "%s", name), "weight", soma_init_normal(1), 2, (int64_t[]){n, m->D});
}

// Tokens [B, T, D] as PyTorch has them, sequence first.
static soma_tensor *tap_tokens(const builder *m, soma_tensor *x, const char *name, int i) {
    if (m->g->keep_taps && x->n_dims == 3) {
        soma_tensor *t = soma_permute(x, (int[]){1, 0, 2});
        if (i < 0)
            soma_tap(t, "%s.%s", m->run, name);
        else
            soma_tap(t, "%s.%s.layers.%d", m->run, name, i);
    }
    return x;
}

// ---- the memory: latent, state, pictures

static soma_tensor *encode_pictures(const builder *m) { // [B, C h w, D]
    const act_config *c = m->c;
    const int64_t C = c->model.info.n_cameras, n = m->h * m->w;
    char taps[96];
    soma_tensor *x = soma__picture_input(m->g, m->b->image, m->B * C, c->model.info.image_size, soma__image_width(&c->model.info));
    const bool tapped = m->g->keep_taps;
    m->g->keep_taps = false; // the taps are the first camera's alone
    soma_tensor *maps = soma_resnet(soma_scope_in(m->root, "backbone"), x, &c->backbone, NULL);
    maps = soma_conv_2d(m->root, "encoder_img_feat_input_proj", maps, m->D, 1, 1, 0, true); // [B C, h, w, D]
    m->g->keep_taps = tapped;
    if (tapped && x->n_dims == 4 && maps->n_dims == 4) { // computed once more, for the eyes
        const int64_t H = x->shape[1], W = x->shape[2];
        soma_tensor *first = soma_slice(soma_reshape(x, 5, (int64_t[]){m->B, C, H, W, 3}), 1, 0, 1);
        first = soma_reshape(first, 4, (int64_t[]){m->B, H, W, 3});
        snprintf(taps, sizeof taps, "%s.%.60s.backbone", m->run, c->model.info.cameras[0]);
        if (m->b->program != SOMA_PROGRAM_TRAIN) soma_resnet(soma_scope_in(m->root, "backbone"), first, &c->backbone, taps);
        first = soma_slice(soma_reshape(maps, 5, (int64_t[]){m->B, C, m->h, m->w, m->D}), 1, 0, 1);
        first = soma_reshape(first, 4, (int64_t[]){m->B, m->h, m->w, m->D});
        soma_tap_picture(first, "%s.encoder_img_feat_input_proj", m->run);
    }
    return soma_reshape(maps, 3, (int64_t[]){m->B, C * n, m->D});
}

static soma_tensor *state_input(const builder *m) {
    return soma_input(m->g, "state", SOMA_F32, 2, (int64_t[]){m->B, m->c->model.info.state_dim});
}

static soma_tensor *token(const builder *m, soma_tensor *x) { return soma_reshape(x, 3, (int64_t[]){m->B, 1, m->D}); }

// The positions of the memory's tokens [T, D].
static soma_tensor *memory_positions(const builder *m) {
    soma_tensor *parts[1 + SOMA_MODEL_CAMERAS] = {table(m, "encoder_1d_feature_pos_embed", 2)}, *map = map_positions(m);
    const int C = m->c->model.info.n_cameras;
    SOMA_CHECK(1 + C <= SOMA_MAX_SRC, "a model has at most 7 cameras");
    for (int i = 0; i < C; i++) parts[1 + i] = map;
    return soma_concat(parts, 1 + C, 0);
}

static soma_tensor *memory(const builder *m, soma_tensor *latent, soma_tensor *pos) { // latent [B, Z] -> [B, T, D]
    const act_config *c = m->c;
    soma_tensor *z = soma_linear(m->root, "encoder_latent_input_proj", latent, m->D, true);
    soma_tensor *s = soma_linear(m->root, "encoder_robot_state_input_proj", state_input(m), m->D, true);
    soma_tap(z, "%s.encoder_latent_input_proj", m->run);
    soma_tap(s, "%s.encoder_robot_state_input_proj", m->run);
    soma_tensor *x = soma_concat((soma_tensor *[]){token(m, z), token(m, s), encode_pictures(m)}, 3, 1);
    const soma_scope *encoder = soma_scope_in(m->root, "encoder");
    for (int i = 0; i < c->depth; i++) {
        soma_scope_block(m->root);
        x = act_encoder_layer(soma_scope_in(encoder, "layers.%d", i), x, pos, (soma_mask){0}, &m->layer);
        tap_tokens(m, x, "encoder", i);
    }
    soma_scope_blocks_end(m->root);
    return c->pre_norm ? soma_layer_norm(encoder, "norm", x, 1e-5f) : x;
}

// ---- the chunk

static soma_tensor *decode(const builder *m, soma_tensor *memory, soma_tensor *pos) { // [B, S, A]
    const act_config *c = m->c;
    const int64_t S = c->model.info.horizon;
    const soma_scope *decoder = soma_scope_in(m->root, "decoder");
    soma_tensor *queries = table(m, "decoder_pos_embed", S), *x = soma_constant(m->g, 0, 3, (int64_t[]){m->B, S, m->D});
    for (int i = 0; i < c->decoder_depth; i++) {
        soma_scope_block(m->root);
        x = act_decoder_layer(soma_scope_in(decoder, "layers.%d", i), x, queries, memory, pos, &m->layer);
        tap_tokens(m, x, "decoder", i);
    }
    soma_scope_blocks_end(m->root);
    x = tap_tokens(m, soma_layer_norm(decoder, "norm", x, 1e-5f), "decoder.norm", -1);
    return soma_linear(m->root, "action_head", x, c->model.info.action_dim, true);
}

// ---- the latent of a chunk that is to be learned

typedef struct latent {
    soma_tensor *mean, *log_var; // [B, Z]
} latent;

static latent encode_chunk(const builder *m, soma_tensor *actions) {
    const act_config *c = m->c;
    const int64_t Z = c->latent, T = c->model.info.horizon + 2;
    soma_tensor *first = table(m, "vae_encoder_cls_embed", 1);
    first = soma_expand(soma_reshape(first, 3, (int64_t[]){1, 1, m->D}), 3, (int64_t[]){m->B, 1, m->D});
    soma_tensor *s = token(m, soma_linear(m->root, "vae_encoder_robot_state_input_proj", state_input(m), m->D, true));
    soma_tensor *a = soma_linear(m->root, "vae_encoder_action_input_proj", actions, m->D, true);
    soma_tensor *x = soma_concat((soma_tensor *[]){first, s, a}, 3, 1); // [B, 2 + S, D]
    soma_tensor *pos = sinusoid(soma_input(m->g, "vae.position", SOMA_F32, 1, &T), m->D);
    const soma_mask mask = {.q_block = soma_input(m->g, "vae.q_block", SOMA_I32, 2, (int64_t[]){m->B, T}),
                            .k_block = soma_input(m->g, "vae.k_block", SOMA_I32, 2, (int64_t[]){m->B, T})};
    const soma_scope *encoder = soma_scope_in(m->root, "vae_encoder");
    for (int i = 0; i < c->vae_depth; i++) {
        soma_scope_block(m->root);
        x = act_encoder_layer(soma_scope_in(encoder, "layers.%d", i), x, pos, mask, &m->layer);
        tap_tokens(m, x, "vae_encoder", i);
    }
    soma_scope_blocks_end(m->root);
    if (c->pre_norm) x = soma_layer_norm(encoder, "norm", x, 1e-5f);
    x = soma_reshape(soma_slice(x, 1, 0, 1), 2, (int64_t[]){m->B, m->D});
    x = soma_linear(m->root, "vae_encoder_latent_output_proj", x, 2 * Z, true);
    soma_tap(x, "%s.vae_encoder_latent_output_proj", m->run);
    const latent l = {soma_slice(x, 1, 0, Z), soma_slice(x, 1, Z, Z)};
    soma_tap(l.mean, "%s.mu", m->run);
    soma_tap(l.log_var, "%s.log_sigma_x2", m->run);
    return l;
}

// Mean over observations of the divergence from N(0, 1): -1/2 sum (1 + log var - mean^2 - var).
static soma_tensor *divergence(const builder *m, const latent *l) {
    soma_tensor *d =
        soma_sub(soma_sub(soma_affine(l->log_var, 1, 1), soma_apply(l->mean, SOMA_UNARY_SQUARE)), soma_apply(l->log_var, SOMA_UNARY_EXP));
    return soma_affine(soma_reshape(soma_sum(d, 3), 1, (int64_t[]){1}), (float)(-0.5 / (double)m->B), 0);
}

static soma_tensor *absolute(soma_tensor *x) { // a slope of 0 at 0, as PyTorch's
    return soma_add(soma_apply(x, SOMA_UNARY_RELU), soma_apply(soma_affine(x, -1, 0), SOMA_UNARY_RELU));
}

// ---- the programs

static soma_tensor *zeros(const builder *m) { return soma_constant(m->g, 0, 2, (int64_t[]){m->B, m->c->latent}); }

static soma_tensor *kept(const builder *m, const char *name, int n_dims, const int64_t *shape) {
    return soma_state(m->g, name, SOMA_F32, n_dims, shape);
}

static void build_encode(const builder *m) {
    soma_tensor *pos = memory_positions(m);
    soma_store(soma_cast(memory(m, zeros(m), pos), SOMA_F32), kept(m, "memory", 3, (int64_t[]){m->B, m->T, m->D}));
    soma_store(soma_cast(pos, SOMA_F32), kept(m, "memory.position", 2, (int64_t[]){m->T, m->D}));
    if (m->b->published && m->c->vae) // acting does not read them
        encode_chunk(m, soma_input(m->g, "actions", SOMA_F32, 3, (int64_t[]){m->B, m->c->model.info.horizon, m->c->model.info.action_dim}));
}

static void build_denoise(const builder *m) {
    const soma_model_info *info = &m->c->model.info;
    soma_input(m->g, "x_t", SOMA_F32, 3, (int64_t[]){m->B, info->horizon, info->action_dim}); // no noise is read
    soma_tensor *x = decode(m, kept(m, "memory", 3, (int64_t[]){m->B, m->T, m->D}), kept(m, "memory.position", 2, (int64_t[]){m->T, m->D}));
    soma_output(x, "x_next");
}

// l1 over the entries that count, and the latent's divergence.
static void build_train(const builder *m) {
    const act_config *c = m->c;
    const int64_t chunk[] = {m->B, c->model.info.horizon, c->model.info.action_dim};
    soma_tensor *actions = soma_input(m->g, "actions", SOMA_F32, 3, chunk), *weight = soma_input(m->g, "loss_weight", SOMA_F32, 3, chunk);
    soma_tensor *z = zeros(m), *kld = NULL;
    if (c->vae) {
        const latent l = encode_chunk(m, actions);
        soma_tensor *noise = soma_input(m->g, "latent_noise", SOMA_F32, 2, (int64_t[]){m->B, c->latent});
        z = soma_add(l.mean, soma_mul(soma_apply(soma_affine(l.log_var, 0.5f, 0), SOMA_UNARY_EXP), noise));
        kld = divergence(m, &l);
        soma_tap(kld, "train.kld_loss");
    }
    soma_tensor *pos = memory_positions(m), *guess = decode(m, memory(m, z, pos), pos);
    soma_tap(guess, "train.actions_hat");
    soma_tensor *loss = soma_reshape(soma_sum(soma_mul(absolute(soma_sub(actions, guess)), weight), 7), 1, (int64_t[]){1});
    soma_tap(loss, "train.l1_loss");
    loss = kld ? soma_add(loss, soma_affine(kld, (float)c->kl_weight, 0)) : loss;
    soma_output(soma_affine(loss, 1, 0), "loss");
}

void act_build(const soma_model *model, const soma_build *b, soma_graph *graph) {
    const act_config *c = (const act_config *)model;
    const soma_precision f32 = SOMA_PRECISION_F32;
    // norms and their statistics, positions, and what touches state and actions
    const soma_precision_rule rules[] = {
        {"*", b->precision},         {"*.bn?", f32},           {"*.downsample.1", f32},      {"*norm*", f32},     {"*_embed", f32},
        {"*_state_input_proj", f32}, {"*_latent_*_proj", f32}, {"*_action_input_proj", f32}, {"action_head", f32}};
    const soma_scope_spec spec = soma__build_scopes(b, rules, SOMA_COUNT(rules));
    const soma_scope root = soma_scope_root(graph, &spec);
    builder m = {.c = c,
                 .b = b,
                 .g = graph,
                 .root = &root,
                 .run = b->program == SOMA_PROGRAM_TRAIN ? "train" : "infer",
                 .layer = {.n_heads = c->n_heads, .mlp = c->mlp, .pre_norm = c->pre_norm},
                 .B = b->batch,
                 .D = c->width,
                 .h = soma_resnet_side(model->info.image_size),
                 .w = soma_resnet_side(soma__image_width(&model->info))};
    m.T = 2 + model->info.n_cameras * m.h * m.w;
    if (b->program == SOMA_PROGRAM_TRAIN && b->dropout && c->dropout > 0)
        m.layer.drop = (soma_drop){soma_input(graph, "dropout.key", SOMA_I32, 1, (int64_t[]){2}), (float)c->dropout};
    switch (b->program) {
    case SOMA_PROGRAM_ENCODE: build_encode(&m); break;
    case SOMA_PROGRAM_DENOISE: build_denoise(&m); break;
    case SOMA_PROGRAM_TRAIN: build_train(&m); break;
    case SOMA_PROGRAM_DECODE: soma__mistake(graph, "ACT writes no tokens"); break;
    case SOMA_PROGRAM_SCHEDULE: break; // nothing depends on a time
    }
}
