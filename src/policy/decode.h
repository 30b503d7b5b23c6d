// SPDX-License-Identifier: Apache-2.0
// The loop that writes an answer: ENCODE once, then DECODE for each token, the last token in, the next one's logits out. Rows end on their
// own; the loop ends with the last of them.
#ifndef SOMA_POLICY_DECODE_H
#define SOMA_POLICY_DECODE_H

#include "base/rng.h"
#include "graph/plan.h"
#include "model/family.h"
#include "text/answer.h"

typedef struct soma_decode {
    int64_t n_rows, max, vocab;   // B, G, V
    int32_t stop;                 // the id that ends a row, which is still written; -1: none
    const soma_answer_form *form; // of a constrained answer; NULL: any token may follow any other
    double temperature;           // 0: the most likely token, of equals the smallest id; else drawn from softmax(logits / temperature)
    soma_rng *rngs;               // [B]; of a temperature above 0
    const int32_t *follow;        // [B, G]: written in place of the choices, to see the logits along another's answer; NULL: the choices
    int32_t *ids;                 // out [B, G]; zeros behind the end
    int64_t *n_ids;               // out [B], the stop included
    float *logits;                // [B, V], the step's
    void (*step)(void *user, int64_t step, const float *logits); // before each choice; NULL: nobody looks
    void *user;
} soma_decode;

// The frames have their inputs; `feed` is the family's, whose arrays "cache.*" count along.
soma_status soma__decode(soma_decode *d, soma_frame *encode, soma_frame *decode, soma_feed *feed, soma_error *err);

// One choice among logits [V], as soma_decode says; `ids` [n] are what the row has written.
int32_t soma__decode_choose(const soma_decode *d, const float *logits, const int32_t *ids, int64_t n, soma_rng *rng);

#endif
