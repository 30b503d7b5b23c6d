// SPDX-License-Identifier: Apache-2.0
// A chain of element-wise nodes as a small program: fetch an outside tensor, apply a node, in order.
#ifndef SOMA_DEVICE_CPU_FAST_ELEMENTWISE_H
#define SOMA_DEVICE_CPU_FAST_ELEMENTWISE_H

#include "device/cpu/fast.h"

enum {
    ELEMENTWISE_BLOCK = 1024,     // 4 KiB for each value alive
    ELEMENTWISE_ITEM = 8192,      // elements taken by a thread at once
    ELEMENTWISE_STREAM = 4 << 20, // elements of a result that is written past the caches
    MAX_VALUES = 96,              // nodes and their outside sources
    MAX_OPERANDS = 48,
};

// An outside tensor, its dimensions aligned with the output's and merged where they can be.
typedef struct operand {
    const soma_tensor *tensor;
    const void *data;
    soma_dtype dtype;
    int n_dims; // at least 1
    int64_t shape[SOMA_MAX_DIMS], stride[SOMA_MAX_DIMS];
    bool direct; // f32 in the output's own order
} operand;

typedef struct instruction {
    const soma_tensor *node; // what to apply, or
    const operand *outside;  // what to fetch
    int value, a, b;         // numbers of the result and of the sources
    int slot;                // where the result lies
} instruction;

typedef struct program {
    const cpu_run *run;
    instruction instructions[MAX_VALUES];
    operand operands[MAX_OPERANDS];
    int n_instructions, n_operands, n_slots;
    int64_t numel;
    void *out;
    soma_dtype out_dtype;
} program;

// False when the chain is declined. run NULL: only to see whether it is taken and how many slots it needs.
bool cpu_program_new(program *p, const cpu_run *run, const soma_step *step);

#endif
