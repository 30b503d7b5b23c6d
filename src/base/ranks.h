// SPDX-License-Identifier: Apache-2.0
// Processes that do one job side by side, each on its share of the data: how many there are, which one we are, and the few things that they
// tell one another. Code that takes `soma_ranks *` takes NULL as well: alone. Who starts the ranks fills the struct (mpi/mpi.h; the tests
// have threads), so that this folder knows no MPI.
//
// Every rank makes the same calls in the same order with the same sizes; a call returns when all have made it. So a rank that fails goes on
// to the next soma__ranks_agree, and what needs memory or a file is agreed on before the call that needs all. A rank that is gone ends all
// of them: that is left to who started them.
//
// Whole numbers come out the same in any order. A sum of floats, when training needs one, belongs here as a fourth entry that adds in the
// order of the ranks.
#ifndef SOMA_BASE_RANKS_H
#define SOMA_BASE_RANKS_H

#include "base/base.h"

typedef struct soma_ranks soma_ranks;
struct soma_ranks {
    int rank, count;                                                      // 0 <= rank < count
    void (*sum)(soma_ranks *ranks, int64_t *values, size_t n);            // over the ranks, in place; all get it
    void (*max)(soma_ranks *ranks, int64_t *values, size_t n);            // the same
    void (*share)(soma_ranks *ranks, void *data, size_t size, int owner); // all get the owner's bytes
};

static inline bool soma__ranks_first(const soma_ranks *ranks) { return !ranks || ranks->rank == 0; }
void soma__ranks_sum(soma_ranks *ranks, int64_t *values, size_t n);
void soma__ranks_max(soma_ranks *ranks, int64_t *values, size_t n);

// Which of n items are ours, [from, to): runs in the order of the ranks, as equal as can be.
void soma__ranks_part(const soma_ranks *ranks, int64_t n, int64_t *from, int64_t *to);

// SOMA_OK where every rank has it; else the status and the error of the first rank that failed, named where others did not fail.
soma_status soma__ranks_agree(soma_ranks *ranks, soma_status status, soma_error *err);
// Fails on every rank when `value` is not the same on all: `what` tells of what the ranks see different copies.
soma_status soma__ranks_same(soma_ranks *ranks, int64_t value, const char *what, soma_error *err);

#endif
