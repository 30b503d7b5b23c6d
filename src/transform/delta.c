// SPDX-License-Identifier: Apache-2.0
// Relative actions.
#include "transform/delta.h"

int soma__delta_mask(bool *mask, int room, const int *runs, int n_runs) {
    int n = 0;
    for (int r = 0; r < n_runs; r++) {
        SOMA_CHECK(runs[r] != 0, "a run of a delta mask is not 0");
        for (int i = 0; i < (runs[r] < 0 ? -runs[r] : runs[r]); i++, n++)
            if (n < room) mask[n] = runs[r] > 0;
    }
    return n;
}

void soma__delta_apply(double *actions, int64_t n_steps, int width, const double *state, const bool *mask, int n_mask) {
    SOMA_CHECK(n_mask <= width, "a delta mask is not wider than the actions");
    for (int64_t s = 0; s < n_steps; s++)
        for (int i = 0; i < n_mask; i++)
            if (mask[i]) actions[s * width + i] -= state[i];
}

void soma__delta_undo(double *actions, int64_t n_steps, int width, const double *state, const bool *mask, int n_mask) {
    SOMA_CHECK(n_mask <= width, "a delta mask is not wider than the actions");
    for (int64_t s = 0; s < n_steps; s++)
        for (int i = 0; i < n_mask; i++)
            if (mask[i]) actions[s * width + i] += state[i];
}
