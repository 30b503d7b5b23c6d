// SPDX-License-Identifier: Apache-2.0
// Pictures of nets that take them by mean and deviation (ImageNet's, or their data's), and at the cameras' own sizes: what their configs
// say about them, and how a batch becomes channels-last pictures.
#ifndef SOMA_MODEL_PICTURES_H
#define SOMA_MODEL_PICTURES_H

#include "model/fields.h"
#include "nn/conv.h"

typedef struct soma_picture_norm {
    double mean[3], std[3]; // of pixels in 0..1: red, green, blue
} soma_picture_norm;
#define SOMA_PICTURES_IMAGENET ((soma_picture_norm){{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}})

// "image_mean" and "image_std", lists of three; what is absent keeps its value.
soma_status soma__pictures_read(soma_picture_norm *norm, const json_t *config, const char *where, soma_error *err);
bool soma__pictures_write(const soma_picture_norm *norm, json_t *out); // false when memory is out
// "vision_backbone": "resnet34" has other blocks where no tensor has told them. Absent: kept.
soma_status soma__backbone_read(soma_resnet_config *backbone, const json_t *config, const char *where, soma_error *err);
// Its word for a backbone; *own: it has none for these widths and blocks.
const char *soma__backbone_name(const soma_resnet_config *backbone, bool *own);
// Sizes that a LeRobot config's features say and no other key does: "state_dim", "action_dim", "image_height" and "image_width" from
// "input_features" and "output_features". Cameras of several sizes are refused.
soma_status soma__features_sizes(json_t *config, const char *where, soma_error *err);

// Where a picture is cut out of a larger one: from the middle, or from a place drawn by the batch's seed.
typedef struct soma_crop {
    int64_t height, width; // 0: nothing is cut
    bool drawn;
} soma_crop;

// "images": the batch's pictures [n, ..] cut (NULL: as they are), "picture.scale" and "picture.shift" [3] for those of bytes.
soma_status soma__feed_pictures(soma_feed *feed, const soma_model_info *info, const soma_picture_norm *norm, const soma_crop *crop,
                                const soma_batch *batch, soma_error *err);
// The graph's side of it: n pictures of height x width, u8 or f32 as `dtype` says, as f32 [n, height, width, 3], normalised where they are
// bytes; those of f32 are as the net takes them.
soma_tensor *soma__picture_input(soma_graph *g, soma_dtype dtype, int64_t n, int64_t height, int64_t width);

#endif
