// SPDX-License-Identifier: Apache-2.0
// Which instruction set this process may use: what the processor has (CPUID; on Arm the kernel's word), what the system saves at a task
// switch (XCR0), and for AMX, whose state is 8 KiB, what the system grants when it is asked.
#include "device/cpu/isa.h"
#include "base/str.h"
#include "device/cpu/packed.h"

static const struct {
    const char *name, *forms;
    uint32_t needs;
} isas[SOMA_ISA_COUNT] = {
    [SOMA_ISA_PLAIN] = {"plain"},
#if defined(__aarch64__)
    [SOMA_ISA_NEON] = {"neon", "neon-" CPU_FORMS_VERSION, CPU_HAS_NEON},
    [SOMA_ISA_NEONDOT] = {"neondot", "neon-" CPU_FORMS_VERSION, CPU_HAS_DOTPROD},
    [SOMA_ISA_NEONBF16] = {"neonbf16", "neon-" CPU_FORMS_VERSION, CPU_HAS_BF16},
#else
    [SOMA_ISA_AVX2] = {"avx2", "avx2-" CPU_FORMS_VERSION, CPU_HAS_AVX | CPU_HAS_FMA | CPU_HAS_AVX2 | CPU_KEEPS_YMM},
    // panels of floats are the same from here on, those of bytes are not
    [SOMA_ISA_AVX512] = {"avx512", "avx512-" CPU_FORMS_VERSION,
                         CPU_HAS_AVX512F | CPU_HAS_AVX512DQ | CPU_HAS_AVX512BW | CPU_HAS_AVX512VL | CPU_KEEPS_ZMM},
    [SOMA_ISA_AVX512BF16] = {"avx512bf16", "vnni-" CPU_FORMS_VERSION, CPU_HAS_AVX512VNNI | CPU_HAS_AVX512BF16},
    [SOMA_ISA_AMX] = {"amx", "vnni-" CPU_FORMS_VERSION, CPU_HAS_AMX_TILE | CPU_HAS_AMX_BF16 | CPU_HAS_AMX_INT8 | CPU_KEEPS_TILES},
#endif
};

soma_isa cpu_isa_of(uint32_t features) {
    soma_isa best = SOMA_ISA_PLAIN;
    while (best + 1 < SOMA_ISA_COUNT && (features & isas[best + 1].needs) == isas[best + 1].needs) best++;
    return best;
}
uint32_t cpu_isa_needs(soma_isa isa) { return isas[isa].needs; }
const char *cpu_isa_name(soma_isa isa) { return isas[isa].name; }
const char *cpu_isa_forms(soma_isa isa) { return isas[isa].forms; }
soma_isa cpu_best_isa(void) { return cpu_isa_of(cpu_features()); }

soma_status cpu_isa_parse(soma_isa *isa, const char *name, soma_error *err) {
    const soma_isa best = cpu_best_isa();
    *isa = best;
    if (!name || !*name) return SOMA_OK;
    const char *names[SOMA_ISA_COUNT];
    for (int i = 0; i < SOMA_ISA_COUNT; i++) names[i] = isas[i].name;
    int index;
    SOMA_TRY(soma__name_parse(&index, names, SOMA_ISA_COUNT, name, "instruction set", err));
    *isa = (soma_isa)index;
    if (*isa > best) return soma__fail(err, SOMA_UNSUPPORTED, "this machine has no %s; its best is %s", name, isas[best].name);
    return SOMA_OK;
}

// ---- this machine

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

uint32_t cpu_features(void) {
    enum { A, B, C, D };
    uint32_t one[4], seven[4], seven1[4] = {0}, has = 0;
    if (!__get_cpuid(1, &one[A], &one[B], &one[C], &one[D]) || !(one[C] >> 27 & 1)) return 0; // OSXSAVE, or no one may ask for XCR0
    if (!__get_cpuid_count(7, 0, &seven[A], &seven[B], &seven[C], &seven[D])) return 0;
    if (seven[A] >= 1) __get_cpuid_count(7, 1, &seven1[A], &seven1[B], &seven1[C], &seven1[D]);
    const struct {
        uint32_t feature, bit, of;
    } bits[] = {{CPU_HAS_AVX, 28, one[C]},        {CPU_HAS_FMA, 12, one[C]},          {CPU_HAS_AVX2, 5, seven[B]},
                {CPU_HAS_AVX512F, 16, seven[B]},  {CPU_HAS_AVX512DQ, 17, seven[B]},   {CPU_HAS_AVX512BW, 30, seven[B]},
                {CPU_HAS_AVX512VL, 31, seven[B]}, {CPU_HAS_AVX512VNNI, 11, seven[C]}, {CPU_HAS_AVX512BF16, 5, seven1[A]},
                {CPU_HAS_AMX_TILE, 24, seven[D]}, {CPU_HAS_AMX_BF16, 22, seven[D]},   {CPU_HAS_AMX_INT8, 25, seven[D]}};
    for (size_t i = 0; i < SOMA_COUNT(bits); i++)
        if (bits[i].of >> bits[i].bit & 1) has |= bits[i].feature;
    const uint64_t saved = saved_by_system();
    if ((saved & 0x6) == 0x6) has |= CPU_KEEPS_YMM;   // xmm, upper halves
    if ((saved & 0xe6) == 0xe6) has |= CPU_KEEPS_ZMM; // masks, upper halves, sixteen more
    if ((saved & 0x60000) == 0x60000 && has & CPU_HAS_AMX_TILE && granted_tiles()) has |= CPU_KEEPS_TILES;
    return has;
}

#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

uint32_t cpu_features(void) { // the bits of asm/hwcap.h, named here because older headers lack the last
    enum { ASIMD = 1 << 1, ASIMDDP = 1 << 20, BF16 = 1 << 14 };
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    return (first & ASIMD ? CPU_HAS_NEON : 0) | (first & ASIMDDP ? CPU_HAS_DOTPROD : 0) | (second & BF16 ? CPU_HAS_BF16 : 0);
}

#elif defined(__aarch64__)
uint32_t cpu_features(void) { return CPU_HAS_NEON; } // which every such processor has; the rest has no common way of asking
#else
uint32_t cpu_features(void) { return 0; }
#endif
