// SPDX-License-Identifier: Apache-2.0
// What a verb does about damage before it uses a dataset: without --skip-bad the first damage is an error, with it what is damaged is
// found, told, and left out as if it were absent, so that all that follows knows sound episodes only.
#ifndef SOMA_DATA_SCREEN_H
#define SOMA_DATA_SCREEN_H

#include "data/sweep.h"

typedef struct soma_screen {
    bool skip_bad;
    const int *features; // [n_features] that will be used; of pictures every frame is decoded
    int n_features;
    const int64_t *episodes; // [n_episodes] positions that will be used; NULL: all that are present
    int64_t n_episodes;
    int threads; // 0: as many as processors
    // Each thing that is left out, in a sentence that names file and place; NULL: logged as a warning. What opening found has been logged.
    void (*told)(void *user, const char *why);
    bool (*progress)(void *user, int64_t done, int64_t total); // episodes; false stops
    void *user;
} soma_screen;

// Before the dataset is shared. *skipped (NULL allowed) counts the episodes that were left out, and what opening found.
soma_status soma__dataset_screen(int64_t *skipped, soma_dataset *dataset, const soma_screen *screen, soma_error *err);

#endif
