// SPDX-License-Identifier: Apache-2.0
// Reverse mode: walks the nodes from the loss backwards and lets each op build the gradients of its sources. The result is more graph, so
// a device that has the ops can train. What was built in a segment (soma_checkpoint) is built a second time where its values are needed, so
// that the first copy lives no longer than the forward pass reads it.
#include "graph/ops.h"

// What flows into one tensor. Slices of it keep their place, so that slices which tile the tensor are joined instead of padded and added.
typedef struct contribution {
    struct contribution *next;
    soma_tensor *grad;
    const soma_tensor *slice; // the SLICE view it came through, or NULL
} contribution;

typedef struct {
    soma_graph *g;
    contribution **into; // [n] by id, newest first
    bool *wanted;        // [n] a weight or a tensor of interest is upstream
    soma_tensor **twins; // [n] what is computed again in the place of a segment's tensor
    size_t n;
} reverse;

static void contribute(reverse *r, soma_tensor *x, soma_tensor *grad, const soma_tensor *slice) {
    if ((size_t)x->id >= r->n || !r->wanted[x->id] || soma__failed(r->g)) return;
    contribution *c = soma__arena_alloc(&r->g->arena, sizeof *c);
    if (!c) {
        soma__fail(&r->g->error, SOMA_NO_MEMORY, "out of memory for gradients");
        return;
    }
    *c = (contribution){r->into[x->id], grad, slice};
    r->into[x->id] = c;
}

// If every contribution is a slice along one dimension and together they tile the tensor: their concatenation, else NULL.
static soma_tensor *join_slices(const soma_tensor *x, const contribution *list) {
    soma_tensor *parts[SOMA_MAX_SRC];
    int n = 0, dim = list->slice ? list->slice->p.view.dim : -1;
    int64_t at = 0;
    for (bool found = true; found && at < x->shape[dim < 0 ? 0 : dim];) { // the part that begins where the last one ended
        found = false;
        for (const contribution *c = list; c; c = c->next) {
            if (!c->slice || c->slice->p.view.dim != dim || n == SOMA_MAX_SRC) return NULL;
            if (c->slice->p.view.start != at) continue;
            if (found) return NULL;
            found = true;
            parts[n] = c->grad;
        }
        if (found) at += parts[n++]->shape[dim];
    }
    int n_all = 0;
    for (const contribution *c = list; c; c = c->next) n_all++;
    return dim >= 0 && n == n_all && at == x->shape[dim] ? soma_concat(parts, n, dim) : NULL;
}

static soma_tensor *total(reverse *r, soma_tensor *x) {
    contribution *list = r->into[x->id];
    if (!list) return NULL;
    soma_tensor *sum = list->next ? join_slices(x, list) : NULL;
    if (sum) return sum;
    for (contribution *c = list; c; c = c->next) {
        soma_tensor *grad = c->grad;
        if (c->slice) {
            soma_tensor *dsrc[SOMA_MAX_SRC] = {0};
            soma__grad_view((soma_tensor *)c->slice, grad, dsrc);
            grad = dsrc[0];
        }
        sum = sum ? soma_add(sum, grad) : grad;
    }
    return sum;
}

// A weight's gradient lies at the weight's place in the GRAD buffer: a result that is a view or already placed is copied there.
static void bind(soma_tensor *weight, soma_tensor *grad) {
    soma_graph *g = weight->graph;
    char a[96], b[96];
    if (soma__failed(g)) return;
    if (!soma__same_shape(weight, grad)) {
        soma__mistake(g, "the gradient of %s %s has shape %s", weight->name, soma__shape_text(a, weight), soma__shape_text(b, grad));
        return;
    }
    if (grad->op == SOMA_OP_VIEW || grad->op == SOMA_OP_LEAF || grad->role != SOMA_ROLE_SCRATCH || grad->dtype != SOMA_F32) {
        soma_tensor *copy = soma__node(g, SOMA_OP_COPY, SOMA_F32, weight->n_dims, weight->shape);
        copy->src[0] = grad;
        grad = copy;
    }
    if (soma__failed(g)) return;
    grad->role = SOMA_ROLE_GRAD;
    grad->grad_of = weight;
}

static void mark_wanted(reverse *r, soma_tensor *const *wrt, int n_wrt, bool weights) {
    for (int i = 0; i < n_wrt; i++) r->wanted[wrt[i]->id] = true;
    for (size_t i = 0; i < r->n; i++) {
        const soma_tensor *t = r->g->tensors[i];
        if (weights && t->op == SOMA_OP_LEAF && t->role == SOMA_ROLE_WEIGHT && !t->still) r->wanted[i] = true;
        for (int s = 0; s < SOMA_MAX_SRC; s++)
            if (t->src[s] && r->wanted[t->src[s]->id]) r->wanted[i] = true;
    }
}

// The tensor to read t's value from in the backward pass: t, or within a segment its twin, which reads twins as far as the segment goes.
static soma_tensor *twin(reverse *r, soma_tensor *t) {
    if (!t->segment || t->op == SOMA_OP_LEAF || soma__ops[t->op].effect || (size_t)t->id >= r->n || soma__failed(r->g)) return t;
    if (r->twins[t->id]) return r->twins[t->id];
    soma_tensor *src[SOMA_MAX_SRC] = {0}, *base = NULL;
    for (int s = 0; s < SOMA_MAX_SRC; s++)
        if (t->src[s]) src[s] = t->src[s]->segment == t->segment ? twin(r, t->src[s]) : t->src[s];
    if (t->base) base = t->base->segment == t->segment ? twin(r, t->base) : t->base;
    soma_tensor *c = soma__node(r->g, t->op, t->dtype, t->n_dims, t->shape);
    if (soma__failed(r->g)) return t;
    memcpy(c->stride, t->stride, sizeof c->stride);
    memcpy(c->src, src, sizeof src);
    c->p = t->p;
    c->base = base;
    c->offset = t->offset;
    c->near = t->near;
    return r->twins[t->id] = c;
}

static void visit(reverse *r, soma_tensor *t, soma_tensor *dy) {
    if (t->op == SOMA_OP_VIEW && t->p.view.kind == SOMA_VIEW_SLICE) {
        contribute(r, t->src[0], dy, t);
        return;
    }
    if (!soma__ops[t->op].grad) {
        soma__mistake(r->g, "%s has no gradient, and a trainable weight lies behind it", soma__op_name(t->op));
        return;
    }
    soma_tensor *dsrc[SOMA_MAX_SRC] = {0};
    soma__ops[t->op].grad(twin(r, t), dy, dsrc);
    for (int s = 0; s < SOMA_MAX_SRC; s++)
        if (t->src[s] && dsrc[s]) contribute(r, t->src[s], dsrc[s], NULL);
}

static void backward(soma_tensor *loss, soma_tensor *const *wrt, int n_wrt, soma_tensor **grads, bool weights) {
    soma_graph *g = loss->graph;
    for (int i = 0; i < n_wrt; i++) grads[i] = NULL;
    if (soma__failed(g)) return;
    if (soma__numel(loss) != 1) {
        soma__mistake(g, "a loss is one number");
        return;
    }
    soma_checkpoint(g, false);
    reverse r = {.g = g, .n = g->n_tensors};
    r.into = soma__calloc(r.n, sizeof *r.into);
    r.wanted = soma__calloc(r.n, sizeof *r.wanted);
    r.twins = soma__calloc(r.n, sizeof(soma_tensor *));
    if (!r.into || !r.wanted || !r.twins)
        soma__fail(&g->error, SOMA_NO_MEMORY, "out of memory for gradients");
    else {
        mark_wanted(&r, wrt, n_wrt, weights);
        contribute(&r, loss, soma_constant(g, 1, loss->n_dims, loss->shape), NULL);
    }
    for (size_t i = r.n; i-- > 0 && !soma__failed(g);) {
        soma_tensor *t = g->tensors[i], *dy = r.wanted[i] ? total(&r, t) : NULL;
        if (!dy) continue;
        for (int w = 0; w < n_wrt; w++)
            if (wrt[w] == t) grads[w] = dy;
        if (t->op != SOMA_OP_LEAF)
            visit(&r, t, dy);
        else if (t->role == SOMA_ROLE_WEIGHT)
            bind(t, dy);
    }
    soma__free(r.into);
    soma__free(r.wanted);
    soma__free(r.twins);
}

void soma_backward(soma_tensor *loss, soma_tensor *const *wrt, int n_wrt, soma_tensor **grads) { backward(loss, wrt, n_wrt, grads, true); }
void soma_gradient(soma_tensor *y, soma_tensor *const *wrt, int n_wrt, soma_tensor **grads) { backward(y, wrt, n_wrt, grads, false); }
