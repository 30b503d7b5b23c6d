// SPDX-License-Identifier: Apache-2.0
// From an instruction to token ids and back. Three kinds of vocabulary behind one type: a SentencePiece model and a tokenizer.json, as the
// released checkpoints use them, and a list of words (vocab.json beside the checkpoint) for presets that learn their language from the
// dataset's own tasks.
//
// A soma_text is immutable: any number of threads may encode with it at once.
// Read next: prompt.h (the texts that pi0 and pi0.5 are given), tokenizer.h (tokenizer.json), words.h (how a word vocabulary splits a
// text).
#ifndef SOMA_TEXT_TEXT_H
#define SOMA_TEXT_TEXT_H

#include "base/base.h"
#include "base/file.h"
#include "base/str.h"

typedef struct soma_text soma_text;

// `path`: a SentencePiece model; a tokenizer.json; vocab.json with merges.txt beside it; CLIP's bpe_simple_vocab; a vocab.json of words; or
// a folder, see soma__text_find. What this soma was built without (SentencePiece, utf8proc) is refused with a sentence.
soma_status soma__text_open(soma_text **text, const char *path, soma_error *err);
// The tokenizer's file in a folder: tokenizer.model, paligemma_tokenizer.model, tokenizer.json or vocab.json, looked for in this order in
// `dir`, dir/tokenizer and dir/assets. Where there is none the sentence says what to fetch and where to put it.
soma_status soma__text_find(char path[SOMA_PATH_MAX], const char *dir, soma_error *err);
// A SentencePiece model, a tokenizer.json or a vocab.json of words over bytes, which are not kept. `where` stands in the sentences for the
// file's name.
soma_status soma__text_open_bytes(soma_text **text, const void *bytes, size_t size, const char *where, soma_error *err);
// The word vocabulary of these prompts (UTF-8): their words sorted by bytes, and the pieces that every prompt form needs. The order and
// repetition of the prompts do not matter.
soma_status soma__text_from_prompts(soma_text **text, const char *const *prompts, size_t n_prompts, soma_error *err);
// Copies the tokenizer's file, and those that belong to it, into `dir`, where soma__text_open finds it. `from` is what soma__text_open
// takes.
soma_status soma__text_copy(const char *from, const char *dir, soma_error *err);
// A word vocabulary as the file `path` (vocab.json). The other kinds are refused: soma__text_copy takes their files over as they are.
soma_status soma__text_save(const soma_text *text, const char *path, soma_error *err);
void soma__text_close(soma_text *text); // NULL allowed

// Makes a tokenizer fit a model's table of `vocab` rows, before it is shared: added tokens beyond the table (such as PaliGemma's <image>)
// are no longer looked for in a text. A vocabulary that is larger all the same is an error. `where` names the model's file.
soma_status soma__text_limit(soma_text *text, int64_t vocab, const char *where, soma_error *err);
int32_t soma__text_size(const soma_text *text); // ids are 0 .. size-1
// The id of one piece exactly as the vocabulary writes it ("\xe2\x96\x81red" or "red", "<eos>"); -1 when there is none.
int32_t soma__text_id(const soma_text *text, const char *piece);

// The ids of `s` (UTF-8), with the beginning-of-sentence id in front when `add_bos`. The first `room` of them go to `ids` (NULL when room
// is 0); *n_ids is how many the text needs, which may be more than `room`: that is no error, the caller truncates or grows.
soma_status soma__text_encode(const soma_text *text, const char *s, bool add_bos, int32_t *ids, size_t room, size_t *n_ids,
                              soma_error *err);
// The text of `ids`, added to `out`; padding and the marks of begin and end give nothing. An id outside the vocabulary is an error.
soma_status soma__text_decode(const soma_text *text, const int32_t *ids, size_t n_ids, soma_str *out, soma_error *err);

#endif
