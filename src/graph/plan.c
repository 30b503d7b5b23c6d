// SPDX-License-Identifier: Apache-2.0
// Makes a plan in five passes: which nodes an output or an effect needs; which intermediates are kept as bf16; which element-wise
// neighbours run as one chain, and behind which product; how long each intermediate lives; where it lies. Memory is reused as soon as the
// last reader has run.
#include "graph/ops.h"
#include "graph/plan.h"

#include <stdlib.h>

typedef struct {
    soma_graph *g;
    bool *needed;
    int *readers; // needed nodes that read a tensor directly; 2 stands for "several"
    int *reader;  // the last of them
    int *step_of; // the step that computes a tensor
    int *last;    // the last step that reads an owner's memory
} draft;

static void draft_free(draft *d) {
    soma__free(d->needed);
    soma__free(d->readers);
    soma__free(d->reader);
    soma__free(d->step_of);
    soma__free(d->last);
}

static soma_status draft_new(draft *d, soma_graph *g, soma_error *err) {
    size_t n = g->n_tensors;
    *d = (draft){g,
                 soma__calloc(n, sizeof *d->needed),
                 soma__calloc(n, sizeof(int)),
                 soma__calloc(n, sizeof(int)),
                 soma__calloc(n, sizeof(int)),
                 soma__calloc(n, sizeof(int))};
    if (d->needed && d->readers && d->reader && d->step_of && d->last) return SOMA_OK;
    draft_free(d);
    return soma__no_memory(err, "planning a graph");
}

static void find_needed(draft *d) {
    soma_graph *g = d->g;
    for (size_t i = g->n_tensors; i-- > 0;) {
        soma_tensor *t = g->tensors[i];
        if (t->is_output || soma__ops[t->op].effect || t->role == SOMA_ROLE_GRAD) d->needed[i] = true;
        if (!d->needed[i]) continue;
        for (int s = 0; s < SOMA_MAX_SRC; s++) {
            if (!t->src[s]) continue;
            int id = t->src[s]->id;
            if (d->needed[id] && d->readers[id] && d->reader[id] != (int)i)
                d->readers[id] = 2;
            else
                d->readers[id] = SOMA_MAX(d->readers[id], 1);
            d->needed[id] = true;
            d->reader[id] = (int)i;
        }
    }
}

// Does t round what its source s gives to bf16, whatever else it does with it?
static bool rounds(const soma_tensor *t, int s) {
    if (t->op == SOMA_OP_MATMUL) return t->p.matmul.product == SOMA_BF16 && s < 2;
    if (t->op == SOMA_OP_ATTENTION || t->op == SOMA_OP_ATTENTION_GRAD) return t->p.attention.product == SOMA_BF16 && (s < 3 || s == 5);
    return false;
}

static bool may_round(const soma_tensor *t) {
    const bool able = soma__ops[t->op].elementwise || t->op == SOMA_OP_RMS_NORM || t->op == SOMA_OP_LAYER_NORM || t->op == SOMA_OP_ROPE ||
                      t->op == SOMA_OP_ATTENTION;
    return able && t->role == SOMA_ROLE_SCRATCH && t->dtype == SOMA_F32;
}

// What all its readers would round is kept rounded: the same bits come out, and half as many go to memory and back.
static soma_status keep_rounded(draft *d, soma_error *err) {
    soma_graph *g = d->g;
    bool *whole = soma__calloc(g->n_tensors, sizeof *whole); // somebody reads all bits of it
    if (!whole) return soma__no_memory(err, "planning a graph");
    for (size_t i = 0; i < g->n_tensors; i++) {
        const soma_tensor *t = g->tensors[i];
        for (int s = 0; s < SOMA_MAX_SRC && d->needed[i] && t->op != SOMA_OP_VIEW; s++)
            if (t->src[s] && !rounds(t, s)) whole[soma__owner(t->src[s])->id] = true;
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        soma_tensor *t = g->tensors[i];
        if (t->op == SOMA_OP_VIEW)
            t->dtype = t->base->dtype;
        else if (d->needed[i] && !whole[i] && may_round(t))
            t->dtype = SOMA_BF16;
    }
    soma__free(whole);
    return SOMA_OK;
}

static bool computes(const soma_tensor *t) { return t->op != SOMA_OP_LEAF && t->op != SOMA_OP_VIEW; }

// May `s` run inside the chain that ends in its only reader `t`? Not when others read it, when it must be seen from outside, when its
// rounding to bf16 would be lost, or when an effect between the two might change what it reads.
static bool fuses(const draft *d, const soma_tensor *s, const soma_tensor *t) {
    if (!soma__ops[t->op].elementwise || d->readers[s->id] != 1) return false;
    if (s->role != SOMA_ROLE_SCRATCH || s->dtype != SOMA_F32 || !soma__same_shape(s, t)) return false;
    for (int i = s->id + 1; i < t->id; i++)
        if (d->needed[i] && soma__ops[d->g->tensors[i]->op].effect) return false;
    return true;
}

// Collects the chain that ends in t, sources before readers; false when it would grow too long.
static bool collect(const draft *d, soma_tensor *t, soma_tensor **nodes, int *n) {
    for (int s = 0; s < SOMA_MAX_SRC; s++) {
        soma_tensor *src = t->src[s];
        bool known = false;
        for (int i = 0; i < *n; i++) known |= nodes[i] == src;
        if (src && !known && soma__ops[src->op].elementwise && fuses(d, src, t) && !collect(d, src, nodes, n)) return false;
    }
    if (*n == SOMA_MAX_CHAIN) return false;
    nodes[(*n)++] = t;
    return true;
}

// The product that the chain follows: of those that it alone reads the last one, put before the chain. Its values lie where the result
// will; before a result of another size they have a place for as long as the step runs.
static void collect_product(const draft *d, soma_tensor **nodes, int *n) {
    soma_tensor *product = NULL, *out = nodes[*n - 1];
    if (*n == SOMA_MAX_CHAIN) return;
    for (int i = 0; i < *n; i++)
        for (int s = 0; s < SOMA_MAX_SRC; s++) {
            soma_tensor *src = nodes[i]->src[s];
            if (src && soma__is_product(src) && fuses(d, src, nodes[i]) && (!product || src->id > product->id)) product = src;
        }
    if (!product) return;
    memmove(nodes + 1, nodes, sizeof *nodes * (size_t)(*n)++);
    nodes[0] = product;
    if (out->dtype == SOMA_F32) product->base = out;
}

static soma_status make_steps(draft *d, soma_plan *plan, soma_error *err) {
    soma_graph *g = d->g;
    plan->steps = soma__calloc(g->n_tensors, sizeof *plan->steps);
    bool *taken = soma__calloc(g->n_tensors, sizeof *taken);
    bool ok = plan->steps && taken;
    // chains are found from their last node backwards, so that each is as long as it can be; the array is turned round afterwards
    for (size_t i = g->n_tensors; ok && i-- > 0;) {
        soma_tensor *t = g->tensors[i], *nodes[SOMA_MAX_CHAIN];
        if (!d->needed[i] || taken[i] || !computes(t)) continue;
        int n = 0;
        if (!soma__ops[t->op].elementwise || !collect(d, t, nodes, &n)) {
            n = 1;
            nodes[0] = t;
        } else
            collect_product(d, nodes, &n);
        soma_step *step = &plan->steps[plan->n_steps++];
        step->n_nodes = n;
        step->nodes = soma__arena_alloc(&g->arena, sizeof *step->nodes * (size_t)n);
        ok = step->nodes != NULL;
        for (int k = 0; ok && k < n; k++) {
            step->nodes[k] = nodes[k];
            taken[nodes[k]->id] = true;
        }
    }
    soma__free(taken);
    if (!ok) return soma__no_memory(err, "planning a graph");
    for (size_t i = 0, j = plan->n_steps; i + 1 < j; i++) {
        soma_step kept = plan->steps[i];
        plan->steps[i] = plan->steps[--j];
        plan->steps[j] = kept;
    }
    return SOMA_OK;
}

static soma_tensor *result(const soma_step *step) { return step->nodes[step->n_nodes - 1]; }

static void find_lifetimes(draft *d, const soma_plan *plan) {
    for (int i = 0; i < (int)plan->n_steps; i++) {
        const soma_step *step = &plan->steps[i];
        d->step_of[step->nodes[0]->id] = d->step_of[result(step)->id] = d->last[result(step)->id] = i;
        for (int k = 0; k < step->n_nodes; k++)
            for (int s = 0; s < SOMA_MAX_SRC; s++)
                if (step->nodes[k]->src[s]) d->last[soma__owner(step->nodes[k]->src[s])->id] = i;
    }
}

static size_t bytes_of(const soma_tensor *t) { return ((size_t)soma__numel(t) * soma_dtype_size(t->dtype) + 63) & ~(size_t)63; }

static int by_size(const void *a, const void *b) {
    const soma_tensor *x = *(soma_tensor *const *)a, *y = *(soma_tensor *const *)b;
    size_t sx = bytes_of(x), sy = bytes_of(y);
    return sx != sy ? (sx < sy) - (sx > sy) : x->id - y->id;
}

static int by_place(const void *a, const void *b) {
    const soma_tensor *x = *(soma_tensor *const *)a, *y = *(soma_tensor *const *)b;
    return (x->place > y->place) - (x->place < y->place);
}

// Largest first, each at the lowest place that no tensor alive at the same time covers.
static soma_status place_scratch(draft *d, soma_plan *plan, soma_error *err) {
    soma_tensor **all = soma__calloc(plan->n_steps * 4 + 1, sizeof(soma_tensor *)), **alive = all ? all + plan->n_steps * 2 : NULL;
    if (!all) return soma__no_memory(err, "planning a graph");
    size_t n = 0;
    for (size_t i = 0; i < plan->n_steps; i++) {
        const soma_step *step = &plan->steps[i];
        soma_tensor *of_step[] = {result(step), soma__step_follows(step) ? step->nodes[0] : NULL};
        for (int k = 0; k < 2; k++)
            if (of_step[k] && of_step[k]->role == SOMA_ROLE_SCRATCH && !of_step[k]->base) all[n++] = of_step[k];
    }
    if (n) qsort(all, n, sizeof *all, by_size);
    for (size_t i = 0; i < n; i++) {
        soma_tensor *t = all[i];
        size_t n_alive = 0;
        for (size_t j = 0; j < i; j++)
            if (d->step_of[all[j]->id] <= d->last[t->id] && d->step_of[t->id] <= d->last[all[j]->id]) alive[n_alive++] = all[j];
        if (n_alive) qsort(alive, n_alive, sizeof *alive, by_place);
        int64_t place = 0, size = (int64_t)bytes_of(t);
        for (size_t j = 0; j < n_alive && alive[j]->place < place + size; j++)
            place = SOMA_MAX(place, alive[j]->place + (int64_t)bytes_of(alive[j]));
        t->place = place;
        plan->size[SOMA_ROLE_SCRATCH] = SOMA_MAX(plan->size[SOMA_ROLE_SCRATCH], (size_t)(place + size));
    }
    soma__free(all);
    return SOMA_OK;
}

static soma_status place_named(soma_graph *g, soma_plan *plan, const soma_layout *weights, const soma_layout *states, soma_error *err) {
    for (size_t i = 0; i < g->n_tensors; i++) {
        soma_tensor *t = g->tensors[i];
        if (t->base) continue;
        if (t->role == SOMA_ROLE_IO) {
            t->place = (int64_t)plan->size[SOMA_ROLE_IO];
            plan->size[SOMA_ROLE_IO] += bytes_of(t);
        }
        if (t->role == SOMA_ROLE_IO || t->role == SOMA_ROLE_SCRATCH) continue;
        const char *name = t->role == SOMA_ROLE_GRAD ? t->grad_of->name : t->name;
        const soma_layout *layout = t->role == SOMA_ROLE_STATE ? states : weights;
        if (layout && t->role == SOMA_ROLE_FROZEN) layout = layout->frozen;
        const soma_slot *slot = layout ? soma__layout_find(layout, name) : NULL;
        if (!slot) return soma__fail(err, SOMA_BAD_GRAPH, "%s: the graph uses it and the layout has no such name", name);
        if (t->role == SOMA_ROLE_GRAD && slot->dtype != SOMA_F32)
            return soma__fail(err, SOMA_BAD_GRAPH, "%s: a trained weight is F32, this one is %s", name, soma_dtype_name(slot->dtype));
        t->place = slot->place;
        t->form = slot->form;
        plan->size[t->role] = layout->size;
    }
    return SOMA_OK;
}

static double flops_of(const soma_tensor *t) {
    double numel = (double)soma__numel(t);
    if (t->op == SOMA_OP_MATMUL || t->op == SOMA_OP_QUANT_MATMUL) return 2 * numel * (double)t->src[0]->shape[t->src[0]->n_dims - 1];
    // each place of the kernel meets each pixel of the smaller picture, or the zeros around it
    if (t->op == SOMA_OP_CONV) return 2 * numel * (double)(soma__numel(t->src[1]) / t->src[1]->shape[0]);
    if (t->op == SOMA_OP_CONV_TRANSPOSED)
        return 2 * (double)soma__numel(t->src[0]) * (double)(soma__numel(t->src[1]) / t->src[1]->shape[0]);
    if (t->op == SOMA_OP_CONV_GRAD) return 2 * (double)soma__numel(t->src[1]) * (double)(numel / (double)t->shape[0]);
    if (t->op == SOMA_OP_ATTENTION) return 4 * numel * (double)t->src[1]->shape[1];
    if (t->op == SOMA_OP_ATTENTION_GRAD) return 10 * (double)soma__numel(t->src[0]) * (double)t->src[1]->shape[1];
    return 0;
}

soma_status soma__plan_make(soma_plan *plan, soma_graph *g, const soma_layout *weights, const soma_layout *states, soma_error *err) {
    if (soma__failed(g)) return soma__fail(err, g->error.code, "%s", g->error.text);
    *plan = (soma_plan){.graph = g};
    draft d;
    SOMA_TRY(draft_new(&d, g, err));
    find_needed(&d);
    soma_status status = keep_rounded(&d, err);
    if (status == SOMA_OK) status = make_steps(&d, plan, err);
    if (status == SOMA_OK) status = place_named(g, plan, weights, states, err);
    if (status == SOMA_OK) {
        find_lifetimes(&d, plan);
        status = place_scratch(&d, plan, err);
    }
    for (size_t i = 0; status == SOMA_OK && i < plan->n_steps; i++) plan->flops += flops_of(plan->steps[i].nodes[0]);
    draft_free(&d);
    return status;
}

const soma_tensor *soma__plan_find(const soma_plan *plan, const char *name) {
    for (size_t i = 0; i < plan->graph->n_tensors; i++) {
        const soma_tensor *t = plan->graph->tensors[i];
        if (t->role == SOMA_ROLE_IO && !t->base && t->name && !strcmp(t->name, name)) return t;
    }
    return NULL;
}
