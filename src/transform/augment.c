// SPDX-License-Identifier: Apache-2.0
// Augmentation on the CPU, in [0, 1] like the original: two bilinear passes (crop, turn), then one pass for the mean and one for the
// colours. A single combined bilinear pass would be faster and blur less, but the released weights were trained with two.
#include "transform/augment.h"

#include "transform/lerp.h"

#include <math.h>
#include <string.h>

static const float NO_TURN = 0.1f; // degrees; smaller angles are skipped, as in the original

soma_augment_opts soma__augment_defaults(void) { return (soma_augment_opts){0.95, 5, 0.3, 0.4, 0.5}; }

size_t soma__augment_scratch(int height, int width) { return (size_t)(height + 1) * (size_t)width * 3; }

// The order of the draws is the original's: crop, angle, brightness, contrast, saturation. Wrist cameras draw colours only.
soma_augment soma__augment_draw(const soma_augment_opts *o, soma_rng *rng, int height, int width, bool wrist) {
    soma_augment d = {0};
    if (!wrist) {
        d.crop_height = SOMA_MAX((int)(height * o->crop), 1);
        d.crop_width = SOMA_MAX((int)(width * o->crop), 1);
        d.top = (int)soma__rng_below(rng, (uint64_t)(height - d.crop_height) + 1);
        d.left = (int)soma__rng_below(rng, (uint64_t)(width - d.crop_width) + 1);
        d.degrees = (float)soma__rng_range(rng, -o->degrees, o->degrees);
    }
    d.brightness = (float)soma__rng_range(rng, 1 - o->brightness, 1 + o->brightness);
    d.contrast = (float)soma__rng_range(rng, 1 - o->contrast, 1 + o->contrast);
    d.saturation = (float)soma__rng_range(rng, 1 - o->saturation, 1 + o->saturation);
    return d;
}

// The crop of `in`, resized to [height, width], into `out`. Lines first, since that pass is contiguous; `line` holds [crop_width, 3].
static void crop(const soma_augment *d, const float *in, float *out, int height, int width, float *line) {
    float down = (float)d->crop_height / (float)height, across = (float)d->crop_width / (float)width;
    int n = d->crop_width * 3;
    for (int y = 0; y < height; y++, out += width * 3) {
        soma_lerp row = soma__lerp_at(down, y, d->crop_height);
        const float *above = in + ((d->top + row.a) * width + d->left) * 3, *below = in + ((d->top + row.b) * width + d->left) * 3;
        for (int i = 0; i < n; i++) line[i] = (1 - row.t) * above[i] + row.t * below[i];
        for (int x = 0; x < width; x++) {
            soma_lerp column = soma__lerp_at(across, x, d->crop_width);
            const float *a = line + column.a * 3, *b = line + column.b * 3;
            for (int c = 0; c < 3; c++) out[x * 3 + c] = (1 - column.t) * a[c] + column.t * b[c];
        }
    }
}

// Value i of torch.linspace(-1, 1, n): counted from both ends, so that it is symmetric.
static float grid_at(int i, int n) {
    float step = n > 1 ? 2.0f / (float)(n - 1) : 0.0f;
    return i < n / 2 ? -1.0f + step * (float)i : 1.0f - step * (float)(n - 1 - i);
}

// One pixel of `in` at (x, y) with black around the picture: the slow way, for the rim.
static void sample_rim(const float *in, int height, int width, int x0, int y0, float tx, float ty, float *to) {
    for (int c = 0; c < 3; c++) to[c] = 0;
    for (int k = 0; k < 4; k++) {
        int x = x0 + (k & 1), y = y0 + (k >> 1);
        if (x < 0 || y < 0 || x >= width || y >= height) continue;
        float weight = (k & 1 ? tx : 1 - tx) * (k >> 1 ? ty : 1 - ty);
        for (int c = 0; c < 3; c++) to[c] += weight * in[(y * width + x) * 3 + c];
    }
}

// grid_sample(bilinear, zeros, align_corners=False) of the turned grid. The grid spans -1 .. 1 between pixel centres while sampling takes
// -1 .. 1 as the outer edges: the original's own mixture, which shrinks the view by one pixel and is kept.
static void turn(float degrees, const float *in, float *out, int height, int width) {
    float angle = degrees * (float)M_PI / 180.0f, cosine = cosf(angle), sine = sinf(angle);
    for (int y = 0; y < height; y++) {
        float gy = grid_at(y, height);
        for (int x = 0; x < width; x++, out += 3) {
            float gx = grid_at(x, width);
            float sx = ((gx * cosine - gy * sine + 1) * (float)width - 1) / 2, sy = ((gx * sine + gy * cosine + 1) * (float)height - 1) / 2;
            float fx = floorf(sx), fy = floorf(sy), tx = sx - fx, ty = sy - fy;
            int x0 = (int)fx, y0 = (int)fy;
            if (x0 < 0 || y0 < 0 || x0 >= width - 1 || y0 >= height - 1) {
                sample_rim(in, height, width, x0, y0, tx, ty, out);
                continue;
            }
            const float *above = in + (y0 * width + x0) * 3, *below = above + width * 3;
            float w00 = (1 - tx) * (1 - ty), w01 = tx * (1 - ty), w10 = (1 - tx) * ty, w11 = tx * ty;
            for (int c = 0; c < 3; c++) out[c] = w00 * above[c] + w01 * above[c + 3] + w10 * below[c] + w11 * below[c + 3];
        }
    }
}

static float unit(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

// [0, 1] in, [-1, 1] out.
static void colours(const soma_augment *d, const float *in, float *out, size_t n_pixels) {
    double sum = 0;
    for (size_t i = 0; i < n_pixels; i++) sum += (double)in[i * 3] + in[i * 3 + 1] + in[i * 3 + 2];
    float mean = (float)(sum * d->brightness / (double)(n_pixels * 3));
    for (size_t i = 0; i < n_pixels; i++) {
        float v[3];
        for (int c = 0; c < 3; c++) v[c] = (in[i * 3 + c] * d->brightness - mean) * d->contrast + mean;
        float grey = (v[0] + v[1] + v[2]) / 3.0f;
        for (int c = 0; c < 3; c++) out[i * 3 + c] = unit(grey + (v[c] - grey) * d->saturation) * 2 - 1;
    }
}

void soma__augment_apply(const soma_augment *d, float *image, int height, int width, float *scratch) {
    size_t n_pixels = (size_t)height * (size_t)width;
    for (size_t i = 0; i < n_pixels * 3; i++) image[i] = image[i] * 0.5f + 0.5f;
    float *now = image, *other = scratch;
    if (d->crop_width) {
        SOMA_CHECK(d->top >= 0 && d->left >= 0 && d->crop_height > 0 && d->top + d->crop_height <= height &&
                       d->left + d->crop_width <= width,
                   "a crop lies inside its picture");
        crop(d, now, other, height, width, scratch + n_pixels * 3);
        now = scratch, other = image;
        if (fabsf(d->degrees) > NO_TURN) {
            turn(d->degrees, now, other, height, width);
            now = image;
        }
    }
    colours(d, now, image, n_pixels);
}
