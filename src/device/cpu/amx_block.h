// SPDX-License-Identifier: Apache-2.0
// The product of a packed block by tiles of 16 rows of 64 bytes (AMX), for panels of 64 columns: of bf16 pairs (packed.h), or of four bytes
// (fast_quant.h). It is written over a few operations that whoever includes this defines first, so that addresses and results are tested on
// machines without AMX:
//
//   TILE_CONFIG(config)          takes the 64 bytes of an amx_config       TILE_LOAD(tile, from, stride)   rows `stride` bytes apart
//   TILE_ZERO(tile)              a tile's number is a constant             TILE_STORE(tile, to, stride)
//   TILE_DOT(c, a, b)            c += a b, pairs of bf16, sums in f32      TILE_RELEASE()                  gives the tiles' state back
//   TILE_DOT_BYTES(c, a, b)      the same of four bytes, a signed and b unsigned, sums of 32 bits
#ifndef SOMA_DEVICE_CPU_AMX_BLOCK_H
#define SOMA_DEVICE_CPU_AMX_BLOCK_H

#include "device/cpu/fast_matmul.h"
#include "device/cpu/fast_quant.h"

#include <string.h>

typedef struct amx_config { // as LDTILECFG reads it
    _Alignas(64) uint8_t palette;
    uint8_t start_row, reserved[14];
    uint16_t row_size[16]; // bytes
    uint8_t rows[16];
} amx_config;

enum {
    TILE = 16,           // rows of a tile, and f32 or pairs in its row
    AMX_PANEL = 64,      // columns of a panel
    AMX_SPAN = 2 * TILE, // rows and columns of four tiles of sums: each tile of a and of b is read once for two products
};
// The tiles' numbers, macros because they become part of an instruction's text.
#define TILE_C00 0
#define TILE_C01 1
#define TILE_C10 2
#define TILE_C11 3
#define TILE_A0 4
#define TILE_A1 5
#define TILE_B0 6
#define TILE_B1 7

// Tiles for h rows of sums, in one or two tiles.
static void amx_configure(int64_t h) {
    amx_config config = {.palette = 1};
    const uint8_t first = (uint8_t)SOMA_MIN(TILE, h), second = (uint8_t)SOMA_MAX(1, h - TILE);
    for (int i = 0; i < 8; i++) config.row_size[i] = 4 * TILE;
    config.rows[TILE_C00] = config.rows[TILE_C01] = config.rows[TILE_A0] = first;
    config.rows[TILE_C10] = config.rows[TILE_C11] = config.rows[TILE_A1] = second;
    config.rows[TILE_B0] = config.rows[TILE_B1] = TILE;
    TILE_CONFIG(&config);
}

#define AMX_INLINE static inline __attribute__((always_inline, unused))
#define AMX_DOT(c, a, b)             \
    do {                             \
        if (bytes)                   \
            TILE_DOT_BYTES(c, a, b); \
        else                         \
            TILE_DOT(c, a, b);       \
    } while (0)

// c [h, 32] = init + a b over kw words; init NULL: zeros; strides in bytes. Sums are f32, of `bytes` whole numbers.
AMX_INLINE void amx_span(const bool bytes, const bool two, int64_t kw, const uint32_t *a, int64_t a_row, const uint32_t *b,
                         const void *init, size_t init_stride, void *c, size_t c_stride) {
    const char *from = init;
    char *to = c;
    if (init) {
        TILE_LOAD(TILE_C00, from, init_stride);
        TILE_LOAD(TILE_C01, from + 4 * TILE, init_stride);
        if (two) TILE_LOAD(TILE_C10, from + TILE * init_stride, init_stride);
        if (two) TILE_LOAD(TILE_C11, from + 4 * TILE + TILE * init_stride, init_stride);
    } else {
        TILE_ZERO(TILE_C00);
        TILE_ZERO(TILE_C01);
        if (two) TILE_ZERO(TILE_C10);
        if (two) TILE_ZERO(TILE_C11);
    }
    const size_t a_stride = 4 * (size_t)a_row, b_stride = 4 * AMX_PANEL;
    for (int64_t k = 0; k < kw; k += TILE, a += TILE, b += TILE * AMX_PANEL) {
        TILE_LOAD(TILE_A0, a, a_stride);
        TILE_LOAD(TILE_B0, b, b_stride);
        TILE_LOAD(TILE_B1, b + TILE, b_stride);
        AMX_DOT(TILE_C00, TILE_A0, TILE_B0);
        AMX_DOT(TILE_C01, TILE_A0, TILE_B1);
        if (!two) continue;
        TILE_LOAD(TILE_A1, a + TILE * a_row, a_stride);
        AMX_DOT(TILE_C10, TILE_A1, TILE_B0);
        AMX_DOT(TILE_C11, TILE_A1, TILE_B1);
    }
    TILE_STORE(TILE_C00, to, c_stride);
    TILE_STORE(TILE_C01, to + 4 * TILE, c_stride);
    if (two) TILE_STORE(TILE_C10, to + TILE * c_stride, c_stride);
    if (two) TILE_STORE(TILE_C11, to + 4 * TILE + TILE * c_stride, c_stride);
}

// A cpu_gemm_block of pairs. a lies by rows (a_k is 1) and kw is a multiple of 16: both factors are filled with zeros.
AMX_INLINE void amx_block(int64_t rows, int64_t cols, int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k, const uint32_t *b,
                          const float *init, int64_t init_ld, float *c, int64_t c_ld) {
    int64_t configured = 0;
    for (int64_t n = 0; n < cols; n += AMX_SPAN)
        for (int64_t m = 0; m < rows; m += AMX_SPAN) {
            const int64_t h = SOMA_MIN(AMX_SPAN, rows - m), w = SOMA_MIN(AMX_SPAN, cols - n);
            const float *from = init ? init + m * init_ld + n : NULL;
            float *to = c + m * c_ld + n;
            size_t from_stride = 4 * (size_t)init_ld, to_stride = 4 * (size_t)c_ld;
            _Alignas(64) float edge[AMX_SPAN * AMX_SPAN]; // where fewer than 32 columns are there
            if (w < AMX_SPAN) {
                for (int64_t r = 0; from && r < h; r++) memcpy(edge + r * AMX_SPAN, from + r * init_ld, (size_t)w * 4);
                to = edge, to_stride = from_stride = 4 * AMX_SPAN;
                if (from) from = edge;
            }
            if (configured != h) amx_configure(configured = h);
            if (h > TILE)
                amx_span(false, true, kw, a + m * a_row, a_row, b + n, from, from_stride, to, to_stride);
            else
                amx_span(false, false, kw, a + m * a_row, a_row, b + n, from, from_stride, to, to_stride);
            for (int64_t r = 0; w < AMX_SPAN && r < h; r++) memcpy(c + (m + r) * c_ld + n, edge + r * AMX_SPAN, (size_t)w * 4);
        }
    TILE_RELEASE();
}

// cpu_quant_isa's products of bytes, for panels with an offset: the same whole numbers.
AMX_INLINE void amx_bytes(int64_t rows, int64_t k0, int64_t k1, const int8_t *a, int64_t lda, const int32_t *start, const void *panel,
                          int32_t *sums) {
    const uint32_t *words = (const uint32_t *)(const void *)a + k0, *b = (const uint32_t *)panel + k0 * AMX_PANEL;
    for (int64_t i = 0; !k0 && i < rows * AMX_PANEL; i++) sums[i] = start[i / AMX_PANEL];
    for (int64_t m = 0, configured = 0; m < rows; m += AMX_SPAN) {
        const int64_t h = SOMA_MIN(AMX_SPAN, rows - m);
        if (configured != h) amx_configure(configured = h);
        for (int64_t n = 0; n < AMX_PANEL; n += AMX_SPAN) {
            int32_t *c = sums + m * AMX_PANEL + n;
            if (h > TILE)
                amx_span(true, true, k1 - k0, words + m * (lda / 4), lda / 4, b + n, c, 4 * AMX_PANEL, c, 4 * AMX_PANEL);
            else
                amx_span(true, false, k1 - k0, words + m * (lda / 4), lda / 4, b + n, c, 4 * AMX_PANEL, c, 4 * AMX_PANEL);
        }
    }
    TILE_RELEASE();
}

#endif
