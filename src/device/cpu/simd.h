// SPDX-License-Identifier: Apache-2.0
// Vectors of floats under a few names, once for each kind of processor (vector_*.h): kernels (simd_*.h) are written against these names
// and compiled for each instruction set by the small files fast_*_avx2.c, fast_*_neon.c and so on. Only those files may include this.
// Arithmetic is the compiler's (+ - * / on vectors); nothing is contracted, a fused multiply-add is always written as vf_fma.
#ifndef SOMA_DEVICE_CPU_SIMD_H
#define SOMA_DEVICE_CPU_SIMD_H

#include "device/cpu/cpu.h"

#define SIMD_INLINE static inline __attribute__((always_inline, unused))
#define SIMD_JOIN_(name, suffix) name##_##suffix
#define SIMD_JOIN(name, suffix) SIMD_JOIN_(name, suffix)
#define SIMD_NAME(name) SIMD_JOIN(name, SIMD_SUFFIX) // cpu_rms_norm -> cpu_rms_norm_avx512

#if defined(__aarch64__)
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define SIMD_SUFFIX neonbf16
#elif defined(__ARM_FEATURE_DOTPROD)
#define SIMD_SUFFIX neondot
#else
#define SIMD_SUFFIX neon
#endif
#include "device/cpu/vector_neon.h"
#elif defined(__AVX512F__)
#if defined(__AVX512BF16__)
#define SIMD_SUFFIX avx512bf16
#else
#define SIMD_SUFFIX avx512
#endif
#include "device/cpu/vector_avx512.h"
#else
#define SIMD_SUFFIX avx2
#include "device/cpu/vector_avx2.h"
#endif

// Without such instructions: no offset, and a word of a product is one float.
#if !defined(SIMD_BYTE_OFFSET)
#define SIMD_BYTE_OFFSET 0
#endif
#if !defined(SIMD_PAIRS)
#define SIMD_PAIRS 0
#endif

// An f32 rounded to the nearest bf16 (ties to even), still as f32; NaN stays NaN.
SIMD_INLINE vf vf_round_bf16(vf x) {
    vi u = vi_bits(x);
    vi r = vi_add(vi_add(u, vi_set(0x7fff)), vi_and(vi_right(u, 16), vi_set(1)));
    return vf_bits(vi_pick(vm_nan(x), vi_or(u, vi_set(1 << 22)), vi_and(r, vi_set((int32_t)0xffff0000u))));
}
SIMD_INLINE vf vf_load_bf16(const uint16_t *p) { return vf_bits(vi_left(vi_widen_u16(p), 16)); }
SIMD_INLINE void vf_store_bf16(uint16_t *p, vf x) { vi_store_u16(p, vi_right(vi_bits(vf_round_bf16(x)), 16)); }
SIMD_INLINE vf vf_load_bf16_n(const uint16_t *p, int n) {
    uint16_t rest[VW] = {0};
    for (int i = 0; i < n; i++) rest[i] = p[i];
    return vf_load_bf16(rest);
}

#endif
