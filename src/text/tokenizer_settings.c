// SPDX-License-Identifier: Apache-2.0
// Reads normalizer, pre_tokenizer, post_processor and decoder, each either one {"type": ...} or a Sequence of them, and applies text steps.
#include "text/tokenizer_settings.h"

#include <string.h>

typedef struct reader {
    soma_tokenizer_settings *s;
    const soma_tokenizer_json *json;
    const char *where;
    soma_error *err;
} reader;

typedef soma_status read_one(reader *r, const char *type, const json_t *value);

static soma_status unknown(reader *r, const char *what, const char *type) {
    return soma__fail(r->err, SOMA_UNSUPPORTED, "%s: %s \"%.200s\" is not known here; without it the ids would differ", r->where, what,
                      type);
}

// Calls `one` for a setting or for each member of a Sequence, whose list has the name `list`.
static soma_status each(reader *r, const json_t *value, const char *list, read_one *one) {
    const char *type;
    if (!value) return SOMA_OK;
    SOMA_TRY(soma__json_string(&type, value, "type", r->where, r->err));
    if (strcmp(type, "Sequence")) return one(r, type, value);
    const json_t *members = json_object_get(value, list), *member;
    size_t i;
    if (!json_is_array(members)) return soma__fail(r->err, SOMA_BAD_INPUT, "%s: a Sequence without a list \"%s\"", r->where, list);
    json_array_foreach(members, i, member) {
        SOMA_TRY(soma__json_string(&type, member, "type", r->where, r->err));
        SOMA_TRY(one(r, type, member));
    }
    return SOMA_OK;
}

// A flag that older files leave out.
static soma_status read_flag(reader *r, const json_t *value, const char *key, bool *flag) {
    return json_object_get(value, key) ? soma__json_bool(flag, value, key, r->where, r->err) : SOMA_OK;
}

static soma_status keep(reader *r, const char *text, const char **kept) {
    *kept = soma__arena_strdup(&r->s->arena, text);
    return *kept ? SOMA_OK : soma__no_memory(r->err, "a tokenizer's settings");
}

static soma_status add_step(reader *r, soma_text_step *steps, int *n, soma_text_step step) {
    if (*n == SOMA_TOKENIZER_STEPS)
        return soma__fail(r->err, SOMA_UNSUPPORTED, "%s: more than %d steps on a text", r->where, SOMA_TOKENIZER_STEPS);
    steps[(*n)++] = step;
    return SOMA_OK;
}

static soma_status read_key(reader *r, const json_t *value, const char *key, const char **kept) {
    const char *text;
    SOMA_TRY(soma__json_string(&text, value, key, r->where, r->err));
    return keep(r, text, kept);
}

// {"String": "..."} or {"Regex": "..."}; one of the two is set.
static soma_status read_pattern(reader *r, const json_t *value, const char **string, const char **regex) {
    const json_t *pattern;
    SOMA_TRY(soma__json_get(&pattern, value, "pattern", r->where, r->err));
    *string = json_string_value(json_object_get(pattern, "String"));
    *regex = json_string_value(json_object_get(pattern, "Regex"));
    if (!*string == !*regex || (*string && !**string))
        return soma__fail(r->err, SOMA_BAD_INPUT, "%s: a \"pattern\" holds one \"String\" or one \"Regex\"", r->where);
    return SOMA_OK;
}

static soma_status read_replace(reader *r, const json_t *value, soma_text_step *steps, int *n) {
    soma_text_step step = {.kind = SOMA_STEP_REPLACE};
    const char *string, *regex;
    SOMA_TRY(read_pattern(r, value, &string, &regex));
    if (regex && strcmp(regex, "\\s+")) return unknown(r, "the pattern of a Replace,", regex);
    if (string) SOMA_TRY(keep(r, string, &step.from));
    SOMA_TRY(read_key(r, value, "content", &step.to));
    return add_step(r, steps, n, step);
}

// ---- before the cut

static soma_status read_normalizer(reader *r, const char *type, const json_t *value) {
    static const char *const forms[] = {[SOMA_NFC] = "NFC", [SOMA_NFD] = "NFD", [SOMA_NFKC] = "NFKC", [SOMA_NFKD] = "NFKD"};
    soma_tokenizer_settings *s = r->s;
    soma_text_step step = {0};
    for (int i = 0; i < (int)SOMA_COUNT(forms); i++) {
        if (strcmp(type, forms[i])) continue;
        SOMA_TRY(soma__unicode_need(r->where, r->err));
        return add_step(r, s->normal, &s->n_normal, (soma_text_step){.kind = SOMA_STEP_FORM, .form = (soma_unicode_form)i});
    }
    if (!strcmp(type, "Replace")) return read_replace(r, value, s->normal, &s->n_normal);
    if (!strcmp(type, "Lowercase")) {
        SOMA_TRY(soma__unicode_need(r->where, r->err));
        step.kind = SOMA_STEP_LOWER;
    } else if (!strcmp(type, "Prepend")) {
        step.kind = SOMA_STEP_PREPEND;
        SOMA_TRY(read_key(r, value, "prepend", &step.to));
    } else if (!strcmp(type, "Strip")) {
        step.kind = SOMA_STEP_STRIP;
        SOMA_TRY(soma__json_bool(&step.left, value, "strip_left", r->where, r->err));
        SOMA_TRY(soma__json_bool(&step.right, value, "strip_right", r->where, r->err));
    } else {
        return unknown(r, "the normaliser", type);
    }
    return add_step(r, s->normal, &s->n_normal, step);
}

// ---- the cut

static soma_status add_split(reader *r, soma_split split) {
    if (split.kind == SOMA_SPLIT_WORDS || split.kind == SOMA_SPLIT_NUMBERS) SOMA_TRY(soma__unicode_need(r->where, r->err));
    if (r->s->n_splits == SOMA_TOKENIZER_SPLITS)
        return soma__fail(r->err, SOMA_UNSUPPORTED, "%s: more than %d rules of cutting", r->where, SOMA_TOKENIZER_SPLITS);
    r->s->splits[r->s->n_splits++] = split;
    return SOMA_OK;
}

static soma_status read_split(reader *r, const json_t *value) {
    const char *string, *regex, *behavior;
    bool invert = false;
    SOMA_TRY(read_pattern(r, value, &string, &regex));
    SOMA_TRY(soma__json_string(&behavior, value, "behavior", r->where, r->err));
    SOMA_TRY(read_flag(r, value, "invert", &invert));
    if (string) {
        if (strcmp(behavior, "MergedWithPrevious") || invert || strlen(string) > 4)
            return unknown(r, "a Split at a string with the behaviour", behavior);
        return add_split(r, soma__split_at_mark(SOMA_SPLIT_AFTER, string));
    }
    const soma_split *rule = soma__split_from_regex(regex);
    if (!rule) return unknown(r, "the pattern of a Split,", regex);
    // what a rule finds are words and what lies between is dropped (Removed, inverted), or it finds everything (Isolated)
    bool drops = !strcmp(behavior, "Removed") && invert, isolates = !strcmp(behavior, "Isolated") && !invert;
    if (rule->drop_space ? !drops : !(isolates || drops)) return unknown(r, "this rule of cutting with the behaviour", behavior);
    return add_split(r, *rule);
}

static soma_status read_metaspace(reader *r, const json_t *value) {
    soma_text_step step = {.kind = SOMA_STEP_REPLACE, .from = " "};
    const char *scheme = json_string_value(json_object_get(value, "prepend_scheme"));
    bool cuts = true, leads = true; // of files that were written before the scheme had a name
    SOMA_TRY(read_key(r, value, "replacement", &step.to));
    SOMA_TRY(read_flag(r, value, "split", &cuts));
    SOMA_TRY(read_flag(r, value, "add_prefix_space", &leads));
    if (!*step.to || strlen(step.to) > 4) return unknown(r, "the Metaspace replacement", step.to);
    SOMA_TRY(add_step(r, r->s->cut, &r->s->n_cut, step));
    if (scheme && strcmp(scheme, "always") && strcmp(scheme, "first") && strcmp(scheme, "never"))
        return unknown(r, "the Metaspace scheme", scheme);
    if (scheme) leads = strcmp(scheme, "never") != 0;
    step = (soma_text_step){.kind = SOMA_STEP_LEAD, .to = step.to, .first_only = scheme && !strcmp(scheme, "first")};
    if (leads) SOMA_TRY(add_step(r, r->s->cut, &r->s->n_cut, step));
    return cuts ? add_split(r, soma__split_at_mark(SOMA_SPLIT_BEFORE, step.to)) : SOMA_OK;
}

static soma_status read_pre_tokenizer(reader *r, const char *type, const json_t *value) {
    soma_tokenizer_settings *s = r->s;
    bool leads = false, cuts = true, each = false;
    if (s->byte_level) return unknown(r, "behind ByteLevel, the pre-tokeniser", type);
    if (!strcmp(type, "Split")) return read_split(r, value);
    if (s->n_splits && !strcmp(type, "Metaspace")) return unknown(r, "behind another rule, the pre-tokeniser", type);
    if (!strcmp(type, "Metaspace")) return read_metaspace(r, value);
    if (!strcmp(type, "Digits")) { // SmolLM's
        SOMA_TRY(read_flag(r, value, "individual_digits", &each));
        return add_split(r, (soma_split){.kind = SOMA_SPLIT_NUMBERS, .n_digits = each});
    }
    if (strcmp(type, "ByteLevel")) return unknown(r, "the pre-tokeniser", type);
    SOMA_TRY(read_flag(r, value, "add_prefix_space", &leads));
    SOMA_TRY(read_flag(r, value, "use_regex", &cuts));
    if (leads && s->n_splits) return unknown(r, "behind another rule, add_prefix_space of", type);
    if (leads) SOMA_TRY(add_step(r, s->cut, &s->n_cut, (soma_text_step){.kind = SOMA_STEP_LEAD, .to = " "}));
    s->byte_level = true;
    return cuts ? add_split(r, soma__split_gpt2) : SOMA_OK;
}

// ---- around the ids

static soma_status add_mark(reader *r, int32_t *marks, int *n, const json_t *id) {
    json_int_t value = json_integer_value(id);
    if (!json_is_integer(id) || value < 0 || (uint64_t)value >= r->json->n_pieces)
        return soma__fail(r->err, SOMA_BAD_INPUT, "%s: the post-processor adds an id outside the vocabulary", r->where);
    if (*n == SOMA_TOKENIZER_MARKS) return soma__fail(r->err, SOMA_UNSUPPORTED, "%s: the post-processor adds too many ids", r->where);
    marks[(*n)++] = (int32_t)value;
    return SOMA_OK;
}

static soma_status read_template(reader *r, const json_t *value) {
    const json_t *list = json_object_get(value, "single"), *special = json_object_get(value, "special_tokens"), *item, *id;
    size_t i, k;
    bool behind = false;
    json_array_foreach(list, i, item) {
        const char *name = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        if (!name) {
            behind = true;
            continue;
        }
        json_array_foreach(json_object_get(json_object_get(special, name), "ids"), k, id)
            SOMA_TRY(add_mark(r, behind ? r->s->back : r->s->front, behind ? &r->s->n_back : &r->s->n_front, id));
    }
    return SOMA_OK;
}

static soma_status read_post_processor(reader *r, const char *type, const json_t *value) {
    if (!strcmp(type, "ByteLevel")) return SOMA_OK; // concerns offsets only
    if (!strcmp(type, "TemplateProcessing")) return read_template(r, value);
    if (strcmp(type, "RobertaProcessing") && strcmp(type, "BertProcessing")) return unknown(r, "the post-processor", type);
    SOMA_TRY(add_mark(r, r->s->front, &r->s->n_front, json_array_get(json_object_get(value, "cls"), 1)));
    return add_mark(r, r->s->back, &r->s->n_back, json_array_get(json_object_get(value, "sep"), 1));
}

// ---- back to text

static soma_status read_decoder(reader *r, const char *type, const json_t *value) {
    soma_tokenizer_settings *s = r->s;
    s->spaced = false;
    if (!strcmp(type, "Replace")) return read_replace(r, value, s->pieces, &s->n_pieces);
    if (!strcmp(type, "ByteLevel")) {
        s->bytes = true;
    } else if (!strcmp(type, "ByteFallback")) {
        s->fallback = true;
    } else if (!strcmp(type, "Metaspace")) {
        soma_text_step step = {.kind = SOMA_STEP_REPLACE, .to = " "};
        const char *scheme = json_string_value(json_object_get(value, "prepend_scheme"));
        bool leads = true;
        SOMA_TRY(read_key(r, value, "replacement", &step.from));
        SOMA_TRY(read_flag(r, value, "add_prefix_space", &leads));
        if (!*step.from) return unknown(r, "the Metaspace replacement", "");
        step.off_first = scheme ? strcmp(scheme, "never") != 0 : leads;
        return add_step(r, s->pieces, &s->n_pieces, step);
    } else if (!strcmp(type, "Strip")) {
        int64_t start, stop;
        SOMA_TRY(read_key(r, value, "content", &s->strip));
        SOMA_TRY(soma__json_int(&start, value, "start", 0, 100, r->where, r->err));
        SOMA_TRY(soma__json_int(&stop, value, "stop", 0, 100, r->where, r->err));
        if (stop || !*s->strip) return unknown(r, "from the end, the decoder", type);
        s->n_strip = (int)start;
    } else if (strcmp(type, "Fuse") && !(r->json->suffix && !strcmp(type, "BPEDecoder"))) {
        return unknown(r, "the decoder", type);
    }
    return SOMA_OK;
}

soma_status soma__tokenizer_settings_read(soma_tokenizer_settings *s, const soma_tokenizer_json *json, const char *where, soma_error *err) {
    *s = (soma_tokenizer_settings){.spaced = !json->suffix};
    reader r = {s, json, where, err};
    SOMA_TRY(each(&r, json->normalizer, "normalizers", read_normalizer));
    SOMA_TRY(each(&r, json->pre_tokenizer, "pretokenizers", read_pre_tokenizer));
    SOMA_TRY(each(&r, json->post_processor, "processors", read_post_processor));
    return each(&r, json->decoder, "decoders", read_decoder);
}

void soma__tokenizer_settings_free(soma_tokenizer_settings *s) {
    soma__arena_free(&s->arena);
    *s = (soma_tokenizer_settings){0};
}

// ---- steps

static void replace(soma_str *out, const char *from, const char *to, const char *s, size_t len) {
    size_t n = strlen(from);
    for (const char *end = s + len, *hit; s < end; s = hit + n) {
        hit = n == 1 ? memchr(s, *from, (size_t)(end - s)) : memmem(s, (size_t)(end - s), from, n);
        soma__str_add_bytes(out, s, (size_t)((hit ? hit : end) - s));
        if (!hit) return;
        soma__str_add(out, to);
    }
}

static void replace_spaces(soma_str *out, const char *to, const char *s, size_t len) {
    const char *end = s + len, *plain = s; // what is not copied yet and is no space
    uint32_t cp;
    for (bool inside = false; s < end;) {
        size_t n = soma__utf8_decode(s, end, &cp, NULL);
        bool space = soma__unicode_class(cp) == SOMA_CHAR_SPACE;
        if (space && !inside) {
            soma__str_add_bytes(out, plain, (size_t)(s - plain));
            soma__str_add(out, to);
        }
        s += n;
        if (space) plain = s;
        inside = space;
    }
    soma__str_add_bytes(out, plain, (size_t)(s - plain));
}

// White space off the ends; the text stays where it is.
static void strip(const soma_text_step *step, const char **s, size_t *len) {
    uint32_t cp;
    const char *from = *s, *end = from + *len, *kept = NULL; // kept: behind the last character that is no space
    for (const char *p = from; p < end;) {
        p += soma__utf8_decode(p, end, &cp, NULL);
        bool space = soma__unicode_class(cp) == SOMA_CHAR_SPACE;
        if (space && !kept && step->left) from = p;
        if (!space) kept = p;
    }
    if (step->right) end = kept ? kept : from;
    *s = from;
    *len = (size_t)(end - from);
}

static bool begins_with(const char *s, size_t len, const char *front) { return len >= strlen(front) && !memcmp(s, front, strlen(front)); }

// Whether the step may leave the text as it is; a quick answer, no on doubt.
static bool is_idle(const soma_text_step *step, bool first, const char *s, size_t len) {
    switch (step->kind) {
    case SOMA_STEP_FORM: return soma__unicode_is_normal(s, len, step->form);
    case SOMA_STEP_REPLACE: return step->from && !memmem(s, len, step->from, strlen(step->from));
    case SOMA_STEP_PREPEND: return !len;
    case SOMA_STEP_LEAD: return (step->first_only && !first) || begins_with(s, len, step->to);
    default: return false;
    }
}

soma_status soma__text_steps_run(const soma_text_step *steps, int n_steps, bool first, soma_str buffers[2], const char *s, size_t len,
                                 const char **out, size_t *out_len, soma_error *err) {
    soma_str *b = &buffers[0];
    for (int i = 0; i < n_steps; i++) {
        const soma_text_step *step = &steps[i];
        if (is_idle(step, first, s, len)) continue;
        if (step->kind == SOMA_STEP_STRIP) {
            strip(step, &s, &len);
            continue;
        }
        b->len = 0;
        soma__str_add(b, step->kind == SOMA_STEP_PREPEND || step->kind == SOMA_STEP_LEAD ? step->to : "");
        switch (step->kind) {
        case SOMA_STEP_FORM: SOMA_TRY(soma__unicode_normalise(b, s, len, step->form, err)); break;
        case SOMA_STEP_LOWER: soma__unicode_lower_text(b, s, len); break;
        case SOMA_STEP_REPLACE:
            if (step->from)
                replace(b, step->from, step->to, s, len);
            else
                replace_spaces(b, step->to, s, len);
            break;
        default: soma__str_add_bytes(b, s, len);
        }
        if (b->failed) return soma__no_memory(err, "a text");
        s = b->text;
        len = b->len;
        b = b == &buffers[0] ? &buffers[1] : &buffers[0];
    }
    *out = s;
    *out_len = len;
    return SOMA_OK;
}
