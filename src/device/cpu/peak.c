// SPDX-License-Identifier: Apache-2.0
// Measures what the machine could do at best. The best of several short rounds counts: other programs only ever slow us down.
#include "device/cpu/peak.h"

#include <string.h>

enum { TRIES = 7, ROUNDS = 1 << 17, ITEMS_EACH = 4, PIECE = 1 << 20, READ_AT_LEAST = 1 << 28 };

#define CPU_MULTIPLY_ROW(name, word, of) {word, of},
static const struct {
    const char *name;
    cpu_multiplied of;
} kinds[] = {CPU_MULTIPLY_LIST(CPU_MULTIPLY_ROW)};

const char *cpu_multiply_name(cpu_multiply kind) { return kinds[kind].name; }
cpu_multiplied cpu_multiply_of(cpu_multiply kind) { return kinds[kind].of; }

typedef struct peak {
    cpu_multiply kind;
    double *work; // of each item
    const char *memory;
    size_t size, again; // bytes of an item; how often it is read
    bool four_streams;
    soma_isa isa;
    _Atomic uint64_t sum;
} peak;

static void multiply_item(void *ctx, int64_t item, int thread) {
    const peak *p = ctx;
    p->work[item] = cpu_multiply_loop(p->kind, ROUNDS);
}

double cpu_peak_multiply(cpu_multiply kind, soma_pool *pool) {
    const int n = ITEMS_EACH * soma__pool_threads(pool);
    double work[n], best = 0;
    for (int i = 0; i < TRIES; i++) {
        const double from = soma__seconds();
        soma__pool_run(pool, n, multiply_item, &(peak){.kind = kind, .work = work});
        best = SOMA_MAX(best, work[0] * n / (soma__seconds() - from));
    }
    return best;
}

double cpu_peak_flops(soma_isa isa, cpu_multiplied of, soma_pool *pool) {
    double best = 0;
    for (int k = 0; k < CPU_MULTIPLIES; k++)
        if ((kinds[k].of == of || kinds[k].of == CPU_OF_F32) && cpu_multiply_here((cpu_multiply)k, isa))
            best = SOMA_MAX(best, cpu_peak_multiply((cpu_multiply)k, pool));
    return best;
}

static void read_item(void *ctx, int64_t item, int thread) {
    peak *p = ctx;
    uint64_t sum = 0;
    for (size_t i = 0; i < p->again; i++) sum += cpu_read_loop(p->memory + (size_t)item * p->size, p->size, p->four_streams, p->isa);
    p->sum += sum;
}

double cpu_peak_read(size_t size, bool own, soma_pool *pool) {
    const size_t n = (size_t)soma__pool_threads(pool), set = (own ? size * n : size) / PIECE * PIECE;
    peak p = {.size = PIECE, .again = 1, .isa = cpu_best_isa()};
    if (own || set == 0) p.size = SOMA_MAX(size / 4096, 1) * 4096, p.again = SOMA_MAX(READ_AT_LEAST / 4 / p.size, 2);
    const size_t n_items = own ? n : SOMA_MAX(set / PIECE, 1);
    // a shared set is read whole, again and again, until enough was read to be timed
    const size_t passes = p.again > 1 ? 1 : SOMA_MAX(READ_AT_LEAST / (n_items * p.size), 1);
    char *memory = soma__alloc(n_items * p.size + PIECE);
    if (!memory) return 0;
    soma__memory_large(memory, n_items * p.size + PIECE); // as a policy's weights
    memset(memory, 1, n_items * p.size + PIECE);          // so that each page is there
    p.memory = memory;
    double best = 0;
    for (int i = 0; i < 2 * TRIES; i++) {
        p.four_streams = i % 2;
        const double from = soma__seconds();
        for (size_t k = 0; k < passes; k++) soma__pool_run(pool, (int64_t)n_items, read_item, &p);
        best = SOMA_MAX(best, (double)(passes * n_items * p.size * p.again) / (soma__seconds() - from));
    }
    soma__free(memory);
    return best;
}
