// SPDX-License-Identifier: Apache-2.0
// Training-time changes of a picture, as openpi's torch code makes them: a crop of 95 % resized back, a turn of up to 5 degrees, and
// brightness, contrast and saturation. Drawing and applying are apart, so that every camera of a sample can share a draw, a test can
// prescribe one, and the same (key, counter) gives the same picture on any number of threads.
#ifndef SOMA_TRANSFORM_AUGMENT_H
#define SOMA_TRANSFORM_AUGMENT_H

#include "base/base.h"
#include "base/rng.h"

typedef struct soma_augment_opts {
    double crop;                             // side of the crop as a part of the picture's; 1: none
    double degrees;                          // turn by at most this, either way
    double brightness, contrast, saturation; // factors 1 - x .. 1 + x
} soma_augment_opts;

soma_augment_opts soma__augment_defaults(void); // 0.95, 5, 0.3, 0.4, 0.5: openpi's

// One draw. crop_width 0: neither crop nor turn, which is how wrist cameras are treated (their view is fixed to the hand).
typedef struct soma_augment {
    int top, left, crop_height, crop_width; // pixels
    float degrees;
    float brightness, contrast, saturation; // factors
} soma_augment;

soma_augment soma__augment_draw(const soma_augment_opts *opts, soma_rng *rng, int height, int width, bool wrist);

// image: f32 [height, width, 3] in [-1, 1], in place. scratch: soma__augment_scratch() bytes, aligned to 16, contents undefined.
void soma__augment_f32(const soma_augment *draw, float *image, int height, int width, void *scratch);
// The same from bytes: in u8 [height, width, 3], out f32 of the same shape; the bits of soma__image_to_f32 and soma__augment_f32 in turn.
void soma__augment_u8(const soma_augment *draw, const uint8_t *in, float *out, int height, int width, void *scratch);
size_t soma__augment_scratch(int height, int width);

#endif
