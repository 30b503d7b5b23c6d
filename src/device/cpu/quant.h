// SPDX-License-Identifier: Apache-2.0
// Quantised matrix products: the numbers, defined once for the plain kernel and the fast ones, which agree to the last bit.
//
// Both factors are turned along the contraction, 128 elements at a time, by the same orthogonal matrix (Hadamard's), which leaves the
// product what it is and spreads an outlying channel over its block; without it a channel 30 times as large as the others costs int8
// activations five times their error (docs/inspect.md). The last block is filled with zeros. Then, with a row's largest value as its
// measure:
//   int8    activations: whole numbers up to 127, one scale per row; weights: the same, one scale per output channel
//   int8w   weights as above; activations are whole numbers up to 32639, kept as two bytes: 256 high + low, both signed
//   int4w   activations as above; weights: one of 16 levels, one bf16 scale for each group of 32 along the contraction
// Products of whole numbers are summed exactly; each scale is applied once, in a fixed order, so that only the f32 roundings written in
// plain_quant.c happen, whatever the instruction set, the threads and the other rows of the batch.
#ifndef SOMA_DEVICE_CPU_QUANT_H
#define SOMA_DEVICE_CPU_QUANT_H

#include "device/cpu/cpu.h"

#include <math.h>
#include <string.h>

enum {
    QUANT_BLOCK = 128,      // elements that are turned together; 256 and 2048 spread no better (1.2 against 1.3 % of a product's norm)
    QUANT_GROUP = 32,       // elements of a 4-bit group; 64 cost a tenth more error for 6 % less memory
    QUANT_BYTE_MAX = 127,   // of a whole number in a byte
    QUANT_PAIR_MAX = 32639, // 127 * 256 + 127, of one in two bytes
    QUANT_LEVELS = 16,
    QUANT_MAX_K = 1 << 16, // 127 * 128 * K fits 32 bits
};

// The levels of 4-bit weights: those of least square error for normal values in groups of 32 whose largest value lies at either end
// (fitted by Lloyd's iteration, rounded). Steps and middles follow.
static const int8_t quant_levels[QUANT_LEVELS] = {-127, -100, -80, -64, -49, -36, -23, -10, 2, 14, 26, 38, 51, 66, 84, 109};

static inline int64_t quant_padded(int64_t K) { return (K + QUANT_BLOCK - 1) / QUANT_BLOCK * QUANT_BLOCK; }

// Both turned factors are sqrt(128) times too large: weights' scales are a 128th.
static const float quant_unturn = 1.0f / QUANT_BLOCK;

// Hadamard's matrix times x [128], unscaled: sums and differences at distance 1, 2, 4 ... 64.
static inline void quant_turn(float *x) {
    for (int h = 1; h < QUANT_BLOCK; h *= 2)
        for (int i = 0; i < QUANT_BLOCK; i += 2 * h)
            for (int j = i; j < i + h; j++) {
                const float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
}

// The largest |x|, as the bits of an f32, which have the order of whole numbers: a NaN is the largest of all and stays one.
static inline uint32_t quant_largest(uint32_t top, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        top = SOMA_MAX(top, u & 0x7fffffffu);
    }
    return top;
}

// What a row is multiplied with to become whole numbers up to `most`, and the scale that undoes it.
typedef struct quant_measure {
    float inverse, scale;
} quant_measure;
static inline quant_measure quant_measure_of(uint32_t largest, int most) {
    float top;
    memcpy(&top, &largest, sizeof top);
    return (quant_measure){top > 1e-30f ? (float)most / top : 0, top / (float)most};
}

static inline int quant_whole(float x, float inverse, int most) {
    const float t = rintf(x * inverse), m = (float)most;
    return (int)(t > m ? m : t > -m ? t : -m); // a NaN is no whole number: the scale tells it
}
static inline void quant_bytes(int8_t *q, const float *x, int64_t n, float inverse) {
    for (int64_t i = 0; i < n; i++) q[i] = (int8_t)quant_whole(x[i], inverse, QUANT_BYTE_MAX);
}
// The two bytes of whole numbers up to QUANT_PAIR_MAX.
static inline void quant_pairs(int8_t *high, int8_t *low, const float *x, int64_t n, float inverse) {
    for (int64_t i = 0; i < n; i++) {
        const int t = quant_whole(x[i], inverse, QUANT_PAIR_MAX), l = (int8_t)(uint8_t)(t & 255);
        low[i] = (int8_t)l;
        high[i] = (int8_t)((t - l) >> 8);
    }
}

// The scales that are tried for a group of 32, as bf16: the value of largest size lies at one end of the levels or the other, or beyond.
enum { QUANT_TRIES = 6 };
static inline uint16_t quant_try(float most, int try) {
    static const float beyond[] = {1.0f, 0.9f, 0.82f};
    return cpu_to_bf16(most / (float)quant_levels[try < 3 ? 0 : QUANT_LEVELS - 1] * beyond[try % 3]);
}
static inline float quant_inverse(float scale) { return fabsf(scale) > 1e-30f ? 1 / scale : 0; }

static inline float quant_middle(int j) { return 0.5f * (float)(quant_levels[j - 1] + quant_levels[j]); } // of the levels before j and at j

// Takes the scale of least square error and writes which level each value is at.
static inline uint16_t quant_group(uint8_t which[QUANT_GROUP], const float x[QUANT_GROUP]) {
    enum { LANES = 16 };
    float high[LANES], low[LANES], best = INFINITY;
    uint16_t best_scale = 0;
    for (int l = 0; l < LANES; l++) {
        high[l] = SOMA_MAX(x[l], x[l + LANES]);
        low[l] = SOMA_MIN(x[l], x[l + LANES]);
    }
    for (int l = 1; l < LANES; l++) {
        high[0] = SOMA_MAX(high[0], high[l]);
        low[0] = SOMA_MIN(low[0], low[l]);
    }
    const float most = high[0] >= -low[0] ? high[0] : low[0];
    for (int try = 0; try < QUANT_TRIES; try++) {
        const uint16_t scale = quant_try(most, try);
        const float s = cpu_from_bf16(scale), inverse = quant_inverse(s);
        float off[LANES] = {0};
        for (int half = 0; half < QUANT_GROUP; half += LANES) {
            float level[LANES];
            for (int l = 0; l < LANES; l++) level[l] = quant_levels[0];
            for (int j = 1; j < QUANT_LEVELS; j++) {
                const float step = (float)(quant_levels[j] - quant_levels[j - 1]);
                for (int l = 0; l < LANES; l++) level[l] += x[half + l] * inverse > quant_middle(j) ? step : 0;
            }
            for (int l = 0; l < LANES; l++) {
                const float d = level[l] * s - x[half + l];
                off[l] += d * d;
            }
        }
        for (int n = LANES / 2; n; n /= 2)
            for (int l = 0; l < n; l++) off[l] += off[l + n];
        if (off[0] < best) best = off[0], best_scale = scale;
    }
    const float inverse = quant_inverse(cpu_from_bf16(best_scale));
    for (int i = 0; i < QUANT_GROUP; i++) {
        uint8_t at = 0;
        for (int j = 1; j < QUANT_LEVELS; j++) at += x[i] * inverse > quant_middle(j);
        which[i] = at;
    }
    return best_scale;
}

// The scale of a group as products take it: exact, bf16 times a power of two.
static inline float quant_group_scale(uint16_t bf16) { return cpu_from_bf16(bf16) * quant_unturn; }

// Elements [k0, k0 + 128) of a row as f32, zeros behind its K.
static inline void quant_block(float out[QUANT_BLOCK], const void *row, soma_dtype dtype, int64_t k0, int64_t K) {
    const int64_t n = SOMA_MIN(QUANT_BLOCK, K - k0);
    if (dtype == SOMA_F32)
        memcpy(out, (const float *)row + k0, (size_t)n * sizeof *out);
    else
        for (int64_t i = 0; i < n; i++) out[i] = cpu_from_bf16(((const uint16_t *)row)[k0 + i]);
    for (int64_t i = n; i < QUANT_BLOCK; i++) out[i] = 0;
}

#endif
