// SPDX-License-Identifier: Apache-2.0
// The answer of a policy that writes its chunk as tokens (facts: openpi's tokenizer at 15a9616):
//
//     "Action: " <code> .. <code> "|" <eos>          LeRobot puts a <bos> in front
//
// Code c has the id vocab - 1 - skip - c: the vocabulary's end, counted backwards, because those ids are the rarest. Nothing here goes
// through text on the way back: rare pieces may come out of a round trip as other ids.
#ifndef SOMA_TEXT_ANSWER_H
#define SOMA_TEXT_ANSWER_H

#include "text/text.h"

enum { SOMA_ANSWER_PIECES = 8 };

typedef struct soma_answer_form {
    int32_t head[SOMA_ANSWER_PIECES], bar[SOMA_ANSWER_PIECES]; // "Action: " and "|"
    int n_head, n_bar;
    int32_t bos, eos;
    int32_t first, n_codes; // the id of code 0, and how many codes there are: ids first - n_codes + 1 .. first
    bool lerobot;
} soma_answer_form;

// vocab: ids of the model, which may be more than the text's. Refuses codes that reach below 4 or into the pieces of the form.
soma_status soma__answer_form(soma_answer_form *form, const soma_text *text, int64_t vocab, int64_t skip, int64_t n_codes, bool lerobot,
                              soma_error *err);

int32_t soma__answer_bos(const soma_text *text); // the id that begins LeRobot's answers

// What training wants written, [bos] head codes bar eos, from ids[0] on. Returns how many that are; at most `room` are put. A code outside
// 0 .. n_codes - 1 is the caller's mistake.
size_t soma__answer_write(const soma_answer_form *form, const int32_t *codes, size_t n, int32_t *ids, size_t room);

// What is wrong with an answer. The codes that were found are given in every case but NO_HEAD.
typedef enum soma_answer_flaw {
    SOMA_ANSWER_FINE,
    SOMA_ANSWER_NO_HEAD, // it does not begin with "Action: "
    SOMA_ANSWER_FOREIGN, // an id that is no code before the bar; it is left out
    SOMA_ANSWER_NO_BAR,  // it ends without "|": the model was not done
    SOMA_ANSWER_LENGTH   // set by who decodes the codes: they make no chunk of the right size
} soma_answer_flaw;
const char *soma__answer_flaw_text(soma_answer_flaw flaw); // a few words; "" for FINE

// codes: room for n. *n_codes is how many were found.
soma_answer_flaw soma__answer_read(const soma_answer_form *form, const int32_t *ids, size_t n, int32_t *codes, size_t *n_codes);

// Which ids the form allows after ids [n]: at most two ranges, [from, to]. Returns how many; 0: the answer is over.
typedef struct soma_id_range {
    int32_t from, to;
} soma_id_range;
int soma__answer_next(const soma_answer_form *form, const int32_t *ids, size_t n, soma_id_range next[2]);

#endif
