// SPDX-License-Identifier: Apache-2.0
// Sums over leading, middle or trailing dimensions. Long ones are cut into groups of a fixed size whose sums are added in order.
#include "device/cpu/fast_sum.h"
#include "device/cpu/simd_convert.h"

typedef struct sum {
    const cpu_run *run;
    cpu_sum_shape s;
    const char *x;
    soma_dtype dtype;
    float *parts; // [A][n_groups][N]; the output itself when there is one group
} sum;

SIMD_INLINE vf load_any(const char *p, soma_dtype dtype, int64_t at, int w) {
    if (dtype == SOMA_F32) return vf_get((const float *)p + at, w);
    return w == VW ? vf_load_bf16((const uint16_t *)p + at) : vf_load_bf16_n((const uint16_t *)p + at, w);
}

// Rows of one group added up, four columns' vectors at a time.
SIMD_INLINE void add_rows(const sum *c, float *out, int64_t at, int64_t rows, soma_dtype dtype) {
    const int64_t N = c->s.N;
    int64_t i = 0;
    for (; i + 4 * VW <= N; i += 4 * VW) {
        vf total[4] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)};
        for (int64_t r = 0; r < rows; r++)
            for (int k = 0; k < 4; k++) total[k] += load_any(c->x, dtype, at + r * c->s.r_stride + i + k * VW, VW);
        for (int k = 0; k < 4; k++) vf_store(out + i + k * VW, total[k]);
    }
    for (; i < N; i += VW) {
        const int w = (int)SOMA_MIN(VW, N - i);
        vf total = vf_set(0);
        for (int64_t r = 0; r < rows; r++) total += load_any(c->x, dtype, at + r * c->s.r_stride + i, w);
        vf_put(out + i, total, w);
    }
}

SIMD_INLINE float add_run(const sum *c, int64_t at, int64_t n, soma_dtype dtype) {
    vf total[2] = {vf_set(0), vf_set(0)};
    int64_t i = 0;
    for (; i + 2 * VW <= n; i += 2 * VW)
        for (int k = 0; k < 2; k++) total[k] += load_any(c->x, dtype, at + i + k * VW, VW);
    for (; i < n; i += VW) total[0] += load_any(c->x, dtype, at + i, (int)SOMA_MIN(VW, n - i));
    return vf_sum(total[0] + total[1]);
}

SIMD_INLINE void sum_group(const sum *c, int64_t a, int64_t group, soma_dtype dtype) {
    const cpu_sum_shape *s = &c->s;
    const int64_t rows = SOMA_MIN(s->group, s->R - group * s->group), at = a * s->a_stride + group * s->group * s->r_stride;
    float *out = c->parts + (a * s->n_groups + group) * s->N;
    if (s->N == 1)
        *out = add_run(c, at, rows, dtype);
    else
        add_rows(c, out, at, rows, dtype);
}

static int64_t at_once(const cpu_sum_shape *s) { return SOMA_MAX(1, 8192 / (SOMA_MIN(s->group, s->R) * s->N)); } // groups for one item

static void sum_item(void *ctx, int64_t item, int thread) {
    const sum *c = ctx;
    const int64_t total = c->s.A * c->s.n_groups, end = SOMA_MIN(total, (item + 1) * at_once(&c->s));
    for (int64_t i = item * at_once(&c->s); i < end; i++) {
        if (c->dtype == SOMA_F32)
            sum_group(c, i / c->s.n_groups, i % c->s.n_groups, SOMA_F32);
        else
            sum_group(c, i / c->s.n_groups, i % c->s.n_groups, SOMA_BF16);
    }
}

void SIMD_NAME(cpu_sum)(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    sum c = {.run = run, .x = cpu_at(run, x), .dtype = x->dtype};
    if (!cpu_sum_shape_of(&c.s, t)) return; // was refused by the chooser
    float *out = cpu_at(run, t);
    c.parts = c.s.n_groups == 1 ? out : (float *)run->shared;
    soma__pool_run(run->pool, cpu_ceil(c.s.A * c.s.n_groups, at_once(&c.s)), sum_item, &c);
    if (c.s.n_groups == 1) return;
    for (int64_t a = 0; a < c.s.A; a++) SIMD_EACH(i, w, c.s.N) {
            vf total = vf_set(0);
            for (int64_t g = 0; g < c.s.n_groups; g++) total += vf_get(c.parts + (a * c.s.n_groups + g) * c.s.N + i, (int)w);
            vf_put(out + a * c.s.N + i, total, (int)w);
        }
}
