// SPDX-License-Identifier: Apache-2.0
// soma_drive (soma/soma.h) over anything that answers observations with chunks: a pilot, or a connection to a server.
#ifndef SOMA_POLICY_DRIVE_H
#define SOMA_POLICY_DRIVE_H

#include "policy/timeline.h"

typedef struct soma_drive_source {
    void *ctx;
    // From one thread only, not the caller's. As soma_pilot_act; actions are borrowed until the next call.
    soma_status (*act)(void *ctx, const soma_obs *obs, soma_actions *actions, soma_error *err);
    void (*reset)(void *ctx); // a new episode, while no call runs; NULL: nothing to forget
    // What is seen in a step that asks for no chunk, from the caller's thread, while no call runs; NULL: nobody wants to know.
    soma_status (*see)(void *ctx, const soma_obs *obs, soma_error *err);
} soma_drive_source;

// rate: rows of a chunk in a second.
soma_status soma__drive_new(soma_drive **drive, const soma_drive_source *source, const soma_chunk_opts *opts, int horizon, int n_actions,
                            double rate, soma_error *err);

#endif
