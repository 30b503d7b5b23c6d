// SPDX-License-Identifier: Apache-2.0
// Frames of an HDF5 dataset. A reader keeps the files that it read last open, and their arrays with the chunks that are in memory.
#include "data/hdf5/hdf5_data.h"
#include "format/image.h"

#include <string.h>

enum { N_FILES = 4 };

typedef struct kept_file {
    const char *path; // the dataset's own string
    soma_hdf5 *file;
    uint64_t used;
} kept_file;

struct soma_dataset_reader {
    const hdf5_data *h;
    kept_file files[N_FILES];
    uint64_t clock;
    uint8_t *bytes; // one padded picture
    size_t room;
};

static soma_status reader_open(soma_dataset_reader **out, const soma_dataset *d, soma_error *err) {
    soma_dataset_reader *r = *out = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, "a dataset reader");
    r->h = (const hdf5_data *)d;
    return SOMA_OK;
}

static void reader_close(soma_dataset_reader *r) {
    if (!r) return;
    for (int i = 0; i < N_FILES; i++) soma__hdf5_close(r->files[i].file);
    soma__free(r->bytes);
    soma__free(r);
}

static bool present(const soma_dataset *d, int64_t episode, int feature) {
    (void)feature;
    return d->episodes[episode].present;
}

static soma_status get_file(soma_dataset_reader *r, soma_hdf5 **out, int64_t episode, soma_error *err) {
    const char *path = r->h->places[episode].file;
    kept_file *k = &r->files[0];
    bool found = false;
    if (!r->h->episodes[episode].present)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: episode %s cannot be read", path, r->h->places[episode].group);
    for (int i = 0; i < N_FILES && !found; i++) {
        kept_file *c = &r->files[i];
        found = c->file && !strcmp(c->path, path);
        if (found || c->used < k->used) k = c;
    }
    if (!found) {
        soma__hdf5_close(k->file);
        *k = (kept_file){.path = path};
        SOMA_TRY(soma__hdf5_open(&k->file, path, err));
    }
    k->used = ++r->clock;
    *out = k->file;
    return SOMA_OK;
}

// The file and array of a feature of an episode, whose rows are as long as the first episode's.
static soma_status find(soma_dataset_reader *r, soma_hdf5 **file, char name[SOMA_PATH_MAX], soma_hdf5_array *a, int64_t episode,
                        int feature, soma_error *err) {
    const hdf5_data *h = r->h;
    SOMA_TRY(get_file(r, file, episode, err));
    SOMA_TRY(hdf5_array_name(name, h, episode, feature, err));
    SOMA_TRY(soma__hdf5_describe(a, *file, name, err));
    if (a->n_dims >= 1 && a->shape[0] == h->episodes[episode].n_frames && (h->coded[feature] || a->row_size == h->features[feature].size))
        return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: %s has %lld rows of %lld values, wanted are %lld of %lld", h->places[episode].file, name,
                      (long long)(a->n_dims ? a->shape[0] : 1), (long long)a->row_size, (long long)h->episodes[episode].n_frames,
                      (long long)h->features[feature].size);
}

static soma_status read_vectors(soma_dataset_reader *r, int64_t episode, int feature, float *out, soma_error *err) {
    soma_hdf5 *file;
    soma_hdf5_array a;
    char name[SOMA_PATH_MAX];
    SOMA_CHECK(r->h->features[feature].kind == SOMA_FEATURE_VECTOR, "read_vectors reads vector features");
    SOMA_TRY(find(r, &file, name, &a, episode, feature, err));
    SOMA_TRY(soma__hdf5_floats(out, file, name, 0, r->h->episodes[episode].n_frames, err));
    return soma__dataset_check_finite(&r->h->d, r->h->places[episode].group, episode, feature, out, err);
}

static soma_status read_coded(soma_dataset_reader *r, soma_hdf5 *file, const char *name, const soma_hdf5_array *a, int64_t frame,
                              int feature, uint8_t *out, soma_error *err) {
    const soma_feature *f = &r->h->features[feature];
    char *text = NULL;
    size_t size = (size_t)a->row_size;
    const void *bytes;
    if (a->kind == SOMA_HDF5_NUMBER) {
        if (size > 64 << 20 || !soma__grow((void **)&r->bytes, &r->room, size, 1)) return soma__no_memory(err, name);
        SOMA_TRY(soma__hdf5_u8(r->bytes, file, name, frame, 1, err));
        bytes = r->bytes;
    } else {
        SOMA_TRY(soma__hdf5_bytes(&text, &size, file, name, frame, err));
        bytes = text;
    }
    soma_status status = soma__image_decode(out, (int)f->shape[1], (int)f->shape[0], bytes, size, name, err);
    soma__free(text);
    return status;
}

static soma_status read_image(soma_dataset_reader *r, int64_t episode, int64_t frame, int feature, uint8_t *out, soma_error *err) {
    const hdf5_data *h = r->h;
    soma_hdf5 *file;
    soma_hdf5_array a;
    char name[SOMA_PATH_MAX];
    SOMA_CHECK(h->features[feature].kind == SOMA_FEATURE_IMAGE, "read_image reads image features");
    SOMA_CHECK(frame >= 0 && frame < h->episodes[episode].n_frames, "a frame lies within its episode");
    SOMA_TRY(find(r, &file, name, &a, episode, feature, err));
    soma_status status =
        h->coded[feature] ? read_coded(r, file, name, &a, frame, feature, out, err) : soma__hdf5_u8(out, file, name, frame, 1, err);
    return status == SOMA_OK ? SOMA_OK : soma__fail_in(err, "%s: frame %lld", h->places[episode].file, (long long)frame);
}

static soma_status source(char path[SOMA_PATH_MAX], double *start, const soma_dataset *d, int64_t episode, int feature, soma_error *err) {
    const char *file = ((const hdf5_data *)d)->places[episode].file;
    (void)feature;
    *start = 0; // the episode's number says which group
    if (snprintf(path, SOMA_PATH_MAX, "%s", file) < SOMA_PATH_MAX) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%.60s...: the path is too long", file);
}

const soma_dataset_format soma__dataset_format_hdf5 = {
    .name = "hdf5",
    .probe = hdf5_probe,
    .open = hdf5_data_open,
    .close = hdf5_data_close,
    .reader_open = reader_open,
    .reader_close = reader_close,
    .present = present,
    .read_vectors = read_vectors,
    .read_image = read_image,
    .source = source,
};
