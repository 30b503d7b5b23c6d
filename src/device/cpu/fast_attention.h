// SPDX-License-Identifier: Apache-2.0
// What an instruction set gives to attention beyond the matrix product: rows of scores to probabilities, and back.
#ifndef SOMA_DEVICE_CPU_FAST_ATTENTION_H
#define SOMA_DEVICE_CPU_FAST_ATTENTION_H

#include "device/cpu/cpu.h"

typedef struct cpu_softmax {
    // s [n]: products of a query with n keys -> exp(scale * s - largest) where k_block <= q_block, else 0. Returns 1 / their sum, 0 when
    // the query sees no key.
    float (*forward)(float *s, int64_t n, const int32_t *k_block, int32_t q_block, float scale);
    // s [n] *= factor
    void (*times)(float *s, int64_t n, float factor);
    // dp [n], the gradient of probabilities p [n] -> that of the products: p * (dp - sum p dp) * scale
    void (*backward)(float *dp, const float *p, int64_t n, float scale);
} cpu_softmax;

extern const cpu_softmax cpu_softmax_avx2, cpu_softmax_avx512;

#endif
