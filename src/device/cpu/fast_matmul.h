// SPDX-License-Identifier: Apache-2.0
// What an instruction set gives to the blocked matrix product (fast_matmul.c): packing into words, and products of packed blocks.
//
// A word is 32 bits along the contraction: one f32, or two neighbouring bf16. Packed layouts:
//   rows:    word [row][k]           factor a whose k is contiguous
//   columns: word [k][row]           factor a whose rows are contiguous (a transposed view)
//   panels:  word [panel][k][nr]     factor b, zero behind its last column
#ifndef SOMA_DEVICE_CPU_FAST_MATMUL_H
#define SOMA_DEVICE_CPU_FAST_MATMUL_H

#include "device/cpu/cpu.h"

// A factor as it lies in memory: element (row, k) at data[row * row_stride + k * k_stride]; one of the two strides is 1.
typedef struct cpu_factor {
    const void *data;
    bool bf16;  // else f32
    bool round; // f32 values are rounded to bf16
    int64_t row_stride, k_stride;
} cpu_factor;

typedef void cpu_gemm_block(int64_t rows, int64_t cols, int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k, const uint32_t *b,
                            const float *init, int64_t init_ld, float *c, int64_t c_ld);

typedef struct cpu_gemm {
    int nr;   // columns of a panel
    int mr;   // rows of a register tile
    int step; // elements of k in a word
    // Packs elements [k0, k0 + kn) of rows [row0, row0 + rows) with `ld` words from one row (rows) or word of k (columns) to the next.
    // A last half word is filled with zero.
    void (*pack_rows)(uint32_t *out, int64_t ld, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k0, int64_t kn);
    void (*pack_columns)(uint32_t *out, int64_t ld, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k0, int64_t kn);
    void (*pack_panels)(uint32_t *out, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k0, int64_t kn);
    // One panel of at most nr rows of bf16 pairs, whatever `step` is: f32 is rounded. k_stride is 1; a last half word is zero.
    void (*pack_pairs)(uint32_t *out, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k);
    // c [rows, cols] = init + a b over kw words of b. a: word (row, k) at a[row * a_row + k * a_k]; b: panels.
    // init NULL: zeros; it may be c. block_pairs: panels of bf16 pairs, whatever `step` is, so that a has 2 / step words for each.
    // An element of c is one sum in the order of k, whatever the rest of the block is.
    cpu_gemm_block *block, *block_pairs;
    // c [rows, cols] = bias + a b^T for few rows, b read where it lies (k_stride 1): a is packed by rows with ld words.
    void (*dot)(int64_t rows, int64_t cols, int64_t k, const uint32_t *a, int64_t ld, const cpu_factor *b, int64_t b_row0,
                const float *bias, float *c, int64_t c_ld);
    // out [n] = sum of `parts` arrays that lie part_stride apart, in order, + bias
    void (*finish)(void *out, bool out_bf16, int64_t n, const float *parts, int64_t n_parts, int64_t part_stride, const float *bias);
} cpu_gemm;

const cpu_gemm *cpu_gemm_of(soma_isa isa, soma_dtype product); // NULL where there is none
extern const cpu_gemm cpu_gemm_avx2, cpu_gemm_avx512, cpu_gemm_avx512bf16, cpu_gemm_neon, cpu_gemm_neonbf16;
// By tiles: a lies by rows and kw is a multiple of 16 (amx_block.h).
cpu_gemm_block cpu_amx_block;

#endif
