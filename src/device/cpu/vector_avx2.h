// SPDX-License-Identifier: Apache-2.0
// Vectors of 8 floats: AVX2 and FMA. Only simd.h includes this; what the names mean stands in vector_avx512.h.
#ifndef SOMA_DEVICE_CPU_VECTOR_AVX2_H
#define SOMA_DEVICE_CPU_VECTOR_AVX2_H

#include <immintrin.h>

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

SIMD_INLINE vf vf_swap(vf x, int h) {
    return h == 4 ? _mm256_permute2f128_ps(x, x, 1) : h == 2 ? _mm256_permute_ps(x, 0x4e) : _mm256_permute_ps(x, 0xb1);
}
SIMD_INLINE void vf_fence(void) { _mm_sfence(); }
SIMD_INLINE vi vi_count(vi n, vm m) { return vi_sub(n, vi_bits(m)); }
SIMD_INLINE vf vf_lookup(const float table[16], vi which) { return vf_gather(table, which); }
SIMD_INLINE vi vi_lookup_bytes(const int8_t table[16], vi which) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table)), which);
}
SIMD_INLINE void vi_store_bytes(int8_t *p, vi x) { // the packs saturate: x is from -128 to 127
    const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64((void *)p, _mm_packs_epi16(half, half));
}
SIMD_INLINE vi vi_dot_bytes(vi sum, vi w, vi a) { // |a| times w with a's sign: two products of at most 128 * 127 fit 16 bits
    const vi pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(w, a));
    return vi_add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#endif
