// SPDX-License-Identifier: Apache-2.0
// Reading a dataset whole, whatever its format: what a reader's tests ask of good, damaged and unlucky datasets.
#ifndef SOMA_TESTS_WHOLE_DATASET_H
#define SOMA_TESTS_WHOLE_DATASET_H

#include "data/dataset.h"

#include <stdlib.h>

// Reads every frame of every feature of each episode that is present; counts the episodes that can be read. The last error, or SOMA_OK.
static soma_status read_whole(const soma_dataset *d, int *n_read, soma_error *err) {
    soma_dataset_reader *r;
    soma_status status = d->format->reader_open(&r, d, err), last = status;
    for (int64_t e = 0; e < d->n_episodes && r; e++) {
        if (!d->episodes[e].present) continue;
        status = SOMA_OK;
        for (int f = 0; f < d->n_features && status == SOMA_OK; f++) {
            void *out = malloc((size_t)d->features[f].size * (size_t)d->episodes[e].n_frames * sizeof(float) + 1);
            if (d->features[f].kind == SOMA_FEATURE_VECTOR) status = d->format->read_vectors(r, e, f, out, err);
            for (int64_t i = 0; d->features[f].kind == SOMA_FEATURE_IMAGE && i < d->episodes[e].n_frames && status == SOMA_OK; i++)
                status = d->format->read_image(r, e, i, f, out, err);
            free(out);
        }
        *n_read += status == SOMA_OK;
        if (status != SOMA_OK) last = status;
    }
    d->format->reader_close(r);
    return last;
}

// Opens and reads the dataset with the n-th allocation failing, for every n; each failure must come back. How many there were.
static inline int fail_each_allocation(const char *path) {
    for (int n = 0;; n++) {
        soma_dataset *d;
        soma_error err = {0};
        int read = 0;
        soma__alloc_fail_after(n);
        soma_status status = soma__dataset_open(&d, path, &err);
        if (status == SOMA_OK) {
            status = read_whole(d, &read, &err);
            soma__dataset_close(d);
        }
        soma__alloc_fail_after(-1);
        if (status == SOMA_OK) return n;
        assert_int_equal(status, SOMA_NO_MEMORY);
    }
}

#endif
