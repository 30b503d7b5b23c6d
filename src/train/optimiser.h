// SPDX-License-Identifier: Apache-2.0
// The optimiser: everything a step changes, in one block of device memory. Weights, gradient, moments and average are flat arrays with the
// layout of the weights, so that an update is one op over each.
#ifndef SOMA_TRAIN_OPTIMISER_H
#define SOMA_TRAIN_OPTIMISER_H

#include "policy/params.h"

typedef struct soma_optimiser {
    soma_device *device;        // borrowed
    const soma_layout *weights; // borrowed
    int64_t n;                  // values in each array, paddings included (these stay zero)
    soma_layout arrays;         // w, g, m, v; acc and ema where they are kept
    bool accumulates, averages;
    void *memory;
    char *still; // room for the weights that no gradient changes, while the others step
    soma_graph *graphs[3];
    soma_plan *plans[3]; // accumulate, norm, update
    soma_frame *frames[3];
} soma_optimiser;

// The weights' layout must be all F32. accumulates: a step sums several passes' gradients; averages: a moving average is kept. Each of the
// two costs one more array.
soma_status soma__optimiser_new(soma_optimiser **o, soma_device *device, const soma_layout *weights, bool accumulates, bool averages,
                                soma_error *err);
void soma__optimiser_free(soma_optimiser *o);                                 // NULL allowed
size_t soma__optimiser_scratch(const soma_layout *weights, bool accumulates); // bytes that it needs beside its arrays

// The device memory of one array ("w", "g", "m", "v"): n f32 values laid out as the weights are. "acc" is "g" where nothing is accumulated,
// "ema" is "w" where nothing is averaged.
void *soma__optimiser_array(const soma_optimiser *o, const char *name);

void soma__optimiser_accumulate(soma_optimiser *o); // acc += g
typedef struct soma_adamw_step {
    int64_t step; // from 1
    double lr, beta1, beta2, eps, weight_decay, clip, ema;
    double grad_scale; // 1 / number of accumulated passes
} soma_adamw_step;
// Uses acc, clears it (where it is not g), returns the gradient's norm before clipping.
double soma__optimiser_update(soma_optimiser *o, const soma_adamw_step *s);

// Linear warm-up from peak/(warmup+1), then a cosine to `end` at `steps` (openpi's schedule). step counts from 0.
double soma__lr_at(int64_t step, int64_t steps, int64_t warmup, double peak, double end);

#endif
