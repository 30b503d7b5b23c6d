// SPDX-License-Identifier: Apache-2.0
// The products by tiles, over an emulation of AMX: its addresses, edges and fillings, on any machine that packs pairs for it.
#include "fast_harness.h"

#include "amx_emulated.h"
#include "device/cpu/packed.h"

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
    const int before = blocks_done;
    assert_true(harness_run(&h, cpu_fast_packed, out, isa, 1));
    assert_int_not_equal(blocks_done, before);
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

// ---- products of bytes

// The same bits as the plain kernel's, by tiles where there are more than a few rows.
static void check_bytes(soma_quant form, int64_t M, int64_t N, int64_t K) {
    harness h = harness_open();
    soma_tensor *a = harness_input(&h, SOMA_F32, SHAPE(M, K)), *b = harness_input(&h, SOMA_F32, SHAPE(N, K));
    soma_tensor *out = soma_quant_matmul(a, b, harness_input(&h, SOMA_F32, SHAPE(N)), form);
    harness_place(&h);
    harness_fill(&h, a, 1, 1);
    harness_fill(&h, b, 2, 1);
    harness_fill(&h, out->src[2], 3, 1);
    const size_t size = (size_t)(M * N) * 4;
    float *want = soma__alloc(size);
    assert_non_null(want);
    cpu_plain[SOMA_OP_QUANT_MATMUL](&h.run, &(soma_step){&out, 1});
    memcpy(want, harness_data(&h, out), size);
    for (int threads = 1; threads <= 3; threads++) {
        const int before = bytes_done;
        memset(harness_data(&h, out), 0x7e, size);
        assert_true(harness_run(&h, cpu_fast_quant_matmul, out, SOMA_ISA_AMX, threads));
        assert_memory_equal(harness_data(&h, out), want, size);
        assert_true((bytes_done > before) == (M > 4 && form != SOMA_QUANT_I4W));
    }
    soma__free(want);
    harness_close(&h);
}

static void whole_numbers(void **state) {
    if (cpu_best_isa() < SOMA_ISA_AVX512BF16) skip(); // nothing here packs bytes in panels of 64
    const int64_t shapes[][3] = {{1, 64, 128},  {4, 70, 40},    {5, 1, 1},     {16, 33, 129},
                                 {17, 64, 300}, {33, 100, 128}, {101, 65, 70}, {20, 64, 4500}}; // the last: in chunks of k
    for (size_t i = 0; i < SOMA_COUNT(shapes); i++)
        for (soma_quant form = SOMA_QUANT_I8; form <= SOMA_QUANT_I4W; form++)
            if (shapes[i][2] < 4000 || form == SOMA_QUANT_I8) check_bytes(form, shapes[i][0], shapes[i][1], shapes[i][2]);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(whole_numbers),
                                       cmocka_unit_test(absent_tiles_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
