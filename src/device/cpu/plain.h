// SPDX-License-Identifier: Apache-2.0
// What the plain kernels share: element access by index, whatever the strides and the dtype.
#ifndef SOMA_DEVICE_CPU_PLAIN_H
#define SOMA_DEVICE_CPU_PLAIN_H

#include "device/cpu/cpu.h"

#include <math.h>
#include <string.h>

static inline float plain_load(const void *data, soma_dtype dtype, int64_t i) {
    switch (dtype) {
    case SOMA_F32: return ((const float *)data)[i];
    case SOMA_BF16: return cpu_from_bf16(((const uint16_t *)data)[i]);
    case SOMA_I32: return (float)((const int32_t *)data)[i];
    default: return (float)((const uint8_t *)data)[i];
    }
}

static inline void plain_save(void *data, soma_dtype dtype, int64_t i, float x) {
    switch (dtype) {
    case SOMA_F32: ((float *)data)[i] = x; break;
    case SOMA_BF16: ((uint16_t *)data)[i] = cpu_to_bf16(x); break;
    case SOMA_I32: ((int32_t *)data)[i] = (int32_t)x; break;
    default: ((uint8_t *)data)[i] = (uint8_t)x;
    }
}

// The element of t at `index` (outermost first, of n_dims dimensions, aligned at the right; dimensions of length 1 are broadcast).
static inline int64_t plain_offset(const soma_tensor *t, const int64_t *index, int n_dims) {
    int64_t at = 0;
    for (int i = 0; i < t->n_dims; i++)
        if (t->shape[i] != 1) at += index[n_dims - t->n_dims + i] * t->stride[i];
    return at;
}

// The next index in row-major order; false after the last.
static inline bool plain_next(int64_t *index, const int64_t *shape, int n_dims) {
    for (int i = n_dims - 1; i >= 0; i--) {
        if (++index[i] < shape[i]) return true;
        index[i] = 0;
    }
    return false;
}

// Rows are everything but the last dimension: the offset of row r.
static inline int64_t plain_row(const soma_tensor *t, int64_t r) {
    int64_t at = 0;
    for (int i = t->n_dims - 2; i >= 0; i--) {
        at += r % t->shape[i] * t->stride[i];
        r /= t->shape[i];
    }
    return at;
}

cpu_kernel plain_elementwise, plain_concat, plain_pad, plain_sum, plain_matmul, plain_embed, plain_embed_grad, plain_rms_norm,
    plain_rms_norm_grad, plain_layer_norm, plain_layer_norm_grad, plain_rope, plain_attention, plain_attention_grad, plain_time_embed,
    plain_store, plain_adamw, plain_cross_entropy, plain_cross_entropy_grad, plain_quant_matmul, plain_conv, plain_conv_transposed,
    plain_conv_grad, plain_max_pool, plain_max_pool_grad, plain_softmax, plain_dropout;

#endif
