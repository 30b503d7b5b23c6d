// SPDX-License-Identifier: Apache-2.0
// What a simulated task is to the rest of soma: reset, observe, step, outcome, a scripted expert. One folder of env/ = one task; it exports
// `const soma_task soma__task_<folder>` and the registry is generated from the folders. env/ knows nothing of policies or datasets.
//
// An environment is single-threaded; different environments may live on different threads. Same seed, same actions: same bits.
#ifndef SOMA_ENV_TASK_H
#define SOMA_ENV_TASK_H

#include "base/base.h"

typedef struct soma_env soma_env;

enum { SOMA_ENV_MAX_CAMERAS = 4, SOMA_ENV_PROMPT_MAX = 128 };

typedef struct soma_env_opts {
    int image_width, image_height; // pixels of every camera, e.g. 96 x 96
    bool jitter;                   // lighting and camera pose vary from seed to seed
    double rate;                   // control rate, Hz; 0: the task's own
} soma_env_opts;

typedef struct soma_env_reset {
    uint64_t seed;     // places, colours, the named object, light and cameras all follow from it
    bool wrong_prompt; // the prompt names another object than the goal; success is still judged by the goal
} soma_env_reset;

// Borrowed until the environment's next call.
typedef struct soma_env_obs {
    const char *prompt;
    const float *state;                          // [n_state], task->state_names, radians and metres
    const uint8_t *images[SOMA_ENV_MAX_CAMERAS]; // each [image_height, image_width, 3], RGB, rows from the top
} soma_env_obs;

typedef struct soma_env_outcome {
    bool done;     // success, failure or the time limit; after that `step` must not be called
    bool success;  // the goal was reached under the task's rules
    bool prompted; // the object that the prompt names was the one acted on first (equals success's object unless wrong_prompt)
    bool acted;    // one object alone was acted on as the task asks, whichever the prompt names
    int steps;     // control steps so far
} soma_env_outcome;

typedef struct soma_task {
    const char *name, *about; // "touch_color", one sentence
    const char *robot;        // the arm whose link lengths and limits the model has
    double rate;              // control rate, Hz; an environment may be opened at another one
    int max_steps;            // the time limit in control steps at that rate
    int n_state, n_actions, n_cameras;
    const char *const *state_names, *const *action_names, *const *camera_names;

    soma_status (*open)(soma_env **env, const soma_env_opts *opts, soma_error *err);
    void (*close)(soma_env *env); // NULL allowed
    soma_status (*reset)(soma_env *env, const soma_env_reset *reset, soma_error *err);
    // Renders the cameras (the slow part); the terminal observation is available too, nothing resets by itself.
    soma_status (*observe)(soma_env *env, soma_env_obs *obs, soma_error *err);
    // action [n_actions]: absolute joint targets, clipped to the limits; a NaN is refused. Holds for 1/rate seconds.
    soma_status (*step)(soma_env *env, const float *action, soma_error *err);
    soma_env_outcome (*outcome)(const soma_env *env);
    // The scripted expert: a function of the simulator's present state alone (no memory), so that it can correct a disturbed episode.
    // It may look at object positions; a policy may not.
    void (*expert)(const soma_env *env, float *action);
} soma_task;

extern const soma_task *const soma__task_registry[]; // NULL at its end
const soma_task *soma__task_find(const char *name);  // NULL when there is none
// The task as it is when driven `rate` times a second (0: its own rate): the same time limit, in other steps.
soma_task soma__task_at(const soma_task *task, double rate);

#endif
