// SPDX-License-Identifier: Apache-2.0
// What dropout takes is as often as it was asked for, in every stretch of the tensor; neighbours, other keys and other places of the graph
// have nothing to do with one another; what stays is scaled.
#include "fast_harness.h"

#include "device/cpu/drop.h"

enum { N = 1 << 16 };

// Which of N values of ones stay, as 1 and 0.
static void dropped(float kept[N], int32_t key0, int32_t key1, int place, float rate) {
    harness h = harness_open();
    soma_tensor *x = harness_input(&h, SOMA_F32, SHAPE(N)), *key = harness_input(&h, SOMA_I32, SHAPE(2));
    soma_tensor *y = soma_dropout(x, (soma_drop){key, rate});
    y->p.drop.place = place;
    harness_place(&h);
    for (int i = 0; i < N; i++) ((float *)harness_data(&h, x))[i] = 1;
    memcpy(harness_data(&h, key), (int32_t[]){key0, key1}, 8);
    soma_tensor *nodes[] = {y};
    cpu_plain[SOMA_OP_DROPOUT](&h.run, &(soma_step){nodes, 1});
    for (int i = 0; i < N; i++) {
        const float v = (float)harness_get(&h, y, i);
        if (v != 0 && fabsf(v - 1 / (1 - rate)) > 1e-6f) fail_msg("[%d] is %g", i, (double)v);
        kept[i] = v != 0;
    }
    harness_close(&h);
}

// How far the count of n trials is from what `p` expects, in standard deviations.
static double deviations(double count, double n, double p) { return fabs(count - n * p) / sqrt(n * p * (1 - p)); }

static void test_rate(void **state) {
    static float kept[N];
    const float rates[] = {0.01f, 0.1f, 0.5f, 0.9f};
    for (size_t r = 0; r < SOMA_COUNT(rates); r++)
        for (int key = 0; key < 4; key++) {
            double all = 0;
            dropped(kept, key, 0, key, rates[r]);
            for (int from = 0; from < N; from += N / 16) {
                double some = 0;
                for (int i = from; i < from + N / 16; i++) some += (double)kept[i];
                if (deviations(some, N / 16, 1 - (double)rates[r]) > 5) fail_msg("rate %g: %g of %d stay", (double)rates[r], some, N / 16);
                all += some;
            }
            assert_true(deviations(all, N, 1 - (double)rates[r]) < 5);
        }
}

// Of two masks of half, a half agrees.
static void unrelated(const float *a, const float *b, int n, const char *what) {
    double alike = 0;
    for (int i = 0; i < n; i++) alike += a[i] == b[i];
    if (deviations(alike, n, 0.5) > 5) fail_msg("%s: %g of %d agree", what, alike, n);
}

static void test_independence(void **state) {
    static float a[N], b[N];
    dropped(a, 12345, 678, 7, 0.5f);
    for (int shift = 1; shift <= 64; shift *= 2) unrelated(a, a + shift, N - shift, "neighbours");
    dropped(b, 12346, 678, 7, 0.5f);
    unrelated(a, b, N, "keys");
    dropped(b, 12345, 679, 7, 0.5f);
    unrelated(a, b, N, "keys");
    dropped(b, 12345, 678, 8, 0.5f);
    unrelated(a, b, N, "places");
    for (int shift = 1; shift <= 4; shift++) unrelated(a, b + shift, N - shift, "places, moved");
    dropped(b, 12345, 678, 7, 0.5f);
    assert_memory_equal(a, b, sizeof a);
}

static void test_refusals(void **state) {
    harness h = harness_open();
    soma_tensor *x = harness_input(&h, SOMA_F32, SHAPE(4)), *key = harness_input(&h, SOMA_I32, SHAPE(3));
    assert_ptr_equal(soma_dropout(x, (soma_drop){0}), x);
    assert_ptr_equal(soma_dropout(x, (soma_drop){key, 0}), x);
    soma_dropout(x, (soma_drop){key, 0.1f});
    if (!strstr(h.g->error.text, "dropout of 0.1 with a key")) fail_msg("%s", h.g->error.text);
    harness_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rate), cmocka_unit_test(test_independence), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
