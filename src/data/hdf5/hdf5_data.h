// SPDX-License-Identifier: Apache-2.0
// What the two halves of the HDF5 reader share: open.c finds files, episodes and features, read.c reads frames.
#ifndef SOMA_DATA_HDF5_DATA_H
#define SOMA_DATA_HDF5_DATA_H

#include "base/arena.h"
#include "base/file.h"
#include "data/dataset.h"
#include "format/hdf5.h"

typedef struct hdf5_place { // of an episode
    const char *file;       // path
    const char *group;      // "/data/demo_3"; "" where the file is the episode
} hdf5_place;

typedef struct hdf5_data {
    soma_dataset d;
    soma_arena arena;
    soma_feature *features;
    const char **keys; // [n_features] below the episode's group: "observations/images/cam_high"
    bool *coded;       // [n_features] pictures as PNG or JPEG, one row of bytes each
    soma_episode *episodes;
    hdf5_place *places; // [n_episodes]
    size_t episodes_room, places_room, faults_room;
    const char **faults;
} hdf5_data;

extern const soma_dataset_format soma__dataset_format_hdf5;

bool hdf5_probe(const char *path);
soma_status hdf5_data_open(soma_dataset **dataset, const char *path, soma_error *err);
void hdf5_data_close(soma_dataset *dataset);
// "/data/demo_3/obs/state": the array of a feature of an episode.
soma_status hdf5_array_name(char out[SOMA_PATH_MAX], const hdf5_data *h, int64_t episode, int feature, soma_error *err);

#endif
