// SPDX-License-Identifier: Apache-2.0
// Which pixels meet which places of a window, and kernels as panels.
#include "device/cpu/conv.h"

#include <string.h>

bool cpu_conv_of(cpu_conv *c, const soma_tensor *x, const soma_tensor *out, bool transposed) {
    const soma_window *w = &out->p.conv.window;
    *c = (cpu_conv){.transposed = transposed, .window = *w, .H = x->shape[1], .W = x->shape[2], .C = x->shape[3], .O = out->shape[3]};
    for (int d = 0; d < 2; d++) {
        c->out[d] = out->shape[1 + d];
        c->move[d] = transposed ? 1 : w->stride[d];
        c->step[d] = transposed ? w->stride[d] : 1;
    }
    c->K = w->size[0] * w->size[1] * c->C;
    return w->size[0] * w->size[1] <= CPU_CONV_RUNS;
}

// Does the place `at` of the window, along dimension d, belong to the phase that begins at pixel `first`? Then it meets the picture's *row.
static bool meets(const cpu_conv *c, int d, int64_t first, int64_t at, int64_t *row) {
    const int64_t from = c->transposed ? first + c->window.pad[d] - at : at - c->window.pad[d];
    *row = c->transposed ? from / c->step[d] : from;
    return from % c->step[d] == 0;
}

void cpu_conv_phase_of(cpu_conv_phase *p, const cpu_conv *c, int64_t phase) {
    *p = (cpu_conv_phase){.first = {phase / c->step[1], phase % c->step[1]}};
    for (int d = 0; d < 2; d++) p->length[d] = SOMA_MAX(0, (c->out[d] - p->first[d] + c->step[d] - 1) / c->step[d]);
    for (int64_t a = 0; a < c->window.size[0]; a++)
        for (int64_t b = 0; b < c->window.size[1]; b++) {
            int64_t row, column;
            if (!meets(c, 0, p->first[0], a, &row) || !meets(c, 1, p->first[1], b, &column)) continue;
            p->K += c->C;
            if (b && !c->transposed)
                p->runs[p->n_runs - 1].n++;
            else
                p->runs[p->n_runs++] = (cpu_conv_run){row, column, 1, a * c->window.size[1] + b};
        }
}

void cpu_conv_gather(void *to, const cpu_conv *c, const cpu_conv_phase *p, const void *x, size_t size, int64_t i, int64_t j) {
    const int64_t row0 = i * c->move[0], column0 = j * c->move[1];
    const size_t each = (size_t)c->C * size; // bytes of a pixel
    char *out = to;
    for (int r = 0; r < p->n_runs; r++) {
        const cpu_conv_run *run = &p->runs[r];
        const int64_t row = row0 + run->row, column = column0 + run->column;
        int64_t before = SOMA_MIN(run->n, SOMA_MAX(0, -column)), end = SOMA_MIN(run->n, c->W - column);
        if (row < 0 || row >= c->H || end < before) before = end = run->n;
        if (before) memset(out, 0, (size_t)before * each); // most windows lie inside: calls for nothing took two thirds of this loop
        if (end > before)
            memcpy(out + (size_t)before * each, (const char *)x + (size_t)(row * c->W + column + before) * each,
                   (size_t)(end - before) * each);
        if (end < run->n) memset(out + (size_t)end * each, 0, (size_t)(run->n - end) * each);
        out += (size_t)run->n * each;
    }
}

// ---- kernels

static float value(const cpu_kernel_panels *p, int64_t i) {
    return p->bf16 ? cpu_from_bf16(((const uint16_t *)p->data)[i]) : ((const float *)p->data)[i];
}

void cpu_kernel_pack(const cpu_kernel_panels *p, uint32_t *out, int64_t panel) {
    const int64_t from = panel * p->nr, columns = SOMA_MIN(p->nr, p->N - from);
    memset(out, 0, (size_t)p->panel * 4);
    for (int64_t j = 0; j < columns; j++)
        for (int64_t c = 0; c < p->C; c++) {
            const int64_t at = (p->transposed ? c * p->N + from + j : (from + j) * p->C + c) * p->places;
            for (int64_t t = 0; t < p->places; t++) {
                const float x = value(p, at + t);
                const int64_t k = t * p->C + c;
                if (p->pairs)
                    ((uint16_t *)out)[(k / 2 * p->nr + j) * 2 + k % 2] = cpu_to_bf16(x);
                else
                    ((float *)out)[k * p->nr + j] = p->round ? cpu_from_bf16(cpu_to_bf16(x)) : x;
            }
        }
}
