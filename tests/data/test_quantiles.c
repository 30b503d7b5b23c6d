// SPDX-License-Identifier: Apache-2.0
// Quantiles of a column that is spread over ranks: the bits of those of the sorted whole.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "data/stats.h"
#include "thread_ranks.h"

#include <float.h>

static const double quantiles[] = {0.01, 0.5, 0.99, 0};

typedef struct spread {
    const float *values;
    size_t n;
    double got[MAX_RANKS][SOMA_STATS_QUANTILES];
} spread;

// The last rank has nothing unless it is the only one.
static void take_part(soma_ranks *ranks, void *ctx) {
    spread *s = ctx;
    int busy = SOMA_MAX(ranks->count - 1, 1), r = SOMA_MIN(ranks->rank, busy);
    size_t from = s->n * (size_t)r / (size_t)busy, to = r == busy ? from : s->n * (size_t)(r + 1) / (size_t)busy;
    soma__stats_quantiles(s->got[ranks->rank], quantiles, SOMA_STATS_QUANTILES, s->values + from, to - from, ranks);
}

static void check(float *values, size_t n) {
    spread s = {.values = values, .n = n};
    double alone[SOMA_STATS_QUANTILES], all[SOMA_STAT_COUNT];
    soma__stats_quantiles(alone, quantiles, SOMA_STATS_QUANTILES, values, n, NULL);
    for (int count = 1; count <= 4; count++) {
        run_ranks(count, take_part, &s);
        for (int r = 0; r < count; r++) assert_memory_equal(s.got[r], alone, sizeof alone);
    }
    soma__stats_of(all, values, n); // sorts them
    double wanted[] = {all[SOMA_STAT_Q01], all[SOMA_STAT_Q50], all[SOMA_STAT_Q99], all[SOMA_STAT_MIN]};
    assert_memory_equal(alone, wanted, sizeof wanted);
}

static void test_random(void **state) {
    soma_rng rng = soma__rng(5);
    static float values[3001];
    for (int round = 0; round < 40; round++) {
        size_t n = 1 + (size_t)soma__rng_below(&rng, round % 4 ? SOMA_COUNT(values) : 5);
        for (size_t i = 0; i < n; i++) {
            values[i] = (float)soma__rng_normal(&rng) * (round % 3 ? 1.0f : 1e-30f);
            if (round % 5 == 0) values[i] = (float)soma__rng_below(&rng, 4) - 2; // ties
        }
        check(values, n);
    }
}

static void test_corners(void **state) {
    float zeros[] = {0.0f, -0.0f, 0.0f}, ends[] = {FLT_MAX, -FLT_MAX}, tiny[] = {FLT_TRUE_MIN, -FLT_TRUE_MIN, 0, 1}, one[] = {-3.5f};
    check(zeros, 3);
    check(ends, 2);
    check(tiny, 4);
    check(one, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_corners)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
