// SPDX-License-Identifier: Apache-2.0
// The gradient of a convolution by its kernel, dw [O, k] = sum over pixels of dy [pixel, O] x [pixel, k]: an item gathers a panel of k from
// the picture, chunk of pixels after chunk, and multiplies all of dy with it, whose rows are the contraction and read as they lie.
//
// Declined: pictures that are not contiguous f32, kernels of more than 64 places.
#include "device/cpu/conv.h"
#include "device/cpu/fast.h"

#include <string.h>

enum {
    PIXELS = 128,   // gathered at once: a panel of them stays in the first-level cache (f32: 32 KiB)
    MAX_NR = 64,    // columns of a panel
    CHANNELS = 256, // of dy in an item: their sums (64 KiB) in the second
};

typedef struct product {
    cpu_conv conv;
    const cpu_gemm *isa;
    bool round;
    int64_t places, M, O;
    size_t sums_size, panel_size, gathered_size, dy_size;
    // while running
    const cpu_run *run;
    cpu_conv_phase phase;
    const float *x, *dy;
    float *out;
} product;

static bool is_plain(const soma_tensor *t) { return t->dtype == SOMA_F32 && soma__is_contiguous(t); }

static bool product_new(product *p, const soma_tensor *t, soma_isa isa) {
    const soma_tensor *x = t->src[0], *dy = t->src[1];
    *p = (product){.isa = cpu_gemm_of(isa, t->p.conv.product), .round = t->p.conv.product == SOMA_BF16};
    if (!p->isa || p->isa->nr > MAX_NR || !is_plain(x) || !is_plain(dy)) return false;
    soma_tensor like = *dy; // a convolution that makes dy of x
    like.p = t->p;
    if (!cpu_conv_of(&p->conv, x, &like, false)) return false;
    p->O = dy->shape[3];
    p->M = soma__numel(dy) / p->O;
    p->places = p->conv.K / p->conv.C;
    p->sums_size = cpu_align((size_t)(CHANNELS * p->isa->nr) * 4);
    p->panel_size = cpu_align((size_t)(PIXELS * p->isa->nr) * 4);
    p->gathered_size = p->round ? p->panel_size : 0;
    p->dy_size = p->round ? cpu_align((size_t)(PIXELS * CHANNELS) * 4) : 0;
    return true;
}

// The part of a panel of k that one row of the window gives: elements `from` to `to` of its places' channels.
typedef struct segment {
    int64_t row, from, to;
} segment;

static int segments_of(segment *out, const cpu_conv *c, int64_t k0, int64_t n) {
    const int64_t line = c->window.size[1] * c->C;
    int count = 0;
    for (int64_t k = k0, len; k < k0 + n; k += len) {
        len = SOMA_MIN(line - k % line, k0 + n - k);
        out[count++] = (segment){k / line, k % line, k % line + len};
    }
    return count;
}

// The segments (n elements of k) of pixels m0 to m0 + rows into out, `nr` apart. What lies outside of the picture is 0.
static void gather(const product *p, float *out, int64_t m0, int64_t rows, const segment *segments, int n_segments, int64_t n) {
    const cpu_conv *c = &p->conv;
    const size_t behind = (size_t)(p->isa->nr - n) * sizeof *out;
    int64_t j = m0 % c->out[1], i = m0 / c->out[1] % c->out[0];
    const float *x = p->x + m0 / c->out[1] / c->out[0] * c->H * c->W * c->C;
    for (int64_t r = 0; r < rows; r++, out += p->isa->nr) {
        const int64_t column = j * c->move[1] - c->window.pad[1], row0 = i * c->move[0] - c->window.pad[0];
        const int64_t first = SOMA_MAX(0, -column) * c->C, end = SOMA_MIN(c->window.size[1], c->W - column) * c->C; // inside
        float *o = out;
        for (int s = 0; s < n_segments; o += segments[s].to - segments[s].from, s++) {
            const segment *g = &segments[s];
            const int64_t row = row0 + g->row, from = SOMA_MIN(g->to, SOMA_MAX(g->from, first)), to = SOMA_MAX(from, SOMA_MIN(g->to, end));
            const float *line = x + (row * c->W + column) * c->C;
            if (row < 0 || row >= c->H) {
                memset(o, 0, (size_t)(g->to - g->from) * sizeof *o);
                continue;
            }
            if (from > g->from) memset(o, 0, (size_t)(from - g->from) * sizeof *o);
            memcpy(o + from - g->from, line + from, (size_t)(to - from) * sizeof *o);
            if (g->to > to) memset(o + to - g->from, 0, (size_t)(g->to - to) * sizeof *o);
        }
        if (behind) memset(out + n, 0, behind);
        if (++j < c->out[1]) continue;
        j = 0;
        if (++i < c->out[0]) continue;
        i = 0;
        x += c->H * c->W * c->C;
    }
}

static void item(void *ctx, int64_t i, int thread) {
    const product *p = ctx;
    const int64_t nr = p->isa->nr, groups = cpu_ceil(p->O, CHANNELS), k0 = i / groups * nr, n = SOMA_MIN(nr, p->conv.K - k0);
    const int64_t o0 = i % groups * CHANNELS, channels = SOMA_MIN(CHANNELS, p->O - o0);
    char *space = p->run->threads_space + (size_t)thread * p->run->thread_size;
    float *sums = (float *)space, *gathered = (float *)(space + p->sums_size);
    uint32_t *panel = (uint32_t *)(space + p->sums_size + p->gathered_size), *dy = (uint32_t *)((char *)panel + p->panel_size);
    segment segments[MAX_NR];
    const int n_segments = segments_of(segments, &p->conv, k0, n);
    for (int64_t m = 0; m < p->M; m += PIXELS) {
        const int64_t rows = SOMA_MIN(PIXELS, p->M - m);
        const float *init = m ? sums : NULL;
        gather(p, p->round ? gathered : (float *)panel, m, rows, segments, n_segments, n);
        if (!p->round) {
            p->isa->block(channels, n, rows, (const uint32_t *)p->dy + m * p->O + o0, 1, p->O, panel, init, nr, sums, nr);
            continue;
        }
        const cpu_factor by_k = {gathered, false, true, 1, nr}, by_channel = {p->dy + m * p->O + o0, false, true, 1, p->O};
        p->isa->pack_panels(panel, &by_k, 0, n, 0, rows);
        p->isa->pack_columns(dy, CHANNELS, &by_channel, 0, channels, 0, rows);
        p->isa->block(channels, n, cpu_ceil(rows, p->isa->step), dy, 1, CHANNELS, panel, init, nr, sums, nr);
    }
    for (int64_t o = 0; o < channels; o++)
        for (int64_t k = 0; k < n; k++)
            p->out[((o0 + o) * p->conv.C + (k0 + k) % p->conv.C) * p->places + (k0 + k) / p->conv.C] = sums[o * nr + k];
}

static void conv_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    product p;
    if (!product_new(&p, t, run->isa)) return; // was refused by the chooser
    p.run = run;
    p.x = cpu_at(run, t->src[0]);
    p.dy = cpu_at(run, t->src[1]);
    p.out = cpu_at(run, t);
    soma__pool_run(run->pool, cpu_ceil(p.conv.K, p.isa->nr) * cpu_ceil(p.O, CHANNELS), item, &p);
}

cpu_choice cpu_fast_conv_grad(const soma_step *step, soma_isa isa) {
    product p;
    if (!product_new(&p, step->nodes[0], isa)) return (cpu_choice){0};
    return (cpu_choice){conv_grad, 0, p.sums_size + p.gathered_size + p.panel_size + p.dy_size};
}
