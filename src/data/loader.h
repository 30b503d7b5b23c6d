// SPDX-License-Identifier: Apache-2.0
// Feeds a trainer: worker threads read samples into a bounded queue of batches. Which samples make batch n follows from (seed, n) alone, so
// that a run resumed at batch n sees what one that never stopped saw, with any number of workers. Of several trainers that share the work
// (ranks), each sees its part of every batch: all ranks' batches n are together what one rank sees with a batch that is as large.
//
// A sample is one frame: its state, its pictures, and the chunk of actions that begins there (the last action is repeated past the
// episode's end, and marked in `pad`). Every epoch visits every frame of the listed episodes once, in an order of its own.
#ifndef SOMA_DATA_LOADER_H
#define SOMA_DATA_LOADER_H

#include "data/pictures.h"
#include "data/vectors.h"

enum { SOMA_LOADER_CAMERAS = SOMA_PICTURES_CAMERAS };

typedef struct soma_loader_opts {
    int state, action; // features of the dataset
    int n_cameras;
    int cameras[SOMA_LOADER_CAMERAS]; // picture features
    const int64_t *episodes;          // [n_episodes], copied
    int64_t n_episodes;
    int64_t horizon, batch;
    int64_t history; // frames before a sample's that come with it (default 0); its actions begin with the first of them
    int workers;     // threads; at least 1
    int queue;       // batches ready ahead of the trainer
    uint64_t seed;
    int rank, ranks;     // this one of so many that share the samples (default: 0 of 1)
    int side;            // pictures of side x side pixels, as openpi resizes them; 0: as they are
    size_t cache_size;   // bytes of decoded pictures kept in memory (default: half of the machine's); what fits is decoded once
    size_t vectors_size; // bytes of states and actions kept in memory (default: 1 GiB); episodes beyond it are read when they are needed
    const char *folder;  // of decoded pictures kept from run to run (data/pictures.h); NULL: none
    size_t folder_size;  // bytes that its files may take
    // Called while open reads and decodes, from one thread at a time; NULL: nobody wants to know. In frames.
    void (*progress)(void *user, int64_t done, int64_t total);
    void *user;
} soma_loader_opts;
soma_loader_opts soma__loader_defaults(void); // 1 worker, queue of 4

typedef struct soma_loader_batch {
    int64_t index;                                     // which batch this is
    const float *state;                                // [batch, 1 + history, n_state], robot units; oldest first
    const float *actions;                              // [batch, horizon, n_actions]
    const uint8_t *pad;                                // [batch, horizon]; 1: outside of the episode, whose first or last action it repeats
    const uint8_t *images[SOMA_LOADER_CAMERAS];        // [batch, 1 + history, height, width, 3]; side x side where opts say so
    const uint8_t *image_present[SOMA_LOADER_CAMERAS]; // [batch]; 0: the episode's video is not on the disk, its picture is black
    const char *const *tasks;                          // [batch]
    const int64_t *episode, *frame;                    // [batch]; position in the dataset's episodes, frame in the episode
} soma_loader_batch;

typedef struct soma_loader soma_loader; // one consumer
// Reads all states and actions where they fit, and the pictures that do. Every episode listed must be present. `dataset` outlives the
// loader.
soma_status soma__loader_open(soma_loader **loader, const soma_dataset *dataset, const soma_loader_opts *opts, soma_error *err);
void soma__loader_close(soma_loader *loader);                          // NULL allowed
int64_t soma__loader_samples(const soma_loader *loader);               // frames per epoch, of all ranks together
const soma_pictures *soma__loader_pictures(const soma_loader *loader); // their sizes, and where they are kept
const soma_vectors *soma__loader_vectors(const soma_loader *loader);
double soma__loader_waited(const soma_loader *loader);                              // seconds that `next` has waited for a batch
soma_status soma__loader_seek(soma_loader *loader, int64_t batch, soma_error *err); // the next batch will be this one; it begins at 0
// The next batch, borrowed until the next call. What went wrong in a worker is returned here and names the file.
soma_status soma__loader_next(soma_loader *loader, const soma_loader_batch **batch, soma_error *err);
// Given samples instead, for evaluation: n (1 to opts.batch) frames of listed episodes; the batch has n samples, index -1 and memory of
// its own, borrowed until the next call of this function.
soma_status soma__loader_read(soma_loader *loader, int64_t n, const int64_t *episodes, const int64_t *frames,
                              const soma_loader_batch **batch, soma_error *err);

#endif
