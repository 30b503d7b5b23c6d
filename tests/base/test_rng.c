// SPDX-License-Identifier: Apache-2.0
// Random streams: the same numbers everywhere, independent where they must be, of the shape that they claim.
// Statistical bounds are five standard deviations of the estimate; seeds are fixed, so a pass stays a pass.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"

#include <math.h>

enum { N = 200000 };

static void stream_is_a_function_of_seed_and_counter(void **state) {
    soma_rng a = soma__rng(7), b = soma__rng(7), c = soma__rng(8);
    int same = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = soma__rng_u64(&a);
        assert_true(x == soma__rng_u64(&b));
        same += x == soma__rng_u64(&c);
    }
    assert_int_equal(same, 0);
    assert_int_equal(a.counter, 1000);
    soma_rng resumed = {a.key, 500}; // two integers are the whole state
    soma_rng from_start = soma__rng(7);
    for (int i = 0; i < 500; i++) soma__rng_u64(&from_start);
    assert_true(soma__rng_u64(&resumed) == soma__rng_u64(&from_start));
}

// A checkpoint or a seeded episode made by one version must be reproduced by the next: these are the numbers of version 0.1.0.
static void stream_never_changes(void **state) {
    soma_rng r = soma__rng(0);
    uint64_t hash = SOMA_HASH_START;
    for (int i = 0; i < 100; i++) {
        uint64_t x = soma__rng_u64(&r);
        hash = soma__hash(hash, &x, sizeof x);
    }
    soma_rng f = soma__rng_fold(&r, 3);
    uint64_t x = soma__rng_u64(&f);
    hash = soma__hash(hash, &x, sizeof x);
    if (hash != 0xea47cd9f28fca135u) fail_msg("the random stream changed: 0x%016llx", (unsigned long long)hash);
}

static void uniform_is_flat(void **state) {
    soma_rng r = soma__rng(1);
    double sum = 0, sum2 = 0;
    int bins[64] = {0};
    for (int i = 0; i < N; i++) {
        double u = soma__rng_uniform(&r);
        assert_true(u >= 0 && u < 1);
        sum += u;
        sum2 += u * u;
        bins[(int)(u * 64)]++;
    }
    assert_true(fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    assert_true(fabs(sum2 / N - 1.0 / 3) < 5 * sqrt(4.0 / 45 / N));
    double chi2 = 0, expected = N / 64.0;
    for (int i = 0; i < 64; i++) chi2 += (bins[i] - expected) * (bins[i] - expected) / expected;
    assert_true(chi2 < 63 + 5 * sqrt(2.0 * 63));
    for (int i = 0; i < 1000; i++) {
        double v = soma__rng_range(&r, -0.3, 0.4);
        assert_true(v >= -0.3 && v < 0.4);
    }
}

static void normal_has_its_moments(void **state) {
    soma_rng r = soma__rng(2);
    double m[5] = {0}, lag = 0, before = 0;
    for (int i = 0; i < N; i++) {
        double z = soma__rng_normal(&r), power = 1;
        assert_true(isfinite(z));
        for (int k = 0; k < 5; k++, power *= z) m[k] += power / N;
        lag += z * before / N;
        before = z;
    }
    assert_true(fabs(m[1]) < 5 * sqrt(1.0 / N)); // variances of z^k: 1, 2, 15, 96
    assert_true(fabs(m[2] - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(m[3]) < 5 * sqrt(15.0 / N));
    assert_true(fabs(m[4] - 3) < 5 * sqrt(96.0 / N));
    assert_true(fabs(lag) < 5 * sqrt(1.0 / N));
    float three[3];
    soma_rng a = soma__rng(3), b = soma__rng(3);
    soma__rng_normals(&a, three, 3);
    for (int i = 0; i < 3; i++) assert_true(three[i] == (float)soma__rng_normal(&b));
    assert_int_equal(a.counter, 6); // two draws each: a stream can be skipped to
}

static void folds_are_independent(void **state) {
    soma_rng parent = soma__rng(4);
    soma_rng a = soma__rng_fold(&parent, 0), b = soma__rng_fold(&parent, 1), again = soma__rng_fold(&parent, 0);
    assert_int_equal(parent.counter, 0);
    double cross = 0;
    for (int i = 0; i < N; i++) {
        double x = soma__rng_normal(&a), y = soma__rng_normal(&b);
        cross += x * y / N;
        if (i < 100) assert_true(x == soma__rng_normal(&again));
    }
    assert_true(fabs(cross) < 5 * sqrt(1.0 / N));
    // the first number of consecutive folds is what a per-sample stream gives: flat over the fold's index too
    double sum = 0, lag = 0, before = 0.5;
    for (uint64_t i = 0; i < N; i++) {
        soma_rng f = soma__rng_fold(&parent, i);
        double u = soma__rng_uniform(&f);
        sum += u;
        lag += (u - 0.5) * (before - 0.5) / N;
        before = u;
    }
    assert_true(fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    assert_true(fabs(lag) < 5 * sqrt(1.0 / 144 / N));
}

static void below_is_unbiased(void **state) {
    soma_rng r = soma__rng(5);
    int count[7] = {0};
    for (int i = 0; i < N; i++) count[soma__rng_below(&r, 7)]++;
    double chi2 = 0, expected = N / 7.0;
    for (int i = 0; i < 7; i++) chi2 += (count[i] - expected) * (count[i] - expected) / expected;
    assert_true(chi2 < 6 + 5 * sqrt(12.0));
    // n = 3 * 2^62: a plain remainder would give the lower third twice the weight of the others
    uint64_t n = (uint64_t)3 << 62;
    int low = 0;
    for (int i = 0; i < N; i++) {
        uint64_t x = soma__rng_below(&r, n);
        assert_true(x < n);
        low += x < n / 3;
    }
    assert_true(fabs(low - N / 3.0) < 5 * sqrt(N * 2.0 / 9));
    for (int i = 0; i < 100; i++) assert_int_equal(soma__rng_below(&r, 1), 0);
}

static void shuffle_is_a_fair_permutation(void **state) {
    soma_rng r = soma__rng(6);
    int at[5][5] = {{0}};
    enum { ROUNDS = 20000 };
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t items[5] = {0, 1, 2, 3, 4}, seen = 0;
        soma__rng_shuffle(&r, items, 5);
        for (int k = 0; k < 5; k++) {
            seen |= 1u << items[k];
            at[items[k]][k]++;
        }
        assert_int_equal(seen, 31);
    }
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 5; k++) assert_true(fabs(at[i][k] - ROUNDS / 5.0) < 5 * sqrt(ROUNDS * 0.16));
    soma__rng_shuffle(&r, NULL, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_is_a_function_of_seed_and_counter),
        cmocka_unit_test(stream_never_changes),
        cmocka_unit_test(uniform_is_flat),
        cmocka_unit_test(normal_has_its_moments),
        cmocka_unit_test(folds_are_independent),
        cmocka_unit_test(below_is_unbiased),
        cmocka_unit_test(shuffle_is_a_fair_permutation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
