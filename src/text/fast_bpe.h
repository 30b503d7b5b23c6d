// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of the characters that FAST produces, at the speed that a control loop wants. The result is that of merging (bpe.h),
// but it is not found by merging.
//
// A token sequence is the result of merging if and only if each token alone encodes to itself and each two neighbours alone encode to
// themselves: merging inside a stretch that nothing crosses does not depend on what stands beside it, and the first merge across a border
// would happen between the two neighbours alone as well. So the encoder takes the longest token at each place (a trie), asks whether it may
// stand behind the one before (remembered pair by pair), takes a shorter one or goes back when not, and visits no dead place twice.
#ifndef SOMA_TEXT_FAST_BPE_H
#define SOMA_TEXT_FAST_BPE_H

#include "text/bpe.h"

typedef struct soma_fast_token {
    const unsigned char *bytes; // what the token stands for; NULL: no text ever becomes this token (and no id may have it)
    uint32_t len;
} soma_fast_token;

typedef struct soma_fast_bpe soma_fast_bpe; // const: shared by threads

// Ids are positions in `tokens`; both lists are borrowed for the call. Merges of tokens without bytes are left out: nothing reaches them.
soma_status soma__fast_bpe_new(soma_fast_bpe **bpe, const soma_fast_token *tokens, size_t n_tokens, const soma_merge *merges,
                               size_t n_merges, const char *where, soma_error *err);
void soma__fast_bpe_free(soma_fast_bpe *bpe); // NULL allowed

// One thread's scratch: which neighbours get along, as far as asked, and room for a piece. Belongs to one bpe.
typedef struct soma_fast_bpe_work {
    uint32_t *neighbours;
    uint16_t *units;
    unsigned char *dead, *bytes;
    size_t room;
} soma_fast_bpe_work; // {0} is empty and ready
soma_status soma__fast_bpe_reserve(soma_fast_bpe_work *work, size_t n_chars, soma_error *err);
void soma__fast_bpe_work_free(soma_fast_bpe_work *work);

// The tokens of one piece of text, `chars` code points without surrogates, at most as many as reserved. ids has room for 4 n_chars. Bytes
// that the vocabulary lacks are dropped before merging, as the reference does.
soma_status soma__fast_bpe_encode(const soma_fast_bpe *bpe, soma_fast_bpe_work *work, const int32_t *chars, size_t n_chars, int32_t *ids,
                                  size_t *n_ids, soma_error *err);
// The same by merging: what the above is tested against, and what it does itself where a vocabulary's merges are out of order.
soma_status soma__fast_bpe_merge(const soma_fast_bpe *bpe, soma_fast_bpe_work *work, const int32_t *chars, size_t n_chars, int32_t *ids,
                                 size_t *n_ids, soma_error *err);

// How many of these characters have a byte that the vocabulary lacks.
int64_t soma__fast_bpe_lost(const soma_fast_bpe *bpe, const int32_t *chars, size_t n_chars);

#endif
