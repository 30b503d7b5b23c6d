// SPDX-License-Identifier: Apache-2.0
// Where a bilinear resize reads: torch's rule for align_corners=False. torch's binary fuses the multiplication with the subtraction and
// rounds once to f32, which the double below repeats; rounding twice moves a position by 1e-4 at 1920 columns.
#ifndef SOMA_TRANSFORM_LERP_H
#define SOMA_TRANSFORM_LERP_H

typedef struct soma_lerp {
    int a, b; // the two source positions
    float t;  // weight of b; a has 1 - t
} soma_lerp;

// Output position i of a line of `size` values that is resized by 1/scale: scale = size / output size.
static inline soma_lerp soma__lerp_at(float scale, int i, int size) {
    float x = (float)((double)scale * (i + 0.5) - 0.5);
    if (x < 0) x = 0;
    int a = (int)x;
    if (a > size - 1) a = size - 1;
    return (soma_lerp){a, a + (a < size - 1), x - (float)a};
}

#endif
