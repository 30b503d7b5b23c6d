// SPDX-License-Identifier: Apache-2.0
// Runs of numbers between memory's dtypes and f32, and the rows of a strided tensor.
#ifndef SOMA_DEVICE_CPU_SIMD_CONVERT_H
#define SOMA_DEVICE_CPU_SIMD_CONVERT_H

#include "device/cpu/simd.h"

#include <string.h>

// n contiguous elements of any graph dtype to f32.
SIMD_INLINE void simd_widen(float *out, const void *p, soma_dtype dtype, int64_t n) {
    int64_t i = 0;
    switch (dtype) {
    case SOMA_F32: memcpy(out, p, (size_t)n * 4); return;
    case SOMA_BF16:
        for (; i + VW <= n; i += VW) vf_store(out + i, vf_load_bf16((const uint16_t *)p + i));
        for (; i < n; i++) out[i] = cpu_from_bf16(((const uint16_t *)p)[i]);
        return;
    case SOMA_I32:
        for (; i < n; i++) out[i] = (float)((const int32_t *)p)[i];
        return;
    default:
        for (; i + 16 <= n; i += VW) vf_store(out + i, vf_from(vi_widen_u8((const uint8_t *)p + i))); // reads 16 bytes
        for (; i < n; i++) out[i] = (float)((const uint8_t *)p)[i];
    }
}

// n values to f32 or bf16.
SIMD_INLINE void simd_narrow(void *out, soma_dtype dtype, const float *x, int64_t n) {
    if (dtype == SOMA_F32) {
        if (out != x) memcpy(out, x, (size_t)n * 4);
        return;
    }
    uint16_t *o = out;
    int64_t i = 0;
    for (; i + VW <= n; i += VW) vf_store_bf16(o + i, vf_load(x + i));
    for (; i < n; i++) o[i] = cpu_to_bf16(x[i]);
}

// Up to VW values; w is how many there are.
SIMD_INLINE vf vf_get(const float *p, int w) { return w == VW ? vf_load(p) : vf_load_n(p, w); }
SIMD_INLINE void vf_put(float *p, vf x, int w) {
    if (w == VW)
        vf_store(p, x);
    else
        vf_store_n(p, x, w);
}
// The steps of a loop over n values: `w` are left for this vector.
#define SIMD_EACH(i, w, n) for (int64_t i = 0, w; i < (n) && (w = SOMA_MIN(VW, (n)-i), true); i += VW)

// The rows (everything but the last dimension) of a tensor whose last stride is 1.
typedef struct simd_rows {
    const char *data;
    const soma_tensor *t;
    int64_t n, D;
    bool even; // rows follow one another at D elements
} simd_rows;

SIMD_INLINE simd_rows simd_rows_of(const cpu_run *run, const soma_tensor *t) {
    const int64_t D = t->shape[t->n_dims - 1];
    return (simd_rows){cpu_at(run, t), t, soma__numel(t) / D, D, soma__is_contiguous(t)};
}
SIMD_INLINE const void *simd_row_at(const simd_rows *rows, int64_t r) {
    int64_t at = r * rows->D;
    if (!rows->even) {
        at = 0;
        for (int d = rows->t->n_dims - 2; d >= 0; r /= rows->t->shape[d--]) at += r % rows->t->shape[d] * rows->t->stride[d];
    }
    return rows->data + at * (int64_t)soma_dtype_size(rows->t->dtype);
}
// Row r as f32: where it lies, or converted into `scratch` [D].
SIMD_INLINE const float *simd_row(const simd_rows *rows, int64_t r, float *scratch) {
    const void *p = simd_row_at(rows, r);
    if (rows->t->dtype == SOMA_F32) return p;
    simd_widen(scratch, p, rows->t->dtype, rows->D);
    return scratch;
}

#endif
