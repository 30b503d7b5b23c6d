// SPDX-License-Identifier: Apache-2.0
// The built-in word vocabulary: {"type": "words", "words": [...]}. Ids 0 to 3 are <pad>, <eos>, <bos>, <unk>; word i has id 4 + i.
//
// A text is split into words: a run of letters (ASCII, lower-cased, and all bytes above 0x7f as they are) is one, each digit, each
// punctuation mark and each newline is one of its own, other white space separates. So "Touch the red cube." and "touch the red cube"
// differ in one id, and the numbers of a state need ten words. A word that is not in the list becomes <unk>.
#ifndef SOMA_TEXT_WORDS_H
#define SOMA_TEXT_WORDS_H

#include "base/base.h"
#include "base/str.h"

enum { SOMA_WORDS_PAD, SOMA_WORDS_EOS, SOMA_WORDS_BOS, SOMA_WORDS_UNK, SOMA_WORDS_SPECIAL };

typedef struct soma_words soma_words;

soma_status soma__words_parse(soma_words **words, const char *json, size_t len, const char *where, soma_error *err);
soma_status soma__words_from_prompts(soma_words **words, const char *const *prompts, size_t n_prompts, soma_error *err);
soma_status soma__words_save(const soma_words *words, const char *path, soma_error *err);
void soma__words_free(soma_words *words); // NULL allowed

int32_t soma__words_size(const soma_words *words);
int32_t soma__words_id(const soma_words *words, const char *word);                                          // -1 when absent
size_t soma__words_encode(const soma_words *words, const char *s, bool add_bos, int32_t *ids, size_t room); // as soma__text_encode
soma_status soma__words_decode(const soma_words *words, const int32_t *ids, size_t n_ids, soma_str *out, soma_error *err);

#endif
