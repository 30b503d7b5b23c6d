// SPDX-License-Identifier: Apache-2.0
// FAST, the tokenizer of action chunks (Pertsch et al. 2025): a chunk [T, A], normalised to about -1 .. 1, becomes a few ids and comes
// back.
//
//     C = orthonormal DCT-II over time, per dimension          text/fast_dct.h
//     q = C * scale, rounded half to even                      the only loss
//     the codes of all dimensions of frequency 0, then of frequency 1, ...
//     code = max(q - min_token, 0), a character with that code point
//     byte-level BPE of the text, words cut by GPT-2's rule    text/fast_bpe.h
//
// The ids are those of the published processor. Unlike it, the shape of a chunk is told in every call: the processor keeps the first shape
// that it has decoded and gives zeros for any other. Binning, 256 bins per value and step, has the same interface, for comparison.
//
// A soma_fast is const after it is made: any number of threads encode and decode with it, each with a soma_fast_work of its own.
#ifndef SOMA_TEXT_FAST_H
#define SOMA_TEXT_FAST_H

#include "base/base.h"

enum {
    SOMA_FAST_MAX_STEPS = 1 << 16, // of one chunk
    SOMA_FAST_MAX_CODES = 1 << 22, // steps times dimensions of one chunk
    SOMA_FAST_MAX_VOCAB = 1 << 15,
};

typedef struct soma_fast soma_fast;
typedef struct soma_fast_work soma_fast_work;

// `dir` holds tokenizer.json and processor_config.json as the processor saves them (tokenizer.json may lie in its bpe_tokenizer/), or the
// processor_config.json of a binning tokenizer alone. A tokenizer.json that is not byte-level BPE with GPT-2's split rule is refused.
soma_status soma__fast_open(soma_fast **fast, const char *dir, soma_error *err);
// The same over bytes; `where` stands in the sentences for the folder. `tokenizer` NULL: binning.
soma_status soma__fast_parse(soma_fast **fast, const char *tokenizer, size_t tokenizer_len, const char *config, size_t config_len,
                             const char *where, soma_error *err);
// n_bins (2 .. 65536) equal bins of [-1, 1] per value; a value is decoded to the middle of its bin.
soma_status soma__fast_bins(soma_fast **fast, int64_t n_bins, soma_error *err);
// Writes the files that soma__fast_open reads, each whole or not at all, processor_config.json last. Makes the folder.
soma_status soma__fast_save(const soma_fast *fast, const char *dir, soma_error *err);
void soma__fast_close(soma_fast *fast); // NULL allowed

int64_t soma__fast_vocab(const soma_fast *fast);     // ids are 0 .. vocab - 1
double soma__fast_scale(const soma_fast *fast);      // steps of quantisation per unit of a coefficient; 0: binning
int64_t soma__fast_min_token(const soma_fast *fast); // the q that code 0 stands for

// One thread's plans and buffers; kept between calls, so that a shape seen before allocates nothing.
soma_status soma__fast_work_new(soma_fast_work **work, const soma_fast *fast, soma_error *err); // `fast` is borrowed until free
void soma__fast_work_free(soma_fast_work *work);                                                // NULL allowed

typedef struct soma_fast_ids {
    const int32_t *ids; // [n]; owned by the work, until its next call
    size_t n;
    const int32_t *codes; // [T A] lowest frequencies first (bins: as the chunk lies); owned by the work
    int64_t n_clipped;    // codes that lay below min_token (bins: values outside -1 .. 1) and were set to the limit
    int64_t n_lost;       // codes whose character the vocabulary cannot write: dropped, the chunk will not decode
} soma_fast_ids;

// chunk [T, A]. Refused: T or A below 1 or beyond the limits above, values that are not finite, and coefficients so large that no character
// stands for them (an unnormalised chunk): the sentence names step or frequency and dimension.
soma_status soma__fast_encode(soma_fast_work *work, const double *chunk, int64_t T, int64_t A, soma_fast_ids *out, soma_error *err);

// Strict: what does not decode to exactly [T, A] is SOMA_BAD_INPUT, and the chunk is all zeros, as the published processor gives it; so is
// an id that the vocabulary does not have. Relaxed, as LeRobot decodes: too many codes are cut off, missing ones are zero, unknown ids are
// passed over, and all is well unless T or A is wrong.
typedef enum soma_fast_rule { SOMA_FAST_STRICT, SOMA_FAST_RELAXED } soma_fast_rule;
soma_status soma__fast_decode(soma_fast_work *work, const int32_t *ids, size_t n_ids, soma_fast_rule rule, int64_t T, int64_t A,
                              double *chunk, soma_error *err);

#endif
