// SPDX-License-Identifier: Apache-2.0
// A seek counts how many rows each dataset has given before, which takes a moment per million rows and needs nothing to be stored.
#include "train/mixture.h"
#include "base/rng.h"

#include <string.h>

void soma__mixture_weigh(soma_mixture *m, const double *weights) {
    double sum = 0;
    for (int k = 0; k < m->n; k++) m->upto[k] = sum += m->loaders[k] ? weights[k] : 0;
    for (int k = 0; k < m->n; k++) m->upto[k] /= sum;
}

int soma__mixture_choose(const soma_mixture *m, int64_t row) {
    soma_rng all = soma__rng(m->seed), own = soma__rng_fold(&all, UINT64_MAX - 2), rng = soma__rng_fold(&own, (uint64_t)row);
    double place = m->n > 1 ? soma__rng_uniform(&rng) : 0;
    int k = 0, last = 0;
    for (; k < m->n; k++)
        if (m->loaders[k]) {
            last = k;
            if (place < m->upto[k]) return k;
        }
    return last;
}

soma_status soma__mixture_seek(soma_mixture *m, int64_t batch, soma_error *err) {
    memset(m->given, 0, sizeof m->given);
    for (int64_t row = 0; row < batch * m->batch; row++) m->given[soma__mixture_choose(m, row)]++;
    for (int k = 0; k < m->n; k++) {
        if (m->loaders[k]) SOMA_TRY(soma__loader_seek(m->loaders[k], m->given[k] / m->batch, err));
        if (m->given[k] % m->batch) SOMA_TRY(soma__loader_next(m->loaders[k], &m->current[k], err));
    }
    return SOMA_OK;
}

soma_status soma__mixture_next(soma_mixture *m, int64_t batch, int64_t row, int *source, const soma_loader_batch **from, int64_t *at,
                               soma_error *err) {
    const int k = *source = soma__mixture_choose(m, batch * m->batch + row);
    *at = m->given[k]++ % m->batch;
    if (!*at) SOMA_TRY(soma__loader_next(m->loaders[k], &m->current[k], err));
    *from = m->current[k];
    return SOMA_OK;
}

double soma__mixture_waited(const soma_mixture *m) {
    double seconds = 0;
    for (int k = 0; k < m->n; k++) seconds += m->loaders[k] ? soma__loader_waited(m->loaders[k]) : 0;
    return seconds;
}

void soma__mixture_close(soma_mixture *m) {
    for (int k = 0; k < m->n; k++) soma__loader_close(m->loaders[k]);
    *m = (soma_mixture){0};
}
