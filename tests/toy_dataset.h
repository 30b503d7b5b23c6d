// SPDX-License-Identifier: Apache-2.0
// A dataset that a test makes up: a state, an action and the pictures of one camera "scene", frame by frame from a function.
#ifndef SOMA_TESTS_TOY_DATASET_H
#define SOMA_TESTS_TOY_DATASET_H

#include "data/writer.h"

#include <string.h>

enum { TOY_MAX = 8, TOY_SIDE = 32 };

typedef struct toy_dataset {
    int n_state, n_actions, side; // at most TOY_MAX, TOY_MAX, TOY_SIDE pixels
    double fps;
    const char *const *names; // of the state's and of the action's dimensions
    int episodes, shard_episodes;
    int (*n_frames)(int episode);
    const char *(*task)(int episode);
    // Fills state [n_state], action [n_actions], picture [side, side, 3], which is black before.
    void (*frame)(int episode, int frame, float *state, float *action, uint8_t *picture);
} toy_dataset;

static soma_status add_toy_frames(const toy_dataset *toy, soma_dataset_writer *w, soma_error *err) {
    for (int e = 0; e < toy->episodes; e++) {
        for (int f = 0; f < toy->n_frames(e); f++) {
            float state[TOY_MAX], action[TOY_MAX];
            uint8_t picture[TOY_SIDE * TOY_SIDE * 3];
            const uint8_t *pictures[] = {picture};
            memset(picture, 0, sizeof picture);
            toy->frame(e, f, state, action, picture);
            SOMA_TRY(soma__dataset_writer_frame(w, state, action, pictures, err));
        }
        SOMA_TRY(soma__dataset_writer_episode(w, toy->task(e), err));
    }
    return soma__dataset_writer_finish(w, err);
}

static soma_status write_toy_dataset(const toy_dataset *toy, const char *path, soma_error *err) {
    static const char *const cameras[] = {"scene"};
    const soma_dataset_spec spec = {.robot_type = "toy",
                                    .fps = toy->fps,
                                    .n_state = toy->n_state,
                                    .n_actions = toy->n_actions,
                                    .n_cameras = 1,
                                    .state_names = toy->names,
                                    .action_names = toy->names,
                                    .camera_names = cameras,
                                    .image_width = toy->side,
                                    .image_height = toy->side,
                                    .shard_episodes = toy->shard_episodes};
    soma_dataset_writer *w;
    SOMA_TRY(soma__dataset_writer_open(&w, path, &spec, err));
    soma_status status = add_toy_frames(toy, w, err);
    soma__dataset_writer_close(w);
    return status;
}

#endif
