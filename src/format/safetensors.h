// SPDX-License-Identifier: Apache-2.0
// safetensors: named arrays in a memory-mapped file, or in several (model.safetensors.index.json) behind one interface; atomic writing.
//
// The header of a foreign file is believed in nothing: lengths, offsets, shapes and dtypes are checked before a pointer is given out, and
// each refusal names the file and the tensor.
#ifndef SOMA_FORMAT_SAFETENSORS_H
#define SOMA_FORMAT_SAFETENSORS_H

#include "base/base.h"
#include "base/json.h"

// One array: what reading gives (all borrowed from the open file) and what writing takes (borrowed for the call).
typedef struct soma_safetensor {
    const char *name;
    soma_dtype dtype;
    int n_dims; // 0: one value
    int64_t shape[SOMA_MAX_DIMS];
    int64_t n_values; // product of shape; not looked at when writing
    const void *data; // little-endian, row-major. Read from a foreign file it may be unaligned for its dtype: see _aligned below
} soma_safetensor;

typedef struct soma_safetensors soma_safetensors; // const after opening: shared by threads

// `path`: a .safetensors file, a .safetensors.index.json, or a folder that holds model.safetensors or model.safetensors.index.json.
soma_status soma__safetensors_open(soma_safetensors **st, const char *path, soma_error *err);
// The same over bytes that the caller keeps until close; `where` stands in the sentences for the file's name.
soma_status soma__safetensors_open_bytes(soma_safetensors **st, const void *bytes, size_t size, const char *where, soma_error *err);
void soma__safetensors_close(soma_safetensors *st); // NULL allowed

const char *soma__safetensors_path(const soma_safetensors *st);                              // as given to open, for sentences
size_t soma__safetensors_count(const soma_safetensors *st);                                  // tensors
const soma_safetensor *soma__safetensors_at(const soma_safetensors *st, size_t i);           // sorted by name
const soma_safetensor *soma__safetensors_find(const soma_safetensors *st, const char *name); // NULL when absent
// The value of `key` in __metadata__ (of the first shard that has it); NULL when absent.
const char *soma__safetensors_metadata(const soma_safetensors *st, const char *key);
// The whole map, an object of strings; borrowed, never NULL.
const json_t *soma__safetensors_metadata_all(const soma_safetensors *st);

// True when t->data may be used in place as an array of its dtype.
bool soma__safetensor_aligned(const soma_safetensor *t);
// A number of the files' headers, sizes and times: another one means that something may have changed; values are not looked at.
uint64_t soma__safetensors_identity(const soma_safetensors *st);
// "[2, 3]"; returns `out`.
const char *soma__safetensor_shape(char out[160], const soma_safetensor *t);

// `n` values of any dtype, unaligned allowed, as f32 (f64 and i64 are rounded to nearest, bool becomes 0 or 1).
void soma__to_f32(float *out, soma_dtype dtype, const void *data, int64_t n);

// How far one tensor is from another. `rows` [B, S]: of want [B, .., S, D] the values whose row's entry is 0 are not looked at; NULL: all
// are.
typedef struct soma_difference {
    double max_abs, each;  // the largest; the largest over the value's size where that is above 1
    double relative, norm; // the L2 norm over want's; want's
} soma_difference;
// Both have as many values as want's shape says. A NaN on one side makes the largest difference a NaN.
soma_difference soma__safetensor_difference(const soma_safetensor *got, const soma_safetensor *want, const soma_safetensor *rows);

// Writes all or nothing; names are UTF-8. `metadata`: an object of strings, or NULL. Tensors are laid out by falling value size, then name,
// so that each is aligned; the same input gives the same bytes.
soma_status soma__safetensors_write(const char *path, const soma_safetensor *tensors, size_t n_tensors, const json_t *metadata,
                                    soma_error *err);
// The same for values that are made while they are written, so that a large file is never whole in memory: `make` puts values
// [at, at + n) of tensors[tensor] to `out`, in the tensor's dtype; pieces come in order, n is at most SOMA_SAFETENSORS_PIECE. A failure
// ends the writing and leaves no file.
enum { SOMA_SAFETENSORS_PIECE = 1 << 20 };
typedef soma_status soma_safetensor_make(void *user, size_t tensor, int64_t at, int64_t n, void *out, soma_error *err);
soma_status soma__safetensors_write_made(const char *path, const soma_safetensor *tensors, size_t n_tensors, const json_t *metadata,
                                         soma_safetensor_make *make, void *user, soma_error *err);

// Lets go of the pages behind data that was read from a mapped file (they come back when read again), so that a conversion of a large
// file does not keep both forms in memory. Does nothing for bytes of the caller's.
void soma__safetensors_forget(const soma_safetensors *st, const void *data, size_t size);

#endif
