// SPDX-License-Identifier: Apache-2.0
// Augmentation on the CPU, in [0, 1] like the original: two bilinear passes (crop, turn), then one pass for the mean and one for the
// colours. A single combined bilinear pass would be faster and blur less, but the released weights were trained with two.
#include "transform/augment.h"

#include "transform/lerp.h"

#include <math.h>
#include <string.h>

static const float NO_TURN = 0.1f; // degrees; smaller angles are skipped, as in the original

soma_augment_opts soma__augment_defaults(void) { return (soma_augment_opts){0.95, 5, 0.3, 0.4, 0.5}; }

typedef float pixel __attribute__((vector_size(16))); // red, green, blue, 0

// What lies in the scratch memory.
typedef struct workspace {
    pixel *now, *other;   // [height, width], swapped by each pass
    pixel *line;          // [width]
    soma_lerp *columns;   // [width]
    float *across, *down; // [width]: a column's part of the turned grid
} workspace;

size_t soma__augment_scratch(int height, int width) {
    return ((size_t)height * 2 + 1) * (size_t)width * sizeof(pixel) + (size_t)width * (sizeof(soma_lerp) + 2 * sizeof(float));
}

static workspace lay_out(void *scratch, int height, int width) {
    SOMA_CHECK((uintptr_t)scratch % sizeof(pixel) == 0, "scratch memory for augmentation is aligned to 16 bytes");
    size_t n = (size_t)height * (size_t)width, w = (size_t)width;
    workspace s = {.now = scratch};
    s.other = s.now + n;
    s.line = s.other + n;
    s.columns = (soma_lerp *)(s.line + w);
    s.across = (float *)(s.columns + w);
    s.down = s.across + w;
    return s;
}

static void swap(workspace *s) {
    pixel *p = s->now;
    s->now = s->other;
    s->other = p;
}

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

// The crop, resized to the whole picture. Lines first, since that pass is contiguous.
static void crop(const soma_augment *d, workspace *s, int height, int width) {
    float down = (float)d->crop_height / (float)height, across = (float)d->crop_width / (float)width;
    for (int x = 0; x < width; x++) s->columns[x] = soma__lerp_at(across, x, d->crop_width);
    pixel *out = s->other;
    for (int y = 0; y < height; y++, out += width) {
        soma_lerp row = soma__lerp_at(down, y, d->crop_height);
        const pixel *above = s->now + (d->top + row.a) * width + d->left, *below = s->now + (d->top + row.b) * width + d->left;
        for (int x = 0; x < d->crop_width; x++) s->line[x] = (1 - row.t) * above[x] + row.t * below[x];
        for (int x = 0; x < width; x++) {
            soma_lerp c = s->columns[x];
            out[x] = (1 - c.t) * s->line[c.a] + c.t * s->line[c.b];
        }
    }
    swap(s);
}

// Value i of torch.linspace(-1, 1, n): counted from both ends, so that it is symmetric.
static float grid_at(int i, int n) {
    float step = n > 1 ? 2.0f / (float)(n - 1) : 0.0f;
    return i < n / 2 ? -1.0f + step * (float)i : 1.0f - step * (float)(n - 1 - i);
}

// The pixel between (x, y) and its right and lower neighbours, with black around the picture: the slow way, for the rim.
static pixel sample_rim(const pixel *in, int height, int width, int x0, int y0, float tx, float ty) {
    pixel sum = {0};
    for (int k = 0; k < 4; k++) {
        int x = x0 + (k & 1), y = y0 + (k >> 1);
        if (x < 0 || y < 0 || x >= width || y >= height) continue;
        sum += (k & 1 ? tx : 1 - tx) * (k >> 1 ? ty : 1 - ty) * in[y * width + x];
    }
    return sum;
}

static int floor_of(float x) { return (int)x - (x < (float)(int)x); } // floorf is a call where SSE4 may not be assumed

// grid_sample(bilinear, zeros, align_corners=False) of the turned grid. The grid spans -1 .. 1 between pixel centres while sampling takes
// -1 .. 1 as the outer edges: the original's own mixture, which shrinks the view by one pixel and is kept.
static void turn(float degrees, workspace *s, int height, int width) {
    float angle = degrees * (float)M_PI / 180.0f, cosine = cosf(angle), sine = sinf(angle);
    for (int x = 0; x < width; x++) {
        s->across[x] = grid_at(x, width) * cosine;
        s->down[x] = grid_at(x, width) * sine;
    }
    pixel *out = s->other;
    for (int y = 0; y < height; y++) {
        float gx = grid_at(y, height) * sine, gy = grid_at(y, height) * cosine;
        for (int x = 0; x < width; x++, out++) {
            float sx = ((s->across[x] - gx + 1) * (float)width - 1) * 0.5f, sy = ((s->down[x] + gy + 1) * (float)height - 1) * 0.5f;
            int x0 = floor_of(sx), y0 = floor_of(sy);
            float tx = sx - (float)x0, ty = sy - (float)y0;
            if (x0 < 0 || y0 < 0 || x0 >= width - 1 || y0 >= height - 1) {
                *out = sample_rim(s->now, height, width, x0, y0, tx, ty);
                continue;
            }
            const pixel *above = s->now + y0 * width + x0, *below = above + width;
            *out = (1 - tx) * (1 - ty) * above[0] + tx * (1 - ty) * above[1] + (1 - tx) * ty * below[0] + tx * ty * below[1];
        }
    }
    swap(s);
}

// To [0, 1] by masks: a vector has no ?: in C.
static pixel clamp(pixel x) {
    typedef int32_t mask __attribute__((vector_size(16)));
    x = (pixel)((mask)x & (x > 0));
    const pixel one = {1, 1, 1, 1};
    mask over = x > one;
    return (pixel)(((mask)x & ~over) | ((mask)one & over));
}

// [0, 1] in, [-1, 1] out.
static void colours(const soma_augment *d, const pixel *in, float *out, int height, int width) {
    double sum = 0;
    for (int y = 0; y < height; y++) { // a line in f32, the lines in double: good to f32's last place at any size
        pixel line = {0};
        for (int x = 0; x < width; x++) line += in[y * width + x];
        sum += (double)line[0] + line[1] + line[2];
    }
    size_t n_pixels = (size_t)height * (size_t)width;
    float mean = (float)(sum * d->brightness / (double)(n_pixels * 3));
    for (size_t i = 0; i < n_pixels; i++) {
        pixel v = (in[i] * d->brightness - mean) * d->contrast + mean;
        float grey = (v[0] + v[1] + v[2]) / 3.0f;
        v = clamp(grey + (v - grey) * d->saturation) * 2 - 1;
        memcpy(out + i * 3, &v, 3 * sizeof *out);
    }
}

static void apply(const soma_augment *d, workspace *s, float *out, int height, int width) {
    if (d->crop_width) {
        SOMA_CHECK(d->top >= 0 && d->left >= 0 && d->crop_height > 0 && d->top + d->crop_height <= height &&
                       d->left + d->crop_width <= width,
                   "a crop lies inside its picture");
        crop(d, s, height, width);
        if (fabsf(d->degrees) > NO_TURN) turn(d->degrees, s, height, width);
    }
    colours(d, s->now, out, height, width);
}

void soma__augment_f32(const soma_augment *draw, float *image, int height, int width, void *scratch) {
    workspace s = lay_out(scratch, height, width);
    for (int i = 0; i < height * width; i++)
        s.now[i] = (pixel){image[i * 3] * 0.5f + 0.5f, image[i * 3 + 1] * 0.5f + 0.5f, image[i * 3 + 2] * 0.5f + 0.5f, 0};
    apply(draw, &s, image, height, width);
}

void soma__augment_u8(const soma_augment *draw, const uint8_t *in, float *out, int height, int width, void *scratch) {
    workspace s = lay_out(scratch, height, width);
    float unit[256]; // by way of [-1, 1], for the same bits as from f32
    for (int i = 0; i < 256; i++) unit[i] = ((float)i / 255.0f * 2.0f - 1.0f) * 0.5f + 0.5f;
    for (int i = 0; i < height * width; i++) s.now[i] = (pixel){unit[in[i * 3]], unit[in[i * 3 + 1]], unit[in[i * 3 + 2]], 0};
    apply(draw, &s, out, height, width);
}
