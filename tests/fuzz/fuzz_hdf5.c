// SPDX-License-Identifier: Apache-2.0
// Any bytes as an HDF5 dataset: it opens and its episodes are read as far as they can be, or it is refused with a sentence that names the
// file. Where soma is built without libhdf5, no format knows it.
#include "data/dataset.h"
#include "fuzz_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 1 << 20 }; // values of an episode that are read

static void read_all(const soma_dataset *d) {
    soma_dataset_reader *r;
    soma_error err = {0};
    if (d->format->reader_open(&r, d, &err)) abort();
    for (int64_t e = 0; e < d->n_episodes && e < 4; e++)
        for (int f = 0; f < d->n_features && d->episodes[e].present; f++) {
            const soma_feature *feature = &d->features[f];
            int64_t rows = feature->kind == SOMA_FEATURE_VECTOR ? d->episodes[e].n_frames : 1;
            if (!d->episodes[e].n_frames || rows > MOST || feature->size > MOST || rows * feature->size > MOST) continue;
            void *out = malloc((size_t)(rows * feature->size) * sizeof(float) + 1);
            soma_status status = SOMA_OK;
            if (feature->kind == SOMA_FEATURE_VECTOR) status = d->format->read_vectors(r, e, f, out, &err);
            if (feature->kind == SOMA_FEATURE_IMAGE) status = d->format->read_image(r, e, 0, f, out, &err);
            if (status != SOMA_OK && !strstr(err.text, "input.hdf5")) abort();
            free(out);
        }
    d->format->reader_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file("input.hdf5", data, size);
    soma_dataset *d;
    soma_error err = {0};
    if (soma__dataset_open(&d, path, &err)) {
        if (d || !strstr(err.text, path)) abort();
        return 0;
    }
    read_all(d);
    soma__dataset_close(d);
    return 0;
}
