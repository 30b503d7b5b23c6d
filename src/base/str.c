// SPDX-License-Identifier: Apache-2.0
// Text that grows, and the forms in which it leaves us (base64, HTML). Nothing here can fail half-way: a failure sticks to the string.
#include "base/str.h"

#include <stdio.h>
#include <string.h>

static bool room_for(soma_str *s, size_t extra) {
    if (!s->failed && !soma__grow((void **)&s->text, &s->room, s->len + extra + 1, 1)) s->failed = true;
    return !s->failed;
}

void soma__str_add_bytes(soma_str *s, const void *bytes, size_t len) {
    if (!room_for(s, len)) return;
    if (len) memcpy(s->text + s->len, bytes, len);
    s->len += len;
    s->text[s->len] = 0;
}

void soma__str_add(soma_str *s, const char *text) { soma__str_add_bytes(s, text, strlen(text)); }

void soma__str_printf(soma_str *s, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len >= 0 && room_for(s, (size_t)len)) {
        vsnprintf(s->text + s->len, (size_t)len + 1, format, again);
        s->len += (size_t)len;
    }
    va_end(again);
}

void soma__str_add_base64(soma_str *s, const void *bytes, size_t len) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = bytes;
    if (!room_for(s, (len + 2) / 3 * 4)) return;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t n = (uint32_t)p[i] << 16 | (i + 1 < len ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < len ? p[i + 2] : 0);
        char quad[4] = {digits[n >> 18], digits[n >> 12 & 63], i + 1 < len ? digits[n >> 6 & 63] : '=', i + 2 < len ? digits[n & 63] : '='};
        memcpy(s->text + s->len, quad, 4);
        s->len += 4;
    }
    s->text[s->len] = 0;
}

void soma__str_add_html(soma_str *s, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '&': soma__str_add(s, "&amp;"); break;
        case '<': soma__str_add(s, "&lt;"); break;
        case '>': soma__str_add(s, "&gt;"); break;
        case '"': soma__str_add(s, "&quot;"); break;
        case '\'': soma__str_add(s, "&#39;"); break;
        default: soma__str_add_bytes(s, text, 1);
        }
    }
}

void soma__str_free(soma_str *s) {
    soma__free(s->text);
    *s = (soma_str){0};
}

soma_status soma__name_parse(int *index, const char *const *names, int n_names, const char *name, const char *kind, soma_error *err) {
    for (int i = 0; i < n_names; i++)
        if (!strcmp(name, names[i])) {
            *index = i;
            return SOMA_OK;
        }
    soma_str known = {0};
    for (int i = 0; i < n_names; i++) soma__str_printf(&known, "%s%s", i ? ", " : "", names[i]);
    soma_status status =
        soma__fail(err, SOMA_BAD_INPUT, "no %s is called \"%.60s\"; there are %s", kind, name, known.text ? known.text : "none");
    soma__str_free(&known);
    return status;
}

size_t soma__str_distance(const char *a, const char *b) {
    enum { LONGEST = 63 };
    size_t n = strlen(a), m = strlen(b), row[LONGEST + 1]; // row[j]: distance of the first i bytes of a to the first j of b
    if (n > LONGEST || m > LONGEST) return LONGEST + 1;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t above = row[j], replaced = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = SOMA_MIN(SOMA_MIN(above, row[j - 1]) + 1, replaced);
            diagonal = above;
        }
    }
    return row[m];
}

bool soma__str_near(const char *given, size_t distance) { return distance <= 1 + strlen(given) / 3; }
