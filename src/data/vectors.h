// SPDX-License-Identifier: Apache-2.0
// The states and actions of some episodes, under a limit of memory. Where all fit, all are kept. Where they do not, as many of the first
// episodes as fit have a place, which is filled when one of them is first asked for, with its neighbours that the file gives along with it;
// the others are read each time. Nothing is ever thrown out for something else: samples come in random order, so that what was used last
// says nothing about what comes next.
#ifndef SOMA_DATA_VECTORS_H
#define SOMA_DATA_VECTORS_H

#include "data/dataset.h"

typedef struct soma_vectors_opts {
    int state, action;       // vector features of the dataset
    const int64_t *episodes; // [n_episodes] positions in the dataset, all present; outlives the vectors
    int64_t n_episodes;
    size_t memory; // bytes
} soma_vectors_opts;

typedef struct soma_vectors soma_vectors;

// What one thread reads with: the last episode that has no place.
typedef struct soma_vectors_hand {
    float *values;
    size_t room;
    int64_t episode; // whose values they are, where there are any
} soma_vectors_hand;

// Decides which episodes have a place; reads none. `dataset` outlives the vectors.
soma_status soma__vectors_new(soma_vectors **vectors, const soma_dataset *dataset, const soma_vectors_opts *opts, soma_error *err);
void soma__vectors_free(soma_vectors *vectors);         // NULL allowed
bool soma__vectors_fit(const soma_vectors *vectors);    // every episode has a place
size_t soma__vectors_held(const soma_vectors *vectors); // bytes in memory now: at most opts.memory, and a hand has one episode more
// Reads episode e (a position in opts.episodes) into its place, if it has one and is not there yet. Any number of threads at once.
soma_status soma__vectors_fill(soma_vectors *vectors, soma_dataset_reader *reader, int64_t e, soma_error *err);
// The states [n_frames, n_state] and actions [n_frames, n_actions] of episode e: borrowed from the vectors, or from `hand` until its next
// call.
soma_status soma__vectors_get(const float **state, const float **action, soma_vectors *vectors, soma_vectors_hand *hand,
                              soma_dataset_reader *reader, int64_t e, soma_error *err);
void soma__vectors_hand_close(soma_vectors_hand *hand); // {0} allowed

#endif
