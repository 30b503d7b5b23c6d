// SPDX-License-Identifier: Apache-2.0
// Any dataset that can be read, written as LeRobot v3.0: state, actions, pictures and instructions, episode by episode. Numbers and texts
// come out as they went in; pictures pass through a video codec.
#ifndef SOMA_DATA_CONVERT_H
#define SOMA_DATA_CONVERT_H

#include "data/dataset.h"

enum { SOMA_CONVERT_VECTORS = 32, SOMA_CONVERT_CAMERAS = 16 };

typedef struct soma_convert_opts {
    int n_states, states[SOMA_CONVERT_VECTORS];   // vector features that become observation.state, one behind the other
    int n_actions, actions[SOMA_CONVERT_VECTORS]; // and action
    int n_cameras, cameras[SOMA_CONVERT_CAMERAS]; // picture features, all of one even size
    double fps;                                   // 0: the dataset's own
    bool skip_bad;                                // an episode that cannot be read is left out and told, else it ends the conversion
    void (*progress)(void *user, int64_t done, int64_t total);     // in episodes; NULL: nobody wants to know
    void (*skipped)(void *user, int64_t episode, const char *why); // position in the dataset; NULL likewise
    void *user;
} soma_convert_opts;

typedef struct soma_converted {
    int64_t episodes, frames, skipped; // skipped: unreadable; absent ones are not counted
} soma_converted;

// `out` is a folder that does not exist or is empty. After an error what was written can be read (its episodes are complete).
soma_status soma__dataset_convert(soma_converted *result, const soma_dataset *dataset, const char *out, const soma_convert_opts *opts,
                                  soma_error *err);

#endif
