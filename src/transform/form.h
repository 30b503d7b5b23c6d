// SPDX-License-Identifier: Apache-2.0
// One dimension of a robot's state or actions between the robot's own convention and the one that released weights learned: a joint that
// turns the other way, degrees or radians, a gripper that is told as an opening or as an angle.
//
// Done before deltas and normalisation on the way in, after both on the way out.
#ifndef SOMA_TRANSFORM_FORM_H
#define SOMA_TRANSFORM_FORM_H

#include "base/base.h"

typedef enum soma_form_kind {
    SOMA_FORM_SAME,         // as it is
    SOMA_FORM_AFFINE,       // model = scale * robot + offset
    SOMA_FORM_ALOHA_GRIPPER // openpi's aloha_policy.py; state and actions are told in different units, so the two ways differ
} soma_form_kind;

typedef struct soma_form {
    soma_form_kind kind;
    double scale, offset; // of SOMA_FORM_AFFINE; scale is not 0
} soma_form;

// values [n] in place.
void soma__form_state(const soma_form *forms, double *values, int n);       // robot's state to the model's
void soma__form_actions_in(const soma_form *forms, double *values, int n);  // robot's actions to the model's: training
void soma__form_actions_out(const soma_form *forms, double *values, int n); // the model's actions to the robot's

// ALOHA's gripper on its own: 0 is closed in the robot's unit, an opening of the fingers scaled to 0 .. 1; the base model's is the angle
// of an Interbotix gripper's motor, scaled.
double soma__aloha_gripper_angle(double opening); // of a state
double soma__aloha_gripper_out(double value);     // of an action of the model's
double soma__aloha_gripper_in(double value);      // its inverse

#endif
