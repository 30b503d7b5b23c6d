// SPDX-License-Identifier: Apache-2.0
// A checkpoint as openpi, LeRobot or soma writes it: a folder with config.json and model.safetensors (or several files with an index). What
// the config does not say is taken from the tensors, and what it says must not contradict them.
#ifndef SOMA_POLICY_PUBLISHED_H
#define SOMA_POLICY_PUBLISHED_H

#include "base/file.h"
#include "policy/params.h"

typedef struct soma_published {
    char path[SOMA_PATH_MAX];  // as given
    char where[SOMA_PATH_MAX]; // the config's file, for sentences
    json_t *config;            // completed; {} where the folder has none and the tensors say it all
    soma_safetensors *weights; // NULL where the folder has a config alone, and after soma__published_params
    soma_model *model;         // NULL before soma__published_model
    char cache[SOMA_PATH_MAX]; // file of packed weights that soma__published_params maps where it fits (packed_cache.h); "": it packs
    soma_layout holds;         // all weights that a file of this model may hold, as F32
} soma_published;

// Two calls, so that the caller may lay his own values over the config in between. path: the folder, or a safetensors file alone. Refused
// with the file's name: neither config nor weights, a config that contradicts them, a type that is not known. Whether weights are missing
// or misshapen is told when they are used.
soma_status soma__published_open(soma_published *published, const char *path, soma_error *err);
soma_status soma__published_model(soma_published *published, soma_error *err);
// The weights of `graphs` on a device (soma__params_open), which take the file over. What is missing, misshapen or unknown to this model is
// told in one error.
soma_status soma__published_params(soma_params **params, soma_published *published, soma_device *device, const soma_graph *const *graphs,
                                   size_t n_graphs, soma_error *err);
void soma__published_close(soma_published *published); // {0} allowed; also what a failed open left

#endif
