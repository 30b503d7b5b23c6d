// SPDX-License-Identifier: Apache-2.0
// The matrix product out [M, N] = a [M, K] b [N, K]^T + bias where b was packed when the policy was opened (packed.h).
//
// In pieces of k: the piece of factor a is packed, chunk by chunk; then each item multiplies a group of its rows with one panel of b, chunk
// after chunk, with its sums in a block of its own until the last one. Every element is one sum in the order of k that begins with the
// bias: its bits depend neither on the other rows nor on the threads, and one row is computed as a thousand are.
#include "device/cpu/fast_elementwise.h"
#include "device/cpu/packed.h"
#include "device/cpu/side.h"

enum {
    CHUNK = 256,     // elements of k: a panel's part stays in the first-level cache (f32: 64 KiB, the second)
    FEW_CHUNK = 128, // of few rows, who fetch the next one meanwhile
    AMX_CHUNK = 512, // the same for half a panel of tiles; not measured
    AMX_WORDS = 16,  // words that a tile takes at once
    PIECE = 2048,    // elements of k: a panel's part is in the second-level cache while all rows meet it
    FEW_ROWS = 64,   // which meet a panel in one go: then all of k is one piece
    ROW_GROUP = 192, // rows of an item: with a chunk of a and the group's sums in the second-level cache; a multiple of the tiles' 6 rows
    PACK_ROWS = 96,  // rows of a packed by one item, per chunk
};

typedef struct product {
    const cpu_gemm *isa;
    cpu_gemm_block *block;
    cpu_side a;
    int64_t M, N, K;
    int64_t chunk;                // elements of k at once
    int64_t k_of_word;            // elements of k in a word of b
    int64_t words_at_once;        // words of b that come together, filled with zeros
    int64_t panel;                // words between panels
    int64_t piece;                // chunks of k in a piece
    int64_t n_chunks, columns_ld; // columns_ld: words from one k to the next where a is packed by columns
    size_t bias_size, packed_size, sums_size;
    // while running
    const cpu_run *run;
    const cpu_tail *tail;
    const float *bias;
    float *out;
    uint32_t *packed;
    const uint32_t *b;
    int64_t from, to; // chunks of this piece
} product;

static int64_t chunk_length(const product *p, int64_t chunk) { return SOMA_MIN(p->chunk, p->K - chunk * p->chunk); }
// Words of b in a chunk of kn elements, and of a that they meet: a last half word of b meets a zero.
static int64_t b_words(const product *p, int64_t kn) { return cpu_ceil(cpu_ceil(kn, p->k_of_word), p->words_at_once) * p->words_at_once; }
static int64_t a_words(const product *p, int64_t kn) { return b_words(p, kn) * p->k_of_word / p->isa->step; }

static bool product_new(product *p, const soma_step *step, soma_isa isa) {
    const soma_tensor *out = step->nodes[0], *b = out->src[1], *bias = out->src[2];
    const soma_dtype kind = out->p.matmul.product;
    const cpu_form form = soma__owner(b)->form;
    *p = (product){.isa = cpu_gemm_of(isa, kind), .M = soma__numel(out) / out->shape[out->n_dims - 1], .N = b->shape[0], .K = b->shape[1]};
    if (!p->isa || out->dtype != SOMA_F32 || b->n_dims != 2 || !cpu_side_of(&p->a, out->src[0], true, kind)) return false;
    // unrounded words are no factor of a bf16 product; pairs of a weight of f32, which were rounded, are of no other
    if (form > CPU_FORM_PAIRS || (form == CPU_FORM_FLOATS && kind != SOMA_F32)) return false;
    if (form == CPU_FORM_PAIRS && b->dtype == SOMA_F32 && kind != SOMA_BF16) return false;
    if (bias && ((bias->dtype != SOMA_F32 && bias->dtype != SOMA_BF16) || bias->stride[0] != 1)) return false;
    p->k_of_word = form == CPU_FORM_PAIRS ? 2 : 1;
    p->block = form == CPU_FORM_PAIRS ? p->isa->block_pairs : p->isa->block;
    p->panel = cpu_form_panel(form, p->K, p->isa->nr);
    p->chunk = p->M <= FEW_ROWS ? FEW_CHUNK : CHUNK;
    p->words_at_once = 1;
#if defined(__x86_64__)
    if (isa >= SOMA_ISA_AMX && form == CPU_FORM_PAIRS && kind == SOMA_BF16 && !p->a.by_columns)
        p->block = cpu_amx_block, p->chunk = AMX_CHUNK, p->words_at_once = AMX_WORDS;
#endif
    p->n_chunks = cpu_ceil(p->K, p->chunk);
    p->piece = p->M <= FEW_ROWS ? p->n_chunks : SOMA_MIN(p->n_chunks, PIECE / p->chunk);
    p->columns_ld = (cpu_ceil(p->M, 16) | 1) * 16; // an odd number of cache lines: the words of a tile spread over the whole cache
    p->bias_size = bias ? cpu_align((size_t)p->N * 4) : 0;
    p->packed_size = cpu_align((size_t)((p->a.by_columns ? p->columns_ld : p->M) * p->piece * p->chunk / p->isa->step) * 4);
    p->sums_size = cpu_align((size_t)(SOMA_MIN(p->M, ROW_GROUP) * p->isa->nr) * 4);
    return p->M > 0 && p->N > 0 && p->K > 0;
}

// The piece's chunk c of a begins at c * chunk / step words of all its rows.
static uint32_t *chunk_of(const product *p, int64_t chunk) {
    return p->packed + (chunk - p->from) * (p->chunk / p->isa->step) * (p->a.by_columns ? p->columns_ld : p->M);
}

static void pack_item(void *ctx, int64_t item, int thread) {
    const product *p = ctx;
    const int64_t groups = cpu_ceil(p->M, PACK_ROWS), chunk = p->from + item / groups, row0 = item % groups * PACK_ROWS;
    const int64_t rows = SOMA_MIN(PACK_ROWS, p->M - row0), kn = chunk_length(p, chunk), words = a_words(p, kn);
    const int64_t had = cpu_ceil(kn, p->isa->step); // words of a's own
    const int64_t row_ld = p->a.by_columns ? 1 : words, k_ld = p->a.by_columns ? p->columns_ld : 1;
    uint32_t *out = chunk_of(p, chunk) + row0 * row_ld;
    cpu_side_pack(p->isa, &p->a, out, p->a.by_columns ? k_ld : row_ld, row0, rows, chunk * p->chunk, kn);
    for (int64_t k = had; k < words; k++)
        for (int64_t r = 0; r < rows; r++) out[r * row_ld + k * k_ld] = 0;
}

static void block_item(void *ctx, int64_t item, int thread) {
    const product *p = ctx;
    const int64_t groups = cpu_ceil(p->M, ROW_GROUP), panel = item / groups, row0 = item % groups * ROW_GROUP;
    const int64_t rows = SOMA_MIN(ROW_GROUP, p->M - row0), nr = p->isa->nr, col0 = panel * nr, cols = SOMA_MIN(nr, p->N - col0);
    const uint32_t *b = p->b + panel * p->panel;
    float *out = p->out + row0 * p->N + col0, *sums = (float *)(p->run->threads_space + (size_t)thread * p->run->thread_size);
    const float *init = p->from ? out : p->bias ? p->bias + col0 : NULL;
    int64_t init_ld = p->from ? p->N : 0;
    const bool ends = p->to == p->n_chunks && p->tail->run;
    for (int64_t chunk = p->from; chunk < p->to; chunk++, init = sums, init_ld = nr) {
        const bool last = chunk + 1 == p->to && !ends;
        const int64_t kn = chunk_length(p, chunk), words = a_words(p, kn);
        const int64_t a_row = p->a.by_columns ? 1 : words, a_k = p->a.by_columns ? p->columns_ld : 1;
        p->block(rows, cols, b_words(p, kn), chunk_of(p, chunk) + row0 * a_row, a_row, a_k, b + chunk * (p->chunk / p->k_of_word) * nr,
                 init, init_ld, last ? out : sums, last ? p->N : nr);
    }
    if (ends) cpu_tail_block(p->tail, (char *)sums + p->sums_size, sums, nr, row0 * p->N + col0, rows, cols);
}

static const float *take_bias(const product *p, const soma_tensor *t) {
    if (!t) return NULL;
    float *bias = (float *)p->run->shared;
    const void *data = cpu_at(p->run, t);
    for (int64_t i = 0; i < p->N; i++)
        bias[i] = t->dtype == SOMA_F32 ? ((const float *)data)[i] : cpu_from_bf16(((const uint16_t *)data)[i]);
    return bias;
}

static void multiply(const cpu_run *run, const soma_step *step) {
    const soma_tensor *out = step->nodes[0];
    product p;
    cpu_tail tail;
    if (!product_new(&p, step, run->isa) || !cpu_tail_new(&tail, run, step, run->isa)) return; // was refused by the chooser
    p.run = run;
    p.tail = &tail;
    p.packed = (uint32_t *)(run->shared + p.bias_size);
    p.bias = take_bias(&p, out->src[2]);
    p.a.f.data = cpu_at(run, out->src[0]);
    p.b = cpu_at(run, out->src[1]);
    p.out = cpu_at(run, out);
    for (; p.from < p.n_chunks; p.from = p.to) {
        p.to = SOMA_MIN(p.n_chunks, p.from + p.piece);
        soma__pool_run(run->pool, cpu_ceil(p.M, PACK_ROWS) * (p.to - p.from), pack_item, &p);
        soma__pool_run(run->pool, cpu_ceil(p.N, p.isa->nr) * cpu_ceil(p.M, ROW_GROUP), block_item, &p);
    }
}

cpu_choice cpu_fast_packed(const soma_step *step, soma_isa isa) {
    product p;
    cpu_tail tail;
    if (!product_new(&p, step, isa) || !cpu_tail_new(&tail, NULL, step, isa) || tail.other_rows) return (cpu_choice){0};
    return (cpu_choice){multiply, p.bias_size + p.packed_size, p.sums_size + tail.room};
}
