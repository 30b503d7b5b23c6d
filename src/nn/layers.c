// SPDX-License-Identifier: Apache-2.0
// The layers that transformers are made of. Formulas and names follow the published PyTorch models, because their checkpoints are read.
#include "nn/nn.h"

#include <math.h>

soma_tensor *soma_embedding(const soma_scope *s, const char *name, soma_tensor *ids, int64_t V, int64_t D) {
    const soma_scope *at = soma_scope_in(s, "%s", name);
    soma_tensor *table = soma_scope_weight(at, "weight", soma_init_normal(1 / sqrt((double)D)), 2, (int64_t[]){V, D});
    return soma_cast(soma_embed(table, ids), at->precision.activation); // [.., D]
}

soma_tensor *soma_rms_norm(const soma_scope *s, const char *name, soma_tensor *x, float eps) {
    soma_tensor *w = soma_scope_weight(soma_scope_in(s, "%s", name), "weight", soma_init_zero(), 1, &x->shape[x->n_dims - 1]);
    return soma_rms_normalise(x, w, eps);
}

// The product is rounded on its own, as transformers' Llama rounds it: 1 + (w - 1) would lose the last bits of a small w.
soma_tensor *soma_scaled_rms_norm(const soma_scope *s, const char *name, soma_tensor *x, float eps) {
    soma_tensor *w = soma_scope_weight(soma_scope_in(s, "%s", name), "weight", soma_init_one(), 1, &x->shape[x->n_dims - 1]);
    soma_tensor *n = soma_rms_normalise(x, NULL, eps);
    return soma_mul(n, soma_cast(w, n->dtype));
}

soma_tensor *soma_layer_norm(const soma_scope *s, const char *name, soma_tensor *x, float eps) {
    const soma_scope *at = soma_scope_in(s, "%s", name);
    soma_tensor *w = soma_scope_weight(at, "weight", soma_init_one(), 1, &x->shape[x->n_dims - 1]);
    soma_tensor *b = soma_scope_weight(at, "bias", soma_init_zero(), 1, &x->shape[x->n_dims - 1]);
    return soma_layer_normalise(x, w, b, eps);
}

soma_tensor *soma_modulation(const soma_scope *s, const char *name, soma_tensor *cond, int64_t D) {
    return soma_linear_init(soma_scope_in(s, "%s", name), "dense", cond, 3 * D, true, soma_init_zero());
}

soma_normed soma_modulated_norm(soma_tensor *x, soma_tensor *mod, float eps) {
    const int64_t B = x->shape[0], D = x->n_dims == 3 ? x->shape[2] : 0, each = D ? soma__numel(mod) / (3 * D * B) : 0;
    if (x->n_dims != 3 || soma__numel(mod) != B * each * 3 * D || (each != 1 && each != x->shape[1]))
        return (soma_normed){soma__mistake(x->graph, "an adaptive norm takes [B, T, D] and [B, 3D] or [B T, 3D]"), NULL};
    mod = soma_reshape(mod, 3, (int64_t[]){B, each, 3 * D});
    soma_tensor *scale = soma_slice(mod, 2, 0, D), *shift = soma_slice(mod, 2, D, D),
                *gate = soma_slice(mod, 2, 2 * D, D);                         // [B, 1 or T, D]
    soma_tensor *n = soma_rms_normalise(soma_cast(x, mod->dtype), NULL, eps); // [B, T, D]
    soma_tensor *y = soma_add(soma_mul(n, soma_affine(scale, 1, 1)), shift);
    return (soma_normed){soma_cast(y, x->dtype), soma_cast(gate, x->dtype)};
}

soma_normed soma_ada_rms_norm(const soma_scope *s, const char *name, soma_tensor *x, soma_tensor *cond, float eps) {
    if (x->n_dims != 3) return (soma_normed){soma__mistake(s->graph, "an adaptive norm takes [B, T, D]"), NULL};
    return soma_modulated_norm(x, soma_modulation(s, name, cond, x->shape[2]), eps);
}

soma_tensor *soma_heads(soma_tensor *x, int64_t n_heads) {
    if (x->n_dims != 3 || x->shape[2] % n_heads)
        return soma__mistake(x->graph, "a width is split into heads that divide it, from [B, T, H K]");
    return soma_reshape(x, 4, (int64_t[]){x->shape[0], x->shape[1], n_heads, x->shape[2] / n_heads});
}

soma_tensor *soma_merge_heads(soma_tensor *x) {
    return soma_reshape(x, 3, (int64_t[]){x->shape[0], x->shape[1], x->shape[2] * x->shape[3]});
}

soma_tensor *soma_rope(soma_tensor *x, soma_tensor *pos, double theta) { return soma_rotate(x, pos, (float)theta); }

// Block 0 for every token of x [B, T, ..].
static soma_tensor *one_block(soma_tensor *x) { return soma_cast(soma_constant(x->graph, 0, 2, x->shape), SOMA_I32); }

soma_tensor *soma_attention(const soma_scope *s, soma_tensor *q, soma_tensor *k, soma_tensor *v, soma_mask mask) {
    int64_t K = q->n_dims == 4 ? q->shape[3] : 1;
    if (!mask.q_block) mask.q_block = one_block(q);
    if (!mask.k_block) mask.k_block = one_block(k);
    const float scale = (float)(1 / sqrt((double)K));
    return soma_attend_dropped(q, k, v, mask.q_block, mask.k_block, scale, s->precision.product, mask.drop); // [B, T, H, K]
}

soma_tensor *soma_gated_mlp(const soma_scope *s, soma_tensor *x, int64_t F, soma_unary f) {
    int64_t D = x->shape[x->n_dims - 1];
    soma_tensor *gate = soma_apply(soma_linear(s, "gate_proj", x, F, false), f); // [.., F]
    soma_tensor *up = soma_linear(s, "up_proj", x, F, false);                    // [.., F]
    return soma_linear(s, "down_proj", soma_mul(gate, up), D, false);            // [.., D]
}

soma_tensor *soma_mlp(const soma_scope *s, soma_tensor *x, int64_t F) {
    int64_t D = x->shape[x->n_dims - 1];
    return soma_linear(s, "fc2", soma_apply(soma_linear(s, "fc1", x, F, true), SOMA_UNARY_GELU), D, true); // [.., D]
}

soma_tensor *soma_repeat_rows(soma_tensor *x, int64_t R) {
    if (R == 1) return x;
    int64_t shape[SOMA_MAX_DIMS], n = 1;
    for (int i = 0; i < x->n_dims; i++) shape[i] = x->shape[i];
    for (int i = 1; i < x->n_dims; i++) n *= shape[i];
    soma_tensor *rows = soma_reshape(x, 3, (int64_t[]){shape[0], 1, n});
    rows = soma_expand(rows, 3, (int64_t[]){shape[0], R, n});
    shape[0] *= R;
    return soma_reshape(rows, x->n_dims, shape); // [B R, ..]
}
