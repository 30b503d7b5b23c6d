// SPDX-License-Identifier: Apache-2.0
// Dropout, cut into equal runs of values. Declined: what is not contiguous f32.
#include "device/cpu/drop.h"

enum { RUN = 16384 }; // values of one item

typedef struct dropout {
    cpu_drop_row *row;
    cpu_drop drop;
    const float *x;
    float *y;
    int64_t n;
} dropout;

static void dropout_item(void *ctx, int64_t item, int thread) {
    const dropout *d = ctx;
    const int64_t from = item * RUN;
    d->row(d->y + from, d->x + from, SOMA_MIN(RUN, d->n - from), &d->drop, (uint32_t)from);
}

static void dropout_run(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    dropout d = {.row = CPU_KERNEL_PICK(run->isa, cpu_drop_row),
                 .drop = cpu_drop_of(run, t->src[1], t->p.drop),
                 .x = cpu_at(run, t->src[0]),
                 .y = cpu_at(run, t),
                 .n = soma__numel(t)};
    soma__pool_run(run->pool, cpu_ceil(d.n, RUN), dropout_item, &d);
}

cpu_choice cpu_fast_dropout(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    cpu_drop_row *row = CPU_KERNEL_PICK(isa, cpu_drop_row);
    return (cpu_choice){.run = row && t->dtype == SOMA_F32 && x->dtype == SOMA_F32 && soma__is_contiguous(x) ? dropout_run : NULL};
}
