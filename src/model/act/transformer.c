// SPDX-License-Identifier: Apache-2.0
// Layers of PyTorch's nn.MultiheadAttention, with q, k and v in one weight, and the post-norm (or pre-norm) blocks that DETR made of them.
#include "model/act/act.h"

#include <math.h>

// Part `from` to `to` of the three of in_proj, applied to x: [B, T, (to - from) D].
static soma_tensor *project(const soma_scope *s, soma_tensor *w, soma_tensor *b, soma_tensor *x, int from, int to) {
    const int64_t D = w->shape[1], n = (to - from) * D;
    return soma_matmul(soma_cast(x, s->precision.activation), soma_slice(w, 0, from * D, n), soma_slice(b, 0, from * D, n),
                       s->precision.product);
}

// q and k of one tensor are one product; so are k and v.
static soma_tensor *attend(const soma_scope *s, soma_tensor *q, soma_tensor *k, soma_tensor *v, soma_mask mask, const act_layer *l) {
    const int64_t D = q->shape[2];
    soma_tensor *w = soma_scope_weight(s, "in_proj_weight", soma_init_normal(1 / sqrt(2.0 * (double)D)), 2, (int64_t[]){3 * D, D});
    soma_tensor *b = soma_scope_weight(s, "in_proj_bias", soma_init_zero(), 1, (int64_t[]){3 * D}), *qk = NULL;
    if (q == k) qk = project(s, w, b, q, 0, 2);
    q = qk ? soma_slice(qk, 2, 0, D) : project(s, w, b, q, 0, 1);
    k = qk ? soma_slice(qk, 2, D, D) : project(s, w, b, k, 1, 2);
    v = project(s, w, b, v, 2, 3);
    mask.drop = l->drop;
    soma_tensor *a = soma_attention(s, soma_heads(q, l->n_heads), soma_heads(k, l->n_heads), soma_heads(v, l->n_heads), mask);
    return soma_dropout(soma_linear(s, "out_proj", soma_merge_heads(a), D, true), l->drop);
}

static soma_tensor *norm(const soma_scope *s, const char *name, soma_tensor *x) { return soma_layer_norm(s, name, x, 1e-5f); }

static soma_tensor *feed_forward(const soma_scope *s, soma_tensor *x, const act_layer *l) {
    soma_tensor *h = soma_dropout(soma_apply(soma_linear(s, "linear1", x, l->mlp, true), SOMA_UNARY_RELU), l->drop);
    return soma_dropout(soma_linear(s, "linear2", h, x->shape[2], true), l->drop);
}

soma_tensor *act_encoder_layer(const soma_scope *s, soma_tensor *x, soma_tensor *pos, soma_mask mask, const act_layer *l) {
    soma_tensor *h = l->pre_norm ? norm(s, "norm1", x) : x, *at = soma_add(h, pos);
    x = soma_add(x, attend(soma_scope_in(s, "self_attn"), at, at, h, mask, l));
    if (l->pre_norm) return soma_add(x, feed_forward(s, norm(s, "norm2", x), l));
    x = norm(s, "norm1", x);
    return norm(s, "norm2", soma_add(x, feed_forward(s, x, l)));
}

soma_tensor *act_decoder_layer(const soma_scope *s, soma_tensor *x, soma_tensor *pos, soma_tensor *memory, soma_tensor *memory_pos,
                               const act_layer *l) {
    soma_tensor *h = l->pre_norm ? norm(s, "norm1", x) : x, *at = soma_add(h, pos);
    x = soma_add(x, attend(soma_scope_in(s, "self_attn"), at, at, h, (soma_mask){0}, l));
    h = l->pre_norm ? norm(s, "norm2", x) : (x = norm(s, "norm1", x));
    x = soma_add(x, attend(soma_scope_in(s, "multihead_attn"), soma_add(h, pos), soma_add(memory, memory_pos), memory, (soma_mask){0}, l));
    if (l->pre_norm) return soma_add(x, feed_forward(s, norm(s, "norm3", x), l));
    x = norm(s, "norm2", x);
    return norm(s, "norm3", soma_add(x, feed_forward(s, x, l)));
}
