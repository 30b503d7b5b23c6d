// SPDX-License-Identifier: Apache-2.0
// `soma inspect --policy DIR --quantise-report`: what each --dtype costs in precision.
#ifndef SOMA_CMD_CMD_QUANT_H
#define SOMA_CMD_CMD_QUANT_H

#include "cmd/cmd.h"

typedef struct soma_cmd_quant {
    const char *policy, *obs; // obs "": made up
    int64_t episode, frame, seed, threads;
    double outliers;
    const char *isa;
} soma_cmd_quant;

int soma__cmd_quant_report(const soma_cmd *cmd, const soma_cmd_quant *o); // returns the exit code

#endif
