// SPDX-License-Identifier: Apache-2.0
// Which instruction set this process may use: what the processor has (CPUID), what the system saves at a task switch (XCR0), and for AMX,
// whose state is 8 KiB, what the system grants when it is asked.
#include "device/cpu/cpu.h"

#include <string.h>

static const char *const names[] = {"plain", "avx2", "avx512", "avx512bf16", "amx"};

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
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static uint64_t saved_by_system(void) { // XCR0
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

// Asks for the tiles' state, for all threads of the process.
static bool granted_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; // ARCH_REQ_XCOMP_PERM of asm/prctl.h, Linux 5.16
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
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
    if (!(a71 >> 5 & 1) || !(c7 >> 11 & 1)) return SOMA_ISA_AVX512;
    const uint32_t tile = 1u << 24, tile_bf16 = 1u << 22;
    if ((saved & 0x60000) != 0x60000 || (d7 & (tile | tile_bf16)) != (tile | tile_bf16)) return SOMA_ISA_AVX512BF16;
    return granted_tiles() ? SOMA_ISA_AMX : SOMA_ISA_AVX512BF16;
}
#else
soma_isa cpu_best_isa(void) { return SOMA_ISA_PLAIN; }
#endif
