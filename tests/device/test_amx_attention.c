// SPDX-License-Identifier: Apache-2.0
// Attention by tiles: the library's own, with an emulation in place of AMX's product, against the same without tiles.
#include "amx_emulated.h"

// Every third key block is unseen where there are holes, so that keys come in several runs.
static void check(int64_t B, int64_t T, int64_t H, int64_t S, int64_t KV, int64_t K, bool holes) {
    harness h = harness_open();
    soma_tensor *q = harness_input(&h, SOMA_F32, SHAPE(B, T, H, K)), *k = harness_input(&h, SOMA_F32, SHAPE(B, S, KV, K)),
                *v = harness_input(&h, SOMA_F32, SHAPE(B, S, KV, K));
    soma_tensor *qb = harness_input(&h, SOMA_I32, SHAPE(B, T)), *kb = harness_input(&h, SOMA_I32, SHAPE(B, S));
    soma_tensor *out = soma_attend(q, k, v, qb, kb, 1 / sqrtf((float)K), SOMA_BF16);
    harness_place(&h);
    harness_fill(&h, q, 1, 1);
    harness_fill(&h, k, 2, 1);
    harness_fill(&h, v, 3, 1);
    for (int64_t i = 0; i < B * T; i++) ((int32_t *)harness_data(&h, qb))[i] = (int32_t)(i % T + S - T);
    for (int64_t j = 0; j < B * S; j++)
        ((int32_t *)harness_data(&h, kb))[j] = holes && j % S / 64 % 3 == 1 ? SOMA_BLOCK_NEVER : (int32_t)(j % S);
    const int64_t n = soma__numel(out);
    double *wanted = soma__alloc((size_t)n * sizeof *wanted), largest = 0;
    assert_true(harness_run(&h, cpu_fast_attention, out, SOMA_ISA_AVX512BF16, 1));
    for (int64_t i = 0; i < n; i++) {
        wanted[i] = harness_get(&h, out, i);
        largest = fmax(largest, fabs(wanted[i]));
    }
    for (int threads = 1; threads <= 2; threads++) {
        memset(harness_data(&h, out), 0x7e, (size_t)n * 4);
        assert_true(harness_run(&h, cpu_fast_attention, out, SOMA_ISA_AMX, threads));
        for (int64_t i = 0; i < n; i++)
            if (!(fabs(harness_get(&h, out, i) - wanted[i]) <= 0x1p-7 * largest))
                fail_msg("%dx%d, head %d [%d]: %g, wanted %g", (int)T, (int)S, (int)K, (int)i, harness_get(&h, out, i), wanted[i]);
    }
    soma__free(wanted);
    harness_close(&h);
}

static void shapes(void **state) {
    if (cpu_best_isa() < SOMA_ISA_AVX512BF16) skip();
    const int64_t sizes[][6] = {{1, 1, 1, 1, 1, 2},     {1, 33, 2, 33, 1, 256}, {2, 70, 4, 70, 2, 72},  {1, 51, 8, 579, 1, 256},
                                {1, 50, 2, 129, 1, 31}, {1, 5, 2, 64, 1, 32},   {1, 31, 4, 200, 2, 40}, {3, 16, 1, 333, 1, 33}};
    for (size_t i = 0; i < SOMA_COUNT(sizes); i++)
        for (int holes = 0; holes < 2; holes++) check(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], sizes[i][4], sizes[i][5], holes);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
