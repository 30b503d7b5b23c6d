// SPDX-License-Identifier: Apache-2.0
// The texts that the released policies are given, as their training had them (facts: openpi's tokenizer at 15a9616, LeRobot at 7427f31):
//
//     pi0              <bos> clean(prompt), then "\n" encoded on its own
//     pi05             <bos> "Task: clean(prompt), State: 0 128 255;\nAction: "     the state as 256 bins over [-1, 1]
//     pi0_fast         <bos> "Task: lower(prompt), State: 0 128 255;\n"             newlines stay, white space is stripped after lowering
//     lerobot_pi0      <bos> prompt "\n" in one go, as it is; no second "\n" where it ends with one
//     lerobot_pi0_fast <bos> "Task: clean(prompt), State: 0 128 255;\n"
//     smolvla          prompt "\n" as in lerobot_pi0, without <bos>
//     lerobot_04_...   LeRobot up to 0.4: the same, but the state is padded to 32 values with zeros first, so that it ends in "128 128"
//
// LeRobot's pi0.5 has the form pi05 since. clean() strips white space at both ends (Unicode's, as Python does) and turns '_' and newlines
// into spaces. It does not lower-case. lower() lower-cases (ASCII alone where soma was built without utf8proc), strips, and turns '_' into
// spaces.
#ifndef SOMA_TEXT_PROMPT_H
#define SOMA_TEXT_PROMPT_H

#include "text/text.h"

enum { SOMA_PROMPT_PAD = 0 }; // the id on padding; masked, so that its meaning does not matter

#define SOMA_PROMPT_LIST(X)                                                                   \
    X(SOMA_PROMPT_MODEL, "") /* the model's own: pi0 or, where it has no state input, pi05 */ \
    X(SOMA_PROMPT_PI0, "pi0")                                                                 \
    X(SOMA_PROMPT_PI05, "pi05")                                                               \
    X(SOMA_PROMPT_FAST, "pi0_fast")                                                           \
    X(SOMA_PROMPT_LEROBOT_PI0, "lerobot_pi0")                                                 \
    X(SOMA_PROMPT_LEROBOT_FAST, "lerobot_pi0_fast")                                           \
    X(SOMA_PROMPT_LEROBOT_04_PI05, "lerobot_04_pi05")                                         \
    X(SOMA_PROMPT_LEROBOT_04_FAST, "lerobot_04_pi0_fast")                                     \
    X(SOMA_PROMPT_SMOLVLA, "smolvla")
#define SOMA_PROMPT_ENUM(code, name) code,
typedef enum soma_prompt_form { SOMA_PROMPT_LIST(SOMA_PROMPT_ENUM) SOMA_PROMPT_COUNT } soma_prompt_form;
#undef SOMA_PROMPT_ENUM
const char *soma__prompt_form_name(soma_prompt_form form);
soma_status soma__prompt_form_parse(soma_prompt_form *form, const char *name, soma_error *err); // the error lists the names
bool soma__prompt_has_state(soma_prompt_form form);                                             // it is part of the text
int soma__prompt_state_width(soma_prompt_form form, int n_state);                               // values in the text, with the padding

void soma__prompt_clean(soma_str *out, const char *prompt); // adds the cleaned prompt to `out`
// The bin of one normalised state value: -1 below -1, then 0 .. 255. x is not NaN.
int soma__prompt_bin(double x);
// The text of a form, added to `out`; a "\n" that is encoded on its own is its last character. state: [n_state] normalised, without the
// padding to the model's width; not looked at by the forms without it. `form` is not SOMA_PROMPT_MODEL.
void soma__prompt_text(soma_str *out, soma_prompt_form form, const char *prompt, const double *state, int n_state);

// ids [len], mask [len] (1 on text, 0 on padding). *needed is the tokens of the whole text: more than `len` means that its end was cut off,
// of which the caller should warn. A NaN in the state is refused.
soma_status soma__prompt_encode(const soma_text *text, soma_prompt_form form, const char *prompt, const double *state, int n_state,
                                int32_t *ids, uint8_t *mask, size_t len, size_t *needed, soma_error *err);

#endif
