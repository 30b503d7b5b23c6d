// SPDX-License-Identifier: Apache-2.0
// utf8proc behind a few questions. The set of \s is written out here, since utf8proc knows categories and not White_Space (tab and newline
// are "control" to it); the rest is a table look-up in the library.
#include "text/unicode.h"

#include <string.h>

#ifdef SOMA_UTF8PROC
#include <utf8proc.h>
#endif

#define O SOMA_CHAR_OTHER
#define L SOMA_CHAR_LETTER
#define N SOMA_CHAR_NUMBER
#define S SOMA_CHAR_SPACE
const unsigned char soma__ascii_class[128] = {
    O, O, O, O, O, O, O, O, O, S, S, S, S, S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, // 00
    S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, N, N, N, N, N, N, N, N, N, N, O, O, O, O, O, O, // 20
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, // 40
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, // 60
};
#undef O
#undef L
#undef N
#undef S

// ---- UTF-8

size_t soma__utf8_decode(const char *text, const char *end, uint32_t *cp, bool *valid) {
    const unsigned char *s = (const unsigned char *)text;
    size_t left = (size_t)(end - text), len;
    uint32_t c = s[0];
    unsigned low = 0x80, high = 0xbf; // what the second byte may be: no overlong forms, no surrogates, nothing above U+10FFFF
    if (valid) *valid = true;
    *cp = c;
    if (c < 0x80) return 1;
    if (c >= 0xc2 && c <= 0xdf)
        len = 2, c &= 0x1f;
    else if ((c & 0xf0) == 0xe0)
        len = 3, low = c == 0xe0 ? 0xa0 : low, high = c == 0xed ? 0x9f : high, c &= 0x0f;
    else if (c >= 0xf0 && c <= 0xf4)
        len = 4, low = c == 0xf0 ? 0x90 : low, high = c == 0xf4 ? 0x8f : high, c &= 0x07;
    else
        len = 1;
    size_t got = 1;
    while (got < len && got < left && s[got] >= low && s[got] <= high) {
        c = c << 6 | (s[got++] & 0x3f);
        low = 0x80, high = 0xbf;
    }
    bool ok = len > 1 && got == len;
    if (valid) *valid = ok;
    *cp = ok ? c : SOMA_UTF8_BAD;
    return got;
}

size_t soma__utf8_encode(uint32_t cp, char out[4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = len; --i > 0; cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf00u >> len) | cp);
    return len;
}

bool soma__utf8_valid(const char *s, size_t len) {
    const char *end = s + len;
    for (bool ok; s < end;) {
        if ((unsigned char)*s < 0x80) {
            s++;
            continue;
        }
        uint32_t cp;
        s += soma__utf8_decode(s, end, &cp, &ok);
        if (!ok) return false;
    }
    return true;
}

void soma__utf8_repair(soma_str *out, const char *s, size_t len) {
    const char *end = s + len, *plain = s;
    for (bool ok; s < end;) {
        uint32_t cp;
        size_t n = soma__utf8_decode(s, end, &cp, &ok);
        if (!ok) {
            soma__str_add_bytes(out, plain, (size_t)(s - plain));
            soma__str_add(out, "\xef\xbf\xbd");
            plain = s + n;
        }
        s += n;
    }
    soma__str_add_bytes(out, plain, (size_t)(s - plain));
}

// ---- classes

static bool is_space(uint32_t c) {
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

soma_char_class soma__unicode_class(uint32_t cp) {
    if (cp < 128) return soma__ascii_class[cp];
    if (is_space(cp)) return SOMA_CHAR_SPACE;
#ifdef SOMA_UTF8PROC
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) return SOMA_CHAR_LETTER;
    if (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO) return SOMA_CHAR_NUMBER;
#endif
    return SOMA_CHAR_OTHER;
}

bool soma__unicode_word(uint32_t cp) {
    if (cp < 128) return soma__ascii_class[cp] == SOMA_CHAR_LETTER || soma__ascii_class[cp] == SOMA_CHAR_NUMBER || cp == '_';
    if (cp == 0x200c || cp == 0x200d) return true; // the joiners
    // letters in circles and squares are symbols that count as alphabetic
    if ((cp >= 0x24b6 && cp <= 0x24e9) || (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
        (cp >= 0x1f170 && cp <= 0x1f189))
        return true;
#ifdef SOMA_UTF8PROC
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_PC || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL);
#else
    return false;
#endif
}

uint32_t soma__unicode_lower(uint32_t cp) {
    if (cp < 128) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
#ifdef SOMA_UTF8PROC
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
#else
    return cp;
#endif
}

void soma__unicode_lower_text(soma_str *out, const char *s, size_t len) {
    char block[256]; // lower-cased and not yet added
    size_t n = 0;
    for (const char *end = s + len; s < end;) {
        uint32_t cp;
        s += soma__utf8_decode(s, end, &cp, NULL);
        if (n > sizeof block - 4) {
            soma__str_add_bytes(out, block, n);
            n = 0;
        }
        if (cp == 0x130) { // the one letter whose lower case is two characters: i and a dot above
            memcpy(block + n, "i\xcc\x87", 3);
            n += 3;
        } else {
            n += soma__utf8_encode(soma__unicode_lower(cp), block + n);
        }
    }
    soma__str_add_bytes(out, block, n);
}

// ---- normal forms

soma_status soma__unicode_need(const char *where, soma_error *err) {
#ifdef SOMA_UTF8PROC
    (void)where, (void)err;
    return SOMA_OK;
#else
    return soma__fail(err, SOMA_UNSUPPORTED, "%s: this soma was built without utf8proc; install its headers and build again", where);
#endif
}

// ASCII is the same in every form; below U+0300 nothing combines, so that composed text stays composed.
bool soma__unicode_is_normal(const char *s, size_t len, soma_unicode_form form) {
    unsigned char highest = 0;
    for (size_t i = 0; i < len; i++) highest = SOMA_MAX(highest, (unsigned char)s[i]);
    return highest < 0x80 || (form == SOMA_NFC && highest < 0xcc);
}

#ifdef SOMA_UTF8PROC
// One stretch of text through utf8proc. *points [*room] is working memory that grows.
static soma_status normalise_part(soma_str *out, const char *s, size_t len, soma_unicode_form form, utf8proc_int32_t **points, size_t *room,
                                  soma_error *err) {
    static const utf8proc_option_t options[] = {
        [SOMA_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [SOMA_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [SOMA_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [SOMA_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_ssize_t n;
    for (;;) { // the second time with the room that it takes, and a zero behind it
        n = utf8proc_decompose((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)len, *points, *room ? (utf8proc_ssize_t)*room - 1 : 0,
                               options[form]);
        if (n < 0 || (size_t)n < *room) break;
        if (!soma__grow((void **)points, room, (size_t)n + 1, sizeof **points)) return soma__no_memory(err, "a text");
    }
    if (n >= 0) n = utf8proc_reencode(*points, n, options[form]); // in place
    if (n < 0) return soma__fail(err, SOMA_BAD_INPUT, "the text cannot be normalised: %s", utf8proc_errmsg(n));
    soma__str_add_bytes(out, *points, (size_t)n);
    return SOMA_OK;
}
#endif

// Nothing in ASCII changes except the last character before something else, with which it may combine: only such stretches are looked into.
soma_status soma__unicode_normalise(soma_str *out, const char *s, size_t len, soma_unicode_form form, soma_error *err) {
    soma_status status = SOMA_OK;
#ifdef SOMA_UTF8PROC
    utf8proc_int32_t *points = NULL;
    size_t room = 0;
    for (const char *end = s + len; s < end && status == SOMA_OK;) {
        const char *from = s, *to;
        while (from < end && (unsigned char)*from < 0x80) from++;
        for (to = from; to < end && (unsigned char)*to >= 0x80;) to++;
        if (from > s && from < end) from--;
        soma__str_add_bytes(out, s, (size_t)(from - s));
        if (soma__unicode_is_normal(from, (size_t)(to - from), form))
            soma__str_add_bytes(out, from, (size_t)(to - from));
        else
            status = normalise_part(out, from, (size_t)(to - from), form, &points, &room, err);
        s = to;
    }
    soma__free(points);
#else
    if (!soma__unicode_is_normal(s, len, form)) status = soma__unicode_need("a text outside ASCII", err);
    soma__str_add_bytes(out, s, len);
#endif
    return status != SOMA_OK || !out->failed ? status : soma__no_memory(err, "a text");
}
