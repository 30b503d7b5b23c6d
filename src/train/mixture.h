// SPDX-License-Identifier: Apache-2.0
// The rows of a training run's batches, from one dataset or from several by weight: which dataset a row comes from is drawn from (seed,
// row) alone, and each dataset's loader gives its own frames in its own order, so a run that is resumed at any step sees what it would have
// seen.
#ifndef SOMA_TRAIN_MIXTURE_H
#define SOMA_TRAIN_MIXTURE_H

#include "data/loader.h"

enum { SOMA_MIXTURE_MOST = 32 };

typedef struct soma_mixture {
    int n;                                   // datasets
    soma_loader *loaders[SOMA_MIXTURE_MOST]; // owned; of `batch` rows at a time; NULL: a dataset that has no such rows
    double upto[SOMA_MIXTURE_MOST];          // shares, each with those before it
    uint64_t seed;
    int64_t batch;                                       // rows
    int64_t given[SOMA_MIXTURE_MOST];                    // rows of each dataset so far
    const soma_loader_batch *current[SOMA_MIXTURE_MOST]; // that each dataset's last row came from
} soma_mixture;

// weights [n], not negative; those of absent loaders count as 0.
void soma__mixture_weigh(soma_mixture *mixture, const double *weights);
int soma__mixture_choose(const soma_mixture *mixture, int64_t row); // of all rows since the first batch
soma_status soma__mixture_seek(soma_mixture *mixture, int64_t batch, soma_error *err);
// Row `row` of batch `batch`, in order after a seek: it is row *at of *from, which dataset *source gave. Borrowed until the next call.
soma_status soma__mixture_next(soma_mixture *mixture, int64_t batch, int64_t row, int *source, const soma_loader_batch **from, int64_t *at,
                               soma_error *err);
double soma__mixture_waited(const soma_mixture *mixture); // seconds
void soma__mixture_close(soma_mixture *mixture);          // {0} allowed

#endif
