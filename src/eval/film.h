// SPDX-License-Identifier: Apache-2.0
// A video of filmed episodes: the cameras side by side, under them one small plot per action with what was executed, what the robot's state
// did, and what the policy meant to do next.
#ifndef SOMA_EVAL_FILM_H
#define SOMA_EVAL_FILM_H

#include "eval/rollout.h"

// An mp4 of all episodes of `r` that have a film, one after the other. Fails when there is none.
soma_status soma__film_write(const char *path, const soma_rollouts *r, soma_error *err);
// One of its frames, for tests and for looking at it: step 0 to n_steps of `episode`, into rgb u8 [height, width, 3] (NULL: sizes only).
soma_status soma__film_frame(const soma_rollouts *r, int64_t episode, int step, int *width, int *height, uint8_t *rgb, soma_error *err);

#endif
