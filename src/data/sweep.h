// SPDX-License-Identifier: Apache-2.0
// A pass over episodes by several threads: each has a reader of its own, and what depends on the order is done in the order of the list, so
// that a result does not depend on the number of threads.
#ifndef SOMA_DATA_SWEEP_H
#define SOMA_DATA_SWEEP_H

#include "base/pool.h"
#include "data/dataset.h"

enum { SOMA_SWEEP_BLOCK = 64 }; // places that may be visited before the first of them is settled

typedef struct soma_sweep {
    const soma_dataset *dataset;
    const int64_t *episodes; // [n] positions
    int64_t n;
    soma_pool *pool;
    // Reads episodes[place]; `thread` is below soma__pool_threads. Places of one block are visited in any order and at once.
    soma_status (*visit)(void *user, soma_dataset_reader *reader, int64_t place, int thread, soma_error *err);
    void (*settle)(void *user, int64_t place);                 // in the order of the list, one after the other; NULL: nothing to do
    bool (*progress)(void *user, int64_t done, int64_t total); // false: stop, with SOMA_CANCELLED; NULL: nobody wants to know
    void *user, *progress_user;
} soma_sweep;

// The error is that of the first place, in the list's order, whose visit failed.
soma_status soma__dataset_sweep(const soma_sweep *sweep, soma_error *err);

#endif
