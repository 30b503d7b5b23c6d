// SPDX-License-Identifier: Apache-2.0
// pi0-FAST's graph: one language model over [pictures | prompt | answer]. Pictures and prompt see each other, an answer's token sees them
// and what was written before it. At inference the prefix is computed once and leaves its keys and values in a cache of planned length, in
// which each written token then takes the next row.
//
// Weights: those of openpi's and LeRobot's PyTorch checkpoints, name for name.
#include "model/pi0_fast/pi0_fast.h"

#include <math.h>
#include <stdio.h>

typedef struct builder {
    const pi0_fast_config *c;
    const soma_build *b;
    soma_graph *g;
    const soma_scope *root, *paligemma, *language;
    int64_t B, L, S, G; // observations; text tokens; pictures and text; tokens of an answer, at most
} builder;

// ids [B, T] -> [B, T, D]
static soma_tensor *embed(const builder *m, soma_tensor *ids) {
    const pi0_fast_config *c = m->c;
    const int64_t V = c->model.info.vocab, D = c->language.width;
    return c->tied ? soma_paligemma_text(m->root, PI0_FAST_HEAD, ids, V, D) : soma_paligemma_text(m->language, "embed_tokens", ids, V, D);
}

// ---- [pictures | text], with what says who sees whom

static soma_stream sequence(const builder *m) {
    const pi0_fast_config *c = m->c;
    int64_t C = soma__saved_cameras(&c->model.info, m->b->saving), side = c->vision.image;
    bool bytes = m->b->image == SOMA_U8;
    soma_tensor *parts[2];
    int n = 0;
    if (C) {
        soma_tensor *images =
            soma_input(m->g, "images", m->b->image, 5, bytes ? (int64_t[]){m->B, C, side, side, 3} : (int64_t[]){m->B, C, 3, side, side});
        images = soma_paligemma_pictures(m->paligemma, images, &c->vision, c->language.width, c->model.info.cameras);
        parts[n++] = soma_cast(images, m->language->precision.activation);
    }
    soma_tensor *tokens = soma_input(m->g, "tokens", SOMA_I32, 2, (int64_t[]){m->B, m->L});
    soma_tensor *text = soma_tap(embed(m, tokens), "text_embs");
    soma_stream s = {.c = &c->language, .scope = m->language};
    parts[n++] = soma_cast(text, m->language->precision.activation);
    s.x = soma_concat(parts, n, 1); // [B, S, D]
    s.pos = soma_input(m->g, "position", SOMA_I32, 2, (int64_t[]){m->B, m->S});
    s.mask.q_block = soma_input(m->g, "q_block", SOMA_I32, 2, (int64_t[]){m->B, m->S});
    s.mask.k_block = soma_input(m->g, "k_block", SOMA_I32, 2, (int64_t[]){m->B, m->S});
    return s;
}

// x [.., D] -> [.., V] in f32, whatever the rest runs in: among 257,152 logits in bf16 several would share the first place.
static soma_tensor *head(const builder *m, soma_tensor *x) {
    const pi0_fast_config *c = m->c;
    int64_t D = c->language.width, V = c->model.info.vocab;
    const soma_scope *at = soma_scope_in(m->root, PI0_FAST_HEAD);
    soma_tensor *w = soma_scope_weight(at, "weight", soma_init_normal(1 / sqrt((double)D)), 2, (int64_t[]){V, D});
    return soma_matmul(soma_cast(x, SOMA_F32), w, NULL, at->precision.product);
}

static soma_tensor *final_norm(const builder *m, const soma_stream *s, soma_tensor *x) {
    return soma_gemma_norm(s, m->language, "norm", x).y;
}

// ---- the programs

// The cache of layer i: [B, S + G, KV, K], the prefix first.
static soma_tensor *cache(const builder *m, int i, const char *which) {
    char name[32];
    snprintf(name, sizeof name, "kv.%d.%s", i, which);
    return soma_state(m->g, name, m->language->precision.activation, 4,
                      (int64_t[]){m->B, m->S + m->G, m->c->language.n_kv_heads, m->c->language.head_dim});
}

// Row rows[b] of x [B, T, ..], counted through the batch: [B, 1, ..].
static soma_tensor *pick(soma_tensor *x, soma_tensor *rows) {
    int64_t B = rows->shape[0], D = x->shape[2];
    return soma_reshape(soma_embed(soma_reshape(x, 2, (int64_t[]){x->shape[0] * x->shape[1], D}), rows), 3, (int64_t[]){B, 1, D});
}

static void build_encode(const builder *m) {
    soma_stream s = sequence(m);
    soma_tensor *last = soma_input(m->g, "last", SOMA_I32, 1, &m->B); // each row's last token that is there
    soma_tap(s.x, "prefix_embs");
    for (int i = 0; i < s.c->depth; i++) {
        soma_gemma_layer layer = soma_gemma_begin(&s, i);
        soma_store(layer.kv.k, soma_slice(cache(m, i, "k"), 1, 0, m->S));
        soma_store(layer.kv.v, soma_slice(cache(m, i, "v"), 1, 0, m->S));
        if (i == s.c->depth - 1) { // of the last layer nobody reads more than the last token
            s.x = pick(s.x, last);
            layer.h.y = pick(layer.h.y, last);
            s.pos = soma_input(m->g, "last.position", SOMA_I32, 2, (int64_t[]){m->B, 1});
            s.mask.q_block = NULL; // the prefix sees itself whole
        }
        s.x = soma_gemma_end(&s, &layer, layer.kv);
        if (i < s.c->depth - 1) soma_tap(s.x, "prefix.layer_out.%d", i);
    }
    soma_tensor *logits = head(m, final_norm(m, &s, s.x)); // [B, 1, V]
    soma_output(soma_reshape(logits, 2, (int64_t[]){m->B, m->c->model.info.vocab}), "logits");
}

static void build_decode(const builder *m) {
    const pi0_fast_config *c = m->c;
    soma_tensor *token = soma_input(m->g, "token", SOMA_I32, 2, (int64_t[]){m->B, 1});
    soma_tensor *row = soma_input(m->g, "cache.row", SOMA_I32, 1, &m->B);
    soma_stream s = {.c = &c->language, .scope = m->language};
    s.x = soma_cast(embed(m, token), m->language->precision.activation);
    s.pos = soma_input(m->g, "cache.position", SOMA_I32, 2, (int64_t[]){m->B, 1});
    s.mask.k_block = soma_input(m->g, "cache.k_block", SOMA_I32, 2, (int64_t[]){m->B, m->S + m->G});
    for (int i = 0; i < s.c->depth; i++) {
        soma_gemma_layer layer = soma_gemma_begin(&s, i);
        soma_kv all = {soma_store_rows(layer.kv.k, cache(m, i, "k"), row), soma_store_rows(layer.kv.v, cache(m, i, "v"), row)};
        s.x = soma_gemma_end(&s, &layer, all);
    }
    soma_tensor *logits = head(m, final_norm(m, &s, s.x)); // [B, 1, V]
    soma_output(soma_reshape(logits, 2, (int64_t[]){m->B, c->model.info.vocab}), "logits");
}

// Each token is predicted from what stands before it; loss_weight says how much its cross-entropy counts.
static void build_train(const builder *m) {
    soma_stream s = sequence(m);
    soma_tap(s.x, "train.embs");
    for (int i = 0; i < s.c->depth; i++) {
        soma_scope_block(m->root);
        soma_gemma_layer layer = soma_gemma_begin(&s, i);
        s.x = soma_gemma_end(&s, &layer, layer.kv);
        soma_tap(s.x, "train.layer_out.%d", i);
    }
    soma_scope_blocks_end(m->root);
    soma_tensor *target = soma_input(m->g, "target", SOMA_I32, 2, (int64_t[]){m->B, m->L});      // the token that comes next
    soma_tensor *weight = soma_input(m->g, "loss_weight", SOMA_F32, 2, (int64_t[]){m->B, m->L}); // sums to one
    soma_tensor *h = soma_tap(final_norm(m, &s, s.x), "train.final_norm");
    soma_tensor *logits = soma_tap(head(m, soma_slice(h, 1, m->S - m->L, m->L)), "train.logits"); // [B, L, V]
    soma_tensor *off = soma_tap(soma_cross_entropy(logits, target), "train.cross_entropy");       // [B, L]
    soma_tensor *loss = soma_reshape(soma_sum(soma_mul(off, weight), 3), 1, (int64_t[]){1});
    soma_output(soma_affine(loss, 1, 0), "loss");
}

void pi0_fast_build(const soma_model *model, const soma_build *b, soma_graph *graph) {
    const pi0_fast_config *c = (const pi0_fast_config *)model;
    soma_precision_rule rules[SOMA_PALIGEMMA_RULES];
    soma_paligemma_rules(b->precision, rules);
    soma_scope_spec spec = soma__build_scopes(b, rules, SOMA_PALIGEMMA_RULES);
    soma_scope root = soma_scope_root(graph, &spec);
    const soma_scope *paligemma = soma_scope_in(&root, "paligemma_with_expert.paligemma.model");
    int64_t L = pi0_fast_tokens(c, b->n_tokens, b->saving, b->program == SOMA_PROGRAM_TRAIN);
    const builder m = {.c = c,
                       .b = b,
                       .g = graph,
                       .root = &root,
                       .paligemma = paligemma,
                       .language = soma_scope_in(paligemma, "language_model"),
                       .B = b->batch,
                       .L = L,
                       .S = pi0_fast_pictures(c, b->saving) + L,
                       .G = c->model.info.answer.max};
    switch (b->program) {
    case SOMA_PROGRAM_ENCODE: build_encode(&m); break;
    case SOMA_PROGRAM_DECODE: build_decode(&m); break;
    case SOMA_PROGRAM_TRAIN: build_train(&m); break;
    case SOMA_PROGRAM_SCHEDULE:
    case SOMA_PROGRAM_DENOISE: soma__mistake(graph, "pi0_fast writes its chunk: it decodes and does not denoise"); break;
    }
}
