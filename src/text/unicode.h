// SPDX-License-Identifier: Apache-2.0
// What tokenizers ask of Unicode: UTF-8 in and out, whether a character is a letter, a number or a space, NFC and its kin, lower case.
// The tables are utf8proc's (Unicode 15 in its version 2.8); UTF-8 and ASCII need none.
#ifndef SOMA_TEXT_UNICODE_H
#define SOMA_TEXT_UNICODE_H

#include "base/base.h"
#include "base/str.h"

enum { SOMA_UTF8_BAD = 0xfffd }; // U+FFFD, the replacement character

// The character at s < end: its length in bytes, 1 to 4. What is no UTF-8 gives SOMA_UTF8_BAD and the length of the damaged part, cut
// where Unicode recommends it (the longest start of a character that could have been), as Python and Rust do; *valid (NULL allowed) says
// so.
size_t soma__utf8_decode(const char *s, const char *end, uint32_t *cp, bool *valid);
size_t soma__utf8_encode(uint32_t cp, char out[4]); // bytes written; cp is a code point, no surrogate
bool soma__utf8_valid(const char *s, size_t len);
void soma__utf8_repair(soma_str *out, const char *s, size_t len); // adds s with every damaged part replaced by U+FFFD

// A space is what regular expressions call \s (Unicode's White_Space), a letter \p{L}, a number \p{N}.
typedef enum soma_char_class {
    SOMA_CHAR_OTHER,
    SOMA_CHAR_LETTER,
    SOMA_CHAR_NUMBER,
    SOMA_CHAR_SPACE,
} soma_char_class;

extern const unsigned char soma__ascii_class[128]; // soma_char_class of ASCII
soma_char_class soma__unicode_class(uint32_t cp);  // any code point; without utf8proc what is not ASCII is "other"
bool soma__unicode_word(uint32_t cp);              // \w: what is alphabetic, marks, digits, linking punctuation, joiners
uint32_t soma__unicode_lower(uint32_t cp);         // one to one; U+0130, which becomes two, is left to soma__unicode_lower_text
void soma__unicode_lower_text(soma_str *out, const char *s, size_t len); // adds s in lower case, character by character

typedef enum soma_unicode_form { SOMA_NFC, SOMA_NFD, SOMA_NFKC, SOMA_NFKD } soma_unicode_form;
// True where s surely has this form already: a quick look, which never says yes wrongly.
bool soma__unicode_is_normal(const char *s, size_t len, soma_unicode_form form);
// Adds s (valid UTF-8) in this form to `out`.
soma_status soma__unicode_normalise(soma_str *out, const char *s, size_t len, soma_unicode_form form, soma_error *err);

// SOMA_UNSUPPORTED with a sentence where this soma was built without utf8proc: for what would be wrong without it.
soma_status soma__unicode_need(const char *where, soma_error *err);

#endif
