// SPDX-License-Identifier: Apache-2.0
// A policy, or an adapter and its base as one, as a folder that the originals load.
#ifndef SOMA_POLICY_EXPORT_H
#define SOMA_POLICY_EXPORT_H

#include "policy/adapter.h"
#include "policy/published.h"
#include "policy/robot.h"

typedef struct soma_export_opts {
    const char *policy;  // folder: a policy, an adapter, or the base of `adapter`
    const char *adapter; // folder, or NULL
    const char *out;     // folder to make
    bool lerobot;        // LeRobot's layout; else openpi's
    soma_dtype dtype;    // of every tensor, F32 or BF16
    const char *asset;   // openpi: the folder below assets/ that the statistics go to
} soma_export_opts;

typedef struct soma_exported {
    size_t n_tensors, n_folded, n_absent; // written; of them with a pair folded in; that nothing reads and no file had: zeros
    int64_t n_values;
} soma_exported;

typedef bool soma_export_watch(void *user, int64_t values_done, int64_t values); // false: stop, with SOMA_CANCELLED

// The folder must not be there; on failure it is left without model.safetensors.
soma_status soma__export(soma_exported *result, const soma_export_opts *opts, soma_export_watch *watch, void *user, soma_error *err);

// export_sides.c: all but the weights. `vocabulary`: folder whose tokenizer is copied.
soma_status soma__export_sides(const soma_export_opts *opts, const soma_model *model, const soma_robot *robot, const char *vocabulary,
                               soma_error *err);

#endif
