// SPDX-License-Identifier: Apache-2.0
// Blocks of episodes through the pool. The blocks are the same for any number of threads.
#include "data/sweep.h"

typedef struct sweeping {
    const soma_sweep *s;
    soma_dataset_reader **readers; // [threads]
    int64_t first;                 // place
    soma_status status[SOMA_SWEEP_BLOCK];
    soma_error errors[SOMA_SWEEP_BLOCK];
} sweeping;

static void visit(void *ctx, int64_t item, int thread) {
    sweeping *w = ctx;
    w->errors[item] = (soma_error){0};
    w->status[item] = w->s->visit(w->s->user, w->readers[thread], w->first + item, thread, &w->errors[item]);
}

static soma_status sweep(sweeping *w, soma_error *err) {
    const soma_sweep *s = w->s;
    for (w->first = 0; w->first < s->n; w->first += SOMA_SWEEP_BLOCK) {
        int64_t n = SOMA_MIN(s->n - w->first, (int64_t)SOMA_SWEEP_BLOCK);
        soma__pool_run(s->pool, n, visit, w);
        for (int64_t i = 0; i < n; i++) {
            if (w->status[i] != SOMA_OK) return soma__fail(err, w->status[i], "%s", w->errors[i].text);
            if (s->settle) s->settle(s->user, w->first + i);
        }
        if (s->progress && !s->progress(s->progress_user, w->first + n, s->n)) return soma__fail(err, SOMA_CANCELLED, "stopped");
    }
    return SOMA_OK;
}

soma_status soma__dataset_sweep(const soma_sweep *s, soma_error *err) {
    const soma_dataset_format *format = s->dataset->format;
    int threads = soma__pool_threads(s->pool);
    sweeping *w = soma__calloc(1, sizeof *w);
    soma_dataset_reader **readers = soma__calloc((size_t)threads, sizeof(soma_dataset_reader *));
    soma_status status = w && readers ? SOMA_OK : soma__no_memory(err, "a pass over episodes");
    for (int i = 0; i < threads && status == SOMA_OK; i++) status = format->reader_open(&readers[i], s->dataset, err);
    if (status == SOMA_OK) {
        w->s = s;
        w->readers = readers;
        status = sweep(w, err);
    }
    for (int i = 0; readers && i < threads; i++) format->reader_close(readers[i]);
    soma__free(readers);
    soma__free(w);
    return status;
}
