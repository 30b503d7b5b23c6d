// SPDX-License-Identifier: Apache-2.0
// The tiles' operations as instructions. Never run where this was written: no machine with AMX was at hand. What is tested is the code over
// them (tests/device/test_fast_amx.c).
#if defined(__x86_64__)
#include <immintrin.h>

// gcc 12 does not know that these two read memory: without the barriers it drops or moves the stores that fill it.
#define TILE_CONFIG(config)                              \
    do {                                                 \
        __asm__ volatile("" : : "r"(config) : "memory"); \
        _tile_loadconfig(config);                        \
    } while (0)
#define TILE_LOAD(tile, from, stride)        \
    do {                                     \
        __asm__ volatile("" : : : "memory"); \
        _tile_loadd(tile, from, stride);     \
    } while (0)
#define TILE_ZERO(tile) _tile_zero(tile)
#define TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define TILE_DOT(c, a, b) _tile_dpbf16ps(c, a, b)
#define TILE_DOT_BYTES(c, a, b) _tile_dpbsud(c, a, b)
#define TILE_RELEASE() _tile_release()
#include "device/cpu/amx_block.h"

void cpu_amx_block(int64_t rows, int64_t cols, int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k, const uint32_t *b,
                   const float *init, int64_t init_ld, float *c, int64_t c_ld) {
    amx_block(rows, cols, kw, a, a_row, a_k, b, init, init_ld, c, c_ld);
}

void cpu_amx_bytes(int64_t rows, int64_t k0, int64_t k1, const int8_t *a, int64_t lda, const int32_t *start, const void *panel,
                   int32_t *sums) {
    amx_bytes(rows, k0, k1, a, lda, start, panel, sums);
}
#endif
