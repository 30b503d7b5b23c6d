// SPDX-License-Identifier: Apache-2.0
// pi0's graph. Two streams of tokens, each with weights of its own, meet only in attention: the prefix (pictures and prompt, a language
// model) and the suffix (state and noisy actions, the action expert). The suffix sees the prefix, never the other way round, so that the
// prefix is computed once per observation.
//
// Weights: openpi's PyTorch checkpoints, name for name. The order of the lines follows openpi's and Gemma's papers; README.md lists the
// mistakes that run but are wrong.
#include "model/flow.h"
#include "model/pi0/pi0.h"

#include <math.h>
#include <stdio.h>

typedef struct builder {
    const pi0_config *c;
    const soma_build *b;
    soma_graph *g;
    const soma_scope *root, *paligemma, *expert;
    const soma_saving *saving; // NULL: none
    int64_t B, R, S, P, T;     // observations, draws; tokens of the prefix, of it with what is kept behind it, of the suffix
} builder;

// ---- the prefix: pictures and prompt

static soma_tensor *embed_pictures(const builder *m) {
    const pi0_config *c = m->c;
    int64_t C = pi0_n_cameras(c, m->saving), side = c->vision.image;
    bool bytes = m->b->image == SOMA_U8;
    soma_tensor *images =
        soma_input(m->g, "images", m->b->image, 5, bytes ? (int64_t[]){m->B, C, side, side, 3} : (int64_t[]){m->B, C, 3, side, side});
    return soma_paligemma_pictures(m->paligemma, images, &c->vision, c->language.width, c->model.info.cameras);
}

static soma_stream prefix_stream(const builder *m) {
    const pi0_config *c = m->c;
    soma_stream s = {.c = &c->language, .scope = soma_scope_in(m->paligemma, "language_model")};
    const soma_dtype activation = s.scope->precision.activation;
    soma_tensor *parts[2];
    int n = 0;
    if (pi0_n_cameras(c, m->saving)) parts[n++] = soma_cast(embed_pictures(m), activation);
    soma_tensor *tokens = soma_input(m->g, "tokens", SOMA_I32, 2, (int64_t[]){m->B, pi0_n_tokens(c, m->saving)});
    parts[n++] = soma_cast(soma_paligemma_text(s.scope, "embed_tokens", tokens, c->model.info.vocab, c->language.width), activation);
    s.x = n == 2 ? soma_concat(parts, 2, 1) : parts[0]; // [B, S, D]
    soma__flow_mask(m->g, &s, "prefix", m->B, m->S, m->S);
    return s;
}

// ---- the suffix: state, noisy actions, time. x_t [B R, S, A], time [B R]

static soma_tensor *state_token(const builder *m) { // [B R, 1, D]
    const pi0_config *c = m->c;
    soma_tensor *state = soma_input(m->g, "state", SOMA_F32, 2, (int64_t[]){m->B, c->model.info.state_dim});
    state = soma_repeat_rows(soma_linear(m->root, "state_proj", state, c->expert.width, true), m->R);
    return soma_reshape(state, 3, (int64_t[]){m->B * m->R, 1, c->expert.width});
}

static soma_tensor *time_condition(const builder *m, soma_tensor *emb) { // [N, D] -> [N, D]
    soma_tensor *h = soma_apply(soma_linear(m->root, "time_mlp_in", emb, m->c->expert.width, true), SOMA_UNARY_SILU);
    return soma_apply(soma_linear(m->root, "time_mlp_out", h, m->c->expert.width, true), SOMA_UNARY_SILU);
}

// What SCHEDULE keeps: a row for each step and, where actions may be given, one for time 0.
static int64_t schedule_rows(const builder *m) { return m->saving->steps + (m->c->model.info.given_max > 0); }

// Either `time` f32 [N] or, with a saving, `step` i32 [N]; or one for each action.
static soma_stream suffix_stream(const builder *m, soma_tensor *x_t, soma_tensor *time, soma_tensor *step) {
    const pi0_config *c = m->c;
    int64_t D = c->expert.width, N = m->B * m->R;
    const soma_scope *root = m->root;
    soma_stream s = {.c = &c->expert, .scope = m->expert};
    soma_tensor *emb = NULL; // [N, D] f32
    if (time) emb = soma_tap(soma_time_embed(time, D, c->min_period, c->max_period), "suffix_t1.time_emb_f64");
    soma_tensor *tok; // [N, H, D]
    if (c->pi05) {
        tok = soma_linear(root, "action_in_proj", x_t, D, true);
        s.step = step;
        if (step)
            s.n_steps = schedule_rows(m);
        else
            s.cond = soma_tap(time_condition(m, emb), "suffix_t1.adarms_cond"); // [N, D]
    } else {
        if (step) emb = soma_embed(soma__flow_times(m->g, m->saving->steps, D), step);
        tok = soma__flow_tokens(root, x_t, emb, D);
        if (!m->saving) tok = soma_concat((soma_tensor *[]){state_token(m), tok}, 2, 1); // [N, 1 + H, D]
    }
    s.x = soma_cast(tok, s.scope->precision.activation);
    soma__flow_mask(m->g, &s, "suffix", N, m->T, m->P + m->T);
    return s;
}

// The flow's velocity at the actions' tokens: [N, H, A], f32.
static soma_tensor *velocity(const builder *m, const soma_stream *s) {
    const pi0_config *c = m->c;
    soma_tensor *h = soma_tap(soma_gemma_norm(s, s->scope, "norm", s->x).y, "suffix_t1.final_norm"); // the last gate is dropped
    h = soma_slice(h, 1, m->T - c->model.info.horizon, c->model.info.horizon);
    return soma__flow_velocity(m->root, h, c->model.info.action_dim);
}

// ---- the programs

static soma_tensor *kv_state(const builder *m, int i, const char *which) {
    char name[32];
    snprintf(name, sizeof name, "kv.%d.%s", i, which);
    return soma_state(m->g, name, m->paligemma->precision.activation, 4,
                      (int64_t[]){m->B, m->P, m->c->language.n_kv_heads, m->c->language.head_dim});
}

// The state's token, where it is computed once: it sees the prefix and itself.
static soma_stream kept_stream(const builder *m) {
    soma_stream s = {.c = &m->c->expert, .scope = m->expert};
    if (m->P == m->S) return s;
    s.x = soma_cast(state_token(m), s.scope->precision.activation);
    soma__flow_mask(m->g, &s, "state", m->B, 1, m->P);
    return s;
}

static void build_encode(const builder *m) {
    const pi0_config *c = m->c;
    soma_stream s[2] = {prefix_stream(m), kept_stream(m)};
    soma_tap(s[0].x, "prefix_embs");
    for (int i = 0; i < c->language.depth; i++) {
        const bool last = i == c->language.depth - 1, unread = last && !m->b->whole;
        soma_kv now = pi0_trunk_layer(s, i, (soma_kv){0}, (bool[]){unread, unread}); // [B, P, KV, K]
        soma_store(now.k, kv_state(m, i, "k"));
        soma_store(now.v, kv_state(m, i, "v"));
        if (m->g->keep_taps && (i == 0 || last)) {
            soma_tap(soma_permute(now.k, (int[]){0, 2, 1, 3}), "prefix_kv.%d.k", i); // [B, KV, S, K]
            soma_tap(soma_permute(now.v, (int[]){0, 2, 1, 3}), "prefix_kv.%d.v", i);
        }
        if (!last || m->b->whole) soma_tap(s[0].x, "prefix.layer_out.%d", i);
    }
    if (m->b->whole) soma_tap(soma_rms_norm(s[0].scope, "norm", s[0].x, (float)c->rms_eps), "prefix.final_norm");
    if (m->b->published) // the expert reads no text and writes none; files carry its head all the same
        soma_scope_weight(soma_scope_in(m->root, "paligemma_with_expert.gemma_expert.lm_head"), "weight",
                          soma_init_normal(1 / sqrt((double)c->expert.width)), 2, (int64_t[]){c->model.info.vocab, c->expert.width});
}

static void build_denoise(const builder *m) {
    const pi0_config *c = m->c;
    const soma_flow_step step = soma__flow_step(m->g, &c->model.info, m->saving, m->B);
    soma_stream s[2] = {{0}, suffix_stream(m, step.x_t, step.time, step.step)};
    soma_tap(s[1].x, "suffix_t1.embs");
    for (int i = 0; i < c->expert.depth; i++) {
        pi0_trunk_layer(s, i, (soma_kv){kv_state(m, i, "k"), kv_state(m, i, "v")}, (bool[]){false, false});
        soma_tap(s[1].x, "suffix_t1.layer_out.%d", i);
    }
    soma__flow_step_end(&step, velocity(m, &s[1]));
}

// What depends on the flow's times alone: pi0's time embeddings, pi0.5's modulations of every norm.
static void build_schedule(const builder *m) {
    const pi0_config *c = m->c;
    const int64_t steps = schedule_rows(m);
    soma_tensor *emb = soma_time_embed(soma_input(m->g, "time", SOMA_F32, 1, &steps), c->expert.width, c->min_period, c->max_period);
    if (c->pi05)
        soma_gemma_schedule(&(soma_stream){.c = &c->expert, .scope = m->expert, .cond = time_condition(m, emb), .n_steps = steps});
    else
        soma_store(emb, soma__flow_times(m->g, steps, c->expert.width));
}

static void build_train(const builder *m) {
    const pi0_config *c = m->c;
    const soma_flow_lesson lesson = soma__flow_lesson(m->g, &c->model.info, m->B, m->R);
    soma_stream s[2] = {prefix_stream(m), suffix_stream(m, lesson.x_t, lesson.time, NULL)};
    for (int i = 0; i < c->language.depth; i++) {
        soma_tap(s[0].x, "train.prefix.layer_in.%d", i);
        soma_tap(s[1].x, "train.suffix.layer_in.%d", i);
        soma_scope_block(m->root);
        pi0_trunk_layer(s, i, (soma_kv){0}, (bool[]){i == c->language.depth - 1, false});
    }
    soma_scope_blocks_end(m->root);
    soma_tap(s[1].x, "train.suffix.last_layer_out");
    soma__flow_loss(&lesson, velocity(m, &s[1]));
}

void pi0_build(const soma_model *model, const soma_build *b, soma_graph *graph) {
    const pi0_config *c = (const pi0_config *)model;
    soma_precision_rule rules[PI0_RULES];
    pi0_precision_rules(b->precision, rules);
    soma_scope_spec spec = soma__build_scopes(b, rules, PI0_RULES);
    soma_scope root = soma_scope_root(graph, &spec);
    const builder m = {.c = c,
                       .b = b,
                       .g = graph,
                       .root = &root,
                       .paligemma = soma_scope_in(&root, "paligemma_with_expert.paligemma.model"),
                       .expert = soma_scope_in(&root, "paligemma_with_expert.gemma_expert.model"),
                       .B = b->batch,
                       .R = b->program == SOMA_PROGRAM_TRAIN ? b->draws : 1,
                       .saving = b->saving,
                       .S = pi0_prefix_len(c, b->saving),
                       .P = pi0_prefix_len(c, b->saving) + pi0_kept_len(c, b->saving),
                       .T = pi0_suffix_len(c, b->saving)};
    SOMA_CHECK(b->saving || b->program != SOMA_PROGRAM_SCHEDULE, "a schedule is part of a saving");
    SOMA_CHECK(!b->saving || b->program != SOMA_PROGRAM_TRAIN, "training saves nothing");
    switch (b->program) {
    case SOMA_PROGRAM_ENCODE: build_encode(&m); break;
    case SOMA_PROGRAM_DENOISE: build_denoise(&m); break;
    case SOMA_PROGRAM_TRAIN: build_train(&m); break;
    case SOMA_PROGRAM_DECODE: soma__mistake(graph, "pi0 denoises its chunk: it writes no tokens"); break;
    case SOMA_PROGRAM_SCHEDULE: build_schedule(&m); break;
    }
}
