// SPDX-License-Identifier: Apache-2.0
// Running statistics against openpi's RunningStats, and against sorting.
#include "golden/golden.h"

#include "transform/running.h"

static int by_value(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

// Quantiles lie within two bins of the sorted data's, however the rows are cut into pieces and the range grows.
static void test_against_sorting(void **state) {
    enum { N = 4000 };
    static double rows[N][2], sorted[N];
    for (int i = 0; i < N; i++) {
        rows[i][0] = sin(i * 0.7) * (i < 100 ? 1 : 5);
        rows[i][1] = 3; // never moves
        sorted[i] = rows[i][0];
    }
    qsort(sorted, N, sizeof *sorted, by_value);
    static const int pieces[] = {N, 1000, 7};
    for (size_t p = 0; p < SOMA_COUNT(pieces); p++) {
        soma_running *r;
        soma_norm norm;
        soma_error err = {0};
        assert_int_equal(soma__running_new(&r, 2, &err), SOMA_OK);
        for (int i = 0; i < N; i += pieces[p]) soma__running_add(r, rows[i], SOMA_MIN(pieces[p], N - i));
        assert_int_equal(soma__running_count(r), N);
        if (soma__running_norm(r, &norm, "state", &err)) fail_msg("%s", err.text);
        double sum = 0, square = 0, bin = 10.0 / 5000;
        for (int i = 0; i < N; i++) sum += rows[i][0], square += rows[i][0] * rows[i][0];
        assert_float_equal(norm.mean[0], sum / N, 1e-12);
        assert_float_equal(norm.std[0], sqrt(square / N - sum / N * (sum / N)), 1e-12);
        assert_true(fabs(norm.q01[0] - sorted[N / 100]) < 2 * bin && fabs(norm.q99[0] - sorted[N - N / 100]) < 2 * bin);
        assert_true(norm.min[0] == sorted[0] && norm.max[0] == sorted[N - 1]);
        assert_true(norm.std[1] == 0 && norm.mean[1] == 3);
        assert_float_equal(norm.q01[1], 3, 1e-9);
        assert_float_equal(norm.q99[1], 3, 1e-9);
        soma__running_free(r);
    }
}

static void test_refused(void **state) {
    soma_running *r;
    soma_norm norm;
    soma_error err = {0};
    const double row[] = {1, 2};
    assert_int_equal(soma__running_new(&r, 2, &err), SOMA_OK);
    soma__running_add(r, row, 1);
    assert_int_equal(soma__running_norm(r, &norm, "actions", &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, "statistics of actions need two rows, there are 1");
    soma__running_free(r);
    for (int n = 0; n < 9; n++) {
        soma__alloc_fail_after(n);
        assert_int_equal(soma__running_new(&r, 2, &err), SOMA_NO_MEMORY);
        soma__alloc_fail_after(-1);
        assert_null(r);
    }
}

// openpi ran in the precision of its rows: f32, or f64 ("f64_2b_").
static void hold_case(const soma_safetensors *st, const char *prefix, int n_batches, double tolerance) {
    static const char *const names[] = {"mean", "std", "q01", "q99"};
    soma_running *r;
    soma_norm norm;
    soma_error err = {0};
    assert_int_equal(soma__running_new(&r, 4, &err), SOMA_OK);
    for (int b = 0; b < n_batches; b++) {
        char name[40];
        int64_t n;
        snprintf(name, sizeof name, "batch%d", b);
        float *x = golden_get(st, name, SOMA_F32, &n);
        double *rows = malloc((size_t)n * sizeof *rows);
        for (int64_t i = 0; i < n; i++) rows[i] = x[i];
        soma__running_add(r, rows, n / 4);
        free(rows);
        free(x);
    }
    if (soma__running_norm(r, &norm, "x", &err)) fail_msg("%s", err.text);
    const double *lists[] = {norm.mean, norm.std, norm.q01, norm.q99};
    for (int k = 0; k < 4; k++) {
        char name[40];
        snprintf(name, sizeof name, "%s%s", prefix, names[k]);
        golden_hold(st, name, "-", SOMA_F64, lists[k], GOLDEN_EACH, tolerance);
    }
    soma__running_free(r);
}

static void test_golden(void **state) {
    soma_safetensors *st = golden_open("preprocess/running_stats.safetensors");
    hold_case(st, "f64_2b_", 2, 1e-12);
    hold_case(st, "", 6, 1e-5);
    soma__safetensors_close(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_sorting), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
