// SPDX-License-Identifier: Apache-2.0
// SmolVLA's graph. The prefix (pictures, prompt, state) goes through a small language model; the expert carries the actions through layers
// of two kinds in turn. In one its tokens see the prefix's keys and their own; in the other they see the prefix alone, through keys and
// values that the expert's own weights make of the language model's. Nothing of the prefix depends on the actions, and those keys and
// values depend on nothing else, so that all of it is computed once per observation.
//
// Weights: LeRobot's checkpoints, name for name, without the "model." in front. README.md lists the mistakes that run but are wrong.
#include "model/flow.h"
#include "model/smolvla/smolvla.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct builder {
    const smolvla_config *c;
    const soma_build *b;
    soma_graph *g;
    const soma_scope *root, *vlm, *text, *expert;
    const soma_saving *saving; // NULL: none
    int64_t B, R, P;           // observations, draws; tokens of the prefix
} builder;

// The actions on their way, and the same tokens as layers of the second kind have them: with positions of their own, over the prefix alone.
typedef struct actions {
    soma_stream own, across;
} actions;

// The references keep in f32, whatever the rest runs in, what PaliGemma's do, and the action projections.
enum { RULES = SOMA_PALIGEMMA_RULES + 3 };
static void precision_rules(soma_precision p, soma_precision_rule rules[RULES]) {
    const soma_precision_rule own[] = {
        {"action_*_proj", SOMA_PRECISION_F32}, {"state_proj", SOMA_PRECISION_F32}, {"action_time_mlp_*", SOMA_PRECISION_F32}};
    soma_paligemma_rules(p, rules);
    memcpy(rules + SOMA_PALIGEMMA_RULES, own, sizeof own);
}

// ---- the prefix

static soma_tensor *embed_pictures(const builder *m) {
    const smolvla_config *c = m->c;
    const char *const *cameras = c->model.info.cameras;
    int64_t C = soma__saved_cameras(&c->model.info, m->saving), side = c->vision.image, D = c->language.width;
    bool bytes = m->b->image == SOMA_U8;
    soma_tensor *images =
        soma_input(m->g, "images", m->b->image, 5, bytes ? (int64_t[]){m->B, C, side, side, 3} : (int64_t[]){m->B, C, 3, side, side});
    soma_tensor *x = soma_vit_cameras(soma_scope_in(m->vlm, "vision_model"), images, &c->vision, cameras); // [B C, T, Dv]
    x = soma_pixel_shuffle(x, c->scale);                                                                   // [B C, n, s s Dv]
    x = soma_linear(soma_scope_in(m->vlm, "connector.modality_projection"), "proj", x, D, false);          // [B C, n, D]
    return soma_affine(soma_camera_tokens(x, m->B, cameras), sqrtf((float)D), 0);                          // scaled, as the prompt is
}

static soma_stream prefix_stream(const builder *m) {
    const smolvla_config *c = m->c;
    const soma_model_info *info = &c->model.info;
    const int64_t D = c->language.width;
    soma_stream s = {.c = &c->language, .scope = m->text};
    soma_tensor *parts[3];
    int n = 0;
    if (soma__saved_cameras(info, m->saving)) parts[n++] = embed_pictures(m);
    soma_tensor *tokens = soma_input(m->g, "tokens", SOMA_I32, 2, (int64_t[]){m->B, soma__saved_tokens(info, m->saving)});
    parts[n++] = soma_paligemma_text(m->text, "embed_tokens", tokens, info->vocab, D);
    soma_tensor *state = soma_input(m->g, "state", SOMA_F32, 2, (int64_t[]){m->B, info->state_dim});
    parts[n++] = soma_reshape(soma_linear(m->root, "state_proj", state, D, true), 3, (int64_t[]){m->B, 1, D});
    for (int i = 0; i < n; i++) parts[i] = soma_cast(parts[i], m->text->precision.activation);
    s.x = soma_concat(parts, n, 1); // [B, P, D]
    soma__flow_mask(m->g, &s, "prefix", m->B, m->P, m->P);
    return s;
}

// ---- the actions. x_t [B R, S, A], emb [B R, D]: what the time is embedded as

static actions action_streams(const builder *m, soma_tensor *x_t, soma_tensor *emb) {
    const smolvla_config *c = m->c;
    const int64_t N = m->B * m->R, S = c->model.info.horizon;
    actions a = {.own = {.c = &c->expert, .scope = m->expert, .tap = m->b->program == SOMA_PROGRAM_DENOISE ? "suffix_t1.expert" : NULL}};
    soma_tensor *tok = soma__flow_tokens(m->root, x_t, emb, c->expert.width); // [N, S, D]
    a.own.x = soma_cast(tok, m->expert->precision.activation);
    a.across = a.own;
    soma__flow_mask(m->g, &a.own, "suffix", N, S, m->P + S);
    if (c->self_every != 1) soma__flow_mask(m->g, &a.across, "across", N, S, m->P);
    return a;
}

static soma_tensor *embed_time(const builder *m, soma_tensor *time) {
    return soma_time_embed(time, m->c->expert.width, m->c->min_period, m->c->max_period);
}

static soma_tensor *velocity(const builder *m, const actions *a, const char *tap) {
    soma_tensor *h = soma_tap(soma_gemma_norm(&a->own, m->expert, "norm", a->own.x).y, "%s", tap);
    return soma__flow_velocity(m->root, h, m->c->model.info.action_dim);
}

// ---- one layer of each

static bool is_self(const builder *m, int i) { return m->c->self_every && i % m->c->self_every == 0; }

// Returns what the actions see of the prefix in this layer, [B, P, KV, K]. keys_only: nobody reads what else the layer makes.
static soma_kv prefix_layer(const builder *m, soma_stream *s, int i, bool keys_only) {
    const soma_stream expert = {.c = &m->c->expert, .scope = m->expert};
    soma_gemma_layer layer = soma_gemma_begin(s, i);
    if (m->b->program == SOMA_PROGRAM_ENCODE && m->g->keep_taps) {
        soma_tap(soma_permute(layer.kv.k, (int[]){0, 2, 1, 3}), "prefix_kv.%d.k", i); // [B, KV, P, K]
        soma_tap(soma_permute(layer.kv.v, (int[]){0, 2, 1, 3}), "prefix_kv.%d.v", i);
    }
    if (!keys_only) s->x = soma_gemma_end(s, &layer, layer.kv);
    return is_self(m, i) ? layer.kv : soma_gemma_cross(&expert, i, layer.kv);
}

static void action_layer(const builder *m, actions *a, int i, soma_kv prefix) {
    if (is_self(m, i)) {
        soma_gemma_layer layer = soma_gemma_begin(&a->own, i);
        a->own.x = soma_gemma_end(&a->own, &layer, soma_kv_join(prefix, layer.kv));
    } else {
        soma_gemma_layer layer = soma_gemma_look(&a->across, i);
        a->own.x = soma_gemma_end(&a->across, &layer, soma_kv_repeat(prefix, m->R));
    }
    a->across.x = a->own.x;
}

// ---- the programs

static soma_tensor *kv_state(const builder *m, int i, const char *which) {
    char name[32];
    snprintf(name, sizeof name, "kv.%d.%s", i, which);
    return soma_state(m->g, name, m->text->precision.activation, 4,
                      (int64_t[]){m->B, m->P, m->c->language.n_kv_heads, m->c->language.head_dim});
}

static void build_encode(const builder *m) {
    const smolvla_config *c = m->c;
    soma_stream s = prefix_stream(m);
    soma_tap(s.x, "prefix_embs");
    for (int i = 0; i < c->language.depth; i++) {
        soma_kv seen = prefix_layer(m, &s, i, i == c->language.depth - 1 && !m->b->whole);
        soma_store(seen.k, kv_state(m, i, "k"));
        soma_store(seen.v, kv_state(m, i, "v"));
        if (i < c->language.depth - 1) soma_tap(s.x, "prefix.layer_out.%d", i);
    }
    if (m->b->whole) soma_tap(soma_gemma_norm(&s, m->text, "norm", s.x).y, "prefix.final_norm");
    if (m->b->published) // files carry the language model's head, and nothing computes with it
        soma_scope_weight(soma_scope_in(m->root, "vlm_with_expert.vlm.lm_head"), "weight",
                          soma_init_normal(1 / sqrt((double)c->language.width)), 2, (int64_t[]){c->model.info.vocab, c->language.width});
}

static void build_denoise(const builder *m) {
    const smolvla_config *c = m->c;
    const soma_flow_step step = soma__flow_step(m->g, &c->model.info, m->saving, m->B);
    soma_tensor *emb = step.step ? soma_embed(soma__flow_times(m->g, m->saving->steps, c->expert.width), step.step)
                                 : soma_tap(embed_time(m, step.time), "suffix_t1.time_emb_f64");
    actions a = action_streams(m, step.x_t, emb);
    soma_tap(a.own.x, "suffix_t1.embs");
    for (int i = 0; i < c->expert.depth; i++) {
        action_layer(m, &a, i, (soma_kv){kv_state(m, i, "k"), kv_state(m, i, "v")});
        soma_tap(a.own.x, "suffix_t1.layer_out.%d", i);
    }
    soma__flow_step_end(&step, velocity(m, &a, "suffix_t1.final_norm"));
}

// What depends on the flow's times alone.
static void build_schedule(const builder *m) {
    const int64_t steps = m->saving->steps;
    soma_store(embed_time(m, soma_input(m->g, "time", SOMA_F32, 1, &steps)), soma__flow_times(m->g, steps, m->c->expert.width));
}

static void build_train(const builder *m) {
    const smolvla_config *c = m->c;
    const soma_flow_lesson lesson = soma__flow_lesson(m->g, &c->model.info, m->B, m->R);
    soma_stream s = prefix_stream(m);
    actions a = action_streams(m, lesson.x_t, embed_time(m, lesson.time));
    soma_tap(s.x, "train.prefix_embs");
    soma_tap(a.own.x, "train.suffix_embs");
    for (int i = 0; i < c->language.depth; i++) {
        soma_scope_block(m->root);
        action_layer(m, &a, i, prefix_layer(m, &s, i, i == c->language.depth - 1));
    }
    soma_scope_blocks_end(m->root);
    soma__flow_loss(&lesson, velocity(m, &a, "train.suffix_out"));
}

void smolvla_build(const soma_model *model, const soma_build *b, soma_graph *graph) {
    const smolvla_config *c = (const smolvla_config *)model;
    soma_precision_rule rules[RULES];
    precision_rules(b->precision, rules);
    soma_scope_spec spec = soma__build_scopes(b, rules, RULES);
    soma_scope root = soma_scope_root(graph, &spec);
    const soma_scope *vlm = soma_scope_in(&root, "vlm_with_expert.vlm.model");
    const builder m = {.c = c,
                       .b = b,
                       .g = graph,
                       .root = &root,
                       .vlm = vlm,
                       .text = soma_scope_in(vlm, "text_model"),
                       .expert = soma_scope_in(&root, "vlm_with_expert.lm_expert"),
                       .saving = b->saving,
                       .B = b->batch,
                       .R = b->program == SOMA_PROGRAM_TRAIN ? b->draws : 1,
                       .P = smolvla_prefix_len(c, b->saving)};
    SOMA_CHECK(b->saving || b->program != SOMA_PROGRAM_SCHEDULE, "a schedule is part of a saving");
    SOMA_CHECK(!b->saving || b->program != SOMA_PROGRAM_TRAIN, "training saves nothing");
    switch (b->program) {
    case SOMA_PROGRAM_ENCODE: build_encode(&m); break;
    case SOMA_PROGRAM_DENOISE: build_denoise(&m); break;
    case SOMA_PROGRAM_TRAIN: build_train(&m); break;
    case SOMA_PROGRAM_DECODE: soma__mistake(graph, "smolvla denoises its chunk: it writes no tokens"); break;
    case SOMA_PROGRAM_SCHEDULE: build_schedule(&m); break;
    }
}
