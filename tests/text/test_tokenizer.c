// SPDX-License-Identifier: Apache-2.0
// tokenizer.json: every way in which a file can be wrong, merging against the plain definition, text that is no text, where a policy's
// tokenizer is looked for, memory that runs out. That the ids are right is shown in tests/golden/test_tokenizer_golden.c.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "text/bpe.h"
#include "text/bpe_split.h"
#include "text/text.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// `"merges"` of the model, and what stands beside the model
#define FILE_WITH(merges, rest)                                                                                                        \
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"c\": 3, \"bc\": 4, \"abc\": 5}, \"merges\": " merges \
    "}" rest "}"
#define MERGES "[\"a b\", [\"b\", \"c\"], \"ab c\"]"

static soma_tokenizer *open_text(const char *json) {
    soma_tokenizer_json *j;
    soma_tokenizer *t = NULL;
    soma_error err = {0};
    if (soma__tokenizer_json_parse(&j, json, strlen(json), "f.json", &err)) fail_msg("%s", err.text);
    if (soma__tokenizer_new(&t, j, "f.json", &err)) fail_msg("%s", err.text);
    return t;
}

static soma_status try_text(const char *json, size_t size, soma_error *err) {
    soma_tokenizer_json *j;
    soma_tokenizer *t = NULL;
    soma_status status = soma__tokenizer_json_parse(&j, json, size, "f.json", err);
    if (status == SOMA_OK) status = soma__tokenizer_new(&t, j, "f.json", err);
    soma__tokenizer_free(t);
    return status;
}

// ---- files

static void test_bad_files(void **state) {
#define MODEL(inside) "{\"model\": {" inside "}}"
#define VOCAB "\"vocab\": {\"a\": 0, \"b\": 1}"
    static const struct {
        const char *json, *says;
        soma_status status;
    } cases[] = {
        {"", "an object is expected", SOMA_BAD_INPUT},
        {"[]", "an object is expected", SOMA_BAD_INPUT},
        {"{}", "this is no tokenizer.json", SOMA_BAD_INPUT},
        {"{\"model\": 7}", "this is no tokenizer.json", SOMA_BAD_INPUT},
        {"{\"model\": {}, \"model\": {}}", "\"model\" stands twice", SOMA_BAD_INPUT},
        {"{\"model\": {}} x", "more behind the end", SOMA_BAD_INPUT},
        {"{\"model\": {},}", "a comma with nothing behind it", SOMA_BAD_INPUT},
        {"{\"x\": [1 2]}", "',' or ']'", SOMA_BAD_INPUT},
        {"{\"x\": 01}", "',' or '}'", SOMA_BAD_INPUT},
        {"{\"x\": -}", "a number is expected", SOMA_BAD_INPUT},
        {"{\"x\": nul}", "a value is expected", SOMA_BAD_INPUT},
        {"{\"x\" 1}", "':' is expected", SOMA_BAD_INPUT},
        {"{\"x\": \"\\ud800\"}", "surrogate", SOMA_BAD_INPUT},
        {"{\"x\": \"\\q\"}", "unknown escape", SOMA_BAD_INPUT},
        {"{\"x\": \"a\nb\"}", "line 2: a control character", SOMA_BAD_INPUT},
        {"{\n\"x\": \"\xff\"}", "line 2: a string that is not UTF-8", SOMA_BAD_INPUT},
        {"{\"x\": \"abc", "ends inside a string", SOMA_BAD_INPUT},
        {MODEL("\"type\": \"Unigram\", \"vocab\": [[\"a\", -1.5]]"), "type \"Unigram\"", SOMA_UNSUPPORTED},
        {MODEL("\"type\": \"WordPiece\", \"vocab\": {}"), "type \"WordPiece\"", SOMA_UNSUPPORTED},
        {MODEL("\"type\": \"BPE\", \"merges\": []"), "no \"vocab\"", SOMA_BAD_INPUT},
        {MODEL("\"type\": \"BPE\", " VOCAB), "no \"merges\"", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {}, \"merges\": []"), "a vocabulary without pieces", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": [], \"merges\": []"), "an object is expected", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {\"a\": 0, \"a\": 0}, \"merges\": []"), "\"a\" stands twice", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {\"a\": 0, \"a\": 1}, \"merges\": []"), "the ids 0 and 1", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []"), "id 0 is given to \"a\" and to \"b\"", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {\"\": 0}, \"merges\": []"), "a piece without characters", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {\"a\": -1}, \"merges\": []"), "outside 0 to 4194303", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {\"a\": 99999999999999999999999}, \"merges\": []"), "outside 0 to", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {\"a\": 4194304}, \"merges\": []"), "outside 0 to", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {\"a\": 1.5}, \"merges\": []"), "a whole number", SOMA_BAD_INPUT},
        {MODEL("\"vocab\": {\"a\": \"0\"}, \"merges\": []"), "a whole number", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [\"a b\"]"), "merge 0 joins \"a\" and \"b\": the result is not", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [\"x b\"]"), "the first is not", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [[\"a\", \"x\"]]"), "the second is not", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [\"ab\"]"), "not two pieces", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [\"a b c\"]"), "not two pieces", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [\" b\"]"), "not two pieces", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [\"a \"]"), "not two pieces", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [[\"a\"]]"), "a pair of pieces", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [[\"a\", \"b\", \"c\"]]"), "a pair of pieces", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [7]"), "a string is expected", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": {}"), "a list is expected", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [], \"dropout\": 0.1"), "\"dropout\"", SOMA_UNSUPPORTED},
        {MODEL(VOCAB ", \"merges\": [], \"continuing_subword_prefix\": \"##\""), "\"##\"", SOMA_UNSUPPORTED},
        {MODEL(VOCAB ", \"merges\": [], \"unk_token\": \"<unk>\""), "\"<unk>\" is not in", SOMA_BAD_INPUT},
        {MODEL(VOCAB ", \"merges\": [], \"byte_fallback\": 1"), "true or false", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"added_tokens\": {}"), "neither null nor a list", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"added_tokens\": [{\"id\": 9}]"), "\"content\" is missing", SOMA_NOT_FOUND},
        {FILE_WITH(MERGES, ", \"added_tokens\": [{\"id\": -9, \"content\": \"x\"}]"), "\"id\" is -9", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"added_tokens\": [{\"id\": 9, \"content\": \"a\"}]"), "\"a\" has the ids 0 and 9", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"added_tokens\": [{\"id\": 1, \"content\": \"x\"}]"), "id 1 is given to", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"added_tokens\": [{\"id\": 9, \"content\": \"\"}]"), "without characters", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"normalizer\": \"NFC\""), "neither null nor an object", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"normalizer\": {}"), "\"type\" is missing", SOMA_NOT_FOUND},
        {FILE_WITH(MERGES, ", \"normalizer\": {\"type\": \"Precompiled\"}"), "the normaliser \"Precompiled\"", SOMA_UNSUPPORTED},
        {FILE_WITH(MERGES, ", \"normalizer\": {\"type\": \"Sequence\"}"), "a Sequence without", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a+\"}, \"content\": \"\"}"), "\"a+\"",
         SOMA_UNSUPPORTED},
        {FILE_WITH(MERGES, ", \"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"x\"}"),
         "one \"String\"", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}"), "\"BertPreTokenizer\"", SOMA_UNSUPPORTED},
        {FILE_WITH(MERGES, ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\w+\"}, \"behavior\": \"Isolated\"}"),
         "\"\\w+\"", SOMA_UNSUPPORTED},
        {FILE_WITH(MERGES, ", \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\"}"), "Metaspace", SOMA_UNSUPPORTED},
        {FILE_WITH(MERGES, ", \"post_processor\": {\"type\": \"RobertaProcessing\", \"cls\": [\"x\", 77], \"sep\": [\"a\", 0]}"),
         "outside the vocabulary", SOMA_BAD_INPUT},
        {FILE_WITH(MERGES, ", \"decoder\": {\"type\": \"WordPiece\"}"), "\"WordPiece\"", SOMA_UNSUPPORTED},
    };
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        soma_error err = {0};
        soma_status status = try_text(cases[i].json, strlen(cases[i].json), &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].says) || !strstr(err.text, "f.json"))
            fail_msg("case %zu (%s): %s: %s", i, cases[i].json, soma_status_word(status), err.text);
    }
}

static void test_cut_short(void **state) {
    static const char whole[] =
        FILE_WITH(MERGES, ", \"added_tokens\": [{\"id\": 6, \"content\": \"<x>\"}], \"decoder\": {\"type\": \"Fuse\"}");
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        soma_error err = {0};
        if (try_text(whole, len, &err) == SOMA_OK || !strstr(err.text, "f.json")) fail_msg("%zu bytes: %s", len, err.text);
    }
    assert_int_equal(try_text(whole, sizeof whole - 1, NULL), SOMA_OK);
}

// Brackets without end, and a vocabulary that claims the largest id.
static void test_huge(void **state) {
    soma_str deep = {0};
    soma_error err = {0};
    soma__str_add(&deep, "{\"x\": ");
    for (int i = 0; i < 100000; i++) soma__str_add(&deep, "[");
    assert_int_equal(try_text(deep.text, deep.len, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "more than 64 levels"));
    soma__str_free(&deep);
    soma_tokenizer *t = open_text("{\"model\": {\"vocab\": {\"a\": 4194303}, \"merges\": []}}");
    int32_t id = 5;
    size_t n;
    assert_int_equal(soma__tokenizer_size(t), 4194304);
    assert_int_equal(soma__tokenizer_encode(t, "a", 1, 0, &id, 1, &n, &err), SOMA_OK);
    assert_int_equal(id, 4194303);
    id = 4;
    soma_str s = {0};
    assert_int_equal(soma__tokenizer_decode(t, &id, 1, &s, &err), SOMA_BAD_INPUT); // below the size, and no piece
    soma__tokenizer_free(t);
}

// ---- merging

// The definition, word for word: the lowest rank first, of equal ones the leftmost.
static size_t merge_plainly(const soma_merge *merges, size_t n_merges, int32_t *ids, size_t n) {
    for (;;) {
        size_t best = n_merges, at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t m = 0; m < best; m++)
                if (merges[m].left == ids[i] && merges[m].right == ids[i + 1]) best = m, at = i;
        if (best == n_merges) return n;
        ids[at] = merges[best].merged;
        memmove(&ids[at + 1], &ids[at + 2], (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void test_merges(void **state) {
    enum { SYMBOLS = 4, MERGED = 60, LEN = 300 };
    soma_rng rng = soma__rng(11);
    for (int round = 0; round < 200; round++) {
        soma_merge merges[MERGED];
        for (int m = 0; m < MERGED; m++)
            merges[m] = (soma_merge){(int32_t)soma__rng_below(&rng, (uint64_t)SYMBOLS + (uint64_t)m),
                                     (int32_t)soma__rng_below(&rng, (uint64_t)SYMBOLS + (uint64_t)m), SYMBOLS + m};
        for (int m = 1; m < MERGED; m++) // of a pair that stands twice the later rank holds; the definition above takes the earlier
            for (int k = 0; k < m; k++)
                if (merges[k].left == merges[m].left && merges[k].right == merges[m].right) merges[k].left = -1;
        soma_bpe bpe;
        assert_int_equal(soma__bpe_init(&bpe, merges, MERGED, NULL), SOMA_OK);
        for (size_t len = 0; len <= LEN; len += len < 60 ? 1 : 40) {
            int32_t ids[LEN], wanted[LEN];
            for (size_t i = 0; i < len; i++) ids[i] = wanted[i] = (int32_t)soma__rng_below(&rng, SYMBOLS);
            size_t n = len, n_wanted = merge_plainly(merges, MERGED, wanted, len);
            assert_int_equal(soma__bpe_merge(&bpe, ids, &n, NULL), SOMA_OK);
            assert_int_equal(n, n_wanted);
            assert_memory_equal(ids, wanted, n * sizeof *ids);
        }
        soma__bpe_free(&bpe);
    }
}

// ---- cutting

static void check_words(const soma_split *rule, const char *text, const char *wanted) {
    soma_str got = {0};
    bool dropped;
    for (const char *s = text, *end = s + strlen(s); s < end;) {
        size_t n = soma__split_next(rule, s, end, &dropped);
        assert_true(n > 0 && n <= (size_t)(end - s));
        if (!dropped) soma__str_printf(&got, "%s%.*s", got.len ? "|" : "", (int)n, s);
        s += n;
    }
    assert_string_equal(got.text, wanted);
    soma__str_free(&got);
}

static void test_words(void **state) {
    soma_split runs = soma__split_at_mark(SOMA_SPLIT_RUNS, "_"), before = soma__split_at_mark(SOMA_SPLIT_BEFORE, "_"),
               after = soma__split_at_mark(SOMA_SPLIT_AFTER, "_");
    check_words(&runs, "__a_b__c_", "__a|_b|__c|_");
    check_words(&before, "__a_b__c_", "_|_a|_b|_|_c|_");
    check_words(&after, "__a_b__c_", "_|_|a_|b_|_|c_");
#ifdef SOMA_UTF8PROC
    check_words(&soma__split_gpt2, "I'll can't 'S  12a,  x\n\n  y ", "I|'ll| can|'t| '|S| | 12|a|,| | x|\n\n | y| ");
    check_words(&soma__split_qwen2, "I'LL 12a,\n\n  x\n\n  y ", "I|'LL| |1|2|a|,\n\n| | x|\n\n| | y| ");
    check_words(&soma__split_llama3, "1234567 a", "123|456|7| a");
    check_words(&soma__split_clip, " it's 42!! ok\n", "it|'s|4|2|!!|ok");
    check_words(&soma__split_gpt2, "\xc3\xa4\xc3\xb6 \xe8\xb5\xa4\xe3\x80\x82\xc2\xbd",
                "\xc3\xa4\xc3\xb6| \xe8\xb5\xa4|\xe3\x80\x82|\xc2\xbd");
#endif
    assert_null(soma__split_from_regex("\\w+"));
    assert_null(soma__split_from_regex(""));
}

// ---- texts

static void encode(const soma_tokenizer *t, const char *s, size_t len, const int32_t *wanted, size_t n_wanted) {
    int32_t ids[64];
    size_t n;
    soma_error err = {0};
    if (soma__tokenizer_encode(t, s, len, 0, ids, 64, &n, &err)) fail_msg("%s", err.text);
    assert_int_equal(n, n_wanted);
    assert_memory_equal(ids, wanted, n * sizeof *ids);
}

static void test_texts(void **state) {
    soma_tokenizer *t =
        open_text("{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\\u0000\": 3, \"\\ufffd\": 4, \"<u>\": 5}, \"merges\": "
                  "[\"a b\"], \"unk_token\": \"<u>\"}, \"added_tokens\": [{\"id\": 7, \"content\": \"<image>\"}]}");
    encode(t, "ab\0ab", 5, (const int32_t[]){2, 3, 2}, 3); // a zero is a character
    encode(t,
           "a\xff\xe2\x82"
           "b",
           5, (const int32_t[]){0, 4, 4, 1}, 4); // damaged parts become U+FFFD
    encode(t, "axyb", 4, (const int32_t[]){0, 5, 5, 1}, 4);
    encode(t, "", 0, NULL, 0);
    encode(t, "a<image>b", 9, (const int32_t[]){0, 7, 1}, 3);
    // less room than needed: the front of the same ids and the count of all
    int32_t ids[4] = {-5, -5, -5, -5};
    size_t n;
    assert_int_equal(soma__tokenizer_encode(t, "aaa", 3, 0, ids, 2, &n, NULL), SOMA_OK);
    assert_int_equal(n, 3);
    assert_int_equal(ids[2], -5);
    assert_int_equal(soma__tokenizer_encode(t, "aaa", 3, 0, NULL, 0, &n, NULL), SOMA_OK);
    soma_error err = {0};
    assert_int_equal(soma__tokenizer_encode(t, "a", 1, SOMA_MARKS_FRONT, ids, 4, &n, &err), SOMA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "no mark"));
    // a model with 7 rows: the added token is no longer looked for
    assert_int_equal(soma__tokenizer_size(t), 8);
    soma__tokenizer_limit(t, 7);
    assert_int_equal(soma__tokenizer_size(t), 7);
    assert_int_equal(soma__tokenizer_id(t, "<image>", 7), -1);
    encode(t, "a<image>b", 9, (const int32_t[]){0, 5, 5, 5, 0, 5, 5, 5, 1}, 9);
    soma__tokenizer_free(t);
}

static void test_limit(void **state) {
    static const char json[] = FILE_WITH(MERGES, "");
    soma_text *text;
    soma_error err = {0};
    assert_int_equal(soma__text_open_bytes(&text, json, sizeof json - 1, "f.json", &err), SOMA_OK);
    assert_int_equal(soma__text_limit(text, 6, "config.json", &err), SOMA_OK);
    assert_int_equal(soma__text_limit(text, 5, "config.json", &err), SOMA_BAD_INPUT); // no added token: a piece cannot go
    assert_non_null(strstr(err.text, "config.json: the vocabulary has 6 entries, the model's table 5"));
    assert_int_equal(soma__text_save(text, "/tmp/never", &err), SOMA_UNSUPPORTED);
    soma__text_close(text);
}

// ---- where it is looked for

static void put(const char *dir, const char *folder, const char *name, const char *bytes) {
    char path[SOMA_PATH_MAX], file[SOMA_PATH_MAX];
    assert_int_equal(soma__path_join(path, dir, folder, NULL), SOMA_OK);
    assert_int_equal(soma__dir_make(path, NULL), SOMA_OK);
    assert_int_equal(soma__path_join(file, path, name, NULL), SOMA_OK);
    assert_int_equal(soma__file_write(file, bytes, strlen(bytes), NULL), SOMA_OK);
}

static void found_in(const char *dir, const char *wanted) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    if (soma__text_find(path, dir, &err)) fail_msg("%s", err.text);
    assert_string_equal(path + strlen(dir) + 1, wanted);
}

static void test_find(void **state) {
    char dir[] = "/tmp/soma_text_XXXXXX", path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_text *text;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(soma__text_find(path, dir, &err), SOMA_NOT_FOUND);
    assert_int_equal(soma__text_copy(dir, dir, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "--text-tokenizer"));
    put(dir, "assets", "paligemma_tokenizer.model", "x");
    found_in(dir, "assets/paligemma_tokenizer.model");
    put(dir, "tokenizer", "tokenizer.json", FILE_WITH(MERGES, ""));
    found_in(dir, "tokenizer/tokenizer.json");
    assert_int_equal(soma__text_open(&text, dir, &err), SOMA_OK);
    assert_int_equal(soma__text_size(text), 6);
    soma__text_close(text);
    // an action tokenizer in the checkpoint's folder is passed over
    put(dir, "", "tokenizer.json", FILE_WITH(MERGES, ""));
    found_in(dir, "tokenizer.json");
    put(dir, "", "processor_config.json", "{\"min_token\": -354}");
    found_in(dir, "tokenizer/tokenizer.json");
    // a vocabulary of pieces needs its merges
    put(dir, "tokenizer/pair", "vocab.json", "{\"a\": 0, \"b\": 1, \"ab\": 2}");
    assert_int_equal(soma__path_join(path, dir, "tokenizer/pair/vocab.json", NULL), SOMA_OK);
    assert_int_equal(soma__text_open(&text, path, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "merges.txt"));
    put(dir, "tokenizer/pair", "merges.txt", "#version: 0.2\na b\n\n");
    put(dir, "tokenizer/pair", "tokenizer_config.json", "{\"tokenizer_class\": \"ByT5Tokenizer\"}");
    assert_int_equal(soma__text_open(&text, path, &err), SOMA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "\"ByT5Tokenizer\""));
#ifdef SOMA_UTF8PROC
    put(dir, "tokenizer/pair", "tokenizer_config.json",
        "{\"tokenizer_class\": \"GPT2Tokenizer\", \"added_tokens_decoder\": {\"3\": {\"content\": \"<end>\", \"special\": true}}}");
    if (soma__text_open(&text, path, &err)) fail_msg("%s", err.text);
    int32_t ids[4];
    size_t n;
    assert_int_equal(soma__text_encode(text, "ab<end>", false, ids, 4, &n, &err), SOMA_OK);
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], 2);
    assert_int_equal(ids[1], 3);
    soma__text_close(text);
    // what is copied opens as before
    char pair[SOMA_PATH_MAX], copy[SOMA_PATH_MAX];
    assert_int_equal(soma__path_join(pair, dir, "tokenizer/pair", NULL), SOMA_OK);
    assert_int_equal(soma__path_join(copy, dir, "copy", NULL), SOMA_OK);
    put(dir, "copy", "config.json", "{}");
    assert_int_equal(soma__text_copy(pair, copy, &err), SOMA_OK);
    if (soma__text_open(&text, copy, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__text_id(text, "<end>"), 3);
    soma__text_close(text);
    put(dir, "tokenizer/pair", "merges.txt", "a x\n");
    assert_int_equal(soma__text_open(&text, path, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "vocab.json"));
#endif
    put(dir, "tokenizer/pair", "tokenizer_config.json", "{\"tokenizer_class\": \"GPT2Tokenizer\", \"added_tokens_decoder\": {\"x\": {}}}");
    assert_int_equal(soma__text_open(&text, path, &err), SOMA_BAD_INPUT);
    assert_int_equal(soma__dir_remove(dir, NULL), SOMA_OK);
}

// ---- memory

static void test_no_memory(void **state) {
    static const char json[] =
        FILE_WITH(MERGES, ", \"added_tokens\": [{\"id\": 6, \"content\": \"A b\", \"normalized\": true}], \"normalizer\": "
                          "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"c\"}");
    int failed = 0;
    for (int n = 0; n < 200; n++) {
        soma_text *text = NULL;
        soma_error err = {0};
        soma_str out = {0};
        int32_t ids[400];
        size_t n_ids = 0;
        uint64_t before = soma__alloc_count();
        soma__alloc_fail_after(n);
        soma_status status = soma__text_open_bytes(&text, json, sizeof json - 1, "f.json", &err);
        if (status == SOMA_OK)
            status = soma__text_encode(text,
                                       "abcabc A b abc\xff "
                                       "bcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabca"
                                       "bcabcabcabcabcabcabcabcabcabc",
                                       false, ids, 400, &n_ids, &err);
        if (status == SOMA_OK) status = soma__text_decode(text, ids, n_ids, &out, &err);
        soma__alloc_fail_after(-1);
        bool fired = soma__alloc_count() - before > (uint64_t)n;
        if (fired != (status != SOMA_OK)) fail_msg("allocation %d: %s", n, err.text);
        if (fired) assert_int_equal(status, SOMA_NO_MEMORY);
        failed += fired;
        soma__str_free(&out);
        soma__text_close(text);
    }
    assert_true(failed > 10 && failed < 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_files), cmocka_unit_test(test_cut_short), cmocka_unit_test(test_huge),
        cmocka_unit_test(test_merges),    cmocka_unit_test(test_words),     cmocka_unit_test(test_texts),
        cmocka_unit_test(test_limit),     cmocka_unit_test(test_find),      cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
