// SPDX-License-Identifier: Apache-2.0
// GR00T's messages: a map {endpoint, data, api_token} in, a map of arrays out. Arrays are {"__ndarray_class__": true, "as_npy": a .npy
// file}.
//
// Both published forms of an observation are taken, and answered in kind:
//     N1.5   flat: "video.K" u8 [T, H, W, 3], "state.K" [T, D], "annotation.NAME" [text]          -> {"action.K": f4 [S, D]}
//     N1.6+  nested: {"observation": {"video": {K: [1, T, H, W, 3]}, "state": {K: [1, T, D]},
//            "language": {NAME: [[text]]}}, "options"}                                             -> [{K: f4 [1, S, D]}, info]
// Of several time steps the last one is looked at. N1's messages are pickles, which run code of the sender's choice when they are read:
// they are refused with a sentence that says so, as are arrays of objects.
#ifndef SOMA_SERVE_GROOT_MAP_H
#define SOMA_SERVE_GROOT_MAP_H

#include "format/msgpack.h"

#include <soma/soma.h>

enum { SOMA_MODALITY_PARTS = 32, SOMA_MODALITY_NAME = 64 };

typedef struct soma_modality_part {
    char name[SOMA_MODALITY_NAME];
    int start, end; // end 0: whatever the client sends, behind the part before
} soma_modality_part;

// Which names a robot's cameras, and the parts of its state and action, have for GR00T's clients.
typedef struct soma_modality {
    int n_videos, n_states, n_actions;
    struct {
        char name[SOMA_MODALITY_NAME];
        const char *camera; // the policy's
    } videos[SOMA_MAX_CAMERAS];
    soma_modality_part states[SOMA_MODALITY_PARTS], actions[SOMA_MODALITY_PARTS];
} soma_modality;

// `path`: a dataset's meta/modality.json; "": the policy's own names, one part "action", and "state" or the robot's parts.
soma_status soma__modality_read(soma_modality *m, const soma_policy_info *info, const char *path, soma_error *err);

typedef enum soma_groot_endpoint {
    SOMA_GROOT_PING,
    SOMA_GROOT_KILL,
    SOMA_GROOT_ACT,
    SOMA_GROOT_CONFIG,
    SOMA_GROOT_RESET
} soma_groot_endpoint;

typedef struct soma_groot_request {
    soma_groot_endpoint endpoint;
    const soma_msg *data;
    const char *token; // not zero-terminated; NULL: none
    size_t token_size;
    bool nested;
} soma_groot_request;

// A sentence why `bytes` are a pickle; NULL: they are not.
const char *soma__groot_pickle(const void *bytes, size_t size);
soma_status soma__groot_read(soma_groot_request *request, const soma_msg *message, soma_error *err);
// `obs` points into `arena` and into the message.
soma_status soma__groot_observe(soma_obs *obs, const soma_modality *m, const soma_policy_info *info, const soma_groot_request *request,
                                soma_arena *arena, soma_error *err);

void soma__groot_put_actions(soma_str *out, const soma_modality *m, const soma_actions *actions, bool nested, double infer_ms);
void soma__groot_put_config(soma_str *out, const soma_modality *m, int horizon);
void soma__groot_put_error(soma_str *out, const char *sentence);

#endif
