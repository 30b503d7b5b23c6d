// SPDX-License-Identifier: Apache-2.0
// Packing, quantising and register tiles of the quantised matrix product, compiled once for each instruction set (fast_quant.h: layouts).
#include "device/cpu/fast_quant.h"
#include "device/cpu/simd_convert.h"

// Register tiles: QUANT_MR rows of bytes x QUANT_NV vectors of sums.
#if defined(__AVX512VNNI__)
enum { QUANT_MR = 6, QUANT_NV = 4 };
#elif defined(__aarch64__)
enum { QUANT_MR = 4, QUANT_NV = 4 };
#else
enum { QUANT_MR = 4, QUANT_NV = 2 };
#endif
enum {
    QUANT_OFFSET = SIMD_BYTE_OFFSET,
    QUANT_NR = QUANT_NV * VW,
    GROUP_WORDS = QUANT_GROUP / 4,
    GROUP_SIZE = QUANT_NR * (QUANT_GROUP / 2 + 2)
};

SIMD_INLINE float first_of(vf x) { return x[0]; }

// quant_turn, with the same sums in the same order. In a vector, lanes with bit h set are the differences: neighbour - x.
SIMD_INLINE void turn(float *block) {
    enum { N = QUANT_BLOCK / VW };
    static const float order[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vf x[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) x[i] = vf_load(block + i * VW);
#pragma GCC unroll 4
    for (int h = 1; h < VW; h *= 2) {
        const vi bit = vi_left(vi_and(vi_from(vf_load(order)), vi_set(h)), h == 1 ? 31 : h == 2 ? 30 : h == 4 ? 29 : 28);
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) x[i] = vf_swap(x[i], h) + vf_bits(vi_xor(vi_bits(x[i]), bit));
    }
#pragma GCC unroll 4
    for (int h = 1; h < N; h *= 2)
#pragma GCC unroll 16
        for (int i = 0; i < N; i++)
            if (!(i & h)) {
                const vf a = x[i], b = x[i + h];
                x[i] = a + b;
                x[i + h] = a - b;
            }
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) vf_store(block + i * VW, x[i]);
}

// Block k0 of a row, turned.
SIMD_INLINE void turned(float block[QUANT_BLOCK], const void *row, soma_dtype dtype, int64_t k0, int64_t K) {
    const int64_t n = SOMA_MIN(QUANT_BLOCK, K - k0);
    simd_widen(block, (const char *)row + k0 * (dtype == SOMA_F32 ? 4 : 2), dtype, n);
    for (int64_t i = n; i < QUANT_BLOCK; i++) block[i] = 0;
    turn(block);
}

SIMD_INLINE quant_measure measure(const void *row, soma_dtype dtype, int64_t K, int most) {
    _Alignas(64) float block[QUANT_BLOCK];
    uint32_t top = 0;
    for (int64_t k = 0; k < K; k += QUANT_BLOCK) {
        turned(block, row, dtype, k, K);
        top = quant_largest(top, block, QUANT_BLOCK);
    }
    return quant_measure_of(top, most);
}

// ---- weights

// How many of the middles between levels lie below t: the number of the nearest level.
SIMD_INLINE vi number_of(vf t) {
    vi n = vi_set(0);
#if defined(__AVX512F__)
    float middles[16] = {0};
    for (int j = 1; j < QUANT_LEVELS; j++) middles[j - 1] = quant_middle(j);
#pragma GCC unroll 4
    for (int h = 8; h; h /= 2) n = vi_add(n, vi_pick(vm_less(vf_lookup(middles, vi_add(n, vi_set(h - 1))), t), vi_set(h), vi_set(0)));
#else
#pragma GCC unroll 16
    for (int j = 1; j < QUANT_LEVELS; j++) n = vi_count(n, vm_less(vf_set(quant_middle(j)), t));
#endif
    return n;
}
SIMD_INLINE vf level_at(vi n) {
    float levels[QUANT_LEVELS];
    for (int j = 0; j < QUANT_LEVELS; j++) levels[j] = quant_levels[j];
    return vf_lookup(levels, n);
}

// quant_group, with the same sums in the same order.
static uint16_t group(uint8_t which[QUANT_GROUP], const float *x) {
    enum { HALF = 16 / VW };
    vf off[HALF], v[2 * HALF];
    float best = INFINITY, high, low;
    uint16_t best_scale = 0;
    for (int i = 0; i < 2 * HALF; i++) v[i] = vf_load(x + i * VW);
    vf top = v[0], bottom = vf_set(0) - v[0];
    for (int i = 1; i < 2 * HALF; i++) top = vf_max(top, v[i]), bottom = vf_max(bottom, vf_set(0) - v[i]);
    high = vf_largest(top), low = -vf_largest(bottom);
    const float most = high >= -low ? high : low;
    for (int try = 0; try < QUANT_TRIES; try++) {
        const uint16_t scale = quant_try(most, try);
        const float s = cpu_from_bf16(scale);
        const vf inverse = vf_set(quant_inverse(s));
        for (int i = 0; i < HALF; i++) {
            const vf d = level_at(number_of(v[i] * inverse)) * vf_set(s) - v[i];
            const vf e = level_at(number_of(v[i + HALF] * inverse)) * vf_set(s) - v[i + HALF];
            off[i] = d * d + e * e;
        }
        for (int n = HALF / 2; n; n /= 2)
            for (int i = 0; i < n; i++) off[i] += off[i + n];
        vf sum = off[0];
#pragma GCC unroll 4
        for (int n = VW / 2; n; n /= 2) sum += vf_swap(sum, n);
        if (first_of(sum) < best) best = first_of(sum), best_scale = scale;
    }
    const vf inverse = vf_set(quant_inverse(cpu_from_bf16(best_scale)));
    for (int i = 0; i < 2 * HALF; i++) {
        int32_t at[VW];
        vi_store(at, number_of(v[i] * inverse));
        for (int l = 0; l < VW; l++) which[i * VW + l] = (uint8_t)at[l];
    }
    return best_scale;
}

static void pack_bytes(char *panel, int64_t c, const void *row, soma_dtype dtype, int64_t K) {
    const int64_t Kp = quant_padded(K);
    const quant_measure m = measure(row, dtype, K, QUANT_BYTE_MAX);
    uint32_t *out = (uint32_t *)panel + c;
    for (int64_t k = 0; k < K; k += QUANT_BLOCK) {
        _Alignas(64) float block[QUANT_BLOCK];
        _Alignas(64) int8_t q[QUANT_BLOCK];
        turned(block, row, dtype, k, K);
        quant_bytes(q, block, QUANT_BLOCK, m.inverse);
        for (int i = 0; i < QUANT_BLOCK; i += 4) {
            uint32_t word;
            memcpy(&word, q + i, sizeof word);
            out[(k + i) / 4 * QUANT_NR] = QUANT_OFFSET ? word ^ 0x80808080u : word;
        }
    }
    ((float *)(panel + Kp * QUANT_NR))[c] = m.scale * quant_unturn;
}

static void pack_levels(char *panel, int64_t c, const void *row, soma_dtype dtype, int64_t K) {
    for (int64_t k = 0; k < K; k += QUANT_BLOCK) {
        _Alignas(64) float block[QUANT_BLOCK];
        turned(block, row, dtype, k, K);
        for (int g = 0; g < QUANT_BLOCK; g += QUANT_GROUP, panel += GROUP_SIZE) {
            uint8_t which[QUANT_GROUP];
            const uint16_t scale = group(which, block + g);
            for (int i = 0; i < QUANT_GROUP; i++) {
                uint8_t *at = (uint8_t *)panel + (i / 8 * QUANT_NR + c) * 4 + i % 4;
                *at = (uint8_t)(i % 8 < 4 ? which[i] : *at | which[i] << 4);
            }
            ((uint16_t *)(panel + QUANT_NR * (QUANT_GROUP / 2)))[c] = scale;
        }
    }
}

static void pack(void *panel, soma_quant form, const void *weights, soma_dtype dtype, int64_t ld, int64_t n, int64_t K) {
    if (n < QUANT_NR) memset(panel, 0, cpu_quant_panel_size(form, K, QUANT_NR));
    for (int64_t c = 0; c < n; c++) {
        const void *row = (const char *)weights + c * ld * (dtype == SOMA_F32 ? 4 : 2);
        if (form == SOMA_QUANT_I4W)
            pack_levels(panel, c, row, dtype, K);
        else
            pack_bytes(panel, c, row, dtype, K);
    }
}

// ---- activations

// quant_bytes and quant_pairs (low NULL: the former), with the same values.
SIMD_INLINE void whole_numbers(int8_t *high, int8_t *low, const float *x, vf inverse) {
    const vf most = vf_set(low ? QUANT_PAIR_MAX : QUANT_BYTE_MAX);
#pragma GCC unroll 16
    for (int i = 0; i < QUANT_BLOCK; i += VW) {
        vi t = vi_from(vf_max(vf_min(vf_nearest(vf_load(x + i) * inverse), most), vf_set(0) - most));
        if (low) {
            const vi l = vi_right_signed(vi_left(t, 24), 24);
            vi_store_bytes(low + i, l);
            t = vi_right_signed(vi_sub(t, l), 8);
        }
        vi_store_bytes(high + i, t);
    }
}

// What an offset of the weights adds to the products of n bytes, taken away; n is a multiple of QUANT_GROUP.
SIMD_INLINE int32_t start_of(const int8_t *q, int64_t n) {
#if SIMD_BYTE_OFFSET
    return -QUANT_OFFSET * bytes_sum(q, n);
#else
    return 0;
#endif
}

static float take(int8_t *rows, int32_t *start, soma_quant form, const void *x, soma_dtype dtype, int64_t K, float *room) {
    const int64_t Kp = quant_padded(K), groups = Kp / QUANT_GROUP;
    const bool pairs = form != SOMA_QUANT_I8;
    uint32_t top = 0;
    for (int64_t k = 0; k < K; k += QUANT_BLOCK) {
        turned(room + k, x, dtype, k, K);
        top = quant_largest(top, room + k, QUANT_BLOCK);
    }
    const quant_measure m = quant_measure_of(top, pairs ? QUANT_PAIR_MAX : QUANT_BYTE_MAX);
    for (int64_t k = 0; k < K; k += QUANT_BLOCK)
        if (pairs)
            whole_numbers(rows + k, rows + Kp + k, room + k, vf_set(m.inverse));
        else
            whole_numbers(rows + k, NULL, room + k, vf_set(m.inverse));
    for (int plane = 0; plane <= pairs; plane++)
        if (form == SOMA_QUANT_I4W)
            for (int64_t g = 0; g < groups; g++) start[plane * groups + g] = start_of(rows + plane * Kp + g * QUANT_GROUP, QUANT_GROUP);
        else
            start[plane] = start_of(rows + plane * Kp, Kp);
    return m.scale;
}

// ---- tiles of int8 weights

// Whole numbers may be summed in any order. Of few rows the words are read as four streams, because one does not keep the memory busy (22
// of 27 GB/s); of many rows as one (four lie in the same sets of the cache: a tenth slower with K = 16384).
SIMD_INLINE void bytes_tile(const int rows, const int streams, int64_t words, const int8_t *a, int64_t lda, const int32_t *start,
                            const int32_t *w, int32_t *sums) {
    vi sum[QUANT_MR][QUANT_NV];
    const char *p[QUANT_MR];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        p[i] = (const char *)a + i * lda;
#pragma GCC unroll 4
        for (int j = 0; j < QUANT_NV; j++) sum[i][j] = start ? vi_set(start[i]) : vi_load(sums + i * QUANT_NR + j * VW);
    }
    for (int64_t k = 0; k < words / streams; k++)
#pragma GCC unroll 4
        for (int s = 0; s < streams; s++) {
            const int64_t at = s * (words / streams) + k;
            if (rows == QUANT_MR) // whole tiles fetch what comes next: as tile_of of simd_matmul.h; 5 % faster with 16 rows
#pragma GCC unroll 4
                for (int byte = 0; byte < QUANT_NR * 4; byte += 64)
                    __builtin_prefetch((const char *)(w + (words + at) * QUANT_NR) + byte, 0, 2);
            vi wv[QUANT_NV];
#pragma GCC unroll 4
            for (int j = 0; j < QUANT_NV; j++) wv[j] = vi_load(w + at * QUANT_NR + j * VW);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                int32_t four;
                memcpy(&four, p[i] + 4 * at, sizeof four);
                const vi av = vi_set(four);
#pragma GCC unroll 4
                for (int j = 0; j < QUANT_NV; j++) sum[i][j] = vi_dot_bytes(sum[i][j], wv[j], av);
            }
        }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < QUANT_NV; j++) vi_store(sums + i * QUANT_NR + j * VW, sum[i][j]);
}

static void bytes(int64_t rows, int64_t k0, int64_t k1, const int8_t *a, int64_t lda, const int32_t *start, const void *panel,
                  int32_t *sums) {
    const int32_t *w = (const int32_t *)panel + k0 * QUANT_NR;
    const bool few = rows <= 4;
    for (int64_t r = 0, n; r < rows; r += n) {
        n = SOMA_MIN(QUANT_MR, rows - r);
        const int8_t *ar = a + r * lda + 4 * k0;
        const int32_t *from = k0 ? NULL : start + r;
        int32_t *to = sums + r * QUANT_NR;
#define TILE(n)                                          \
    if (few)                                             \
        bytes_tile(n, 4, k1 - k0, ar, lda, from, w, to); \
    else                                                 \
        bytes_tile(n, 1, k1 - k0, ar, lda, from, w, to); \
    break
        switch (n) {
        case 1: TILE(1);
        case 2: TILE(2);
        case 3: TILE(3);
        case 4: TILE(4);
#if defined(__AVX512VNNI__)
        case 5: bytes_tile(5, 1, k1 - k0, ar, lda, from, w, to); break;
        default: bytes_tile(6, 1, k1 - k0, ar, lda, from, w, to);
#endif
        }
#undef TILE
    }
}

// ---- tiles of 4-bit weights

SIMD_INLINE vi level_of(vi which) { // the levels (with the offset) of 4-bit numbers in bytes
    int8_t table[16];
    for (int i = 0; i < 16; i++) table[i] = (int8_t)(quant_levels[i] ^ (QUANT_OFFSET ? -128 : 0));
    return vi_lookup_bytes(table, which);
}

// `rows` activations of two byte rows each, vectors [v0, v0 + vecs) of the panel's channels.
SIMD_INLINE void groups_tile(const int rows, const int vecs, int64_t groups, const int8_t *a, int64_t lda, const int32_t *start,
                             int64_t start_ld, const char *w, float *sums, bool first) {
    vf total[2][QUANT_NV];
#pragma GCC unroll 2
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vecs; j++) total[i][j] = first ? vf_set(0) : vf_load(sums + i * QUANT_NR + j * VW);
    for (int64_t g = 0; g < groups; g++, w += GROUP_SIZE) {
        vi sum[4][QUANT_NV];
        if (rows == 2) // the same; 5 % faster with 4 rows
#pragma GCC unroll 20
            for (int byte = 0; byte < GROUP_SIZE; byte += 64) __builtin_prefetch(w + groups * GROUP_SIZE + byte, 0, 2);
#pragma GCC unroll 4
        for (int i = 0; i < 2 * rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < vecs; j++) sum[i][j] = vi_set(start[i * start_ld + g]);
#pragma GCC unroll 4
        for (int k = 0; k < GROUP_WORDS / 2; k++)
#pragma GCC unroll 4
            for (int j = 0; j < vecs; j++) {
                const char *at = w + (k * QUANT_NR + j * VW) * 4;
                const vi both = vi_load(at), low = vi_set(0x0f0f0f0f);
                const vi first4 = level_of(vi_and(both, low)), next4 = level_of(vi_and(vi_right(both, 4), low));
#pragma GCC unroll 4
                for (int i = 0; i < 2 * rows; i++) {
                    int32_t four[2];
                    memcpy(four, a + i * lda + g * QUANT_GROUP + k * 8, sizeof four);
                    sum[i][j] = vi_dot_bytes(vi_dot_bytes(sum[i][j], first4, vi_set(four[0])), next4, vi_set(four[1]));
                }
            }
#pragma GCC unroll 4
        for (int j = 0; j < vecs; j++) {
            const vf scale = vf_load_bf16((const uint16_t *)(w + QUANT_NR * (QUANT_GROUP / 2)) + j * VW) * vf_set(quant_unturn);
#pragma GCC unroll 2
            for (int i = 0; i < rows; i++)
                total[i][j] = vf_fma(vf_from(vi_add(vi_left(sum[2 * i][j], 8), sum[2 * i + 1][j])), scale, total[i][j]);
        }
    }
#pragma GCC unroll 2
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vecs; j++) vf_store(sums + i * QUANT_NR + j * VW, total[i][j]);
}

static void groups(int64_t rows, int64_t g0, int64_t g1, const int8_t *a, int64_t lda, const int32_t *start, const void *panel,
                   float *sums) {
    const int64_t start_ld = lda / QUANT_GROUP;
    const char *w = (const char *)panel + g0 * GROUP_SIZE;
    for (int64_t r = 0; r < rows;) {
        const int8_t *ar = a + 2 * r * lda + g0 * QUANT_GROUP;
        const int32_t *from = start + 2 * r * start_ld + g0;
        float *to = sums + r * QUANT_NR;
        if (rows - r >= 2)
            groups_tile(2, QUANT_NV, g1 - g0, ar, lda, from, start_ld, w, to, !g0), r += 2;
        else
            groups_tile(1, QUANT_NV, g1 - g0, ar, lda, from, start_ld, w, to, !g0), r++;
    }
}

// ---- scales and bias

static void finish(void *out, bool bf16, int64_t n, soma_quant form, const void *sums, float scale, const float *channels,
                   const float *bias) {
    for (int64_t i = 0; i < n; i += VW) {
        const int w = (int)SOMA_MIN(VW, n - i);
        vf y, by = vf_set(scale);
        if (form == SOMA_QUANT_I4W)
            y = vf_load((const float *)sums + i);
        else {
            const int32_t *s = (const int32_t *)sums + i;
            y = vf_from(vi_load(s));
            if (form == SOMA_QUANT_I8W) y = vf_fma(y, vf_set(256), vf_from(vi_load(s + QUANT_NR)));
            by = by * vf_load(channels + i);
        }
        y = vf_fma(y, by, vf_load(bias + i));
        if (!bf16)
            vf_put((float *)out + i, y, w);
        else {
            uint16_t rest[VW];
            vf_store_bf16(rest, y);
            memcpy((uint16_t *)out + i, rest, (size_t)w * 2);
        }
    }
}

const cpu_quant_isa SIMD_NAME(cpu_quant) = {QUANT_NR, QUANT_OFFSET, pack, take, bytes, groups, finish};
