// SPDX-License-Identifier: Apache-2.0
// A factor of a matrix product as it lies in a tensor of any strides, seen as rows of k: what fast_matmul.c and fast_packed.c pack.
#ifndef SOMA_DEVICE_CPU_SIDE_H
#define SOMA_DEVICE_CPU_SIDE_H

#include "device/cpu/fast_matmul.h"

typedef struct cpu_side {
    cpu_factor f;
    int64_t rows, inner, outer_stride; // row r is (r / inner, r % inner): its element is at (r / inner) * outer_stride + ...
    int64_t batch_stride[SOMA_MAX_DIMS];
    bool by_columns; // its rows are contiguous, not its k
} cpu_side;

// False: no stride of 1 in the last two dimensions, or another dtype than f32 and bf16. merge_batches: the leading dimensions are rows,
// too.
bool cpu_side_of(cpu_side *s, const soma_tensor *t, bool merge_batches, soma_dtype product);
// Packs elements [k0, k0 + kn) of rows [row0, row0 + rows), by rows or by columns as they lie (fast_matmul.h), `ld` words apart.
void cpu_side_pack(const cpu_gemm *isa, const cpu_side *s, uint32_t *out, int64_t ld, int64_t row0, int64_t rows, int64_t k0, int64_t kn);

#endif
