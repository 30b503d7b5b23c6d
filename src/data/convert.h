// SPDX-License-Identifier: Apache-2.0
// Any datasets that can be read, or some of their episodes, written as one of LeRobot v3.0: state, actions, pictures, instructions and what
// else is recorded in numbers (rewards, ends of episodes), episode by episode. Numbers and texts come out as they went in; pictures pass
// through a video codec.
#ifndef SOMA_DATA_CONVERT_H
#define SOMA_DATA_CONVERT_H

#include "data/dataset.h"

enum { SOMA_CONVERT_VECTORS = 32, SOMA_CONVERT_CAMERAS = 16, SOMA_CONVERT_EXTRAS = 256 };

typedef struct soma_convert_source {
    const soma_dataset *dataset;
    const bool *chosen; // [n_episodes] by position; NULL: all
} soma_convert_source;

typedef struct soma_convert_opts {
    const char
        *states; // vector features that become observation.state, side by side, with commas between; "": observation.state, else state
    const char *actions; // the same of action; "": action, else actions
    const char *cameras; // picture features, all of one even size; "none": no pictures; "": all that the dataset has files of
    const char *extras;  // other vector features to keep, under their names; "none"; "": all that every dataset has in one shape
    double fps;          // 0: the first dataset's own
    bool skip_bad;       // an episode that cannot be read is left out and told, else it ends the conversion
    void (*progress)(void *user, int64_t done, int64_t total); // in episodes; NULL: nobody wants to know
    void (*skipped)(void *user, const char *why);              // NULL likewise
    void *user;
} soma_convert_opts;

typedef struct soma_converted {
    int64_t episodes, frames, skipped, absent; // skipped: unreadable; absent: without files
} soma_converted;

// All datasets must have the sizes, camera names and rate of the first (the rate: unless opts->fps says one). `out` is a folder that does
// not exist or is empty. After an error what was written can be read: its episodes are complete.
soma_status soma__dataset_convert(soma_converted *result, const soma_convert_source *sources, int n_sources, const char *out,
                                  const soma_convert_opts *opts, soma_error *err);

#endif
