// SPDX-License-Identifier: Apache-2.0
// Which instruction set this process may use: what the processor has (CPUID) and what the system saves at a task switch (XCR0). AMX is not
// here: it could not be run while this was written, and a kernel that never ran is none.
#include "device/cpu/cpu.h"

#include <string.h>

static const char *const names[] = {"plain", "avx2", "avx512", "avx512bf16"};

const char *cpu_isa_name(soma_isa isa) { return names[isa]; }

bool cpu_isa_parse(soma_isa *isa, const char *name) {
    for (size_t i = 0; i < SOMA_COUNT(names); i++)
        if (!strcmp(name, names[i])) {
            *isa = (soma_isa)i;
            return true;
        }
    return false;
}

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t saved_by_system(void) { // XCR0
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

soma_isa cpu_best_isa(void) {
    uint32_t a, b, c, d, b7, c7, d7, a71 = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return SOMA_ISA_PLAIN;
    const bool osxsave = c >> 27 & 1, fma = c >> 12 & 1, avx = c >> 28 & 1;
    if (!osxsave || !fma || !avx || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return SOMA_ISA_PLAIN;
    if (a >= 1 && __get_cpuid_count(7, 1, &a71, &b, &c, &d) == 0) a71 = 0;
    const uint64_t saved = saved_by_system();
    if ((saved & 0x6) != 0x6 || !(b7 >> 5 & 1)) return SOMA_ISA_PLAIN; // xmm and ymm; AVX2
    // the last level also has byte products (VNNI), as every processor with bf16 products does
    const uint32_t f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
    if ((saved & 0xe6) != 0xe6 || (b7 & (f | dq | bw | vl)) != (f | dq | bw | vl)) return SOMA_ISA_AVX2; // opmask, zmm
    return (a71 >> 5 & 1) && (c7 >> 11 & 1) ? SOMA_ISA_AVX512BF16 : SOMA_ISA_AVX512;
}
#else
soma_isa cpu_best_isa(void) { return SOMA_ISA_PLAIN; }
#endif
