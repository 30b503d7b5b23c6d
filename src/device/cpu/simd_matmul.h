// SPDX-License-Identifier: Apache-2.0
// Packing and register tiles of the matrix product, compiled once for each instruction set (see fast_matmul.h for the layouts).
// Where the processor multiplies bf16 a word is two of them and one instruction adds both products to an f32 sum; elsewhere a word is an
// f32 that may have been rounded to bf16, so that all instruction sets compute the same thing up to the order of sums.
#include "device/cpu/fast_matmul.h"
#include "device/cpu/simd.h"

#include <string.h>

#define GEMM_STEP (1 + SIMD_PAIRS)
// Register tile: MR x NV vectors of sums, NV vectors of b, one of a. AVX-512 and NEON have 32 registers, AVX2 16.
#if defined(__AVX512F__) || defined(__aarch64__)
#define GEMM_MR 6
#define GEMM_NV 4
#else
#define GEMM_MR 6
#define GEMM_NV 2
#endif
enum { NR = GEMM_NV * VW, PAGE = 4096 };

SIMD_INLINE vf dot_word(vf sum, vi a, vi b) {
#if GEMM_STEP == 2
    return vf_dot_pairs(sum, a, b);
#else
    return vf_fma(vf_bits(a), vf_bits(b), sum);
#endif
}

// ---- from memory to words

// VW words along k from contiguous elements.
SIMD_INLINE vi load_words(const void *p, bool bf16, bool round) {
#if GEMM_STEP == 2
    (void)round;
    if (bf16) return vi_load(p);
    return vi_join_pairs(vf_load(p), vf_load((const float *)p + VW));
#else
    if (bf16) return vi_bits(vf_load_bf16(p));
    vf x = vf_load(p);
    return vi_bits(round ? vf_round_bf16(x) : x);
#endif
}
// The same when only n elements are there; zeros behind them.
SIMD_INLINE vi load_words_n(const void *p, bool bf16, bool round, int64_t n) {
#if GEMM_STEP == 2
    const float *f = p;
    if (!bf16) return vi_join_pairs(vf_load_n(f, (int)SOMA_MIN(VW, n)), n > VW ? vf_load_n(f + VW, (int)(n - VW)) : vf_set(0));
#else
    if (!bf16) return vi_bits(round ? vf_round_bf16(vf_load_n(p, (int)n)) : vf_load_n(p, (int)n));
#endif
    _Alignas(64) uint16_t rest[VW * GEMM_STEP] = {0};
    memcpy(rest, p, (size_t)n * 2);
    return load_words(rest, true, round);
}
// VW words of neighbouring rows of a factor whose rows are contiguous: p is the first element of k, q of k + 1 (NULL: zeros).
SIMD_INLINE vi zip_words(const void *p, const void *q, bool bf16, bool round) {
#if GEMM_STEP == 2
    (void)round;
    if (bf16) return vi_or(vi_widen_u16(p), q ? vi_left(vi_widen_u16(q), 16) : vi_set(0));
    return vi_zip_pairs(vf_load(p), q ? vf_load(q) : vf_set(0));
#else
    (void)q;
    return load_words(p, bf16, round);
#endif
}
SIMD_INLINE vi zip_words_n(const void *p, const void *q, bool bf16, bool round, int64_t n) {
#if GEMM_STEP == 2
    if (!bf16) return vi_zip_pairs(vf_load_n(p, (int)n), q ? vf_load_n(q, (int)n) : vf_set(0));
    _Alignas(64) uint16_t rest[2][VW] = {{0}};
    memcpy(rest[0], p, (size_t)n * 2);
    if (q) memcpy(rest[1], q, (size_t)n * 2);
    return zip_words(rest[0], rest[1], true, round);
#else
    (void)q;
    return load_words_n(p, bf16, round, n);
#endif
}
SIMD_INLINE void store_words_n(uint32_t *out, vi words, int64_t n) { vf_store_n((float *)out, vf_bits(words), (int)n); }

SIMD_INLINE const char *factor_at(const cpu_factor *f, bool bf16, int64_t row, int64_t k) {
    return (const char *)f->data + (row * f->row_stride + k * f->k_stride) * (bf16 ? 2 : 4);
}

// Compiles `call` for the three kinds of element, so that the inner loops do not ask.
#define FOR_KIND(f, call)        \
    do {                         \
        if ((f)->bf16) {         \
            call(true, false);   \
        } else if ((f)->round) { \
            call(false, true);   \
        } else {                 \
            call(false, false);  \
        }                        \
    } while (0)

SIMD_INLINE void rows_of(uint32_t *out, int64_t ld, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k0, int64_t kn, bool bf16,
                         bool round) {
    const int64_t step = VW * GEMM_STEP, size = bf16 ? 2 : 4;
    for (int64_t r = 0; r < rows; r++) {
        const char *p = factor_at(f, bf16, row0 + r, k0);
        uint32_t *o = out + r * ld;
        int64_t k = 0;
        for (; k + step <= kn; k += step) vi_store(o + k / GEMM_STEP, load_words(p + k * size, bf16, round));
        if (k < kn) store_words_n(o + k / GEMM_STEP, load_words_n(p + k * size, bf16, round, kn - k), (kn - k + GEMM_STEP - 1) / GEMM_STEP);
    }
}
static void pack_rows(uint32_t *out, int64_t ld, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k0, int64_t kn) {
#define CALL(bf16, round) rows_of(out, ld, f, row0, rows, k0, kn, bf16, round)
    FOR_KIND(f, CALL);
#undef CALL
}

SIMD_INLINE void columns_of(uint32_t *out, int64_t ld, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k0, int64_t kn, bool bf16,
                            bool round) {
    const int64_t size = bf16 ? 2 : 4;
    for (int64_t k = 0; k < kn; k += GEMM_STEP) {
        const char *p = factor_at(f, bf16, row0, k0 + k);
        const char *q = GEMM_STEP == 2 && k + 1 < kn ? factor_at(f, bf16, row0, k0 + k + 1) : NULL;
        uint32_t *o = out + k / GEMM_STEP * ld;
        int64_t r = 0;
        for (; r + VW <= rows; r += VW) vi_store(o + r, zip_words(p + r * size, q ? q + r * size : NULL, bf16, round));
        if (r < rows) store_words_n(o + r, zip_words_n(p + r * size, q ? q + r * size : NULL, bf16, round, rows - r), rows - r);
    }
}
static void pack_columns(uint32_t *out, int64_t ld, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k0, int64_t kn) {
#define CALL(bf16, round) columns_of(out, ld, f, row0, rows, k0, kn, bf16, round)
    FOR_KIND(f, CALL);
#undef CALL
}

// VW rows whose k is contiguous become VW columns of a panel.
SIMD_INLINE void transpose_of(uint32_t *out, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k0, int64_t kn, bool bf16,
                              bool round) {
    const int64_t step = VW * GEMM_STEP;
    for (int64_t k = 0; k < kn; k += step) {
        vi t[VW];
        for (int64_t r = 0; r < VW; r++) {
            if (r >= rows)
                t[r] = vi_set(0);
            else if (k + step <= kn)
                t[r] = load_words(factor_at(f, bf16, row0 + r, k0 + k), bf16, round);
            else
                t[r] = load_words_n(factor_at(f, bf16, row0 + r, k0 + k), bf16, round, kn - k);
        }
        vi_transpose(t);
        const int64_t words = SOMA_MIN(VW, (kn - k + GEMM_STEP - 1) / GEMM_STEP);
        for (int64_t i = 0; i < words; i++) vi_store(out + (k / GEMM_STEP + i) * NR, t[i]);
    }
}
static void pack_panels(uint32_t *out, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k0, int64_t kn) {
    const int64_t kw = (kn + GEMM_STEP - 1) / GEMM_STEP;
    for (int64_t n = 0; n < rows; n += NR, out += kw * NR) {
        const int64_t cols = SOMA_MIN(NR, rows - n);
        if (f->k_stride == 1) {
            for (int64_t j = 0; j < cols; j += VW) {
#define CALL(bf16, round) transpose_of(out + j, f, row0 + n + j, cols - j, k0, kn, bf16, round)
                FOR_KIND(f, CALL);
#undef CALL
            }
        } else {
            if (cols % VW) memset(out, 0, (size_t)(kw * NR) * 4);
            pack_columns(out, NR, f, row0 + n, cols, k0, kn);
        }
    }
}

// A panel of pairs: VW rows of bf16, rounded where they are f32, become VW columns of words of two k each.
SIMD_INLINE vi load_pair_words(const void *p, bool bf16, int64_t n) {
    _Alignas(64) uint16_t pairs16[2 * VW] = {0};
    if (bf16) {
        if (n >= 2 * VW) return vi_load(p);
        memcpy(pairs16, p, (size_t)n * 2);
    } else if (n >= 2 * VW) {
        vf_store_bf16(pairs16, vf_load(p));
        vf_store_bf16(pairs16 + VW, vf_load((const float *)p + VW));
    } else
        for (int64_t i = 0; i < n; i++) pairs16[i] = cpu_to_bf16(((const float *)p)[i]);
    return vi_load(pairs16);
}
SIMD_INLINE void pair_panel_of(uint32_t *out, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k_end, bool bf16) {
    const int64_t kw = (k_end + 1) / 2, size = bf16 ? 2 : 4;
    for (int64_t j = 0; j < NR; j += VW)
        for (int64_t k = 0; k < kw; k += VW) {
            vi t[VW];
            for (int64_t r = 0; r < VW; r++)
                t[r] = j + r < rows ? load_pair_words(factor_at(f, bf16, row0 + j + r, 0) + 2 * k * size, bf16, k_end - 2 * k) : vi_set(0);
            vi_transpose(t);
            const int64_t n = SOMA_MIN(VW, kw - k);
            for (int64_t i = 0; i < n; i++) vi_store(out + (k + i) * NR + j, t[i]);
        }
}
static void pack_pairs(uint32_t *out, const cpu_factor *f, int64_t row0, int64_t rows, int64_t k_end) {
    if (f->bf16)
        pair_panel_of(out, f, row0, rows, k_end, true);
    else
        pair_panel_of(out, f, row0, rows, k_end, false);
}

// ---- products of words

// The elements of b that word `half` of a meets. Where a word is one f32, a packed pair of bf16 is two words: the earlier k in the low
// half.
SIMD_INLINE vi words_of(const uint32_t *b, bool pairs, int half) {
    const vi w = vi_load(b);
    if (!pairs || GEMM_STEP == 2) return w;
    return vi_left(half ? vi_right(w, 16) : w, 16); // a mask would take a register: with AVX2 the sums would not fit
}

SIMD_INLINE void tile_of(const bool pairs, const int rows, const int vecs, int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k,
                         const uint32_t *b, const float *init, int64_t init_ld, float *c, int64_t c_ld, int tail) {
    vf sum[GEMM_MR][GEMM_NV];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vecs; j++) {
            if (!init)
                sum[i][j] = vf_set(0);
            else if (j + 1 < vecs || tail == VW)
                sum[i][j] = vf_load(init + i * init_ld + j * VW);
            else
                sum[i][j] = vf_load_n(init + i * init_ld + j * VW, tail);
        }
    for (int64_t k = 0; k < kw; k++, b += NR) {
        // Whole tiles fetch what comes behind their words of b, the next chunk or panel, while they multiply: 5 % faster with 51 rows, 15 %
        // with 16. Fewer rows leave it to the processor, which is better at it (4 rows fetching all: 40 % slower) but stops where a page of
        // 4 KiB ends: they fetch the first quarter of the one after the next (1 row: 17.5 to 22.4 GB/s; in large pages 1 %).
        const char *ahead = (const char *)(rows == GEMM_MR ? b + kw * NR : b) + (rows == GEMM_MR ? 0 : 2 * PAGE);
        if (rows == GEMM_MR || (uintptr_t)b % PAGE < PAGE / 4)
#pragma GCC unroll 4
            for (int byte = 0; byte < vecs * VW * 4; byte += 64) __builtin_prefetch(ahead + byte, 0, 2);
        for (int half = 0; half < (pairs && GEMM_STEP == 1 ? 2 : 1); half++, a += a_k) {
            vi bv[GEMM_NV];
#pragma GCC unroll 4
            for (int j = 0; j < vecs; j++) bv[j] = words_of(b + j * VW, pairs, half);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                const vi av = vi_set((int32_t)a[i * a_row]);
#pragma GCC unroll 4
                for (int j = 0; j < vecs; j++) sum[i][j] = dot_word(sum[i][j], av, bv[j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vecs; j++) {
            if (j + 1 < vecs || tail == VW)
                vf_store(c + i * c_ld + j * VW, sum[i][j]);
            else
                vf_store_n(c + i * c_ld + j * VW, sum[i][j], tail);
        }
}

typedef void tile_fn(int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k, const uint32_t *b, const float *init, int64_t init_ld,
                     float *c, int64_t c_ld, int tail);
typedef tile_fn *const tile_table[GEMM_MR][GEMM_NV];
#define TILE(kind, rows, vecs)                                                                                                          \
    static void kind##_##rows##_##vecs(int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k, const uint32_t *b, const float *init, \
                                       int64_t init_ld, float *c, int64_t c_ld, int tail) {                                             \
        tile_of(kind, rows, vecs, kw, a, a_row, a_k, b, init, init_ld, c, c_ld, tail);                                                  \
    }
#if GEMM_NV == 4
#define TILES(kind, rows) TILE(kind, rows, 1) TILE(kind, rows, 2) TILE(kind, rows, 3) TILE(kind, rows, 4)
#define TILE_ROW(kind, rows) \
    { kind##_##rows##_1, kind##_##rows##_2, kind##_##rows##_3, kind##_##rows##_4 }
#else
#define TILES(kind, rows) TILE(kind, rows, 1) TILE(kind, rows, 2)
#define TILE_ROW(kind, rows) \
    { kind##_##rows##_1, kind##_##rows##_2 }
#endif
#define TILE_TABLE(kind)                                                                       \
    TILES(kind, 1)                                                                             \
    TILES(kind, 2)                                                                             \
    TILES(kind, 3)                                                                             \
    TILES(kind, 4)                                                                             \
    TILES(kind, 5)                                                                             \
    TILES(kind, 6)                                                                             \
    static tile_table kind##_tiles = {TILE_ROW(kind, 1), TILE_ROW(kind, 2), TILE_ROW(kind, 3), \
                                      TILE_ROW(kind, 4), TILE_ROW(kind, 5), TILE_ROW(kind, 6)};
enum { words = false, pairs = true };
TILE_TABLE(words)
#if GEMM_STEP == 1
TILE_TABLE(pairs)
#endif

SIMD_INLINE void blocks_of(tile_table tiles, int64_t rows, int64_t cols, int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k,
                           const uint32_t *b, const float *init, int64_t init_ld, float *c, int64_t c_ld) {
    for (int64_t n = 0; n < cols; n += NR, b += kw * NR) {
        const int64_t width = SOMA_MIN(NR, cols - n), vecs = (width + VW - 1) / VW;
        for (int64_t m = 0; m < rows; m += GEMM_MR) {
            const int64_t height = SOMA_MIN(GEMM_MR, rows - m);
            tiles[height - 1][vecs - 1](kw, a + m * a_row, a_row, a_k, b, init ? init + m * init_ld + n : NULL, init_ld, c + m * c_ld + n,
                                        c_ld, (int)(width - (vecs - 1) * VW));
        }
    }
}
static void block(int64_t rows, int64_t cols, int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k, const uint32_t *b,
                  const float *init, int64_t init_ld, float *c, int64_t c_ld) {
    blocks_of(words_tiles, rows, cols, kw, a, a_row, a_k, b, init, init_ld, c, c_ld);
}
#if GEMM_STEP == 1
static void block_pairs(int64_t rows, int64_t cols, int64_t kw, const uint32_t *a, int64_t a_row, int64_t a_k, const uint32_t *b,
                        const float *init, int64_t init_ld, float *c, int64_t c_ld) {
    blocks_of(pairs_tiles, rows, cols, kw, a, a_row, a_k, b, init, init_ld, c, c_ld);
}
#else
#define block_pairs block
#endif

// rows x cols dot products along k, both factors read along k.
SIMD_INLINE void dot_of(const int rows, const int cols, int64_t k, const uint32_t *a, int64_t ld, const cpu_factor *b, int64_t b_row0,
                        const float *bias, float *c, int64_t c_ld, bool bf16, bool round) {
    const int64_t step = VW * GEMM_STEP, size = bf16 ? 2 : 4;
    vf sum[4][4];
    const char *p[4];
#pragma GCC unroll 4
    for (int j = 0; j < cols; j++) p[j] = factor_at(b, bf16, b_row0 + j, 0);
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < cols; j++) sum[i][j] = vf_set(0);
    for (int64_t e = 0; e < k; e += step) {
        const bool whole = e + step <= k;
        vi bv[4];
#pragma GCC unroll 4
        for (int j = 0; j < cols; j++)
            bv[j] = whole ? load_words(p[j] + e * size, bf16, round) : load_words_n(p[j] + e * size, bf16, round, k - e);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            const uint32_t *at = a + i * ld + e / GEMM_STEP;
            const vi av = whole ? vi_load(at) : vi_load_n(at, (int)((k - e + GEMM_STEP - 1) / GEMM_STEP));
#pragma GCC unroll 4
            for (int j = 0; j < cols; j++) sum[i][j] = dot_word(sum[i][j], av, bv[j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) c[i * c_ld + j] = vf_sum(sum[i][j]) + (bias ? bias[j] : 0);
}
SIMD_INLINE void dot_columns(const int rows, int64_t cols, int64_t k, const uint32_t *a, int64_t ld, const cpu_factor *b, int64_t b_row0,
                             const float *bias, float *c, int64_t c_ld, bool bf16, bool round) {
    int64_t j = 0;
    for (; j + 4 <= cols; j += 4) dot_of(rows, 4, k, a, ld, b, b_row0 + j, bias ? bias + j : NULL, c + j, c_ld, bf16, round);
    for (; j < cols; j++) dot_of(rows, 1, k, a, ld, b, b_row0 + j, bias ? bias + j : NULL, c + j, c_ld, bf16, round);
}
static void dot(int64_t rows, int64_t cols, int64_t k, const uint32_t *a, int64_t ld, const cpu_factor *b, int64_t b_row0,
                const float *bias, float *c, int64_t c_ld) {
    for (int64_t i = 0; i < rows;) {
        const uint32_t *ai = a + i * ld;
        float *ci = c + i * c_ld;
#define CALL(bf16, round)                                                                \
    if (rows - i >= 4)                                                                   \
        dot_columns(4, cols, k, ai, ld, b, b_row0, bias, ci, c_ld, bf16, round), i += 4; \
    else if (rows - i >= 2)                                                              \
        dot_columns(2, cols, k, ai, ld, b, b_row0, bias, ci, c_ld, bf16, round), i += 2; \
    else                                                                                 \
        dot_columns(1, cols, k, ai, ld, b, b_row0, bias, ci, c_ld, bf16, round), i += 1
        FOR_KIND(b, CALL);
#undef CALL
    }
}

static void finish(void *out, bool out_bf16, int64_t n, const float *parts, int64_t n_parts, int64_t part_stride, const float *bias) {
    for (int64_t i = 0; i < n; i += VW) {
        const int w = (int)SOMA_MIN(VW, n - i);
        vf sum = vf_load_n(parts + i, w);
        for (int64_t p = 1; p < n_parts; p++) sum += vf_load_n(parts + p * part_stride + i, w);
        if (bias) sum += vf_load_n(bias + i, w);
        if (!out_bf16)
            vf_store_n((float *)out + i, sum, w);
        else if (w == VW)
            vf_store_bf16((uint16_t *)out + i, sum);
        else {
            uint16_t rest[VW];
            vf_store_bf16(rest, sum);
            memcpy((uint16_t *)out + i, rest, (size_t)w * 2);
        }
    }
}

const cpu_gemm SIMD_NAME(cpu_gemm) = {NR,         GEMM_MR, GEMM_STEP,   pack_rows, pack_columns, pack_panels,
                                      pack_pairs, block,   block_pairs, dot,       finish};
