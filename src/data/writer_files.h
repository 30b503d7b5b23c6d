// SPDX-License-Identifier: Apache-2.0
// What the two halves of the writer share: writer.c collects frames and shards, writer_files.c lays them out as LeRobot v3.0 does.
#ifndef SOMA_DATA_WRITER_FILES_H
#define SOMA_DATA_WRITER_FILES_H

#include "base/arena.h"
#include "base/file.h"
#include "data/encoder.h"
#include "data/writer.h"
#include "format/parquet.h"

typedef struct shard_episode {
    int64_t length, task; // frames; position in tasks
    uint64_t *histograms; // [n_cameras, 3, 256]
} shard_episode;

struct soma_dataset_writer {
    soma_arena arena; // the spec's strings
    const char *path;
    soma_dataset_spec spec;
    soma_parquet *pq;
    json_t *features; // as in info.json
    char **tasks;
    size_t n_tasks, tasks_room;
    int64_t n_shards, n_episodes, n_frames; // on the disk
    bool failed;

    // the open shard
    soma_encoder **videos; // [n_cameras]
    shard_episode *episodes;
    size_t n_open, episodes_room; // episodes
    size_t shard_frames;          // of ended episodes
    float *states, *actions;      // [shard_frames + episode_frames, n]
    size_t states_room, actions_room;
    float *extras; // [shard_frames + episode_frames, extra_size]
    size_t extras_room, extra_size;

    // the open episode, behind the shard's frames
    size_t episode_frames;
    uint8_t *images; // [episode_frames], each the pictures of all cameras; not with spec.live
    size_t images_room;
};

// Numbers of an extra per frame.
static inline size_t soma__extra_size(const soma_dataset_extra *x) {
    size_t n = 1;
    for (int i = 0; i < x->n_dims; i++) n *= (size_t)x->shape[i];
    return n;
}

size_t soma__writer_picture_size(const soma_dataset_writer *w, int camera); // bytes
// "data/chunk-000/file-012.parquet" below the dataset's folder; camera -1: no camera.
soma_status soma__writer_path(char out[SOMA_PATH_MAX], const soma_dataset_writer *w, const char *folder, int camera, const char *ending,
                              int64_t shard, soma_error *err);
// The features of info.json for a spec; NULL when memory is out.
json_t *soma__writer_features(const soma_dataset_spec *spec);
soma_status soma__writer_info(const soma_dataset_writer *w, soma_error *err);     // meta/info.json with the totals on the disk
soma_status soma__writer_tasks(const soma_dataset_writer *w, soma_error *err);    // meta/tasks.parquet
soma_status soma__writer_data(const soma_dataset_writer *w, soma_error *err);     // the open shard's numbers
soma_status soma__writer_episodes(const soma_dataset_writer *w, soma_error *err); // the open shard's episodes: with it they count
soma_status soma__writer_stats(const soma_dataset_writer *w, soma_error *err);    // meta/stats.json, from the dataset as it can be read

#endif
