// SPDX-License-Identifier: Apache-2.0
// The products by tiles, over an emulation of AMX: its addresses, edges and fillings, on any machine that packs pairs for it. The emulation
// follows the manual's order of sums (even and odd elements of 32 apart, then together) but keeps denormals.
#include "fast_harness.h"

#include "device/cpu/packed.h"

// ---- the operations

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
#define TILE_CONFIG(config) emulate_config(config)
#define TILE_LOAD(tile, from, stride) emulate_load(tile, from, stride)
#define TILE_STORE(tile, to, stride) emulate_store(tile, to, stride)
#define TILE_ZERO(tile) memset(tiles[tile].words, 0, sizeof tiles[tile].words)
#define TILE_DOT(c, a, b) emulate_dot(c, a, b)
#define TILE_RELEASE() (ready = false)
#include "device/cpu/amx_block.h"

// The product as the library has it, over these tiles.
#define cpu_amx_block amx_block
#define cpu_fast_packed emulated_product
cpu_chooser emulated_product;
#include "device/cpu/fast_packed.c"
#undef cpu_fast_packed

// ---- products

static void check(int64_t M, int64_t N, int64_t K, bool with_bias) {
    const soma_isa isa = SOMA_ISA_AMX;
    harness h = harness_open();
    soma_tensor *a = harness_input(&h, SOMA_F32, SHAPE(M, K)), *w = soma_weight(h.g, "w", SOMA_BF16, (soma_init){0}, SHAPE(N, K));
    soma_tensor *bias = with_bias ? harness_input(&h, SOMA_F32, SHAPE(N)) : NULL, *out = soma_matmul(a, w, bias, SOMA_BF16);
    soma_slot slot = {.name = "w", .dtype = SOMA_BF16, .n_dims = 2, .shape = {N, K}};
    cpu_form_choose(&slot, &(const soma_tensor *){out}, 1, SOMA_ISA_AVX512BF16);
    assert_int_equal(slot.form, CPU_FORM_PAIRS);
    harness_place(&h);
    harness_fill(&h, a, 1, 1);
    if (bias) harness_fill(&h, bias, 2, 1);
    w->form = slot.form;
    w->place = 0;
    uint16_t *data = soma__alloc((size_t)(N * K) * 2);
    h.run.buffers[SOMA_ROLE_WEIGHT] = soma__alloc(slot.size);
    assert_true(data && h.run.buffers[SOMA_ROLE_WEIGHT]);
    soma_rng rng = soma__rng(3);
    for (int64_t i = 0; i < N * K; i++) data[i] = cpu_to_bf16((float)soma__rng_normal(&rng));
    soma_pool *pool;
    assert_int_equal(soma__pool_new(&pool, 1, NULL), SOMA_OK);
    cpu_form_pack(&slot, h.run.buffers[SOMA_ROLE_WEIGHT], data, SOMA_BF16, SOMA_ISA_AVX512BF16, pool);
    soma__pool_free(pool);
    assert_true(harness_run(&h, emulated_product, out, isa, 1));
    for (int64_t i = 0; i < M * N; i++) {
        double sum = bias ? harness_get(&h, bias, i % N) : 0, size = fabs(sum);
        for (int64_t k = 0; k < K; k++) {
            const double p =
                (double)cpu_from_bf16(cpu_to_bf16((float)harness_get(&h, a, i / N * K + k))) * (double)cpu_from_bf16(data[i % N * K + k]);
            sum += p, size += fabs(p);
        }
        if (!(fabs(harness_get(&h, out, i) - sum) <= size * 4e-7 + 1e-30))
            fail_msg("%dx%dx%d [%d]: %g, wanted %g", (int)M, (int)N, (int)K, (int)i, harness_get(&h, out, i), sum);
    }
    soma__free(h.run.buffers[SOMA_ROLE_WEIGHT]);
    soma__free(data);
    harness_close(&h);
}

static void sizes(void **state) {
    if (cpu_best_isa() < SOMA_ISA_AVX512BF16) skip(); // nothing here packs pairs in panels of 64
    const int64_t shapes[][3] = {{1, 1, 1},    {1, 64, 32},    {3, 70, 33},   {15, 16, 31},   {16, 32, 64},   {17, 33, 65},
                                 {31, 65, 90}, {32, 128, 512}, {33, 31, 513}, {51, 100, 544}, {65, 48, 1030}, {200, 90, 40}};
    for (size_t i = 0; i < SOMA_COUNT(shapes); i++)
        for (int bias = 0; bias < 2; bias++) check(shapes[i][0], shapes[i][1], shapes[i][2], bias);
}

// Without AMX the word is refused with a sentence, and nothing chooses it.
static void absent_tiles_are_refused(void **state) {
    if (cpu_best_isa() >= SOMA_ISA_AMX) skip();
    soma_device *device;
    soma_error err = {0};
    assert_int_equal(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1, .isa = "amx"}, &err), SOMA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "this machine has no amx"));
    assert_int_equal(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1}, &err), SOMA_OK);
    assert_null(strstr(device->kind->info(device), "amx"));
    soma__device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(absent_tiles_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
