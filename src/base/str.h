// SPDX-License-Identifier: Apache-2.0
// A growing string, for pages, reports and messages. The first failed allocation sticks: check `ok` once at the end.
#ifndef SOMA_BASE_STR_H
#define SOMA_BASE_STR_H

#include "base/base.h"

typedef struct soma_str {
    char *text; // zero-terminated; NULL while empty
    size_t len, room;
    bool failed;
} soma_str; // {0} is empty and ready

void soma__str_add(soma_str *s, const char *text);
void soma__str_add_bytes(soma_str *s, const void *bytes, size_t len);
void soma__str_printf(soma_str *s, const char *format, ...) SOMA_PRINTF(2, 3);
void soma__str_add_base64(soma_str *s, const void *bytes, size_t len);
void soma__str_add_html(soma_str *s, const char *text); // with & < > " ' escaped
void soma__str_free(soma_str *s);

// Which of the names `name` is; otherwise the error says what kind of thing is meant and lists them all.
soma_status soma__name_parse(int *index, const char *const *names, int n_names, const char *name, const char *kind, soma_error *err);

// Edits (insert, delete, replace one byte) from `a` to `b`; texts longer than 63 bytes count as 64 apart. For "did you mean".
size_t soma__str_distance(const char *a, const char *b);
// Whether `distance` is small enough for a word of this length to be worth suggesting.
bool soma__str_near(const char *given, size_t distance);

#endif
