// SPDX-License-Identifier: Apache-2.0
// Actions relative to the state at which a chunk begins. The reference is the current state for the whole chunk, never the step before.
// Done before normalisation and undone after it, so statistics of actions are those of the differences.
#ifndef SOMA_TRANSFORM_DELTA_H
#define SOMA_TRANSFORM_DELTA_H

#include "base/base.h"

// runs (6, -1, 6, -1) become six true, one false, six true, one false: joints relative, grippers absolute. Returns the number of entries,
// which may be more than `room`; the first `room` are written. No run is 0.
int soma__delta_mask(bool *mask, int room, const int *runs, int n_runs);

// actions [n_steps, width] in place, state [n_mask], mask [n_mask], n_mask <= width: masked dimensions lose the state's value, or get it
// back.
void soma__delta_apply(double *actions, int64_t n_steps, int width, const double *state, const bool *mask, int n_mask);
void soma__delta_undo(double *actions, int64_t n_steps, int width, const double *state, const bool *mask, int n_mask);

#endif
