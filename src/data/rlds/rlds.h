// SPDX-License-Identifier: Apache-2.0
// What the parts of the RLDS reader share: features.c reads features.json, open.c finds shards and records, read.c reads frames.
#ifndef SOMA_DATA_RLDS_H
#define SOMA_DATA_RLDS_H

#include "base/arena.h"
#include "base/file.h"
#include "data/dataset.h"
#include "format/example.h"
#include "format/tfrecord.h"

#include <stdatomic.h>

typedef struct rlds_shard {
    const char *name; // relative to the dataset's folder
    soma_file_map map;
} rlds_shard;

typedef struct rlds_place { // of an episode
    const rlds_shard *shard;
    soma_tfrecord record;
} rlds_place;

typedef struct rlds {
    soma_dataset d;
    soma_arena arena;
    soma_feature *features;
    const char **keys; // [n_features] as in the records: "steps/observation/state"
    const char *task;  // key of the instruction; NULL: there is none
    soma_episode *episodes;
    rlds_place *places;       // [n_episodes]
    _Atomic uint8_t *checked; // [n_episodes] 1: the record agrees with its checksum; shared by all readers
    rlds_shard *shards;
    size_t n_shards;
    const char **absent, **faults;
    size_t absent_room, faults_room;
} rlds;

extern const soma_dataset_format soma__dataset_format_rlds;

// Fills features, keys and task from features.json.
soma_status rlds_read_features(rlds *l, soma_error *err);
soma_status rlds_open(soma_dataset **dataset, const char *path, soma_error *err);
void rlds_close(soma_dataset *dataset);
bool rlds_probe(const char *path);

// "bridge-train.tfrecord-00000-of-00001: episode 7": names a record in sentences.
void rlds_name_record(char out[SOMA_PATH_MAX + 100], const rlds *l, int64_t episode);
// Notes where the lists of an episode's record lie; checksums are not looked at.
soma_status rlds_parse(soma_example *example, const rlds *l, int64_t episode, soma_error *err);

#endif
