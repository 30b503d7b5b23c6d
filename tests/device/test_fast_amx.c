// SPDX-License-Identifier: Apache-2.0
// The products by tiles, over an emulation of AMX: its addresses, edges and fillings, on any machine that packs pairs for it.
#include "fast_harness.h"

#include "amx_emulated.h"
#include "device/cpu/packed.h"

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
