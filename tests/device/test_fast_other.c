// SPDX-License-Identifier: Apache-2.0
// Rotary positions, sums, moves, table look-ups and the optimiser against the plain kernels.
#include "fast_harness.h"

static void rope(void **state) {
    const int64_t heads[] = {2, 16, 40, 64, 256};
    for (size_t i = 0; i < SOMA_COUNT(heads); i++)
        for (int k = 0; k < 4; k++) {
            harness h = harness_open();
            const soma_dtype dtype = k & 1 ? SOMA_BF16 : SOMA_F32;
            soma_tensor *x = k & 2 ? soma_slice(harness_input(&h, dtype, SHAPE(2, 37, 5, heads[i])), 2, 1, 3)
                                   : harness_input(&h, dtype, SHAPE(2, 37, 3, heads[i]));
            soma_tensor *pos = harness_input(&h, SOMA_I32, SHAPE(2, 37)), *y = soma_rotate(x, pos, 10000);
            if (k & 2) y->p.rope.sign = -1;
            harness_place(&h);
            harness_fill(&h, soma__owner(x), 1, 1);
            for (int64_t t = 0; t < 74; t++) ((int32_t *)harness_data(&h, pos))[t] = (int32_t)(t == 73 ? 200000 : t * 11);
            harness_against_plain(&h, y, cpu_fast_rope, k & 1 ? 0x1p-7f : 2e-6f);
            harness_close(&h);
        }
}

static void sums(void **state) {
    const struct {
        int64_t shape[4];
        uint32_t dims;
    } all[] = {{{1, 1, 5280, 128}, 4}, {{3, 7, 500, 33}, 3},  {{3, 7, 500, 33}, 7}, {{2, 40, 3, 65}, 12}, {{1, 1, 300, 700}, 8},
               {{2, 4, 30, 700}, 15},  {{1, 1, 3, 70000}, 8}, {{5, 1, 300, 1}, 4},  {{4, 100, 1, 16}, 2}};
    for (size_t i = 0; i < SOMA_COUNT(all); i++)
        for (int k = 0; k < 2; k++) {
            harness h = harness_open();
            soma_tensor *x = harness_input(&h, k ? SOMA_BF16 : SOMA_F32, 4, all[i].shape), *y = soma_sum(x, all[i].dims);
            harness_place(&h);
            harness_fill(&h, x, i, 1);
            harness_against_plain(&h, y, cpu_fast_sum, 1e-4f);
            harness_close(&h);
        }
    harness h = harness_open(); // a view with a gap; and what is declined
    soma_tensor *x = soma_slice(harness_input(&h, SOMA_F32, SHAPE(4, 9, 20)), 1, 2, 5), *y = soma_sum(x, 2);
    soma_tensor *z = soma_sum(harness_input(&h, SOMA_F32, SHAPE(4, 9, 20)), 5);
    assert_null(cpu_fast_sum(&(soma_step){&z, 1}, cpu_best_isa()).run);
    harness_place(&h);
    harness_fill(&h, soma__owner(x), 3, 1);
    harness_against_plain(&h, y, cpu_fast_sum, 1e-5f);
    harness_close(&h);
}

static void moves(void **state) {
    const int order[] = {0, 2, 1};
    for (soma_dtype type = SOMA_F32; type <= SOMA_U8; type++)
        for (int dim = 0; dim < 3; dim++) {
            harness h = harness_open();
            int64_t s[3] = {4, 6, 10}, with_dim[3] = {4, 6, 10};
            with_dim[dim] = 3;
            soma_tensor *a = harness_input(&h, type, 3, s), *b = harness_input(&h, type, 3, with_dim);
            soma_tensor *c = soma_permute(harness_input(&h, type, SHAPE(4, 10, 6)), order);
            soma_tensor *joined = soma_concat((soma_tensor *[]){a, b, c}, 3, dim), *padded = soma_pad(c, dim, 2, 5);
            soma_tensor *state_of = soma_state(h.g, "s", type, 3, (int64_t[]){9, 9, 12});
            soma_tensor *into = soma_slice(soma_slice(soma_slice(state_of, 0, 1, 4), 1, 2, 6), 2, 1, 10), *stored = soma_store(c, into);
            harness_place(&h);
            harness_fill(&h, a, 1, 1);
            harness_fill(&h, b, 2, 1);
            harness_fill(&h, soma__owner(c), 3, 1);
            harness_against_plain(&h, joined, cpu_fast_concat, 0);
            harness_against_plain(&h, padded, cpu_fast_pad, 0);
            assert_true(harness_run(&h, cpu_fast_store, stored, cpu_best_isa(), 2));
            for (int64_t i = 0; i < soma__numel(c); i++) assert_true(harness_get(&h, c, i) == harness_get(&h, into, i));
            harness_close(&h);
        }
}

static void tables(void **state) {
    for (int k = 0; k < 3; k++) {
        harness h = harness_open();
        soma_tensor *table = harness_input(&h, k ? SOMA_BF16 : SOMA_F32, SHAPE(50, 33)), *ids = harness_input(&h, SOMA_I32, SHAPE(7, 90));
        soma_tensor *y = soma_embed(table, ids), *dy = harness_input(&h, SOMA_F32, SHAPE(7, 90, 33)),
                    node = *harness_input(&h, SOMA_F32, SHAPE(50, 33));
        soma_tensor *grad = h.g->tensors[h.g->n_tensors - 1];
        if (k == 2) y->dtype = SOMA_F32;
        harness_place(&h);
        harness_fill(&h, table, 1, 1);
        harness_fill(&h, dy, 2, 1);
        for (int64_t i = 0; i < 630; i++) ((int32_t *)harness_data(&h, ids))[i] = (int32_t)(i * 7 % 55) - 2; // some lie outside
        harness_against_plain(&h, y, cpu_fast_embed, 0);
        node.op = SOMA_OP_EMBED_GRAD;
        node.src[0] = ids, node.src[1] = dy, node.place = grad->place;
        harness_against_plain(&h, &node, cpu_fast_embed_grad, 0);
        harness_close(&h);
    }
}

static void adamw(void **state) {
    enum { N = 40001 };
    for (int with_ema = 0; with_ema < 2; with_ema++) {
        float want[4][N];
        for (soma_isa isa = SOMA_ISA_PLAIN; isa <= cpu_best_isa(); isa++) {
            harness h = harness_open();
            soma_tensor *t[4], *g = harness_input(&h, SOMA_F32, SHAPE(N)), *s = harness_input(&h, SOMA_F32, SHAPE(8)),
                               *by = harness_input(&h, SOMA_F32, SHAPE(1));
            for (int i = 0; i < 4; i++) t[i] = harness_input(&h, SOMA_F32, SHAPE(N)); // w, m, v, ema
            soma_tensor *step = soma_adamw(t[0], g, t[1], t[2], with_ema ? t[3] : NULL, s, by);
            harness_place(&h);
            for (int i = 0; i < 4; i++) harness_fill(&h, t[i], (uint64_t)i, 0.5f);
            for (int i = 0; i < N; i++) ((float *)harness_data(&h, t[2]))[i] = fabsf(((float *)harness_data(&h, t[2]))[i]);
            harness_fill(&h, g, 7, 2);
            memcpy(harness_data(&h, s), (float[8]){1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 2, 3, 0.99f}, 32);
            *(float *)harness_data(&h, by) = 0.5f;
            if (isa == SOMA_ISA_PLAIN)
                cpu_plain[SOMA_OP_ADAMW](&h.run, &(soma_step){&step, 1});
            else
                assert_true(harness_run(&h, cpu_fast_adamw, step, isa, 2));
            for (int i = 0; i < 4; i++) {
                const float *got = harness_data(&h, t[i]);
                for (int k = 0; k < N; k++) {
                    if (isa == SOMA_ISA_PLAIN)
                        want[i][k] = got[k];
                    else
                        assert_true(fabsf(got[k] - want[i][k]) <= 1e-6f * (1 + fabsf(want[i][k])));
                }
            }
            harness_close(&h);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rope), cmocka_unit_test(sums), cmocka_unit_test(moves), cmocka_unit_test(tables),
                                       cmocka_unit_test(adamw)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
