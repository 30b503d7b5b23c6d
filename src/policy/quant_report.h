// SPDX-License-Identifier: Apache-2.0
// What quantising a policy costs: the error of what it computes against f32, for each --dtype.
#ifndef SOMA_POLICY_QUANT_REPORT_H
#define SOMA_POLICY_QUANT_REPORT_H

#include "device/device.h"

#include <soma/soma.h>

enum { SOMA_QUANT_DTYPES = 5 }; // f32 and what is compared with it: bf16, int8, int8w, int4w

// L2 norms of the difference over those of the f32 run, from the same noise; each run follows its own flow.
typedef struct soma_quant_row {
    const char *dtype;
    double keys, values; // of the prefix, all layers together
    double *velocity;    // [steps]
    double chunk;        // of the actions in the end, as the model means them
    double logits;       // of a policy that writes tokens, in the place of velocity and chunk: of the first token's
    size_t size;         // bytes that the weights take
} soma_quant_row;

typedef struct soma_quant_report {
    soma_arena arena;
    int64_t steps;      // flow steps; 0: the policy writes tokens
    int64_t layers;     // of the prefix
    int64_t n_channels; // output channels that were made larger
    soma_quant_row rows[SOMA_QUANT_DTYPES];
} soma_quant_report;

typedef struct soma_quant_opts {
    const soma_obs *obs; // borrowed; NULL: made up, which says something of random weights only
    double outliers;     // this share of every layer's output channels, at least one, is made 30 times as large first; 0: none
    int64_t seed;        // of the noise, of what is made up, and of which channels are outliers
} soma_quant_opts;

// path: a policy's folder with one file of weights. Refuses adapters.
soma_status soma__quant_report(soma_quant_report *report, const char *path, const soma_quant_opts *opts, soma_device *device,
                               soma_error *err);
void soma__quant_report_free(soma_quant_report *report); // {0} allowed

#endif
