// SPDX-License-Identifier: Apache-2.0
// modality.json, as GR00T's datasets have it in meta/: which values of state and action are which part of the robot, what its cameras and
// annotations are called.
//
//     {"state" and "action": {NAME: {start, end, original_key?, rotation_type?, absolute?}},
//      "video" and "annotation": {NAME: {original_key?}}}
//
// What an entry must fit (a dataset's features, a policy's sizes) is for the caller to say.
#ifndef SOMA_FORMAT_MODALITY_H
#define SOMA_FORMAT_MODALITY_H

#include "base/json.h"

typedef struct soma_modality_entry {
    const char *group, *name; // "state", "action", "video" or "annotation"; texts are borrowed for the call
    const char *key;          // original_key; NULL: not told
    int64_t start, end;       // of the values; -1: not told
    const char *rotation;     // "quaternion", "rotation_6d" ...; NULL: not told
    bool relative;            // an action relative to the state
} soma_modality_entry;

// `where` is the file's path. A status other than SOMA_OK ends the reading and is returned.
typedef soma_status soma_modality_take(void *user, const soma_modality_entry *entry, const char *where, soma_error *err);

// Every entry, group by group in the order above. An entry that is no object tells nothing but its name; a start or an end that is no whole
// number, or an end that is not behind its start, is refused.
soma_status soma__modality_each(const char *path, soma_modality_take *take, void *user, soma_error *err);
// Adds an entry to an object that is to become such a file; what is not told is left out. False when memory is out.
bool soma__modality_put(json_t *file, const soma_modality_entry *entry);

// An annotation's whole name, "annotation.human.action.task_description", is of an instruction; others judge: "annotation.human.validity".
bool soma__modality_instructs(const char *name);

#endif
