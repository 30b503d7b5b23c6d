// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, the Hugging Face file of a tokenizer: the pieces, the merges and the settings, checked and without interpretation (that
// is text/tokenizer.h). BPE only: WordPiece, Unigram and WordLevel models are refused by name. Both spellings of merges are read, "a b" and
// ["a", "b"]; pieces may hold any character, also U+0000, as fitted FAST vocabularies do.
#ifndef SOMA_TEXT_TOKENIZER_JSON_H
#define SOMA_TEXT_TOKENIZER_JSON_H

#include "base/arena.h"
#include "base/base.h"
#include "base/json.h"
#include "text/piece_map.h"

typedef struct soma_merge {
    int32_t left, right, merged; // ids; the rank is the place in the list
} soma_merge;

typedef struct soma_added_token {
    int32_t id;
    const char *text; // owned by the struct below, zero-terminated
    size_t len;
    bool alone;       // "single_word": only where no letter or digit touches it
    bool left, right; // "lstrip", "rstrip": takes the white space beside it
    bool normalised;  // looked for in the normalised text, else in the text as given
    bool special;     // gives nothing when ids become text
} soma_added_token;

typedef struct soma_piece {
    uint32_t offset;                // of map.bytes.text
    uint32_t len : 31, special : 1; // len 0: no piece has this id; special: an added token that is
} soma_piece;

typedef struct soma_tokenizer_json {
    soma_piece_map map; // piece -> id
    soma_piece *pieces; // [n_pieces] by id
    size_t n_pieces;    // the largest id, and one
    soma_merge *merges; // [n_merges] by rank
    size_t n_merges;
    soma_added_token *added; // [n_added]
    size_t n_added;
    char *unknown; // "unk_token"; NULL: none
    char *suffix;  // "end_of_word_suffix"; NULL: none
    bool byte_fallback, fuse_unknown, ignore_merges;
    json_t *normalizer, *pre_tokenizer, *post_processor, *decoder; // objects; NULL where the file has null or nothing
    soma_arena arena;                                              // the added tokens' texts
} soma_tokenizer_json;

// `where` stands in the sentences for the file's name. Release with soma__tokenizer_json_free.
soma_status soma__tokenizer_json_parse(soma_tokenizer_json **json, const void *bytes, size_t size, const char *where, soma_error *err);
soma_status soma__tokenizer_json_load(soma_tokenizer_json **json, const char *path, soma_error *err);
void soma__tokenizer_json_free(soma_tokenizer_json *json); // NULL allowed

// The piece with this id and its length; NULL when there is none. Not zero-terminated.
const char *soma__tokenizer_json_piece(const soma_tokenizer_json *json, int32_t id, size_t *len);

#endif
