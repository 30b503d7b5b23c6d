// SPDX-License-Identifier: Apache-2.0
// Packed weights kept between starts: a safetensors file of every weight that opening would have to pack or convert, as its bytes lie in
// memory. The next start maps it and touches the checkpoint's own file only for what is read in place.
//
// The file says what it was made of, as its metadata "soma_packed": the device's forms (instruction set and layout version), the source's
// header, size and time, and the weights asked for. Another source or another machine makes another key, and then it is not used. The
// source's values are not looked at: `soma inspect --verify` does that.
#ifndef SOMA_POLICY_PACKED_CACHE_H
#define SOMA_POLICY_PACKED_CACHE_H

#include "base/file.h"
#include "policy/params.h"

// Where a checkpoint's packed weights are kept: in its own folder, or in `dir` (made when it is absent) under a name of the checkpoint's
// path. path becomes "" where there is none: the device packs nothing, or the checkpoint is no folder and dir is "".
soma_status soma__packed_path(char path[SOMA_PATH_MAX], const char *checkpoint, const char *dir, const soma_device *device,
                              const char *dtype, soma_error *err);

// The key of what params are opened from: lower-case hex behind the forms' name. Needs layout and file, forms chosen.
void soma__packed_key(char key[SOMA_PACKED_KEY], const soma_params *params);
// The file when it is there, sound and of this key, with every weight that is not borrowed from the source; else NULL.
soma_safetensors *soma__packed_open(const char *path, const soma_params *params, const bool *borrowed);
// Writes the file for params that are open, all or nothing, and removes what a killed process left of another try.
soma_status soma__packed_write(const soma_params *params, const char *path, soma_error *err);
// Holds packed weights against `fresh`, the same opened without a cache: SOMA_BAD_INPUT names the first weight that differs.
soma_status soma__packed_verify(const soma_params *fresh, const char *path, size_t *n_weights, soma_error *err);

#endif
