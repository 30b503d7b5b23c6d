// SPDX-License-Identifier: Apache-2.0
// What this machine could do at best, measured in a fraction of a second: the yardstick of `soma bench`.
#ifndef SOMA_DEVICE_CPU_PEAK_H
#define SOMA_DEVICE_CPU_PEAK_H

#include "device/cpu/cpu.h"

// Kinds of multiply: name, of what, whether it belongs to AMX.
#define CPU_MULTIPLY_LIST(X)                    \
    X(FMA_AVX2, "FMA AVX2", CPU_OF_F32)         \
    X(FMA_AVX512, "FMA AVX-512", CPU_OF_F32)    \
    X(DOT_BF16, "dot AVX-512", CPU_OF_BF16)     \
    X(MADD_AVX2, "madd AVX2", CPU_OF_INT8)      \
    X(VNNI_AVX512, "VNNI AVX-512", CPU_OF_INT8) \
    X(TILE_BF16, "tile AMX", CPU_OF_BF16)       \
    X(TILE_INT8, "tile AMX", CPU_OF_INT8)       \
    X(FMA_NEON, "FMA NEON", CPU_OF_F32)         \
    X(DOT_NEON, "dot NEON", CPU_OF_BF16)        \
    X(BYTES_NEON, "dot NEON", CPU_OF_INT8)

#define CPU_MULTIPLY_ENUM(name, word, of) CPU_##name,
typedef enum cpu_multiply { CPU_MULTIPLY_LIST(CPU_MULTIPLY_ENUM) CPU_MULTIPLIES } cpu_multiply;
#undef CPU_MULTIPLY_ENUM
typedef enum cpu_multiplied { CPU_OF_F32, CPU_OF_BF16, CPU_OF_INT8 } cpu_multiplied;

const char *cpu_multiply_name(cpu_multiply kind);
cpu_multiplied cpu_multiply_of(cpu_multiply kind);
bool cpu_multiply_here(cpu_multiply kind, soma_isa isa); // is it part of `isa`, which this machine has

// Operations (a multiply and an add are two) per second on registers only, all threads of the pool at once. `kind` is here.
double cpu_peak_multiply(cpu_multiply kind, soma_pool *pool);
// The fastest kind that multiplies these under `isa`: bf16 and int8 also as f32, where nothing is faster. 0 without a fast kind.
double cpu_peak_flops(soma_isa isa, cpu_multiplied of, soma_pool *pool);

// Bytes per second of reading (by the best instructions here) a set of `size` bytes again and again, all threads at once; own: each thread
// has a set of its own, as in its first caches; else they share one. The faster of one stream and of four with prefetch. 0 when memory is
// out.
double cpu_peak_read(size_t size, bool own, soma_pool *pool);

// ---- peak_loops.c: one thread's work
double cpu_multiply_loop(cpu_multiply kind, int64_t rounds);                              // returns operations done
uint64_t cpu_read_loop(const char *memory, size_t size, bool four_streams, soma_isa isa); // size: a multiple of 4 KiB

#endif
