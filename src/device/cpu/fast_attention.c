// SPDX-License-Identifier: Apache-2.0
// Attention and its gradient out of packed matrix products: a tile of queries of one head, its scores against the keys it may see, softmax,
// and the product with the values. Keys come in panels; a panel that no query of the tile sees is skipped, so that a block-causal mask
// costs what it lets through. Scores of one tile exist at a time, in the thread's memory.
//
// Where the product is bf16, q, k, v (and dout) are rounded, and where the processor multiplies bf16 the probabilities too, as the
// published models do; softmax and all sums are f32. The gradient recomputes the probabilities; an item is one batch element and one key
// head, whose queries add to dk and dv in a fixed order.
//
// Where the processor has tiles (AMX), the forward products of bf16 are theirs: contractions are then filled with zeros to whole tiles.
//
// Declined: a head size that is not contiguous, or is above 256.
#include "device/cpu/fast_attention.h"
#include "device/cpu/drop.h"
#include "device/cpu/fast_matmul.h"

#include <string.h>

enum { ROWS = CPU_ATTENTION_TILE, TILE_ROWS = 32, TILE_WORDS = 16, MAX_K = 256, MAX_RUNS = 32 };

typedef struct attention {
    const cpu_gemm *gemm;
    cpu_gemm_block *block; // of one panel
    const cpu_softmax *softmax;
    const soma_tensor *out, *q, *k, *v, *q_block, *k_block, *dout;
    int64_t B, T, H, S, KV, K, group;
    int64_t rows, n_tiles;                    // queries at a time
    int64_t whole;                            // words that a contraction is filled to a multiple of
    int64_t words, value_words;               // of a contraction over the head size; over all keys
    int64_t key_size, value_size, score_size; // words: packed keys, packed values, scores of a tile
    const cpu_run *run;
    cpu_drop_row *drop_row; // NULL: nothing is dropped
    cpu_drop drop;
    char *dq;
    float *dk, *dv;
} attention;

// Words from one query's scores to the next: an odd number of cache lines, so that columns spread over the cache.
static int64_t odd_lines(int64_t n) { return (cpu_ceil(n, 16) | 1) * 16; }

static bool head_fits(const soma_tensor *t) { return t->stride[3] == 1 && (t->dtype == SOMA_F32 || t->dtype == SOMA_BF16); }

static int64_t words_of(const attention *a, int64_t n) { return cpu_ceil(cpu_ceil(n, a->gemm->step), a->whole) * a->whole; }
// From one query's scores of n keys to the next.
static int64_t score_ld(const attention *a, int64_t n) { return odd_lines(words_of(a, n) * a->gemm->step); }

static bool attention_new(attention *a, const soma_step *step, soma_isa isa, bool forward) {
    const soma_tensor *t = step->nodes[0], *q = t->src[0], *k = t->src[1];
    const soma_dtype product = t->p.attention.product;
    *a = (attention){.gemm = cpu_gemm_of(isa, product), .out = t, .q = q, .k = k, .v = t->src[2]};
    a->q_block = t->src[3], a->k_block = t->src[4], a->dout = t->src[5];
    if (!a->gemm || !head_fits(q) || !head_fits(k) || !head_fits(a->v) || (a->dout && !head_fits(a->dout))) return false;
#if defined(__x86_64__)
    a->softmax = isa >= SOMA_ISA_AVX512 ? &cpu_softmax_avx512 : &cpu_softmax_avx2;
#elif defined(__aarch64__)
    a->softmax = &cpu_softmax_neon;
#endif
    a->B = q->shape[0], a->T = q->shape[1], a->H = q->shape[2], a->K = q->shape[3], a->S = k->shape[1], a->KV = k->shape[2];
    if (a->K > MAX_K || a->S < 1 || a->T < 1) return false;
    a->group = a->H / a->KV;
    a->block = a->gemm->block, a->rows = ROWS, a->whole = 1;
#if defined(__x86_64__)
    if (isa >= SOMA_ISA_AMX && forward && a->gemm->step == 2) a->block = cpu_amx_block, a->rows = TILE_ROWS, a->whole = TILE_WORDS;
#endif
    a->n_tiles = cpu_ceil(a->T, a->rows);
    a->words = words_of(a, a->K);
    a->key_size = cpu_ceil(a->S, a->gemm->nr) * a->gemm->nr * a->words;
    a->value_words = words_of(a, a->S);
    a->value_size = cpu_ceil(a->K, a->gemm->nr) * a->gemm->nr * a->value_words;
    a->score_size = score_ld(a, a->S) * a->rows;
    return true;
}

// Tokens [.., row] of one head as rows of a factor whose contraction is the head size; or, turned, the head size as rows and the tokens as
// contraction.
static cpu_factor tokens(const attention *a, const soma_tensor *t, int64_t b, int64_t head, bool turned) {
    const char *data = cpu_at(a->run, t);
    return (cpu_factor){.data = data + (b * t->stride[0] + head * t->stride[2]) * (int64_t)soma_dtype_size(t->dtype),
                        .bf16 = t->dtype == SOMA_BF16,
                        .round = a->out->p.attention.product == SOMA_BF16,
                        .row_stride = turned ? 1 : t->stride[1],
                        .k_stride = turned ? t->stride[1] : 1};
}

// A tile's view of the keys: runs of visible panels, their columns side by side in the scores.
typedef struct view {
    int64_t n_runs, n_columns, ld;             // ld: from one query's scores to the next
    int64_t from[MAX_RUNS], columns[MAX_RUNS]; // first key and number of keys of each run
    int32_t q_block[ROWS];
    int32_t *k_block; // of the columns
} view;

static void look(const attention *a, view *v, int32_t *k_block, int64_t b, int64_t row0, int64_t rows) {
    const int32_t *qb = (const int32_t *)cpu_at(a->run, a->q_block) + b * a->q_block->stride[0];
    const int32_t *kb = (const int32_t *)cpu_at(a->run, a->k_block) + b * a->k_block->stride[0];
    int32_t most = INT32_MIN;
    for (int64_t i = 0; i < rows; i++) {
        v->q_block[i] = qb[(row0 + i) * a->q_block->stride[1]];
        most = SOMA_MAX(most, v->q_block[i]);
    }
    v->n_runs = v->n_columns = 0;
    v->k_block = k_block;
    const int64_t nr = a->gemm->nr;
    bool open = false;
    for (int64_t j0 = 0; j0 < a->S; j0 += nr) {
        const int64_t n = SOMA_MIN(nr, a->S - j0);
        bool any = false;
        for (int64_t j = 0; j < n; j++) {
            k_block[v->n_columns + j] = kb[(j0 + j) * a->k_block->stride[1]];
            any |= k_block[v->n_columns + j] <= most;
        }
        if (!any && v->n_runs < MAX_RUNS) { // the last run takes the holes behind it
            open = false;
            continue;
        }
        if (!open) v->from[v->n_runs] = j0, v->columns[v->n_runs++] = 0;
        open = true;
        v->columns[v->n_runs - 1] += n;
        v->n_columns += n;
    }
    v->ld = score_ld(a, v->n_columns);
}

// scores [rows, ld] = tile times the keys (or values) it sees; `keys` are panels for the inner product.
static void inner_product(const attention *a, const view *v, int64_t rows, const uint32_t *tile, const uint32_t *keys, float *scores) {
    const int64_t nr = a->gemm->nr;
    for (int64_t r = 0, at = 0; r < v->n_runs; at += v->columns[r++])
        for (int64_t n = 0; n < v->columns[r]; n += nr)
            a->block(rows, SOMA_MIN(nr, v->columns[r] - n), a->words, tile, a->words, 1, keys + (v->from[r] + n) * a->words, NULL, 0,
                     scores + at + n, v->ld);
}

// Dropout of a tile's scores, by query and key.
static void drop_scores(const attention *a, const view *v, int64_t b, int64_t head, int64_t row0, int64_t rows, float *scores) {
    for (int64_t i = 0; i < rows && a->drop_row; i++)
        for (int64_t r = 0, at = i * v->ld; r < v->n_runs; at += v->columns[r++])
            a->drop_row(scores + at, scores + at, v->columns[r], &a->drop,
                        (uint32_t)(((b * a->H + head) * a->T + row0 + i) * a->S + v->from[r]));
}

static void set_drop(attention *a, const soma_tensor *key) {
    if (!key) return;
    a->drop_row = CPU_KERNEL_PICK(a->run->isa, cpu_drop_row);
    a->drop = cpu_drop_of(a->run, key, a->out->p.attention.drop);
}

// Zeros behind n elements of each row, to whole tiles.
static void fill_rows(const attention *a, uint32_t *packed, int64_t ld, int64_t rows, int64_t n) {
    const int64_t had = cpu_ceil(n, a->gemm->step), words = words_of(a, n);
    for (int64_t r = 0; r < rows && had < words; r++) memset(packed + r * ld + had, 0, (size_t)(words - had) * 4);
}

// Scores as words of a product: along the keys, or along the queries (turned). Where a word is an f32 they are used where they lie.
typedef struct factor {
    const uint32_t *words;
    int64_t row, k; // words from one row, from one word of the contraction, to the next
} factor;
static factor score_words(const attention *a, const view *v, int64_t rows, const float *scores, bool turned, uint32_t *packed) {
    if (a->gemm->step == 1) return (factor){(const uint32_t *)scores, turned ? 1 : v->ld, turned ? v->ld : 1};
    const cpu_factor f = {.data = scores, .round = true, .row_stride = turned ? 1 : v->ld, .k_stride = turned ? v->ld : 1};
    if (turned)
        a->gemm->pack_columns(packed, v->ld, &f, 0, v->n_columns, 0, rows);
    else {
        a->gemm->pack_rows(packed, v->ld / 2, &f, 0, rows, 0, v->n_columns);
        fill_rows(a, packed, v->ld / 2, rows, v->n_columns);
    }
    return (factor){packed, turned ? 1 : v->ld / 2, turned ? v->ld : 1};
}

// out [rows, K] = scores times values: panels over the head size, contracted over keys. One product for each run, summed in order.
static void outer_product(const attention *a, const view *v, int64_t rows, const float *scores, uint32_t *packed, const uint32_t *values,
                          float *out, int64_t ld) {
    const int64_t nr = a->gemm->nr, step = a->gemm->step;
    const factor f = score_words(a, v, rows, scores, false, packed);
    for (int64_t r = 0, at = 0; r < v->n_runs; at += v->columns[r++])
        for (int64_t n = 0; n < a->K; n += nr)
            a->block(rows, SOMA_MIN(nr, a->K - n), words_of(a, v->columns[r]), f.words + at / step, f.row, f.k,
                     values + n * a->value_words + v->from[r] / step * nr, r ? out + n : NULL, ld, out + n, ld);
}

// ---- forward

static size_t forward_thread_size(const attention *a) {
    return cpu_align((size_t)(a->rows * a->words) * 4) + cpu_align((size_t)a->score_size * 4) + cpu_align((size_t)(a->rows * a->K) * 4) +
           cpu_align((size_t)a->S * 4) + cpu_align((size_t)a->score_size * 2);
}

// Rows of a factor as panels, one after the other, each contraction of kn elements filled to whole tiles.
static void pack_panels(const attention *a, uint32_t *packed, const cpu_factor *f, int64_t rows, int64_t kn) {
    const int64_t nr = a->gemm->nr, had = cpu_ceil(kn, a->gemm->step), words = words_of(a, kn);
    for (int64_t n = 0; n < rows; n += nr, packed += words * nr) {
        a->gemm->pack_panels(packed, f, n, SOMA_MIN(nr, rows - n), 0, kn);
        memset(packed + had * nr, 0, (size_t)((words - had) * nr) * 4);
    }
}

static void pack_item(void *ctx, int64_t item, int thread) {
    const attention *a = ctx;
    const int64_t pair = item / 2;
    uint32_t *packed = (uint32_t *)a->run->shared + pair * (a->key_size + a->value_size);
    const cpu_factor f = tokens(a, item % 2 ? a->v : a->k, pair / a->KV, pair % a->KV, item % 2);
    if (item % 2)
        pack_panels(a, packed + a->key_size, &f, a->K, a->S);
    else
        pack_panels(a, packed, &f, a->S, a->K);
}

static void write_rows(const attention *a, int64_t b, int64_t row0, int64_t rows, int64_t head, const float *from) {
    for (int64_t i = 0; i < rows; i++) {
        const int64_t at = ((b * a->T + row0 + i) * a->H + head) * a->K;
        a->gemm->finish((char *)cpu_at(a->run, a->out) + at * (int64_t)soma_dtype_size(a->out->dtype), a->out->dtype == SOMA_BF16, a->K,
                        from + i * a->K, 1, 0, NULL);
    }
}

static void forward_item(void *ctx, int64_t item, int thread) {
    const attention *a = ctx;
    const int64_t tile = item % a->n_tiles, head = item / a->n_tiles % a->H, b = item / a->n_tiles / a->H;
    const int64_t row0 = tile * a->rows, rows = SOMA_MIN(a->rows, a->T - row0), pair = b * a->KV + head / a->group;
    char *own = a->run->threads_space + (size_t)thread * a->run->thread_size;
    uint32_t *q = (uint32_t *)own, *packed;
    float *scores = (float *)(own += cpu_align((size_t)(a->rows * a->words) * 4));
    float *out = (float *)(own += cpu_align((size_t)a->score_size * 4));
    int32_t *k_block = (int32_t *)(own += cpu_align((size_t)(a->rows * a->K) * 4));
    packed = (uint32_t *)(own + cpu_align((size_t)a->S * 4));
    view v;
    look(a, &v, k_block, b, row0, rows);
    const uint32_t *keys = (const uint32_t *)a->run->shared + pair * (a->key_size + a->value_size);
    const cpu_factor f = tokens(a, a->q, b, head, false);
    if (v.n_runs == 0)
        memset(out, 0, (size_t)(rows * a->K) * 4);
    else {
        float inverse[ROWS];
        a->gemm->pack_rows(q, a->words, &f, row0, rows, 0, a->K);
        fill_rows(a, q, a->words, rows, a->K);
        inner_product(a, &v, rows, q, keys, scores);
        a->softmax->forward(scores, v.ld, rows, v.n_columns, v.k_block, v.q_block, a->out->p.attention.scale, inverse);
        drop_scores(a, &v, b, head, row0, rows, scores);
        outer_product(a, &v, rows, scores, packed, keys + a->key_size, out, a->K);
        for (int64_t i = 0; i < rows; i++) a->softmax->times(out + i * a->K, a->K, inverse[i]);
    }
    write_rows(a, b, row0, rows, head, out);
}

static void attention_run(const cpu_run *run, const soma_step *step) {
    attention a;
    if (!attention_new(&a, step, run->isa, true)) return; // was refused by the chooser
    a.run = run;
    set_drop(&a, step->nodes[0]->src[7]);
    soma__pool_run(run->pool, a.B * a.KV * 2, pack_item, &a);
    soma__pool_run(run->pool, a.B * a.H * a.n_tiles, forward_item, &a);
}

// ---- gradient

// The thread's memory: packed keys and values, one tile's factors and scores.
typedef struct backward_space {
    uint32_t *keys, *values, *keys_turned;       // panels over S for q k^T and dout v^T; panels over K for ds k
    uint32_t *q, *dout, *q_turned, *dout_turned; // of a tile
    float *p, *ds;
    uint32_t *packed; // scores as words
    int32_t *k_block;
    size_t size;
} backward_space;

static backward_space backward_space_at(const attention *a, char *own) {
    backward_space s = {0};
    const int64_t turned = cpu_ceil(a->K, a->gemm->nr) * a->gemm->nr;
    const struct {
        uint32_t **at;
        int64_t words;
    } parts[] = {{&s.keys, a->key_size},          {&s.values, a->key_size},           {&s.keys_turned, a->value_size},
                 {&s.q, ROWS * a->words},         {&s.dout, ROWS * a->words},         {&s.q_turned, ROWS * turned},
                 {&s.dout_turned, ROWS * turned}, {(uint32_t **)&s.p, a->score_size}, {(uint32_t **)&s.ds, a->score_size},
                 {&s.packed, a->score_size / 2},  {(uint32_t **)&s.k_block, a->S}};
    for (size_t i = 0; i < SOMA_COUNT(parts); i++) {
        *parts[i].at = own ? (uint32_t *)(own + s.size) : NULL;
        s.size += cpu_align((size_t)parts[i].words * 4);
    }
    return s;
}

// d [keys it sees, K] += scores^T times the tile's rows (panels over the head size)
static void add_to_keys(const attention *a, const view *v, int64_t rows, const float *scores, uint32_t *packed, const uint32_t *turned,
                        float *d) {
    const int64_t ld = a->KV * a->K;
    const factor f = score_words(a, v, rows, scores, true, packed);
    for (int64_t r = 0, at = 0; r < v->n_runs; at += v->columns[r++]) {
        float *to = d + v->from[r] * ld;
        a->gemm->block(v->columns[r], a->K, cpu_ceil(rows, a->gemm->step), f.words + at, f.row, f.k, turned, to, ld, to, ld);
    }
}

static void backward_tile(const attention *a, const backward_space *s, int64_t b, int64_t head, int64_t row0, float *dk, float *dv) {
    const int64_t rows = SOMA_MIN(ROWS, a->T - row0);
    const float scale = a->out->p.attention.scale;
    float *dq = (float *)a->dq + ((b * a->T + row0) * a->H + head) * a->K;
    view v;
    look(a, &v, s->k_block, b, row0, rows);
    if (v.n_runs == 0) {
        for (int64_t i = 0; i < rows; i++) memset(dq + i * a->H * a->K, 0, (size_t)a->K * 4);
        return;
    }
    const cpu_factor q = tokens(a, a->q, b, head, false), g = tokens(a, a->dout, b, head, false);
    const cpu_factor q_turned = tokens(a, a->q, b, head, true), g_turned = tokens(a, a->dout, b, head, true);
    a->gemm->pack_rows(s->q, a->words, &q, row0, rows, 0, a->K);
    a->gemm->pack_rows(s->dout, a->words, &g, row0, rows, 0, a->K);
    a->gemm->pack_panels(s->q_turned, &q_turned, 0, a->K, row0, rows);
    a->gemm->pack_panels(s->dout_turned, &g_turned, 0, a->K, row0, rows);
    inner_product(a, &v, rows, s->q, s->keys, s->p);
    inner_product(a, &v, rows, s->dout, s->values, s->ds);
    drop_scores(a, &v, b, head, row0, rows, s->ds);
    float inverse[ROWS];
    a->softmax->forward(s->p, v.ld, rows, v.n_columns, v.k_block, v.q_block, scale, inverse);
    a->softmax->backward(s->ds, s->p, v.ld, rows, v.n_columns, scale, inverse);
    drop_scores(a, &v, b, head, row0, rows, s->p);
    outer_product(a, &v, rows, s->ds, s->packed, s->keys_turned, dq, a->H * a->K);
    add_to_keys(a, &v, rows, s->ds, s->packed, s->q_turned, dk);
    add_to_keys(a, &v, rows, s->p, s->packed, s->dout_turned, dv);
}

static void backward_item(void *ctx, int64_t item, int thread) {
    const attention *a = ctx;
    const int64_t b = item / a->KV, kv = item % a->KV, ld = a->KV * a->K;
    const backward_space s = backward_space_at(a, a->run->threads_space + (size_t)thread * a->run->thread_size);
    const cpu_factor k = tokens(a, a->k, b, kv, false), v = tokens(a, a->v, b, kv, false), k_turned = tokens(a, a->k, b, kv, true);
    a->gemm->pack_panels(s.keys, &k, 0, a->S, 0, a->K);
    a->gemm->pack_panels(s.values, &v, 0, a->S, 0, a->K);
    a->gemm->pack_panels(s.keys_turned, &k_turned, 0, a->K, 0, a->S);
    float *dk = a->dk + (b * a->S * a->KV + kv) * a->K, *dv = a->dv + (b * a->S * a->KV + kv) * a->K;
    for (int64_t j = 0; j < a->S; j++) {
        memset(dk + j * ld, 0, (size_t)a->K * 4);
        memset(dv + j * ld, 0, (size_t)a->K * 4);
    }
    for (int64_t g = 0; g < a->group; g++)
        for (int64_t tile = 0; tile < a->n_tiles; tile++) backward_tile(a, &s, b, kv * a->group + g, tile * ROWS, dk, dv);
}

static void attention_grad_run(const cpu_run *run, const soma_step *step) {
    attention a;
    if (!attention_new(&a, step, run->isa, false)) return; // was refused by the chooser
    a.run = run;
    set_drop(&a, step->nodes[0]->src[7]);
    a.dq = cpu_at(run, a.out);
    a.dk = (float *)a.dq + soma__numel(a.q);
    a.dv = a.dk + soma__numel(a.k);
    soma__pool_run(run->pool, a.B * a.KV, backward_item, &a);
}

// ---- choosers

cpu_choice cpu_fast_attention(const soma_step *step, soma_isa isa) {
    attention a;
    if (!attention_new(&a, step, isa, true)) return (cpu_choice){0};
    return (cpu_choice){attention_run, (size_t)(a.B * a.KV * (a.key_size + a.value_size)) * 4, forward_thread_size(&a)};
}

cpu_choice cpu_fast_attention_grad(const soma_step *step, soma_isa isa) {
    attention a;
    if (!attention_new(&a, step, isa, false)) return (cpu_choice){0};
    return (cpu_choice){.run = attention_grad_run, .thread_size = backward_space_at(&a, NULL).size};
}
