// SPDX-License-Identifier: Apache-2.0
// Instruction sets: which this processor and its system permit, decided from a set of features alone, so that a test can forge one.
#ifndef SOMA_DEVICE_CPU_ISA_H
#define SOMA_DEVICE_CPU_ISA_H

#include "base/base.h"

// Of this kind of processor; each includes the ones before.
#if defined(__aarch64__)
typedef enum soma_isa { SOMA_ISA_PLAIN, SOMA_ISA_NEON, SOMA_ISA_NEONDOT, SOMA_ISA_NEONBF16, SOMA_ISA_COUNT } soma_isa;
#else
typedef enum soma_isa { SOMA_ISA_PLAIN, SOMA_ISA_AVX2, SOMA_ISA_AVX512, SOMA_ISA_AVX512BF16, SOMA_ISA_AMX, SOMA_ISA_COUNT } soma_isa;
#endif

// What kernels ask for, as bits: instructions that the processor has and registers that the system keeps for a process.
#if defined(__aarch64__)
enum {
    CPU_HAS_NEON = 1 << 0,
    CPU_HAS_DOTPROD = 1 << 1, // products of bytes, four to a sum
    CPU_HAS_BF16 = 1 << 2,    // products of pairs of bf16
    CPU_HAS_ALL = (1 << 3) - 1,
};
#else
enum {
    CPU_HAS_AVX = 1 << 0,
    CPU_HAS_FMA = 1 << 1,
    CPU_HAS_AVX2 = 1 << 2,
    CPU_HAS_AVX512F = 1 << 3,
    CPU_HAS_AVX512DQ = 1 << 4,
    CPU_HAS_AVX512BW = 1 << 5,
    CPU_HAS_AVX512VL = 1 << 6,
    CPU_HAS_AVX512VNNI = 1 << 7,
    CPU_HAS_AVX512BF16 = 1 << 8,
    CPU_HAS_AMX_TILE = 1 << 9,
    CPU_HAS_AMX_BF16 = 1 << 10,
    CPU_HAS_AMX_INT8 = 1 << 11,
    CPU_KEEPS_YMM = 1 << 12,
    CPU_KEEPS_ZMM = 1 << 13,
    CPU_KEEPS_TILES = 1 << 14, // and granted them to this process
    CPU_HAS_ALL = (1 << 15) - 1,
};
#endif

uint32_t cpu_features(void);             // of this machine
soma_isa cpu_isa_of(uint32_t features);  // the last of the sets whose features are all there, with those of all before it
uint32_t cpu_isa_needs(soma_isa isa);    // features that this set adds to those before it
const char *cpu_isa_name(soma_isa isa);  // as --isa has it
const char *cpu_isa_forms(soma_isa isa); // name of the forms in which it keeps weights (packed.h), sets that share them alike; NULL: none
soma_isa cpu_best_isa(void);             // of this machine

// The set of this name; NULL or empty: the best. SOMA_BAD_INPUT: no such name; SOMA_UNSUPPORTED: this machine lacks it.
soma_status cpu_isa_parse(soma_isa *isa, const char *name, soma_error *err);

#endif
