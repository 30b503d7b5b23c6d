// SPDX-License-Identifier: Apache-2.0
// Pooling over contiguous f32 pictures, on any processor: an item is a row of the result, or, for the gradient, whose windows overlap, a
// picture. Channels are innermost and independent, so that the compiler makes vectors of them.
#include "device/cpu/fast.h"

#include <string.h>

// The build's -O2 makes no vectors; here they are all of the time.
#define AS_VECTORS __attribute__((optimize("O3")))

typedef struct pool {
    const soma_window *w;
    int64_t H, W, C, rows, columns; // rows, columns: places of the window
    const float *x, *dy;
    float *out;
    int32_t *best; // of each thread: which place, by channel
    size_t thread_size;
} pool;

static pool pool_of(const cpu_run *run, const soma_tensor *x, const soma_tensor *windows, const soma_tensor *t) {
    return (pool){.w = &t->p.conv.window,
                  .H = x->shape[1],
                  .W = x->shape[2],
                  .C = x->shape[3],
                  .rows = windows->shape[1],
                  .columns = windows->shape[2],
                  .x = cpu_at(run, x),
                  .out = cpu_at(run, t),
                  .best = (int32_t *)run->threads_space,
                  .thread_size = run->thread_size};
}

// The part of the window at (i, j) that lies in the picture: rows and columns from, to.
typedef struct part {
    int64_t from[2], to[2];
} part;
static part part_of(const pool *p, int64_t i, int64_t j) {
    const int64_t at[2] = {i * p->w->stride[0] - p->w->pad[0], j * p->w->stride[1] - p->w->pad[1]}, length[2] = {p->H, p->W};
    part r;
    for (int d = 0; d < 2; d++) {
        r.from[d] = SOMA_MAX(0, at[d]);
        r.to[d] = SOMA_MIN(length[d], at[d] + p->w->size[d]);
    }
    return r;
}

AS_VECTORS static void keep_larger(float *restrict top, const float *restrict x, int64_t n) {
    for (int64_t c = 0; c < n; c++) top[c] = x[c] > top[c] || x[c] != x[c] ? x[c] : top[c];
}

static void row_item(void *ctx, int64_t item, int thread) {
    const pool *p = ctx;
    const float *x = p->x + item / p->rows * p->H * p->W * p->C;
    for (int64_t j = 0; j < p->columns; j++) {
        const part r = part_of(p, item % p->rows, j);
        float *out = p->out + (item * p->columns + j) * p->C;
        memcpy(out, x + (r.from[0] * p->W + r.from[1]) * p->C, (size_t)p->C * sizeof *out);
        for (int64_t y = r.from[0]; y < r.to[0]; y++)
            for (int64_t z = r.from[1]; z < r.to[1]; z++) keep_larger(out, x + (y * p->W + z) * p->C, p->C);
    }
}

AS_VECTORS static void find_larger(float *restrict top, int32_t *restrict best, const float *restrict x, int32_t place, int64_t n) {
    for (int64_t c = 0; c < n; c++) {
        const int32_t larger = -((x[c] > top[c]) | (x[c] != x[c])); // a mask: with conditions the compiler branches here, four times slower
        best[c] = (place & larger) | (best[c] & ~larger);
        top[c] = x[c] > top[c] || x[c] != x[c] ? x[c] : top[c];
    }
}

static void picture_item(void *ctx, int64_t item, int thread) {
    const pool *p = ctx;
    const float *x = p->x + item * p->H * p->W * p->C, *dy = p->dy + item * p->rows * p->columns * p->C;
    float *dx = p->out + item * p->H * p->W * p->C;
    int32_t *best = (int32_t *)((char *)p->best + (size_t)thread * p->thread_size);
    float *top = (float *)(best + p->C);
    memset(dx, 0, (size_t)(p->H * p->W * p->C) * sizeof *dx);
    for (int64_t i = 0; i < p->rows; i++)
        for (int64_t j = 0; j < p->columns; j++, dy += p->C) {
            const part r = part_of(p, i, j);
            const int32_t first = (int32_t)(r.from[0] * p->W + r.from[1]);
            memcpy(top, x + first * p->C, (size_t)p->C * sizeof *top);
            for (int64_t c = 0; c < p->C; c++) best[c] = first;
            for (int64_t y = r.from[0]; y < r.to[0]; y++)
                for (int64_t z = r.from[1]; z < r.to[1]; z++)
                    find_larger(top, best, x + (y * p->W + z) * p->C, (int32_t)(y * p->W + z), p->C);
            for (int64_t c = 0; c < p->C; c++) dx[best[c] * p->C + c] += dy[c];
        }
}

static bool fits(const soma_tensor *t) { return t->dtype == SOMA_F32 && soma__is_contiguous(t); }

static void max_pool(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    pool p = pool_of(run, t->src[0], t, t);
    soma__pool_run(run->pool, t->shape[0] * p.rows, row_item, &p);
}

static void max_pool_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    pool p = pool_of(run, t->src[0], t->src[1], t);
    p.dy = cpu_at(run, t->src[1]);
    soma__pool_run(run->pool, t->shape[0], picture_item, &p);
}

cpu_choice cpu_fast_max_pool(const soma_step *step, soma_isa isa) {
    return (cpu_choice){.run = fits(step->nodes[0]) && fits(step->nodes[0]->src[0]) ? max_pool : NULL};
}

cpu_choice cpu_fast_max_pool_grad(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    const bool ok = fits(x) && fits(t->src[1]) && x->shape[1] * x->shape[2] < INT32_MAX;
    return (cpu_choice){.run = ok ? max_pool_grad : NULL, .thread_size = (size_t)x->shape[3] * 8};
}
