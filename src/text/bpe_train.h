// SPDX-License-Identifier: Apache-2.0
// Learning merges from a corpus, merge for merge as the `tokenizers` trainer learns them: again and again the most frequent pair of
// neighbours, of equal ones the pair with the smaller ids, until the vocabulary is full or the count falls below the least frequency.
//
// The corpus is one array of 16-bit symbols and stays one: each merge passes over it and closes the gaps. So the memory is that of the
// corpus, with no lists of where pairs stand; the pass is as fast as memory can be read, on all threads, and the counts it makes are sums
// of whole numbers: the merges are the same for any number of threads.
//
// Over ranks each has words of its own and makes every merge in them; what it counted at the pair's left and right, 16 bytes per id of the
// vocabulary, is summed over the ranks. All of them keep the counts of all pairs and choose the same next one. Tried on paper: pairs owned
// by ranks, with deltas sent to the owners; more messages for a table that is small.
#ifndef SOMA_TEXT_BPE_TRAIN_H
#define SOMA_TEXT_BPE_TRAIN_H

#include "base/pool.h"
#include "base/ranks.h"
#include "text/bpe.h"

enum {
    SOMA_BPE_BREAK = 0xffff,       // between words; nothing is merged across
    SOMA_BPE_MAX_VOCAB = 0xffff,   // ids fit beside it
    SOMA_BPE_MAX_TOKEN = 10000,    // symbols; the trainer's limit for FAST: pairs that would be as long are not counted
    SOMA_BPE_MAX_SYMBOLS = 1 << 12 // different ones in the corpus to begin with
};

typedef struct soma_bpe_corpus {
    uint16_t *symbols; // [n] words, each with SOMA_BPE_BREAK behind it
    size_t n;
} soma_bpe_corpus;

typedef struct soma_bpe_trained {
    soma_merge *merges; // [n_merges] by rank; released with soma__free
    size_t n_merges;
    int32_t n_tokens; // ids n_alphabet .. n_tokens - 1 are new. Two merges may make the same text; it has one id
} soma_bpe_trained;

// Ids 0 .. n_alphabet - 1 are the symbols' own. The corpus is consumed: what is left in it are the encoded words. min_frequency at least 1.
// `ranks` (NULL: alone): each has its share of the words, maybe none, and gets the same merges; all or none succeed.
soma_status soma__bpe_train(soma_bpe_trained *out, soma_bpe_corpus *corpus, int32_t n_alphabet, int32_t vocab, int64_t min_frequency,
                            soma_pool *pool, soma_ranks *ranks, soma_error *err);

// The first place from i on where left stands before right, or n - 1 when there is none; s[n - 1] is a break. One per instruction set.
typedef size_t soma_bpe_find_fn(const uint16_t *s, size_t i, size_t n, uint16_t left, uint16_t right);
soma_bpe_find_fn soma__bpe_find_plain, soma__bpe_find_avx2;

#endif
