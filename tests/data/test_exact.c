// SPDX-License-Identifier: Apache-2.0
// Exact statistics of a made-up dataset against sorting all its numbers, for any number of threads, with and without room for the numbers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "data/exact.h"
#include "data/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EPISODES = 150, LONGEST = 40, N = 3, A = 2, HORIZON = 7, COLUMNS = 6, BAD = 77 };

// ---- a dataset in memory

static soma_episode episodes[EPISODES];
static float numbers[EPISODES][LONGEST * (N + A)]; // [n, N], [n, A]
static int broken = -1;

static soma_status open_reader(soma_dataset_reader **r, const soma_dataset *d, soma_error *err) {
    *r = soma__alloc(8);
    return *r ? SOMA_OK : soma__no_memory(err, "a reader");
}
static void close_reader(soma_dataset_reader *r) { soma__free(r); }
static const soma_dataset_format format = {.name = "toy", .reader_open = open_reader, .reader_close = close_reader};
static const soma_dataset dataset = {.format = &format, .path = "toy", .n_episodes = EPISODES, .episodes = episodes};

static soma_status read(void *user, soma_dataset_reader *r, int64_t e, float *out, soma_error *err) {
    if (broken >= 0 && e >= broken) return soma__fail(err, SOMA_BAD_INPUT, "episode %lld is broken", (long long)e);
    memcpy(out, numbers[e], (size_t)episodes[e].n_frames * (N + A) * sizeof(float));
    return SOMA_OK;
}

static void make_numbers(void) {
    soma_rng rng = soma__rng(3);
    for (int e = 0; e < EPISODES; e++) {
        episodes[e] = (soma_episode){e, 1 + (int64_t)soma__rng_below(&rng, LONGEST), "", true, true};
        if (e == 5) episodes[e].n_frames = 0;
        for (int i = 0; i < episodes[e].n_frames * (N + A); i++) {
            double x = soma__rng_normal(&rng);
            numbers[e][i] = i % 3 == 0 ? (float)round(x) : i % 3 == 1 ? (float)(x * 1e-40) : (float)(x * 1e20);
            if (e % 2) numbers[e][i] = (float)x; // values of all sizes, many equal ones, and both zeros
        }
    }
}

static const soma_exact_column columns[COLUMNS] = {{0, -1, 1}, {2, -1, 1}, {3, -1, HORIZON}, {3, 0, HORIZON}, {4, 1, HORIZON}, {4, 2, 1}};
static const double quantiles[] = {0.01, 0.10, 0.50, 0.90, 0.99, 0, 1, 0.999};

// All values of a column, one after the other.
static size_t gather(float *out, const soma_exact_column *c) {
    size_t n = 0;
    for (int e = 0; e < EPISODES; e++) {
        int64_t frames = episodes[e].n_frames;
        const float *states = numbers[e], *actions = states + frames * N;
        for (int64_t f = 0; f < frames; f++)
            for (int64_t s = 0; s < c->horizon; s++) {
                int64_t t = SOMA_MIN(f + s, frames - 1);
                float value = c->value < N ? states[t * N + c->value] : actions[t * A + c->value - N];
                out[n++] = c->base < 0 ? value : value - states[f * N + c->base];
            }
    }
    return n;
}

static soma_status take(soma_column_stats *stats, int threads, size_t memory, int *reads, soma_error *err) {
    static int64_t all[EPISODES];
    for (int e = 0; e < EPISODES; e++) all[e] = e;
    soma_exact x = {.dataset = &dataset,
                    .episodes = all,
                    .n_episodes = EPISODES,
                    .memory = memory,
                    .row = N + A,
                    .split = N,
                    .read = read,
                    .n_columns = COLUMNS,
                    .n_quantiles = SOMA_COUNT(quantiles),
                    .columns = columns,
                    .quantiles = quantiles};
    SOMA_TRY(soma__pool_new(&x.pool, threads, err));
    memset(stats, 0, COLUMNS * sizeof *stats);
    soma_status status = soma__exact_take(stats, &x, reads, err);
    soma__pool_free(x.pool);
    return status;
}

static void against_sorting(void **state) {
    static float values[EPISODES * LONGEST * HORIZON];
    soma_column_stats stats[COLUMNS];
    soma_error err = {0};
    int reads;
    if (take(stats, 1, 1 << 30, &reads, &err)) fail_msg("%s", err.text);
    assert_int_equal(reads, 1);
    for (int c = 0; c < COLUMNS; c++) {
        double sorted[SOMA_STAT_COUNT];
        size_t n = gather(values, &columns[c]);
        soma__stats_of(sorted, values, n); // its quantiles are numpy's
        const double wanted[] = {sorted[SOMA_STAT_Q01], sorted[SOMA_STAT_Q10], sorted[SOMA_STAT_Q50], sorted[SOMA_STAT_Q90],
                                 sorted[SOMA_STAT_Q99], sorted[SOMA_STAT_MIN], sorted[SOMA_STAT_MAX]};
        for (size_t q = 0; q < SOMA_COUNT(wanted); q++)
            if (stats[c].quantiles[q] != wanted[q])
                fail_msg("column %d, quantile %g: %.17g, sorting says %.17g", c, quantiles[q], stats[c].quantiles[q], wanted[q]);
        assert_true(stats[c].count == (double)n && stats[c].min == wanted[5] && stats[c].max == wanted[6]);
        double size = SOMA_MAX(fabs(wanted[5]), fabs(wanted[6]));
        assert_float_equal(stats[c].mean / size, sorted[SOMA_STAT_MEAN] / size, 1e-13);
        assert_float_equal(stats[c].std / sorted[SOMA_STAT_STD], 1, 1e-12);
        double at = 0.999 * (double)(n - 1);
        size_t low = (size_t)at;
        assert_true(stats[c].quantiles[7] == (double)values[low] + (at - (double)low) * ((double)values[low + 1] - (double)values[low]));
    }
}

// The same bits for any number of threads and any memory.
static void repeats(void **state) {
    soma_column_stats first[COLUMNS], again[COLUMNS];
    soma_error err = {0};
    int reads;
    assert_int_equal(take(first, 1, 1 << 30, &reads, &err), SOMA_OK);
    for (int threads = 1; threads <= 4; threads++)
        for (size_t memory = 0; memory <= 1 << 30; memory += 1 << 30) {
            assert_int_equal(take(again, threads, memory, &reads, &err), SOMA_OK);
            assert_int_equal(reads, memory ? 1 : 2);
            assert_memory_equal(first, again, sizeof first);
        }
}

// The first broken episode is the one that is told, on any number of threads.
static void bad_episode(void **state) {
    soma_column_stats stats[COLUMNS];
    broken = BAD;
    for (int threads = 1; threads <= 3; threads++) {
        soma_error err = {0};
        assert_int_equal(take(stats, threads, 0, NULL, &err), SOMA_BAD_INPUT);
        assert_string_equal(err.text, "episode 77 is broken");
    }
    broken = -1;
}

static void out_of_memory(void **state) {
    soma_column_stats stats[COLUMNS];
    for (size_t memory = 0; memory <= 1 << 30; memory += 1 << 30)
        for (int n = 0;; n++) {
            soma_error err = {0};
            soma__alloc_fail_after(n);
            soma_status status = take(stats, 1, memory, NULL, &err);
            soma__alloc_fail_after(-1);
            if (status == SOMA_OK) break;
            assert_int_equal(status, SOMA_NO_MEMORY);
            assert_true(n < 200);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_sorting), cmocka_unit_test(repeats), cmocka_unit_test(bad_episode),
                                       cmocka_unit_test(out_of_memory)};
    make_numbers();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
