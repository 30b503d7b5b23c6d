// SPDX-License-Identifier: Apache-2.0
// Rows of attention scores on vectors.
#include "device/cpu/fast_attention.h"
#include "device/cpu/simd_math.h"

// Scaled scores of VW keys, -infinity where the query does not see them and behind the last key.
SIMD_INLINE vf seen(const float *s, const int32_t *k_block, vi q_block, vf scale, int w) {
    const vf none = vf_set(-__builtin_inff());
    const vf x = vf_pick(vm_greater_i(w == VW ? vi_load(k_block) : vi_load_n(k_block, w), q_block), none,
                         (w == VW ? vf_load(s) : vf_load_n(s, w)) * scale);
    return w == VW ? x : vf_pick(vm_first(w), x, none);
}

static float forward(float *s, int64_t n, const int32_t *k_block, int32_t q_block, float scale) {
    const vi q = vi_set(q_block);
    const vf by = vf_set(scale);
    vf top = vf_set(-__builtin_inff()), sum = vf_set(0);
    for (int64_t i = 0; i < n; i += VW) top = vf_max(top, seen(s + i, k_block + i, q, by, (int)SOMA_MIN(VW, n - i)));
    const float largest = vf_largest(top);
    if (largest == -__builtin_inff()) { // none is seen
        for (int64_t i = 0; i < n; i++) s[i] = 0;
        return 0;
    }
    for (int64_t i = 0; i < n; i += VW) {
        const int w = (int)SOMA_MIN(VW, n - i);
        const vf x = seen(s + i, k_block + i, q, by, w);
        const vf e = vf_pick(vm_less(x, vf_set(-3e38f)), vf_set(0), vf_exp(x - vf_set(largest)));
        sum += e;
        if (w == VW)
            vf_store(s + i, e);
        else
            vf_store_n(s + i, e, w);
    }
    return 1 / vf_sum(sum);
}

static void times(float *s, int64_t n, float factor) {
    int64_t i = 0;
    for (; i + VW <= n; i += VW) vf_store(s + i, vf_load(s + i) * vf_set(factor));
    for (; i < n; i++) s[i] *= factor;
}

static void backward(float *dp, const float *p, int64_t n, float scale) {
    vf sum = vf_set(0);
    int64_t i = 0;
    for (; i + VW <= n; i += VW) sum = vf_fma(vf_load(p + i), vf_load(dp + i), sum);
    if (i < n) sum = vf_fma(vf_load_n(p + i, (int)(n - i)), vf_load_n(dp + i, (int)(n - i)), sum);
    const vf mean = vf_set(vf_sum(sum)), by = vf_set(scale);
    for (i = 0; i + VW <= n; i += VW) vf_store(dp + i, vf_load(p + i) * (vf_load(dp + i) - mean) * by);
    if (i < n) {
        const int w = (int)(n - i);
        vf_store_n(dp + i, vf_load_n(p + i, w) * (vf_load_n(dp + i, w) - mean) * by, w);
    }
}

const cpu_softmax SIMD_NAME(cpu_softmax) = {forward, times, backward};
