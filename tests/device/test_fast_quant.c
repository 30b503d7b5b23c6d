// SPDX-License-Identifier: Apache-2.0
// Quantised weights that were packed when they were opened: the same bits as packed at every run, and a row's bits are its own, whatever
// else is in the batch. (Against the plain kernel, and for any number of threads: tests/ops.)
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "device/cpu/cpu.h"
#include "device/cpu/packed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 150, K = 300, ROWS = 101 };

static float w[N * K], bias[N], x[ROWS * K];

static void fill(void) {
    soma_rng rng = soma__rng(4);
    soma__rng_normals(&rng, w, N * K);
    soma__rng_normals(&rng, bias, N);
    soma__rng_normals(&rng, x, ROWS * K);
    for (int i = 0; i < K; i++) x[7 * K + i] = 0; // a row without a measure
    x[9 * K + 11] *= 1000;
}

// out [rows, N] of rows [from, from + rows) of x.
static void product(float *out, soma_isa isa, soma_quant form, bool packed, int from, int rows) {
    soma_error err;
    soma_device *d;
    soma_graph *g;
    soma_plan *plan;
    soma_frame *f;
    soma_layout layout = {0};
    void *memory = NULL;
    const soma_device_opts o = {.threads = 2, .isa = cpu_isa_name(isa)};
    assert_int_equal(soma__device_open(&d, "cpu", &o, &err), SOMA_OK);
    assert_int_equal(soma_graph_new(&g, &err), SOMA_OK);
    soma_tensor *a = soma_input(g, "x", SOMA_F32, 2, (int64_t[]){rows, K}), *c = soma_input(g, "bias", SOMA_F32, 1, (int64_t[]){N});
    soma_tensor *b = soma_weight(g, "w", SOMA_F32, (soma_init){0}, 2, (int64_t[]){N, K});
    soma_output(soma_quant_matmul(a, b, c, form), "y");
    assert_int_equal(soma__layout_add(&layout, g, SOMA_ROLE_WEIGHT, &err), SOMA_OK);
    if (packed) assert_int_equal(soma__choose_forms(d, &layout, (const soma_graph *const *)&g, 1, SOMA_ROLE_WEIGHT, &err), SOMA_OK);
    soma_slot *slot = &layout.slots[0];
    assert_int_equal(slot->form != 0, packed);
    layout.size = slot->size;
    assert_int_equal(d->kind->alloc(d, &memory, layout.size, &err), SOMA_OK);
    if (packed) {
        assert_true(slot->size < sizeof w / 2);
        d->kind->pack(d, slot, memory, w, SOMA_F32);
    } else
        memcpy(memory, w, sizeof w);
    if (soma__plan_new(&plan, g, &layout, NULL, d, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__frame_new(&f, plan, memory, NULL, NULL, &err), SOMA_OK);
    assert_int_equal(soma__frame_put(f, "x", x + from * K, sizeof *x * (size_t)(rows * K), &err), SOMA_OK);
    assert_int_equal(soma__frame_put(f, "bias", bias, sizeof bias, &err), SOMA_OK);
    soma__frame_run(f);
    assert_int_equal(soma__frame_get(f, "y", out, sizeof *out * (size_t)(rows * N), &err), SOMA_OK);
    soma__frame_free(f);
    soma__plan_free(plan);
    d->kind->free(d, memory);
    soma__layout_free(&layout);
    soma_graph_free(g);
    soma__device_close(d);
}

static void packed_and_alone(void **state) {
    static float all[ROWS * N], some[ROWS * N];
    fill();
    for (soma_isa isa = SOMA_ISA_PLAIN + 1; isa <= cpu_best_isa(); isa++)
        for (soma_quant form = SOMA_QUANT_I8; form <= SOMA_QUANT_I4W; form++) {
            product(all, isa, form, true, 0, ROWS);
            product(some, isa, form, false, 0, ROWS);
            assert_memory_equal(all, some, sizeof all);
            for (int i = 0; i < N; i++) assert_true(all[7 * N + i] == bias[i]);
            const int from[] = {0, 5, 9, 50, 98}, rows[] = {1, 2, 8, 51, 3};
            for (size_t k = 0; k < SOMA_COUNT(from); k++) {
                product(some, isa, form, true, from[k], rows[k]);
                assert_memory_equal(all + from[k] * N, some, sizeof *some * (size_t)(rows[k] * N));
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(packed_and_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
