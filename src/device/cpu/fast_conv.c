// SPDX-License-Identifier: Apache-2.0
// Convolution and its transpose as matrix products (conv.h) with the blocks of the packed product: a block of output pixels is gathered
// into words, then every panel of the kernel meets it, its sums in a block of their own until the last k. Kernels that a policy only reads
// were packed when it was opened; in training they are packed at each run.
//
// Every element is one sum in the order of k that begins with the bias: its bits depend neither on the other pixels nor on the threads.
//
// Declined: pictures that are not contiguous f32, results in bf16, kernels of more than 64 places; in bf16, transposed ones over an odd
// number of channels (a word holds two).
#include "device/cpu/conv.h"
#include "device/cpu/fast_elementwise.h"

#include <string.h>

enum {
    CHUNK = 256,          // elements of k: a panel's part stays in the first-level cache (f32: 64 KiB, the second)
    ROW_GROUP = 192,      // pixels of an item; a multiple of the tiles' 6 rows
    GATHER_ROWS = 24,     // pixels gathered by one item
    ROUND_ITEM = 1 << 15, // values rounded by one item
    GATHERED = 4 << 20,   // bytes of words that are gathered at once, if more than a group of pixels
};

typedef struct product {
    cpu_conv conv;
    const cpu_gemm *isa;
    cpu_gemm_block *block;
    bool round;         // factors are rounded to bf16
    bool halves;        // the picture is, once, before it is gathered; else each word when it is
    int64_t values;     // of all pictures
    int64_t k_of_word;  // elements of k in a word of the kernel
    int64_t panel;      // words between panels
    int64_t block_rows; // pixels gathered at once
    int64_t ld;         // words of a gathered pixel, at most
    size_t bias_size, kernel_size, gathered_size, rounded_size, thread_size;
    // while running
    const cpu_run *run;
    const cpu_tail *tail;
    const cpu_conv_phase *phase;
    cpu_kernel_panels kernel;
    const float *x, *bias;
    float *out;
    uint32_t *gathered, *packed; // packed: by this run
    uint16_t *rounded;           // the pictures in bf16
    const uint32_t *b;
    int64_t row0, rows; // of the block
} product;

static bool is_float(const soma_tensor *t) { return t->dtype == SOMA_F32 || t->dtype == SOMA_BF16; }

static bool product_new(product *p, const soma_tensor *out, soma_isa isa) {
    const soma_tensor *x = out->src[0], *w = out->src[1], *bias = out->src[2];
    const bool transposed = out->op == SOMA_OP_CONV_TRANSPOSED;
    const cpu_form form = soma__owner(w)->form;
    const soma_dtype kind = out->p.conv.product;
    *p = (product){.isa = cpu_gemm_of(isa, kind), .round = kind == SOMA_BF16};
    if (!p->isa || out->dtype != SOMA_F32 || x->dtype != SOMA_F32 || !soma__is_contiguous(x) || !is_float(w) || !soma__is_contiguous(w))
        return false;
    if (!cpu_conv_of(&p->conv, x, out, transposed) || (bias && (!is_float(bias) || bias->stride[0] != 1))) return false;
    const bool packed_pairs = form == CPU_FORM_KERNEL_PAIRS || form == CPU_FORM_TRANSPOSED_PAIRS;
    const bool packed_floats = form == CPU_FORM_KERNEL_FLOATS || form == CPU_FORM_TRANSPOSED_FLOATS;
    if (form && ((!packed_pairs && !packed_floats) || transposed != (form >= CPU_FORM_TRANSPOSED_FLOATS))) return false;
    if ((packed_floats && p->round) || (packed_pairs && w->dtype == SOMA_F32 && !p->round)) return false;
    const bool pairs = packed_pairs || (!form && p->isa->step == 2);
    if (pairs && transposed && p->conv.C % 2) return false;
    p->k_of_word = pairs ? 2 : 1;
    p->block = pairs ? p->isa->block_pairs : p->isa->block;
    p->panel = cpu_form_panel(pairs ? CPU_FORM_PAIRS : CPU_FORM_FLOATS, p->conv.K, p->isa->nr);
    p->ld = cpu_ceil(p->conv.K, 2) * 2 / p->isa->step;
    p->block_rows = SOMA_MAX(ROW_GROUP, GATHERED / 4 / p->ld / ROW_GROUP * ROW_GROUP);
    p->block_rows = SOMA_MIN(p->block_rows, soma__numel(out) / out->shape[3]);
    p->kernel = (cpu_kernel_panels){.bf16 = w->dtype == SOMA_BF16,
                                    .transposed = transposed,
                                    .pairs = pairs,
                                    .round = p->round,
                                    .N = p->conv.O,
                                    .C = p->conv.C,
                                    .places = p->conv.window.size[0] * p->conv.window.size[1],
                                    .nr = p->isa->nr,
                                    .panel = p->panel};
    p->bias_size = bias ? cpu_align((size_t)p->conv.O * 4) : 0;
    p->kernel_size = form ? 0 : cpu_align((size_t)(cpu_ceil(p->conv.O, p->isa->nr) * p->panel) * 4);
    p->gathered_size = cpu_align((size_t)(p->block_rows * p->ld) * 4);
    p->halves = p->round && p->isa->step == 2;
    p->values = soma__numel(x);
    p->rounded_size = p->halves ? cpu_align((size_t)p->values * 2) : 0;
    const int64_t sums = ROW_GROUP * p->isa->nr, pixel = p->round && !p->halves ? cpu_ceil(p->conv.K, 2) * 2 : 0;
    p->thread_size = cpu_align((size_t)SOMA_MAX(sums, pixel) * 4);
    return true;
}

static void kernel_item(void *ctx, int64_t item, int thread) {
    const product *p = ctx;
    cpu_kernel_pack(&p->kernel, p->packed + item * p->panel, item);
}

// Output pixel r of the phase.
typedef struct pixel {
    int64_t n, i, j;
} pixel;
static pixel pixel_at(const product *p, int64_t r) {
    const int64_t columns = p->phase->length[1], rows = p->phase->length[0];
    return (pixel){r / columns / rows, r / columns % rows, r % columns};
}
static void pixel_next(const product *p, pixel *at) {
    if (++at->j < p->phase->length[1]) return;
    at->j = 0;
    if (++at->i < p->phase->length[0]) return;
    at->i = 0;
    at->n++;
}

// Two values of bf16 are a word: where words are pairs, packing is rounding.
static void round_item(void *ctx, int64_t item, int thread) {
    const product *p = ctx;
    const int64_t from = item * ROUND_ITEM, n = SOMA_MIN(ROUND_ITEM, p->values - from);
    p->isa->pack_rows((uint32_t *)(p->rounded + from), 0, &(cpu_factor){p->x + from, false, true, 0, 1}, 0, 1, 0, n);
}

static void gather_item(void *ctx, int64_t item, int thread) {
    const product *p = ctx;
    const cpu_conv *c = &p->conv;
    const int64_t K = p->phase->K, even = K + K % 2, from = item * GATHER_ROWS, to = SOMA_MIN(p->rows, from + GATHER_ROWS);
    float *pixel_k = (float *)(p->run->threads_space + (size_t)thread * p->run->thread_size);
    pixel at = pixel_at(p, p->row0 + from);
    for (int64_t r = from; r < to; r++, pixel_next(p, &at)) {
        uint32_t *words = p->gathered + r * p->ld;
        const int64_t picture = at.n * c->H * c->W * c->C;
        if (p->halves) {
            cpu_conv_gather(words, c, p->phase, p->rounded + picture, sizeof *p->rounded, at.i, at.j);
            if (K % 2) ((uint16_t *)words)[K] = 0; // what a last half word meets
            continue;
        }
        float *k = p->round ? pixel_k : (float *)words;
        cpu_conv_gather(k, c, p->phase, p->x + picture, sizeof *p->x, at.i, at.j);
        if (K % 2) k[K] = 0;
        if (p->round) p->isa->pack_rows(words, 0, &(cpu_factor){k, false, true, 0, 1}, 0, 1, 0, even);
    }
}

// Sums of one panel for rows of the block, over the places of the phase; places that follow one another in the kernel go in one run.
static void multiply(const product *p, const uint32_t *a, int64_t rows, int64_t cols, const uint32_t *b, const float *init, float *sums) {
    const cpu_conv_phase *phase = p->phase;
    const int64_t nr = p->isa->nr, C = p->conv.C;
    int64_t init_ld = 0, a_k = 0; // elements of k already done
    for (int r = 0; r < phase->n_runs || !r;) {
        const int64_t place = phase->n_runs ? phase->runs[r].place : 0;
        int64_t n = 0;
        for (; r < phase->n_runs && phase->runs[r].place == place + n; r++) n += phase->runs[r].n;
        int64_t k = 0;
        do { // a phase without places gives its bias
            const int64_t kn = SOMA_MIN(CHUNK, n * C - k), words = cpu_ceil(kn, p->k_of_word);
            p->block(rows, cols, words, a + (a_k + k) / p->isa->step, p->ld, 1, b + (place * C + k) / p->k_of_word * nr, init, init_ld,
                     sums, nr);
            init = sums;
            init_ld = nr;
            k += CHUNK;
        } while (k < n * C);
        a_k += n * C;
        if (!phase->n_runs) return;
    }
}

static void block_item(void *ctx, int64_t item, int thread) {
    const product *p = ctx;
    const cpu_conv *c = &p->conv;
    const int64_t groups = cpu_ceil(p->rows, ROW_GROUP), panel = item / groups, from = item % groups * ROW_GROUP;
    const int64_t rows = SOMA_MIN(ROW_GROUP, p->rows - from), nr = p->isa->nr, col0 = panel * nr, cols = SOMA_MIN(nr, c->O - col0);
    float *sums = (float *)(p->run->threads_space + (size_t)thread * p->run->thread_size);
    multiply(p, p->gathered + from * p->ld, rows, cols, p->b + panel * p->panel, p->bias ? p->bias + col0 : NULL, sums);
    pixel at = pixel_at(p, p->row0 + from);
    for (int64_t r = 0; r < rows; r++, pixel_next(p, &at)) {
        const int64_t y = p->phase->first[0] + at.i * c->step[0], x = p->phase->first[1] + at.j * c->step[1];
        const int64_t to = ((at.n * c->out[0] + y) * c->out[1] + x) * c->O + col0;
        if (p->tail->run)
            cpu_tail_block(p->tail, (char *)sums + p->thread_size, sums + r * nr, nr, to, 1, cols);
        else
            memcpy(p->out + to, sums + r * nr, (size_t)cols * sizeof *sums);
    }
}

static const float *take_bias(const product *p, const soma_tensor *t) {
    if (!t) return NULL;
    float *bias = (float *)p->run->shared;
    const void *data = cpu_at(p->run, t);
    for (int64_t i = 0; i < p->conv.O; i++)
        bias[i] = t->dtype == SOMA_F32 ? ((const float *)data)[i] : cpu_from_bf16(((const uint16_t *)data)[i]);
    return bias;
}

static void convolve(const cpu_run *run, const soma_step *step) {
    const soma_tensor *out = step->nodes[0];
    product p;
    cpu_tail tail;
    if (!product_new(&p, out, run->isa) || !cpu_tail_new(&tail, run, step, run->isa)) return; // was refused by the chooser
    p.run = run;
    p.tail = &tail;
    p.bias = take_bias(&p, out->src[2]);
    p.packed = (uint32_t *)(run->shared + p.bias_size);
    p.gathered = (uint32_t *)(run->shared + p.bias_size + p.kernel_size);
    p.rounded = (uint16_t *)(run->shared + p.bias_size + p.kernel_size + p.gathered_size);
    p.x = cpu_at(run, out->src[0]);
    p.out = cpu_at(run, out);
    p.b = p.kernel.data = cpu_at(run, out->src[1]);
    if (p.kernel_size) {
        soma__pool_run(run->pool, cpu_ceil(p.conv.O, p.isa->nr), kernel_item, &p);
        p.b = p.packed;
    }
    if (p.halves) soma__pool_run(run->pool, cpu_ceil(p.values, ROUND_ITEM), round_item, &p);
    for (int64_t i = 0; i < cpu_conv_phases(&p.conv); i++) {
        cpu_conv_phase phase;
        cpu_conv_phase_of(&phase, &p.conv, i);
        p.phase = &phase;
        const int64_t M = out->shape[0] * phase.length[0] * phase.length[1];
        for (p.row0 = 0; p.row0 < M; p.row0 += p.rows) {
            p.rows = SOMA_MIN(p.block_rows, M - p.row0);
            soma__pool_run(run->pool, cpu_ceil(p.rows, GATHER_ROWS), gather_item, &p);
            soma__pool_run(run->pool, cpu_ceil(p.conv.O, p.isa->nr) * cpu_ceil(p.rows, ROW_GROUP), block_item, &p);
        }
    }
}

cpu_choice cpu_fast_conv(const soma_step *step, soma_isa isa) {
    product p;
    cpu_tail tail;
    if (!product_new(&p, step->nodes[0], isa) || !cpu_tail_new(&tail, NULL, step, isa) || tail.other_rows) return (cpu_choice){0};
    return (cpu_choice){convolve, p.bias_size + p.kernel_size + p.gathered_size + p.rounded_size, p.thread_size + tail.room};
}

// ---- kernels that are packed once

bool cpu_reads_kernel(const soma_tensor *t) {
    const soma_tensor *w = t->src[1], *owner = soma__owner(w);
    for (int i = 0; i < SOMA_MAX_SRC; i++)
        if (i != 1 && t->src[i] && (soma__owner(t->src[i]) == owner || soma__owner(t->src[i])->form)) return false;
    return soma__is_contiguous(w) && !(w->base && w->offset) && w->shape[0] == owner->shape[0] && w->shape[1] == owner->shape[1] &&
           soma__numel(w) == soma__numel(owner);
}

void cpu_conv_choose(soma_slot *slot, const soma_tensor *const *readers, size_t n_readers, soma_isa isa) {
    const soma_op op = readers[0]->op;
    const soma_dtype product_kind = readers[0]->p.conv.product;
    product p;
    for (size_t i = 0; i < n_readers; i++)
        if (readers[i]->op != op || readers[i]->p.conv.product != product_kind || !cpu_reads_kernel(readers[i]) ||
            !product_new(&p, readers[i], isa))
            return;
    const bool pairs = slot->dtype == SOMA_BF16 || product_kind == SOMA_BF16, transposed = op == SOMA_OP_CONV_TRANSPOSED;
    if (pairs && transposed && slot->shape[0] % 2) return;
    if (transposed)
        slot->form = pairs ? CPU_FORM_TRANSPOSED_PAIRS : CPU_FORM_TRANSPOSED_FLOATS;
    else
        slot->form = pairs ? CPU_FORM_KERNEL_PAIRS : CPU_FORM_KERNEL_FLOATS;
    const int64_t N = slot->shape[transposed ? 1 : 0], K = soma__slot_count(slot) / N;
    const int nr = cpu_gemm_of(isa, product_kind)->nr;
    slot->size = (size_t)(cpu_ceil(N, nr) * cpu_form_panel(pairs ? CPU_FORM_PAIRS : CPU_FORM_FLOATS, K, nr)) * 4;
}

typedef struct packing {
    cpu_kernel_panels kernel;
    uint32_t *out;
} packing;

static void slot_item(void *ctx, int64_t item, int thread) {
    const packing *p = ctx;
    cpu_kernel_pack(&p->kernel, p->out + item * p->kernel.panel, item);
}

void cpu_conv_pack(const soma_slot *slot, void *memory, const void *data, soma_dtype dtype, soma_isa isa, soma_pool *pool) {
    const bool transposed = slot->form >= CPU_FORM_TRANSPOSED_FLOATS;
    packing p = {.out = memory};
    p.kernel = (cpu_kernel_panels){.data = data,
                                   .bf16 = dtype == SOMA_BF16,
                                   .transposed = transposed,
                                   .pairs = slot->form == CPU_FORM_KERNEL_PAIRS || slot->form == CPU_FORM_TRANSPOSED_PAIRS,
                                   .N = slot->shape[transposed ? 1 : 0],
                                   .C = slot->shape[transposed ? 0 : 1],
                                   .nr = cpu_gemm_of(isa, SOMA_F32)->nr};
    p.kernel.places = soma__slot_count(slot) / p.kernel.N / p.kernel.C;
    p.kernel.panel = cpu_form_panel(p.kernel.pairs ? CPU_FORM_PAIRS : CPU_FORM_FLOATS, p.kernel.C * p.kernel.places, p.kernel.nr);
    soma__pool_run(pool, cpu_ceil(p.kernel.N, p.kernel.nr), slot_item, &p);
}
