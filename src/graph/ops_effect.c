// SPDX-License-Identifier: Apache-2.0
// Ops that write memory which outlives the run: states and the optimiser's step. Never removed, never reordered.
#include "graph/ops.h"

static soma_tensor *store(soma_tensor *x, soma_tensor *into, soma_tensor *row, bool fits) {
    soma_graph *g = x->graph;
    const soma_tensor *owner = soma__owner(into);
    char a[96], b[96];
    if (owner->role != SOMA_ROLE_STATE || !fits)
        return soma__mistake(g, "store of %s into %s%s", soma__shape_text(a, x), soma__shape_text(b, into),
                             owner->role == SOMA_ROLE_STATE ? "" : ", which is no state");
    soma_tensor *t = soma__node(g, SOMA_OP_STORE, into->dtype, into->n_dims, into->shape);
    if (soma__failed(g)) return t;
    t->src[0] = x;
    t->src[1] = into;
    t->src[2] = row;
    t->base = into->base ? into->base : into;
    t->offset = into->base ? into->offset : 0;
    memcpy(t->stride, into->stride, sizeof t->stride);
    return t;
}

soma_tensor *soma_store(soma_tensor *x, soma_tensor *into) {
    return soma__failed(x->graph) ? soma__nothing(x->graph) : store(x, into, NULL, soma__same_shape(x, into));
}

soma_tensor *soma_store_rows(soma_tensor *x, soma_tensor *into, soma_tensor *row) {
    if (soma__failed(x->graph)) return soma__nothing(x->graph);
    bool fits = x->n_dims == into->n_dims && x->n_dims >= 2 && row->n_dims == 1 && row->dtype == SOMA_I32 && row->shape[0] == x->shape[0];
    for (int i = 0; fits && i < x->n_dims; i++) fits = i == 1 ? x->shape[i] <= into->shape[i] : x->shape[i] == into->shape[i];
    return store(x, into, row, fits);
}

soma_tensor *soma_adamw(soma_tensor *w, soma_tensor *g, soma_tensor *m, soma_tensor *v, soma_tensor *ema, soma_tensor *scalars,
                        soma_tensor *gscale) {
    soma_tensor *src[] = {w, g, m, v, ema, scalars, gscale};
    int64_t n = soma__numel(w);
    for (int i = 0; i < 5; i++)
        if (src[i] && (soma__numel(src[i]) != n || src[i]->dtype != SOMA_F32 || !soma__is_contiguous(src[i])))
            return soma__mistake(w->graph, "adamw: source %d is not %lld contiguous F32 values", i, (long long)n);
    if (soma__numel(scalars) != 8 || soma__numel(gscale) != 1) return soma__mistake(w->graph, "adamw: 8 scalars and 1 factor are needed");
    soma_tensor *t = soma__node(w->graph, SOMA_OP_ADAMW, SOMA_F32, 1, (int64_t[]){1});
    if (!soma__failed(w->graph)) memcpy(t->src, src, sizeof src);
    return t;
}
