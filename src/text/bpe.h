// SPDX-License-Identifier: Apache-2.0
// Byte pair encoding proper: ids in, fewer ids out. Of all neighbours that a merge joins, those of the lowest rank are joined first, and of
// equal ones the leftmost, until no neighbours can be joined. What the first ids are (bytes, characters) is the caller's affair.
#ifndef SOMA_TEXT_BPE_H
#define SOMA_TEXT_BPE_H

#include "text/tokenizer_json.h"

typedef struct soma_bpe_slot {
    int32_t left, right, rank, merged; // rank -1: empty
} soma_bpe_slot;

typedef struct soma_bpe {
    soma_bpe_slot *slots; // a power of two of them, at most half in use
    size_t n_slots;
} soma_bpe; // {0} merges nothing

// Where a pair stands twice in `merges` the later rank holds, as in the reference. Const afterwards: any number of threads may merge at
// once.
soma_status soma__bpe_init(soma_bpe *bpe, const soma_merge *merges, size_t n_merges, soma_error *err);
void soma__bpe_free(soma_bpe *bpe);
// The rank of this pair; INT32_MAX: the two are not joined.
int32_t soma__bpe_rank(const soma_bpe *bpe, int32_t left, int32_t right);
// Merges ids[0 .. *n) in place and sets *n to how many are left. Words of up to SOMA_BPE_SHORT ids need no memory and cannot fail; longer
// ones take time n log n.
enum { SOMA_BPE_SHORT = 48 };
soma_status soma__bpe_merge(const soma_bpe *bpe, int32_t *ids, size_t *n, soma_error *err);

#endif
