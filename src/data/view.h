// SPDX-License-Identifier: Apache-2.0
// One episode as a page: its cameras as videos, its states and actions as curves, and a line that follows the video. The page loads
// nothing, so it can be mailed and kept.
#ifndef SOMA_DATA_VIEW_H
#define SOMA_DATA_VIEW_H

#include "data/dataset.h"

// Writes `path`, atomically. `episode` is a position; it must be there. A rate that the dataset does not tell is shown as 10 frames/s.
// Cameras without files in this copy are left out.
soma_status soma__dataset_view(const char *path, const soma_dataset *dataset, int64_t episode, soma_error *err);

#endif
