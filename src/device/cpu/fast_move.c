// SPDX-License-Identifier: Apache-2.0
// Ops that only move bytes, on any processor: concat, pad, store, table look-ups; and the look-up's gradient, which adds rows. Work is cut
// into runs that are contiguous on both sides.
//
// Declined: sources of another dtype than the result, except a look-up in a bf16 table.
#include "device/cpu/fast.h"

#include <string.h>

enum { MOVE_ITEM = 1 << 15 }; // bytes moved by one item

// ---- runs of one tensor into a place of another

typedef struct move {
    const soma_tensor *x;
    const char *from;
    char *to;
    int64_t to_stride[SOMA_MAX_DIMS];
    int run_dim;                  // dimensions from here on are contiguous on both sides
    int64_t run, n_runs, at_once; // elements of a run; runs; runs for one item
} move;

static move move_of(const cpu_run *run, const soma_tensor *x, const soma_tensor *out, int dim, int64_t start) {
    move m = {.x = x, .from = cpu_at(run, x), .run = 1, .n_runs = 1};
    const int64_t size = (int64_t)soma_dtype_size(x->dtype);
    m.to = (char *)cpu_at(run, out) + start * out->stride[dim] * size;
    m.run_dim = x->n_dims;
    for (int d = 0; d < x->n_dims; d++) m.to_stride[d] = out->stride[d];
    while (m.run_dim > 0 && (x->shape[m.run_dim - 1] == 1 || (x->stride[m.run_dim - 1] == m.run && out->stride[m.run_dim - 1] == m.run)))
        m.run *= x->shape[--m.run_dim];
    for (int d = 0; d < m.run_dim; d++) m.n_runs *= x->shape[d];
    m.at_once = SOMA_MAX(1, MOVE_ITEM / SOMA_MAX(1, m.run * size));
    return m;
}

static void move_item(void *ctx, int64_t item, int thread) {
    const move *m = ctx;
    const int64_t size = (int64_t)soma_dtype_size(m->x->dtype), end = SOMA_MIN(m->n_runs, (item + 1) * m->at_once);
    for (int64_t r = item * m->at_once; r < end; r++) {
        int64_t rest = r, from = 0, to = 0;
        for (int d = m->run_dim - 1; d >= 0; rest /= m->x->shape[d--]) {
            from += rest % m->x->shape[d] * m->x->stride[d];
            to += rest % m->x->shape[d] * m->to_stride[d];
        }
        memcpy(m->to + to * size, m->from + from * size, (size_t)(m->run * size));
    }
}

static void move_run(const cpu_run *run, const soma_tensor *x, const soma_tensor *out, int dim, int64_t start) {
    if (soma__numel(x) == 0) return;
    move m = move_of(run, x, out, dim, start);
    soma__pool_run(run->pool, cpu_ceil(m.n_runs, m.at_once), move_item, &m);
}

static void concat(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    const int dim = t->p.axis.dim;
    for (int64_t s = 0, start = 0; s < SOMA_MAX_SRC && t->src[s]; start += t->src[s++]->shape[dim]) move_run(run, t->src[s], t, dim, start);
}

static void store(const cpu_run *run, const soma_step *step) { move_run(run, step->nodes[0]->src[0], step->nodes[0], 0, 0); }

typedef struct zeros {
    char *to;
    size_t before, between, after; // bytes of each outer row: zeros, the source, zeros
} zeros;

static void zero_item(void *ctx, int64_t item, int thread) {
    const zeros *z = ctx;
    char *to = z->to + (size_t)item * (z->before + z->between + z->after);
    memset(to, 0, z->before);
    memset(to + z->before + z->between, 0, z->after);
}

static void pad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    const int dim = t->p.axis.dim;
    const size_t row = (size_t)t->stride[dim] * soma_dtype_size(t->dtype);
    int64_t outer = 1;
    for (int d = 0; d < dim; d++) outer *= t->shape[d];
    zeros z = {cpu_at(run, t), (size_t)t->p.axis.before * row, (size_t)x->shape[dim] * row, (size_t)t->p.axis.after * row};
    soma__pool_run(run->pool, outer, zero_item, &z);
    move_run(run, x, t, dim, t->p.axis.before);
}

static bool same_dtypes(const soma_tensor *t) {
    for (int s = 0; s < SOMA_MAX_SRC && t->src[s]; s++)
        if (t->src[s]->dtype != t->dtype) return false;
    return true;
}

cpu_choice cpu_fast_concat(const soma_step *step, soma_isa isa) { return (cpu_choice){.run = same_dtypes(step->nodes[0]) ? concat : NULL}; }
cpu_choice cpu_fast_pad(const soma_step *step, soma_isa isa) { return (cpu_choice){.run = same_dtypes(step->nodes[0]) ? pad : NULL}; }
cpu_choice cpu_fast_store(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0];
    return (cpu_choice){.run = t->src[0]->dtype == t->dtype && !t->src[2] ? store
                                                                          : NULL}; // rows found at run time are few: left to the plain one
}

// ---- tables

enum { TABLE_PARTS = 8 }; // the gradient's table is cut into so many bands of rows

typedef struct look_up {
    const cpu_run *run;
    const soma_tensor *table, *ids, *dy, *out;
    int64_t n, V, D, at_once;
} look_up;

static int32_t id_at(const look_up *l, int64_t i) {
    int64_t at = 0;
    for (int d = l->ids->n_dims - 1; d >= 0; i /= l->ids->shape[d--]) at += i % l->ids->shape[d] * l->ids->stride[d];
    return ((const int32_t *)cpu_at(l->run, l->ids))[at];
}

static void embed_item(void *ctx, int64_t item, int thread) {
    const look_up *l = ctx;
    const int64_t size = (int64_t)soma_dtype_size(l->out->dtype), end = SOMA_MIN(l->n, (item + 1) * l->at_once);
    for (int64_t i = item * l->at_once; i < end; i++) {
        const int32_t id = id_at(l, i);
        char *to = (char *)cpu_at(l->run, l->out) + i * l->D * size;
        const char *from = (const char *)cpu_at(l->run, l->table) + id * l->table->stride[0] * (int64_t)soma_dtype_size(l->table->dtype);
        if (id < 0 || id >= l->V)
            memset(to, 0, (size_t)(l->D * size));
        else if (l->table->dtype == l->out->dtype)
            memcpy(to, from, (size_t)(l->D * size));
        else
            for (int64_t d = 0; d < l->D; d++) ((float *)to)[d] = cpu_from_bf16(((const uint16_t *)from)[d]);
    }
}

static void embed(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    look_up l = {.run = run, .table = t->src[0], .ids = t->src[1], .out = t, .n = soma__numel(t->src[1]), .V = t->src[0]->shape[0]};
    l.D = t->src[0]->shape[1];
    l.at_once = SOMA_MAX(1, 8192 / l.D);
    soma__pool_run(run->pool, cpu_ceil(l.n, l.at_once), embed_item, &l);
}

// One band of the table: zeros, then the rows of dy whose id falls into it, in the order of the ids.
static void embed_grad_item(void *ctx, int64_t item, int thread) {
    const look_up *l = ctx;
    const int64_t from = item * l->V / TABLE_PARTS, to = (item + 1) * l->V / TABLE_PARTS;
    float *restrict out = cpu_at(l->run, l->out);
    memset(out + from * l->D, 0, (size_t)((to - from) * l->D) * 4);
    for (int64_t i = 0; i < l->n; i++) {
        const int32_t id = id_at(l, i);
        if (id < from || id >= to) continue;
        const float *restrict dy = (const float *)cpu_at(l->run, l->dy) + i * l->D;
        for (int64_t d = 0; d < l->D; d++) out[id * l->D + d] += dy[d];
    }
}

static void embed_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    look_up l = {.run = run, .ids = t->src[0], .dy = t->src[1], .out = t, .n = soma__numel(t->src[0]), .V = t->shape[0], .D = t->shape[1]};
    soma__pool_run(run->pool, TABLE_PARTS, embed_grad_item, &l);
}

cpu_choice cpu_fast_embed(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0], *table = t->src[0];
    const bool fits = table->stride[1] == 1 && (table->dtype == t->dtype || (table->dtype == SOMA_BF16 && t->dtype == SOMA_F32));
    return (cpu_choice){.run = fits ? embed : NULL};
}

cpu_choice cpu_fast_embed_grad(const soma_step *step, soma_isa isa) {
    const soma_tensor *dy = step->nodes[0]->src[1];
    return (cpu_choice){.run = dy->dtype == SOMA_F32 && soma__is_contiguous(dy) ? embed_grad : NULL};
}
