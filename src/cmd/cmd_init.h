// SPDX-License-Identifier: Apache-2.0
// What `soma init` makes, for verbs that need a policy of any size and have none.
#ifndef SOMA_CMD_CMD_INIT_H
#define SOMA_CMD_CMD_INIT_H

#include "base/base.h"

// A checkpoint of random bf16 weights in the folder `out`, which must not be there. model: JSON file with sizes, "" for the preset's.
soma_status soma__cmd_init_random(const char *out, const char *family, const char *preset, const char *model, int64_t seed,
                                  soma_error *err);

#endif
