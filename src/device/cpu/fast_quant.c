// SPDX-License-Identifier: Apache-2.0
// The quantised matrix product out [M, N] = a [M, K] b [N, K]^T + bias, for one row as for a thousand.
//
// The activations are quantised whole into shared memory, a row at a time. Then each item multiplies a group of rows with one panel of
// weights, which it reads from its beginning to its end: with few rows the weights pass once at the speed of the memory. Sums are whole
// numbers, so that no order matters; those of 4-bit groups are added in the order of k. A weight that was not packed when the policy was
// opened is packed each time, which takes longer than the product: for tests.
//
// Declined: factors whose k is not contiguous, other dtypes than f32 and bf16.
#include "device/cpu/fast_quant.h"
#include "device/cpu/fast_elementwise.h"
#include "device/cpu/packed.h"
#include "device/cpu/plain.h"

enum {
    ROW_GROUP = 96,  // rows of an item: their sums stay in the second-level cache; a multiple of the tiles' rows
    FEW_ROWS = 4,    // up to so many pass over a panel once or twice: it is not cut
    CHUNK = 1 << 11, // elements of k: the panel's part stays in the second-level cache while the rows pass; a multiple of QUANT_BLOCK
};

typedef struct product {
    const cpu_quant_isa *isa;
    cpu_quant_bytes *multiply;
    soma_quant form;
    int64_t M, N, K, Kp, planes, panels, row_groups;
    int64_t start_ld; // sums begin at start[byte row * start_ld + ..]
    size_t bias_size, scale_size, start_size, bytes_size, weights_size, panel_size, thread_size;
    // while running
    const cpu_run *run;
    const cpu_tail *tail;
    const soma_tensor *out, *a;
    float *bias, *scales;
    int32_t *start;
    int8_t *bytes;
    const char *weights;
} product;

const cpu_quant_isa *cpu_quant_of(soma_isa isa) {
#if defined(__x86_64__)
    if (isa >= SOMA_ISA_AVX512BF16) return &cpu_quant_avx512bf16;
    if (isa >= SOMA_ISA_AVX2) return &cpu_quant_avx2;
#elif defined(__aarch64__)
    if (isa >= SOMA_ISA_NEONDOT) return &cpu_quant_neondot;
    if (isa >= SOMA_ISA_NEON) return &cpu_quant_neon;
#endif
    return NULL;
}

size_t cpu_quant_panel_size(soma_quant form, int64_t K, int nr) {
    const int64_t Kp = quant_padded(K);
    return (size_t)(form == SOMA_QUANT_I4W ? Kp / QUANT_GROUP * nr * (QUANT_GROUP / 2 + 2) : nr * (Kp + 4));
}

size_t cpu_quant_size(soma_quant form, int64_t N, int64_t K, const cpu_quant_isa *isa) {
    return (size_t)cpu_ceil(N, isa->nr) * cpu_quant_panel_size(form, K, isa->nr);
}

// ---- packing weights

typedef struct packing {
    const cpu_quant_isa *isa;
    soma_quant form;
    const char *weights;
    soma_dtype dtype;
    int64_t ld, N, K;
    char *panels;
} packing;

static void pack_item(void *ctx, int64_t item, int thread) {
    const packing *p = ctx;
    const int64_t row0 = item * p->isa->nr;
    p->isa->pack(p->panels + (size_t)item * cpu_quant_panel_size(p->form, p->K, p->isa->nr), p->form,
                 p->weights + row0 * p->ld * (int64_t)soma_dtype_size(p->dtype), p->dtype, p->ld, SOMA_MIN(p->isa->nr, p->N - row0), p->K);
}

void cpu_quant_pack(void *panels, soma_quant form, const void *weights, soma_dtype dtype, int64_t ld, int64_t N, int64_t K,
                    const cpu_quant_isa *isa, soma_pool *pool) {
    packing p = {isa, form, weights, dtype, ld, N, K, panels};
    soma__pool_run(pool, cpu_ceil(N, isa->nr), pack_item, &p);
}

// ---- the product

static bool is_float(const soma_tensor *t) { return t->dtype == SOMA_F32 || t->dtype == SOMA_BF16; }

static bool product_new(product *p, const soma_tensor *out, soma_isa isa) {
    const soma_tensor *a = out->src[0], *b = out->src[1], *bias = out->src[2];
    *p = (product){.isa = cpu_quant_of(isa), .form = out->p.quant.form, .out = out, .a = a, .N = b->shape[0], .K = b->shape[1]};
    const cpu_form form = soma__owner(b)->form;
    if (form && form != (p->form == SOMA_QUANT_I4W ? CPU_FORM_LEVELS : CPU_FORM_BYTES)) return false;
    if (!p->isa || !is_float(out) || !is_float(a) || !is_float(b) || a->stride[a->n_dims - 1] != 1 || b->stride[1] != 1) return false;
    if (bias && (!is_float(bias) || bias->stride[0] != 1)) return false;
    const bool pairs = p->form != SOMA_QUANT_I8;
    p->M = soma__numel(out) / p->N;
    p->Kp = quant_padded(p->K);
    p->planes = pairs ? 2 : 1;
    p->multiply = p->isa->bytes;
#if defined(__x86_64__)
    if (isa >= SOMA_ISA_AMX && p->M > FEW_ROWS) p->multiply = cpu_amx_bytes; // few rows wait for the memory either way
#endif
    p->panels = cpu_ceil(p->N, p->isa->nr);
    p->row_groups = cpu_ceil(p->M, ROW_GROUP);
    p->start_ld = p->form == SOMA_QUANT_I4W ? p->Kp / QUANT_GROUP : 1;
    p->bias_size = cpu_align((size_t)(p->panels * p->isa->nr) * 4);
    p->scale_size = cpu_align((size_t)p->M * 4);
    p->start_size = cpu_align((size_t)(p->M * p->planes * p->start_ld) * 4);
    p->bytes_size = cpu_align((size_t)(p->M * p->planes * p->Kp));
    p->panel_size = cpu_quant_panel_size(p->form, p->K, p->isa->nr);
    p->weights_size = form ? 0 : cpu_quant_size(p->form, p->N, p->K, p->isa);
    p->thread_size = cpu_align((size_t)SOMA_MAX(ROW_GROUP * p->planes * p->isa->nr, p->Kp) * 4);
    return true;
}

void cpu_quant_choose(soma_slot *slot, const soma_tensor *const *readers, size_t n_readers, soma_isa isa) {
    const bool levels = readers[0]->p.quant.form == SOMA_QUANT_I4W;
    product p;
    for (size_t i = 0; i < n_readers; i++) {
        const soma_tensor *t = readers[i];
        if (t->op != SOMA_OP_QUANT_MATMUL || (t->p.quant.form == SOMA_QUANT_I4W) != levels || !cpu_reads_whole(t, 1) ||
            !product_new(&p, t, isa))
            return;
    }
    slot->form = levels ? CPU_FORM_LEVELS : CPU_FORM_BYTES;
    slot->size = cpu_quant_size(readers[0]->p.quant.form, p.N, p.K, p.isa);
}

static void take_item(void *ctx, int64_t r, int thread) {
    const product *p = ctx;
    const char *x = (const char *)cpu_at(p->run, p->a) + plain_row(p->a, r) * (int64_t)soma_dtype_size(p->a->dtype);
    p->scales[r] = p->isa->take(p->bytes + r * p->planes * p->Kp, p->start + r * p->planes * p->start_ld, p->form, x, p->a->dtype, p->K,
                                (float *)(p->run->threads_space + (size_t)thread * p->run->thread_size));
}

// A group of rows with a panel.
static void block_item(void *ctx, int64_t item, int thread) {
    const product *p = ctx;
    const int64_t row0 = item % p->row_groups * ROW_GROUP, col0 = item / p->row_groups * p->isa->nr;
    const int64_t rows = SOMA_MIN(ROW_GROUP, p->M - row0), cols = SOMA_MIN(p->isa->nr, p->N - col0);
    const char *panel = p->weights + (size_t)(item / p->row_groups) * p->panel_size;
    const int8_t *a = p->bytes + row0 * p->planes * p->Kp;
    const int32_t *start = p->start + row0 * p->planes * p->start_ld;
    char *sums = p->run->threads_space + (size_t)thread * p->run->thread_size;
    const int64_t chunk = rows <= FEW_ROWS ? p->Kp : CHUNK;
    for (int64_t k = 0; k < p->Kp; k += chunk) {
        const int64_t end = SOMA_MIN(p->Kp, k + chunk);
        if (p->form == SOMA_QUANT_I4W)
            p->isa->groups(rows, k / QUANT_GROUP, end / QUANT_GROUP, a, p->Kp, start, panel, (float *)sums);
        else
            p->multiply(rows * p->planes, k / 4, end / 4, a, p->Kp, start, panel, (int32_t *)sums);
    }
    const bool bf16 = p->out->dtype == SOMA_BF16;
    const int64_t sums_ld = p->form == SOMA_QUANT_I8W ? 2 * p->isa->nr : p->isa->nr;
    const float *channels = p->form == SOMA_QUANT_I4W ? NULL : (const float *)(panel + p->Kp * p->isa->nr);
    // what follows is run over values that take the sums' place
    char *out = p->tail->run ? sums : (char *)cpu_at(p->run, p->out) + (row0 * p->N + col0) * (bf16 ? 2 : 4);
    const int64_t out_ld = p->tail->run ? sums_ld * 4 : p->N * (bf16 ? 2 : 4);
    for (int64_t r = 0; r < rows; r++)
        p->isa->finish(out + r * out_ld, bf16, cols, p->form, sums + r * sums_ld * 4, p->scales[row0 + r], channels, p->bias + col0);
    cpu_tail_block(p->tail, sums + p->thread_size, (const float *)sums, sums_ld, row0 * p->N + col0, rows, cols);
}

static void take_bias(product *p) {
    const soma_tensor *t = p->out->src[2];
    const void *data = t ? cpu_at(p->run, t) : NULL;
    memset(p->bias, 0, p->bias_size);
    for (int64_t i = 0; t && i < p->N; i++)
        p->bias[i] = t->dtype == SOMA_F32 ? ((const float *)data)[i] : cpu_from_bf16(((const uint16_t *)data)[i]);
}

static void quant_matmul(const cpu_run *run, const soma_step *step) {
    const soma_tensor *b = step->nodes[0]->src[1];
    product p;
    cpu_tail tail;
    if (!product_new(&p, step->nodes[0], run->isa) || !cpu_tail_new(&tail, run, step, run->isa)) return; // was refused by the chooser
    p.run = run;
    p.tail = &tail;
    p.bias = (float *)run->shared;
    p.scales = (float *)(run->shared + p.bias_size);
    p.start = (int32_t *)((char *)p.scales + p.scale_size);
    p.bytes = (int8_t *)p.start + p.start_size;
    p.weights = cpu_at(run, b);
    if (p.weights_size) {
        char *panels = (char *)p.bytes + p.bytes_size;
        cpu_quant_pack(panels, p.form, p.weights, b->dtype, b->stride[0], p.N, p.K, p.isa, run->pool);
        p.weights = panels;
    }
    take_bias(&p);
    soma__pool_run(run->pool, p.M, take_item, &p);
    soma__pool_run(run->pool, p.panels * p.row_groups, block_item, &p);
}

cpu_choice cpu_fast_quant_matmul(const soma_step *step, soma_isa isa) {
    product p;
    cpu_tail tail;
    if (!product_new(&p, step->nodes[0], isa) || !cpu_tail_new(&tail, NULL, step, isa) || tail.other_rows) return (cpu_choice){0};
    return (cpu_choice){quant_matmul, p.bias_size + p.scale_size + p.start_size + p.bytes_size + p.weights_size, p.thread_size + tail.room};
}
