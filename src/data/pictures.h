// SPDX-License-Identifier: Apache-2.0
// The decoded pictures of some episodes, so that a picture is decoded once and not once an epoch: first in the files of a folder, as far
// as those may grow, then in memory, as far as they fit; what is left is decoded each time it is asked for.
//
// A file of the folder holds one camera of one episode as u8 [frames, height, width, 3] (.npy, mapped for reading). Its name follows from
// the file that the pictures come from, that file's size and time, the place in it, and the size of the pictures; so a dataset that
// changed is decoded anew. Files appear whole, and any number of processes may share the folder: where two make the same file, the last one
// stays. When the folder is full, files that nobody opened for an hour make room, the oldest first.
#ifndef SOMA_DATA_PICTURES_H
#define SOMA_DATA_PICTURES_H

#include "data/dataset.h"
#include "transform/resize.h"

enum { SOMA_PICTURES_CAMERAS = 8 };

typedef struct soma_pictures_opts {
    int n_cameras;
    int cameras[SOMA_PICTURES_CAMERAS]; // picture features of the dataset
    const int64_t *episodes;            // [n_episodes] positions in the dataset; outlives the pictures
    int64_t n_episodes;
    int side;           // pictures of side x side pixels, as openpi resizes them (SOMA_RESIZE_PIL); 0: as they are
    size_t memory;      // bytes
    const char *folder; // NULL or "": none; made when it is absent
    size_t disk;        // bytes that the folder's files may take
} soma_pictures_opts;

typedef struct soma_pictures soma_pictures; // const after all episodes are filled

// What one thread decodes with.
typedef struct soma_pictures_hand {
    soma_dataset_reader *reader;
    soma_resizer *resizers[SOMA_PICTURES_CAMERAS];
    uint8_t *whole; // a picture before it is resized
} soma_pictures_hand;

// Decides where each episode's pictures go; reads none. `dataset` outlives the pictures.
soma_status soma__pictures_new(soma_pictures **pictures, const soma_dataset *dataset, const soma_pictures_opts *opts, soma_error *err);
void soma__pictures_free(soma_pictures *pictures); // NULL allowed
int soma__pictures_width(const soma_pictures *p, int camera);
int soma__pictures_height(const soma_pictures *p, int camera);
size_t soma__pictures_size(const soma_pictures *p, int camera); // bytes of one picture
// Frames, over all cameras, that are in the folder, in memory, and that will be decoded on demand.
void soma__pictures_places(const soma_pictures *p, int64_t *disk, int64_t *memory, int64_t *on_demand);

soma_status soma__pictures_hand_open(soma_pictures_hand *hand, const soma_pictures *p, soma_error *err);
void soma__pictures_hand_close(soma_pictures_hand *hand, const soma_pictures *p); // {0} allowed

// Decodes episode e (a position in opts.episodes) into its place, if it has one and is not there yet. Different episodes may be filled by
// different threads at once; nothing is read before all are filled.
soma_status soma__pictures_fill(soma_pictures *p, soma_pictures_hand *hand, int64_t e, soma_error *err);
// One picture into out [height, width, 3]. It must be present.
soma_status soma__pictures_get(const soma_pictures *p, soma_pictures_hand *hand, int64_t e, int64_t frame, int camera, uint8_t *out,
                               soma_error *err);

#endif
