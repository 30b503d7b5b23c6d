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
    bool streams;            // the result goes past the caches
    const soma_tensor *head; // of what follows a product: the product, whose values are handed in; else NULL
} program;

// False when the chain is declined. run NULL: only to see whether it is taken and how many slots it needs.
bool cpu_program_new(program *p, const cpu_run *run, const soma_step *step);

// What follows a matrix product in its step (activation, gate, residual, scale), run over each block of the product's values while they lie
// in the cache. Elements do not know of one another: where the blocks end changes no bit.
typedef struct cpu_tail cpu_tail;
typedef void cpu_tail_run(const cpu_tail *tail, float *slots, const float *x, int64_t ld, int64_t at, int64_t rows, int64_t cols);
struct cpu_tail {
    cpu_tail_run *run; // NULL: nothing follows
    size_t room;       // bytes of `slots`: for each thread
    // It reads other values for each row than the product's (a gate, a residual). Products whose blocks are narrow panels leave such a
    // chain to a pass of its own over the result, in place: there, rows of 64 values lie pages apart, and reading them stalls (a residual
    // of 528 x 2048: 1.3 ms in the blocks, fetched ahead or not, 0.3 ms behind them, of 20 ms that the product takes).
    bool other_rows;
    int64_t N; // columns of the whole result
    program program;
};
CPU_DECLARE(cpu_tail_run, cpu_tail_run);
// False when the chain is declined; run as above.
bool cpu_tail_new(cpu_tail *tail, const cpu_run *run, const soma_step *step, soma_isa isa);
// The result of a block [rows, cols] whose first element is number `at` of the whole: from the product's values x, `ld` from row to row,
// which may be where the result goes.
static inline void cpu_tail_block(const cpu_tail *tail, void *slots, const float *x, int64_t ld, int64_t at, int64_t rows, int64_t cols) {
    if (tail->run) tail->run(tail, slots, x, ld, at, rows, cols);
}

#endif
