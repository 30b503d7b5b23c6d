// SPDX-License-Identifier: Apache-2.0
// Vectors of floats, once for AVX-512 and once for AVX2: kernels (simd_*.h) are written against these few names and compiled for each
// instruction set by the small files fast_*_avx2.c, fast_*_avx512.c and fast_*_avx512bf16.c. Only those files may include this.
// Arithmetic is the compiler's (+ - * / on vectors); nothing is contracted, a fused multiply-add is always written as vf_fma.
#ifndef SOMA_DEVICE_CPU_SIMD_H
#define SOMA_DEVICE_CPU_SIMD_H

#include "device/cpu/cpu.h"

#include <immintrin.h>

#define SIMD_INLINE static inline __attribute__((always_inline, unused))
#define SIMD_JOIN_(name, suffix) name##_##suffix
#define SIMD_JOIN(name, suffix) SIMD_JOIN_(name, suffix)
#define SIMD_NAME(name) SIMD_JOIN(name, SIMD_SUFFIX) // cpu_rms_norm -> cpu_rms_norm_avx512

#if defined(__AVX512BF16__)
#define SIMD_SUFFIX avx512bf16
#elif defined(__AVX512F__)
#define SIMD_SUFFIX avx512
#else
#define SIMD_SUFFIX avx2
#endif

#if defined(__AVX512F__)

enum { VW = 16 }; // floats in a vector
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

SIMD_INLINE vm vm_first(int n) { return (vm)((1u << n) - 1); } // lanes 0 .. n-1, n in [0, VW]
SIMD_INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
SIMD_INLINE vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
SIMD_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
SIMD_INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
SIMD_INLINE vf vf_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(vm_first(n), p); } // zeros behind n
SIMD_INLINE vi vi_load_n(const void *p, int n) { return _mm512_maskz_loadu_epi32(vm_first(n), p); }
SIMD_INLINE void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
SIMD_INLINE void vf_stream(float *p, vf x) { _mm512_stream_ps(p, x); } // past the caches; 64-byte aligned
SIMD_INLINE void vi_store(void *p, vi x) { _mm512_storeu_si512(p, x); }
SIMD_INLINE void vf_store_n(float *p, vf x, int n) { _mm512_mask_storeu_ps(p, vm_first(n), x); }
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); } // a * b + c, rounded once
SIMD_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
SIMD_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
SIMD_INLINE vf vf_sqrt(vf x) { return _mm512_sqrt_ps(x); }
SIMD_INLINE vf vf_nearest(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SIMD_INLINE vi vi_from(vf x) { return _mm512_cvtps_epi32(x); }
SIMD_INLINE vf vf_from(vi x) { return _mm512_cvtepi32_ps(x); }
SIMD_INLINE vi vi_bits(vf x) { return _mm512_castps_si512(x); }
SIMD_INLINE vf vf_bits(vi x) { return _mm512_castsi512_ps(x); }
SIMD_INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
SIMD_INLINE vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
SIMD_INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
SIMD_INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
SIMD_INLINE vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
SIMD_INLINE vi vi_left(vi a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
SIMD_INLINE vi vi_right(vi a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
SIMD_INLINE vi vi_right_signed(vi a, int n) { return _mm512_srai_epi32(a, (unsigned)n); }
SIMD_INLINE vm vm_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
SIMD_INLINE vm vm_nan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
SIMD_INLINE vm vm_greater_i(vi a, vi b) { return _mm512_cmpgt_epi32_mask(a, b); }
SIMD_INLINE vf vf_pick(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
SIMD_INLINE vi vi_pick(vm m, vi yes, vi no) { return _mm512_mask_blend_epi32(m, no, yes); }
SIMD_INLINE float vf_sum(vf x) { // a fixed tree
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
SIMD_INLINE float vf_largest(vf x) { return _mm512_reduce_max_ps(x); }
SIMD_INLINE vi vi_widen_u16(const void *p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256(p)); }
SIMD_INLINE vi vi_widen_u8(const void *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(p)); }
SIMD_INLINE void vi_store_u16(void *p, vi x) { _mm256_storeu_si256(p, _mm512_cvtepi32_epi16(x)); } // lower halves
SIMD_INLINE vf vf_gather(const float *p, vi index) { return _mm512_i32gather_ps(index, p, 4); }

// rows r[i] (i < 16) become columns
SIMD_INLINE void vi_transpose(vi r[VW]) {
    vi t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

#else // AVX2 and FMA

enum { VW = 8 };
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;

SIMD_INLINE __m256i vi_first(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
SIMD_INLINE vm vm_first(int n) { return _mm256_castsi256_ps(vi_first(n)); }
SIMD_INLINE vf vf_set(float x) { return _mm256_set1_ps(x); }
SIMD_INLINE vi vi_set(int32_t x) { return _mm256_set1_epi32(x); }
SIMD_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
SIMD_INLINE vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
SIMD_INLINE vf vf_load_n(const float *p, int n) { return _mm256_maskload_ps(p, vi_first(n)); }
SIMD_INLINE vi vi_load_n(const void *p, int n) { return _mm256_maskload_epi32(p, vi_first(n)); }
SIMD_INLINE void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
SIMD_INLINE void vf_stream(float *p, vf x) { _mm256_stream_ps(p, x); }
SIMD_INLINE void vi_store(void *p, vi x) { _mm256_storeu_si256(p, x); }
SIMD_INLINE void vf_store_n(float *p, vf x, int n) { _mm256_maskstore_ps(p, vi_first(n), x); }
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
SIMD_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
SIMD_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
SIMD_INLINE vf vf_sqrt(vf x) { return _mm256_sqrt_ps(x); }
SIMD_INLINE vf vf_nearest(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SIMD_INLINE vi vi_from(vf x) { return _mm256_cvtps_epi32(x); }
SIMD_INLINE vf vf_from(vi x) { return _mm256_cvtepi32_ps(x); }
SIMD_INLINE vi vi_bits(vf x) { return _mm256_castps_si256(x); }
SIMD_INLINE vf vf_bits(vi x) { return _mm256_castsi256_ps(x); }
SIMD_INLINE vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
SIMD_INLINE vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
SIMD_INLINE vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
SIMD_INLINE vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
SIMD_INLINE vi vi_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
SIMD_INLINE vi vi_left(vi a, int n) { return _mm256_slli_epi32(a, n); }
SIMD_INLINE vi vi_right(vi a, int n) { return _mm256_srli_epi32(a, n); }
SIMD_INLINE vi vi_right_signed(vi a, int n) { return _mm256_srai_epi32(a, n); }
SIMD_INLINE vm vm_less(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
SIMD_INLINE vm vm_nan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
SIMD_INLINE vm vm_greater_i(vi a, vi b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b)); }
SIMD_INLINE vf vf_pick(vm m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }
SIMD_INLINE vi vi_pick(vm m, vi yes, vi no) { return vi_bits(vf_pick(m, vf_bits(yes), vf_bits(no))); }
SIMD_INLINE float vf_sum(vf x) {
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
SIMD_INLINE float vf_largest(vf x) {
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
SIMD_INLINE vi vi_widen_u16(const void *p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128(p)); }
SIMD_INLINE vi vi_widen_u8(const void *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(p)); }
SIMD_INLINE void vi_store_u16(void *p, vi x) {
    x = _mm256_and_si256(x, _mm256_set1_epi32(0xffff)); // the pack below saturates
    x = _mm256_permute4x64_epi64(_mm256_packus_epi32(x, x), 0x08);
    _mm_storeu_si128(p, _mm256_castsi256_si128(x));
}
SIMD_INLINE vf vf_gather(const float *p, vi index) { return _mm256_i32gather_ps(p, index, 4); }

SIMD_INLINE void vi_transpose(vi r[VW]) {
    vi t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

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
