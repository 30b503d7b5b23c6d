// SPDX-License-Identifier: Apache-2.0
// Resizing with padding. The PIL path repeats Pillow's resampling exactly: weights rounded to 22 bits, horizontal pass to u8, vertical pass
// to u8. Lines of the intermediate picture are padded to whole blocks, so that the vertical pass is a loop of known length and vectorises.
#include "transform/resize.h"

#include "transform/lerp.h"

#include <math.h>
#include <string.h>

enum { MAX_SIDE = 16384, BITS = 22, BLOCK = 32 };

// One pass: output position i is the sum of n source values from `first` on, weighted.
typedef struct taps {
    int *first, *n;
    int32_t *weights; // [positions, room]
    int room;
} taps;

struct soma_resizer {
    soma_resize_rule rule;
    int in_width, in_height, out_width, out_height;
    int width, height, left, top; // where the picture lies in the output
    // PIL
    taps across, down;
    size_t stride;   // bytes per line of `middle`
    uint8_t *middle; // [in_height, stride], as wide as the result
    uint8_t *result; // [out_height, out_width, 3] when f32 is wanted
    // TORCH, LEROBOT
    soma_lerp *columns; // [width]
    float values[256];  // what a byte means before the filter
};

// ---- planning

// Pillow's triangle filter for one line: support grows with the scale, weights are normalised, then rounded to BITS.
static bool plan_taps(taps *t, int in, int out) {
    double scale = (double)in / out, wide = scale < 1 ? 1 : scale; // support of the triangle is 1
    t->room = (int)ceil(wide) * 2 + 1;
    t->first = soma__alloc((size_t)out * sizeof *t->first);
    t->n = soma__alloc((size_t)out * sizeof *t->n);
    t->weights = soma__calloc((size_t)out * (size_t)t->room, sizeof *t->weights);
    double *exact = soma__alloc((size_t)t->room * sizeof *exact);
    bool ok = t->first && t->n && t->weights && exact;
    for (int i = 0; ok && i < out; i++) {
        double centre = (i + 0.5) * scale, sum = 0;
        int first = SOMA_MAX((int)(centre - wide + 0.5), 0), last = SOMA_MIN((int)(centre + wide + 0.5), in);
        for (int k = 0; k < last - first; k++) {
            double x = fabs((k + first - centre + 0.5) / wide);
            exact[k] = x < 1 ? 1 - x : 0;
            sum += exact[k];
        }
        for (int k = 0; k < last - first; k++)
            t->weights[i * t->room + k] = (int32_t)(0.5 + (sum != 0 ? exact[k] / sum : exact[k]) * (1 << BITS));
        t->first[i] = first;
        t->n[i] = last - first;
    }
    soma__free(exact);
    return ok;
}

static void free_taps(taps *t) {
    soma__free(t->first);
    soma__free(t->n);
    soma__free(t->weights);
}

static bool plan(soma_resizer *r) {
    if (r->rule == SOMA_RESIZE_PIL) {
        r->stride = ((size_t)r->width * 3 + BLOCK - 1) / BLOCK * BLOCK;
        r->middle = soma__calloc((size_t)r->in_height * r->stride, 1);
        r->result = soma__alloc((size_t)r->out_width * (size_t)r->out_height * 3);
        return plan_taps(&r->across, r->in_width, r->width) && plan_taps(&r->down, r->in_height, r->height) && r->middle && r->result;
    }
    r->columns = soma__alloc((size_t)r->width * sizeof *r->columns);
    if (!r->columns) return false;
    float scale = (float)r->in_width / (float)r->width;
    for (int x = 0; x < r->width; x++) r->columns[x] = soma__lerp_at(scale, x, r->in_width);
    for (int i = 0; i < 256; i++) {
        float unit = (float)i / 255.0f;
        r->values[i] = r->rule == SOMA_RESIZE_TORCH ? unit * 2.0f - 1.0f : unit;
    }
    return true;
}

soma_status soma__resizer_new(soma_resizer **resizer, soma_resize_rule rule, int in_width, int in_height, int out_width, int out_height,
                              soma_error *err) {
    *resizer = NULL;
    const int sides[] = {in_width, in_height, out_width, out_height};
    for (size_t i = 0; i < SOMA_COUNT(sides); i++)
        if (sides[i] < 1 || sides[i] > MAX_SIDE)
            return soma__fail(err, SOMA_BAD_INPUT, "a picture of %d x %d cannot be resized to %d x %d: sides of 1 to %d are possible",
                              in_width, in_height, out_width, out_height, MAX_SIDE);
    // truncation as in the original's double arithmetic: 225 lines become 223, not 224
    double ratio = SOMA_MAX((double)in_width / out_width, (double)in_height / out_height);
    int width = (int)(in_width / ratio), height = (int)(in_height / ratio);
    if (width < 1 || height < 1)
        return soma__fail(err, SOMA_BAD_INPUT, "a picture of %d x %d is too narrow for %d x %d: nothing of it would be left", in_width,
                          in_height, out_width, out_height);
    soma_resizer *r = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, "a resize");
    r->rule = rule;
    r->in_width = in_width, r->in_height = in_height, r->out_width = out_width, r->out_height = out_height;
    r->width = width, r->height = height;
    const int share = rule == SOMA_RESIZE_SMOLVLA ? 1 : 2;
    r->left = (out_width - width) / share, r->top = (out_height - height) / share;
    if (!plan(r)) {
        soma__resizer_free(r);
        return soma__no_memory(err, "a resize");
    }
    *resizer = r;
    return SOMA_OK;
}

void soma__resizer_free(soma_resizer *r) {
    if (!r) return;
    free_taps(&r->across);
    free_taps(&r->down);
    soma__free(r->middle);
    soma__free(r->result);
    soma__free(r->columns);
    soma__free(r);
}

// ---- PIL

// The weights of one position sum to at most 2^BITS plus a rounding error of half a unit each, so the result fits a byte but for that
// error.
static uint8_t rounded(int32_t sum) { return (uint8_t)SOMA_MIN(sum >> BITS, 255); }

static void pass_across(const soma_resizer *r, const uint8_t *in) {
    const taps *t = &r->across;
    if (r->width == r->in_width) { // as Pillow: no pass, no rounding
        for (int y = 0; y < r->in_height; y++)
            memcpy(r->middle + (size_t)y * r->stride, in + (size_t)y * r->in_width * 3, (size_t)r->width * 3);
        return;
    }
    for (int y = 0; y < r->in_height; y++) {
        const uint8_t *line = in + (size_t)y * r->in_width * 3;
        uint8_t *to = r->middle + (size_t)y * r->stride;
        for (int x = 0; x < r->width; x++) {
            const int32_t *w = t->weights + x * t->room;
            const uint8_t *p = line + t->first[x] * 3;
            int32_t red = 1 << (BITS - 1), green = red, blue = red;
            for (int k = 0; k < t->n[x]; k++, p += 3) red += w[k] * p[0], green += w[k] * p[1], blue += w[k] * p[2];
            to[x * 3] = rounded(red), to[x * 3 + 1] = rounded(green), to[x * 3 + 2] = rounded(blue);
        }
    }
}

// Output line y of the picture, `used` bytes, into `to`.
static void pass_down(const soma_resizer *r, int y, uint8_t *to) {
    const taps *t = &r->down;
    size_t used = (size_t)r->width * 3;
    const uint8_t *from = r->middle + (size_t)t->first[y] * r->stride;
    if (r->height == r->in_height) {
        memcpy(to, r->middle + (size_t)y * r->stride, used);
        return;
    }
    const int32_t *w = t->weights + y * t->room;
    for (size_t x = 0; x < used; x += BLOCK) {
        int32_t sum[BLOCK];
        uint8_t bytes[BLOCK];
        for (int j = 0; j < BLOCK; j++) sum[j] = 1 << (BITS - 1);
        for (int k = 0; k < t->n[y]; k++) {
            const uint8_t *p = from + (size_t)k * r->stride + x;
            for (int j = 0; j < BLOCK; j++) sum[j] += w[k] * p[j];
        }
        for (int j = 0; j < BLOCK; j++) bytes[j] = rounded(sum[j]);
        memcpy(to + x, bytes, SOMA_MIN((size_t)BLOCK, used - x));
    }
}

void soma__resizer_u8(soma_resizer *r, const uint8_t *in, uint8_t *out) {
    SOMA_CHECK(r->rule == SOMA_RESIZE_PIL, "bytes come out of the PIL rule alone");
    size_t line = (size_t)r->out_width * 3, size = line * (size_t)r->out_height;
    if (r->in_width == r->out_width && r->in_height == r->out_height) {
        memcpy(out, in, size);
        return;
    }
    if (r->width != r->out_width || r->height != r->out_height) memset(out, 0, size);
    pass_across(r, in);
    for (int y = 0; y < r->height; y++) pass_down(r, y, out + (size_t)(r->top + y) * line + r->left * 3);
}

// ---- torch

static float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

static bool is_lerobot(soma_resize_rule rule) { return rule != SOMA_RESIZE_PIL && rule != SOMA_RESIZE_TORCH; }

static void bilinear(const soma_resizer *r, const uint8_t *in, float *out) {
    bool lerobot = is_lerobot(r->rule);
    size_t line = (size_t)r->in_width * 3;
    float scale = (float)r->in_height / (float)r->height, low = lerobot ? 0.0f : -1.0f;
    const float *v = r->values;
    for (int y = 0; y < r->height; y++) {
        soma_lerp row = soma__lerp_at(scale, y, r->in_height);
        const uint8_t *above = in + (size_t)row.a * line, *below = in + (size_t)row.b * line;
        float *to = out + ((size_t)(r->top + y) * (size_t)r->out_width + (size_t)r->left) * 3;
        for (int x = 0; x < r->width; x++) {
            soma_lerp column = r->columns[x];
            for (int c = 0; c < 3; c++) {
                int a = column.a * 3 + c, b = column.b * 3 + c;
                float upper = (1 - column.t) * v[above[a]] + column.t * v[above[b]];
                float lower = (1 - column.t) * v[below[a]] + column.t * v[below[b]];
                float value = clamp((1 - row.t) * upper + row.t * lower, low, 1.0f);
                to[x * 3 + c] = lerobot ? value * 2.0f - 1.0f : value;
            }
        }
    }
}

void soma__resizer_f32(soma_resizer *r, const uint8_t *in, float *out) {
    size_t size = (size_t)r->out_width * (size_t)r->out_height * 3;
    if (r->in_width == r->out_width && r->in_height == r->out_height) {
        soma__image_to_f32(out, in, size); // every rule leaves the picture as it is
    } else if (r->rule == SOMA_RESIZE_PIL) {
        soma__resizer_u8(r, in, r->result);
        soma__image_to_f32(out, r->result, size);
    } else {
        if (r->width != r->out_width || r->height != r->out_height)
            for (size_t i = 0; i < size; i++) out[i] = r->rule == SOMA_RESIZE_LEROBOT_04 ? -3.0f : -1.0f;
        bilinear(r, in, out);
    }
}

void soma__image_to_f32(float *out, const uint8_t *in, size_t n) {
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int j = 0; j < BLOCK; j++) out[i + j] = (float)in[i + j] / 255.0f * 2.0f - 1.0f;
    for (; i < n; i++) out[i] = (float)in[i] / 255.0f * 2.0f - 1.0f;
}
