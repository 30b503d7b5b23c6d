// SPDX-License-Identifier: Apache-2.0
// Rows of attention scores on vectors.
#include "device/cpu/fast_attention.h"
#include "device/cpu/simd_convert.h"
#include "device/cpu/simd_math.h"

// Scaled scores of up to VW keys, -infinity where the query does not see them and behind the last key.
SIMD_INLINE vf seen(const float *s, const int32_t *k_block, vi q_block, vf scale, int w) {
    const vf none = vf_set(-__builtin_inff());
    const vi blocks = w == VW ? vi_load(k_block) : vi_load_n(k_block, w);
    const vf x = vf_pick(vm_greater_i(blocks, q_block), none, vf_get(s, w) * scale);
    return w == VW ? x : vf_pick(vm_first(w), x, none);
}

// Two passes over all rows, so that the rows' reductions overlap: a row is a few vectors only.
static void forward(float *s, int64_t ld, int64_t rows, int64_t n, const int32_t *k_block, const int32_t *q_block, float scale,
                    float *inverse) {
    const vf by = vf_set(scale);
    for (int64_t r = 0; r < rows; r++) {
        vf top = vf_set(-__builtin_inff());
        SIMD_EACH(i, w, n) top = vf_max(top, seen(s + r * ld + i, k_block + i, vi_set(q_block[r]), by, (int)w));
        inverse[r] = vf_largest(top);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *row = s + r * ld;
        const bool none = inverse[r] == -__builtin_inff();
        const vf largest = vf_set(none ? 0 : inverse[r]);
        vf sum = vf_set(0);
        SIMD_EACH(i, w, n) {
            const vf e = vf_exp_below(seen(row + i, k_block + i, vi_set(q_block[r]), by, (int)w) - largest);
            sum += e;
            vf_put(row + i, e, (int)w);
        }
        inverse[r] = none ? 0 : 1 / vf_sum(sum);
    }
}

static void times(float *s, int64_t n, float factor) { SIMD_EACH(i, w, n) vf_put(s + i, vf_get(s + i, (int)w) * vf_set(factor), (int)w); }

static void backward(float *dp, float *p, int64_t ld, int64_t rows, int64_t n, float scale, const float *inverse) {
    float mean[CPU_ATTENTION_TILE];
    for (int64_t r = 0; r < rows; r++) {
        vf sum = vf_set(0);
        SIMD_EACH(i, w, n) sum = vf_fma(vf_get(p + r * ld + i, (int)w), vf_get(dp + r * ld + i, (int)w), sum);
        mean[r] = vf_sum(sum) * inverse[r];
    }
    for (int64_t r = 0; r < rows; r++) SIMD_EACH(i, w, n) {
            const vf x = vf_get(p + r * ld + i, (int)w) * vf_set(inverse[r]);
            vf_put(p + r * ld + i, x, (int)w);
            vf_put(dp + r * ld + i, x * (vf_get(dp + r * ld + i, (int)w) - vf_set(mean[r])) * vf_set(scale), (int)w);
        }
}

const cpu_softmax SIMD_NAME(cpu_softmax) = {forward, times, backward};
