// SPDX-License-Identifier: Apache-2.0
// Exact statistics by sorting: a dataset's column has millions of values at most, and an exact quantile needs no second opinion.
#include "data/stats.h"

#include <math.h>
#include <stdlib.h>
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

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

// Position q (n-1) between two ranks: the lower rank and the weight of the upper one.
static double split(double q, double n, double *rank) {
    double at = q * (n - 1);
    *rank = floor(at);
    return at - *rank;
}

void soma__stats_of(double out[SOMA_STAT_COUNT], float *values, size_t n) {
    qsort(values, n, sizeof *values, by_value);
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
