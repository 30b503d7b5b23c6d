// SPDX-License-Identifier: Apache-2.0
// Random weights of any size, made in memory in a moment.
#ifndef SOMA_BENCH_RANDOM_WEIGHTS_H
#define SOMA_BENCH_RANDOM_WEIGHTS_H

#include "format/safetensors.h"
#include "graph/plan.h"

typedef struct soma_bench_random {
    char *bytes;
    size_t size;
} soma_bench_random;

// The weights of a layout, in bf16. `file` is closed by whoever takes it over, and the bytes after it.
soma_status soma__bench_random_open(soma_bench_random *random, soma_safetensors **file, const soma_layout *layout, soma_error *err);
void soma__bench_random_close(soma_bench_random *random); // {0} allowed

#endif
