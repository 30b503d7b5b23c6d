// SPDX-License-Identifier: Apache-2.0
// PaliGemma's parts. The order of the lines follows Gemma's paper; names are those of the published PyTorch checkpoints.
#include "nn/paligemma.h"

#include <math.h>
#include <string.h>

void soma_paligemma_rules(soma_precision p, soma_precision_rule rules[SOMA_PALIGEMMA_RULES]) {
    const soma_precision norms = {SOMA_F32, p.activation, SOMA_F32, SOMA_QUANT_NONE};
    soma_precision outside = p;
    outside.quant = SOMA_QUANT_NONE;
    if (p.quant) p.weight = SOMA_F32; // quantised from the value as published
    const soma_precision_rule all[] = {
        {"*", outside}, {"*.layers.*", p}, {"*layernorm*", norms}, {"*.norm", norms}, {"*.embeddings*", SOMA_PRECISION_F32}};
    memcpy(rules, all, sizeof all);
}

// ---- pictures and prompt

soma_tensor *soma_paligemma_pictures(const soma_scope *scope, soma_tensor *images, const soma_vit_config *vision, int64_t D,
                                     const char *const *cameras) {
    soma_tensor *x = soma_vit_cameras(soma_scope_in(scope, "vision_tower.vision_model"), images, vision, cameras); // [B C, n, Dv]
    x = soma_linear(soma_scope_in(scope, "multi_modal_projector"), "linear", x, D, true);
    return soma_camera_tokens(x, images->shape[0], cameras); // [B, C n, D]
}

soma_tensor *soma_paligemma_text(const soma_scope *s, const char *name, soma_tensor *ids, int64_t vocab, int64_t D) {
    return soma_affine(soma_embedding(s, name, ids, vocab, D), sqrtf((float)D), 0); // [B, L, D]
}

// ---- Gemma's layer

// The table of a norm's modulations: [n_steps, 3D].
static soma_tensor *schedule_of(const soma_stream *s, const soma_scope *scope, const char *name) {
    const soma_scope *at = soma_scope_in(scope, "%s.modulation", name);
    return soma_state(scope->graph, at->name, SOMA_F32, 2, (int64_t[]){s->n_steps, 3 * s->c->width});
}

static void keep_modulation(const soma_stream *s, const soma_scope *scope, const char *name) {
    soma_store(soma_cast(soma_modulation(scope, name, s->cond, s->c->width), SOMA_F32), schedule_of(s, scope, name));
}

void soma_gemma_schedule(const soma_stream *s) {
    for (int i = 0; i < s->c->depth; i++) {
        const soma_scope *layer = soma_scope_in(s->scope, "layers.%d", i);
        keep_modulation(s, layer, "input_layernorm");
        keep_modulation(s, layer, "post_attention_layernorm");
    }
    keep_modulation(s, s->scope, "norm");
}

soma_normed soma_gemma_norm(const soma_stream *s, const soma_scope *scope, const char *name, soma_tensor *x) {
    if (s->step) return soma_modulated_norm(x, soma_embed(schedule_of(s, scope, name), s->step), (float)s->c->eps);
    if (s->cond) return soma_ada_rms_norm(scope, name, x, s->cond, (float)s->c->eps);
    soma_tensor *(*norm)(const soma_scope *, const char *, soma_tensor *, float) = s->c->llama ? soma_scaled_rms_norm : soma_rms_norm;
    return (soma_normed){norm(scope, name, x, (float)s->c->eps), NULL};
}

static soma_tensor *residual(soma_tensor *x, soma_tensor *y, soma_tensor *gate) { return soma_add(x, gate ? soma_mul(y, gate) : y); }

soma_gemma_layer soma_gemma_look(const soma_stream *s, int i) {
    soma_gemma_layer l = {.scope = soma_scope_in(s->scope, "layers.%d", i), .i = i};
    l.h = soma_gemma_norm(s, l.scope, "input_layernorm", s->x); // [B, T, D]
    return l;
}

// Keys, not rotated yet, and values of k and v [B, S, .].
static soma_kv project(const soma_gemma *c, const soma_scope *layer, soma_tensor *k, soma_tensor *v) {
    const soma_scope *attn = soma_scope_in(layer, "self_attn");
    const int64_t width = c->n_kv_heads * c->head_dim;
    k = soma_linear(attn, "k_proj", k, width, false);
    v = soma_linear(attn, "v_proj", v, width, false);
    return (soma_kv){soma_heads(k, c->n_kv_heads), soma_heads(v, c->n_kv_heads)}; // [B, S, KV, K]
}

soma_gemma_layer soma_gemma_begin(const soma_stream *s, int i) {
    soma_gemma_layer l = soma_gemma_look(s, i);
    l.kv = project(s->c, l.scope, l.h.y, l.h.y);
    l.kv.k = soma_rope(l.kv.k, s->pos, s->c->theta); // [B, T, KV, K]
    return l;
}

soma_kv soma_gemma_cross(const soma_stream *s, int i, soma_kv other) {
    return project(s->c, soma_scope_in(s->scope, "layers.%d", i), soma_merge_heads(other.k), soma_merge_heads(other.v));
}

static soma_tensor *join(soma_tensor *prefix, soma_tensor *own) {
    if (prefix->n_dims != 4 || own->n_dims != 4) return own; // an earlier mistake
    int64_t B = prefix->shape[0], R = own->shape[0] / B, S = prefix->shape[1], T = own->shape[1], KV = own->shape[2], K = own->shape[3];
    soma_tensor *shared = soma_expand(soma_reshape(prefix, 5, (int64_t[]){B, 1, S, KV, K}), 5, (int64_t[]){B, R, S, KV, K});
    soma_tensor *mine = soma_reshape(own, 5, (int64_t[]){B, R, T, KV, K});
    return soma_reshape(soma_concat((soma_tensor *[]){shared, mine}, 2, 2), 4, (int64_t[]){B * R, S + T, KV, K});
}

soma_kv soma_kv_join(soma_kv prefix, soma_kv own) { return (soma_kv){join(prefix.k, own.k), join(prefix.v, own.v)}; }

soma_kv soma_kv_repeat(soma_kv kv, int64_t R) { return (soma_kv){soma_repeat_rows(kv.k, R), soma_repeat_rows(kv.v, R)}; }

soma_tensor *soma_gemma_end(const soma_stream *s, const soma_gemma_layer *l, soma_kv all) {
    const soma_gemma *c = s->c;
    const soma_scope *attn = soma_scope_in(l->scope, "self_attn");
    soma_tensor *q = soma_heads(soma_linear(attn, "q_proj", l->h.y, c->n_heads * c->head_dim, false), c->n_heads);
    soma_tensor *a = soma_attention(attn, soma_rope(q, s->pos, c->theta), all.k, all.v, s->mask); // [B, T, H, K]
    soma_tensor *o = soma_linear(attn, "o_proj", soma_merge_heads(a), c->width, false);
    if (s->tap) soma_tap(o, "%s.layers.%d.self_attn.o_proj", s->tap, l->i);
    soma_tensor *x = residual(s->x, o, l->h.gate);
    soma_normed h = soma_gemma_norm(s, l->scope, "post_attention_layernorm", x);
    soma_tensor *y = soma_gated_mlp(soma_scope_in(l->scope, "mlp"), h.y, c->mlp, c->llama ? SOMA_UNARY_SILU : SOMA_UNARY_GELU);
    if (s->tap) soma_tap(y, "%s.layers.%d.mlp", s->tap, l->i);
    return residual(x, y, h.gate); // [B, T, D]
}
