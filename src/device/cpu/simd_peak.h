// SPDX-License-Identifier: Apache-2.0
// Independent multiply-adds on registers: as fast as the processor can go.
#include "device/cpu/peak.h"
#include "device/cpu/simd.h"

double SIMD_NAME(cpu_peak_loop)(int64_t rounds) {
    vf sum[12];
    vf a = vf_set(1e-6f), b = vf_set(1e-6f);
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) sum[i] = vf_set((float)i);
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) {
#if defined(__AVX512BF16__)
            sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)vi_bits(a), (__m512bh)vi_bits(b));
#else
            sum[i] = vf_fma(a, b, sum[i]);
#endif
            __asm__ volatile("" : "+x"(sum[i])); // each round is really done
        }
#if defined(__AVX512BF16__)
    const double per_lane = 4;
#else
    const double per_lane = 2;
#endif
    return (double)rounds * 12 * VW * per_lane;
}
