// SPDX-License-Identifier: Apache-2.0
// Matrix products and table look-ups. Weights keep the published orientation [out, in], so the second factor is always transposed.
#include "graph/ops.h"

static soma_tensor *product_of(soma_op op, soma_tensor *a, soma_tensor *b, soma_tensor *bias) {
    soma_graph *g = a->graph;
    if (soma__failed(g)) return soma__nothing(g);
    int na = a->n_dims, nb = b->n_dims;
    bool fits = na >= 2 && nb >= 2 && a->shape[na - 1] == b->shape[nb - 1] && (nb == 2 || nb == na);
    for (int i = 0; fits && nb > 2 && i < na - 2; i++) fits = a->shape[i] == b->shape[i];
    char ta[96], tb[96], tc[96];
    if (!fits) return soma__mistake(g, "matmul of %s and %s (transposed)", soma__shape_text(ta, a), soma__shape_text(tb, b));
    if (bias && (bias->n_dims != 1 || bias->shape[0] != b->shape[nb - 2]))
        return soma__mistake(g, "matmul of %s and %s with bias %s", soma__shape_text(ta, a), soma__shape_text(tb, b),
                             soma__shape_text(tc, bias));
    int64_t shape[SOMA_MAX_DIMS];
    memcpy(shape, a->shape, sizeof shape);
    shape[na - 1] = b->shape[nb - 2];
    soma_tensor *t = soma__node(g, op, a->dtype == SOMA_BF16 ? SOMA_BF16 : SOMA_F32, na, shape);
    t->src[0] = a;
    t->src[1] = b;
    t->src[2] = bias;
    return t;
}

soma_tensor *soma_matmul(soma_tensor *a, soma_tensor *b, soma_tensor *bias, soma_dtype product) {
    soma_tensor *t = product_of(SOMA_OP_MATMUL, a, b, bias);
    t->p.matmul.product = product;
    return t;
}

soma_tensor *soma_quant_matmul(soma_tensor *a, soma_tensor *b, soma_tensor *bias, soma_quant form) {
    char text[96];
    if (!soma__failed(a->graph) && (b->n_dims != 2 || b->shape[1] > 1 << 16 || form == SOMA_QUANT_NONE))
        return soma__mistake(a->graph, "a quantised product takes a weight [N, K] with K up to 65536, not %s", soma__shape_text(text, b));
    soma_tensor *t = product_of(SOMA_OP_QUANT_MATMUL, a, b, bias);
    t->p.quant.form = form;
    return t;
}

// All but the last dimension become one: [.., M, K] -> [rows, K].
static soma_tensor *rows(soma_tensor *x) {
    int64_t last = x->shape[x->n_dims - 1];
    return soma_reshape(x, 2, (int64_t[]){soma__numel(x) / last, last});
}

void soma__grad_matmul(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *a = t->src[0], *b = t->src[1];
    soma_dtype product = t->p.matmul.product;
    dsrc[0] = soma_matmul(dy, soma_transpose(b), NULL, product); // [.., M, N] x [K, N]
    if (b->n_dims == 2)
        dsrc[1] = soma_matmul(soma_transpose(rows(dy)), soma_transpose(rows(a)), NULL, product);
    else
        dsrc[1] = soma_matmul(soma_transpose(dy), soma_transpose(a), NULL, product);
    if (t->src[2]) {
        soma_tensor *flat = rows(dy);
        dsrc[2] = soma_reshape(soma_sum(flat, 1), 1, t->src[2]->shape);
    }
}

soma_tensor *soma_embed(soma_tensor *table, soma_tensor *ids) {
    soma_graph *g = table->graph;
    if (soma__failed(g)) return soma__nothing(g);
    char a[96], b[96];
    if (table->n_dims != 2 || ids->dtype != SOMA_I32 || ids->n_dims >= SOMA_MAX_DIMS)
        return soma__mistake(g, "embed of table %s by ids %s %s", soma__shape_text(a, table), soma_dtype_name(ids->dtype),
                             soma__shape_text(b, ids));
    int64_t shape[SOMA_MAX_DIMS];
    memcpy(shape, ids->shape, sizeof shape);
    shape[ids->n_dims] = table->shape[1];
    soma_tensor *t = soma__node(g, SOMA_OP_EMBED, table->dtype, ids->n_dims + 1, shape);
    t->src[0] = table;
    t->src[1] = ids;
    return t;
}

void soma__grad_embed(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *d = soma__node(t->graph, SOMA_OP_EMBED_GRAD, SOMA_F32, 2, t->src[0]->shape);
    d->src[0] = t->src[1];
    d->src[1] = dy;
    dsrc[0] = d;
}
