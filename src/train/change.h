// SPDX-License-Identifier: Apache-2.0
// What training changes at random in an observation, so that a policy does not lean on one picture, camera, state or wording: crops, turns
// and colours, cameras, states and prompts that are left out, one of several instructions. All of it follows from (seed, batch, row).
#ifndef SOMA_TRAIN_CHANGE_H
#define SOMA_TRAIN_CHANGE_H

#include "base/rng.h"
#include "data/dataset.h"
#include "policy/robot.h"
#include "transform/augment.h"

#include <soma/train.h>

typedef struct soma_changes { // as the options say; const after parsing
    bool pictures;            // change them as `augment` says
    soma_augment_opts augment;
    double drop_camera, drop_state, drop_prompt; // shares
    bool any_prompt;                             // of an episode's instructions, else the first
} soma_changes;

// "" (no), "openpi", and behind it or alone crop=0.95,degrees=5,brightness=0.3,contrast=0.4,saturation=0.5; the error lists them. A share
// outside 0 .. 1 is refused, and a state that is to be left out by a model that is told it in its prompt.
soma_status soma__changes_parse(soma_changes *changes, const soma_train_opts *opts, soma_error *err);
soma_status soma__changes_check(const soma_changes *changes, const soma_robot *robot, const soma_model *model, soma_error *err);

// What happens to one observation.
typedef struct soma_change {
    uint32_t cameras; // bit i: camera i is left out; never all that are there
    bool state, prompt;
    uint64_t wording; // which of the instructions, modulo their number
    bool pictures;
    soma_rng rng; // of the pictures
} soma_change;

// `there`: bit i: camera i is there. Draws nothing that the options do not ask for.
soma_change soma__change_draw(const soma_changes *changes, soma_rng rng, const soma_robot *robot, uint32_t there);
// The instruction of an episode under this change.
const char *soma__change_prompt(const soma_changes *changes, const soma_change *change, const soma_episode *episode);

typedef struct soma_change_room { // memory of one thread
    float *picture;
    void *scratch;
} soma_change_room;
soma_status soma__change_room_new(soma_change_room *room, const soma_changes *changes, const soma_model *model, soma_error *err);
void soma__change_room_free(soma_change_room *room); // {0} allowed

// Row `row` of rows, which has been observed, in place: its pictures (of camera i where bit i of `there` is set and it was not left out),
// and its state. Pictures of bytes are rounded to bytes again.
void soma__change_row(const soma_changes *changes, const soma_change *change, soma_change_room *room, const soma_robot *robot,
                      soma_rows *rows, int64_t row, uint32_t there);

#endif
