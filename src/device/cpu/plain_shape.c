// SPDX-License-Identifier: Apache-2.0
// Plain kernels that move and add numbers: concat, pad, sum, table look-ups, store.
#include "device/cpu/plain.h"

// Copies x into out (contiguous, `shape`), beginning at `start` along `dim`.
static void place_in(const cpu_run *run, const soma_tensor *x, const soma_tensor *out, int dim, int64_t start) {
    const void *from = cpu_at(run, x);
    void *to = cpu_at(run, out);
    int64_t index[SOMA_MAX_DIMS] = {0};
    do {
        int64_t at = start * out->stride[dim];
        for (int i = 0; i < x->n_dims; i++) at += index[i] * out->stride[i];
        plain_save(to, out->dtype, at, plain_load(from, x->dtype, plain_offset(x, index, x->n_dims)));
    } while (plain_next(index, x->shape, x->n_dims));
}

void plain_concat(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    int64_t start = 0;
    for (int s = 0; s < SOMA_MAX_SRC && t->src[s]; s++) {
        place_in(run, t->src[s], t, t->p.axis.dim, start);
        start += t->src[s]->shape[t->p.axis.dim];
    }
}

void plain_pad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    memset(cpu_at(run, t), 0, (size_t)soma__numel(t) * soma_dtype_size(t->dtype));
    place_in(run, t->src[0], t, t->p.axis.dim, t->p.axis.before);
}

void plain_store(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0], *row = t->src[2];
    if (!row) {
        place_in(run, x, t, 0, 0);
        return;
    }
    const void *from = cpu_at(run, x);
    const int32_t *first = cpu_at(run, row);
    void *to = cpu_at(run, t);
    int64_t index[SOMA_MAX_DIMS] = {0};
    do {
        int64_t r = first[index[0] * row->stride[0]] + index[1], at = r * t->stride[1];
        if (r < 0 || r >= t->shape[1]) continue;
        for (int i = 0; i < x->n_dims; i++)
            if (i != 1) at += index[i] * t->stride[i];
        plain_save(to, t->dtype, at, plain_load(from, x->dtype, plain_offset(x, index, x->n_dims)));
    } while (plain_next(index, x->shape, x->n_dims));
}

void plain_sum(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    const void *from = cpu_at(run, x);
    float *out = cpu_at(run, t);
    int64_t index[SOMA_MAX_DIMS] = {0}, inner_shape[SOMA_MAX_DIMS], o = 0;
    for (int i = 0; i < x->n_dims; i++) inner_shape[i] = t->p.sum.dims >> i & 1 ? x->shape[i] : 1;
    do {
        int64_t inner[SOMA_MAX_DIMS] = {0};
        double total = 0;
        do {
            int64_t at[SOMA_MAX_DIMS];
            for (int i = 0; i < x->n_dims; i++) at[i] = index[i] + inner[i];
            total += plain_load(from, x->dtype, plain_offset(x, at, x->n_dims));
        } while (plain_next(inner, inner_shape, x->n_dims));
        out[o++] = (float)total;
    } while (plain_next(index, t->shape, t->n_dims));
}

void plain_embed(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *table = t->src[0], *ids = t->src[1];
    const void *rows = cpu_at(run, table);
    const int32_t *id = cpu_at(run, ids);
    void *out = cpu_at(run, t);
    int64_t index[SOMA_MAX_DIMS] = {0}, D = table->shape[1], o = 0;
    do {
        int32_t row = id[plain_offset(ids, index, ids->n_dims)];
        bool inside = row >= 0 && row < table->shape[0];
        for (int64_t d = 0; d < D; d++)
            plain_save(out, t->dtype, o++, inside ? plain_load(rows, table->dtype, row * table->stride[0] + d * table->stride[1]) : 0);
    } while (plain_next(index, ids->shape, ids->n_dims));
}

void plain_embed_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *ids = t->src[0], *dy = t->src[1];
    const int32_t *id = cpu_at(run, ids);
    const void *from = cpu_at(run, dy);
    float *out = cpu_at(run, t);
    int64_t index[SOMA_MAX_DIMS] = {0}, D = t->shape[1];
    memset(out, 0, (size_t)soma__numel(t) * sizeof *out);
    do { // in the order of the ids, so that equal ids add up in a fixed order
        int32_t row = id[plain_offset(ids, index, ids->n_dims)];
        if (row < 0 || row >= t->shape[0]) continue;
        int64_t at = 0;
        for (int i = 0; i < ids->n_dims; i++) at += index[i] * dy->stride[i];
        for (int64_t d = 0; d < D; d++) out[row * D + d] += plain_load(from, dy->dtype, at + d * dy->stride[dy->n_dims - 1]);
    } while (plain_next(index, ids->shape, ids->n_dims));
}
