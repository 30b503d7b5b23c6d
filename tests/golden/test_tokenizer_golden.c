// SPDX-License-Identifier: Apache-2.0
// Ids and texts of the `tokenizers` package (data/tokenizers.json, made by tools/golden_tokenizers.py): small tokenizers of every kind that
// is read, and the published ones of Qwen2 and CLIP where ../shared/data/tokenizers has them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "text/text.h"
#include "text/tokenizer.h"
#include "text/tokenizer_pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDENS SOMA_SOURCE_DIR "/tests/golden/data/tokenizers.json"
#define TOKENIZERS SOMA_SOURCE_DIR "/../shared/data/tokenizers"

static json_t *goldens;

static int load(void **state) {
    soma_error err = {0};
    if (soma__json_load(&goldens, GOLDENS, &err)) print_message("%s\n", err.text);
    return goldens == NULL;
}

static int unload(void **state) {
    json_decref(goldens);
    return 0;
}

static void need_unicode(void) {
#ifndef SOMA_UTF8PROC
    skip();
#endif
}

static const json_t *named(const char *list, const char *name) {
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(goldens, list), i,
                       entry) if (!strcmp(json_string_value(json_object_get(entry, "name")), name)) return entry;
    fail_msg("no golden %s", name);
    return NULL;
}

static void check_ids(const soma_tokenizer *t, const char *name, const char *text, int marks, const json_t *wanted) {
    int32_t ids[2048];
    size_t n;
    soma_error err = {0};
    if (soma__tokenizer_encode(t, text, strlen(text), marks, ids, SOMA_COUNT(ids), &n, &err)) fail_msg("%s: %s", name, err.text);
    for (size_t i = 0; i < n && i < json_array_size(wanted); i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(wanted, i));
        if (ids[i] != id) fail_msg("%s, \"%.200s\": id %zu is %d, wanted %d", name, text, i, ids[i], id);
    }
    if (n != json_array_size(wanted)) fail_msg("%s, \"%.200s\": %zu ids, wanted %zu", name, text, n, json_array_size(wanted));
}

static void check_text(const soma_tokenizer *t, const char *name, const json_t *ids, const char *wanted) {
    int32_t list[2048];
    size_t n = json_array_size(ids);
    soma_str out = {0};
    soma_error err = {0};
    assert_true(n <= SOMA_COUNT(list));
    for (size_t i = 0; i < n; i++) list[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    if (soma__tokenizer_decode(t, list, n, &out, &err)) fail_msg("%s: %s", name, err.text);
    if (strcmp(out.text, wanted)) fail_msg("%s: decoded \"%.300s\", wanted \"%.300s\"", name, out.text, wanted);
    soma__str_free(&out);
}

static void check_cases(const soma_tokenizer *t, const char *name, const json_t *golden) {
    size_t i;
    json_t *c;
    assert_true(json_array_size(json_object_get(golden, "cases")) > 20);
    json_array_foreach(json_object_get(golden, "cases"), i, c) {
        const char *text = json_string_value(json_object_get(c, "text"));
        const json_t *ids = json_object_get(c, "ids"), *marked = json_object_get(c, "marked");
        check_ids(t, name, text, SOMA_MARKS_NONE, ids);
        if (marked) check_ids(t, name, text, SOMA_MARKS_FRONT | SOMA_MARKS_BACK, marked);
        check_text(t, name, ids, json_string_value(json_object_get(c, "decoded")));
    }
}

static void test_small(void **state) {
    size_t i;
    json_t *golden;
    need_unicode();
    assert_int_equal(json_array_size(json_object_get(goldens, "small")), 9);
    json_array_foreach(json_object_get(goldens, "small"), i, golden) {
        const char *name = json_string_value(json_object_get(golden, "name"));
        char *text = json_dumps(json_object_get(golden, "tokenizer"), i % 2 ? JSON_COMPACT : JSON_INDENT(2));
        soma_tokenizer_json *json;
        soma_tokenizer *t;
        soma_error err = {0};
        if (soma__tokenizer_json_parse(&json, text, strlen(text), name, &err)) fail_msg("%s", err.text);
        if (soma__tokenizer_new(&t, json, name, &err)) fail_msg("%s", err.text);
        check_cases(t, name, golden);
        soma__tokenizer_free(t);
        free(text);
    }
}

// The same vocabulary with its merges in the older spelling, through the door that policies use.
static void test_spellings(void **state) {
    const json_t *golden = named("small", "gemma");
    json_t *file = json_deep_copy(json_object_get(golden, "tokenizer")), *model = json_object_get(file, "model"), *merge, *c;
    const json_t *pairs = json_object_get(model, "merges");
    json_t *words = json_array();
    size_t i;
    json_array_foreach(pairs, i, merge) {
        assert_true(json_is_array(merge));
        json_array_append_new(
            words, json_sprintf("%s %s", json_string_value(json_array_get(merge, 0)), json_string_value(json_array_get(merge, 1))));
    }
    json_object_set_new(model, "merges", words);
    char *bytes = json_dumps(file, 0);
    soma_text *text;
    soma_error err = {0};
    if (soma__text_open_bytes(&text, bytes, strlen(bytes), "tokenizer.json", &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__text_id(text, "<bos>"), 2);
    json_array_foreach(json_object_get(golden, "cases"), i, c) {
        int32_t ids[2048];
        size_t n;
        const json_t *marked = json_object_get(c, "marked");
        assert_int_equal(soma__text_encode(text, json_string_value(json_object_get(c, "text")), true, ids, 2048, &n, &err), SOMA_OK);
        assert_int_equal(n, json_array_size(marked));
        for (size_t k = 0; k < n; k++) assert_int_equal(ids[k], json_integer_value(json_array_get(marked, k)));
    }
    soma__text_close(text);
    free(bytes);
    json_decref(file);
}

// ---- published vocabularies

static void check_real(const soma_tokenizer *t, const char *name) {
    const json_t *golden = named("real", name), *ids;
    json_t *root, *c;
    size_t i;
    soma_error err = {0};
    check_cases(t, name, golden);
    if (soma__json_load(&root, TOKENIZERS "/encoded_goldens/tokenizer_tests.json", &err)) fail_msg("%s", err.text);
    json_array_foreach(json_object_get(root, "coreml-projects/Llama-2-7b-chat-coreml"), i, c) {
        ids = json_array_get(json_object_get(golden, "encoded_goldens"), i);
        assert_non_null(ids);
        check_ids(t, name, json_string_value(json_object_get(c, "input")), SOMA_MARKS_NONE, ids);
    }
    json_decref(root);
}

static soma_bytes read_whole(const char *path) {
    char *bytes;
    soma_bytes b;
    soma_error err = {0};
    if (soma__file_read(&bytes, &b.size, path, 16 << 20, &err)) fail_msg("%s", err.text);
    b.text = bytes;
    return b;
}

static void test_qwen2(void **state) {
    need_unicode();
    if (!soma__file_exists(TOKENIZERS "/qwen2/vocab.json")) skip();
    soma_bytes vocab = read_whole(TOKENIZERS "/qwen2/vocab.json"), merges = read_whole(TOKENIZERS "/qwen2/merges.txt");
    soma_bytes config = read_whole(TOKENIZERS "/qwen2/tokenizer_config.json");
    soma_tokenizer_json *json;
    soma_tokenizer *t;
    soma_error err = {0};
    if (soma__tokenizer_pair_parse(&json, vocab, merges, config, "qwen2", &err)) fail_msg("%s", err.text);
    if (soma__tokenizer_new(&t, json, "qwen2", &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__tokenizer_size(t), 151646);
    check_real(t, "qwen2");
    soma__tokenizer_free(t);
    soma__free((char *)vocab.text);
    soma__free((char *)merges.text);
    soma__free((char *)config.text);
    soma_text *text; // the folder, as a policy would name it
    if (soma__text_open(&text, TOKENIZERS "/qwen2", &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__text_id(text, "<|im_end|>"), 151645);
    soma__text_close(text);
}

// The file is published compressed; gzip is asked to open it.
static void test_clip(void **state) {
    need_unicode();
    if (!soma__file_exists(TOKENIZERS "/clip_bpe/bpe_simple_vocab_16e6.txt.gz")) skip();
    FILE *pipe = popen("gzip -dc '" TOKENIZERS "/clip_bpe/bpe_simple_vocab_16e6.txt.gz'", "r");
    static char bytes[4 << 20];
    size_t size = pipe ? fread(bytes, 1, sizeof bytes, pipe) : 0;
    if (!pipe || pclose(pipe) || size < 1000000) skip();
    soma_tokenizer_json *json;
    soma_tokenizer *t;
    soma_error err = {0};
    if (soma__tokenizer_pair_parse(&json, (soma_bytes){0}, (soma_bytes){bytes, size}, (soma_bytes){0}, "clip", &err))
        fail_msg("%s", err.text);
    if (soma__tokenizer_new(&t, json, "clip", &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__tokenizer_size(t), 49408);
    check_real(t, "clip");
    soma__tokenizer_free(t);
    soma_text *text;
    if (soma__text_open_bytes(&text, bytes, size, "bpe_simple_vocab_16e6.txt", &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__text_size(text), 49408);
    soma__text_close(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_clip),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
