// SPDX-License-Identifier: Apache-2.0
// Normalisation over the last dimension. Statistics are f32 whatever the dtype.
#include "graph/ops.h"

static bool is_row(const soma_tensor *w, const soma_tensor *x) { return w->n_dims == 1 && w->shape[0] == x->shape[x->n_dims - 1]; }

soma_tensor *soma_rms_normalise(soma_tensor *x, soma_tensor *w, float eps) {
    char a[96], b[96];
    if (w && !is_row(w, x)) return soma__mistake(x->graph, "rms_norm of %s with weight %s", soma__shape_text(a, x), soma__shape_text(b, w));
    soma_tensor *t = soma__node(x->graph, SOMA_OP_RMS_NORM, x->dtype, x->n_dims, x->shape);
    t->src[0] = x;
    t->src[1] = w;
    t->p.norm.eps = eps;
    return t;
}

soma_tensor *soma_layer_normalise(soma_tensor *x, soma_tensor *w, soma_tensor *b, float eps) {
    char a[96], c[96];
    if (!is_row(w, x) || !is_row(b, x))
        return soma__mistake(x->graph, "layer_norm of %s with weight %s", soma__shape_text(a, x), soma__shape_text(c, w));
    soma_tensor *t = soma__node(x->graph, SOMA_OP_LAYER_NORM, x->dtype, x->n_dims, x->shape);
    t->src[0] = x;
    t->src[1] = w;
    t->src[2] = b;
    t->p.norm.eps = eps;
    return t;
}

static soma_tensor *packed_gradient(soma_op op, soma_tensor *t, soma_tensor *dy, int n_rows) {
    int64_t numel = soma__numel(t), D = t->shape[t->n_dims - 1];
    soma_tensor *d = soma__node(t->graph, op, SOMA_F32, 1, (int64_t[]){numel + n_rows * D});
    d->src[0] = t->src[0];
    d->src[1] = t->src[1];
    d->src[2] = dy;
    d->p = t->p;
    return d;
}

void soma__grad_rms_norm(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *d = packed_gradient(SOMA_OP_RMS_NORM_GRAD, t, dy, t->src[1] ? 1 : 0);
    dsrc[0] = soma__part(d, 0, t->n_dims, t->shape);
    if (t->src[1]) dsrc[1] = soma__part(d, soma__numel(t), 1, t->src[1]->shape);
}

void soma__grad_layer_norm(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *d = packed_gradient(SOMA_OP_LAYER_NORM_GRAD, t, dy, 2);
    int64_t numel = soma__numel(t), D = t->shape[t->n_dims - 1];
    dsrc[0] = soma__part(d, 0, t->n_dims, t->shape);
    dsrc[1] = soma__part(d, numel, 1, &D);
    dsrc[2] = soma__part(d, numel + D, 1, &D);
}

soma_tensor *soma_softmax(soma_tensor *x) {
    soma_tensor *t = soma__node(x->graph, SOMA_OP_SOFTMAX, SOMA_F32, x->n_dims, x->shape);
    t->src[0] = x;
    return t;
}

void soma__grad_softmax(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) { // dx = y (dy - sum(dy y))
    soma_tensor *weighed = soma_mul(dy, t);
    dsrc[0] = soma_sub(weighed, soma_mul(t, soma_sum(weighed, 1u << (t->n_dims - 1))));
}
