// SPDX-License-Identifier: Apache-2.0
// The texts that pi0 and pi0.5 are given, as their training had them (facts: openpi's tokenizer at 15a9616):
//
//     pi0    <bos> clean(prompt), then "\n" encoded on its own
//     pi0.5  <bos> "Task: clean(prompt), State: 0 128 255;\nAction: "     the state as 256 bins over [-1, 1]
//
// clean() strips white space at both ends (Unicode's, as Python does) and turns '_' and newlines into spaces. It does not lower-case.
#ifndef SOMA_TEXT_PROMPT_H
#define SOMA_TEXT_PROMPT_H

#include "text/text.h"

enum { SOMA_PROMPT_PAD = 0 }; // the id on padding; masked, so that its meaning does not matter

void soma__prompt_clean(soma_str *out, const char *prompt); // adds the cleaned prompt to `out`
// The bin of one normalised state value: -1 below -1, then 0 .. 255. x is not NaN.
int soma__prompt_bin(double x);
// The whole pi0.5 text, added to `out`. state: [n_state] normalised, without the padding to the model's width.
void soma__prompt_text(soma_str *out, const char *prompt, const double *state, int n_state);

// ids [len], mask [len] (1 on text, 0 on padding). state NULL: the pi0 form, else the pi0.5 form. *needed is the tokens of the whole text:
// more than `len` means that its end was cut off, of which the caller should warn. A NaN in the state is refused.
soma_status soma__prompt_encode(const soma_text *text, const char *prompt, const double *state, int n_state, int32_t *ids, uint8_t *mask,
                                size_t len, size_t *needed, soma_error *err);

#endif
