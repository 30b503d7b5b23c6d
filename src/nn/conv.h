// SPDX-License-Identifier: Apache-2.0
// Layers of convolutional nets over channels-last pictures [N, H, W, C] and rows [N, T, C]; names and formulas as in PyTorch, whose
// checkpoints are read.
#ifndef SOMA_NN_CONV_H
#define SOMA_NN_CONV_H

#include "nn/nn.h"

// "<name>.weight" [out, C, size, size] and, with a bias, "<name>.bias"; std sqrt(2 / fan_out), as torchvision begins.
soma_tensor *soma_conv_2d(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, int size, int stride, int pad, bool bias);
// "<name>.weight" [out, C, size] and "<name>.bias"; x [N, T, C]. std 1/sqrt(fan_in).
soma_tensor *soma_conv_1d(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, int size, int stride, int pad);
// Its transpose: "<name>.weight" [C, out, size]; T becomes (T - 1) stride - 2 pad + size.
soma_tensor *soma_conv_1d_up(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, int size, int stride, int pad);

// Statistics over a group's channels and all places: x [N, .., C]; "<name>.weight" and ".bias" [C].
soma_tensor *soma_group_norm(const soma_scope *s, const char *name, soma_tensor *x, int64_t groups, float eps);
// w (x - mean) / sqrt(var + eps) + b, all four read and never trained: "<name>.{weight, bias, running_mean, running_var}" [C].
soma_tensor *soma_frozen_batch_norm(const soma_scope *s, const char *name, soma_tensor *x, float eps);

// ---- ResNet of basic blocks, torchvision's ResNet-18 and -34 without their head
enum { SOMA_RESNET_STAGES = 4 };
typedef struct soma_resnet_config {
    int64_t widths[SOMA_RESNET_STAGES], blocks[SOMA_RESNET_STAGES];
    int64_t group; // channels of a group norm's group; 0: frozen batch norms
    bool numbered; // names of a Sequential: "0", "1", "4.0.conv1" ...; else "conv1", "bn1", "layer1.0.conv1" ...
    float eps;
} soma_resnet_config;
// x [N, H, W, 3] -> [N, H/32, W/32, widths[3]]. taps: "<taps>.<module>" [N, C, h, w] of stem, stages and blocks; NULL: none.
soma_tensor *soma_resnet(const soma_scope *s, soma_tensor *x, const soma_resnet_config *c, const char *taps);
int64_t soma_resnet_side(int64_t side); // H/32 as five halvings round it

// A picture [N, H, W, C] as PyTorch has it, as a tap: [N, C, H, W]. Returns x.
soma_tensor *soma_tap_picture(soma_tensor *x, const char *format, ...) SOMA_PRINTF(2, 3);

#endif
