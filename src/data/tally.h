// SPDX-License-Identifier: Apache-2.0
// Exact statistics of columns of floats that need not be kept: the values are shown twice, in any order and by any number of threads, and
// the memory that is needed does not grow with their number.
//
// An exact quantile is a value at a known place of the sorted column. The first look counts values by the upper half of their bits (in an
// order that whole numbers and floats share), which tells in which of 65,536 parts each place lies; the second counts the lower half within
// those few parts, which names the value. Counts are whole numbers, so neither order nor threads matter; means are summed per unit of rows
// and put together in the units' order by the caller.
#ifndef SOMA_DATA_TALLY_H
#define SOMA_DATA_TALLY_H

#include "base/base.h"

enum { SOMA_TALLY_QUANTILES = 32 };

typedef struct soma_moments {
    double n, mean, squares; // squares: of the differences from the mean, summed
} soma_moments;
void soma__moments_add(soma_moments *all, const soma_moments *more); // Chan et al.: exact in n, stable in the rest

typedef struct soma_tally soma_tally;

// n_q quantiles, each in 0 .. 1. `workers`: how many threads may show values at once.
soma_status soma__tally_new(soma_tally **tally, int width, const double *quantiles, int n_q, int workers, soma_error *err);
void soma__tally_free(soma_tally *tally); // NULL allowed

// Shows n finite values of a column, value i as often as weights[i] says (NULL: once each), in the first or the second look. The first
// look's moments are added to `moments`, whose bits follow from the order of the calls on it.
void soma__tally_first(soma_tally *tally, int worker, int column, const float *values, const uint32_t *weights, size_t n,
                       soma_moments *moments);
// Between the looks. A column that was shown nothing is refused.
soma_status soma__tally_turn(soma_tally *tally, soma_error *err);
void soma__tally_second(soma_tally *tally, int worker, int column, const float *values, const uint32_t *weights, size_t n);

// After both looks: quantiles[n_q] in the order asked for, interpolated linearly between neighbours as numpy.quantile does.
void soma__tally_result(const soma_tally *tally, int column, double *min, double *max, double *quantiles);

#endif
