// SPDX-License-Identifier: Apache-2.0
// The shapes of sums that have a fast kernel: [A, R, N] -> [A, N], any of the three of length 1.
#ifndef SOMA_DEVICE_CPU_FAST_SUM_H
#define SOMA_DEVICE_CPU_FAST_SUM_H

#include "device/cpu/fast.h"

typedef struct cpu_sum_shape {
    int64_t A, R, N;
    int64_t a_stride, r_stride; // elements; N's stride is 1, or R's where N is 1
    int64_t group, n_groups;    // R is cut into groups whose sums are added in order
} cpu_sum_shape;

bool cpu_sum_shape_of(cpu_sum_shape *s, const soma_tensor *t);

#endif
