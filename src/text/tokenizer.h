// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json at work: text to ids and back, id for id as the `tokenizers` package does it. Read are the byte-level kind (GPT-2,
// Qwen2, Llama 3, CLIP, FAST) and the kind with characters and byte fallback (Gemma, PaliGemma, Llama 2).
//
// The way of a text: added tokens are cut out; what lies between is normalised (NFC, lower case, replacements) and cut into words by the
// file's rule; every word becomes symbols (bytes or characters) whose ids are merged. A word that gives one id is remembered when the
// tokenizer is opened, so that common words cost one look-up.
//
// A soma_tokenizer is immutable: any number of threads may use it at once.
#ifndef SOMA_TEXT_TOKENIZER_H
#define SOMA_TEXT_TOKENIZER_H

#include "text/tokenizer_json.h"

typedef struct soma_tokenizer soma_tokenizer;

// Takes `json` over, also where it fails. `where` stands in the sentences for the file's name.
soma_status soma__tokenizer_new(soma_tokenizer **tokenizer, soma_tokenizer_json *json, const char *where, soma_error *err);
void soma__tokenizer_free(soma_tokenizer *tokenizer); // NULL allowed

// Added tokens with ids from `vocab` on, and the ids themselves, are no longer known. To be called before the tokenizer is shared.
void soma__tokenizer_limit(soma_tokenizer *tokenizer, int64_t vocab);
int32_t soma__tokenizer_size(const soma_tokenizer *tokenizer);                              // ids are 0 .. size-1
int32_t soma__tokenizer_id(const soma_tokenizer *tokenizer, const char *piece, size_t len); // -1 when absent

typedef enum soma_marks {
    SOMA_MARKS_NONE = 0,
    SOMA_MARKS_FRONT = 1, // the ids that the file puts in front of a text (or its piece <bos>); an error where it has none
    SOMA_MARKS_BACK = 2,  // those behind it, if any
} soma_marks;

// s [len] may hold zeros; what is no UTF-8 counts as U+FFFD. The first `room` ids go to `ids` (NULL when room is 0); *n_ids is how many the
// text needs.
soma_status soma__tokenizer_encode(const soma_tokenizer *tokenizer, const char *s, size_t len, int marks, int32_t *ids, size_t room,
                                   size_t *n_ids, soma_error *err);
// Added to `out`, without special tokens; bytes that make no UTF-8 become U+FFFD. An id outside the vocabulary is an error.
soma_status soma__tokenizer_decode(const soma_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, soma_str *out, soma_error *err);

#endif
