// SPDX-License-Identifier: Apache-2.0
// Exact statistics of a dataset's numbers, and of the chunks of actions that a policy learns from them, on several threads and in bounded
// memory: the numbers are read once where they fit into it, else a second time.
#ifndef SOMA_DATA_EXACT_H
#define SOMA_DATA_EXACT_H

#include "data/sweep.h"
#include "data/tally.h"

// One column: of every frame f and every s below `horizon`, number `value` of frame f + s (the last frame past the episode's end), less
// number `base` of frame f. base -1: nothing is taken off; horizon 1: the frames themselves.
typedef struct soma_exact_column {
    int value, base;
    int64_t horizon;
} soma_exact_column;

typedef struct soma_column_stats {
    double count, mean, std, min, max; // std of the population
    double quantiles[SOMA_TALLY_QUANTILES];
} soma_column_stats;

typedef struct soma_exact {
    const soma_dataset *dataset;
    const int64_t *episodes; // [n_episodes] positions, each present
    int64_t n_episodes;
    soma_pool *pool;
    size_t memory; // bytes that the numbers may take at once
    // An episode's numbers of `row` per frame: out [n_frames, split], and behind it [n_frames, row - split] (what a robot's state and
    // actions are converted as). Called on several threads at once.
    int row, split;
    soma_status (*read)(void *user, soma_dataset_reader *reader, int64_t episode, float *out, soma_error *err);
    bool (*progress)(void *user, int64_t done, int64_t total); // as in soma_sweep; of both looks together
    void *user, *progress_user;
    int n_columns, n_quantiles;
    const soma_exact_column *columns;
    const double *quantiles;
} soma_exact;

// stats [n_columns]. The same bits for any number of threads, any memory and any way the episodes lie in files.
// *reads (NULL allowed): how often the dataset was read, 1 or 2.
soma_status soma__exact_take(soma_column_stats *stats, const soma_exact *what, int *reads, soma_error *err);

#endif
