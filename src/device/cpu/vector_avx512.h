// SPDX-License-Identifier: Apache-2.0
// Vectors of 16 floats: AVX-512. With VNNI, products of bytes; with BF16, products of pairs of bf16. Only simd.h includes this.
#ifndef SOMA_DEVICE_CPU_VECTOR_AVX512_H
#define SOMA_DEVICE_CPU_VECTOR_AVX512_H

#include <immintrin.h>

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

SIMD_INLINE vf vf_swap(vf x, int h) { // lane i is lane i ^ h
    return h == 8   ? _mm512_shuffle_f32x4(x, x, 0x4e)
           : h == 4 ? _mm512_shuffle_f32x4(x, x, 0xb1)
           : h == 2 ? _mm512_permute_ps(x, 0x4e)
                    : _mm512_permute_ps(x, 0xb1);
}
SIMD_INLINE void vf_fence(void) { _mm_sfence(); }                                         // what was streamed is there for all
SIMD_INLINE vi vi_count(vi n, vm m) { return _mm512_mask_add_epi32(n, m, n, vi_set(1)); } // n + 1 in the lanes of m
SIMD_INLINE vf vf_lookup(const float table[16], vi which) { return _mm512_permutexvar_ps(which, vf_load(table)); }
SIMD_INLINE vi vi_lookup_bytes(const int8_t table[16], vi which) { // of each byte, from 0 to 15
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table)), which);
}
SIMD_INLINE void vi_store_bytes(int8_t *p, vi x) { _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(x)); } // lowest ones

#if defined(__AVX512VNNI__)
#define SIMD_BYTE_OFFSET 128 // of the first factor of products of bytes, which is unsigned
SIMD_INLINE vi vi_dot_bytes(vi sum, vi w, vi a) { return _mm512_dpbusd_epi32(sum, w, a); } // sum + the four products of each word
SIMD_INLINE int32_t bytes_sum(const int8_t *q, int64_t n) {                                // n: a multiple of 32
    int32_t lanes[8];
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 32) sum = _mm256_dpbusd_epi32(sum, _mm256_set1_epi8(1), _mm256_loadu_si256((const void *)(q + i)));
    _mm256_storeu_si256((void *)lanes, sum);
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + (lanes[4] + lanes[5]) + (lanes[6] + lanes[7]);
}
#endif

#if defined(__AVX512BF16__)
#define SIMD_PAIRS 1 // products of pairs of bf16: a word of 32 bits is two, the first in its low half
SIMD_INLINE vf vf_dot_pairs(vf sum, vi a, vi b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
SIMD_INLINE vi vi_join_pairs(vf first, vf next) { return (__m512i)_mm512_cvtne2ps_pbh(next, first); } // bf16 of first, then of next
SIMD_INLINE vi vi_zip_pairs(vf low, vf high) {                                                        // word i: bf16 of low[i], high[i]
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
                                           18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, vi_join_pairs(low, high));
}
#endif

#endif
