// SPDX-License-Identifier: Apache-2.0
// Pictures by mean and deviation, and cuts out of them.
#include "model/pictures.h"

#include "base/rng.h"

#include <math.h>
#include <string.h>

static soma_status read_three(double out[3], const json_t *config, const char *key, bool positive, const char *where, soma_error *err) {
    const json_t *list = json_object_get(config, key);
    if (!list) return SOMA_OK;
    bool ok = json_array_size(list) == 3;
    for (size_t i = 0; ok && i < 3; i++) {
        const json_t *value = json_array_get(list, i);
        ok = json_is_number(value) && isfinite(json_number_value(value)) && (!positive || json_number_value(value) > 0);
        out[i] = json_number_value(value);
    }
    return ok ? SOMA_OK
              : soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is a list of three numbers%s", where, key, positive ? " above 0" : "");
}

soma_status soma__pictures_read(soma_picture_norm *norm, const json_t *config, const char *where, soma_error *err) {
    SOMA_TRY(read_three(norm->mean, config, "image_mean", false, where, err));
    return read_three(norm->std, config, "image_std", true, where, err);
}

bool soma__pictures_write(const soma_picture_norm *n, json_t *out) {
    json_t *mean = json_pack("[f,f,f]", n->mean[0], n->mean[1], n->mean[2]), *std = json_pack("[f,f,f]", n->std[0], n->std[1], n->std[2]);
    const bool failed = json_object_set_new(out, "image_mean", mean) || json_object_set_new(out, "image_std", std);
    return !failed;
}

// ---- LeRobot's features

static int64_t shape_at(const json_t *feature, size_t i, size_t n) {
    const json_t *shape = json_object_get(feature, "shape");
    return json_array_size(shape) == n ? json_integer_value(json_array_get(shape, i)) : 0;
}

static void say(json_t *config, const char *key, int64_t value) {
    if (value > 0 && !json_object_get(config, key)) json_object_set_new(config, key, json_integer(value));
}

static const int64_t resnet_blocks[][SOMA_RESNET_STAGES] = {{2, 2, 2, 2}, {3, 4, 6, 3}};
static const char *const resnet_names[] = {"resnet18", "resnet34"};

soma_status soma__backbone_read(soma_resnet_config *b, const json_t *config, const char *where, soma_error *err) {
    const char *name = json_string_value(json_object_get(config, "vision_backbone"));
    if (!name || !strcmp(name, resnet_names[0])) return SOMA_OK;
    if (strcmp(name, resnet_names[1]))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: vision_backbone \"%.32s\"; resnet18 and resnet34 are known", where, name);
    memcpy(b->blocks, resnet_blocks[1], sizeof b->blocks);
    return SOMA_OK;
}

const char *soma__backbone_name(const soma_resnet_config *b, bool *own) {
    static const int64_t widths[] = {64, 128, 256, 512};
    const bool deep = !memcmp(b->blocks, resnet_blocks[1], sizeof b->blocks);
    *own = memcmp(b->widths, widths, sizeof widths) || (!deep && memcmp(b->blocks, resnet_blocks[0], sizeof b->blocks));
    return resnet_names[deep];
}

soma_status soma__features_sizes(json_t *config, const char *where, soma_error *err) {
    const char *key;
    json_t *feature;
    int64_t height = 0, width = 0;
    json_object_foreach(json_object_get(config, "input_features"), key, feature) {
        const char *type = json_string_value(json_object_get(feature, "type"));
        if (!type || strcmp(type, "VISUAL")) continue;
        const int64_t h = shape_at(feature, 1, 3), w = shape_at(feature, 2, 3);
        if (height && (h != height || w != width))
            return soma__fail(err, SOMA_UNSUPPORTED,
                              "%s: \"%.80s\" is %lld x %lld, another camera %lld x %lld; cameras of one size are known", where, key,
                              (long long)h, (long long)w, (long long)height, (long long)width);
        height = h;
        width = w;
    }
    say(config, "image_height", height);
    say(config, "image_width", width);
    say(config, "state_dim", shape_at(json_object_get(json_object_get(config, "input_features"), "observation.state"), 0, 1));
    say(config, "action_dim", shape_at(json_object_get(json_object_get(config, "output_features"), "action"), 0, 1));
    return SOMA_OK;
}

// ---- a batch

typedef struct cut {
    int64_t top, left, height, width;
} cut;

// torchvision's: the middle is rounded to even; one place for a whole batch.
static cut cut_of(const soma_crop *crop, const soma_model_info *info, const soma_batch *b) {
    const int64_t H = info->image_size, W = soma__image_width(info);
    if (!crop || !crop->height || (crop->height == H && crop->width == W)) return (cut){0, 0, H, W};
    cut c = {.height = crop->height, .width = crop->width};
    if (crop->drawn && b->actions) {
        soma_rng rng = soma__rng(b->seed);
        c.top = (int64_t)soma__rng_below(&rng, (uint32_t)(H - c.height + 1));
        c.left = (int64_t)soma__rng_below(&rng, (uint32_t)(W - c.width + 1));
    } else {
        c.top = (int64_t)rint((double)(H - c.height) / 2);
        c.left = (int64_t)rint((double)(W - c.width) / 2);
    }
    return c;
}

// Planes of rows of pixels: bytes are one plane of three values a pixel, floats three of one.
static void cut_out(char *out, const char *in, const soma_model_info *info, const cut *c, size_t pixel, int64_t planes) {
    const int64_t W = soma__image_width(info);
    for (int64_t p = 0; p < planes; p++)
        for (int64_t y = 0; y < c->height; y++, out += (size_t)c->width * pixel)
            memcpy(out, in + (size_t)((p * info->image_size + c->top + y) * W + c->left) * pixel, (size_t)c->width * pixel);
}

soma_status soma__feed_pictures(soma_feed *feed, const soma_model_info *info, const soma_picture_norm *norm, const soma_crop *crop,
                                const soma_batch *b, soma_error *err) {
    const bool bytes = b->image_dtype == SOMA_U8;
    const int64_t n = b->n * (1 + info->history) * info->n_cameras;
    const size_t pixel = bytes ? 3 : sizeof(float), each = (size_t)soma__image_pixels(info) * (bytes ? 3 : 3 * sizeof(float));
    const cut c = cut_of(crop, info, b);
    if (c.height == info->image_size && c.width == soma__image_width(info))
        soma__feed_borrow(feed, "images", b->images, (size_t)n * each);
    else {
        const size_t size = (size_t)(c.height * c.width) * (bytes ? 3 : 3 * sizeof(float));
        char *out = soma__feed_own(feed, "images", (size_t)n * size);
        if (!out) return soma__no_memory(err, "a batch's pictures");
        for (int64_t i = 0; i < n; i++)
            cut_out(out + (size_t)i * size, (const char *)b->images + (size_t)i * each, info, &c, pixel, bytes ? 1 : 3);
    }
    float *scale = soma__feed_own(feed, "picture.scale", 3 * sizeof *scale),
          *shift = soma__feed_own(feed, "picture.shift", 3 * sizeof *shift);
    if (!scale || !shift) return soma__no_memory(err, "a batch's pictures");
    for (int i = 0; i < 3; i++) {
        scale[i] = (float)(1 / (255 * norm->std[i]));
        shift[i] = (float)(-norm->mean[i] / norm->std[i]);
    }
    return SOMA_OK;
}

soma_tensor *soma__picture_input(soma_graph *g, soma_dtype dtype, int64_t n, int64_t height, int64_t width) {
    if (dtype != SOMA_U8) {
        soma_tensor *x = soma_input(g, "images", SOMA_F32, 4, (int64_t[]){n, 3, height, width});
        return soma_contiguous(soma_permute(x, (int[]){0, 2, 3, 1}));
    }
    soma_tensor *x = soma_cast(soma_input(g, "images", SOMA_U8, 4, (int64_t[]){n, height, width, 3}), SOMA_F32);
    soma_tensor *scale = soma_input(g, "picture.scale", SOMA_F32, 1, (int64_t[]){3}),
                *shift = soma_input(g, "picture.shift", SOMA_F32, 1, (int64_t[]){3});
    return soma_add(soma_mul(x, scale), shift); // [n, H, W, 3]
}
