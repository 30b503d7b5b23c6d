// SPDX-License-Identifier: Apache-2.0
// A JSON text read from front to back, value by value, without a tree. It exists for tokenizer.json: a fitted FAST vocabulary has U+0000 in
// its keys, which jansson cannot hold, and the 800 thousand strings of Gemma's file would be a tree of some 200 MB.
//
//     SOMA_TRY(soma__scan_open(s, '{'));
//     for (bool more;;) {
//         SOMA_TRY(soma__scan_next(s, '}', &more));
//         if (!more) break;
//         SOMA_TRY(soma__scan_key(s));    // s->text.text, s->text.len
//         SOMA_TRY(soma__scan_skip(s, NULL));
//     }
//
// Strict JSON in UTF-8; half a surrogate pair, control characters in strings and more than 64 levels are refused. Errors name `where` and
// the line.
#ifndef SOMA_TEXT_JSON_SCAN_H
#define SOMA_TEXT_JSON_SCAN_H

#include "base/base.h"
#include "base/str.h"

typedef struct soma_json_slice {
    const char *text; // NULL: there was no such value
    size_t len;
} soma_json_slice;

typedef struct soma_json_scan {
    const char *start, *at, *end, *where;
    soma_error *err;
    soma_str text; // the newest key or string, unescaped; may hold zeros
    int depth;
    bool fresh; // the newest thing read was an opening bracket
} soma_json_scan;

// `bytes` and `where` are borrowed until soma__scan_free.
soma_json_scan soma__scan_new(const void *bytes, size_t size, const char *where, soma_error *err);
void soma__scan_free(soma_json_scan *s);

// '{' '[' '"' 't' 'f' 'n' '0' (a number) or 0 (the end, or nothing that a value starts with).
char soma__scan_peek(soma_json_scan *s);
soma_status soma__scan_open(soma_json_scan *s, char bracket);
soma_status soma__scan_next(soma_json_scan *s, char close, bool *more);
soma_status soma__scan_key(soma_json_scan *s);
soma_status soma__scan_string(soma_json_scan *s);
soma_status soma__scan_int(soma_json_scan *s, int64_t min, int64_t max, int64_t *value);
soma_status soma__scan_bool(soma_json_scan *s, bool *value);
bool soma__scan_null(soma_json_scan *s);                                // true: a null was there and is passed
soma_status soma__scan_skip(soma_json_scan *s, soma_json_slice *slice); // one value of any kind; slice may be NULL
soma_status soma__scan_end(soma_json_scan *s);                          // nothing but white space is left
// An error at this place: "FILE: line 7: SENTENCE".
soma_status soma__scan_fail(soma_json_scan *s, const char *format, ...) SOMA_PRINTF(2, 3);

#endif
