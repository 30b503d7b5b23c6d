// SPDX-License-Identifier: Apache-2.0
// Independent multiply-adds on registers, and plain reading, as fast as the processor can go. The instructions are written out, so that no
// compiler drops or contracts any; each loop is entered only where cpu_multiply_here says so.
//
// The AMX loops were written after Intel's manual and have not run yet, the NEON loops under emulation alone: no such machine was at hand.
#include "device/cpu/peak.h"

#if defined(__x86_64__)

#include <immintrin.h>

// Twelve sums: more than latency times throughput of any of these. `multiply`: an instruction with %0 for the sum.
#define REGISTER_LOOP(loop_name, isa, vector, lanes, multiply)                                                                 \
    __attribute__((target(isa))) static double loop_name(int64_t rounds) {                                                     \
        vector sums[12] = {0}, a = {0}, b = {0};                                                                               \
        for (int64_t r = 0; r < rounds; r++) {                                                                                 \
            _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) __asm__ volatile(multiply : "+v"(sums[i]) : "v"(a), "v"(b)); \
        }                                                                                                                      \
        return 12.0 * 2 * (lanes) * (double)rounds;                                                                            \
    }

REGISTER_LOOP(fma_avx2, "avx2,fma", __m256, 8, "vfmadd231ps %1, %2, %0")
REGISTER_LOOP(fma_avx512, "avx512f", __m512, 16, "vfmadd231ps %1, %2, %0")
REGISTER_LOOP(dot_bf16, "avx512f,avx512bf16", __m512, 32, "vdpbf16ps %1, %2, %0")
REGISTER_LOOP(vnni_avx512, "avx512f,avx512vnni", __m512i, 64, "vpdpbusd %1, %2, %0")

// Bytes without VNNI: products of bytes to sums of 16 bits, those to 32 bits, added up. Three instructions for 32 products.
__attribute__((target("avx2"))) static double madd_avx2(int64_t rounds) {
    __m256i sums[6] = {0}, product, a = {0}, b = {0}, ones = _mm256_set1_epi16(1);
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++)
            __asm__ volatile("vpmaddubsw %2, %3, %1\n\tvpmaddwd %1, %4, %1\n\tvpaddd %1, %0, %0"
                             : "+x"(sums[i]), "=&x"(product)
                             : "x"(a), "x"(b), "x"(ones));
    return 6.0 * 2 * 32 * (double)rounds;
}

// Four tiles of sums, two of each factor. A palette of 16 rows of 64 bytes; the whole of it is an operand, since GCC's intrinsic names too
// little of it and lets the stores go.
typedef struct palette {
    uint8_t id, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} palette;

#define TILE_LOOP(loop_name, multiply, deep)                                                                  \
    __attribute__((noinline)) static double loop_name(int64_t rounds) {                                       \
        palette p = {.id = 1};                                                                                \
        for (int i = 0; i < 8; i++) p.row_bytes[i] = 64, p.rows[i] = 16;                                      \
        __asm__ volatile("ldtilecfg %0" : : "m"(p));                                                          \
        __asm__ volatile("tilezero %tmm0\n\ttilezero %tmm1\n\ttilezero %tmm2\n\ttilezero %tmm3\n\t"           \
                         "tilezero %tmm4\n\ttilezero %tmm5\n\ttilezero %tmm6\n\ttilezero %tmm7");             \
        for (int64_t r = 0; r < rounds; r++)                                                                  \
            __asm__ volatile(multiply " %tmm6, %tmm4, %tmm0\n\t" multiply " %tmm7, %tmm4, %tmm1\n\t" multiply \
                                      " %tmm6, %tmm5, %tmm2\n\t" multiply " %tmm7, %tmm5, %tmm3");            \
        __asm__ volatile("tilerelease");                                                                      \
        return 4.0 * 2 * 16 * 16 * (deep) * (double)rounds;                                                   \
    }

TILE_LOOP(tile_bf16, "tdpbf16ps", 32)
TILE_LOOP(tile_int8, "tdpbusd", 64)

double cpu_multiply_loop(cpu_multiply kind, int64_t rounds) {
    switch (kind) {
    case CPU_FMA_AVX2: return fma_avx2(rounds);
    case CPU_FMA_AVX512: return fma_avx512(rounds);
    case CPU_DOT_BF16: return dot_bf16(rounds);
    case CPU_MADD_AVX2: return madd_avx2(rounds);
    case CPU_VNNI_AVX512: return vnni_avx512(rounds);
    case CPU_TILE_BF16: return tile_bf16(rounds / 16); // a tile does as much in one
    case CPU_TILE_INT8: return tile_int8(rounds / 16);
    default: return 0;
    }
}

bool cpu_multiply_here(cpu_multiply kind, soma_isa isa) {
    switch (kind) {
    case CPU_FMA_AVX2:
    case CPU_MADD_AVX2: return isa >= SOMA_ISA_AVX2;
    case CPU_FMA_AVX512: return isa >= SOMA_ISA_AVX512;
    case CPU_DOT_BF16: return isa >= SOMA_ISA_AVX512BF16;
    case CPU_VNNI_AVX512: return isa >= SOMA_ISA_AVX512 && cpu_features() & CPU_HAS_AVX512VNNI;
    case CPU_TILE_BF16:
    case CPU_TILE_INT8: return isa >= SOMA_ISA_AMX;
    default: return false;
    }
}

#elif defined(__aarch64__)

typedef uint32_t vector __attribute__((vector_size(16)));

// `extension`: told to the assembler alone.
#define REGISTER_LOOP(loop_name, extension, lanes, multiply)                                                                          \
    __attribute__((noinline)) static double loop_name(int64_t rounds) {                                                               \
        vector sums[12] = {0}, a = {0}, b = {0};                                                                                      \
        for (int64_t r = 0; r < rounds; r++) {                                                                                        \
            _Pragma("GCC unroll 12") for (int i = 0; i < 12;                                                                          \
                                          i++) __asm__ volatile(".arch " extension "\n\t" multiply : "+w"(sums[i]) : "w"(a), "w"(b)); \
        }                                                                                                                             \
        return 12.0 * 2 * (lanes) * (double)rounds;                                                                                   \
    }

REGISTER_LOOP(fma_neon, "armv8-a", 4, "fmla %0.4s, %1.4s, %2.4s")
REGISTER_LOOP(dot_neon, "armv8.2-a+bf16", 8, "bfdot %0.4s, %1.8h, %2.8h")
REGISTER_LOOP(bytes_neon, "armv8.2-a+dotprod", 16, "sdot %0.4s, %1.16b, %2.16b")

double cpu_multiply_loop(cpu_multiply kind, int64_t rounds) {
    switch (kind) {
    case CPU_FMA_NEON: return fma_neon(rounds);
    case CPU_DOT_NEON: return dot_neon(rounds);
    case CPU_BYTES_NEON: return bytes_neon(rounds);
    default: return 0;
    }
}

bool cpu_multiply_here(cpu_multiply kind, soma_isa isa) {
    switch (kind) {
    case CPU_FMA_NEON: return isa >= SOMA_ISA_NEON;
    case CPU_BYTES_NEON: return isa >= SOMA_ISA_NEONDOT;
    case CPU_DOT_NEON: return isa >= SOMA_ISA_NEONBF16;
    default: return false;
    }
}

#else

double cpu_multiply_loop(cpu_multiply kind, int64_t rounds) { return 0; }
bool cpu_multiply_here(cpu_multiply kind, soma_isa isa) { return false; }

#endif

// ---- reading

typedef uint64_t word8 __attribute__((vector_size(64), aligned(64), may_alias));

enum { AHEAD = 2048 }; // bytes that a stream is fetched ahead (512 to 4096 measured alike)

// `four`: the set as four streams, each fetched ahead; else one stream, which the processor fetches ahead itself.
#define READ_LOOP(loop_name, isa)                                                                                           \
    isa static uint64_t loop_name(const char *memory, size_t size, bool four) {                                             \
        word8 sums[4] = {0};                                                                                                \
        const size_t part = four ? size / 4 : 64, next = four ? 64 : 256;                                                   \
        for (size_t at = 0; at < (four ? part : size); at += next) _Pragma("GCC unroll 4") for (size_t i = 0; i < 4; i++) { \
                if (four) __builtin_prefetch(memory + i * part + at + AHEAD);                                               \
                sums[i] += *(const word8 *)(memory + i * part + at);                                                        \
            }                                                                                                               \
        sums[0] += sums[1] + sums[2] + sums[3];                                                                             \
        return sums[0][0] ^ sums[0][1] ^ sums[0][2] ^ sums[0][3] ^ sums[0][4] ^ sums[0][5] ^ sums[0][6];                    \
    }

#if defined(__x86_64__)
READ_LOOP(read_avx512, __attribute__((target("avx512f"))))
READ_LOOP(read_avx2, __attribute__((target("avx2"))))
#endif
READ_LOOP(read_plain, )

uint64_t cpu_read_loop(const char *memory, size_t size, bool four_streams, soma_isa isa) {
#if defined(__x86_64__)
    if (isa >= SOMA_ISA_AVX512) return read_avx512(memory, size, four_streams);
    if (isa >= SOMA_ISA_AVX2) return read_avx2(memory, size, four_streams);
#endif
    return read_plain(memory, size, four_streams);
}
