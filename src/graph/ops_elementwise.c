// SPDX-License-Identifier: Apache-2.0
// Element-wise ops and sums. Results are f32 when any source is; otherwise of the first source's dtype.
#include "graph/ops.h"

static soma_tensor *binary(soma_op op, soma_tensor *a, soma_tensor *b) {
    soma_graph *g = a->graph;
    if (soma__failed(g)) return soma__nothing(g);
    int n_dims = SOMA_MAX(a->n_dims, b->n_dims);
    int64_t shape[SOMA_MAX_DIMS];
    for (int i = 0; i < n_dims; i++) {
        int ia = i - (n_dims - a->n_dims), ib = i - (n_dims - b->n_dims);
        int64_t la = ia < 0 ? 1 : a->shape[ia], lb = ib < 0 ? 1 : b->shape[ib];
        char ta[96], tb[96];
        if (la != lb && la != 1 && lb != 1)
            return soma__mistake(g, "%s of %s and %s", soma__op_name(op), soma__shape_text(ta, a), soma__shape_text(tb, b));
        shape[i] = SOMA_MAX(la, lb);
    }
    if ((a->dtype != SOMA_F32 && a->dtype != SOMA_BF16) || (b->dtype != SOMA_F32 && b->dtype != SOMA_BF16))
        return soma__mistake(g, "%s of %s and %s: cast to F32 or BF16 first", soma__op_name(op), soma_dtype_name(a->dtype),
                             soma_dtype_name(b->dtype));
    soma_tensor *t = soma__node(g, op, a->dtype == SOMA_F32 || b->dtype == SOMA_F32 ? SOMA_F32 : SOMA_BF16, n_dims, shape);
    t->src[0] = a;
    t->src[1] = b;
    return t;
}

soma_tensor *soma_add(soma_tensor *a, soma_tensor *b) { return binary(SOMA_OP_ADD, a, b); }
soma_tensor *soma_sub(soma_tensor *a, soma_tensor *b) { return binary(SOMA_OP_SUB, a, b); }
soma_tensor *soma_mul(soma_tensor *a, soma_tensor *b) { return binary(SOMA_OP_MUL, a, b); }
soma_tensor *soma_div(soma_tensor *a, soma_tensor *b) { return binary(SOMA_OP_DIV, a, b); }

void soma__grad_add(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    dsrc[0] = soma__sum_to(dy, t->src[0]);
    dsrc[1] = soma__sum_to(dy, t->src[1]);
}

void soma__grad_sub(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    dsrc[0] = soma__sum_to(dy, t->src[0]);
    dsrc[1] = soma_affine(soma__sum_to(dy, t->src[1]), -1, 0);
}

void soma__grad_mul(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    dsrc[0] = soma__sum_to(soma_mul(dy, t->src[1]), t->src[0]);
    dsrc[1] = soma__sum_to(soma_mul(dy, t->src[0]), t->src[1]);
}

void soma__grad_div(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *q = soma_div(dy, t->src[1]);
    dsrc[0] = soma__sum_to(q, t->src[0]);
    dsrc[1] = soma_affine(soma__sum_to(soma_mul(q, t), t->src[1]), -1, 0); // d(a/b)/db = -(a/b)/b
}

soma_tensor *soma_affine(soma_tensor *x, float scale, float shift) {
    soma_tensor *t = soma__node(x->graph, SOMA_OP_AFFINE, x->dtype == SOMA_BF16 ? SOMA_BF16 : SOMA_F32, x->n_dims, x->shape);
    t->src[0] = x;
    t->p.affine.scale = scale;
    t->p.affine.shift = shift;
    return t;
}

void soma__grad_affine(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) { dsrc[0] = soma_affine(dy, t->p.affine.scale, 0); }

soma_tensor *soma_apply(soma_tensor *x, soma_unary f) {
    soma_tensor *t = soma__node(x->graph, SOMA_OP_UNARY, x->dtype, x->n_dims, x->shape);
    if (x->dtype != SOMA_F32 && x->dtype != SOMA_BF16)
        return soma__mistake(x->graph, "a function of %s: cast first", soma_dtype_name(x->dtype));
    t->src[0] = x;
    t->p.unary.f = f;
    return t;
}

void soma__grad_unary(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *d = soma__node(t->graph, SOMA_OP_UNARY_GRAD, SOMA_F32, t->n_dims, t->shape);
    d->src[0] = t->src[0];
    d->src[1] = dy;
    d->p = t->p;
    dsrc[0] = d;
}

static soma_tensor *copy(soma_tensor *x, soma_dtype dtype) {
    soma_tensor *t = soma__node(x->graph, SOMA_OP_COPY, dtype, x->n_dims, x->shape);
    t->src[0] = x;
    return t;
}

soma_tensor *soma_cast(soma_tensor *x, soma_dtype dtype) { return x->dtype == dtype ? x : copy(x, dtype); }
soma_tensor *soma_contiguous(soma_tensor *x) { return soma__is_contiguous(x) ? x : copy(x, x->dtype); }
void soma__grad_copy(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) { dsrc[0] = dy; } // gradients stay f32 whatever the cast

// ---- dropout

bool soma__drop_fits(soma_graph *g, soma_drop d) {
    char a[96];
    if (d.rate > 0 && d.rate < 1 && d.key->dtype == SOMA_I32 && d.key->n_dims == 1 && d.key->shape[0] == 2 && d.key->stride[0] == 1)
        return !soma__failed(g);
    soma__mistake(g, "dropout of %g with a key %s %s", (double)d.rate, soma_dtype_name(d.key->dtype), soma__shape_text(a, d.key));
    return false;
}

static soma_tensor *dropout(soma_tensor *x, soma_tensor *key, soma_op_params p) {
    x = soma_contiguous(x);
    soma_tensor *t = soma__node(x->graph, SOMA_OP_DROPOUT, x->dtype, x->n_dims, x->shape);
    t->src[0] = x;
    t->src[1] = key;
    t->p = p;
    return t;
}

soma_tensor *soma_dropout(soma_tensor *x, soma_drop d) {
    if (!d.key || d.rate == 0) return x;
    if (!soma__drop_fits(x->graph, d)) return soma__nothing(x->graph);
    return dropout(x, d.key, (soma_op_params){.drop = {d.rate, (int)x->graph->n_tensors}});
}

void soma__grad_dropout(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) { dsrc[0] = dropout(dy, t->src[1], t->p); }

// ---- sums

soma_tensor *soma_sum(soma_tensor *x, uint32_t dims) {
    soma_graph *g = x->graph;
    if (soma__failed(g)) return soma__nothing(g);
    int64_t shape[SOMA_MAX_DIMS];
    bool any = false;
    for (int i = 0; i < x->n_dims; i++) {
        bool summed = dims >> i & 1;
        shape[i] = summed ? 1 : x->shape[i];
        any |= summed && x->shape[i] > 1;
    }
    if (dims >> x->n_dims) return soma__mistake(g, "sum over a dimension that a tensor of %d has not", x->n_dims);
    if (!any) return soma_cast(x, SOMA_F32);
    soma_tensor *t = soma__node(g, SOMA_OP_SUM, SOMA_F32, x->n_dims, shape);
    t->src[0] = x;
    t->p.sum.dims = dims;
    return t;
}

void soma__grad_sum(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) { dsrc[0] = soma_expand(dy, t->src[0]->n_dims, t->src[0]->shape); }

soma_tensor *soma_mean_all(soma_tensor *x) {
    float n = (float)soma__numel(x);
    soma_tensor *s = soma_sum(x, (1u << x->n_dims) - 1);
    return soma_affine(soma_reshape(s, 1, (int64_t[]){1}), 1 / n, 0);
}

soma_tensor *soma__sum_to(soma_tensor *x, const soma_tensor *like) {
    if (soma__failed(x->graph) || soma__same_shape(x, like)) return x;
    uint32_t dims = 0;
    int extra = x->n_dims - like->n_dims;
    for (int i = 0; i < x->n_dims; i++)
        if (i < extra || (like->shape[i - extra] == 1 && x->shape[i] > 1)) dims |= 1u << i;
    return soma_reshape(soma_sum(x, dims), like->n_dims, like->shape);
}
