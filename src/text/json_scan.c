// SPDX-License-Identifier: Apache-2.0
// The reader behind tokenizer.json. Every function either passes what it was asked for or leaves a sentence.
#include "text/json_scan.h"

#include "text/unicode.h"

#include <stdio.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

soma_json_scan soma__scan_new(const void *bytes, size_t size, const char *where, soma_error *err) {
    return (soma_json_scan){.start = bytes, .at = bytes, .end = (const char *)bytes + size, .where = where, .err = err};
}

void soma__scan_free(soma_json_scan *s) { soma__str_free(&s->text); }

soma_status soma__scan_fail(soma_json_scan *s, const char *format, ...) {
    char sentence[400];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    size_t line = 1;
    for (const char *p = s->start; p < s->at; p++) line += *p == '\n';
    return soma__fail(s->err, SOMA_BAD_INPUT, "%s: line %zu: %s", s->where, line, sentence);
}

static void space(soma_json_scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r')) s->at++;
}

char soma__scan_peek(soma_json_scan *s) {
    space(s);
    if (s->at == s->end) return 0;
    char c = *s->at;
    if (c == '-' || (c >= '0' && c <= '9')) return '0';
    return c && strchr("{[\"tfn", c) ? c : 0;
}

soma_status soma__scan_open(soma_json_scan *s, char bracket) {
    if (soma__scan_peek(s) != bracket) return soma__scan_fail(s, "%s is expected here", bracket == '{' ? "an object" : "a list");
    if (++s->depth > MAX_DEPTH) return soma__scan_fail(s, "more than %d levels of brackets", MAX_DEPTH);
    s->at++;
    s->fresh = true;
    return SOMA_OK;
}

soma_status soma__scan_next(soma_json_scan *s, char close, bool *more) {
    space(s);
    bool first = s->fresh, comma = s->at < s->end && *s->at == ',';
    s->fresh = false;
    if (!first && comma) {
        s->at++;
        space(s);
    }
    *more = !(s->at < s->end && *s->at == close);
    if (*more) return first || comma ? SOMA_OK : soma__scan_fail(s, "',' or '%c' is expected here", close);
    if (!first && comma) return soma__scan_fail(s, "a comma with nothing behind it");
    s->at++;
    s->depth--;
    return SOMA_OK;
}

// ---- strings

static bool hex4(const char *p, const char *end, uint32_t *value) {
    if (end - p < 4) return false;
    *value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return false;
        *value = *value << 4 | (uint32_t)digit;
    }
    return true;
}

// The escape behind a backslash at s->at, added to s->text.
static soma_status escape(soma_json_scan *s) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (s->at < s->end && *s->at == 'u') {
        uint32_t cp, low;
        const char *p = s->at + 1;
        if (!hex4(p, s->end, &cp)) return soma__scan_fail(s, "\\u is followed by four hexadecimal digits");
        p += 4;
        if (cp >= 0xd800 && cp < 0xdc00 && s->end - p >= 2 && p[0] == '\\' && p[1] == 'u' && hex4(p + 2, s->end, &low) && low >= 0xdc00 &&
            low < 0xe000) {
            cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        }
        if (cp >= 0xd800 && cp < 0xe000) return soma__scan_fail(s, "half of a surrogate pair is no character");
        char utf8[4];
        soma__str_add_bytes(&s->text, utf8, soma__utf8_encode(cp, utf8));
        s->at = p;
        return SOMA_OK;
    }
    const char *name = s->at < s->end && *s->at ? strchr(names, *s->at) : NULL;
    if (!name) return soma__scan_fail(s, "an unknown escape in a string");
    soma__str_add_bytes(&s->text, &values[name - names], 1);
    s->at++;
    return SOMA_OK;
}

soma_status soma__scan_string(soma_json_scan *s) {
    if (soma__scan_peek(s) != '"') return soma__scan_fail(s, "a string is expected here");
    s->at++;
    s->fresh = false;
    s->text.len = 0;
    for (;;) {
        const char *plain = s->at;
        while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 0x20) s->at++;
        if (!soma__utf8_valid(plain, (size_t)(s->at - plain))) return soma__scan_fail(s, "a string that is not UTF-8");
        soma__str_add_bytes(&s->text, plain, (size_t)(s->at - plain));
        if (s->at == s->end) return soma__scan_fail(s, "the file ends inside a string");
        char c = *s->at++;
        if (c == '"') break;
        if (c != '\\') return soma__scan_fail(s, "a control character inside a string");
        SOMA_TRY(escape(s));
    }
    return s->text.failed ? soma__no_memory(s->err, "a string") : SOMA_OK;
}

soma_status soma__scan_key(soma_json_scan *s) {
    SOMA_TRY(soma__scan_string(s));
    space(s);
    if (s->at == s->end || *s->at != ':') return soma__scan_fail(s, "':' is expected behind a key");
    s->at++;
    return SOMA_OK;
}

// ---- other values

static bool digits(soma_json_scan *s) {
    const char *from = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') s->at++;
    return s->at > from;
}

static soma_status number(soma_json_scan *s) {
    if (*s->at == '-') s->at++;
    bool zero = s->at < s->end && *s->at == '0', ok = zero ? (s->at++, true) : digits(s);
    if (ok && s->at < s->end && *s->at == '.') {
        s->at++;
        ok = digits(s);
    }
    if (ok && s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-')) s->at++;
        ok = digits(s);
    }
    s->fresh = false;
    return ok ? SOMA_OK : soma__scan_fail(s, "a number is expected here");
}

soma_status soma__scan_int(soma_json_scan *s, int64_t min, int64_t max, int64_t *value) {
    if (soma__scan_peek(s) != '0') return soma__scan_fail(s, "a whole number is expected here");
    const char *p = s->at;
    SOMA_TRY(number(s));
    bool negative = *p == '-';
    int64_t v = 0;
    for (p += negative; p < s->at; p++) {
        if (*p < '0' || *p > '9') return soma__scan_fail(s, "a whole number is expected here");
        if (v <= INT64_MAX / 10 - 1) v = v * 10 + (*p - '0'); // beyond that it is outside every range that is asked for
    }
    *value = negative ? -v : v;
    if (*value < min || *value > max) return soma__scan_fail(s, "a number outside %lld to %lld", (long long)min, (long long)max);
    return SOMA_OK;
}

static bool literal(soma_json_scan *s, const char *word) {
    size_t len = strlen(word);
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len)) return false;
    s->at += len;
    s->fresh = false;
    return true;
}

soma_status soma__scan_bool(soma_json_scan *s, bool *value) {
    space(s);
    *value = literal(s, "true");
    return *value || literal(s, "false") ? SOMA_OK : soma__scan_fail(s, "true or false is expected here");
}

bool soma__scan_null(soma_json_scan *s) {
    space(s);
    return literal(s, "null");
}

static soma_status skip_inside(soma_json_scan *s, char open, char close) {
    SOMA_TRY(soma__scan_open(s, open));
    for (bool more;;) {
        SOMA_TRY(soma__scan_next(s, close, &more));
        if (!more) return SOMA_OK;
        if (open == '{') SOMA_TRY(soma__scan_key(s));
        SOMA_TRY(soma__scan_skip(s, NULL));
    }
}

soma_status soma__scan_skip(soma_json_scan *s, soma_json_slice *slice) {
    bool unused;
    soma_status status;
    char kind = soma__scan_peek(s);
    const char *from = s->at;
    switch (kind) {
    case '{': status = skip_inside(s, '{', '}'); break;
    case '[': status = skip_inside(s, '[', ']'); break;
    case '"': status = soma__scan_string(s); break;
    case '0': status = number(s); break;
    case 'n': status = soma__scan_null(s) ? SOMA_OK : soma__scan_fail(s, "a value is expected here"); break;
    case 0: status = soma__scan_fail(s, "a value is expected here"); break;
    default: status = soma__scan_bool(s, &unused);
    }
    if (slice && status == SOMA_OK) *slice = (soma_json_slice){from, (size_t)(s->at - from)};
    return status;
}

soma_status soma__scan_end(soma_json_scan *s) {
    space(s);
    return s->at == s->end ? SOMA_OK : soma__scan_fail(s, "there is more behind the end of the JSON value");
}
