// SPDX-License-Identifier: Apache-2.0
// What the two halves of the LeRobot reader share: meta.c fills it from meta/, read.c reads frames with it.
#ifndef SOMA_DATA_LEROBOT_H
#define SOMA_DATA_LEROBOT_H

#include "base/arena.h"
#include "data/dataset.h"
#include "format/parquet.h"

#include <string.h>

typedef struct lerobot_video {
    const char *path; // relative to the dataset; NULL when the metadata names none
    double start;     // time of the episode's first frame in the file, seconds
    bool present;
} lerobot_video;

// Episodes that lie one behind the other in a file and are read together: few enough that one of them can be had without the whole file.
enum { LEROBOT_BLOCK = 32768 }; // rows, unless one episode has more
typedef struct lerobot_block {
    int64_t first, rows; // in the file, as the list of episodes says; rows -1: the whole file
} lerobot_block;

typedef struct lerobot_episode {
    const char *data;            // parquet file, relative
    const lerobot_block *block;  // NULL: the whole file
    const lerobot_video *videos; // [n_features]; of features with dtype "video"
} lerobot_episode;

typedef struct lerobot_task {
    double index;
    const char *text;
} lerobot_task;

typedef struct lerobot {
    soma_dataset d;
    soma_arena arena;
    soma_parquet *pq;                   // owns the database that readers share
    int generation;                     // 2: a file per episode; 3: shards
    const char *data_path, *video_path; // templates of info.json
    int64_t chunks_size;
    soma_feature *features;
    soma_episode *episodes;
    lerobot_episode *places; // [n_episodes]
    const char **absent;
    size_t absent_room;
    int64_t declared_episodes; // in info.json
    const char *fault;         // what d.faults leads to
    lerobot_task *tasks;       // read when they are first asked for
    size_t n_tasks, tasks_room;
} lerobot;

extern const soma_dataset_format soma__dataset_format_lerobot;

// Adds what meta/modality.json names as parts behind the features; l->features has room for LEROBOT_PARTS.
enum { LEROBOT_PARTS = 1000 };
soma_status lerobot_read_modality(lerobot *l, soma_error *err);

// A column of an episode that is present, and the episode's first row in it. Borrowed until the reader's next call.
soma_status lerobot_column(soma_dataset_reader *r, const soma_column **column, int64_t *first, int64_t episode, int feature,
                           soma_error *err);
soma_status lerobot_read_instructions(soma_dataset *d, soma_dataset_reader *r, int64_t episode, soma_error *err);

soma_status lerobot_open(soma_dataset **dataset, const char *path, soma_error *err);
void lerobot_close(soma_dataset *dataset);
soma_status lerobot_declared_stats(soma_feature_stats *stats, const soma_dataset *dataset, int feature, soma_error *err);

static inline bool lerobot_is_video(const soma_feature *f) { return f->kind == SOMA_FEATURE_IMAGE && f->dtype[0] == 'v'; }

static inline bool lerobot_is_text(const soma_feature *f) { return !strcmp(f->dtype, "string"); }

// The feature that holds the values of a feature or part.
static inline int lerobot_whole(const soma_dataset *d, int feature) {
    return feature < d->n_features ? feature : d->features[feature].whole;
}

static inline bool lerobot_present(const soma_dataset *d, int64_t episode, int feature) {
    const lerobot *l = (const lerobot *)d;
    feature = lerobot_whole(d, feature);
    return lerobot_is_video(&l->features[feature]) ? l->places[episode].videos[feature].present : l->episodes[episode].present;
}

#endif
