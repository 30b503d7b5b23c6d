// SPDX-License-Identifier: Apache-2.0
// exp, log, tanh and sigmoid on vectors. Polynomials were fitted for the smallest largest relative error on their interval; measured over
// the whole range of f32 against the double functions (tests/device/test_fast_elementwise.c): exp 0.9e-7, log 0.8e-7,
// tanh 1.3e-7, sigmoid 1.2e-7 relative. Overflow gives infinity, underflow falls gradually to zero, NaN stays NaN.
#ifndef SOMA_DEVICE_CPU_SIMD_MATH_H
#define SOMA_DEVICE_CPU_SIMD_MATH_H

#include "device/cpu/simd.h"

SIMD_INLINE vf vf_exp(vf x) {
    x = vf_min(vf_set(89), vf_max(vf_set(-105), x)); // in this order NaN passes
    const vf n = vf_nearest(x * vf_set(1.44269504f));
    vf r = vf_fma(n, vf_set(-0.693359375f), x); // ln 2 in two parts, the first exact in few bits
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(0.00139517197f);
    p = vf_fma(p, r, vf_set(0.00836959854f));
    p = vf_fma(p, r, vf_set(0.0416661873f));
    p = vf_fma(p, r, vf_set(0.166665122f));
    p = vf_fma(p, r, vf_set(0.5f));
    p = vf_fma(p, r * r, r) + vf_set(1);
    const vi k = vi_from(n), half = vi_right_signed(k, 1), bias = vi_set(127); // 2^k in two factors: k may leave the exponent's range
    return p * vf_bits(vi_left(vi_add(half, bias), 23)) * vf_bits(vi_left(vi_add(vi_sub(k, half), bias), 23));
}

// exp(x) for x <= 0, as softmax needs it: zero below -86.6, so that 2^k is one addition to the exponent.
SIMD_INLINE vf vf_exp_below(vf x) {
    const vf floor = vf_set(-86.6f), c = vf_max(floor, x), n = vf_nearest(c * vf_set(1.44269504f));
    vf r = vf_fma(n, vf_set(-0.693359375f), c);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(0.00139517197f);
    p = vf_fma(p, r, vf_set(0.00836959854f));
    p = vf_fma(p, r, vf_set(0.0416661873f));
    p = vf_fma(p, r, vf_set(0.166665122f));
    p = vf_fma(p, r, vf_set(0.5f));
    p = vf_fma(p, r * r, r) + vf_set(1);
    return vf_pick(vm_less(x, floor), vf_set(0), vf_bits(vi_add(vi_bits(p), vi_left(vi_from(n), 23))));
}

SIMD_INLINE vf vf_log(vf x) {
    const vm tiny = vm_less(x, vf_set(0x1p-126f)); // subnormal: scaled into the normal range
    const vf scaled = vf_pick(tiny, x * vf_set(0x1p24f), x);
    const vi from_half = vi_sub(vi_bits(scaled), vi_set(0x3f3504f3)); // mantissa in [sqrt 1/2, sqrt 2)
    const vf e = vf_from(vi_right_signed(from_half, 23)) - vf_pick(tiny, vf_set(24), vf_set(0));
    const vf f = vf_bits(vi_add(vi_and(from_half, vi_set(0x007fffff)), vi_set(0x3f3504f3))) - vf_set(1);
    vf p = vf_set(-0.0785961151f);
    p = vf_fma(p, f, vf_set(0.12881647f));
    p = vf_fma(p, f, vf_set(-0.131287545f));
    p = vf_fma(p, f, vf_set(0.141811922f));
    p = vf_fma(p, f, vf_set(-0.166245535f));
    p = vf_fma(p, f, vf_set(0.200022861f));
    p = vf_fma(p, f, vf_set(-0.250008106f));
    p = vf_fma(p, f, vf_set(0.333333164f));
    const vf z = f * f;
    vf y = vf_fma(z * f, p, e * vf_set(-2.12194440e-4f));
    y = vf_fma(z, vf_set(-0.5f), y) + f;
    y = vf_fma(e, vf_set(0.693359375f), y);
    y = vf_pick(vm_less(vf_set(3.4028235e38f), x), x, y); // infinity
    y = vf_pick(vm_less(x, vf_set(0x1p-149f)), vf_pick(vm_less(x, vf_set(0)), x * vf_set(0) / vf_set(0), -vf_set(1) / vf_set(0)), y);
    return vf_pick(vm_nan(x), x, y);
}

SIMD_INLINE vf vf_abs(vf x) { return vf_bits(vi_and(vi_bits(x), vi_set(0x7fffffff))); }

SIMD_INLINE vf vf_tanh(vf x) {
    const vf a = vf_abs(x), z = x * x;
    vf p = vf_set(-0.0057170447f);
    p = vf_fma(p, z, vf_set(0.0206505861f));
    p = vf_fma(p, z, vf_set(-0.0537434965f));
    p = vf_fma(p, z, vf_set(0.133314908f));
    p = vf_fma(p, z, vf_set(-0.333332837f));
    const vf small = vf_fma(p * z, x, x);
    const vf large = vf_set(1) - vf_set(2) / (vf_exp(a + a) + vf_set(1));
    const vf sign = vf_bits(vi_and(vi_bits(x), vi_set((int32_t)0x80000000u)));
    return vf_pick(vm_less(a, vf_set(0.625f)), small, vf_bits(vi_or(vi_bits(large), vi_bits(sign))));
}

SIMD_INLINE vf vf_sigmoid(vf x) { return vf_set(1) / (vf_set(1) + vf_exp(-x)); }

// Both for |x| <= VF_MAX_ANGLE, absolute error below 1.3e-7: x minus a multiple of pi/2 in three exact steps, a polynomial on [-pi/4,
// pi/4].
#define VF_MAX_ANGLE 30000.0f
SIMD_INLINE void vf_sincos(vf x, vf *sine, vf *cosine) {
    const vf n = vf_nearest(x * vf_set(0.636619772f));
    vf r = vf_fma(n, vf_set(-1.57079637f), x);
    r = vf_fma(n, vf_set(4.37113883e-8f), r);
    r = vf_fma(n, vf_set(1.71512451e-15f), r);
    const vf z = r * r;
    vf p = vf_fma(z, vf_set(-0.000195108718f), vf_set(0.00833213143f));
    p = vf_fma(p, z, vf_set(-0.166666538f));
    vf q = vf_fma(z, vf_set(2.44312414e-5f), vf_set(-0.0013887306f));
    q = vf_fma(q, z, vf_set(0.0416666456f));
    const vf s = vf_fma(p * z, r, r), c = vf_fma(q * z, z, vf_fma(z, vf_set(-0.5f), vf_set(1)));
    const vi k = vi_from(n), odd = vi_and(k, vi_set(1)); // quarter turns: odd ones swap, the upper bit of k and of k + 1 gives the sign
    const vm swap = vm_greater_i(odd, vi_set(0));
    const vi minus_s = vi_left(vi_and(k, vi_set(2)), 30), minus_c = vi_left(vi_and(vi_add(k, vi_set(1)), vi_set(2)), 30);
    *sine = vf_bits(vi_xor(vi_bits(vf_pick(swap, c, s)), minus_s));
    *cosine = vf_bits(vi_xor(vi_bits(vf_pick(swap, s, c)), minus_c));
}

// gelu(x) = 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
SIMD_INLINE vf vf_gelu_gate(vf x) { return vf_sigmoid(vf_set(2 * 0.797884561f) * vf_fma(x * x, x * vf_set(0.044715f), x)); }
SIMD_INLINE vf vf_gelu(vf x) { return x * vf_gelu_gate(x); }
SIMD_INLINE vf vf_gelu_slope(vf x) {
    const vf s = vf_gelu_gate(x), du = vf_set(2 * 0.797884561f) * vf_fma(x * x, vf_set(3 * 0.044715f), vf_set(1));
    return vf_fma(x * s * (vf_set(1) - s), du, s);
}

#endif
