// SPDX-License-Identifier: Apache-2.0
// The robot's side of a policy: how observations in robot units become a model's batch, and a model's chunk becomes robot actions. The
// trainer and the pilot go through the same functions, so that a policy sees when it acts what it saw when it learned.
//
// A robot is told by one JSON object (docs/robots.md), wherever it comes from: the object "robot" of config.json, a user's file, a name
// that is built in (robots.c), or what a LeRobot folder's processors say (robot_lerobot.c). Opening a checkpoint is two calls:
//
//     soma__robot_resolve(config, dir, opts.robot, err)             // before the model is made: config["robot"], sizes per released config
//     soma__robot_open(&robot, config, dir, opts.text_tokenizer, model, err)   // after it: sizes, statistics, vocabulary
#ifndef SOMA_POLICY_ROBOT_H
#define SOMA_POLICY_ROBOT_H

#include "model/family.h"
#include "text/prompt.h"
#include "transform/form.h"
#include "transform/normalise.h"
#include "transform/resize.h"

#include <soma/soma.h>

enum { SOMA_ROBOT_MAX_DIMS = 256, SOMA_ROBOT_NAMES = 16, SOMA_ROBOT_NAME = 64 };

typedef char soma_robot_name[SOMA_ROBOT_NAME];

// What an action is when the robot shall stand still: the state's number at its place, 0, or what was last sent.
typedef enum soma_hold { SOMA_HOLD_UNKNOWN, SOMA_HOLD_STATE, SOMA_HOLD_ZERO, SOMA_HOLD_LAST } soma_hold;

typedef struct soma_robot {
    int n_state, n_actions; // robot's; the model's may be larger
    double rate;            // Hz; 0: unknown
    int n_cameras;
    soma_robot_name cameras[SOMA_MAX_CAMERAS]; // robot's names
    int slots[SOMA_MAX_CAMERAS];               // which of the model's cameras camera i is; rising
    bool required[SOMA_MAX_CAMERAS];           // an observation without it is refused
    bool cameras_optional;                     // it was trained with episodes whose pictures are missing, so it may act without
    bool absent_black;                         // an absent camera is a black picture that is looked at (openpi's pi0-FAST), not masked
    int n_ignored;
    soma_robot_name ignored[SOMA_ROBOT_NAMES]; // pictures that clients send and nobody looks at
    int n_state_keys;
    soma_robot_name state_keys[SOMA_ROBOT_NAMES]; // parts of the state in a message, in order; none: "state"
    soma_form state_forms[SOMA_ROBOT_MAX_DIMS], action_forms[SOMA_ROBOT_MAX_DIMS];
    bool delta[SOMA_ROBOT_MAX_DIMS];   // which actions are relative to the state
    uint8_t hold[SOMA_ROBOT_MAX_DIMS]; // soma_hold of each action; all UNKNOWN, or none
    soma_norm_rule state_rule, action_rule;
    soma_resize_rule resize;
    soma_prompt_form form;
    char prompt[512];                 // of an observation that tells none
    soma_norm_stats *stats;           // owned
    const soma_norm *state, *actions; // borrowed from stats; NULL where the rule is identity
    soma_text *text;                  // owned
} soma_robot;

// Settles which robot a checkpoint is for, as config["robot"], and the sizes that go with it (its "model": horizon, tokens) and its
// metadata at the top of config. `robot`: a built-in name or a JSON file, laid over what the checkpoint itself says; "": the checkpoint's
// own.
soma_status soma__robot_resolve(json_t *config, const char *dir, const char *robot, soma_error *err);
// Reads the object "robot" of a config and the files beside it. `text_path` "": the folder's own vocabulary.
soma_status soma__robot_open(soma_robot *robot, const json_t *config, const char *dir, const char *text_path, const soma_model *model,
                             soma_error *err);
void soma__robot_close(soma_robot *robot); // {0} allowed
// The object "robot" alone, without files: what soma__robot_open begins with. `where` names the JSON in sentences.
soma_status soma__robot_read(soma_robot *robot, const json_t *object, const soma_model *model, const char *where, soma_error *err);
json_t *soma__robot_json(const soma_robot *robot); // the object "robot"; a new reference, NULL when memory is out
// Checks that sizes and statistics fit the model, and finds the statistics of the two keys.
soma_status soma__robot_check(soma_robot *robot, const soma_model *model, const char *where, soma_error *err);

// Gives `robot`, whose sizes and cameras are known from elsewhere (a dataset), the conventions of `given` (a built-in name or a JSON file):
// conversions, relative actions, the keys of its messages, its prompt. It may leave out sizes and cameras; sizes that differ are refused,
// and `where` names whose they are.
soma_status soma__robot_adopt(soma_robot *robot, const char *given, const char *where, soma_error *err);

// The built-in robots: the JSON object of `name` as a new reference, NULL when there is none (or memory is out); and the i-th name, NULL
// behind the last.
json_t *soma__robot_builtin(const char *name);
const char *soma__robot_builtin_name(size_t i);
// A LeRobot folder's config.json, policy_preprocessor.json and policy_postprocessor.json as a robot's object, a new reference.
soma_status soma__robot_from_lerobot(json_t **robot, const json_t *config, const char *dir, soma_error *err);
// The statistics that robot["norm_stats"] names, or those of the checkpoint in `dir`: norm_stats.json, assets/<asset_id>/norm_stats.json,
// or the only one below assets/. *stats is NULL where the rules need none and there are none.
soma_status soma__robot_stats(soma_norm_stats **stats, const json_t *robot, const char *dir, bool needed, soma_error *err);

// The dtype that this robot's pictures are given to the model in (soma_build.image): U8, or F32 where a resize leaves no whole numbers.
soma_dtype soma__robot_image_dtype(const soma_robot *robot);
// The text that the model is given, never SOMA_PROMPT_MODEL.
soma_prompt_form soma__robot_prompt_form(const soma_robot *robot, const soma_model *model);

// The arrays of a batch of n rows, owned; `batch` points into them.
typedef struct soma_rows {
    const soma_model *model;
    int64_t n; // observations: with a history 1 + history of them for each row of the batch, oldest first
    soma_batch batch;
    void *images;          // u8 [n, C, H, W, 3] or f32 [n, C, 3, H, W]
    float *picture;        // [H, W, 3], where images are f32
    uint8_t *image_mask;   // [n, C]
    int32_t *tokens;       // [n, L]
    uint8_t *token_mask;   // [n, L]
    float *state;          // [n, state_dim]
    char **prompts;        // [n] what the row's tokens were made of; NULL before the first
    soma_resizer *resizer; // for the last size of picture seen
    int in_width, in_height;
} soma_rows;
soma_status soma__rows_new(soma_rows *rows, const soma_robot *robot, const soma_model *model, int64_t n, soma_error *err);
void soma__rows_free(soma_rows *rows); // {0} allowed

// One observation into row `i`. Refuses a state of another length or with a NaN, an unknown camera, a required one that is absent, and an
// observation without pictures. A prompt that is too long is cut at its end, with a warning, as the originals do.
soma_status soma__robot_observe(const soma_robot *robot, soma_rows *rows, int64_t i, const soma_obs *obs, soma_error *err);

// A picture as the model is given it, for people to look at: rgb is u8 [S, S, 3] of the model's image size, released with soma__free.
soma_status soma__robot_look(uint8_t **rgb, const soma_robot *robot, const soma_model *model, const soma_image *image, soma_error *err);

// What statistics are taken of and normalisation is applied to: the state as the model means it, `out` [n_state]; one action [n_actions] as
// the model means it, relative where it learns differences. `state` is the first call's result.
void soma__robot_state(const soma_robot *robot, const float *state, double *out);
void soma__robot_action(const soma_robot *robot, const double *state, const float *action, double *out);

// Only the conversions, in place: states [n, n_state], actions [n, n_actions].
void soma__robot_convert(const soma_robot *robot, float *states, float *actions, int64_t n);

// The action [n_actions] that holds the robot where it is, in robot units. state [n_state]; last: the action that was last sent, NULL when
// there was none. False: the robot does not say how it is held, or nothing was sent yet.
bool soma__robot_hold(const soma_robot *robot, const float *state, const float *last, float *action);
// robot_json.c's part for the key "hold"; the list is a new reference, empty when the robot does not say.
soma_status soma__robot_read_hold(soma_robot *robot, const json_t *object, const char *where, soma_error *err);
json_t *soma__robot_hold_json(const soma_robot *robot);

// values [horizon, n_actions] in robot units to out [horizon, action_dim] of the model (padded with zeros); state [n_state] in robot units.
void soma__robot_to_model(const soma_robot *robot, const soma_model *model, const float *state, const float *values, float *out);
// The other way round.
void soma__robot_from_model(const soma_robot *robot, const soma_model *model, const float *state, const float *values, float *out);
// Actions of the model, values [n, action_dim], that are relative to the state `from` become relative to `to`; the others keep their bits.
void soma__robot_anchor(const soma_robot *robot, const soma_model *model, const float *from, const float *to, float *values, int64_t n);

#endif
