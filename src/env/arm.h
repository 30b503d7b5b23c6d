// SPDX-License-Identifier: Apache-2.0
// The arm: a six-joint table-top manipulator with a two-finger gripper, drawn by us from primitive shapes with the link lengths and joint
// limits of a ViperX 300 6DOF (numbers and source: README.md). Its base stands at the origin, x points over the table, z up.
#ifndef SOMA_ENV_ARM_H
#define SOMA_ENV_ARM_H

#include "base/base.h"

#include <mujoco/mujoco.h>

// Order of the simulator's arrays: the arm comes first in the model, so qpos, qvel and ctrl start with the six joints and two fingers.
enum { SOMA_ARM_JOINTS = 6, SOMA_ARM_FINGERS = 2, SOMA_ARM_DOFS = SOMA_ARM_JOINTS + SOMA_ARM_FINGERS };
enum { SOMA_ARM_GRIPPER = SOMA_ARM_JOINTS, SOMA_ARM_ACTIONS = SOMA_ARM_JOINTS + 1 }; // one number drives both fingers

// Distance of a finger from the hand's middle plane, metres: the range of the published gripper joint.
#define SOMA_ARM_CLOSED 0.021
#define SOMA_ARM_OPEN 0.057
// The face that grips stands this much nearer to the middle plane than the finger's joint.
#define SOMA_ARM_PAD 0.0135

extern const char soma__arm_mjcf[];                         // the arm's bodies, for inside <worldbody>
extern const char soma__arm_actuators[];                    // and its servos, for inside <actuator>
extern const char *const soma__arm_names[SOMA_ARM_ACTIONS]; // "waist" ... "wrist_rotate", "gripper"

// Where a motion has to end: the finger tips at `tip` (metres, world), pointing straight down, the hand turned by `roll` (radians) from the
// arm's own plane. Fills q[6] in closed form. A tip out of reach or beyond a limit is answered by the nearest pose, and false.
bool soma__arm_reach(const mjModel *model, const double tip[3], double roll, double q[SOMA_ARM_JOINTS]);

// The state as recorded and as a policy sees it: six angles in radians, then the mean finger distance in metres.
void soma__arm_state(const mjData *data, float state[SOMA_ARM_ACTIONS]);
// Sets the servos; clips to their limits. action [7] as state.
void soma__arm_command(const mjModel *model, mjData *data, const float action[SOMA_ARM_ACTIONS]);
// Cancels gravity and velocity forces on the arm's joints, as the real arm's controller does; between mj_step1 and mj_step2.
void soma__arm_compensate(mjData *data);

#endif
