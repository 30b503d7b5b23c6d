// SPDX-License-Identifier: Apache-2.0
// The loops that encoding a chunk spends its time in. Included once per instruction set with PRODUCT and QUANTISE defined as the functions'
// names; vectors run over the columns, so every set of instructions adds the same numbers in the same order.
#include <string.h>

typedef double four __attribute__((vector_size(32)));

// Four rows of out by 4 `some` columns: the sums, each in the order of j. Eight of them at a time hide how long one addition takes.
static inline __attribute__((always_inline)) void rows_of(double *out, const double *c, const double *x, int64_t n_in, int64_t width,
                                                          int some) {
    four s[4][2] = {{{0}}};
    for (int64_t j = 0; j < n_in; j++, c += 4, x += width)
        for (int v = 0; v < some; v++) {
            four in = *(const four *)(x + 4 * v);
            for (int r = 0; r < 4; r++) s[r][v] += in * c[r];
        }
    for (int r = 0; r < 4; r++)
        for (int v = 0; v < some; v++) *(four *)(out + r * width + 4 * v) = s[r][v];
}

// out[4 block + r][a] = sum_j cosines[block][j][r] in[j][a]; in and out have `width` columns, a multiple of 4, 32-byte aligned.
void PRODUCT(double *out, const double *cosines, int64_t n_blocks, int64_t row_stride, const double *in, int64_t n_in, int64_t width) {
    for (int64_t b = 0; b < n_blocks; b++) {
        const double *c = cosines + b * row_stride * 4;
        double *o = out + b * 4 * width;
        int64_t a = 0;
        for (; a + 8 <= width; a += 8) rows_of(o + a, c, in + a, n_in, width, 2);
        if (a < width) rows_of(o + a, c, in + a, n_in, width, 1);
    }
}

// codes[i] = max(round(values[i] scale) - min, 0), half to even: what is added leaves a double no room for a fraction, and the whole number
// stands in its low bits. *n_clipped counts those below 0, *all has the bits of all codes. False where a value is too large for this or is
// no number.
bool QUANTISE(const double *values, int64_t n, double scale, int32_t min, int32_t *codes, int64_t *n_clipped, int32_t *all) {
    int32_t clipped = 0, bits = 0, bad = 0;
    for (int64_t i = 0; i < n; i++) {
        double v = values[i] * scale, shifted = v + 0x1.8p52;
        int64_t image;
        memcpy(&image, &shifted, sizeof image);
        int32_t code = (int32_t)image - min;
        bad |= !(v < 0x1p24) | !(v > -0x1p24);
        clipped += code < 0;
        codes[i] = code < 0 ? 0 : code;
        bits |= codes[i];
    }
    *n_clipped = clipped;
    *all = bits;
    return !bad;
}
