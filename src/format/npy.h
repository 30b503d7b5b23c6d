// SPDX-License-Identifier: Apache-2.0
// NumPy's .npy: one array of numbers. Read: versions 1 to 3, little-endian, C order, of soma's dtypes; written: version 1.
#ifndef SOMA_FORMAT_NPY_H
#define SOMA_FORMAT_NPY_H

#include "base/base.h"

typedef struct soma_npy {
    soma_dtype dtype;
    int n_dims;
    int64_t shape[SOMA_MAX_DIMS];
    int64_t n_values;
    const void *data; // inside the bytes that were given; may be unaligned
} soma_npy;

// The array that `bytes` hold; they are borrowed by it. Refused: big-endian and Fortran order, other dtypes, more dimensions, a file whose
// length is not that of the array.
soma_status soma__npy_parse(soma_npy *array, const void *bytes, size_t size, const char *where, soma_error *err);
// What stands before an array's values, for one that is written piece by piece; its length.
enum { SOMA_NPY_HEADER = 256 };
size_t soma__npy_header(char out[SOMA_NPY_HEADER], soma_dtype dtype, const int64_t *shape, int n_dims);
// Atomic. shape [n_dims]; data row-major.
soma_status soma__npy_write(const char *path, soma_dtype dtype, const int64_t *shape, int n_dims, const void *data, soma_error *err);

#endif
