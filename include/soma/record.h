// SPDX-License-Identifier: Apache-2.0
// soma: record what a robot or a simulator does as a LeRobot v3.0 dataset, while it does it. Pictures are encoded as they come, by one
// thread per camera, so that a control loop hands them over and goes on. An episode is on the disk when its end was told: a program that
// is killed leaves every episode that had ended, and meta/incomplete says that the recording was cut off.
#ifndef SOMA_RECORD_H
#define SOMA_RECORD_H

#include <soma/base.h>

#ifdef __cplusplus
extern "C" {
#endif

// Borrowed for the call. What is 0 or NULL takes the default that is named.
typedef struct soma_recorder_spec {
    const char *robot_type;                               // NULL: ""
    double fps;                                           // frames per second; frame i of an episode is at i / fps
    int n_state, n_actions;                               // at least 1
    const char *const *state_names, *const *action_names; // NULL: state_0, state_1, ...
    int n_cameras;
    const char *const *camera_names; // "front" becomes observation.images.front
    const int (*image_sizes)[2];     // [n_cameras] width and height, even
    int queue;                       // frames that may wait for the encoders; 0: those of two seconds
    bool wait;                       // a frame that finds the queue full waits for room (a simulator), instead of being left out (a robot)
    bool resume;                     // go on with the recording in this folder, which has the same spec; without one, begin it
} soma_recorder_spec;

typedef struct soma_recorder_counts {
    int64_t episodes, frames; // on the disk, with those of an earlier run
    int64_t episode_frames;   // of the open episode
    int64_t left_out;         // frames that found the queue full, since opening
} soma_recorder_counts;

typedef struct soma_recorder soma_recorder; // one thread's

// `path`: a folder that is absent or empty, or one to go on in.
soma_status soma_recorder_open(soma_recorder **recorder, const char *path, const soma_recorder_spec *spec, soma_error *err);
// One frame of the open episode; the first one begins it. state [n_state], action [n_actions] in robot units, images[c] u8 [height,
// width, 3] RGB, rows from the top; all are copied. Values that are not finite are refused and the frame is not taken. A frame that is
// left out is no failure: it is counted, and later frames move up, since a dataset's frames are 1 / fps apart.
soma_status soma_recorder_frame(soma_recorder *recorder, const float *state, const float *action, const uint8_t *const *images,
                                soma_error *err);
// Ends the episode and returns when it is on the disk; this may wait for the frames in the queue. task NULL: "". An episode without frames
// is refused.
soma_status soma_recorder_episode(soma_recorder *recorder, const char *task, soma_error *err);
void soma_recorder_drop(soma_recorder *recorder); // forgets the open episode
soma_recorder_counts soma_recorder_count(const soma_recorder *recorder);
// Drops the open episode, writes the statistics and removes meta/incomplete. Without it the episodes that have ended are there all the
// same, and a later run may go on.
soma_status soma_recorder_finish(soma_recorder *recorder, soma_error *err);
void soma_recorder_close(soma_recorder *recorder); // NULL allowed

#ifdef __cplusplus
}
#endif
#endif
