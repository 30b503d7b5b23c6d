// SPDX-License-Identifier: Apache-2.0
// Touch a target that swings to and fro behind a guard that swings with it. Seen from above, in the plane, without MuJoCo: a round tool
// follows its commanded place as a servo does; the guard stands in the straight way, so that the tool goes around it, and both sides are
// equally good. Which one the expert takes is drawn from the seed and told by nothing that a policy sees before the tool has turned off:
// a chunk decides, the next chunk may decide otherwise. That, and a target that has moved on while one was thinking, is what this task is
// for (docs/chunks.md). Touching the guard ends the episode without success.
#include "base/rng.h"
#include "env/task.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SUBSTEP 0.005 // seconds; contact is looked for this often
#define TAU 0.06      // seconds: the tool approaches its commanded place as exp(-t / TAU)
#define SPEED 0.4     // m/s, at most
#define SWING 1.5     // rad/s of the target's swing
#define TOOL 0.02     // metres: radii
#define GUARD 0.06
#define TARGET 0.03
#define BEHIND 0.15 // metres from the guard's centre to the target's

// The expert's, metres and radians.
#define STRIDE 0.02  // the commanded place is so far ahead of the tool; over TAU about 0.23 m/s
#define CIRCLE 0.097 // distance that it keeps from the guard's centre; GUARD + TOOL touch at 0.08
#define NEAR 0.015   // outside the circle by less: it turns off
#define ALIGN 3.0    // how much sooner it stands before the guard than at it
#define DECIDED 0.4  // off the axis by more: it goes on to that side, whichever was drawn
#define PAST 1.8     // off the axis by more: the way to the target is free

enum { N_STATE = 5, N_ACTIONS = 2, N_CAMERAS = 1, PICTURE_MIN = 8, PICTURE_MAX = 1024 };

struct soma_env {
    soma_env_opts opts;
    int substeps, max_steps;
    double tool[2], target_x, swing, phase, time; // metres, radians, seconds
    int side;                                     // +1 or -1: the expert's
    bool ready, wrong_prompt;
    float state[N_STATE];
    uint8_t *picture;
    soma_env_outcome outcome;
};

static double target_y(const soma_env *e) { return e->swing * sin(SWING * e->time + e->phase); }
static double target_vy(const soma_env *e) { return e->swing * SWING * cos(SWING * e->time + e->phase); }

static void guard_close(soma_env *env) {
    if (!env) return;
    soma__free(env->picture);
    soma__free(env);
}

static soma_status guard_open(soma_env **env, const soma_env_opts *opts, soma_error *err);

static soma_status guard_reset(soma_env *e, const soma_env_reset *reset, soma_error *err) {
    (void)err;
    soma_rng seeded = soma__rng(reset->seed), rng = soma__rng_fold(&seeded, 0);
    e->tool[0] = soma__rng_range(&rng, 0.02, 0.08);
    e->tool[1] = soma__rng_range(&rng, -0.10, 0.10);
    e->target_x = soma__rng_range(&rng, 0.42, 0.48);
    e->swing = soma__rng_range(&rng, 0.03, 0.08);
    e->phase = soma__rng_range(&rng, 0, 2 * M_PI);
    e->side = soma__rng_below(&rng, 2) ? 1 : -1;
    e->time = 0;
    e->wrong_prompt = reset->wrong_prompt;
    e->outcome = (soma_env_outcome){0};
    e->ready = true;
    return SOMA_OK;
}

// ---- observe: numbers, and a plain picture from above

static const char *const state_names[N_STATE] = {"tool_x", "tool_y", "target_x", "target_y", "target_vy"};
static const char *const action_names[N_ACTIONS] = {"x", "y"};
static const char *const camera_names[N_CAMERAS] = {"above"};

static void draw_disc(const soma_env *e, double x, double y, double radius, const uint8_t rgb[3]) {
    const int w = e->opts.image_width, h = e->opts.image_height;
    const double scale = w / 0.56; // pixels in a metre: x from -0.02 to 0.54, y upwards around the middle
    for (int row = 0; row < h; row++) {
        for (int col = 0; col < w; col++) {
            double dx = (col + 0.5) / scale - 0.02 - x, dy = (h / 2.0 - row - 0.5) / scale - y;
            if (dx * dx + dy * dy <= radius * radius) memcpy(e->picture + 3 * ((size_t)row * (size_t)w + (size_t)col), rgb, 3);
        }
    }
}

static soma_status guard_observe(soma_env *e, soma_env_obs *obs, soma_error *err) {
    (void)err;
    SOMA_CHECK(e->ready, "an environment is reset before it is observed");
    const double y = target_y(e), state[N_STATE] = {e->tool[0], e->tool[1], e->target_x, y, target_vy(e)};
    for (int i = 0; i < N_STATE; i++) e->state[i] = (float)state[i];
    memset(e->picture, 60, (size_t)e->opts.image_width * (size_t)e->opts.image_height * 3);
    draw_disc(e, e->target_x, y, TARGET, (const uint8_t[]){30, 180, 60});
    draw_disc(e, e->target_x - BEHIND, y, GUARD, (const uint8_t[]){200, 40, 40});
    draw_disc(e, e->tool[0], e->tool[1], TOOL, (const uint8_t[]){230, 230, 230});
    *obs = (soma_env_obs){.prompt = e->wrong_prompt ? "touch the guard" : "touch the target", .state = e->state, .images = {e->picture}};
    return SOMA_OK;
}

// ---- step

// The servo over one substep: exact for a first-order lag, and no faster than SPEED.
static void follow(soma_env *e, const float *to) {
    double way[2] = {to[0] - e->tool[0], to[1] - e->tool[1]}, share = 1 - exp(-SUBSTEP / TAU);
    double far = share * hypot(way[0], way[1]), most = SPEED * SUBSTEP;
    if (far > most) share *= most / far;
    for (int i = 0; i < 2; i++) e->tool[i] += share * way[i];
}

static void judge(soma_env *e) {
    const double y = target_y(e);
    const bool guard = hypot(e->tool[0] - (e->target_x - BEHIND), e->tool[1] - y) < GUARD + TOOL;
    const bool target = hypot(e->tool[0] - e->target_x, e->tool[1] - y) < TARGET + TOOL;
    e->outcome.done = guard || target;
    e->outcome.acted = target != guard;
    e->outcome.success = target && !guard;
    e->outcome.prompted = e->wrong_prompt ? guard && !target : e->outcome.success;
}

static soma_status guard_step(soma_env *e, const float *action, soma_error *err) {
    SOMA_CHECK(e->ready && !e->outcome.done, "an environment is reset before it steps, and again when it is done");
    for (int i = 0; i < N_ACTIONS; i++)
        if (!isfinite(action[i]))
            return soma__fail(err, SOMA_BAD_INPUT, "round_guard: action %d (%s) is %g at step %d; the tool was not moved", i,
                              action_names[i], (double)action[i], e->outcome.steps);
    for (int i = 0; i < e->substeps && !e->outcome.done; i++) {
        follow(e, action);
        e->time += SUBSTEP;
        judge(e);
    }
    e->outcome.done |= ++e->outcome.steps >= e->max_steps;
    return SOMA_OK;
}

static soma_env_outcome guard_outcome(const soma_env *e) { return e->outcome; }

// ---- the expert

static void guard_expert(const soma_env *e, float *action) {
    const double guard[2] = {e->target_x - BEHIND, target_y(e)}, drift = TAU * target_vy(e); // the servo's lag, made up for
    const double off[2] = {e->tool[0] - guard[0], e->tool[1] - guard[1]}, far = hypot(off[0], off[1]);
    const double angle = atan2(off[1], -off[0]); // 0: straight before the guard
    double goal[2], way[2];
    if (e->wrong_prompt || fabs(angle) > PAST) {
        goal[0] = e->wrong_prompt ? guard[0] : e->target_x;
        goal[1] = guard[1];
    } else if (far > CIRCLE + NEAR) {
        goal[0] = guard[0] - CIRCLE;
        goal[1] = e->tool[1] + ALIGN * (guard[1] - e->tool[1]);
    } else {
        const double to = angle + (fabs(angle) > DECIDED ? copysign(1, angle) : e->side) * STRIDE / CIRCLE;
        goal[0] = guard[0] - CIRCLE * cos(to);
        goal[1] = guard[1] + CIRCLE * sin(to);
    }
    for (int i = 0; i < 2; i++) way[i] = goal[i] - e->tool[i];
    const double length = hypot(way[0], way[1]), share = length > STRIDE ? STRIDE / length : 1;
    action[0] = (float)(e->tool[0] + share * way[0]);
    action[1] = (float)(e->tool[1] + share * way[1] + drift);
}

const soma_task soma__task_round_guard = {
    .name = "round_guard",
    .about = "touch a moving target behind its guard, around either side",
    .robot = "planar_tool",
    .rate = 20,
    .max_steps = 120,
    .n_state = N_STATE,
    .n_actions = N_ACTIONS,
    .n_cameras = N_CAMERAS,
    .state_names = state_names,
    .action_names = action_names,
    .camera_names = camera_names,
    .open = guard_open,
    .close = guard_close,
    .reset = guard_reset,
    .observe = guard_observe,
    .step = guard_step,
    .outcome = guard_outcome,
    .expert = guard_expert,
};

static soma_status guard_open(soma_env **env, const soma_env_opts *opts, soma_error *err) {
    const soma_task at = soma__task_at(&soma__task_round_guard, opts->rate);
    const double period = 1 / (at.rate * SUBSTEP);
    *env = NULL;
    if (opts->image_width < PICTURE_MIN || opts->image_width > PICTURE_MAX || opts->image_height < PICTURE_MIN ||
        opts->image_height > PICTURE_MAX)
        return soma__fail(err, SOMA_BAD_INPUT, "round_guard: pictures of %d x %d pixels; each side must be %d to %d", opts->image_width,
                          opts->image_height, PICTURE_MIN, PICTURE_MAX);
    if (!(opts->rate >= 0 && at.rate >= 1 && period > 0.999 && fabs(period - round(period)) < 1e-9))
        return soma__fail(err, SOMA_BAD_INPUT, "round_guard: %g Hz; a control period must be a whole number of %g s, and a second at most",
                          at.rate, SUBSTEP);
    soma_env *e = soma__calloc(1, sizeof *e);
    if (!e) return soma__no_memory(err, "an environment");
    *e = (soma_env){.opts = *opts, .substeps = (int)lround(period), .max_steps = at.max_steps};
    e->picture = soma__calloc((size_t)opts->image_width * (size_t)opts->image_height, 3);
    if (!e->picture) {
        guard_close(e);
        return soma__no_memory(err, "a picture");
    }
    *env = e;
    return SOMA_OK;
}
