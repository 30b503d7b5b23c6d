// SPDX-License-Identifier: Apache-2.0
// Runs a policy's graphs on named inputs and keeps the named intermediates: with it a port is checked against its original.
// docs/trace.md lists the names.
#ifndef SOMA_POLICY_TRACE_H
#define SOMA_POLICY_TRACE_H

#include "device/device.h"
#include "format/safetensors.h"

typedef struct soma_trace_opts {
    const char *dtype; // "f32", "mixed" (bf16 products) or "bf16" (inference only: no train.*)
    const char *time;  // whose flow times: "openpi", "lerobot"; NULL or "": those of the project that the config is from
    bool grads;        // also the gradients of train.loss, as "b2.<weight>", and of the first row alone, as "b1.<weight>"; of a family that
                       // writes tokens as "<weight>"
    int64_t stop_token; // of families that write tokens, above 0: the first row is decoded once more, alone, until it writes this id
    bool names_only;    // nothing is read or computed: tensors have names, dtypes and shapes, and no data
} soma_trace_opts;

typedef struct soma_trace {
    soma_arena arena;
    soma_safetensor *tensors;
    size_t n_tensors, capacity;
    soma_safetensor *inputs; // what was, or would be, read: name, dtype, shape; no data
    size_t n_inputs, input_capacity;
} soma_trace; // {0} is empty and ready

// `folder` holds config.json and model.safetensors. inputs: image.<camera> f32 [B, 3, H, W] or image_u8.<camera> u8 [B, H, W, 3],
// image_mask.<camera> [B] (absent: all there), tokens and token_mask [B, L], state [B, .], noise [B, S, A], actions [B, S, A] and
// train_time [B]. Without noise nothing is sampled, without actions and train_time nothing is trained. names_only: inputs is NULL.
// Families that write their chunk as tokens: docs/trace.md tells their two forms, told apart by the tensors that are there.
soma_status soma__trace_run(soma_trace *trace, const char *folder, const soma_safetensors *inputs, const soma_trace_opts *opts,
                            soma_device *device, soma_error *err);
const soma_safetensor *soma__trace_find(const soma_trace *trace, const char *name); // NULL when absent
// The rows [B, S] of this tensor that stand for a token, to be looked at where it is compared: the others are masked tokens', which mean
// nothing. NULL: all do.
const soma_safetensor *soma__trace_rows(const soma_trace *trace, const char *name);
void soma__trace_free(soma_trace *trace);

#endif
