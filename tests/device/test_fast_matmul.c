// SPDX-License-Identifier: Apache-2.0
// The blocked matrix product against a double loop: odd sizes, transposed and gapped views, both products, all instruction sets.
#include "fast_harness.h"

typedef struct spec {
    const soma_tensor *a, *b, *bias;
    bool round;
} spec;

static double value(harness *h, const soma_tensor *t, int64_t batch, int64_t row, int64_t k, bool round) {
    const int d = t->n_dims;
    int64_t n_batches = 1;
    for (int i = 0; i < d - 2; i++) n_batches *= t->shape[i];
    const double x = harness_get(h, t, ((batch % n_batches) * t->shape[d - 2] + row) * t->shape[d - 1] + k);
    return round ? (double)cpu_from_bf16(cpu_to_bf16((float)x)) : x;
}

static void compare(harness *h, const soma_tensor *out, soma_isa isa, void *user) {
    const spec *s = user;
    const int64_t M = out->shape[out->n_dims - 2], N = out->shape[out->n_dims - 1], K = s->a->shape[s->a->n_dims - 1];
    const int64_t n = soma__numel(out), stride = n > 20000 ? 97 : 1; // a sample of a large product
    for (int64_t i = 0; i < n; i += stride) {
        const int64_t batch = i / (M * N), row = i / N % M, col = i % N;
        double sum = s->bias ? harness_get(h, s->bias, col) : 0, size = fabs(sum);
        for (int64_t k = 0; k < K; k++) {
            const double p = value(h, s->a, batch, row, k, s->round) * value(h, s->b, batch, col, k, s->round);
            sum += p, size += fabs(p);
        }
        const double got = harness_get(h, out, i), tolerance = size * (out->dtype == SOMA_BF16 ? 0x1p-8 : 4e-7) + 1e-30;
        if (!(fabs(got - sum) <= tolerance)) fail_msg("isa %s [%d] : %g, wanted %g", cpu_isa_name(isa), (int)i, got, sum);
    }
}

// `a_view`, `b_view`: 0 as is, 1 a transposed view, 2 rows with a gap
static soma_tensor *factor(harness *h, soma_dtype dtype, int64_t rows, int64_t k, int view) {
    if (view == 1) return soma_transpose(harness_input(h, dtype, SHAPE(k, rows)));
    if (view == 2) return soma_slice(harness_input(h, dtype, SHAPE(rows, k + 6)), 1, 3, k);
    return harness_input(h, dtype, SHAPE(rows, k));
}

static void check(int64_t M, int64_t N, int64_t K, int a_view, int b_view, soma_dtype a_type, soma_dtype b_type, bool with_bias,
                  soma_dtype product) {
    harness h = harness_open();
    soma_tensor *a = factor(&h, a_type, M, K, a_view), *b = factor(&h, b_type, N, K, b_view);
    soma_tensor *bias = with_bias ? harness_input(&h, b_type, SHAPE(N)) : NULL;
    soma_tensor *out = soma_matmul(a, b, bias, product);
    harness_place(&h);
    harness_fill(&h, soma__owner(a), 1, 1);
    harness_fill(&h, soma__owner(b), 2, 1);
    if (bias) harness_fill(&h, bias, 3, 1);
    spec s = {a, b, bias, product == SOMA_BF16};
    const int taken = harness_all(&h, cpu_fast_matmul, &(soma_step){&out, 1}, compare, &s);
    assert_int_equal(taken, cpu_best_isa());
    harness_close(&h);
}

static void sizes(void **state) {
    const int64_t shapes[][3] = {{1, 1, 1},   {1, 70, 33},    {2, 5, 1000},   {3, 64, 64},   {5, 17, 7},   {6, 64, 256},
                                 {7, 65, 31}, {97, 130, 129}, {200, 16, 300}, {33, 300, 65}, {130, 3, 77}, {12, 100, 2}};
    for (size_t i = 0; i < SOMA_COUNT(shapes); i++)
        for (int product = 0; product < 2; product++)
            for (int views = 0; views < 9; views++)
                check(shapes[i][0], shapes[i][1], shapes[i][2], views % 3, views / 3, SOMA_F32, SOMA_F32, i & 1,
                      product ? SOMA_BF16 : SOMA_F32);
}

static void bf16_weights(void **state) {
    const int64_t shapes[][3] = {{1, 100, 257}, {4, 33, 64}, {51, 70, 129}, {130, 64, 40}};
    for (size_t i = 0; i < SOMA_COUNT(shapes); i++)
        for (int product = 0; product < 2; product++)
            for (int types = 0; types < 3; types++)
                for (int views = 0; views < 9; views++)
                    check(shapes[i][0], shapes[i][1], shapes[i][2], views % 3, views / 3, types == 2 ? SOMA_BF16 : SOMA_F32,
                          types ? SOMA_BF16 : SOMA_F32, true, product ? SOMA_BF16 : SOMA_F32);
}

static void long_contraction(void **state) { // split, with parts summed at the end
    check(64, 40, 5280, 1, 1, SOMA_F32, SOMA_F32, true, SOMA_BF16);
    check(64, 40, 5280, 1, 1, SOMA_F32, SOMA_F32, true, SOMA_F32);
    check(30, 70, 3001, 1, 1, SOMA_F32, SOMA_F32, false, SOMA_BF16);
    check(30, 70, 3001, 0, 0, SOMA_BF16, SOMA_F32, false, SOMA_BF16);
}

static void batches(void **state) {
    for (int kind = 0; kind < 4; kind++) {
        harness h = harness_open();
        soma_tensor *a, *b;
        if (kind == 0)
            a = harness_input(&h, SOMA_F32, SHAPE(3, 11, 20)), b = harness_input(&h, SOMA_F32, SHAPE(33, 20));
        else if (kind == 1) { // a gap between B and T: two levels of rows
            a = soma_slice(harness_input(&h, SOMA_F32, SHAPE(4, 15, 20)), 1, 2, 11);
            b = harness_input(&h, SOMA_F32, SHAPE(9, 20));
        } else if (kind == 2)
            a = harness_input(&h, SOMA_F32, SHAPE(2, 3, 11, 20)), b = harness_input(&h, SOMA_F32, SHAPE(2, 3, 7, 20));
        else {
            const int order[] = {0, 2, 1, 3};
            a = soma_permute(harness_input(&h, SOMA_F32, SHAPE(2, 11, 3, 20)), order);
            b = soma_transpose(harness_input(&h, SOMA_F32, SHAPE(2, 3, 20, 7)));
        }
        soma_tensor *out = soma_matmul(a, b, NULL, SOMA_BF16);
        harness_place(&h);
        harness_fill(&h, soma__owner(a), 1, 1);
        harness_fill(&h, soma__owner(b), 2, 1);
        spec s = {a, b, NULL, true};
        assert_int_equal(harness_all(&h, cpu_fast_matmul, &(soma_step){&out, 1}, compare, &s), cpu_best_isa());
        harness_close(&h);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(bf16_weights), cmocka_unit_test(long_contraction),
                                       cmocka_unit_test(batches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
