// SPDX-License-Identifier: Apache-2.0
// What an instruction set gives to attention beyond the matrix product: rows of scores to probabilities, and back.
#ifndef SOMA_DEVICE_CPU_FAST_ATTENTION_H
#define SOMA_DEVICE_CPU_FAST_ATTENTION_H

#include "device/cpu/cpu.h"

enum { CPU_ATTENTION_TILE = 48 }; // queries at a time: a multiple of the register tile's rows

typedef struct cpu_softmax {
    // Rows of s [rows, n], ld apart: products of queries with n keys -> exp(scale * s - largest) where k_block <= q_block, else 0.
    // inverse [rows]: 1 / their sum, 0 when the query sees no key.
    void (*forward)(float *s, int64_t ld, int64_t rows, int64_t n, const int32_t *k_block, const int32_t *q_block, float scale,
                    float *inverse);
    // s [n] *= factor
    void (*times)(float *s, int64_t n, float factor);
    // Rows as forward left them -> probabilities; dp, their gradient -> that of the products: p * (dp - sum p dp) * scale
    void (*backward)(float *dp, float *p, int64_t ld, int64_t rows, int64_t n, float scale, const float *inverse);
} cpu_softmax;

extern const cpu_softmax cpu_softmax_avx2, cpu_softmax_avx512, cpu_softmax_neon;

#endif
