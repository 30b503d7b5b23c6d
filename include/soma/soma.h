// SPDX-License-Identifier: Apache-2.0
// soma: run a robot policy. This header alone is enough to put a checkpoint in a control loop:
//
//     soma_policy *policy = NULL;  soma_pilot *pilot = NULL;  soma_error err = {0};
//     soma_policy_opts po = soma_policy_defaults();
//     if (soma_policy_open(&policy, "checkpoints/touch", &po, &err)) goto done;
//     soma_pilot_opts o = soma_pilot_defaults();
//     if (soma_pilot_new(&pilot, policy, &o, &err)) goto done;
//     while (robot_read(&obs)) {
//         soma_actions plan;
//         if (soma_pilot_act(pilot, &obs, &plan, &err)) goto done;
//         robot_send(&plan);
//     }
//
// A soma_policy is const after opening and may be shared by threads. A soma_pilot is one robot's timeline and belongs to one thread.
#ifndef SOMA_SOMA_H
#define SOMA_SOMA_H

#include <soma/base.h>
#include <soma/opts.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct soma_policy soma_policy;
typedef struct soma_pilot soma_pilot;

#define SOMA_POLICY_OPTS(X)                                                                                                            \
    X(TEXT, device, "cpu", "where the policy runs")                                                                                    \
    X(TEXT, dtype, "bf16", "matrix products in bf16 or f32; of the layers also int8, int8w or int4w (weights only)")                   \
    X(TEXT, isa, "", "amx, avx512 ... neonbf16, neon or plain; empty: the best this machine has")                                      \
    X(INT, threads, 0, "threads; 0: as many as processors")                                                                            \
    X(TEXT, text_tokenizer, "",                                                                                                        \
      "a SentencePiece model, a tokenizer.json or a folder with one; empty: looked for in the checkpoint, its tokenizer/ and assets/") \
    X(TEXT, action_tokenizer, "",                                                                                                      \
      "of a policy that writes its actions as tokens: a folder with FAST's files; empty: looked for in the checkpoint and its fast/")  \
    X(TEXT, cache, "", "a folder for the packed weights that the next start maps; empty: the checkpoint's, from 1 GiB on")             \
    X(FLAG, no_cache, false, "neither read nor keep packed weights")                                                                   \
    X(FLAG, gradient, false, "keep the weights as --rtc gradient needs them, which reads them both ways; a chunk then takes longer")   \
    X(TEXT, robot, "", "aloha, droid, libero, ur5, a config's name such as pi05_droid, or a JSON file; empty: as the checkpoint says")
SOMA_OPTS_DECLARE(soma_policy_opts, SOMA_POLICY_OPTS)
soma_policy_opts soma_policy_defaults(void);

#define SOMA_PILOT_OPTS(X)                                                                                                                \
    X(INT, seed, 0, "same seed, same observations, same device: same actions")                                                            \
    X(INT, steps, 0, "flow steps per chunk; 0: as the policy was published with")                                                         \
    X(REAL, noise, -1, "standard deviation of the noise that the flow starts from; below 0: as published; 0: the same chunk each time")   \
    X(TEXT, time, "", "whose flow times: openpi or lerobot; empty: those of the project that the checkpoint is from")                     \
    X(REAL, temperature, 0, "of a policy that writes tokens: 0 takes the most likely one, above 0 they are drawn")                        \
    X(TEXT, constrain, "", "grammar: of a policy that writes tokens, only those that its format allows; empty: any, as the originals do") \
    X(TEXT, rtc, "", "real-time chunking, how a chunk continues the one before: guided, gradient or trained; empty: not at all")          \
    X(TEXT, rtc_schedule, "linear", "how much the old chunk binds behind the delay: zeros, ones, linear or exp")                          \
    X(REAL, rtc_weight, 10, "largest weight of the guidance")                                                                             \
    X(INT, rtc_horizon, 0, "steps of the old chunk that guide, from the observation on; 0: all that are left; LeRobot's 10")
SOMA_OPTS_DECLARE(soma_pilot_opts, SOMA_PILOT_OPTS)
soma_pilot_opts soma_pilot_defaults(void);

// What a policy wants and gives, borrowed from it.
typedef struct soma_policy_info {
    const char *family;              // "pi0"
    int horizon, n_actions, n_state; // actions per chunk, robot's action and state sizes
    double rate;                     // Hz of the demonstrations; 0 when unknown
    int n_cameras;
    const char *const *camera_names; // "scene", "wrist"
    int n_ignored;
    const char *const *ignored; // pictures that clients of this robot send beside these, and nobody looks at
    int n_state_keys;
    const char *const *state_keys; // the parts of the state in a message, in order; none: "state" is the whole
    const char *metadata_json;     // a JSON object; sent to clients on connection
} soma_policy_info;

enum { SOMA_MAX_CAMERAS = 8 };

typedef struct soma_image {
    const char *camera;    // one of the policy's camera names
    const uint8_t *pixels; // [height, width, 3] RGB, rows from the top
    int width, height;
} soma_image;

// All borrowed for the call.
typedef struct soma_obs {
    const char *prompt; // UTF-8; NULL means ""
    const float *state; // [n_state] in robot units
    int n_state;
    int n_images;
    soma_image images[SOMA_MAX_CAMERAS]; // cameras that are absent are masked
    // Of a pilot with real-time chunking, in control steps. executed: since the observation of its chunk before; 0: this chunk continues
    // none. delay: those that will pass before this chunk takes over, in which the robot goes on with the one before.
    int executed, delay;
} soma_obs;

// In robot units; borrowed until the pilot's next act.
typedef struct soma_actions {
    const float *values; // [horizon, n_actions]
    int horizon, n_actions;
    double model_ms;  // time in the model
    const char *flaw; // NULL: none; else what is wrong with the answer that a policy wrote, of which this is what could be read
} soma_actions;

// `path`: a folder with config.json and model.safetensors. NULL opts: defaults.
soma_status soma_policy_open(soma_policy **policy, const char *path, const soma_policy_opts *opts, soma_error *err);
void soma_policy_close(soma_policy *policy); // NULL allowed; after its last pilot
soma_policy_info soma_policy_describe(const soma_policy *policy);

// The same for callers in other languages, who then need not know the struct: options as a JSON object of the fields' names, such as
// {"dtype": "int8", "threads": 2}; NULL or "": defaults. An unknown name is refused with the nearest one.
soma_status soma_policy_open_json(soma_policy **policy, const char *path, const char *options, soma_error *err);

soma_status soma_pilot_new(soma_pilot **pilot, const soma_policy *policy, const soma_pilot_opts *opts, soma_error *err);
soma_status soma_pilot_new_json(soma_pilot **pilot, const soma_policy *policy, const char *options, soma_error *err); // {"seed": 7}
void soma_pilot_free(soma_pilot *pilot);                                                                              // NULL allowed
const soma_policy *soma_pilot_policy(const soma_pilot *pilot);
// Forgets the episode so far; the random stream goes on unless `seed` is given anew by a new pilot.
void soma_pilot_reset(soma_pilot *pilot);
// What the robot sees in a control step for which no chunk is asked: some policies (diffusion) look at the step before the present one,
// too, and take the present for it where nobody told them. Others do not keep it. An observation with executed = 1 has seen the step
// before.
soma_status soma_pilot_see(soma_pilot *pilot, const soma_obs *obs, soma_error *err);
// One observation to one chunk of actions. A wrong size or a NaN in the state is refused with a sentence and changes nothing.
soma_status soma_pilot_act(soma_pilot *pilot, const soma_obs *obs, soma_actions *actions, soma_error *err);
// The same for n pilots of one policy at once, pilots[i] with obs[i] into actions[i]; soma_pilot_act is its n = 1.
soma_status soma_policy_act_many(const soma_policy *policy, int n, soma_pilot *const *pilots, const soma_obs *obs, soma_actions *actions,
                                 soma_error *err);

// ---- executing chunks (docs/chunks.md): one observation and one action per control step

#define SOMA_CHUNK_OPTS(X)                                                                                                                \
    X(TEXT, chunks, "open",                                                                                                               \
      "open: one chunk after the other; async: the next is made while the robot moves; ensemble: async, and a step's action is the mean " \
      "of all chunks that have it")                                                                                                       \
    X(INT, execute, 10, "control steps from one chunk to the next, or as soon after as the policy can; 0: the whole chunk")               \
    X(REAL, ensemble_weight, 0.01, "ensemble: the i-th oldest chunk weighs exp(-w i); ACT's 0.01, ICRT's -0.05 (the newest most)")        \
    X(INT, ensemble_depth, 16, "ensemble: chunks that are averaged, at most")
SOMA_OPTS_DECLARE(soma_chunk_opts, SOMA_CHUNK_OPTS)
soma_chunk_opts soma_chunk_defaults(void);

// What was measured, since the timeline was made. Times in control steps; a seam is how far a chunk that took over changed the action of
// that moment: the largest difference of any dimension, in robot units.
typedef struct soma_chunk_report {
    int64_t steps, held;                 // actions that were asked for; of these, so many found no chunk and repeated the last one
    int64_t chunks, delays, seams;       // that arrived; while the robot moved or stood; at which there was something to compare
    double delay, delay_mean, delay_max; // from the observation to the chunk's arrival: the last one, all
    double seam, seam_mean, seam_max;
    double step_ms; // length of a control step: a delay of 2 is a latency of twice this; 0: simulated
} soma_chunk_report;

// One robot in real time: a thread of the drive's own asks the pilot while the robot moves, and every call of soma_drive_step tells the
// action of that moment. Called faster than the policy's rate it gives what lies between two actions; when a chunk is late it repeats the
// last one. Delays are measured and, with the pilot's rtc, told to the policy.
typedef struct soma_drive soma_drive;
// `pilot` is the drive's until it is freed. rate: actions of a chunk in a second; 0: as the policy says. NULL opts: defaults.
soma_status soma_drive_new(soma_drive **drive, soma_pilot *pilot, const soma_chunk_opts *opts, double rate, soma_error *err);
void soma_drive_free(soma_drive *drive);  // NULL allowed; waits for the chunk that is being made
void soma_drive_reset(soma_drive *drive); // a new episode begins with the next step
// What is seen now; the action [n_actions] in robot units, borrowed until the next call. An episode's first step waits for its chunk, in
// `open` every step that needs one does; else it takes microseconds, and, where the policy looks back, what soma_pilot_see takes while no
// chunk is being made. A refused observation or a failed chunk is told by the step that finds it, `action` is then the last one, and the
// next step asks anew.
soma_status soma_drive_step(soma_drive *drive, const soma_obs *obs, const float **action, soma_error *err);
soma_chunk_report soma_drive_read(const soma_drive *drive);

#ifdef __cplusplus
}
#endif
#endif
