// SPDX-License-Identifier: Apache-2.0
// Cutting a text into the words within which merges happen. A tokenizer.json writes its rule as a regular expression; the few that are in
// use are forms of one rule, which is written here once with switches. A regular expression that is not among them is refused rather than
// run: an engine would be larger than all the rest, and a rule that is nearly right gives ids that are nearly right.
#ifndef SOMA_TEXT_BPE_SPLIT_H
#define SOMA_TEXT_BPE_SPLIT_H

#include "base/base.h"

typedef enum soma_split_kind {
    SOMA_SPLIT_WORDS,  // contractions, letters, numbers, other marks, white space, in this order
    SOMA_SPLIT_BEFORE, // before each `mark`
    SOMA_SPLIT_AFTER,  // behind each `mark`
    SOMA_SPLIT_RUNS,   // before each `mark` that follows something else: "a__b" is "a", "__b"
    SOMA_SPLIT_NUMBERS // numbers of up to n_digits, and what lies between them
} soma_split_kind;

typedef struct soma_split {
    soma_split_kind kind;
    char mark[5]; // of the kinds that have one; a character
    size_t mark_len;
    bool contractions, any_case;                                   // 's 't 're 've 'm 'll 'd are words; any_case: in capitals, too
    enum { SOMA_LEAD_NONE, SOMA_LEAD_SPACE, SOMA_LEAD_MARK } lead; // what may stand before letters: a space; any mark but a line's end
    int n_digits;                                                  // the longest number; 0: any length
    bool number_space, other_space;                                // a space belongs to the number or the marks behind it
    bool other_lines;                                              // line ends belong to the marks before them
    bool lines;                                                    // white space up to its last line end is a word of its own
    bool drop_space;                                               // white space gives no word
} soma_split;

extern const soma_split soma__split_gpt2, soma__split_qwen2, soma__split_llama3, soma__split_clip;

// A rule of one of the kinds with a mark, which is at most 4 bytes long and not empty.
soma_split soma__split_at_mark(soma_split_kind kind, const char *mark);
// The rule that a regular expression means; NULL when it is not known here.
const soma_split *soma__split_from_regex(const char *regex);

// The next word of s < end, which is valid UTF-8: its length, at least 1. *dropped: it is no word (white space of a rule that drops it).
size_t soma__split_next(const soma_split *rule, const char *s, const char *end, bool *dropped);

#endif
