// SPDX-License-Identifier: Apache-2.0
// What one robot's policy has seen of late, ready for the model: for families that look at observations before the present one. Where there
// are none yet, the oldest stands for those that are missing, as at the beginning of an episode in training.
#ifndef SOMA_POLICY_HISTORY_H
#define SOMA_POLICY_HISTORY_H

#include "policy/robot.h"

typedef struct soma_history {
    soma_rows rows; // of one row: a ring of 1 + history observations
    int64_t views, newest, count;
    bool seen;  // since the last chunk, the observation that it was made from not counted
} soma_history; // {0}: of a model without a history

soma_status soma__history_new(soma_history *h, const soma_robot *robot, const soma_model *model, soma_error *err);
void soma__history_free(soma_history *h); // {0} allowed
void soma__history_forget(soma_history *h);
// One control step's observation. A refused one changes nothing that is read later.
soma_status soma__history_see(soma_history *h, const soma_robot *robot, const soma_obs *obs, soma_error *err);
// All of it as row i of a batch.
void soma__history_put(const soma_history *h, soma_rows *rows, int64_t i);

#endif
