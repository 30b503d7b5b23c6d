// SPDX-License-Identifier: Apache-2.0
// Vectors of 4 floats: NEON of every 64-bit Arm processor. With DOTPROD, products of bytes; with BF16, products of pairs of bf16. Only
// simd.h includes this; what the names mean stands in vector_avx512.h. Its speed was never measured: no such processor was at hand.
#ifndef SOMA_DEVICE_CPU_VECTOR_NEON_H
#define SOMA_DEVICE_CPU_VECTOR_NEON_H

#include <arm_neon.h>
#include <string.h>

enum { VW = 4 };
typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm;

SIMD_INLINE vf vf_set(float x) { return vdupq_n_f32(x); }
SIMD_INLINE vi vi_set(int32_t x) { return vdupq_n_s32(x); }
SIMD_INLINE vm vm_first(int n) { return vcgtq_s32(vi_set(n), (vi){0, 1, 2, 3}); }
SIMD_INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
SIMD_INLINE vi vi_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
SIMD_INLINE vi vi_load_n(const void *p, int n) { // nothing behind n is read
    int32_t lanes[4] = {0};
    memcpy(lanes, p, (size_t)n * 4);
    return vld1q_s32(lanes);
}
SIMD_INLINE void vi_store(void *p, vi x) { vst1q_u8(p, vreinterpretq_u8_s32(x)); }
SIMD_INLINE vi vi_bits(vf x) { return vreinterpretq_s32_f32(x); }
SIMD_INLINE vf vf_bits(vi x) { return vreinterpretq_f32_s32(x); }
SIMD_INLINE vf vf_load_n(const float *p, int n) { return vf_bits(vi_load_n(p, n)); }
SIMD_INLINE void vf_store(float *p, vf x) { vst1q_f32(p, x); }
SIMD_INLINE void vf_stream(float *p, vf x) { vst1q_f32(p, x); }
SIMD_INLINE void vf_fence(void) {}
SIMD_INLINE void vf_store_n(float *p, vf x, int n) {
    float lanes[4];
    vst1q_f32(lanes, x);
    memcpy(p, lanes, (size_t)n * 4);
}
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
SIMD_INLINE vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); } // a NaN of either side stays one
SIMD_INLINE vf vf_min(vf a, vf b) { return vminq_f32(a, b); }
SIMD_INLINE vf vf_sqrt(vf x) { return vsqrtq_f32(x); }
SIMD_INLINE vf vf_nearest(vf x) { return vrndnq_f32(x); }
SIMD_INLINE vi vi_from(vf x) { return vcvtnq_s32_f32(x); }
SIMD_INLINE vf vf_from(vi x) { return vcvtq_f32_s32(x); }
SIMD_INLINE vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
SIMD_INLINE vi vi_sub(vi a, vi b) { return vsubq_s32(a, b); }
SIMD_INLINE vi vi_and(vi a, vi b) { return vandq_s32(a, b); }
SIMD_INLINE vi vi_or(vi a, vi b) { return vorrq_s32(a, b); }
SIMD_INLINE vi vi_xor(vi a, vi b) { return veorq_s32(a, b); }
SIMD_INLINE vi vi_left(vi a, int n) { return (vi)((uint32x4_t)a << (uint32_t)n); }
SIMD_INLINE vi vi_right(vi a, int n) { return (vi)((uint32x4_t)a >> (uint32_t)n); }
SIMD_INLINE vi vi_right_signed(vi a, int n) { return a >> n; }
SIMD_INLINE vm vm_less(vf a, vf b) { return vcltq_f32(a, b); }
SIMD_INLINE vm vm_nan(vf a) { return vmvnq_u32(vceqq_f32(a, a)); }
SIMD_INLINE vm vm_greater_i(vi a, vi b) { return vcgtq_s32(a, b); }
SIMD_INLINE vf vf_pick(vm m, vf yes, vf no) { return vbslq_f32(m, yes, no); }
SIMD_INLINE vi vi_pick(vm m, vi yes, vi no) { return vbslq_s32(m, yes, no); }
SIMD_INLINE vi vi_count(vi n, vm m) { return vsubq_s32(n, vreinterpretq_s32_u32(m)); }
SIMD_INLINE float vf_sum(vf x) { return vaddvq_f32(x); } // neighbours first
SIMD_INLINE float vf_largest(vf x) { return vmaxvq_f32(x); }
SIMD_INLINE vf vf_swap(vf x, int h) { return h == 2 ? vextq_f32(x, x, 2) : vrev64q_f32(x); }
SIMD_INLINE vi vi_widen_u16(const void *p) {
    uint16_t lanes[4];
    memcpy(lanes, p, sizeof lanes);
    return vreinterpretq_s32_u32(vmovl_u16(vld1_u16(lanes)));
}
SIMD_INLINE vi vi_widen_u8(const void *p) {
    uint8_t lanes[8] = {0};
    memcpy(lanes, p, 4);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vld1_u8(lanes)))));
}
SIMD_INLINE void vi_store_u16(void *p, vi x) {
    const uint16x4_t halves = vmovn_u32(vreinterpretq_u32_s32(x));
    memcpy(p, &halves, sizeof halves);
}
SIMD_INLINE void vi_store_bytes(int8_t *p, vi x) {
    const int16x4_t halves = vmovn_s32(x);
    const int8x8_t bytes = vmovn_s16(vcombine_s16(halves, halves));
    memcpy(p, &bytes, 4);
}
SIMD_INLINE vf vf_gather(const float *p, vi index) { return (vf){p[index[0]], p[index[1]], p[index[2]], p[index[3]]}; }
SIMD_INLINE vf vf_lookup(const float table[16], vi which) { return vf_gather(table, which); }
SIMD_INLINE vi vi_lookup_bytes(const int8_t table[16], vi which) {
    return vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(table), vreinterpretq_u8_s32(which)));
}

// rows r[i] (i < 4) become columns
SIMD_INLINE void vi_transpose(vi r[VW]) {
    const int32x4x2_t a = vtrnq_s32(r[0], r[1]), b = vtrnq_s32(r[2], r[3]);
    r[0] = vcombine_s32(vget_low_s32(a.val[0]), vget_low_s32(b.val[0]));
    r[1] = vcombine_s32(vget_low_s32(a.val[1]), vget_low_s32(b.val[1]));
    r[2] = vcombine_s32(vget_high_s32(a.val[0]), vget_high_s32(b.val[0]));
    r[3] = vcombine_s32(vget_high_s32(a.val[1]), vget_high_s32(b.val[1]));
}

SIMD_INLINE vi vi_dot_bytes(vi sum, vi w, vi a) {
    const int8x16_t x = vreinterpretq_s8_s32(w), y = vreinterpretq_s8_s32(a);
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, x, y);
#else // two products of at most 128 * 127 fit 16 bits
    return vpadalq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(y)), vmull_high_s8(x, y)));
#endif
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define SIMD_PAIRS 1
SIMD_INLINE bfloat16x8_t pairs_of(vi x) { return vreinterpretq_bf16_s32(x); }
SIMD_INLINE vf vf_dot_pairs(vf sum, vi a, vi b) { return vbfdotq_f32(sum, pairs_of(a), pairs_of(b)); }
SIMD_INLINE vi vi_join_pairs(vf first, vf next) { return vreinterpretq_s32_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(first), next)); }
SIMD_INLINE vi vi_zip_pairs(vf low, vf high) {
    const int16x8_t both = vreinterpretq_s16_s32(vi_join_pairs(low, high));
    return vreinterpretq_s32_s16(vzip1q_s16(both, vextq_s16(both, both, 4)));
}
#endif

#endif
