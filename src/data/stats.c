// SPDX-License-Identifier: Apache-2.0
// Exact statistics by sorting: a dataset's column has millions of values at most, and an exact quantile needs no second opinion.
#include "data/stats.h"
#include "data/float_key.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define NAME(id, name, q) name,
#define QUANTILE(id, name, q) q,
const char *const soma__stat_names[SOMA_STAT_COUNT] = {SOMA_STAT_LIST(NAME)};
static const double quantiles[SOMA_STAT_COUNT] = {SOMA_STAT_LIST(QUANTILE)};

void soma__stats_arrays(double **arrays[SOMA_STAT_COUNT], soma_feature_stats *s) {
    double **all[] = {&s->min, &s->max, &s->mean, &s->std, &s->q01, &s->q10, &s->q50, &s->q90, &s->q99};
    _Static_assert(SOMA_COUNT(all) == SOMA_STAT_COUNT, "every statistic has its array, in the order of SOMA_STAT_LIST");
    memcpy(arrays, all, sizeof all);
}

int soma__stats_places(double out[SOMA_STAT_COUNT]) {
    memcpy(out, quantiles + SOMA_STAT_Q01, (SOMA_STAT_COUNT - SOMA_STAT_Q01) * sizeof *out);
    return SOMA_STAT_COUNT - SOMA_STAT_Q01;
}

typedef uint32_t __attribute__((may_alias)) key; // a float's place, where the float was

// Sorts in place by the byte at `shift`, then each part by the next one: six times as fast as qsort's calls on a million floats.
static void sort_keys(key *k, size_t n, int shift) {
    enum { FEW = 48 };
    if (n < FEW) {
        for (size_t i = 1; i < n; i++) {
            key x = k[i];
            size_t j = i;
            for (; j && k[j - 1] > x; j--) k[j] = k[j - 1];
            k[j] = x;
        }
        return;
    }
    size_t ends[256] = {0}, next[256], sum = 0;
    for (size_t i = 0; i < n; i++) ends[k[i] >> shift & 255]++;
    for (int b = 0; b < 256; b++) {
        next[b] = sum;
        ends[b] = sum += ends[b];
    }
    for (unsigned b = 0; b < 256; b++)
        while (next[b] < ends[b]) { // what stands here goes where it belongs, until what belongs here comes
            key x = k[next[b]];
            for (unsigned to; (to = x >> shift & 255) != b;) {
                key other = k[next[to]];
                k[next[to]++] = x;
                x = other;
            }
            k[next[b]++] = x;
        }
    for (int b = 0; b < 256 && shift; b++) {
        size_t from = b ? ends[b - 1] : 0;
        sort_keys(k + from, ends[b] - from, shift - 8);
    }
}

static void sort_floats(float *values, size_t n) {
    key *k = (key *)values;
    for (size_t i = 0; i < n; i++) k[i] = soma__float_key(values[i]);
    sort_keys(k, n, 24);
    for (size_t i = 0; i < n; i++) values[i] = soma__key_float(k[i]);
}

// Position q (n-1) between two ranks: the lower rank and the weight of the upper one.
static double split(double q, double n, double *rank) {
    double at = q * (n - 1);
    *rank = floor(at);
    return at - *rank;
}

void soma__stats_of(double out[SOMA_STAT_COUNT], float *values, size_t n) {
    sort_floats(values, n);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += (double)values[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += ((double)values[i] - mean) * ((double)values[i] - mean);
    for (int s = 0; s < SOMA_STAT_COUNT; s++) {
        double rank, part = split(SOMA_MAX(quantiles[s], 0.0), (double)n, &rank);
        size_t low = (size_t)rank, high = SOMA_MIN(low + 1, n - 1);
        out[s] = (double)values[low] + part * ((double)values[high] - (double)values[low]);
    }
    out[SOMA_STAT_MEAN] = mean;
    out[SOMA_STAT_STD] = sqrt(squares / (double)n);
}

void soma__stats_quantiles(double *out, const double *q, int n_q, const float *values, size_t n, soma_ranks *ranks) {
    SOMA_CHECK(n_q > 0 && n_q <= SOMA_STATS_QUANTILES, "a few quantiles at a time");
    enum { MOST = 2 * SOMA_STATS_QUANTILES };     // two neighbours for each
    uint32_t low[MOST], high[MOST], middle[MOST]; // keys; the value sought lies in [low, high]
    int64_t total = (int64_t)n, below[MOST];
    double part[SOMA_STATS_QUANTILES], at[SOMA_STATS_QUANTILES];
    soma__ranks_sum(ranks, &total, 1);
    for (int i = 0; i < n_q; i++) part[i] = split(q[i], (double)total, &at[i]);
    for (int k = 0; k < 2 * n_q; k++) low[k] = soma__float_key(-FLT_MAX), high[k] = soma__float_key(FLT_MAX);
    for (int round = 0; round < 32; round++) {
        for (int k = 0; k < 2 * n_q; k++) {
            middle[k] = low[k] + (high[k] - low[k]) / 2;
            float limit = soma__key_float(middle[k]);
            below[k] = 0;
            for (size_t i = 0; i < n; i++) below[k] += values[i] <= limit;
        }
        soma__ranks_sum(ranks, below, (size_t)(2 * n_q));
        for (int k = 0; k < 2 * n_q; k++) {
            int64_t wanted = SOMA_MIN((int64_t)at[k / 2] + k % 2, total - 1);
            if (below[k] > wanted)
                high[k] = middle[k];
            else if (middle[k] < high[k])
                low[k] = middle[k] + 1;
        }
    }
    for (int i = 0; i < n_q; i++) {
        double lower = (double)soma__key_float(high[2 * i]), upper = (double)soma__key_float(high[2 * i + 1]);
        out[i] = lower + part[i] * (upper - lower);
    }
}

static double value_at_rank(const uint64_t histogram[256], double rank) {
    double seen = 0;
    for (int b = 0; b < 256; b++) {
        seen += (double)histogram[b];
        if (seen > rank) return b / 255.0;
    }
    return 1;
}

void soma__stats_of_bytes(double out[SOMA_STAT_COUNT], const uint64_t histogram[256]) {
    memset(out, 0, SOMA_STAT_COUNT * sizeof *out);
    double n = 0, sum = 0, squares = 0;
    for (int b = 0; b < 256; b++) {
        n += (double)histogram[b];
        sum += (double)histogram[b] * (b / 255.0);
    }
    if (n == 0) return;
    double mean = sum / n;
    for (int b = 0; b < 256; b++) squares += (double)histogram[b] * (b / 255.0 - mean) * (b / 255.0 - mean);
    for (int s = 0; s < SOMA_STAT_COUNT; s++) {
        double rank, part = split(SOMA_MAX(quantiles[s], 0.0), n, &rank);
        double low = value_at_rank(histogram, rank);
        out[s] = part > 0 ? low + part * (value_at_rank(histogram, rank + 1) - low) : low;
    }
    out[SOMA_STAT_MEAN] = mean;
    out[SOMA_STAT_STD] = sqrt(squares / n);
}
