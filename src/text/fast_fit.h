// SPDX-License-Identifier: Apache-2.0
// Making a FAST tokenizer from chunks, as the published processor's fit() does: min_token is the least quantised coefficient; the alphabet
// is every character from 0 to the largest code, and the bytes that the corpus needs; merges are learnt down to a count of 2.
#ifndef SOMA_TEXT_FAST_FIT_H
#define SOMA_TEXT_FAST_FIT_H

#include "base/pool.h"
#include "base/ranks.h"
#include "text/fast.h"

typedef struct soma_fast_fit soma_fast_fit;

// scale above 0. `ranks` (NULL: alone) is borrowed until _free: every rank adds its share of the chunks, maybe none, and calls _size and
// _run when all have added without an error.
soma_status soma__fast_fit_new(soma_fast_fit **fit, double scale, soma_ranks *ranks, soma_error *err);
void soma__fast_fit_free(soma_fast_fit *fit); // NULL allowed

// Adds n chunks [n, T, A], normalised; shapes may differ between calls. Only the quantised coefficients are kept, two bytes each. Refused:
// values that are not finite, coefficients beyond 32767 steps (a chunk that is not normalised); the error names the chunk by its place
// among the n.
soma_status soma__fast_fit_add(soma_fast_fit *fit, const double *chunks, int64_t n, int64_t T, int64_t A, soma_pool *pool, soma_error *err);

typedef struct soma_fast_fit_size {
    int64_t chunks, codes;
    // The largest quantised coefficient less the least: how many tokens the codes alone take. The published fit() warns when fewer than 100
    // of the vocabulary are left for merges.
    int64_t range;
} soma_fast_fit_size;
soma_fast_fit_size soma__fast_fit_size(const soma_fast_fit *fit); // so far, of all ranks

// Learns a vocabulary of at most `vocab` tokens and makes the tokenizer; the fit's memory is used up. The merges are the same for any
// number of threads and ranks, and every rank gets the tokenizer, or none. Refused: no chunks, and a vocabulary smaller than the range of
// codes.
soma_status soma__fast_fit_run(soma_fast **fast, soma_fast_fit *fit, int64_t vocab, soma_pool *pool, soma_error *err);

#endif
