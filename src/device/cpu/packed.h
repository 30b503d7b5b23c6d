// SPDX-License-Identifier: Apache-2.0
// Forms in which the CPU keeps weights that are only read, as the second factor of matrix products and perhaps as a table of rows beside
// that: packed once, when a policy is opened, into the panels that the tiles read. A form depends on dtypes, the weight's shape and the
// instruction set alone.
#ifndef SOMA_DEVICE_CPU_PACKED_H
#define SOMA_DEVICE_CPU_PACKED_H

#include "device/cpu/cpu.h"

typedef enum cpu_form {
    CPU_FORM_PUBLISHED, // as the checkpoint has it
    CPU_FORM_FLOATS,    // word [panel][k][nr]: f32
    CPU_FORM_PAIRS,     // word [panel][k / 2][nr]: two neighbouring bf16; k is filled with zeros to a multiple of CPU_PAIRS_K
    CPU_FORM_BYTES,     // int8, int8w and
    CPU_FORM_LEVELS,    // int4w: as fast_quant.h says
    // kernels of convolutions, in the order of k of conv.h: FLOATS and PAIRS by output channels, and by the channels of a transposed one
    CPU_FORM_KERNEL_FLOATS,
    CPU_FORM_KERNEL_PAIRS,
    CPU_FORM_TRANSPOSED_FLOATS,
    CPU_FORM_TRANSPOSED_PAIRS,
} cpu_form;
#define CPU_FORMS_VERSION "1" // grows when a form's bytes change
enum { CPU_PAIRS_K = 32 };    // what a tile of AMX takes at once

// Does the node read its source `at` as the whole weight [N, K] that owns it, and neither that weight nor a packed one beside it? A packed
// weight can be read in no other way.
bool cpu_reads_whole(const soma_tensor *t, int at);
// Sets slot->form and slot->size, or leaves them. readers: every node that reads the weight, of every graph over it.
void cpu_form_choose(soma_slot *slot, const soma_tensor *const *readers, size_t n_readers, soma_isa isa);
// Writes the weight in its form. data: as published, f32 or bf16, aligned.
void cpu_form_pack(const soma_slot *slot, void *memory, const void *data, soma_dtype dtype, soma_isa isa, soma_pool *pool);

// The same of convolutions' kernels, and whether a convolution reads its kernel as the whole weight.
bool cpu_reads_kernel(const soma_tensor *t);
void cpu_conv_choose(soma_slot *slot, const soma_tensor *const *readers, size_t n_readers, soma_isa isa);
void cpu_conv_pack(const soma_slot *slot, void *memory, const void *data, soma_dtype dtype, soma_isa isa, soma_pool *pool);

// Words between the panels of a packed weight [N, K].
int64_t cpu_form_panel(cpu_form form, int64_t K, int nr);
// The matrix product with a packed second factor; run is NULL where the first factor cannot be read.
cpu_chooser cpu_fast_packed;
// Rows of a packed table by their ids.
cpu_chooser cpu_packed_embed;

#endif
