// SPDX-License-Identifier: Apache-2.0
// Measures what the machine could do at best. The best of several short rounds counts: other programs only ever slow us down.
#include "device/cpu/peak.h"

enum { TRIES = 7, ROUNDS = 1 << 19, READ_SIZE = 1 << 28, READ_ITEM = 1 << 20 };

typedef struct peak {
    double (*loop)(int64_t rounds);
    double work; // of one item
    const uint64_t *memory;
    uint64_t sums[READ_SIZE / READ_ITEM];
} peak;

static void loop_item(void *ctx, int64_t item, int thread) {
    peak *p = ctx;
    const double work = p->loop(ROUNDS);
    if (item == 0) p->work = work;
}

double cpu_peak_flops(soma_isa isa, soma_dtype product, soma_pool *pool) {
    peak p = {0};
#if defined(__x86_64__)
    if (isa >= SOMA_ISA_AVX512BF16 && product == SOMA_BF16)
        p.loop = cpu_peak_loop_avx512bf16;
    else if (isa >= SOMA_ISA_AVX512)
        p.loop = cpu_peak_loop_avx512;
    else if (isa >= SOMA_ISA_AVX2)
        p.loop = cpu_peak_loop_avx2;
#endif
    if (!p.loop) return 0;
    const int n = soma__pool_threads(pool);
    double best = 0;
    for (int i = 0; i < TRIES; i++) {
        const double from = soma__seconds();
        soma__pool_run(pool, n, loop_item, &p);
        best = SOMA_MAX(best, p.work * n / (soma__seconds() - from));
    }
    return best;
}

static void read_item(void *ctx, int64_t item, int thread) {
    peak *p = ctx;
    const uint64_t *from = p->memory + item * (READ_ITEM / 8);
    uint64_t sum[8] = {0};
    for (int64_t i = 0; i < READ_ITEM / 8; i += 8)
        for (int j = 0; j < 8; j++) sum[j] += from[i + j];
    for (int j = 1; j < 8; j++) sum[0] += sum[j];
    p->sums[item] = sum[0];
}

double cpu_peak_bytes(soma_pool *pool) {
    static const uint64_t written = 1;
    uint64_t *memory = soma__alloc(READ_SIZE);
    if (!memory) return 0;
    for (int64_t i = 0; i < READ_SIZE / 8; i++) memory[i] = written; // so that each page is there
    peak p = {.memory = memory};
    double best = 0;
    for (int i = 0; i < TRIES; i++) {
        const double from = soma__seconds();
        soma__pool_run(pool, READ_SIZE / READ_ITEM, read_item, &p);
        best = SOMA_MAX(best, READ_SIZE / (soma__seconds() - from));
    }
    soma__free(memory);
    return best;
}
