// SPDX-License-Identifier: Apache-2.0
// Adapter folders: what a fine-tuning run changed of a base checkpoint, and how to find that base. adapter_config.json says which layers
// carry which low-rank pair; adapter_model.safetensors holds the pairs and every other weight that was trained. Weights that it does not
// hold are the base's: in a graph they are of role FROZEN.
//
// Two kinds of folder are read: PEFT's, as LeRobot writes them (the pairs are found by their names, all of one alpha), and ours with
// openpi's factors, which have no published form outside of JAX.
#ifndef SOMA_POLICY_ADAPTER_H
#define SOMA_POLICY_ADAPTER_H

#include "base/file.h"
#include "policy/params.h"

typedef struct soma_adapter_set {
    soma_arena arena;
    soma_adapter *adapters; // glob: the whole name of one layer
    size_t n_adapters, adapters_capacity;
    const char **frozen; // whole names of the weights that are not trained, or globs
    size_t n_frozen, frozen_capacity;
    char base[SOMA_PATH_MAX]; // folder of the checkpoint that the rest is in; "": none
} soma_adapter_set;           // {0} is empty and ready
void soma__adapters_free(soma_adapter_set *set);

soma_status soma__adapters_add(soma_adapter_set *set, const soma_adapter *adapter, const char *layer, soma_error *err);
soma_status soma__adapters_freeze(soma_adapter_set *set, const char *glob, soma_error *err);

bool soma__is_pair(const char *name); // one factor of a pair, by its name
// Is there an adapter_config.json in the folder?
bool soma__adapters_here(const char *dir);
// Reads a folder: the adapters, the base (a relative path is meant from the folder, then from where the program runs) and the open file.
soma_status soma__adapters_open(soma_adapter_set *set, soma_safetensors **file, const char *dir, soma_error *err);
// The part that reads the config: which layers, and how. `where` names it in sentences.
soma_status soma__adapters_parse(soma_adapter_set *set, const json_t *config, const soma_safetensors *file, const char *where,
                                 soma_error *err);
// Freezes every weight of the graphs that `file` does not hold.
soma_status soma__adapters_split(soma_adapter_set *set, const soma_graph *const *graphs, size_t n_graphs, const soma_safetensors *file,
                                 const soma_alias *aliases, soma_error *err);
// Other spellings in an adapter's file: the family's, and PEFT's prefix. Kept by the set.
const soma_alias *soma__adapters_aliases(soma_adapter_set *set, const soma_alias *family);

// Writes adapter_config.json. The weights go beside it with soma__params_save; `prefix` of their names is soma__adapters_prefix.
soma_status soma__adapters_save(const soma_adapter_set *set, const char *dir, soma_error *err);
const char *soma__adapters_prefix(const soma_adapter_set *set); // "base_model.model.model." of PEFT's form, else ""

// w [out, in] += the pair's product. a, b: the factors as the form has them.
void soma__adapter_fold(float *w, const soma_adapter *d, const float *a, const float *b, int64_t in, int64_t out);

#endif
