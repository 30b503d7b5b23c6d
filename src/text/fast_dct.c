// SPDX-License-Identifier: Apache-2.0
// See fast_dct.h. The direct way keeps its cosines in blocks of four frequencies (forward) or four steps (inverse), in the order in which
// the product reads them; the long way is Makhoul's: the steps reordered (even ones up, odd ones down), one complex Fourier transform, one
// rotation per frequency. A length that is no power of two becomes a convolution of one (Bluestein).
#include "text/fast_dct.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

#define PRODUCT soma__dct_product_plain
#define QUANTISE soma__quantise_plain
#include "text/fast_dct_product.h"

#if defined(__x86_64__)
static bool has_avx2(void) { return __builtin_cpu_supports("avx2"); }
#endif

typedef struct pair {
    double re, im;
} pair;

struct soma_dct {
    int64_t steps, half, width; // half: ceil(steps / 2); width: reserved columns, a multiple of 4
    soma_dct_product_fn *product;
    double *even, *odd;           // forward cosines [blocks][half][4] of even and odd frequencies
    double *even_back, *odd_back; // inverse cosines [blocks][half][4], four steps to a block
    double *scratch;              // folded input and output, 2 x 2 x [half + 3, width]
    // the long way
    int64_t points; // of the power-of-two transform
    pair *twist;    // [steps] exp(-i pi k / 2T), with the orthonormal factor
    pair *chirp;    // [steps] exp(-i pi n^2 / T); NULL when steps is a power of two
    pair *filter;   // [points] transform of the chirp's conjugate
    pair *roots;    // [points / 2] exp(-2 pi i j / points)
    pair *line;     // [points] one column at work
};

static double factor(int64_t k, int64_t steps) { return sqrt((k ? 2.0 : 1.0) / (double)steps); }

// cos(pi m / 2T) with the angle brought to the first period in whole numbers: as exact for a high frequency as for a low one.
static double cosine(int64_t m, int64_t steps) { return cos(PI * (double)(m % (4 * steps)) / (2.0 * (double)steps)); }

static int64_t blocks_of(int64_t rows) { return (rows + 3) / 4; }

// ---- the direct way

static double *cosines(const soma_dct *d, int first, bool back) {
    double *table = soma__calloc((size_t)(blocks_of(d->half) * d->half * 4), sizeof *table);
    if (!table) return NULL;
    int64_t n_frequencies = (d->steps - first + 1) / 2;
    for (int64_t i = 0; i < n_frequencies; i++)
        for (int64_t n = 0; n < d->half; n++) {
            int64_t k = 2 * i + first, row = back ? n : i, column = back ? i : n;
            table[(row / 4 * d->half + column) * 4 + row % 4] = factor(k, d->steps) * cosine((2 * n + 1) * k, d->steps);
        }
    return table;
}

static bool make_direct(soma_dct *d) {
    d->product = soma__dct_product_plain;
#if defined(__x86_64__)
    if (has_avx2()) d->product = soma__dct_product_avx2;
#endif
    d->even = cosines(d, 0, false);
    d->odd = cosines(d, 1, false);
    d->even_back = cosines(d, 0, true);
    d->odd_back = cosines(d, 1, true);
    return d->even && d->odd && d->even_back && d->odd_back;
}

static void forward_direct(soma_dct *d, const double *x, double *c, int64_t width) {
    int64_t T = d->steps, W = (width + 3) / 4 * 4, rows = blocks_of(d->half) * 4;
    double *sum = d->scratch, *difference = sum + rows * W, *even = difference + rows * W, *odd = even + rows * W;
    for (int64_t n = 0; n < T / 2; n++) {
        const double *low = x + n * width, *high = x + (T - 1 - n) * width;
        for (int64_t a = 0; a < width; a++) {
            sum[n * W + a] = low[a] + high[a];
            difference[n * W + a] = low[a] - high[a];
        }
        for (int64_t a = width; a < W; a++) sum[n * W + a] = difference[n * W + a] = 0;
    }
    if (T % 2) { // the step in the middle: odd frequencies are zero there
        memcpy(sum + T / 2 * W, x + T / 2 * width, (size_t)width * sizeof *x);
        for (int64_t a = width; a < W; a++) sum[T / 2 * W + a] = 0;
    }
    d->product(even, d->even, blocks_of(d->half), d->half, sum, d->half, W);
    d->product(odd, d->odd, blocks_of(T / 2), d->half, difference, T / 2, W);
    for (int64_t k = 0; k < T; k++) memcpy(c + k * width, (k % 2 ? odd : even) + k / 2 * W, (size_t)width * sizeof *c);
}

static void inverse_direct(soma_dct *d, const double *c, double *x, int64_t width, int64_t rows) {
    int64_t T = d->steps, W = (width + 3) / 4 * 4, room = blocks_of(d->half) * 4;
    double *even = d->scratch, *odd = even + room * W, *sum = odd + room * W, *difference = sum + room * W;
    for (int64_t k = 0; k < rows; k++) {
        double *row = (k % 2 ? odd : even) + k / 2 * W;
        memcpy(row, c + k * width, (size_t)width * sizeof *c);
        for (int64_t a = width; a < W; a++) row[a] = 0;
    }
    d->product(sum, d->even_back, blocks_of(d->half), d->half, even, (rows + 1) / 2, W);
    d->product(difference, d->odd_back, blocks_of(d->half), d->half, odd, rows / 2, W);
    for (int64_t n = 0; n < d->half; n++)
        for (int64_t a = 0; a < width; a++) {
            double e = sum[n * W + a], o = difference[n * W + a];
            x[n * width + a] = e + o;
            if (n < T / 2) x[(T - 1 - n) * width + a] = e - o;
        }
}

// ---- the long way

static pair times(pair a, pair b) { return (pair){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
static pair turn(double angle) { return (pair){cos(angle), sin(angle)}; }
static pair conjugate(pair a) { return (pair){a.re, -a.im}; }

// In place, `points` a power of two, unscaled. The inverse is the forward one of the conjugate, conjugated.
static void transform(const soma_dct *d, pair *z) {
    for (int64_t i = 1, j = 0; i < d->points; i++) {
        int64_t bit = d->points >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i < j) {
            pair t = z[i];
            z[i] = z[j];
            z[j] = t;
        }
    }
    for (int64_t len = 2; len <= d->points; len *= 2)
        for (int64_t from = 0; from < d->points; from += len)
            for (int64_t i = 0; i < len / 2; i++) {
                pair *low = z + from + i, *high = low + len / 2, t = times(*high, d->roots[i * (d->points / len)]);
                *high = (pair){low->re - t.re, low->im - t.im};
                *low = (pair){low->re + t.re, low->im + t.im};
            }
}

static bool make_long(soma_dct *d) {
    int64_t T = d->steps;
    bool power = !(T & (T - 1));
    for (d->points = 1; d->points < (power ? T : 2 * T - 1); d->points *= 2) continue;
    d->twist = soma__alloc((size_t)T * sizeof *d->twist);
    d->roots = soma__alloc((size_t)d->points * sizeof *d->roots);
    d->line = soma__alloc((size_t)d->points * sizeof *d->line);
    if (!power) {
        d->chirp = soma__alloc((size_t)T * sizeof *d->chirp);
        d->filter = soma__calloc((size_t)d->points, sizeof *d->filter);
    }
    if (!d->twist || !d->roots || !d->line || (!power && (!d->chirp || !d->filter))) return false;
    for (int64_t k = 0; k < T; k++) {
        pair w = turn(-PI * (double)k / (2.0 * (double)T));
        d->twist[k] = (pair){w.re * factor(k, T), w.im * factor(k, T)};
    }
    for (int64_t j = 0; j < d->points / 2; j++) d->roots[j] = turn(-2 * PI * (double)j / (double)d->points);
    if (power) return true;
    for (int64_t n = 0; n < T; n++) {
        d->chirp[n] = turn(-PI * (double)(n * n % (2 * T)) / (double)T);
        d->filter[n] = d->filter[(d->points - n) % d->points] = conjugate(d->chirp[n]);
    }
    transform(d, d->filter);
    return true;
}

// The Fourier transform of d->line[0 .. T-1], in place.
static void fourier(soma_dct *d) {
    int64_t T = d->steps;
    if (!d->chirp) {
        transform(d, d->line);
        return;
    }
    for (int64_t n = 0; n < T; n++) d->line[n] = times(d->line[n], d->chirp[n]);
    memset(d->line + T, 0, (size_t)(d->points - T) * sizeof *d->line);
    transform(d, d->line);
    for (int64_t i = 0; i < d->points; i++) d->line[i] = conjugate(times(d->line[i], d->filter[i]));
    transform(d, d->line);
    for (int64_t k = 0; k < T; k++) {
        pair v = conjugate(d->line[k]);
        v = times(v, d->chirp[k]);
        d->line[k] = (pair){v.re / (double)d->points, v.im / (double)d->points};
    }
}

// Where step n goes: even steps upwards, odd steps down from the end.
static int64_t place(int64_t n, int64_t steps) { return n % 2 ? steps - 1 - n / 2 : n / 2; }

static void forward_long(soma_dct *d, const double *x, double *c, int64_t width) {
    for (int64_t a = 0; a < width; a++) {
        for (int64_t n = 0; n < d->steps; n++) d->line[place(n, d->steps)] = (pair){x[n * width + a], 0};
        fourier(d);
        for (int64_t k = 0; k < d->steps; k++) c[k * width + a] = times(d->line[k], d->twist[k]).re;
    }
}

// The spectrum that forward_long would have seen is rebuilt from the coefficients (its values at k and T - k are conjugate), then undone.
static void inverse_long(soma_dct *d, const double *c, double *x, int64_t width, int64_t rows) {
    int64_t T = d->steps;
    for (int64_t a = 0; a < width; a++) {
        for (int64_t k = 0; k < T; k++) {
            pair v = {k < rows ? c[k * width + a] : 0, k && T - k < rows ? -c[(T - k) * width + a] : 0};
            double size = k ? (double)T / 2 : (double)T; // 1 / factor(k)^2
            v = times(conjugate(d->twist[k]), v);
            d->line[k] = (pair){v.re * size, -v.im * size};
        }
        fourier(d);
        for (int64_t n = 0; n < T; n++) x[n * width + a] = d->line[place(n, T)].re / (double)T;
    }
}

// ---- both

soma_status soma__dct_new(soma_dct **dct, int64_t steps, soma_error *err) {
    SOMA_CHECK(steps >= 1 && steps <= SOMA_DCT_MAX_STEPS, "a transform has 1 to SOMA_DCT_MAX_STEPS steps");
    soma_dct *d = *dct = soma__calloc(1, sizeof *d);
    if (!d) return soma__no_memory(err, "the cosine transform");
    d->steps = steps;
    d->half = (steps + 1) / 2;
    if (steps <= SOMA_DCT_DIRECT ? make_direct(d) : make_long(d)) return SOMA_OK;
    soma__dct_free(d);
    *dct = NULL;
    return soma__no_memory(err, "the cosine transform");
}

void soma__dct_free(soma_dct *d) {
    if (!d) return;
    void *all[] = {d->even, d->odd, d->even_back, d->odd_back, d->scratch, d->twist, d->chirp, d->filter, d->roots, d->line, d};
    for (size_t i = 0; i < SOMA_COUNT(all); i++) soma__free(all[i]);
}

soma_status soma__dct_reserve(soma_dct *d, int64_t width, soma_error *err) {
    if (width <= d->width || !d->product) return SOMA_OK;
    int64_t W = (width + 3) / 4 * 4;
    soma__free(d->scratch);
    d->width = 0;
    d->scratch = soma__alloc((size_t)(4 * blocks_of(d->half) * 4 * W) * sizeof *d->scratch);
    if (!d->scratch) return soma__no_memory(err, "the cosine transform");
    d->width = W;
    return SOMA_OK;
}

void soma__dct_forward(soma_dct *d, const double *x, double *c, int64_t width) {
    SOMA_CHECK(!d->product || width <= d->width, "the transform's scratch is reserved for this width");
    (d->product ? forward_direct : forward_long)(d, x, c, width);
}

void soma__dct_inverse(soma_dct *d, const double *c, double *x, int64_t width, int64_t rows) {
    SOMA_CHECK(!d->product || width <= d->width, "the transform's scratch is reserved for this width");
    (d->product ? inverse_direct : inverse_long)(d, c, x, width, SOMA_MIN(rows, d->steps));
}

bool soma__quantise(const double *values, int64_t n, double scale, int32_t min, int32_t *codes, int64_t *n_clipped, int32_t *all) {
#if defined(__x86_64__)
    if (has_avx2()) return soma__quantise_avx2(values, n, scale, min, codes, n_clipped, all);
#endif
    return soma__quantise_plain(values, n, scale, min, codes, n_clipped, all);
}
