// SPDX-License-Identifier: Apache-2.0
// What the table-top tasks share: the arm on a table with a red, a green and a blue cube, two cameras, light, 20 Hz control unless asked
// otherwise, the record of which cube was touched first. A task adds its own bodies, its rules and its expert.
#ifndef SOMA_ENV_TABLETOP_H
#define SOMA_ENV_TABLETOP_H

#include "base/rng.h"
#include "env/arm.h"
#include "env/render.h"
#include "env/task.h"

enum { SOMA_CUBES = 3, SOMA_TABLETOP_CAMERAS = 2 };
enum { SOMA_CUBE_NONE = -1, SOMA_CUBE_SEVERAL = -2 };

#define SOMA_CUBE_HALF 0.025 // metres; cubes of 5 cm
#define SOMA_TABLETOP_RATE 20.0
// Where cube centres lie, metres: 0.3 by 0.4.
#define SOMA_TABLE_X0 0.20
#define SOMA_TABLE_X1 0.50
#define SOMA_TABLE_Y0 (-0.20)
#define SOMA_TABLE_Y1 0.20

extern const char *const soma__cube_names[SOMA_CUBES];                  // "red", "green", "blue"
extern const char *const soma__tabletop_cameras[SOMA_TABLETOP_CAMERAS]; // "scene", "wrist"

struct soma_env {
    const soma_task *task;
    soma_env_opts opts;
    mjModel *model;      // our own copy: light and cameras change from seed to seed
    mjData *data;        // after reset and step: positions, contacts and sites of the present state
    soma_render *render; // NULL until the first observe
    uint8_t *images[SOMA_TABLETOP_CAMERAS];
    float state[SOMA_ARM_ACTIONS];
    char prompt[SOMA_ENV_PROMPT_MAX];
    double camera_pos[SOMA_TABLETOP_CAMERAS][3], camera_quat[SOMA_TABLETOP_CAMERAS][4]; // before jitter
    int cube_bodies[SOMA_CUBES], tip_site;
    int substeps, max_steps;  // physics steps in a control period; the time limit in control steps
    int goal, named;          // cubes: the one success is judged by, the one the prompt names
    int touched_first;        // a cube, SOMA_CUBE_NONE, or SOMA_CUBE_SEVERAL when one physics step brought two contacts
    bool ready;               // has been reset
    soma_env_outcome outcome; // the task judges into it after each step
};

// `bodies`: the task's own MJCF for inside <worldbody>, "" for none. `fovy`: of the scene camera, degrees.
soma_status soma__tabletop_open(soma_env **env, const soma_task *task, const char *bodies, double fovy, const soma_env_opts *opts,
                                soma_error *err);
void soma__tabletop_close(soma_env *env);

// Brings the arm home, draws goal, light, cameras and the cubes' places: centres at least `apart` metres from each other, yaw within
// +-`yaw` radians of the direction from the base. `prompt` has one %s for the colour. The task may then place its own bodies from `rng`'s
// stream and must end with soma__tabletop_settle.
void soma__tabletop_reset(soma_env *env, const soma_env_reset *reset, const char *prompt, double apart, double yaw, soma_rng *rng);
void soma__tabletop_settle(soma_env *env);

soma_status soma__tabletop_observe(soma_env *env, soma_env_obs *obs, soma_error *err);
// Runs one control period and counts it; the task judges afterwards.
soma_status soma__tabletop_step(soma_env *env, const float *action, soma_error *err);

const double *soma__tabletop_cube(const soma_env *env, int cube); // its centre [3], metres
const double *soma__tabletop_tip(const soma_env *env);            // the middle between the finger tips [3], metres
bool soma__tabletop_touching(const soma_env *env, int cube);      // is any part of the arm in contact with it now

// How an expert holds the hand and how fast it goes: targets at most `stride` metres ahead of the tip (over the servos' 0.12 s: the speed),
// the hand turned by `roll` radians, the fingers at `gripper` metres.
typedef struct soma_hand {
    double stride, roll, gripper;
} soma_hand;

// Joint targets that bring the tip from where it is straight towards `goal` [3].
void soma__tabletop_move(const soma_env *env, const double goal[3], const soma_hand *hand, float *action);
// The same over `target` [3] at height `high` and down to `low`, along a smooth funnel around the target's axis. Below the funnel the hand
// rises before it travels, which is how it comes back from a disturbance between the cubes.
void soma__tabletop_descend(const soma_env *env, const double target[3], double high, double low, const soma_hand *hand, float *action);

#endif
