// SPDX-License-Identifier: Apache-2.0
// The statistics that a policy's states and actions are normalised by: of the numbers as the robot's conventions turn them, actions over
// the chunks that are learned, relative to the state where they are learned so.
#ifndef SOMA_TRAIN_STATISTICS_H
#define SOMA_TRAIN_STATISTICS_H

#include "data/exact.h"
#include "policy/robot.h"

typedef struct soma_statistics_opts {
    const soma_dataset *data;
    int state_feature, action_feature;
    const soma_robot *robot; // n_state, n_actions, conversions, which actions are relative
    const int64_t *episodes; // [n_episodes] positions, each present
    int64_t n_episodes;
    int64_t horizon; // actions of the chunk that is planned from each frame; past the episode's end the last one is repeated
    bool openpi;     // quantiles as openpi's histograms tell them, in one pass on one thread; else exact
    size_t memory;   // bytes that numbers may take at once; beyond it they are read twice
    soma_pool *pool;
    int n_quantiles;
    const double *quantiles;
    bool (*progress)(void *user, int64_t done, int64_t total); // false stops; NULL: nobody wants to know
    void *progress_user;
} soma_statistics_opts;

// stats [n_state + n_actions]. *reads (NULL allowed): how often the dataset was read.
soma_status soma__statistics_take(soma_column_stats *stats, const soma_statistics_opts *opts, int *reads, soma_error *err);
// As what policies read, with the keys "state" and "actions"; quantiles 0.01 and 0.99 must be the first two.
soma_status soma__statistics_norm(soma_norm_stats **norm, const soma_column_stats *stats, const soma_statistics_opts *opts,
                                  soma_error *err);

#endif
