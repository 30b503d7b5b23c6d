// SPDX-License-Identifier: Apache-2.0
// The pair of files is written out as the tokenizer.json that it amounts to and read like one, so that nothing is checked in two ways.
#include "text/tokenizer_pair.h"

#include "base/str.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

enum { CLIP_MERGES = 49152 - 256 - 2 }; // of the 262,144 in its file; the vocabulary ends at 49,408 (openai/CLIP, simple_tokenizer.py)

typedef struct tokenizer_class {
    const char *name;     // what a "tokenizer_class" begins with
    const char *settings; // members of a tokenizer.json
    const char *model;    // members of its "model"
} tokenizer_class;

#define BYTES_DECODER "\"decoder\": {\"type\": \"ByteLevel\"}"
#define LATER_RULE                                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| " \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define CLIP_RULE "'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|[^\\\\s\\\\p{L}\\\\p{N}]+"

static const tokenizer_class classes[] = {
    {"GPT2Tokenizer", "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, " BYTES_DECODER, ""},
    {"Qwen2Tokenizer",
     "\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", "
     "\"pattern\": {\"Regex\": \"" LATER_RULE "\"}, \"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
     "\"use_regex\": false}]}, " BYTES_DECODER,
     ""},
    {"CLIPTokenizer",
     "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Replace\", \"pattern\": {\"Regex\": "
     "\"\\\\s+\"}, \"content\": \" \"}, {\"type\": \"Lowercase\"}]}, \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": "
     "[{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" CLIP_RULE "\"}, \"behavior\": \"Removed\", \"invert\": true}, {\"type\": "
     "\"ByteLevel\", \"add_prefix_space\": false}]}, \"post_processor\": {\"type\": \"RobertaProcessing\", \"sep\": [\"<|endoftext|>\", "
     "49407], \"cls\": [\"<|startoftext|>\", 49406]}, " BYTES_DECODER,
     "\"unk_token\": \"<|endoftext|>\", \"end_of_word_suffix\": \"</w>\", "},
};

static void add_quoted(soma_str *out, const char *s, size_t len) {
    soma__str_add(out, "\"");
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '"' || s[i] == '\\') soma__str_add(out, "\\");
        soma__str_add_bytes(out, &s[i], 1);
    }
    soma__str_add(out, "\"");
}

typedef struct merge_lines {
    soma_bytes rest;
    size_t left; // how many merges may still come
    bool begun;
} merge_lines;

// The next merge, without its line's end; false when there is none. The first line may tell the version instead.
static bool next_merge(merge_lines *m, soma_bytes *merge) {
    while (m->left && m->rest.size) {
        const char *line = m->rest.text, *end = memchr(line, '\n', m->rest.size);
        size_t len = end ? (size_t)(end - line) : m->rest.size, used = end ? len + 1 : len;
        bool version = !m->begun && memmem(line, len, "#version", 8);
        m->begun = true;
        m->rest.text += used;
        m->rest.size -= used;
        if (len && line[len - 1] == '\r') len--;
        if (!len || version) continue;
        m->left--;
        *merge = (soma_bytes){line, len};
        return true;
    }
    return false;
}

static void add_merges(soma_str *out, merge_lines lines) {
    soma_bytes merge;
    for (bool first = true; next_merge(&lines, &merge); first = false) {
        soma__str_add(out, first ? "" : ",\n");
        add_quoted(out, merge.text, merge.size);
    }
}

// CLIP's: the byte alphabet in its own order, the same with the suffix, the merges' results, two marks.
static void add_clip_vocab(soma_str *out, merge_lines lines) {
    static const int ranges[][2] = {{33, 126}, {161, 172}, {174, 255}, {256, 323}}; // the printable bytes first, then those that stand in
    soma_bytes merge;
    int id = 0;
    for (int suffix = 0; suffix < 2; suffix++)
        for (size_t r = 0; r < SOMA_COUNT(ranges); r++)
            for (int c = ranges[r][0]; c <= ranges[r][1]; c++) {
                char key[8];
                size_t len = soma__utf8_encode((uint32_t)c, key);
                memcpy(key + len, "</w>", 4);
                add_quoted(out, key, len + (suffix ? 4 : 0));
                soma__str_printf(out, ": %d,\n", id++);
            }
    while (next_merge(&lines, &merge)) {
        const char *space = memchr(merge.text, ' ', merge.size);
        size_t left = space ? (size_t)(space - merge.text) : merge.size, right = space ? left + 1 : left;
        soma_str whole = {0};
        soma__str_add_bytes(&whole, merge.text, left);
        soma__str_add_bytes(&whole, merge.text + right, merge.size - right);
        if (whole.failed)
            out->failed = true;
        else
            add_quoted(out, whole.text, whole.len);
        soma__str_free(&whole);
        soma__str_printf(out, ": %d,\n", id++);
    }
    soma__str_printf(out, "\"<|startoftext|>\": %d, \"<|endoftext|>\": %d", id, id + 1);
}

// "added_tokens_decoder" of tokenizer_config.json, {"151643": {"content": ..}}, as the list of a tokenizer.json.
static soma_status add_added(soma_str *out, const json_t *config, const char *where, soma_error *err) {
    const char *key;
    json_t *token, *list = json_array();
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, token) {
        char *end;
        json_t *entry = json_copy(token);
        long id = strtol(key, &end, 10);
        bool ok = json_is_object(entry) && *key && !*end && json_object_set_new(entry, "id", json_integer(id)) == 0;
        if (!ok || json_array_append(list, entry)) {
            json_decref(entry);
            json_decref(list);
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"added_tokens_decoder\" has the entry \"%.40s\"", where, key);
        }
        json_decref(entry);
    }
    char *text = json_dumps(list, JSON_COMPACT);
    soma__str_add(out, text ? text : "");
    json_decref(list);
    bool made = text != NULL;
    free(text);
    return made ? SOMA_OK : soma__no_memory(err, "a tokenizer");
}

static soma_status find_class(const tokenizer_class **found, const json_t *config, const char *where, soma_error *err) {
    const char *name = config ? json_string_value(json_object_get(config, "tokenizer_class")) : classes[0].name;
    *found = NULL;
    for (size_t i = 0; i < SOMA_COUNT(classes); i++)
        if (name && !strncmp(name, classes[i].name, strlen(classes[i].name))) *found = &classes[i];
    if (*found) return SOMA_OK;
    return soma__fail(err, SOMA_UNSUPPORTED,
                      "%s: vocab.json and merges.txt of a \"%.60s\": how it cuts a text is not known here; give its tokenizer.json", where,
                      name ? name : "tokenizer without a class");
}

static soma_status write_json(soma_str *out, soma_bytes vocab, soma_bytes merges, const json_t *config, const char *where,
                              soma_error *err) {
    const tokenizer_class *c = &classes[2];
    merge_lines lines = {.rest = merges, .left = vocab.text ? SIZE_MAX : CLIP_MERGES};
    if (vocab.text) SOMA_TRY(find_class(&c, config, where, err));
    soma__str_printf(out, "{%s, \"added_tokens\": ", c->settings);
    if (vocab.text)
        SOMA_TRY(add_added(out, config, where, err));
    else
        soma__str_add(out, "[{\"id\": 49406, \"content\": \"<|startoftext|>\", \"special\": true, \"normalized\": true}, {\"id\": 49407, "
                           "\"content\": \"<|endoftext|>\", \"special\": true}]");
    soma__str_printf(out, ", \"model\": {\"type\": \"BPE\", %s\"vocab\": ", c->model);
    if (vocab.text) {
        soma__str_add_bytes(out, vocab.text, vocab.size);
    } else {
        soma__str_add(out, "{");
        add_clip_vocab(out, lines);
        soma__str_add(out, "}");
    }
    soma__str_add(out, ", \"merges\": [");
    add_merges(out, lines);
    soma__str_add(out, "]}}");
    return out->failed ? soma__no_memory(err, "a tokenizer") : SOMA_OK;
}

soma_status soma__tokenizer_pair_parse(soma_tokenizer_json **json, soma_bytes vocab, soma_bytes merges, soma_bytes config,
                                       const char *where, soma_error *err) {
    json_t *parsed = NULL;
    soma_str text = {0};
    *json = NULL;
    if (config.text) SOMA_TRY(soma__json_parse(&parsed, config.text, config.size, where, err));
    soma_status status = write_json(&text, vocab, merges, parsed, where, err);
    if (status == SOMA_OK) status = soma__tokenizer_json_parse(json, text.text, text.len, where, err);
    soma__str_free(&text);
    json_decref(parsed);
    return status;
}
