// SPDX-License-Identifier: Apache-2.0
// Writes a LeRobot v3.0 dataset: sharded parquet and one mp4 per camera and shard, meta/info.json, stats.json, tasks.parquet, episodes.
// Crash-safe: an episode counts once the shard that holds it is on the disk, files before metadata; `resume` drops what an interrupted
// run left half-written and goes on behind it. While meta/incomplete is there, the recording has not been finished.
#ifndef SOMA_DATA_WRITER_H
#define SOMA_DATA_WRITER_H

#include "data/dataset.h"

typedef struct soma_dataset_writer soma_dataset_writer;

// A feature beside state and action: rewards, ends of episodes, what else was recorded with each frame.
typedef struct soma_dataset_extra {
    const char *name;  // as it is to be called: "next.reward"
    const char *dtype; // "float32", "int64" or "bool"; kept in frames as f32, so whole numbers beyond 2^24 are rounded
    int n_dims;
    int64_t shape[3];         // of one frame; [1] is a plain number
    const char *const *names; // [shape[last]] or NULL
} soma_dataset_extra;

typedef struct soma_dataset_spec {
    const char *robot_type;
    double fps;
    int n_state, n_actions, n_cameras;
    const char *const *state_names, *const *action_names; // observation.state, action
    const char *const *camera_names;                      // "scene" becomes observation.images.scene
    int n_extras;
    const soma_dataset_extra *extras;
    int image_width, image_height; // even; of every camera
    const int (*image_sizes)[2];   // [n_cameras] width and height instead, even; NULL: they have one size
    int shard_episodes;            // episodes per file, and so what a crash can cost; 0: 32, 1: each is on the disk when it ends
    int live; // pictures are encoded as they come, and at most so many frames wait; an episode is a file. 0: when it ends
} soma_dataset_spec;

// A feature that every dataset of the writer has anyway: no extra can have its name.
bool soma__dataset_writer_makes(const char *name);
// An existing non-empty folder is refused.
soma_status soma__dataset_writer_open(soma_dataset_writer **writer, const char *path, const soma_dataset_spec *spec, soma_error *err);
// Goes on with a dataset that this writer made with the same spec, finished or not.
soma_status soma__dataset_writer_resume(soma_dataset_writer **writer, const char *path, const soma_dataset_spec *spec, soma_error *err);
int64_t soma__dataset_writer_episodes(const soma_dataset_writer *writer); // episodes ended so far, those before `resume` included
int64_t soma__dataset_writer_frames(const soma_dataset_writer *writer);   // of the episodes on the disk
// One frame: state [n_state], action [n_actions], images[c] u8 [height, width, 3]; all borrowed for the call. Values that
// are not finite are refused and the frame is not added. The pictures of the open episode are kept in memory, or, with spec.live,
// encoded by a thread per camera: then a frame waits where the encoders are behind by that many.
soma_status soma__dataset_writer_frame(soma_dataset_writer *writer, const float *state, const float *action, const uint8_t *const *images,
                                       soma_error *err);
// The extras of the frame that was added last, one behind the other in the spec's order; a frame that is given none has zeros.
soma_status soma__dataset_writer_extras(soma_dataset_writer *writer, const float *values, soma_error *err);
bool soma__dataset_writer_has_room(const soma_dataset_writer *writer);                                    // the next frame would not wait
soma_status soma__dataset_writer_episode(soma_dataset_writer *writer, const char *task, soma_error *err); // ends the episode
void soma__dataset_writer_drop(soma_dataset_writer *writer); // forgets the frames since the last episode's end
// Writes the open shard and the statistics, makes everything durable; close alone leaves the open shard out. After a failed call the
// folder is as after a crash: close, then resume.
soma_status soma__dataset_writer_finish(soma_dataset_writer *writer, soma_error *err);
void soma__dataset_writer_close(soma_dataset_writer *writer); // NULL allowed

#endif
