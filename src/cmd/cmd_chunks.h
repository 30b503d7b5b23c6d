// SPDX-License-Identifier: Apache-2.0
// Chunks of actions for `soma fast` and its benchmark: from a dataset's episodes, a safetensors file or a .npy file, normalised.
#ifndef SOMA_CMD_CMD_CHUNKS_H
#define SOMA_CMD_CMD_CHUNKS_H

#include "base/file.h"
#include "base/ranks.h"
#include "format/safetensors.h"
#include "transform/normalise.h"

typedef struct soma_chunks {
    char name[80];     // the last part of the path
    double *values;    // [n, T, A] normalised; NULL after _open
    int64_t n, T, A;   // n may be 0
    int64_t total;     // chunks of all ranks; n where there is one
    int64_t before;    // chunks of the ranks before
    double rate;       // Hz; 0 where the source does not say
    int64_t still;     // dimensions that never move between their quantiles
    double *q01, *q99; // [A] in robot units; NULL: the values are as they lay in the file
    soma_norm norm;    // the same, for soma__norm_undo; key NULL: none
    bool clipped;      // values beyond -1 .. 1 are set to the limit
    int64_t frames;    // that the source has
    int64_t skipped;   // damaged parts that were left out

    // The source: chunk i is T rows from row starts[i] on.
    const void *rows; // [.., A] in `dtype`, maybe not aligned
    soma_dtype dtype; // F32 or F64
    int64_t *starts;  // [n]
    float *actions;   // what holds the rows: a dataset's, read; or a file
    soma_file_map map;
    soma_safetensors *st;
} soma_chunks;

typedef struct soma_chunk_opts {
    int64_t horizon;     // steps of a chunk; 0: one second
    int64_t stride;      // frames between the starts of two chunks; at least 1
    int64_t max_chunks;  // 0: all; else about so many, evenly spread
    const char *feature; // of a dataset; "": action, else actions
    bool normalise;      // datasets alone: (x - q01) / (q99 - q01 + 1e-6) * 2 - 1, over all frames
    bool clip;
    soma_ranks *ranks; // NULL: all chunks; else a run of whole episodes or rows, with the quantiles of all. Every rank calls
    bool skip_bad;     // of a dataset: leave out episodes that cannot be read
} soma_chunk_opts;

// `path`: a dataset's folder; or a .safetensors file whose tensor "chunks" is [N, T, A], or a .npy file of that shape, in f32 or f64 and
// already normalised. Of a dataset only whole chunks count: none reaches past an episode's end.
soma_status soma__chunks_read(soma_chunks *chunks, const char *path, const soma_chunk_opts *opts, soma_error *err);
// The same without `values`, for more chunks than fit in memory as floats: chunks [from, from + n) are cut when they are asked for, into
// out [n, T, A].
soma_status soma__chunks_open(soma_chunks *chunks, const char *path, const soma_chunk_opts *opts, soma_error *err);
void soma__chunks_cut(const soma_chunks *chunks, int64_t from, int64_t n, double *out);
void soma__chunks_free(soma_chunks *chunks);
// Normalised values [n_rows, A] to robot units, in place; nothing happens where there are no statistics.
void soma__chunks_undo(const soma_chunks *chunks, double *values, int64_t n_rows);

#endif
