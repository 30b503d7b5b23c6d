// SPDX-License-Identifier: Apache-2.0
// The rule behind GPT-2's regular expression and its descendants. In their order of trial:
//
//     's|'t|'re|'ve|'m|'ll|'d     contractions
//      ?\p{L}+                    letters, after a space (GPT-2, CLIP: none) or after any one mark (Qwen2, Llama 3)
//      ?\p{N}+                    numbers: any length, one digit (Qwen2, CLIP) or up to three (Llama 3)
//      ?[^\s\p{L}\p{N}]+[\r\n]*   other marks
//     \s*[\r\n]+                  lines
//     \s+(?!\S)|\s+               white space, whose last character is left to the word behind it
#include "text/bpe_split.h"

#include "text/unicode.h"

#include <string.h>

const soma_split soma__split_gpt2 = {.contractions = true, .lead = SOMA_LEAD_SPACE, .number_space = true, .other_space = true};
const soma_split soma__split_qwen2 = {
    .contractions = true, .any_case = true, .lead = SOMA_LEAD_MARK, .n_digits = 1, .other_space = true, .other_lines = true, .lines = true};
const soma_split soma__split_llama3 = {
    .contractions = true, .any_case = true, .lead = SOMA_LEAD_MARK, .n_digits = 3, .other_space = true, .other_lines = true, .lines = true};
const soma_split soma__split_clip = {.contractions = true, .n_digits = 1, .drop_space = true};

const soma_split *soma__split_from_regex(const char *regex) {
    static const struct {
        const char *regex;
        const soma_split *rule;
    } known[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", &soma__split_gpt2},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         &soma__split_qwen2},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
         "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         &soma__split_llama3},
        {"'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+", &soma__split_clip},
    };
    for (size_t i = 0; i < SOMA_COUNT(known); i++)
        if (!strcmp(regex, known[i].regex)) return known[i].rule;
    return NULL;
}

// ---- characters

static inline soma_char_class class_at(const char *s, const char *end, size_t *len) {
    unsigned char c = (unsigned char)*s;
    *len = 1;
    if (c < 0x80) return soma__ascii_class[c];
    uint32_t cp;
    *len = soma__utf8_decode(s, end, &cp, NULL);
    return soma__unicode_class(cp);
}

// The end of the run of one class that begins at s; at most `most` characters where that is not 0.
static const char *run(const char *s, const char *end, soma_char_class wanted, int most) {
    size_t len;
    for (int n = 0; s < end && (!most || n < most) && class_at(s, end, &len) == wanted; n++) s += len;
    return s;
}

static bool is_class(const char *s, const char *end, soma_char_class wanted) {
    size_t len;
    return s < end && class_at(s, end, &len) == wanted;
}

// Behind an apostrophe. In any case, the long s (U+017F) is an s, too: a regular expression that ignores case folds it.
static size_t contraction(const soma_split *rule, const char *s, const char *end) {
    static const char *const ends[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    size_t left = (size_t)(end - s);
    if (rule->any_case && left >= 2 && !memcmp(s, "\xc5\xbf", 2)) return 2;
    for (size_t i = 0; i < SOMA_COUNT(ends); i++) {
        size_t len = strlen(ends[i]), k = 0;
        while (k < len && k < left && (s[k] == ends[i][k] || (rule->any_case && s[k] == ends[i][k] - 32))) k++;
        if (k == len) return len;
    }
    return 0;
}

static bool is_line(char c) { return c == '\n' || c == '\r'; }

static const char *space_end(const soma_split *rule, const char *s, const char *end) {
    const char *stop = s, *last = s, *line = NULL; // of the run: its end, its last character, behind its last line end
    for (size_t len; stop < end && class_at(stop, end, &len) == SOMA_CHAR_SPACE; stop += len) {
        last = stop;
        if (is_line(*stop)) line = stop + 1;
    }
    if (rule->lines && line) return line;
    return stop == end || last == s ? stop : last;
}

static const char *word_end(const soma_split *rule, const char *s, const char *end, bool *dropped) {
    size_t len, short_end;
    soma_char_class c = class_at(s, end, &len);
    if (c == SOMA_CHAR_LETTER) return run(s + len, end, SOMA_CHAR_LETTER, 0);
    if (rule->contractions && *s == '\'' && (short_end = contraction(rule, s + 1, end)) > 0) return s + 1 + short_end;
    const char *behind = s + len;
    bool leads = rule->lead == SOMA_LEAD_SPACE ? *s == ' ' : rule->lead == SOMA_LEAD_MARK && c != SOMA_CHAR_NUMBER && !is_line(*s);
    if (leads && is_class(behind, end, SOMA_CHAR_LETTER)) return run(behind, end, SOMA_CHAR_LETTER, 0);
    if (c == SOMA_CHAR_NUMBER) return run(s, end, SOMA_CHAR_NUMBER, rule->n_digits);
    if (rule->number_space && *s == ' ' && is_class(behind, end, SOMA_CHAR_NUMBER))
        return run(behind, end, SOMA_CHAR_NUMBER, rule->n_digits);
    if (c == SOMA_CHAR_OTHER || (rule->other_space && *s == ' ' && is_class(behind, end, SOMA_CHAR_OTHER))) {
        s = run(behind, end, SOMA_CHAR_OTHER, 0);
        while (rule->other_lines && s < end && is_line(*s)) s++;
        return s;
    }
    *dropped = rule->drop_space;
    return rule->drop_space ? run(s, end, SOMA_CHAR_SPACE, 0) : space_end(rule, s, end);
}

// ---- marks

soma_split soma__split_at_mark(soma_split_kind kind, const char *mark) {
    soma_split rule = {.kind = kind, .mark_len = strlen(mark)};
    SOMA_CHECK(kind != SOMA_SPLIT_WORDS && kind != SOMA_SPLIT_NUMBERS && rule.mark_len && rule.mark_len < sizeof rule.mark,
               "a mark is a character of up to 4 bytes");
    memcpy(rule.mark, mark, rule.mark_len);
    return rule;
}

// The next mark at or behind s; end when there is none.
static const char *next_mark(const soma_split *rule, const char *s, const char *end) {
    const char *hit =
        rule->mark_len == 1 ? memchr(s, *rule->mark, (size_t)(end - s)) : memmem(s, (size_t)(end - s), rule->mark, rule->mark_len);
    return hit ? hit : end;
}

static const char *mark_end(const soma_split *rule, const char *s, const char *end) {
    const char *mark = next_mark(rule, s, end);
    if (rule->kind == SOMA_SPLIT_AFTER) return mark == end ? end : mark + rule->mark_len;
    if (mark > s) return mark;
    mark = next_mark(rule, s += rule->mark_len, end);
    while (rule->kind == SOMA_SPLIT_RUNS && mark == s && s < end) mark = next_mark(rule, s += rule->mark_len, end);
    return mark;
}

static const char *number_end(const soma_split *rule, const char *s, const char *end) {
    if (is_class(s, end, SOMA_CHAR_NUMBER)) return run(s, end, SOMA_CHAR_NUMBER, rule->n_digits);
    for (size_t len; s < end && class_at(s, end, &len) != SOMA_CHAR_NUMBER;) s += len;
    return s;
}

size_t soma__split_next(const soma_split *rule, const char *s, const char *end, bool *dropped) {
    *dropped = false;
    switch (rule->kind) {
    case SOMA_SPLIT_WORDS: return (size_t)(word_end(rule, s, end, dropped) - s);
    case SOMA_SPLIT_NUMBERS: return (size_t)(number_end(rule, s, end) - s);
    default: return (size_t)(mark_end(rule, s, end) - s);
    }
}
