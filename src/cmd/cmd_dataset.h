// SPDX-License-Identifier: Apache-2.0
// What verbs that look at a dataset share.
#ifndef SOMA_CMD_CMD_DATASET_H
#define SOMA_CMD_CMD_DATASET_H

#include "cmd/cmd.h"
#include "data/dataset.h"

// Opens the dataset and prints what it holds: as JSON with --json, else in words, with at most `rows` absent files (0: all, -1: 40).
// Returns the exit code.
int soma__cmd_dataset_info(const soma_cmd *cmd, const char *path, int64_t rows);

#endif
