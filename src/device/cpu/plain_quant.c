// SPDX-License-Identifier: Apache-2.0
// The plain quantised matrix product: quantises both rows (quant.h), sums whole numbers, applies the scales. Slow, for it quantises a
// weight again for every element that it computes; the fast kernels do so once, when a policy is opened.
#include "device/cpu/plain.h"
#include "device/cpu/quant.h"

// A block of a row: contiguous in `block`, turned.
static void turned(float block[QUANT_BLOCK], const void *data, const soma_tensor *t, int64_t at, int64_t k0, int64_t K) {
    for (int64_t i = 0; i < QUANT_BLOCK; i++)
        block[i] = k0 + i < K ? plain_load(data, t->dtype, at + (k0 + i) * t->stride[t->n_dims - 1]) : 0;
    quant_turn(block);
}

static quant_measure measure(const void *data, const soma_tensor *t, int64_t at, int64_t K, int most) {
    uint32_t top = 0;
    float block[QUANT_BLOCK];
    for (int64_t k = 0; k < K; k += QUANT_BLOCK) {
        turned(block, data, t, at, k, K);
        top = quant_largest(top, block, QUANT_BLOCK);
    }
    return quant_measure_of(top, most);
}

// Sums of a block's products: of the activations' high and low bytes with whole numbers w.
static void sum_block(int64_t sum[2], const int8_t *high, const int8_t *low, const int8_t *w, int n) {
    for (int i = 0; i < n; i++) {
        sum[0] += high[i] * w[i];
        sum[1] += low[i] * w[i];
    }
}

// One element: the row of a at `at` with the output channel of b at `bt`.
static float element(const soma_tensor *t, const void *pa, int64_t at, quant_measure ma, const void *pb, int64_t bt, float bias) {
    const soma_tensor *a = t->src[0], *b = t->src[1];
    const soma_quant form = t->p.quant.form;
    const int64_t K = b->shape[1];
    const quant_measure mb = measure(pb, b, bt, K, QUANT_BYTE_MAX);
    int64_t sum[2] = {0}; // with high and low bytes; int8: high alone
    float grouped = 0;
    for (int64_t k = 0; k < K; k += QUANT_BLOCK) {
        float x[QUANT_BLOCK], y[QUANT_BLOCK];
        int8_t high[QUANT_BLOCK], low[QUANT_BLOCK] = {0}, w[QUANT_BLOCK];
        turned(x, pa, a, at, k, K);
        turned(y, pb, b, bt, k, K);
        if (form == SOMA_QUANT_I8)
            quant_bytes(high, x, QUANT_BLOCK, ma.inverse);
        else
            quant_pairs(high, low, x, QUANT_BLOCK, ma.inverse);
        if (form != SOMA_QUANT_I4W) {
            quant_bytes(w, y, QUANT_BLOCK, mb.inverse);
            sum_block(sum, high, low, w, QUANT_BLOCK);
            continue;
        }
        for (int g = 0; g < QUANT_BLOCK; g += QUANT_GROUP) {
            uint8_t which[QUANT_GROUP];
            int64_t part[2] = {0};
            const uint16_t scale = quant_group(which, y + g);
            for (int i = 0; i < QUANT_GROUP; i++) w[i] = quant_levels[which[i]];
            sum_block(part, high + g, low + g, w, QUANT_GROUP);
            grouped = fmaf((float)(part[0] * 256 + part[1]), quant_group_scale(scale), grouped);
        }
    }
    if (form == SOMA_QUANT_I4W) return fmaf(grouped, ma.scale, bias);
    const float whole = form == SOMA_QUANT_I8 ? (float)sum[0] : fmaf((float)sum[0], 256, (float)sum[1]);
    return fmaf(whole, ma.scale * (mb.scale * quant_unturn), bias);
}

void plain_quant_matmul(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *a = t->src[0], *b = t->src[1], *bias = t->src[2];
    const void *pa = cpu_at(run, a), *pb = cpu_at(run, b), *pc = bias ? cpu_at(run, bias) : NULL;
    const int64_t K = b->shape[1], N = b->shape[0], rows = soma__numel(t) / N;
    void *out = cpu_at(run, t);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t at = plain_row(a, r);
        const quant_measure ma = measure(pa, a, at, K, t->p.quant.form == SOMA_QUANT_I8 ? QUANT_BYTE_MAX : QUANT_PAIR_MAX);
        for (int64_t c = 0; c < N; c++)
            plain_save(out, t->dtype, r * N + c,
                       element(t, pa, at, ma, pb, c * b->stride[0], pc ? plain_load(pc, bias->dtype, c * bias->stride[0]) : 0));
    }
}
