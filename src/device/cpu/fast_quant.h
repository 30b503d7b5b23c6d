// SPDX-License-Identifier: Apache-2.0
// What an instruction set gives to the quantised matrix product (fast_quant.c), and the layouts of its packed factors. Numbers: quant.h.
//
// Weights lie in panels of `nr` output channels; a panel is read from its beginning to its end and holds for each k of Kp = quant_padded(K)
//   int8, int8w: words [Kp / 4][nr] of four whole numbers along k, then the channels' scales f32 [nr]
//   int4w:       groups of 32 along k: words [4][nr] of eight levels (the first four k in the low halves of the bytes, the next four in the
//                high ones), then the channels' scales bf16 [nr]
// Activations are rows of bytes [Kp]. A row of two bytes per element is two rows, high before low; so their products with int8 weights are
// those of int8 activations, put together at the end.
//
// One factor of the processor's byte products is unsigned. Where that is the weight, 128 was added to it, and `offset` says so: sums begin
// at -128 times the sum of the activations.
#ifndef SOMA_DEVICE_CPU_FAST_QUANT_H
#define SOMA_DEVICE_CPU_FAST_QUANT_H

#include "device/cpu/quant.h"

typedef void cpu_quant_bytes(int64_t rows, int64_t k0, int64_t k1, const int8_t *a, int64_t lda, const int32_t *start, const void *panel,
                             int32_t *sums);

typedef struct cpu_quant_isa {
    int nr;     // channels of a panel
    int offset; // 128 or 0
    // Quantises n rows of `weights` [.., K] with `ld` elements between them into a panel; channels behind n are zeros.
    void (*pack)(void *panel, soma_quant form, const void *weights, soma_dtype dtype, int64_t ld, int64_t n, int64_t K);
    // Quantises a row of activations: `rows` bytes [Kp], or high [Kp] and low [Kp]; start: where sums begin, for each of these rows, with
    // int4w for each of their groups [Kp / 32]. room [Kp]. Returns the scale.
    float (*take)(int8_t *rows, int32_t *start, soma_quant form, const void *x, soma_dtype dtype, int64_t K, float *room);
    // sums [rows][nr] = (k0 == 0: start, else sums) + products over the words [k0, k1) of a panel; rows have lda bytes.
    cpu_quant_bytes *bytes;
    // int4w: the scaled sums of the groups [g0, g1) of `rows` activations (two rows of bytes each), scales of the activations left out.
    void (*groups)(int64_t rows, int64_t g0, int64_t g1, const int8_t *a, int64_t lda, const int32_t *start, const void *panel,
                   float *sums);
    // out [n] f32 or bf16 = scales * sums + bias [nr]; sums i32 [nr] (int8w: [2][nr]) or, int4w, f32 [nr]. scale: of the activations.
    void (*finish)(void *out, bool bf16, int64_t n, soma_quant form, const void *sums, float scale, const float *channels,
                   const float *bias);
} cpu_quant_isa;

extern const cpu_quant_isa cpu_quant_avx2, cpu_quant_avx512bf16, cpu_quant_neon, cpu_quant_neondot;
const cpu_quant_isa *cpu_quant_of(soma_isa isa); // NULL where there is none
// The products of bytes by tiles, for panels of 64 channels with an offset (amx_block.h).
cpu_quant_bytes cpu_amx_bytes;

// Sets the slot's form and size where every reader is a quantised product of it in one layout (packed.h).
void cpu_quant_choose(soma_slot *slot, const soma_tensor *const *readers, size_t n_readers, soma_isa isa);

size_t cpu_quant_panel_size(soma_quant form, int64_t K, int nr); // bytes
size_t cpu_quant_size(soma_quant form, int64_t N, int64_t K, const cpu_quant_isa *isa);
// The whole weight [N, K], rows ld elements apart, into panels.
void cpu_quant_pack(void *panels, soma_quant form, const void *weights, soma_dtype dtype, int64_t ld, int64_t N, int64_t K,
                    const cpu_quant_isa *isa, soma_pool *pool);

#endif
