// SPDX-License-Identifier: Apache-2.0
// AMX's operations without AMX: device/cpu/amx_block.h over tiles in memory, under the names of the library's own functions, which the
// linker therefore leaves out. Follows the manual's order of sums (even and odd elements of 32 apart, then together) but keeps denormals.
#ifndef TESTS_DEVICE_AMX_EMULATED_H
#define TESTS_DEVICE_AMX_EMULATED_H

#include "fast_harness.h"

typedef struct tile {
    int rows;
    uint32_t words[16][16];
} tile;
static _Thread_local tile tiles[8];
static _Thread_local bool ready;

static void emulate_config(const void *config) {
    const uint8_t *c = config;
    assert_int_equal((uintptr_t)config % 64, 0);
    assert_int_equal(c[0], 1); // palette
    for (int i = 1; i < 16; i++) assert_int_equal(c[i], 0);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(c[16 + 2 * i] | c[17 + 2 * i] << 8, 64);
        assert_in_range(c[48 + i], 1, 16);
        tiles[i] = (tile){.rows = c[48 + i]};
    }
    ready = true;
}
static void emulate_load(int t, const void *from, size_t stride) {
    assert_true(ready);
    for (int r = 0; r < tiles[t].rows; r++) memcpy(tiles[t].words[r], (const char *)from + (size_t)r * stride, 64);
}
static void emulate_store(int t, void *to, size_t stride) {
    assert_true(ready);
    for (int r = 0; r < tiles[t].rows; r++) memcpy((char *)to + (size_t)r * stride, tiles[t].words[r], 64);
}
static float half_of(uint32_t word, int half) { return cpu_from_bf16((uint16_t)(word >> 16 * half)); }
static void emulate_dot(int c, int a, int b) {
    assert_true(ready && tiles[c].rows == tiles[a].rows && tiles[b].rows == 16);
    for (int m = 0; m < tiles[c].rows; m++)
        for (int n = 0; n < 16; n++) {
            float even = 0, odd = 0, sum;
            for (int k = 0; k < 16; k++) {
                even = fmaf(half_of(tiles[a].words[m][k], 0), half_of(tiles[b].words[k][n], 0), even);
                odd = fmaf(half_of(tiles[a].words[m][k], 1), half_of(tiles[b].words[k][n], 1), odd);
            }
            memcpy(&sum, &tiles[c].words[m][n], 4);
            sum += even + odd;
            memcpy(&tiles[c].words[m][n], &sum, 4);
        }
}
static void emulate_dot_bytes(int c, int a, int b) {
    assert_true(ready && tiles[c].rows == tiles[a].rows && tiles[b].rows == 16);
    for (int m = 0; m < tiles[c].rows; m++)
        for (int n = 0; n < 16; n++)
            for (int k = 0; k < 16; k++)
                for (int i = 0; i < 32; i += 8)
                    tiles[c].words[m][n] +=
                        (uint32_t)((int8_t)(tiles[a].words[m][k] >> i & 255) * (int32_t)(tiles[b].words[k][n] >> i & 255));
}
#define TILE_CONFIG(config) emulate_config(config)
#define TILE_LOAD(tile, from, stride) emulate_load(tile, from, stride)
#define TILE_STORE(tile, to, stride) emulate_store(tile, to, stride)
#define TILE_ZERO(tile) memset(tiles[tile].words, 0, sizeof tiles[tile].words)
#define TILE_DOT(c, a, b) emulate_dot(c, a, b)
#define TILE_DOT_BYTES(c, a, b) emulate_dot_bytes(c, a, b)
#define TILE_RELEASE() (ready = false)
#include "device/cpu/amx_block.h"

static _Atomic int blocks_done, bytes_done; // calls

void cpu_amx_block(int64_t rows, int64_t cols, int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k, const uint32_t *b,
                   const float *init, int64_t init_ld, float *c, int64_t c_ld) {
    assert_int_equal(kw % 16, 0);
    assert_int_equal(a_k, 1);
    assert_in_range(cols, 1, 64);
    amx_block(rows, cols, kw, a, a_row, a_k, b, init, init_ld, c, c_ld);
    blocks_done++;
}

void cpu_amx_bytes(int64_t rows, int64_t k0, int64_t k1, const int8_t *a, int64_t lda, const int32_t *start, const void *panel,
                   int32_t *sums) {
    assert_int_equal((k1 - k0) % 16, 0);
    amx_bytes(rows, k0, k1, a, lda, start, panel, sums);
    bytes_done++;
}

#endif
