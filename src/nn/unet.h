// SPDX-License-Identifier: Apache-2.0
// The conditional UNet over a row of actions that Diffusion Policy made (Chi et al. 2023): residual blocks of 1-D convolutions, each scaled
// and shifted by a condition. Names as LeRobot's.
#ifndef SOMA_NN_UNET_H
#define SOMA_NN_UNET_H

#include "nn/conv.h"

enum { SOMA_UNET_LEVELS = 7 };
typedef struct soma_unet_config {
    int64_t widths[SOMA_UNET_LEVELS]; // from the outermost level in
    int64_t levels, kernel, groups;
    int64_t step_width; // of the embedded step
    bool scale;         // the condition scales, too (FiLM); else it only shifts
} soma_unet_config;

// x [B, T, A], T a multiple of 2^(levels - 1); step [B]: which step of the diffusion, as a number; cond [B, G] -> [B, T, A], f32.
// taps: "<taps>.<module>", rows as [B, C, T]; NULL: none.
soma_tensor *soma_unet(const soma_scope *s, soma_tensor *x, soma_tensor *step, soma_tensor *cond, const soma_unet_config *c,
                       const char *taps);

#endif
