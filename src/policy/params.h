// SPDX-License-Identifier: Apache-2.0
// Weights on a device: one buffer, laid out by name. Plans of the same layout share it; whoever trains is its only writer.
// (Here and not in model/, which never sees a device.)
//
// Weights that are only read may stay where their file is mapped (soma__params_open): a slot's place is then a distance out of the buffer,
// and what is used of a checkpoint is in memory once.
#ifndef SOMA_POLICY_PARAMS_H
#define SOMA_POLICY_PARAMS_H

#include "base/str.h"
#include "device/device.h"
#include "format/safetensors.h"
#include "model/family.h"

enum { SOMA_PACKED_KEY = 64 };

typedef struct soma_params {
    soma_layout layout;
    soma_device *device;      // borrowed
    void *memory;             // `size` bytes on the device
    uint64_t version;         // grows with every init and load; a trainer adds one when it publishes
    size_t size;              // bytes of `memory`: layout.size, less what stayed in the file
    soma_safetensors *file;   // whose pages borrowed weights are; NULL: none are
    soma_safetensors *packed; // packed weights of an earlier start (packed_cache.h), borrowed alike; NULL: there are none
    bool lent;                // `memory` belongs to somebody else
} soma_params;

// Lays out the weights of all `graphs` and allocates them, zeroed. Any graph may then be planned with &params->layout.
soma_status soma__params_new(soma_params **params, soma_device *device, const soma_graph *const *graphs, size_t n_graphs, soma_error *err);
// The layout alone. Whoever has room for `size` bytes sets `memory` and keeps it (a trainer, whose weights lie in its optimiser).
soma_status soma__params_lay_out(soma_params **params, soma_device *device, const soma_graph *const *graphs, size_t n_graphs,
                                 soma_error *err);
void soma__params_free(soma_params *params); // NULL allowed

// Weights to be read and never written: laid out and loaded in one go. Where the device reads the host's memory, a tensor that the file
// has in the dtype wanted is not copied. role: WEIGHT, or FROZEN for the rest of a graph that has both. `file` is taken over, also on
// failure. aliases, errors: as soma__params_load. Call it before any graph is planned: planning takes the places from the layout.
soma_status soma__params_open(soma_params **params, soma_device *device, const soma_graph *const *graphs, size_t n_graphs, soma_role role,
                              soma_safetensors *file, const soma_alias *aliases, soma_error *err);

// The same, with packed weights from the file `cache` where it has them (packed_cache.h); "": packs.
// cache NULL: weights keep their published form, for graphs whose backward products, not built yet, read them the other way round.
soma_status soma__params_open_cached(soma_params **params, soma_device *device, const soma_graph *const *graphs, size_t n_graphs,
                                     soma_role role, soma_safetensors *file, const soma_alias *aliases, const char *cache, soma_error *err);
// Is the weight where a file is mapped? Its place then lies outside of the buffer.
bool soma__params_borrows(const soma_params *params, const soma_slot *slot);

// Fills every weight by its initialiser. Each weight has a stream of its own, keyed by its name, so that it does not depend on the others.
soma_status soma__params_init(soma_params *params, uint64_t seed, soma_error *err);
// Reads every weight, in whatever dtype it is stored. `aliases`: other spellings (family.h), NULL for none. All weights that are missing or
// have another shape are named in one error (SOMA_NOT_FOUND when some are missing, else SOMA_BAD_INPUT), and then nothing was changed; what
// layers share is named once, with a star for the layer.
soma_status soma__params_load(soma_params *params, const soma_safetensors *file, const soma_alias *aliases, soma_error *err);
// The same for a buffer that is laid out as the weights are, on the same device, such as a moving average.
soma_status soma__params_load_into(const soma_params *params, void *memory, const soma_safetensors *file, const soma_alias *aliases,
                                   soma_error *err);
// Writes the weights under their published names. memory: NULL for the weights themselves, or a buffer laid out as they are.
// metadata: an object of strings, or NULL.
soma_status soma__params_save(const soma_params *params, const void *memory, const char *path, const json_t *metadata, soma_error *err);

// Writes a file of the layout's weights with random values, those of soma__params_init for this seed, without having them in memory.
// Names are openpi's (`aliases`, NULL for none). dtype: F32 or BF16, of every weight. progress: told now and then; NULL: silence; false
// ends it with SOMA_CANCELLED and no file.
typedef bool soma_params_progress(void *user, int64_t values_done, int64_t values);
soma_status soma__params_write_random(const soma_layout *layout, const soma_alias *aliases, uint64_t seed, soma_dtype dtype,
                                      const char *path, soma_params_progress *progress, void *user, soma_error *err);
uint16_t soma__to_bf16(float x); // to nearest, ties to even; a NaN stays one
// The name under which openpi's files have a weight; returns `out`.
const char *soma__openpi_name(char out[512], const char *name, const soma_alias *aliases);

// What a file lacks of `used`, has in another shape, and has beyond `published` and the tables of its model's family: texts without end,
// for those who print them.
typedef struct soma_faults {
    soma_str missing, misshapen, extra;
    size_t n_missing, n_misshapen, n_extra;
} soma_faults; // {0} is empty and ready
soma_status soma__find_faults(soma_faults *faults, const soma_layout *used, const soma_layout *published, const soma_model *model,
                              const soma_safetensors *file, const soma_alias *aliases, soma_error *err);
void soma__faults_free(soma_faults *faults);
// The same as one error, or SOMA_OK. published and model NULL: what is beyond them is not looked for.
soma_status soma__check_weights(const soma_layout *used, const soma_layout *published, const soma_model *model,
                                const soma_safetensors *file, const soma_alias *aliases, soma_error *err);

// The tensor that `name` means in a file, under any spelling; NULL when absent.
const soma_safetensor *soma__find_weight(const soma_safetensors *file, const char *name, const soma_alias *aliases);

#endif
