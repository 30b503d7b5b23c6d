// SPDX-License-Identifier: Apache-2.0
// The robot's side of a policy: how observations in robot units become a model's batch, and a model's chunk becomes robot actions. The
// trainer and the pilot go through the same functions, so that a policy sees when it acts what it saw when it learned.
//
// It is kept in the policy's folder: the object "robot" of config.json, norm_stats.json, and the vocabulary (vocab.json or a SentencePiece
// model).
#ifndef SOMA_POLICY_ROBOT_H
#define SOMA_POLICY_ROBOT_H

#include "model/family.h"
#include "text/text.h"
#include "transform/normalise.h"
#include "transform/resize.h"

#include <soma/soma.h>

enum { SOMA_ROBOT_MAX_DIMS = 256 };

typedef struct soma_robot {
    int n_state, n_actions; // robot's; the model's may be larger
    double rate;            // Hz; 0: unknown
    int n_cameras;
    char cameras[SOMA_MAX_CAMERAS][64]; // robot's names; camera i is the model's camera i
    bool cameras_optional; // it was trained with episodes whose pictures are missing, so it may act without
    soma_norm_rule rule;
    bool delta[SOMA_ROBOT_MAX_DIMS];  // which actions are relative to the state
    soma_norm_stats *stats;           // owned
    const soma_norm *state, *actions; // borrowed from stats
    soma_text *text;                  // owned
} soma_robot;

// Reads the object "robot" of a config and the files beside it. `text_path` "": the folder's own vocabulary.
soma_status soma__robot_open(soma_robot *robot, const json_t *config, const char *dir, const char *text_path, const soma_model *model,
                             soma_error *err);
void soma__robot_close(soma_robot *robot);         // {0} allowed
json_t *soma__robot_json(const soma_robot *robot); // the object "robot"; a new reference, NULL when memory is out
// Checks that sizes and statistics fit the model, and finds the statistics of the two keys.
soma_status soma__robot_check(soma_robot *robot, const soma_model *model, const char *where, soma_error *err);

// The arrays of a batch of n rows, owned; `batch` points into them.
typedef struct soma_rows {
    const soma_model *model;
    int64_t n;
    soma_batch batch;
    uint8_t *images;       // [n, C, H, W, 3]
    uint8_t *image_mask;   // [n, C]
    int32_t *tokens;       // [n, L]
    uint8_t *token_mask;   // [n, L]
    float *state;          // [n, state_dim]
    char **prompts;        // [n] what the row's tokens were made of; NULL before the first
    soma_resizer *resizer; // for the last size of picture seen
    int in_width, in_height;
} soma_rows;
soma_status soma__rows_new(soma_rows *rows, const soma_model *model, int64_t n, soma_error *err);
void soma__rows_free(soma_rows *rows); // {0} allowed

// One observation into row `i`. Refuses a state of another length or with a NaN, an unknown camera, and an observation without pictures.
soma_status soma__robot_observe(const soma_robot *robot, soma_rows *rows, int64_t i, const soma_obs *obs, soma_error *err);

// values [horizon, n_actions] in robot units to out [horizon, action_dim] of the model (padded with zeros); state [n_state] in robot units.
void soma__robot_to_model(const soma_robot *robot, const soma_model *model, const float *state, const float *values, float *out);
// The other way round.
void soma__robot_from_model(const soma_robot *robot, const soma_model *model, const float *state, const float *values, float *out);

#endif
