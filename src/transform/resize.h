// SPDX-License-Identifier: Apache-2.0
// Camera pictures to the size a vision tower wants: the aspect is kept, the rest is black, the picture is centred but for SMOLVLA. Released
// weights saw one of these filters, and a policy works best with its own:
//
//     PIL         openpi's data path and client: triangle filter widened by the scale (antialias), Pillow's integers, bit for bit
//     TORCH       openpi's torch code: bilinear without antialias on [-1, 1]
//     LEROBOT     LeRobot's pi0 and pi0.5: the same on [0, 1], then * 2 - 1
//     SMOLVLA     LeRobot's SmolVLA: as LEROBOT, but the picture lies at the right and the bottom, not in the middle
//     LEROBOT_04  LeRobot up to 0.4: its border is -1 before the * 2 - 1, so that it is -3, darker than black
#ifndef SOMA_TRANSFORM_RESIZE_H
#define SOMA_TRANSFORM_RESIZE_H

#include "base/base.h"

typedef enum soma_resize_rule {
    SOMA_RESIZE_PIL,
    SOMA_RESIZE_TORCH,
    SOMA_RESIZE_LEROBOT,
    SOMA_RESIZE_LEROBOT_04,
    SOMA_RESIZE_SMOLVLA
} soma_resize_rule;

// A resize planned once for a size; holds its scratch memory, so it belongs to one thread.
typedef struct soma_resizer soma_resizer;

// Refused: sizes outside 1 .. 16384, and pictures so narrow that nothing of them would be left.
soma_status soma__resizer_new(soma_resizer **resizer, soma_resize_rule rule, int in_width, int in_height, int out_width, int out_height,
                              soma_error *err);
void soma__resizer_free(soma_resizer *resizer); // NULL allowed

// in: u8 [in_height, in_width, 3] RGB. Neither call allocates.
void soma__resizer_u8(soma_resizer *resizer, const uint8_t *in, uint8_t *out); // out [out_height, out_width, 3]; SOMA_RESIZE_PIL only
void soma__resizer_f32(soma_resizer *resizer, const uint8_t *in, float *out);  // the same shape in [-1, 1] inside; any rule

// u8 0 .. 255 to f32 -1 .. 1: x / 255 * 2 - 1, each step rounded to f32 as torch and JAX do.
void soma__image_to_f32(float *out, const uint8_t *in, size_t n_values);

#endif
