// SPDX-License-Identifier: Apache-2.0
// Rotary positions, attention with block masks, time embedding.
#include "graph/ops.h"

static soma_tensor *rope(soma_tensor *x, soma_tensor *pos, float theta, int sign) {
    soma_tensor *t = soma__node(x->graph, SOMA_OP_ROPE, x->dtype, x->n_dims, x->shape);
    t->src[0] = x;
    t->src[1] = pos;
    t->p.rope.theta = theta;
    t->p.rope.sign = sign;
    return t;
}

soma_tensor *soma_rotate(soma_tensor *x, soma_tensor *pos, float theta) {
    char a[96], b[96];
    if (x->n_dims != 4 || pos->n_dims != 2 || pos->dtype != SOMA_I32 || pos->shape[0] != x->shape[0] || pos->shape[1] != x->shape[1] ||
        x->shape[3] % 2)
        return soma__mistake(x->graph, "rope of %s at positions %s %s", soma__shape_text(a, x), soma_dtype_name(pos->dtype),
                             soma__shape_text(b, pos));
    return rope(x, pos, theta, 1);
}

void soma__grad_rope(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    dsrc[0] = rope(dy, t->src[1], t->p.rope.theta, -t->p.rope.sign); // a rotation's transpose turns the other way
}

soma_tensor *soma_attend(soma_tensor *q, soma_tensor *k, soma_tensor *v, soma_tensor *q_block, soma_tensor *k_block, float scale,
                         soma_dtype product) {
    return soma_attend_dropped(q, k, v, q_block, k_block, scale, product, (soma_drop){0});
}

soma_tensor *soma_attend_dropped(soma_tensor *q, soma_tensor *k, soma_tensor *v, soma_tensor *q_block, soma_tensor *k_block, float scale,
                                 soma_dtype product, soma_drop drop) {
    soma_graph *g = q->graph;
    if (soma__failed(g)) return soma__nothing(g);
    bool fits = q->n_dims == 4 && k->n_dims == 4 && soma__same_shape(k, v) && q->shape[0] == k->shape[0] && q->shape[3] == k->shape[3] &&
                q->shape[2] % k->shape[2] == 0 && q_block->n_dims == 2 && k_block->n_dims == 2 && q_block->dtype == SOMA_I32 &&
                k_block->dtype == SOMA_I32 && q_block->shape[0] == q->shape[0] && q_block->shape[1] == q->shape[1] &&
                k_block->shape[0] == k->shape[0] && k_block->shape[1] == k->shape[1];
    char a[96], b[96], c[96], d[96];
    if (!fits)
        return soma__mistake(g, "attention of q %s, k %s with blocks %s, %s", soma__shape_text(a, q), soma__shape_text(b, k),
                             soma__shape_text(c, q_block), soma__shape_text(d, k_block));
    soma_tensor *t = soma__node(g, SOMA_OP_ATTENTION, q->dtype, 4, q->shape);
    soma_tensor *src[] = {q, k, v, q_block, k_block};
    memcpy(t->src, src, sizeof src);
    t->p.attention.scale = scale;
    t->p.attention.product = product;
    if (!drop.key || drop.rate == 0 || !soma__drop_fits(g, drop)) return t;
    t->src[7] = drop.key;
    t->p.attention.drop = (soma_drop_place){drop.rate, t->id};
    return t;
}

void soma__grad_attention(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *q = t->src[0], *k = t->src[1];
    int64_t nq = soma__numel(q), nk = soma__numel(k);
    soma_tensor *d = soma__node(t->graph, SOMA_OP_ATTENTION_GRAD, SOMA_F32, 1, (int64_t[]){nq + 2 * nk});
    memcpy(d->src, t->src, 5 * sizeof *d->src);
    d->src[5] = dy;
    d->src[7] = t->src[7];
    d->p = t->p;
    dsrc[0] = soma__part(d, 0, 4, q->shape);
    dsrc[1] = soma__part(d, nq, 4, k->shape);
    dsrc[2] = soma__part(d, nq + nk, 4, k->shape);
}

soma_tensor *soma_time_embed(soma_tensor *t, int64_t D, double min_period, double max_period) {
    if (t->n_dims != 1 || D < 4 || D % 2) return soma__mistake(t->graph, "time_embed of %lld values wide", (long long)D);
    soma_tensor *e = soma__node(t->graph, SOMA_OP_TIME_EMBED, SOMA_F32, 2, (int64_t[]){t->shape[0], D});
    e->src[0] = t;
    e->p.time.min_period = min_period;
    e->p.time.max_period = max_period;
    return e;
}
