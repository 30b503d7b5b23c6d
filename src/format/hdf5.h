// SPDX-License-Identifier: Apache-2.0
// HDF5 files, read only, through libhdf5, none of whose types leave hdf5.c. Calls from several threads are taken one after the other (the
// library is not safe otherwise). What a file would fetch from elsewhere is refused: links to and data in other files, filters in plugins.
#ifndef SOMA_FORMAT_HDF5_H
#define SOMA_FORMAT_HDF5_H

#include "base/base.h"

typedef struct soma_hdf5 soma_hdf5; // an open file; one thread's

typedef enum soma_hdf5_kind {
    SOMA_HDF5_NUMBER, // integers, reals and booleans
    SOMA_HDF5_BYTES,  // texts, and rows of bytes of any length
    SOMA_HDF5_OTHER,  // present, not read
} soma_hdf5_kind;

typedef struct soma_hdf5_array { // a "dataset" in HDF5's words
    soma_hdf5_kind kind;
    const char *dtype; // "float32", "bool", "string"; a literal
    int n_dims;        // 0: one value
    int64_t shape[SOMA_MAX_DIMS];
    int64_t row_size; // values per row: the product behind the first dimension
} soma_hdf5_array;

typedef struct soma_hdf5_entry {
    char *name;
    bool group; // else an array
} soma_hdf5_entry;

soma_status soma__hdf5_open(soma_hdf5 **file, const char *path, soma_error *err);
void soma__hdf5_close(soma_hdf5 *file); // NULL allowed

// What a group holds, in alphabetical order; links that lead elsewhere are left out. Release with soma__hdf5_entries_free. "/" is the root.
soma_status soma__hdf5_list(soma_hdf5_entry **entries, size_t *n, soma_hdf5 *file, const char *group, soma_error *err);
void soma__hdf5_entries_free(soma_hdf5_entry *entries, size_t n);
soma_status soma__hdf5_describe(soma_hdf5_array *array, soma_hdf5 *file, const char *name, soma_error *err); // NOT_FOUND when absent

// Rows first .. first + n - 1 of an array of numbers (one value counts as one row). `out` has room for n * row_size values.
soma_status soma__hdf5_floats(float *out, soma_hdf5 *file, const char *name, int64_t first, int64_t n, soma_error *err);
soma_status soma__hdf5_u8(uint8_t *out, soma_hdf5 *file, const char *name, int64_t first, int64_t n, soma_error *err);
// One row of an array of texts or bytes, with a zero behind it (not counted); release with soma__free.
soma_status soma__hdf5_bytes(char **out, size_t *size, soma_hdf5 *file, const char *name, int64_t row, soma_error *err);

// An attribute of a group or array: *out is NULL when it is absent or no text. Release with soma__free.
soma_status soma__hdf5_text_attribute(char **out, soma_hdf5 *file, const char *object, const char *name, soma_error *err);
// One number (or boolean); false when it is absent or no number.
bool soma__hdf5_number_attribute(double *out, soma_hdf5 *file, const char *object, const char *name);

#endif
