// SPDX-License-Identifier: Apache-2.0
// Demonstrations: the scripted expert drives a simulated task, disturbed on purpose, and what it would have done is written as a dataset.
//
// Seeds below SOMA_EVAL_SEEDS are for recording and training, those from there on for evaluation, so that no policy is judged on a scene
// it has seen.
#ifndef SOMA_EVAL_RECORD_H
#define SOMA_EVAL_RECORD_H

#include "base/opts.h"

#define SOMA_EVAL_SEEDS 1000000

#define SOMA_RECORD_OPTS(X)                                                                                        \
    X(TEXT, task, "touch_color", "the simulated task; several with commas take turns, scene by scene")             \
    X(INT, episodes, 400, "how many successful episodes to keep")                                                  \
    X(INT, seed, 0, "seed of the first scene; the following take seed + 1, seed + 2, ... below 1000000")           \
    X(TEXT, out, "", "folder of the new dataset; it must not exist or be empty")                                   \
    X(INT, image, 96, "pixels per side of every camera's picture; even")                                           \
    X(REAL, rate, 0, "observations and actions in a second; 0: the task's own rate")                               \
    X(REAL, noise, 0.03, "largest standard deviation of the disturbance of a joint, radians; 0: none")             \
    X(REAL, scatter, 0.5, "share of the episodes that begin where the arm would be in another scene, not at home") \
    X(FLAG, jitter, true, "vary lighting and camera pose from scene to scene")                                     \
    X(INT, threads, 0, "environments at once; 0: as many as processors; the dataset does not depend on it")
SOMA_OPTS_DECLARE(soma_record_opts, SOMA_RECORD_OPTS)
soma_record_opts soma_record_defaults(void);
extern const soma_opt_table soma_record_opts_table;

typedef struct soma_record_result {
    int64_t episodes, frames; // written
    int64_t dropped;          // attempts in which the disturbed expert did not succeed
    double seconds;
    bool stopped; // `watch` said so; the dataset is complete with fewer episodes
} soma_record_result;

// Called between episodes from the caller's thread; false: finish the dataset with what there is.
typedef bool soma_record_watch(void *user, const soma_record_result *so_far);

// Equal options give equal files on one machine, whatever `threads` is. `watch` may be NULL. Fails when the folder is in use, the task is
// unknown, or the expert hardly ever succeeds under this much noise.
soma_status soma__record(soma_record_result *result, const soma_record_opts *opts, soma_record_watch *watch, void *user, soma_error *err);

#endif
