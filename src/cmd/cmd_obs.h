// SPDX-License-Identifier: Apache-2.0
// One observation for a verb: from a file or a frame of a dataset.
#ifndef SOMA_CMD_CMD_OBS_H
#define SOMA_CMD_CMD_OBS_H

#include "base/arena.h"
#include "data/dataset.h"
#include "format/safetensors.h"

#include <soma/soma.h>

typedef struct soma_cmd_obs {
    soma_obs obs; // what it points into lies below
    soma_arena arena;
    char *message; // the bytes of a .msgpack file
    soma_safetensors *tensors;
    soma_dataset *data;
    soma_dataset_reader *reader;
} soma_cmd_obs; // {0} is closed

// path: a .safetensors file ("state" [n], "image.<camera>" u8 [height, width, 3], "prompt" in the metadata), a .msgpack message of openpi's
// protocol, or a dataset's folder, of which frame `frame` of episode `episode` is taken. info: of the policy, whose cameras are looked for.
soma_status soma__cmd_obs_open(soma_cmd_obs *s, const char *path, int64_t episode, int64_t frame, const soma_policy_info *info,
                               soma_error *err);
void soma__cmd_obs_close(soma_cmd_obs *s);

#endif
