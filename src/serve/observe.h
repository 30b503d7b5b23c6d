// SPDX-License-Identifier: Apache-2.0
// From a client's message to what a policy is given: which key holds which camera, the state, the prompt; which pixel layouts are taken.
//
//     a camera   images: {CAM: ...} | observation/images/CAM | observation.images.CAM | observation/CAM | CAM
//                [h, w, 3] or [3, h, w]; u1, or floats from 0 to 1 (times 255, truncated, as openpi does); any size, the policy resizes
//     the state  KEY | observation/KEY | observation.KEY: numbers of any dtype, n_state in all. KEY is "state", or each of the robot's
//     parts
//                (joint_position, gripper_position), which are put one behind the other; a single number is a part, too
//     the prompt prompt: str or bin, UTF-8; absent means ""
//
// A camera that the message lacks is left out (the policy masks it), unless the message has a picture under a key that nobody asked for and
// that is not on the robot's list of pictures to ignore: that is a misspelt camera, and is refused. Each refusal names the key, what was
// wanted and what was found.
#ifndef SOMA_SERVE_OBSERVE_H
#define SOMA_SERVE_OBSERVE_H

#include "format/msgpack.h"

#include <soma/soma.h>

// `obs` points into `arena` and into the message.
soma_status soma__observe(soma_obs *obs, const soma_policy_info *info, const soma_msg *message, soma_arena *arena, soma_error *err);

#endif
