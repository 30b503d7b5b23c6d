// SPDX-License-Identifier: Apache-2.0
// The times of the flow's steps, from 1 (noise) towards 0 (actions). Two projects count them differently in the last bits, which moves the
// tenth step's actions by 2e-5 to 9e-5: a checkpoint is run as its own project does.
#ifndef SOMA_POLICY_SCHEDULE_H
#define SOMA_POLICY_SCHEDULE_H

#include "base/json.h"

typedef enum soma_time_rule {
    SOMA_TIME_OPENPI,  // t += dt, in f32
    SOMA_TIME_LEROBOT, // t = 1 + k dt, in f64, rounded to f32
} soma_time_rule;

// name: "openpi" or "lerobot"; "": what the config says ("time_rule"), or whose config it is: LeRobot's has a "type" and no "model_type".
soma_status soma__time_rule(soma_time_rule *rule, const char *name, const json_t *config, soma_error *err);
// times [steps]
void soma__schedule_times(float *times, int64_t steps, soma_time_rule rule);

#endif
