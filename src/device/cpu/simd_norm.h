// SPDX-License-Identifier: Apache-2.0
// RMS and layer norm over the last dimension and their gradients; statistics in f32 by lanes. Rows are taken in fixed groups; the sums over
// rows (dw, db) are partial sums of each group, added in order.
#include "device/cpu/fast.h"
#include "device/cpu/simd_convert.h"

#include <math.h>

typedef struct norm {
    const cpu_run *run;
    simd_rows x, dy;
    const soma_tensor *out;
    char *to;
    const float *w, *b; // f32; NULL when absent
    float *dw, *db;
    float *parts; // [groups][2][D]
    float eps;
    int64_t D, group;
} norm;

static norm norm_open(const cpu_run *run, const soma_tensor *t, const soma_tensor *b, const soma_tensor *dy) {
    norm n = {.run = run, .x = simd_rows_of(run, t->src[0]), .out = t, .to = cpu_at(run, t), .eps = t->p.norm.eps};
    n.D = n.x.D;
    n.group = cpu_norm_group(n.D);
    float *space = (float *)run->shared;
    const soma_tensor *sources[] = {t->src[1], b};
    const float **at[] = {&n.w, &n.b};
    for (int i = 0; i < 2; i++, space += n.D) {
        if (!sources[i]) continue;
        simd_widen(space, cpu_at(run, sources[i]), sources[i]->dtype, n.D);
        *at[i] = space;
    }
    n.parts = space;
    if (dy) n.dy = simd_rows_of(run, dy);
    return n;
}

SIMD_INLINE float sum_of(const float *x, int64_t D, float mean, bool square) {
    vf a = vf_set(0), b = vf_set(0), m = vf_set(mean);
    int64_t i = 0;
    for (; i + 2 * VW <= D; i += 2 * VW) {
        const vf p = vf_load(x + i) - m, q = vf_load(x + i + VW) - m;
        a = vf_fma(p, square ? p : vf_set(1), a);
        b = vf_fma(q, square ? q : vf_set(1), b);
    }
    for (; i < D; i += VW) {
        const int w = (int)SOMA_MIN(VW, D - i);
        const vf p = vf_pick(vm_first(w), vf_get(x + i, w) - m, vf_set(0));
        a = vf_fma(p, square ? p : vf_set(1), a);
    }
    return vf_sum(a + b);
}

// *mean is 0 for an RMS norm.
SIMD_INLINE float inverse_of(const norm *n, const float *x, bool centred, float *mean) {
    *mean = centred ? sum_of(x, n->D, 0, false) / (float)n->D : 0;
    return 1 / sqrtf(sum_of(x, n->D, *mean, true) / (float)n->D + n->eps);
}

SIMD_INLINE void rows_forward(const norm *n, int64_t item, int thread, bool centred) {
    float *own = (float *)(n->run->threads_space + (size_t)thread * n->run->thread_size);
    const int64_t end = SOMA_MIN(n->x.n, (item + 1) * n->group), D = n->D;
    for (int64_t r = item * n->group; r < end; r++) {
        const float *x = simd_row(&n->x, r, own);
        char *to = n->to + r * D * (int64_t)soma_dtype_size(n->out->dtype);
        float *y = n->out->dtype == SOMA_F32 ? (float *)to : own + D, mean;
        const float inverse = inverse_of(n, x, centred, &mean);
        const vf by = vf_set(inverse), m = vf_set(mean), one = vf_set(1);
        SIMD_EACH(i, w, D) {
            vf v = vf_get(x + i, (int)w);
            if (centred)
                v = vf_fma((v - m) * by, vf_get(n->w + i, (int)w), vf_get(n->b + i, (int)w));
            else
                v = v * by * (n->w ? (vf)(one + vf_get(n->w + i, (int)w)) : one);
            vf_put(y + i, v, (int)w);
        }
        simd_narrow(to, n->out->dtype, y, D);
    }
}

// With h = (x - mean) inverse and u = dy (1 + w) or dy w: dx = inverse (u - [mean of u] - h mean of u h), dw = sum dy h, db = sum dy.
SIMD_INLINE void rows_backward(const norm *n, int64_t item, int thread, bool centred) {
    float *own = (float *)(n->run->threads_space + (size_t)thread * n->run->thread_size);
    const int64_t end = SOMA_MIN(n->x.n, (item + 1) * n->group), D = n->D;
    float *dw = n->parts + item * 2 * D, *db = dw + D;
    memset(dw, 0, (size_t)(2 * D) * 4);
    for (int64_t r = item * n->group; r < end; r++) {
        const float *x = simd_row(&n->x, r, own), *dy = simd_row(&n->dy, r, own + D);
        float *dx = (float *)n->to + r * D, mean;
        const float inverse = inverse_of(n, x, centred, &mean);
        const vf by = vf_set(inverse), m = vf_set(mean), one = vf_set(centred ? 0 : 1);
        vf dot = vf_set(0), sum = vf_set(0);
        SIMD_EACH(i, w, D) {
            const vf g = vf_get(dy + i, (int)w), h = (vf_get(x + i, (int)w) - m) * by; // g is zero behind the end
            const vf u = n->w ? (vf)(g * (one + vf_get(n->w + i, (int)w))) : g;
            dot = vf_fma(u, h, dot);
            if (centred) sum += u, vf_put(db + i, vf_get(db + i, (int)w) + g, (int)w);
            if (n->w) vf_put(dw + i, vf_fma(g, h, vf_get(dw + i, (int)w)), (int)w);
        }
        const vf mean_u = vf_set(centred ? vf_sum(sum) / (float)D : 0), mean_uh = vf_set(vf_sum(dot) / (float)D);
        SIMD_EACH(i, w, D) {
            const vf g = vf_get(dy + i, (int)w), h = (vf_get(x + i, (int)w) - m) * by;
            const vf u = n->w ? (vf)(g * (one + vf_get(n->w + i, (int)w))) : g;
            vf_put(dx + i, by * (u - mean_u - h * mean_uh), (int)w);
        }
    }
}

static void rms_item(void *ctx, int64_t item, int thread) { rows_forward(ctx, item, thread, false); }
static void layer_item(void *ctx, int64_t item, int thread) { rows_forward(ctx, item, thread, true); }
static void rms_grad_item(void *ctx, int64_t item, int thread) { rows_backward(ctx, item, thread, false); }
static void layer_grad_item(void *ctx, int64_t item, int thread) { rows_backward(ctx, item, thread, true); }

static void backward(norm *n, soma_pool_fn *item, int n_sums) {
    const int64_t groups = cpu_ceil(n->x.n, n->group);
    soma__pool_run(n->run->pool, groups, item, n);
    float *sums = (float *)n->to + n->x.n * n->D;
    for (int s = 0; s < n_sums; s++) SIMD_EACH(i, w, n->D) {
            vf sum = vf_set(0);
            for (int64_t g = 0; g < groups; g++) sum += vf_get(n->parts + (g * 2 + s) * n->D + i, (int)w);
            vf_put(sums + s * n->D + i, sum, (int)w);
        }
}

void SIMD_NAME(cpu_rms_norm)(const cpu_run *run, const soma_step *step) {
    norm n = norm_open(run, step->nodes[0], NULL, NULL);
    soma__pool_run(run->pool, cpu_ceil(n.x.n, n.group), rms_item, &n);
}

void SIMD_NAME(cpu_layer_norm)(const cpu_run *run, const soma_step *step) {
    norm n = norm_open(run, step->nodes[0], step->nodes[0]->src[2], NULL);
    soma__pool_run(run->pool, cpu_ceil(n.x.n, n.group), layer_item, &n);
}

void SIMD_NAME(cpu_rms_norm_grad)(const cpu_run *run, const soma_step *step) {
    norm n = norm_open(run, step->nodes[0], NULL, step->nodes[0]->src[2]);
    backward(&n, rms_grad_item, n.w ? 1 : 0);
}

void SIMD_NAME(cpu_layer_norm_grad)(const cpu_run *run, const soma_step *step) {
    norm n = norm_open(run, step->nodes[0], NULL, step->nodes[0]->src[2]);
    backward(&n, layer_grad_item, 2);
}
