// SPDX-License-Identifier: Apache-2.0
// The arm's model and its closed-form inverse kinematics. Shapes are ours; lengths, limits and masses are the published ones (README.md).
// The servos are soft (about 0.12 s) and overdamped: like hobby-grade position servos, they follow a moving target without ringing.
#include "env/arm.h"

#include <math.h>
#include <string.h>

// contype 1, conaffinity 2: the arm meets the table and objects, never itself.
const char soma__arm_mjcf[] =
    "<body name='base' childclass='arm'>\n"
    "  <geom type='cylinder' size='0.065 0.03' pos='-0.02 0 0.03' mass='0.97'/>\n"
    "  <geom type='box' size='0.11 0.07 0.008' pos='-0.05 0 0.008' mass='0.1'/>\n"
    "  <body name='shoulder_link' pos='0 0 0.079'>\n"
    "    <joint name='waist' axis='0 0 1' range='-3.14158 3.14158' damping='7.2' armature='0.02'/>\n"
    "    <geom type='cylinder' size='0.05 0.03' mass='0.4'/>\n"
    "    <geom type='box' size='0.035 0.045 0.035' pos='0 0 0.045' mass='0.4'/>\n"
    "    <body name='upper_arm_link' pos='0 0 0.04805'>\n"
    "      <joint name='shoulder' axis='0 1 0' range='-1.85005 1.25664' damping='14.4' armature='0.02'/>\n"
    "      <geom class='metal' type='capsule' size='0.028' fromto='0 0 0 0 0 0.3' mass='0.6'/>\n"
    "      <geom type='capsule' size='0.022' fromto='0 0 0.3 0.05955 0 0.3' mass='0.19'/>\n"
    "      <body name='upper_forearm_link' pos='0.05955 0 0.3'>\n"
    "        <joint name='elbow' axis='0 1 0' range='-1.76278 1.6057' damping='9.6' armature='0.02'/>\n"
    "        <geom type='cylinder' size='0.033 0.03' zaxis='0 1 0' mass='0.12'/>\n"
    "        <geom class='metal' type='capsule' size='0.024' fromto='0.03 0 0 0.19 0 0' mass='0.2'/>\n"
    "        <body name='lower_forearm_link' pos='0.2 0 0'>\n"
    "          <joint name='forearm_roll' axis='1 0 0' range='-3.14158 3.14158' damping='2.4' armature='0.01'/>\n"
    "          <geom class='metal' type='capsule' size='0.022' fromto='0 0 0 0.08 0 0' mass='0.41'/>\n"
    "          <body name='wrist_link' pos='0.1 0 0'>\n"
    "            <joint name='wrist_angle' axis='0 1 0' range='-1.8675 2.23402' damping='2.4' armature='0.01'/>\n"
    "            <geom type='cylinder' size='0.024 0.026' zaxis='0 1 0' mass='0.06'/>\n"
    "            <geom class='metal' type='capsule' size='0.02' fromto='0 0 0 0.05 0 0' mass='0.055'/>\n"
    "            <body name='gripper_link' pos='0.069744 0 0'>\n"
    "              <joint name='wrist_rotate' axis='1 0 0' range='-3.14158 3.14158' damping='1.2' armature='0.005'/>\n"
    "              <geom type='box' size='0.022 0.03 0.024' pos='0.01 0 0' mass='0.15'/>\n"
    "              <geom type='box' size='0.008 0.062 0.014' pos='0.04 0 0' mass='0.1'/>\n"
    "              <camera name='wrist' pos='-0.01 0 0.085' xyaxes='0 -1 0 0.26 0 0.966' fovy='76'/>\n"
    "              <site name='tip' pos='0.13 0 0' size='0.003' group='4'/>\n"
    "              <body name='left_finger_link' pos='0.0687 0 0'>\n"
    "                <joint name='left_finger' type='slide' axis='0 1 0' range='0.021 0.057' damping='30' armature='0.1'/>\n"
    "                <geom class='finger' size='0.036 0.006 0.010' pos='0.0253 -0.0075 0'/>\n"
    "              </body>\n"
    "              <body name='right_finger_link' pos='0.0687 0 0'>\n"
    "                <joint name='right_finger' type='slide' axis='0 -1 0' range='0.021 0.057' damping='30' armature='0.1'/>\n"
    "                <geom class='finger' size='0.036 0.006 0.010' pos='0.0253 0.0075 0'/>\n"
    "              </body>\n"
    "            </body>\n"
    "          </body>\n"
    "        </body>\n"
    "      </body>\n"
    "    </body>\n"
    "  </body>\n"
    "</body>\n";

// kp over damping above is 1 / 0.12 s for each joint.
const char soma__arm_actuators[] = "<position joint='waist' kp='60' ctrlrange='-3.14158 3.14158' forcerange='-35 35'/>\n"
                                   "<position joint='shoulder' kp='120' ctrlrange='-1.85005 1.25664' forcerange='-57 57'/>\n"
                                   "<position joint='elbow' kp='80' ctrlrange='-1.76278 1.6057' forcerange='-25 25'/>\n"
                                   "<position joint='forearm_roll' kp='20' ctrlrange='-3.14158 3.14158' forcerange='-10 10'/>\n"
                                   "<position joint='wrist_angle' kp='20' ctrlrange='-1.8675 2.23402' forcerange='-35 35'/>\n"
                                   "<position joint='wrist_rotate' kp='10' ctrlrange='-3.14158 3.14158' forcerange='-35 35'/>\n"
                                   "<position joint='left_finger' kp='300' ctrlrange='0.021 0.057' forcerange='-35 35'/>\n"
                                   "<position joint='right_finger' kp='300' ctrlrange='0.021 0.057' forcerange='-35 35'/>\n";

const char *const soma__arm_names[SOMA_ARM_ACTIONS] = {"waist",       "shoulder",     "elbow",  "forearm_roll",
                                                       "wrist_angle", "wrist_rotate", "gripper"};

// Where a body hangs on its parent, and where the tip is on the hand: the model is the only place with lengths in it.
static const double *offset(const mjModel *m, const char *body) { return m->body_pos + 3 * mj_name2id(m, mjOBJ_BODY, body); }

bool soma__arm_reach(const mjModel *m, const double tip[3], double roll, double q[SOMA_ARM_JOINTS]) {
    double height = offset(m, "shoulder_link")[2] + offset(m, "upper_arm_link")[2]; // of the shoulder axis over the table
    const double *elbow = offset(m, "upper_forearm_link");
    double upper = hypot(elbow[0], elbow[2]), lean = atan2(elbow[0], elbow[2]); // the elbow is not straight over the shoulder
    double fore = offset(m, "lower_forearm_link")[0] + offset(m, "wrist_link")[0];
    double hand = offset(m, "gripper_link")[0] + m->site_pos[3 * mj_name2id(m, mjOBJ_SITE, "tip")];

    // In the vertical plane through the tip, the wrist stands `hand` above it: a triangle of upper arm, forearm and reach.
    double r = hypot(tip[0], tip[1]), z = tip[2] + hand - height, reach = hypot(r, z);
    double clipped = fmin(fmax(reach, fabs(upper - fore) + 1e-3), upper + fore - 1e-3);
    double inner = acos((upper * upper + fore * fore - clipped * clipped) / (2 * upper * fore));   // at the elbow
    double near = acos((upper * upper + clipped * clipped - fore * fore) / (2 * upper * clipped)); // at the shoulder
    double lift = atan2(z, r) + near; // elevation of the line from shoulder to elbow

    q[0] = r > 1e-9 ? atan2(tip[1], tip[0]) : 0;
    q[1] = M_PI / 2 - lift - lean;
    q[2] = M_PI / 2 + lean - inner;
    q[3] = 0;
    q[4] = M_PI / 2 - q[1] - q[2]; // the three pitches together point straight down
    q[5] = roll;
    bool inside = clipped == reach;
    for (int i = 0; i < SOMA_ARM_JOINTS; i++) {
        double limited = fmin(fmax(q[i], m->jnt_range[2 * i]), m->jnt_range[2 * i + 1]);
        inside = inside && limited == q[i];
        q[i] = limited;
    }
    return inside;
}

void soma__arm_state(const mjData *d, float state[SOMA_ARM_ACTIONS]) {
    for (int i = 0; i < SOMA_ARM_JOINTS; i++) state[i] = (float)d->qpos[i];
    state[SOMA_ARM_GRIPPER] = (float)((d->qpos[SOMA_ARM_JOINTS] + d->qpos[SOMA_ARM_JOINTS + 1]) / 2);
}

void soma__arm_command(const mjModel *m, mjData *d, const float action[SOMA_ARM_ACTIONS]) {
    for (int i = 0; i < SOMA_ARM_DOFS; i++) {
        double target = action[SOMA_MIN(i, SOMA_ARM_GRIPPER)];
        d->ctrl[i] = fmin(fmax(target, m->actuator_ctrlrange[2 * i]), m->actuator_ctrlrange[2 * i + 1]);
    }
}

void soma__arm_compensate(mjData *d) { memcpy(d->qfrc_applied, d->qfrc_bias, SOMA_ARM_DOFS * sizeof *d->qfrc_bias); }
