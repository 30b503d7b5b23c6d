// SPDX-License-Identifier: Apache-2.0
// Open loop: what a policy predicts on recorded episodes that it was not trained on, against what was done there, beside three baselines
// that need no policy. A policy that does not beat them has learned nothing from its inputs.
//
// The error is the mean absolute difference over a chunk, each dimension divided by its standard deviation over the episodes that are not
// listed. Dimensions that do not move there are left out and counted.
#ifndef SOMA_EVAL_OPENLOOP_H
#define SOMA_EVAL_OPENLOOP_H

#include "base/json.h"
#include "base/opts.h"

#include <soma/soma.h>

#define SOMA_OPENLOOP_OPTS(X)                                                                                             \
    X(TEXT, data, "", "folder of a dataset: judge in open loop on it instead of in a simulator")                          \
    X(TEXT, episodes, "", "held-out episodes, separated by commas: 3,7")                                                  \
    X(INT, horizon, 0, "steps of each chunk that are judged; 0: one second, or the policy's chunk where that is shorter") \
    X(FLAG, skip_bad, false, "leave out episodes that cannot be read, instead of ending there")                           \
    X(INT, stride, 5, "judge every n-th frame")                                                                           \
    X(TEXT, state_key, "", "feature with the robot's state; empty: observation.state, else state")                        \
    X(TEXT, action_key, "", "feature with the actions; empty: action, else actions")
SOMA_OPTS_DECLARE(soma_openloop_opts, SOMA_OPENLOOP_OPTS)
soma_openloop_opts soma_openloop_defaults(void);
extern const soma_opt_table soma_openloop_opts_table;

enum { SOMA_OPENLOOP_POINTS = 4, SOMA_OPENLOOP_MAX = 32 };
extern const int soma__openloop_points[SOMA_OPENLOOP_POINTS]; // 1, 5, 15, 30: the step of the chunk, counted from 1

// In standard deviations. NaN where there is none.
typedef struct soma_openloop_error {
    char name[128];
    double chunk, at[SOMA_OPENLOOP_POINTS]; // over the whole chunk; at single steps of it
} soma_openloop_error;

typedef struct soma_openloop {
    int64_t episodes, frames; // judged
    int64_t skipped;          // damaged parts of the dataset that were left out
    int horizon, n_dims, n_still;
    double fps;
    int n_policies;
    soma_openloop_error policies[SOMA_OPENLOOP_MAX], mean, spread; // spread: standard deviation over policies (n - 1)
    bool can_hold;                                                 // state and action have the same size
    soma_openloop_error hold, last, average; // the present state; the action before; the mean action of the other episodes
} soma_openloop;

typedef bool soma_openloop_watch(void *user, int64_t done, int64_t total); // in frames; false: stop, with SOMA_CANCELLED

// `policies`: folders, separated by commas; several are meant to be seeds of one training. `watch` may be NULL.
soma_status soma__openloop(soma_openloop *result, const char *policies, const soma_openloop_opts *opts, const soma_policy_opts *policy_opts,
                           const soma_pilot_opts *pilot_opts, soma_openloop_watch *watch, void *user, soma_error *err);
json_t *soma__openloop_json(const soma_openloop *result); // a new reference, NULL when memory is out

#endif
