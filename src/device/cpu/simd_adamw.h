// SPDX-License-Identifier: Apache-2.0
// One AdamW step over flat parameters, in place, bound by memory: each array is read and written once.
#include "device/cpu/fast.h"
#include "device/cpu/simd_convert.h"

enum { ADAMW_ITEM = 1 << 14 };

typedef struct adamw {
    float *w, *m, *v, *ema;
    const float *g, *scalars;
    float gscale;
    int64_t n;
} adamw;

static void adamw_item(void *ctx, int64_t item, int thread) {
    const adamw *a = ctx;
    const float *s = a->scalars;
    const vf lr = vf_set(s[0]), beta1 = vf_set(s[1]), beta2 = vf_set(s[2]), eps = vf_set(s[3]), decay = vf_set(s[4]), c1 = vf_set(s[5]);
    const vf c2 = vf_set(s[6]), keep = vf_set(s[7]), rest1 = vf_set(1 - s[1]), rest2 = vf_set(1 - s[2]), rest = vf_set(1 - s[7]);
    const vf gscale = vf_set(a->gscale);
    const int64_t from = item * ADAMW_ITEM, n = SOMA_MIN(ADAMW_ITEM, a->n - from);
    SIMD_EACH(i, left, n) {
        const int k = (int)left;
        const int64_t at = from + i;
        const vf g = vf_get(a->g + at, k) * gscale;
        const vf m = vf_fma(beta1, vf_get(a->m + at, k), rest1 * g);
        const vf v = vf_fma(beta2, vf_get(a->v + at, k), rest2 * g * g);
        vf w = vf_get(a->w + at, k);
        w = w - lr * vf_fma(decay, w, m * c1 / (vf_sqrt(v * c2) + eps));
        vf_put(a->m + at, m, k);
        vf_put(a->v + at, v, k);
        vf_put(a->w + at, w, k);
        if (a->ema) vf_put(a->ema + at, vf_fma(keep, vf_get(a->ema + at, k), rest * w), k);
    }
}

void SIMD_NAME(cpu_adamw)(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    adamw a = {.w = cpu_at(run, t->src[0]), .g = cpu_at(run, t->src[1]), .m = cpu_at(run, t->src[2]), .v = cpu_at(run, t->src[3])};
    a.ema = t->src[4] ? cpu_at(run, t->src[4]) : NULL;
    a.scalars = cpu_at(run, t->src[5]);
    a.gscale = *(const float *)cpu_at(run, t->src[6]);
    a.n = soma__numel(t->src[0]);
    soma__pool_run(run->pool, cpu_ceil(a.n, ADAMW_ITEM), adamw_item, &a);
    *(float *)cpu_at(run, t) = 0;
}
