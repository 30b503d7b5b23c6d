// SPDX-License-Identifier: Apache-2.0
// Prompt forms. Every space and newline here was seen by the released weights: change none of them.
#include "text/prompt.h"

#include "text/unicode.h"

#include <math.h>
#include <string.h>

// Bytes of the white space character at s (which ends at `end`); 0 when there is none. The set is that of Python's str.strip.
static size_t space_at(const unsigned char *s, const unsigned char *end) {
    size_t left = (size_t)(end - s);
    if (!left) return 0;
    if ((s[0] >= 0x09 && s[0] <= 0x0d) || (s[0] >= 0x1c && s[0] <= 0x20)) return 1;
    if (left >= 2 && s[0] == 0xc2 && (s[1] == 0x85 || s[1] == 0xa0)) return 2; // U+0085, U+00A0
    if (left < 3) return 0;
    uint32_t c = (uint32_t)s[0] << 16 | (uint32_t)s[1] << 8 | s[2];
    bool space = c == 0xe19a80 ||                    // U+1680
                 (c >= 0xe28080 && c <= 0xe2808a) || // U+2000 .. U+200A
                 c == 0xe280a8 || c == 0xe280a9 ||   // U+2028, U+2029
                 c == 0xe280af || c == 0xe2819f ||   // U+202F, U+205F
                 c == 0xe38080;                      // U+3000
    return space ? 3 : 0;
}

// Adds the stripped prompt with every byte of `spaces` as a space.
static void add_stripped(soma_str *out, const char *prompt, const char *spaces) {
    const unsigned char *s = (const unsigned char *)prompt, *end = s + strlen(prompt);
    for (size_t len; (len = space_at(s, end)) > 0;) s += len;
    for (size_t len = 1; len && end > s;) {
        len = 0;
        for (size_t back = 1; back <= 3 && back <= (size_t)(end - s) && !len; back++)
            if (space_at(end - back, end) == back) len = back;
        end -= len;
    }
    soma__str_add(out, ""); // an empty text is a text, not NULL
    while (s < end) {
        const unsigned char *plain = s;
        while (s < end && !strchr(spaces, *s)) s++;
        soma__str_add_bytes(out, plain, (size_t)(s - plain));
        if (s < end) soma__str_add(out, " ");
        s += s < end;
    }
}

void soma__prompt_clean(soma_str *out, const char *prompt) { add_stripped(out, prompt, "_\n"); }

static void add_lowered(soma_str *out, const char *prompt) {
    soma_str lower = {0};
    soma__unicode_lower_text(&lower, prompt, strlen(prompt));
    add_stripped(out, lower.text ? lower.text : "", "_");
    out->failed |= lower.failed;
    soma__str_free(&lower);
}

// x * 128 and floor are exact, so a value just under an edge stays under it; (x + 1) * 128 would round it up.
int soma__prompt_bin(double x) {
    if (x < -1) return -1;
    return x >= 1 ? 255 : (int)floor(x * 128) + 128;
}

enum { LEROBOT_04_STATE = 32 }; // max_state_dim as its step has it once it was saved and loaded, whatever the policy's config says

static const char *const form_names[] = {
#define NAME(code, name) name,
    SOMA_PROMPT_LIST(NAME)
#undef NAME
};

const char *soma__prompt_form_name(soma_prompt_form form) {
    SOMA_CHECK((unsigned)form < SOMA_PROMPT_COUNT, "a form is one of soma_prompt_form");
    return form_names[form];
}

soma_status soma__prompt_form_parse(soma_prompt_form *form, const char *name, soma_error *err) {
    int index;
    SOMA_TRY(soma__name_parse(&index, form_names + 1, SOMA_PROMPT_COUNT - 1, name, "form of prompt", err));
    *form = (soma_prompt_form)(index + 1);
    return SOMA_OK;
}

bool soma__prompt_has_state(soma_prompt_form form) {
    return form != SOMA_PROMPT_PI0 && form != SOMA_PROMPT_LEROBOT_PI0 && form != SOMA_PROMPT_SMOLVLA;
}

int soma__prompt_state_width(soma_prompt_form form, int n_state) {
    bool padded = form == SOMA_PROMPT_LEROBOT_04_PI05 || form == SOMA_PROMPT_LEROBOT_04_FAST;
    return padded ? SOMA_MAX(n_state, LEROBOT_04_STATE) : n_state;
}

void soma__prompt_text(soma_str *out, soma_prompt_form form, const char *prompt, const double *state, int n_state) {
    SOMA_CHECK(form > SOMA_PROMPT_MODEL && form < SOMA_PROMPT_COUNT, "a text is made in one of the forms");
    if (!soma__prompt_has_state(form)) {
        size_t n = strlen(prompt);
        bool whole = form != SOMA_PROMPT_PI0;
        (whole ? soma__str_add : soma__prompt_clean)(out, prompt);
        if (!whole || !n || prompt[n - 1] != '\n') soma__str_add(out, "\n");
        return;
    }
    soma__str_add(out, "Task: ");
    (form == SOMA_PROMPT_FAST ? add_lowered : soma__prompt_clean)(out, prompt);
    soma__str_add(out, ", State: ");
    for (int i = 0; i < soma__prompt_state_width(form, n_state); i++)
        soma__str_printf(out, i ? " %d" : "%d", soma__prompt_bin(i < n_state ? state[i] : 0));
    bool five = form == SOMA_PROMPT_PI05 || form == SOMA_PROMPT_LEROBOT_04_PI05;
    soma__str_add(out, five ? ";\nAction: " : ";\n");
}

// pi0's newline is a text of its own: SentencePiece would join it with what precedes it.
static soma_status encode_form(const soma_text *text, soma_prompt_form form, soma_str *s, int32_t *ids, size_t len, size_t *needed,
                               soma_error *err) {
    if (form != SOMA_PROMPT_PI0) return soma__text_encode(text, s->text, form != SOMA_PROMPT_SMOLVLA, ids, len, needed, err);
    s->text[s->len - 1] = 0;
    SOMA_TRY(soma__text_encode(text, s->text, true, ids, len, needed, err));
    size_t used = SOMA_MIN(*needed, len), n;
    SOMA_TRY(soma__text_encode(text, "\n", false, ids + used, len - used, &n, err));
    *needed += n;
    return SOMA_OK;
}

soma_status soma__prompt_encode(const soma_text *text, soma_prompt_form form, const char *prompt, const double *state, int n_state,
                                int32_t *ids, uint8_t *mask, size_t len, size_t *needed, soma_error *err) {
    *needed = 0;
    for (int i = 0; soma__prompt_has_state(form) && i < n_state; i++)
        if (isnan(state[i])) return soma__fail(err, SOMA_BAD_INPUT, "the state is not a number at [%d]", i);
    soma_str s = {0};
    soma__prompt_text(&s, form, prompt, state, n_state);
    soma_status status = s.failed ? soma__no_memory(err, "the prompt") : encode_form(text, form, &s, ids, len, needed, err);
    soma__str_free(&s);
    SOMA_TRY(status);
    for (size_t i = 0; i < len; i++) {
        mask[i] = i < *needed;
        if (i >= *needed) ids[i] = SOMA_PROMPT_PAD;
    }
    return SOMA_OK;
}
