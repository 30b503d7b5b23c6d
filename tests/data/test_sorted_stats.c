// SPDX-License-Identifier: Apache-2.0
// Statistics of a column against the C library's sort, at sizes on both sides of every branch, with equal, negative and huge values.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "data/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float value(soma_rng *rng, int kind) {
    double x = soma__rng_normal(rng);
    return kind == 0   ? (float)x
           : kind == 1 ? (float)round(x)
           : kind == 2 ? (float)(x * 1e30)
                       : (float)(x * 1e-40); // the last are subnormal
}

static void sorts(void **state) {
    static const size_t sizes[] = {1, 2, 47, 48, 49, 1000, 70000};
    soma_rng rng = soma__rng(9);
    for (size_t s = 0; s < SOMA_COUNT(sizes); s++)
        for (int kind = 0; kind < 4; kind++) {
            size_t n = sizes[s];
            float *values = malloc(n * sizeof *values), *sorted = malloc(n * sizeof *sorted);
            double out[SOMA_STAT_COUNT], again[SOMA_STAT_COUNT];
            for (size_t i = 0; i < n; i++) sorted[i] = values[i] = value(&rng, kind);
            if (n > 2) sorted[1] = values[1] = -0.0f;
            qsort(sorted, n, sizeof *sorted, ascending);
            soma__stats_of(out, values, n);
            for (size_t i = 0; i < n; i++) assert_true(values[i] == sorted[i]);
            assert_true(out[SOMA_STAT_MIN] == (double)sorted[0] && out[SOMA_STAT_MAX] == (double)sorted[n - 1]);
            for (size_t i = 0; i < n; i++) values[i] = sorted[n - 1 - i]; // another order, the same bits
            soma__stats_of(again, values, n);
            assert_memory_equal(out, again, sizeof out);
            free(values);
            free(sorted);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sorts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
