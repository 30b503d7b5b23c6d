// SPDX-License-Identifier: Apache-2.0
// The matrix product out [M, N] = a [M, K] b [N, K]^T + bias, cut into blocks by shape alone.
//
// One factor (the one with fewer rows) is packed whole into shared memory; the other is streamed: each item packs a block of its rows into
// its thread's memory and multiplies it with all of the first. Where a lies as such words already it is read in place. The contraction runs
// in chunks of KC words, so that a panel of b stays in the first-level cache. Weight gradients contract over thousands of tokens and have
// few rows: there the contraction is split as well, and the parts are summed in order at the end. A handful of rows (a robot's state, one
// token) is answered by dot products that read b in place.
//
// Declined: factors with no stride of 1 in the last two dimensions, other dtypes than f32 and bf16.
#include "device/cpu/fast_elementwise.h"
#include "device/cpu/side.h"

enum {
    KC_WORDS = 128,     // 32 KiB panels; 64 and 256 were slower for the shapes of bench/kernels.c
    STREAM_BLOCK = 96,  // rows of the streamed factor in an item; a multiple of the tiles' 6 rows, two or more panels
    PACK_ROWS = 128,    // rows of the shared factor packed by one item, per chunk
    WANTED_ITEMS = 16,  // below this the contraction is split
    SPLIT_CHUNKS = 2,   // a split is at least this many chunks long
    DOT_ROWS = 4,       // up to so many rows: dot products
    DOT_WORK = 1 << 15, // elements of b read by one item of dot products
};

typedef struct gemm {
    const cpu_gemm *isa;
    cpu_side a, b;
    int64_t M, N, K, batches;
    int n_batch_dims;
    int64_t batch_shape[SOMA_MAX_DIMS];
    bool dot, stream_a;
    bool a_lies; // as rows of words: it is read in place
    bool out_bf16;
    bool in_parts; // the contraction is split: blocks go to f32 parts that are summed afterwards
    bool own_sums; // the result is of another size than an f32 sum: a block's sums lie in its thread's memory, where they are finished
    int64_t block, n_blocks, chunk, n_chunks, n_splits;
    int64_t whole;      // rows of the packed fixed factor, with padding
    int64_t columns_ld; // words from one k to the next where a is packed by columns
    size_t rows_size;   // of a thread's rows of the streamed factor; its sums lie behind them
    size_t bias_size, packed_size, parts_size, thread_size;
    // while running
    const cpu_run *run;
    const soma_tensor *bias;
    const cpu_tail *tail;
    int64_t at; // first element of this batch
    float *bias_f32, *parts, *out;
    uint32_t *packed;
} gemm;

const cpu_gemm *cpu_gemm_of(soma_isa isa, soma_dtype product) {
#if defined(__x86_64__)
    if (isa >= SOMA_ISA_AVX512BF16 && product == SOMA_BF16) return &cpu_gemm_avx512bf16;
    if (isa >= SOMA_ISA_AVX512) return &cpu_gemm_avx512;
    if (isa >= SOMA_ISA_AVX2) return &cpu_gemm_avx2;
#elif defined(__aarch64__)
    if (isa >= SOMA_ISA_NEONBF16 && product == SOMA_BF16) return &cpu_gemm_neonbf16;
    if (isa >= SOMA_ISA_NEON) return &cpu_gemm_neon;
#endif
    return NULL;
}

// ---- how the factors lie in memory

static bool sides_of(gemm *g, const soma_tensor *out) {
    const soma_tensor *a = out->src[0], *b = out->src[1];
    const soma_dtype product = out->p.matmul.product;
    bool b_batched = false;
    for (int i = 0; i < b->n_dims - 2; i++) b_batched |= b->shape[i] != 1;
    if (!cpu_side_of(&g->a, a, !b_batched, product) || !cpu_side_of(&g->b, b, false, product)) return false;
    g->batches = 1;
    if (b_batched) {
        if (a->n_dims != out->n_dims || b->n_dims != out->n_dims) return false;
        g->n_batch_dims = out->n_dims - 2;
        for (int i = 0; i < g->n_batch_dims; i++) g->batches *= g->batch_shape[i] = out->shape[i];
    }
    g->M = g->a.rows, g->N = g->b.rows, g->K = a->shape[a->n_dims - 1];
    const bool are_words = g->isa->step == 2 ? g->a.f.bf16 && (g->K | g->a.f.row_stride | a->offset) % 2 == 0 && g->batches == 1
                                             : !g->a.f.bf16 && !g->a.f.round;
    g->a_lies = are_words && !g->a.by_columns && g->a.inner == g->a.rows;
    return g->M > 0 && g->N > 0 && g->K > 0;
}

// ---- the cut

// A tile reads few words of each k: with an odd number of cache lines between them they spread over the whole first-level cache.
static int64_t odd_lines(int64_t words_of_k) { return (cpu_ceil(words_of_k, 16) | 1) * 16; }

static void cut(gemm *g, bool f32) {
    const int64_t nr = g->isa->nr, step = g->isa->step;
    g->bias_size = cpu_align((size_t)(g->N + nr) * 4);
    g->dot = g->M <= DOT_ROWS && !g->b.by_columns && (!g->a.by_columns || g->M == 1) && !g->out_bf16;
    if (g->dot) {
        g->packed_size = cpu_align((size_t)(g->M * cpu_ceil(g->K, step)) * 4 + 64);
        return;
    }
    g->chunk = KC_WORDS * step;
    g->n_chunks = cpu_ceil(g->K, g->chunk);
    g->stream_a = g->M >= g->N;
    const int64_t streamed = g->stream_a ? g->M : g->N, fixed = g->stream_a ? g->N : g->M;
    g->block = g->stream_a ? STREAM_BLOCK : cpu_ceil(STREAM_BLOCK, nr) * nr;
    g->n_blocks = cpu_ceil(streamed, g->block);
    g->n_splits = 1;
    if (g->n_blocks < WANTED_ITEMS) g->n_splits = SOMA_MAX(1, SOMA_MIN(cpu_ceil(WANTED_ITEMS, g->n_blocks), g->n_chunks / SPLIT_CHUNKS));
    g->in_parts = g->n_splits > 1;
    g->own_sums = !g->in_parts && !f32;
    g->columns_ld = odd_lines(g->stream_a ? g->block : g->M);
    g->whole = g->stream_a ? cpu_ceil(fixed, nr) * nr : g->a.by_columns ? g->columns_ld : fixed;
    g->packed_size = cpu_align((size_t)(g->whole * g->n_chunks * KC_WORDS) * 4);
    g->parts_size = g->in_parts ? cpu_align((size_t)(g->n_splits * g->M * g->N) * 4) : 0;
    g->rows_size = cpu_align((size_t)((g->a.by_columns && g->stream_a ? g->columns_ld : g->block) * KC_WORDS) * 4);
    g->thread_size = g->rows_size + (g->own_sums ? cpu_align((size_t)(g->block * (g->stream_a ? g->N : g->M)) * 4) : 0);
}

static bool gemm_new(gemm *g, const soma_step *step, soma_isa isa) {
    const soma_tensor *out = step->nodes[0], *bias = out->src[2];
    *g = (gemm){.isa = cpu_gemm_of(isa, out->p.matmul.product), .out_bf16 = out->dtype == SOMA_BF16, .bias = bias};
    if (!g->isa || (out->dtype != SOMA_F32 && out->dtype != SOMA_BF16) || !sides_of(g, out)) return false;
    if (bias && ((bias->dtype != SOMA_F32 && bias->dtype != SOMA_BF16) || bias->stride[bias->n_dims - 1] != 1)) return false;
    cut(g, step->nodes[step->n_nodes - 1]->dtype == SOMA_F32);
    return true;
}

// ---- the work

static int64_t chunk_length(const gemm *g, int64_t chunk) { return SOMA_MIN(g->chunk, g->K - chunk * g->chunk); }
static int64_t words(const gemm *g, int64_t kn) { return cpu_ceil(kn, g->isa->step); }

static void take_bias(gemm *g) {
    const soma_tensor *t = g->bias;
    if (!t) {
        g->bias_f32 = NULL;
        return;
    }
    g->bias_f32 = (float *)g->run->shared;
    const void *data = cpu_at(g->run, t);
    for (int64_t i = 0; i < g->N; i++)
        g->bias_f32[i] = t->dtype == SOMA_F32 ? ((const float *)data)[i] : cpu_from_bf16(((const uint16_t *)data)[i]);
}

// The whole of the fixed factor: item = (chunk, group of rows). Chunk c begins at c * KC_WORDS words of all rows.
static void pack_item(void *ctx, int64_t item, int thread) {
    const gemm *g = ctx;
    const int64_t fixed = g->stream_a ? g->N : g->M, groups = cpu_ceil(fixed, PACK_ROWS);
    const int64_t chunk = item / groups, row0 = item % groups * PACK_ROWS, rows = SOMA_MIN(PACK_ROWS, fixed - row0);
    const int64_t kn = chunk_length(g, chunk), kw = words(g, kn);
    uint32_t *out = g->packed + chunk * KC_WORDS * g->whole;
    if (g->stream_a)
        g->isa->pack_panels(out + row0 * kw, &g->b.f, row0, rows, chunk * g->chunk, kn);
    else if (g->a.by_columns)
        cpu_side_pack(g->isa, &g->a, out + row0, g->columns_ld, row0, rows, chunk * g->chunk, kn);
    else
        cpu_side_pack(g->isa, &g->a, out + row0 * kw, kw, row0, rows, chunk * g->chunk, kn);
}

static float *at_out(const gemm *g, int64_t row, int64_t col) {
    return (float *)((char *)g->out + (row * g->N + col) * (g->out_bf16 ? 2 : 4));
}

// The rest of the step over a block of sums, which lie where the result belongs or in the thread's memory.
static void follow(const gemm *g, int thread, const float *sums, int64_t ld, int64_t row0, int64_t rows, int64_t col0, int64_t cols) {
    char *slots = g->run->threads_space + (size_t)thread * g->run->thread_size + g->thread_size;
    cpu_tail_block(g->tail, slots, sums, ld, g->at + row0 * g->N + col0, rows, cols);
    for (int64_t r = 0; r < rows && g->own_sums && !g->tail->run; r++)
        g->isa->finish(at_out(g, row0 + r, col0), g->out_bf16, cols, sums + r * ld, 1, 0, NULL);
}

// From one row of a to the next.
static int64_t row_words(const gemm *g, int64_t kw) {
    if (g->a_lies) return g->a.f.row_stride / g->isa->step;
    return g->a.by_columns ? 1 : kw;
}

static void block_item(void *ctx, int64_t item, int thread) {
    const gemm *g = ctx;
    const int64_t split = item % g->n_splits, block = item / g->n_splits;
    const int64_t begin = block * g->block, length = SOMA_MIN(g->block, (g->stream_a ? g->M : g->N) - begin); // of the streamed factor
    const int64_t row0 = g->stream_a ? begin : 0, rows = g->stream_a ? length : g->M;
    const int64_t col0 = g->stream_a ? 0 : begin, cols = g->stream_a ? g->N : length, ld = g->own_sums ? cols : g->N;
    const int64_t from = split * g->n_chunks / g->n_splits, to = (split + 1) * g->n_chunks / g->n_splits;
    uint32_t *own = (uint32_t *)(g->run->threads_space + (size_t)thread * g->run->thread_size);
    float *c = g->own_sums   ? (float *)((char *)own + g->rows_size)
               : g->in_parts ? g->parts + (split * g->M + row0) * g->N + col0
                             : at_out(g, row0, col0);
    const float *init = g->in_parts || !g->bias_f32 ? NULL : g->bias_f32 + col0;
    int64_t init_ld = 0;
    for (int64_t chunk = from; chunk < to; chunk++, init = c, init_ld = ld) {
        const int64_t kn = chunk_length(g, chunk), kw = words(g, kn);
        const uint32_t *packed = g->packed + chunk * KC_WORDS * g->whole;
        const int64_t a_row = row_words(g, kw), a_k = g->a.by_columns ? g->columns_ld : 1;
        const uint32_t *a = g->stream_a ? own : packed;
        if (g->a_lies) a = (const uint32_t *)g->a.f.data + row0 * a_row + chunk * KC_WORDS;
        if (!g->stream_a)
            g->isa->pack_panels(own, &g->b.f, col0, cols, chunk * g->chunk, kn);
        else if (!g->a_lies)
            cpu_side_pack(g->isa, &g->a, own, g->a.by_columns ? g->columns_ld : kw, row0, rows, chunk * g->chunk, kn);
        g->isa->block(rows, cols, kw, a, a_row, a_k, g->stream_a ? packed : own, init, init_ld, c, ld);
    }
    if (!g->in_parts) follow(g, thread, c, ld, row0, rows, col0, cols);
}

static void finish_item(void *ctx, int64_t item, int thread) {
    const gemm *g = ctx;
    const int64_t row0 = item * STREAM_BLOCK, rows = SOMA_MIN(STREAM_BLOCK, g->M - row0);
    for (int64_t r = row0; r < row0 + rows; r++)
        g->isa->finish(at_out(g, r, 0), g->out_bf16, g->N, g->parts + r * g->N, g->n_splits, g->M * g->N, g->bias_f32);
    follow(g, thread, at_out(g, row0, 0), g->N, row0, rows, 0, g->N);
}

static int64_t dot_width(const gemm *g) { return SOMA_MAX(4, SOMA_MIN(g->N, DOT_WORK / g->K / 4 * 4)); }

static void dot_item(void *ctx, int64_t item, int thread) {
    const gemm *g = ctx;
    const int64_t width = dot_width(g), col0 = item * width, cols = SOMA_MIN(width, g->N - col0);
    g->isa->dot(g->M, cols, g->K, g->packed, words(g, g->K), &g->b.f, col0, g->bias_f32 ? g->bias_f32 + col0 : NULL, g->out + col0, g->N);
    follow(g, thread, g->out + col0, g->N, 0, g->M, col0, cols);
}

static void run_one(gemm *g) {
    soma_pool *pool = g->run->pool;
    if (g->dot) {
        cpu_side_pack(g->isa, &g->a, g->packed, g->a.by_columns ? 1 : words(g, g->K), 0, g->M, 0, g->K);
        soma__pool_run(pool, cpu_ceil(g->N, dot_width(g)), dot_item, g);
        return;
    }
    if (g->stream_a || !g->a_lies) soma__pool_run(pool, cpu_ceil(g->stream_a ? g->N : g->M, PACK_ROWS) * g->n_chunks, pack_item, g);
    soma__pool_run(pool, g->n_blocks * g->n_splits, block_item, g);
    if (g->in_parts) soma__pool_run(pool, cpu_ceil(g->M, STREAM_BLOCK), finish_item, g);
}

static void matmul(const cpu_run *run, const soma_step *step) {
    const soma_tensor *out = step->nodes[0];
    gemm g;
    cpu_tail tail;
    if (!gemm_new(&g, step, run->isa) || !cpu_tail_new(&tail, run, step, run->isa)) return; // was refused by the chooser
    g.run = run;
    g.tail = &tail;
    g.packed = (uint32_t *)(run->shared + g.bias_size);
    g.parts = (float *)(run->shared + g.bias_size + g.packed_size);
    take_bias(&g);
    const char *a = cpu_at(run, out->src[0]), *b = cpu_at(run, out->src[1]);
    char *c = cpu_at(run, out);
    for (int64_t batch = 0; batch < g.batches; batch++) {
        int64_t rest = batch, at_a = 0, at_b = 0;
        for (int i = g.n_batch_dims - 1; i >= 0; i--) {
            const int64_t index = rest % g.batch_shape[i];
            rest /= g.batch_shape[i];
            at_a += index * g.a.batch_stride[i], at_b += index * g.b.batch_stride[i];
        }
        g.a.f.data = a + at_a * (g.a.f.bf16 ? 2 : 4);
        g.b.f.data = b + at_b * (g.b.f.bf16 ? 2 : 4);
        g.at = batch * g.M * g.N;
        g.out = (float *)(c + g.at * (g.out_bf16 ? 2 : 4));
        run_one(&g);
    }
}

cpu_choice cpu_fast_matmul(const soma_step *step, soma_isa isa) {
    gemm g;
    cpu_tail tail;
    if (!gemm_new(&g, step, isa) || !cpu_tail_new(&tail, NULL, step, isa)) return (cpu_choice){0};
    return (cpu_choice){matmul, g.bias_size + g.packed_size + g.parts_size, g.thread_size + tail.room};
}
