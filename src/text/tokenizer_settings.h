// SPDX-License-Identifier: Apache-2.0
// The settings of a tokenizer.json in the form that encoding and decoding use: what is done to a text before it is cut, how it is cut,
// which ids go in front and behind, how pieces become text again. A setting that changes ids and is not known here is refused by name.
#ifndef SOMA_TEXT_TOKENIZER_SETTINGS_H
#define SOMA_TEXT_TOKENIZER_SETTINGS_H

#include "base/arena.h"
#include "text/bpe_split.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

typedef enum soma_step_kind {
    SOMA_STEP_FORM,    // one of Unicode's normal forms
    SOMA_STEP_LOWER,   // lower case
    SOMA_STEP_REPLACE, // every `from` by `to`; from NULL: every run of white space
    SOMA_STEP_PREPEND, // `to` in front of a text that is not empty
    SOMA_STEP_LEAD,    // `to` in front of a text that does not begin with it; first_only: not behind an added token
    SOMA_STEP_STRIP,   // white space off the ends
} soma_step_kind;

typedef struct soma_text_step {
    soma_step_kind kind;
    soma_unicode_form form;
    const char *from, *to; // owned by the settings' arena
    bool first_only, left, right;
    bool off_first; // of a decoder: the first piece loses what the others have replaced
} soma_text_step;

enum { SOMA_TOKENIZER_STEPS = 12, SOMA_TOKENIZER_SPLITS = 4, SOMA_TOKENIZER_MARKS = 4 };

typedef struct soma_tokenizer_settings {
    soma_text_step normal[SOMA_TOKENIZER_STEPS], cut[SOMA_TOKENIZER_STEPS]; // the normaliser's, and those that pre-tokenisers bring along
    soma_split splits[SOMA_TOKENIZER_SPLITS];                               // each cuts the words of the one before it
    int n_normal, n_cut, n_splits;
    bool byte_level;                                                 // symbols are bytes, not characters
    int32_t front[SOMA_TOKENIZER_MARKS], back[SOMA_TOKENIZER_MARKS]; // ids around a text
    int n_front, n_back;
    // pieces to text
    soma_text_step pieces[SOMA_TOKENIZER_STEPS]; // REPLACE, on each piece
    int n_pieces;
    bool bytes, fallback; // pieces are bytes in GPT-2's alphabet; <0x0A> is a byte
    bool spaced;          // a space between pieces: there is no decoder
    const char *strip;    // off the front of the text, up to n_strip times
    int n_strip;
    soma_arena arena;
} soma_tokenizer_settings;

soma_status soma__tokenizer_settings_read(soma_tokenizer_settings *s, const soma_tokenizer_json *json, const char *where, soma_error *err);
void soma__tokenizer_settings_free(soma_tokenizer_settings *s);

// Applies the steps to s; *out is s itself where nothing changed, else lies in one of the two buffers, which are the caller's. `first`: the
// text stands at the beginning.
soma_status soma__text_steps_run(const soma_text_step *steps, int n_steps, bool first, soma_str buffers[2], const char *s, size_t len,
                                 const char **out, size_t *out_len, soma_error *err);

#endif
