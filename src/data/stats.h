// SPDX-License-Identifier: Apache-2.0
// The statistics that LeRobot keeps of each feature, exact: of a column of numbers, or of a histogram of bytes (pictures).
#ifndef SOMA_DATA_STATS_H
#define SOMA_DATA_STATS_H

#include "base/ranks.h"
#include "data/dataset.h"

// name in stats.json, quantile or -1
#define SOMA_STAT_LIST(X) \
    X(MIN, "min", 0)      \
    X(MAX, "max", 1)      \
    X(MEAN, "mean", -1)   \
    X(STD, "std", -1)     \
    X(Q01, "q01", 0.01)   \
    X(Q10, "q10", 0.10)   \
    X(Q50, "q50", 0.50)   \
    X(Q90, "q90", 0.90)   \
    X(Q99, "q99", 0.99)
#define SOMA_STAT_ENUM(id, name, q) SOMA_STAT_##id,
typedef enum soma_stat { SOMA_STAT_LIST(SOMA_STAT_ENUM) SOMA_STAT_COUNT } soma_stat;
#undef SOMA_STAT_ENUM

extern const char *const soma__stat_names[SOMA_STAT_COUNT];
// Where each statistic is kept in the struct that callers see.
void soma__stats_arrays(double **arrays[SOMA_STAT_COUNT], soma_feature_stats *stats);

// The quantiles among them, in their order, behind min, max, mean and std; how many.
int soma__stats_places(double quantiles[SOMA_STAT_COUNT]);

// Sorts `values` (n >= 1, finite) and fills `out`: std of the population, quantiles interpolated linearly as numpy.quantile. Sums are
// taken in sorted order, so the order of the values does not change a bit.
void soma__stats_of(double out[SOMA_STAT_COUNT], float *values, size_t n);
// The same of bytes counted by value, as numbers 0 .. 1. All zero where nothing was counted.
void soma__stats_of_bytes(double out[SOMA_STAT_COUNT], const uint64_t histogram[256]);

enum { SOMA_STATS_QUANTILES = 4 };
// The quantiles alone, n_q <= SOMA_STATS_QUANTILES of them in 0 .. 1, of one column whose values (n >= 0 of them here, finite) lie on
// several ranks: the same bits as of all in one place. Each order statistic is found by halving the range of floats, 32 counts of what lies
// below; so no value leaves its rank and nothing is sorted. All ranks get `out`; together they have at least one value.
void soma__stats_quantiles(double *out, const double *q, int n_q, const float *values, size_t n, soma_ranks *ranks);

#endif
