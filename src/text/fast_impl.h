// SPDX-License-Identifier: Apache-2.0
// What the files of the FAST tokenizer share.
#ifndef SOMA_TEXT_FAST_IMPL_H
#define SOMA_TEXT_FAST_IMPL_H

#include "text/fast.h"
#include "text/fast_bpe.h"

enum { SOMA_FAST_SMALL = 1 << 11 }; // characters below are known from tables; they are one or two bytes in UTF-8

typedef struct soma_fast_span {
    uint32_t offset; // into soma_fast.codes
    int32_t n;       // codes; -1: the token is no whole number of characters
} soma_fast_span;

struct soma_fast {
    int64_t n_bins; // 0: FAST
    double scale;
    int64_t min_token, vocab;
    char *json; // the tokenizer.json that this was made from
    size_t json_len;
    soma_fast_bpe *bpe;
    soma_fast_token *tokens; // [vocab] what each decodes to, in `bytes`; NULL: no token has this id
    unsigned char *bytes;
    soma_fast_span *spans; // [vocab]
    int32_t *codes;
    unsigned char class_of[SOMA_FAST_SMALL]; // soma_char_class
    double value_of[SOMA_FAST_SMALL];        // coefficient that a code stands for
};

// The byte that a character of GPT-2's alphabet stands for; -1: it is not of the alphabet.
int soma__fast_alphabet_byte(uint32_t cp);
uint32_t soma__fast_alphabet_char(unsigned char byte);

// The length of the next word at c[n > 0] by GPT-2's rule: a contraction; letters, numbers or other characters, each with one space before
// them; white space, but for its last character when something follows. class_of [n_classes]: soma_char_class of the first characters.
size_t soma__fast_word(const unsigned char *class_of, int32_t n_classes, const int32_t *c, size_t n);

#endif
