// SPDX-License-Identifier: Apache-2.0
// The closed loop: a driver at a simulated task, over many seeds. Several environments go in lockstep: all are observed, the driver acts
// for all of them at once, each goes on until it wants its next chunk, and so on; a seat whose episode is over takes the next seed. How
// chunks are executed is policy/timeline.h's; with `delay` a chunk arrives so many control steps after its observation, and the world does
// not wait. An episode begins when its first chunk is there.
//
// Equal options and driver give equal results on one machine, whatever `threads` is, and whatever `seats` is as long as the driver's answer
// to one seat does not depend on the others.
#ifndef SOMA_EVAL_ROLLOUT_H
#define SOMA_EVAL_ROLLOUT_H

#include "base/opts.h"
#include "eval/driver.h"
#include "eval/rate.h"
#include "eval/record.h"
#include "policy/timeline.h"

#define SOMA_ROLLOUT_OPTS(X)                                                                                 \
    X(TEXT, task, "touch_color", "the simulated task")                                                       \
    X(INT, seeds, 100, "how many episodes, each with its own scene")                                         \
    X(INT, first_seed, SOMA_EVAL_SEEDS, "seed of the first scene; below 1000000 are those of `soma record`") \
    X(FLAG, wrong_prompt, false, "the prompt names another object; success is still judged by the goal")     \
    X(INT, delay, 0, "control steps that pass from an observation to its chunk, in the simulated time")      \
    X(INT, image, 96, "pixels per side of every camera's picture; as recorded")                              \
    X(REAL, rate, 0, "observations and actions in a second; 0: the task's own rate")                         \
    X(FLAG, jitter, true, "vary lighting and camera pose from scene to scene")                               \
    X(INT, seats, 8, "environments in lockstep")                                                             \
    X(INT, films, 4, "how many episodes, from the first on, are kept picture by picture for the video")      \
    X(INT, threads, 0, "threads that simulate; 0: as many as processors")
SOMA_OPTS_DECLARE(soma_rollout_opts, SOMA_ROLLOUT_OPTS)
soma_rollout_opts soma_rollout_defaults(void);
extern const soma_opt_table soma_rollout_opts_table;

// An episode step by step: what the video is drawn from.
typedef struct soma_film {
    int n_steps, n_plans, horizon; // horizon: of the plans, 0 before the first
    uint8_t *pictures;             // [n_steps + 1, n_cameras, image, image, 3], the last after the last step
    float *states;                 // [n_steps + 1, n_state]
    float *actions;                // [n_steps, n_actions], as executed
    float *plans;                  // [n_plans, horizon, n_actions]
    int *plan_step;                // [n_plans] the step at which each was made
} soma_film;

typedef struct soma_rollout {
    uint64_t seed;
    char prompt[SOMA_ENV_PROMPT_MAX];
    soma_env_outcome outcome;
    uint8_t *first, *last; // [n_cameras, image, image, 3]
    soma_film *film;       // NULL: not filmed
} soma_rollout;

typedef struct soma_rollouts {
    soma_task task; // at the rate it was driven
    soma_rollout_opts opts;
    soma_chunk_opts chunk_opts;
    soma_chunk_report chunks; // of all episodes
    soma_rollout *episodes;   // in the order of their seeds; [n] of them are over
    int64_t n;
    soma_rate success, prompted, acted;
    double mean_steps; // of successful episodes; 0 when there is none
    int64_t acts;      // chunks asked for
    double act_ms;     // mean time per chunk, with the way to the server and back
    double model_ms;   // mean time in the model as the policy tells it
    double seconds;
    bool stopped; // `watch` said so; n is smaller than seeds
} soma_rollouts;

typedef bool soma_rollout_watch(void *user, int64_t done, int64_t successes); // false: stop

// Looks up the task, at the options' rate, and checks them; the driver is made with the result.
soma_status soma__rollout_task(soma_task *task, const soma_rollout_opts *opts, soma_error *err);
// Release the result with soma__rollouts_free. `chunks` NULL: defaults. `watch` may be NULL.
soma_status soma__rollouts_run(soma_rollouts *r, const soma_driver *driver, const soma_rollout_opts *opts, const soma_chunk_opts *chunks,
                               soma_rollout_watch *watch, void *user, soma_error *err);
void soma__rollouts_free(soma_rollouts *r); // {0} allowed
// {task, mode, success, prompted, acted, ..., episodes: [{seed, success, prompted, acted, steps, prompt}]}; a new reference, NULL when
// memory is out.
json_t *soma__rollouts_json(const soma_rollouts *r);

#endif
