// SPDX-License-Identifier: Apache-2.0
// Joint conventions. The gripper's constants are those of openpi's aloha_policy.py at 15a9616, in metres and radians; the order of its
// operations is kept, so that results agree to the last bits.
#include "transform/form.h"

#include <math.h>

// The finger's travel of the ViperX gripper, its arm and horn (metres); the range that pi0's own robots scale a gripper's angle by; the
// range that ALOHA's leader arms command (radians).
static const double open_low = 0.01844, open_high = 0.05800, arm = 0.036, horn = 0.022;
static const double angle_low = 0.5476, angle_high = 1.6296, joint_low = -0.6213, joint_high = 1.4910;

double soma__aloha_gripper_angle(double opening) {
    double linear = opening * (open_high - open_low) + open_low;
    double sine = (horn * horn + linear * linear - arm * arm) / (2 * horn * linear);
    double angle = asin(sine < -1 ? -1 : sine > 1 ? 1 : sine);
    return (angle - angle_low) / (angle_high - angle_low);
}

double soma__aloha_gripper_out(double value) { return (value + angle_low - joint_low) / (joint_high - joint_low); }

double soma__aloha_gripper_in(double value) { return value * (joint_high - joint_low) + joint_low - angle_low; }

void soma__form_state(const soma_form *forms, double *values, int n) {
    for (int i = 0; i < n; i++)
        if (forms[i].kind == SOMA_FORM_AFFINE)
            values[i] = values[i] * forms[i].scale + forms[i].offset;
        else if (forms[i].kind == SOMA_FORM_ALOHA_GRIPPER)
            values[i] = soma__aloha_gripper_angle(values[i]);
}

void soma__form_actions_in(const soma_form *forms, double *values, int n) {
    for (int i = 0; i < n; i++)
        if (forms[i].kind == SOMA_FORM_AFFINE)
            values[i] = values[i] * forms[i].scale + forms[i].offset;
        else if (forms[i].kind == SOMA_FORM_ALOHA_GRIPPER)
            values[i] = soma__aloha_gripper_in(values[i]);
}

void soma__form_actions_out(const soma_form *forms, double *values, int n) {
    for (int i = 0; i < n; i++)
        if (forms[i].kind == SOMA_FORM_AFFINE)
            values[i] = (values[i] - forms[i].offset) / forms[i].scale;
        else if (forms[i].kind == SOMA_FORM_ALOHA_GRIPPER)
            values[i] = soma__aloha_gripper_out(values[i]);
}
