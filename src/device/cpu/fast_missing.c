// SPDX-License-Identifier: Apache-2.0
// Weak stand-ins for choosers that are still being written: they decline, and the plain kernel runs.
#include "device/cpu/cpu.h"
#define S(n)                                                             \
    __attribute__((weak)) cpu_choice n(const soma_step *s, soma_isa i) { \
        (void)s;                                                         \
        (void)i;                                                         \
        return (cpu_choice){0};                                          \
    }
S(cpu_fast_rope) S(cpu_fast_sum) S(cpu_fast_concat) S(cpu_fast_pad) S(cpu_fast_embed) S(cpu_fast_embed_grad) S(cpu_fast_adamw)
