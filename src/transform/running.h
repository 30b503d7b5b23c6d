// SPDX-License-Identifier: Apache-2.0
// Statistics of rows that come piece by piece, without keeping them: mean, deviation, and quantiles from a histogram of 5,000 bins per
// dimension whose range grows with the data. The numbers are those of openpi's compute_norm_stats (shared/normalize.py at 15a9616), which
// released policies were normalised with: a quantile is the left edge of its bin.
#ifndef SOMA_TRANSFORM_RUNNING_H
#define SOMA_TRANSFORM_RUNNING_H

#include "transform/normalise.h"

typedef struct soma_running soma_running;

soma_status soma__running_new(soma_running **running, int width, soma_error *err);
void soma__running_free(soma_running *running); // NULL allowed
// rows [n, width], finite, n > 0. Never fails: all memory was taken by _new.
void soma__running_add(soma_running *running, const double *rows, int64_t n);
int64_t soma__running_count(const soma_running *running);
// The statistics so far as `key`; lists are borrowed until the next call on `running`. Fewer than two rows are refused.
soma_status soma__running_norm(soma_running *running, soma_norm *norm, const char *key, soma_error *err);
// The quantile q in 0 .. 1 of one column, as openpi tells it: the left edge of the bin in which it lies.
double soma__running_quantile(const soma_running *running, int column, double q);

#endif
