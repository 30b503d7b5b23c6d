// SPDX-License-Identifier: Apache-2.0
// Views, concatenation and padding: the ops that move no numbers, or only move them.
#include "graph/ops.h"

static soma_tensor *view_of(soma_tensor *x, soma_view_kind kind, int n_dims, const int64_t *shape) {
    soma_tensor *v = soma__node(x->graph, SOMA_OP_VIEW, x->dtype, n_dims, shape);
    if (soma__failed(x->graph)) return v;
    v->src[0] = x;
    v->p.view.kind = kind;
    v->base = x->base ? x->base : x;
    v->offset = x->base ? x->offset : 0;
    return v;
}

soma_tensor *soma_reshape(soma_tensor *x, int n_dims, const int64_t *shape) {
    soma_graph *g = x->graph;
    if (soma__failed(g)) return soma__nothing(g);
    int64_t numel = 1;
    for (int i = 0; i < n_dims; i++) numel *= shape[i];
    char a[96];
    if (numel != soma__numel(x)) return soma__mistake(g, "reshape of %s to %lld values", soma__shape_text(a, x), (long long)numel);
    if (n_dims == x->n_dims && !memcmp(shape, x->shape, sizeof *shape * (size_t)n_dims)) return x;
    return view_of(soma_contiguous(x), SOMA_VIEW_RESHAPE, n_dims, shape);
}

soma_tensor *soma_permute(soma_tensor *x, const int *order) {
    soma_graph *g = x->graph;
    if (soma__failed(g)) return soma__nothing(g);
    int64_t shape[SOMA_MAX_DIMS];
    unsigned seen = 0;
    for (int i = 0; i < x->n_dims; i++) {
        if (order[i] < 0 || order[i] >= x->n_dims || seen & 1u << order[i])
            return soma__mistake(g, "permute: the order is not a permutation");
        seen |= 1u << order[i];
        shape[i] = x->shape[order[i]];
    }
    soma_tensor *v = view_of(x, SOMA_VIEW_PERMUTE, x->n_dims, shape);
    for (int i = 0; i < x->n_dims; i++) {
        v->stride[i] = x->stride[order[i]];
        v->p.view.order[i] = order[i];
    }
    return v;
}

soma_tensor *soma_transpose(soma_tensor *x) {
    if (x->n_dims < 2) return soma__mistake(x->graph, "transpose needs two dimensions");
    int order[SOMA_MAX_DIMS];
    for (int i = 0; i < x->n_dims; i++) order[i] = i;
    order[x->n_dims - 2] = x->n_dims - 1;
    order[x->n_dims - 1] = x->n_dims - 2;
    return soma_permute(x, order);
}

soma_tensor *soma_slice(soma_tensor *x, int dim, int64_t start, int64_t length) {
    soma_graph *g = x->graph;
    if (soma__failed(g)) return soma__nothing(g);
    char a[96];
    if (dim < 0 || dim >= x->n_dims || start < 0 || length < 1 || start > x->shape[dim] - length)
        return soma__mistake(g, "slice of %s: %lld from %lld on along dimension %d", soma__shape_text(a, x), (long long)length,
                             (long long)start, dim);
    if (length == x->shape[dim]) return x;
    int64_t shape[SOMA_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[dim] = length;
    soma_tensor *v = view_of(x, SOMA_VIEW_SLICE, x->n_dims, shape);
    memcpy(v->stride, x->stride, sizeof v->stride);
    v->offset += start * x->stride[dim];
    v->p.view.dim = dim;
    v->p.view.start = start;
    return v;
}

soma_tensor *soma_expand(soma_tensor *x, int n_dims, const int64_t *shape) {
    soma_graph *g = x->graph;
    if (soma__failed(g)) return soma__nothing(g);
    char a[96];
    int extra = n_dims - x->n_dims;
    if (extra < 0) return soma__mistake(g, "expand of %s to %d dimensions", soma__shape_text(a, x), n_dims);
    soma_tensor *v = view_of(x, SOMA_VIEW_EXPAND, n_dims, shape);
    for (int i = 0; i < n_dims && !soma__failed(g); i++) {
        int64_t len = i < extra ? 1 : x->shape[i - extra];
        if (len != 1 && len != shape[i])
            return soma__mistake(g, "expand of %s: dimension %d cannot become %lld", soma__shape_text(a, x), i, (long long)shape[i]);
        v->stride[i] = len == 1 ? 0 : x->stride[i - extra];
    }
    return v;
}

soma_tensor *soma__part(soma_tensor *packed, int64_t start, int n_dims, const int64_t *shape) {
    soma_tensor *v = view_of(packed, SOMA_VIEW_PART, n_dims, shape);
    v->offset += start;
    return v;
}

void soma__grad_view(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *x = t->src[0];
    switch (t->p.view.kind) {
    case SOMA_VIEW_RESHAPE: dsrc[0] = soma_reshape(dy, x->n_dims, x->shape); break;
    case SOMA_VIEW_SLICE: // backward.c joins neighbouring slices before it falls back to this
        dsrc[0] = soma_pad(dy, t->p.view.dim, t->p.view.start, x->shape[t->p.view.dim] - t->p.view.start - t->shape[t->p.view.dim]);
        break;
    case SOMA_VIEW_EXPAND: dsrc[0] = soma__sum_to(dy, x); break;
    case SOMA_VIEW_PERMUTE: {
        int inverse[SOMA_MAX_DIMS];
        for (int i = 0; i < t->n_dims; i++) inverse[t->p.view.order[i]] = i;
        dsrc[0] = soma_permute(dy, inverse);
        break;
    }
    case SOMA_VIEW_PART: soma__mistake(t->graph, "gradients of gradients are not built"); break;
    }
}

// ---- moving numbers

soma_tensor *soma_concat(soma_tensor *const *parts, int n_parts, int dim) {
    soma_graph *g = parts[0]->graph;
    if (soma__failed(g)) return soma__nothing(g);
    if (n_parts < 1 || n_parts > SOMA_MAX_SRC) return soma__mistake(g, "concat of %d parts, possible are 1 to %d", n_parts, SOMA_MAX_SRC);
    if (n_parts == 1) return parts[0];
    int64_t shape[SOMA_MAX_DIMS];
    memcpy(shape, parts[0]->shape, sizeof shape);
    if (dim < 0 || dim >= parts[0]->n_dims) return soma__mistake(g, "concat along dimension %d of %d", dim, parts[0]->n_dims);
    for (int p = 1; p < n_parts; p++) {
        bool fits = parts[p]->n_dims == parts[0]->n_dims && parts[p]->dtype == parts[0]->dtype;
        for (int i = 0; fits && i < parts[0]->n_dims; i++) fits = i == dim || parts[p]->shape[i] == shape[i];
        char a[96], b[96];
        if (!fits)
            return soma__mistake(g, "concat along dimension %d of %s %s and %s %s", dim, soma_dtype_name(parts[0]->dtype),
                                 soma__shape_text(a, parts[0]), soma_dtype_name(parts[p]->dtype), soma__shape_text(b, parts[p]));
        shape[dim] += parts[p]->shape[dim];
    }
    soma_tensor *t = soma__node(g, SOMA_OP_CONCAT, parts[0]->dtype, parts[0]->n_dims, shape);
    for (int p = 0; p < n_parts && !soma__failed(g); p++) t->src[p] = parts[p];
    t->p.axis.dim = dim;
    return t;
}

void soma__grad_concat(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    int64_t start = 0;
    for (int p = 0; p < SOMA_MAX_SRC && t->src[p]; p++) {
        int64_t length = t->src[p]->shape[t->p.axis.dim];
        dsrc[p] = soma_slice(dy, t->p.axis.dim, start, length);
        start += length;
    }
}

soma_tensor *soma_pad(soma_tensor *x, int dim, int64_t before, int64_t after) {
    soma_graph *g = x->graph;
    if (soma__failed(g)) return soma__nothing(g);
    if (dim < 0 || dim >= x->n_dims || before < 0 || after < 0)
        return soma__mistake(g, "pad along dimension %d by %lld and %lld", dim, (long long)before, (long long)after);
    int64_t shape[SOMA_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[dim] += before + after;
    soma_tensor *t = soma__node(g, SOMA_OP_PAD, x->dtype, x->n_dims, shape);
    t->src[0] = x;
    t->p.axis.dim = dim;
    t->p.axis.before = before;
    t->p.axis.after = after;
    return t;
}

void soma__grad_pad(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    dsrc[0] = soma_slice(dy, t->p.axis.dim, t->p.axis.before, t->src[0]->shape[t->p.axis.dim]);
}
