// SPDX-License-Identifier: Apache-2.0
// The CPU device from inside: what a kernel is given, and how the fast ones are chosen once, when a plan is prepared.
#ifndef SOMA_DEVICE_CPU_CPU_H
#define SOMA_DEVICE_CPU_CPU_H

#include "base/pool.h"
#include "device/cpu/isa.h"
#include "device/device.h"

// What a kernel is given. Memory is planned; kernels never allocate.
typedef struct cpu_run {
    char *buffers[SOMA_ROLE_COUNT];
    soma_isa isa; // that the kernel was chosen for
    soma_pool *pool;
    char *shared;        // workspace of this node, as large as it asked for (64-byte aligned)
    char *threads_space; // thread i's own workspace begins at threads_space + i * thread_size
    size_t thread_size;
} cpu_run;

// Runs one step: `step->nodes[0]` for single nodes, the chain for fused ones.
typedef void cpu_kernel(const cpu_run *run, const soma_step *step);

typedef struct cpu_choice {
    cpu_kernel *run;    // NULL: this kernel does not take these shapes, strides or dtypes
    size_t shared_size; // bytes of workspace shared by the threads
    size_t thread_size; // bytes of workspace for each thread
} cpu_choice;

// First byte of a tensor's data in this run.
static inline void *cpu_at(const cpu_run *run, const soma_tensor *t) {
    const soma_tensor *owner = soma__owner(t);
    return run->buffers[owner->role] + owner->place + (t->base ? t->offset : 0) * (int64_t)soma_dtype_size(t->dtype);
}

// The plain kernels are the specification: any strides, any graph dtype, one element after the other in double or float as documented,
// single-threaded.
extern cpu_kernel *const cpu_plain[SOMA_OP_COUNT]; // NULL for leaves and views

// The fast kernels, one chooser per op; each looks at dtype, strides and instruction set and may decline (run == NULL).
typedef cpu_choice cpu_chooser(const soma_step *step, soma_isa isa);
cpu_chooser cpu_fast_elementwise; // chains of ADD SUB MUL DIV AFFINE UNARY UNARY_GRAD COPY CONSTANT, also of length 1
cpu_chooser cpu_fast_matmul, cpu_fast_quant_matmul;
cpu_chooser cpu_fast_attention, cpu_fast_attention_grad;
cpu_chooser cpu_fast_rms_norm, cpu_fast_rms_norm_grad, cpu_fast_layer_norm, cpu_fast_layer_norm_grad;
cpu_chooser cpu_fast_rope, cpu_fast_sum, cpu_fast_concat, cpu_fast_pad, cpu_fast_embed, cpu_fast_embed_grad, cpu_fast_store, cpu_fast_adamw;
cpu_chooser cpu_fast_cross_entropy, cpu_fast_cross_entropy_grad;
cpu_chooser cpu_fast_conv, cpu_fast_conv_grad; // the first of CONV and CONV_TRANSPOSED
cpu_chooser cpu_fast_max_pool, cpu_fast_max_pool_grad;
cpu_chooser cpu_fast_dropout;

// A profile: from now on every run of the plan adds each step's seconds; `plain` tells whether the step runs its plain kernel.
soma_status cpu_profile_start(soma_plan *plan, soma_error *err);
double cpu_profile_step(const soma_plan *plan, size_t step, bool *plain);

// bf16 is the upper half of an f32; rounding is to nearest, ties to even; NaN stays NaN.
static inline float cpu_from_bf16(uint16_t h) {
    union {
        uint32_t u;
        float f;
    } x = {.u = (uint32_t)h << 16};
    return x.f;
}
static inline uint16_t cpu_to_bf16(float f) {
    union {
        float f;
        uint32_t u;
    } x = {.f = f};
    if ((x.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(x.u >> 16 | 64);
    return (uint16_t)((x.u + 0x7fff + (x.u >> 16 & 1)) >> 16);
}

#endif
