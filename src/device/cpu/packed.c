// SPDX-License-Identifier: Apache-2.0
// Chooses and writes the packed forms of weights, and reads rows of them (a table of embeddings that is the head as well).
#include "device/cpu/packed.h"
#include "device/cpu/fast.h"
#include "device/cpu/fast_matmul.h"
#include "device/cpu/fast_quant.h"

#include <string.h>

// A weight [N, ..] is a matrix [N, K]: what follows N is one row (a kernel over patches has three dimensions of it).
static int64_t rows_of(const soma_slot *slot) { return slot->shape[0]; }
static int64_t k_of(const soma_slot *slot) {
    int64_t K = 1;
    for (int i = 1; i < slot->n_dims; i++) K *= slot->shape[i];
    return K;
}

int64_t cpu_form_panel(cpu_form form, int64_t K, int nr) {
    return (form == CPU_FORM_PAIRS ? cpu_ceil(K, CPU_PAIRS_K) * (CPU_PAIRS_K / 2) : K) * nr;
}

bool cpu_reads_whole(const soma_tensor *t, int at) {
    const soma_tensor *b = t->src[at], *w = soma__owner(b);
    for (int i = 0; i < SOMA_MAX_SRC; i++)
        if (i != at && t->src[i] && (soma__owner(t->src[i]) == w || soma__owner(t->src[i])->form)) return false;
    return b->n_dims == 2 && soma__is_contiguous(b) && !(b->base && b->offset) && b->shape[0] == w->shape[0] &&
           soma__numel(b) == soma__numel(w);
}

// Is the weight this product's second factor, whole, and can the product be done with a packed one?
static bool packs(const soma_tensor *t, soma_isa isa) {
    return t->op == SOMA_OP_MATMUL && cpu_reads_whole(t, 1) &&
           cpu_fast_packed(&(soma_step){(soma_tensor *[]){(soma_tensor *)t}, 1}, isa).run;
}

void cpu_form_choose(soma_slot *slot, const soma_tensor *const *readers, size_t n_readers, soma_isa isa) {
    if (slot->n_dims < 2 || !n_readers || rows_of(slot) < 1 || k_of(slot) < 1) return;
    if (readers[0]->op == SOMA_OP_QUANT_MATMUL) {
        cpu_quant_choose(slot, readers, n_readers, isa);
        return;
    }
    if (readers[0]->op == SOMA_OP_CONV || readers[0]->op == SOMA_OP_CONV_TRANSPOSED) {
        cpu_conv_choose(slot, readers, n_readers, isa);
        return;
    }
    const soma_tensor *first = NULL; // product; a weight that is a table and nothing else stays where it is
    for (size_t i = n_readers; i-- > 0;)
        if (readers[i]->op != SOMA_OP_EMBED) first = readers[i];
    if (!first || first->op != SOMA_OP_MATMUL || (slot->dtype != SOMA_F32 && slot->dtype != SOMA_BF16)) return;
    const soma_dtype product = first->p.matmul.product;
    for (size_t i = 0; i < n_readers; i++) {
        const soma_tensor *t = readers[i];
        if (t->op == SOMA_OP_EMBED ? !cpu_reads_whole(t, 0) || (slot->dtype == SOMA_F32 && product == SOMA_BF16)
                                   : !packs(t, isa) || t->p.matmul.product != product)
            return;
    }
    const cpu_gemm *gemm = cpu_gemm_of(isa, product);
    // every product of an f32 weight in bf16 would round it first
    slot->form = slot->dtype == SOMA_F32 && product == SOMA_F32 ? CPU_FORM_FLOATS : CPU_FORM_PAIRS;
    slot->size = (size_t)(cpu_ceil(rows_of(slot), gemm->nr) * cpu_form_panel(slot->form, k_of(slot), gemm->nr)) * 4;
}

typedef struct packing {
    const cpu_gemm *gemm;
    cpu_factor f;
    cpu_form form;
    uint32_t *out;
    int64_t N, K, panel;
} packing;

static void pack_item(void *ctx, int64_t item, int thread) {
    const packing *p = ctx;
    const int64_t row0 = item * p->gemm->nr, rows = SOMA_MIN(p->gemm->nr, p->N - row0), used = cpu_ceil(p->K, 2) * p->gemm->nr;
    uint32_t *out = p->out + item * p->panel;
    const int64_t row_size = p->K * (p->f.bf16 ? 2 : 4);
    soma__memory_want((const char *)p->f.data + row0 * row_size, (size_t)(rows * row_size));
    if (p->form == CPU_FORM_FLOATS)
        p->gemm->pack_panels(out, &p->f, row0, rows, 0, p->K);
    else {
        p->gemm->pack_pairs(out, &p->f, row0, rows, p->K);
        memset(out + used, 0, (size_t)(p->panel - used) * 4);
    }
}

void cpu_form_pack(const soma_slot *slot, void *memory, const void *data, soma_dtype dtype, soma_isa isa, soma_pool *pool) {
    if (slot->form == CPU_FORM_BYTES || slot->form == CPU_FORM_LEVELS) {
        cpu_quant_pack(memory, slot->form == CPU_FORM_BYTES ? SOMA_QUANT_I8 : SOMA_QUANT_I4W, data, dtype, k_of(slot), rows_of(slot),
                       k_of(slot), cpu_quant_of(isa), pool);
        return;
    }
    if (slot->form >= CPU_FORM_KERNEL_FLOATS) {
        cpu_conv_pack(slot, memory, data, dtype, isa, pool);
        return;
    }
    packing p = {.gemm = cpu_gemm_of(isa, SOMA_F32), .form = slot->form, .out = memory, .N = rows_of(slot), .K = k_of(slot)};
    p.f = (cpu_factor){.data = data, .bf16 = dtype == SOMA_BF16, .row_stride = p.K, .k_stride = 1};
    p.panel = cpu_form_panel(p.form, p.K, p.gemm->nr);
    soma__pool_run(pool, cpu_ceil(p.N, p.gemm->nr), pack_item, &p);
}

// ---- rows

typedef struct look_up {
    const uint32_t *table;
    const int32_t *ids;
    void *out;
    cpu_form form;
    int64_t N, K, panel;
    int nr;
} look_up;

static void row_item(void *ctx, int64_t item, int thread) {
    const look_up *l = ctx;
    const int64_t row = l->ids[item];
    const bool inside = row >= 0 && row < l->N, pairs = l->form == CPU_FORM_PAIRS; // of a table of bf16
    const uint32_t *words = inside ? l->table + row / l->nr * l->panel + row % l->nr : NULL;
    for (int64_t k = 0; k < l->K; k++) {
        const uint32_t word = inside ? words[(pairs ? k / 2 : k) * l->nr] : 0;
        if (pairs)
            ((uint16_t *)l->out)[item * l->K + k] = (uint16_t)(k % 2 ? word >> 16 : word);
        else
            ((uint32_t *)l->out)[item * l->K + k] = word;
    }
}

static void embed(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *table = t->src[0], *ids = t->src[1];
    look_up l = {.table = cpu_at(run, table),
                 .ids = cpu_at(run, ids),
                 .out = cpu_at(run, t),
                 .form = soma__owner(table)->form,
                 .N = table->shape[0],
                 .K = table->shape[1],
                 .nr = cpu_gemm_of(run->isa, SOMA_F32)->nr};
    l.panel = cpu_form_panel(l.form, l.K, l.nr);
    soma__pool_run(run->pool, soma__numel(ids), row_item, &l);
}

cpu_choice cpu_packed_embed(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0];
    const cpu_form form = soma__owner(t->src[0])->form;
    // a table of f32 that was packed as pairs has lost its lower halves
    const bool fits = soma__is_contiguous(t->src[1]) && form == (t->dtype == SOMA_F32 ? CPU_FORM_FLOATS : CPU_FORM_PAIRS);
    return (cpu_choice){.run = fits ? embed : NULL};
}
