// SPDX-License-Identifier: Apache-2.0
// Other people's vocabularies; every case is skipped where its files are absent.
//
// Llama 2's SentencePiece model is turned into the tokenizer.json that belongs to it (from llama2.c's list of its pieces), in the two forms
// that Llama and Gemma files have: both must give the ids of the reference and of the SentencePiece library. GPT-2's words are compared
// with the reference's. A user's PaliGemma tokenizer (any file that soma__text_find knows, in ../shared/data/tokenizers/paligemma, which is
// gated and therefore not there by itself) must give the ids that pi0's training saw (facts/pi0.md 3.2).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "text/bpe_split.h"
#include "text/prompt.h"
#include "text/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENIZERS SOMA_SOURCE_DIR "/../shared/data/tokenizers"
#define GOLDENS TOKENIZERS "/encoded_goldens"

// ---- Llama 2 as tokenizer.json

typedef struct piece {
    char text[64];
    int len, id;
    float score;
} piece;

typedef struct merge {
    int left, right, merged; // places in the list of pieces
    float score;
} merge;

enum { N_PIECES = 32000 };
static piece pieces[N_PIECES];
static int by_text[N_PIECES]; // sorted by their bytes

static int compare_text(const void *a, const void *b) { return strcmp(pieces[*(const int *)a].text, pieces[*(const int *)b].text); }

static int find_piece(const char *text, int len) {
    char key[64];
    memcpy(key, text, (size_t)len);
    key[len] = 0;
    int low = 0, high = N_PIECES;
    while (low < high) {
        int middle = (low + high) / 2, c = strcmp(pieces[by_text[middle]].text, key);
        if (c == 0) return by_text[middle];
        if (c < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

// tokenizer.bin: the longest piece's length, then {float score, int len, bytes} per piece, with the mark of a space turned into one.
static bool read_pieces(void) {
    char *bytes, *at;
    size_t size;
    if (soma__file_read(&bytes, &size, TOKENIZERS "/llama2/tokenizer.bin", 1 << 20, NULL)) return false;
    at = bytes + 4;
    for (int i = 0; i < N_PIECES; i++) {
        piece *p = &pieces[i];
        int len;
        memcpy(&p->score, at, 4);
        memcpy(&len, at + 4, 4);
        at += 8;
        p->id = i;
        p->len = 0;
        for (int k = 0; k < len; k++) {
            if (at[k] == ' ') memcpy(p->text + p->len, "\xe2\x96\x81", 3);
            if (at[k] != ' ') p->text[p->len] = at[k];
            p->len += at[k] == ' ' ? 3 : 1;
        }
        at += len;
        assert_true(p->len < 60 && at <= bytes + size);
        by_text[i] = i;
    }
    strcpy(pieces[1].text, "<s>"); // llama2.c writes them with newlines around
    strcpy(pieces[2].text, "</s>");
    qsort(by_text, N_PIECES, sizeof *by_text, compare_text);
    soma__free(bytes);
    return true;
}

static int by_rank(const void *a, const void *b) {
    const merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->merged != y->merged) return x->merged - y->merged;
    return x->left != y->left ? x->left - y->left : x->right - y->right;
}

// Every way in which two pieces make a third, the better scores first: what transformers does when it converts a model.
static size_t make_merges(merge *merges, size_t room) {
    size_t n = 0;
    for (int i = 3; i < N_PIECES; i++)
        for (int k = 1; k < pieces[i].len; k++) {
            int left = find_piece(pieces[i].text, k), right = find_piece(pieces[i].text + k, pieces[i].len - k);
            if (left < 0 || right < 0) continue;
            assert_true(n < room);
            merges[n++] = (merge){left, right, i, pieces[i].score};
        }
    qsort(merges, n, sizeof *merges, by_rank);
    return n;
}

static void add_quoted(soma_str *out, const char *s) {
    for (soma__str_add(out, "\""); *s; s++) {
        if (*s == '"' || *s == '\\') soma__str_add(out, "\\");
        if ((unsigned char)*s < 0x20)
            soma__str_printf(out, "\\u%04x", *s);
        else
            soma__str_add_bytes(out, s, 1);
    }
    soma__str_add(out, "\"");
}

// gemma: spaces become marks and nothing is put in front; else Llama's form.
static soma_text *open_json(bool gemma) {
    enum { ROOM = 200000 };
    merge *merges = soma__alloc(ROOM * sizeof *merges);
    soma_str s = {0};
    soma_text *text = NULL;
    soma_error err = {0};
    size_t n = make_merges(merges, ROOM);
    const char *replace = "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}";
    soma__str_add(&s, "{\"normalizer\": ");
    if (gemma)
        soma__str_printf(
            &s, "%s, \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, \"behavior\": \"MergedWithPrevious\"}",
            replace);
    else
        soma__str_printf(&s, "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}, %s]}",
                         replace);
    soma__str_add(
        &s, ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, {\"Sequence\": "
            "{\"id\": \"A\"}}], \"special_tokens\": {\"<s>\": {\"ids\": [1]}}}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": "
            "[{\"type\": \"Replace\", \"pattern\": {\"String\": \"\xe2\x96\x81\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, "
            "{\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}, \"added_tokens\": [");
    for (int i = 0; i < 3; i++)
        soma__str_printf(&s, "%s{\"id\": %d, \"content\": \"%s\", \"special\": true}", i ? ", " : "", i, pieces[i].text);
    soma__str_add(&s,
                  "], \"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", \"fuse_unk\": true, \"byte_fallback\": true, \"vocab\": {");
    for (int i = 0; i < N_PIECES; i++) {
        soma__str_add(&s, i ? ", " : "");
        add_quoted(&s, pieces[i].text);
        soma__str_printf(&s, ": %d", i);
    }
    soma__str_add(&s, "}, \"merges\": [");
    for (size_t i = 0; i < n; i++) {
        soma__str_add(&s, i ? ",[" : "[");
        add_quoted(&s, pieces[merges[i].left].text);
        soma__str_add(&s, ",");
        add_quoted(&s, pieces[merges[i].right].text);
        soma__str_add(&s, "]");
    }
    soma__str_add(&s, "]}}");
    if (soma__text_open_bytes(&text, s.text, s.len, "tokenizer.json", &err)) fail_msg("%s", err.text);
    soma__free(merges);
    soma__str_free(&s);
    return text;
}

static void check_ids(const soma_text *text, const char *input, const json_t *wanted, size_t from, bool add_bos) {
    int32_t ids[1024];
    size_t n;
    soma_error err = {0};
    if (soma__text_encode(text, input, add_bos, ids, SOMA_COUNT(ids), &n, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++)
        if (ids[i] != json_integer_value(json_array_get(wanted, i + from))) fail_msg("\"%s\": id %zu is %d", input, i, ids[i]);
    if (n != json_array_size(wanted) - from) fail_msg("\"%s\": %zu ids, wanted %zu", input, n, json_array_size(wanted) - from);
}

static void check_decoded(const soma_text *text, const json_t *ids, const char *wanted) {
    int32_t list[1024];
    size_t n = json_array_size(ids);
    soma_str s = {0};
    soma_error err = {0};
    assert_true(n <= SOMA_COUNT(list));
    for (size_t i = 0; i < n; i++) list[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    if (soma__text_decode(text, list, n, &s, &err)) fail_msg("%s", err.text);
    assert_string_equal(s.text, wanted);
    soma__str_free(&s);
}

// Both goldens of one model: its long text and its list of cases, there and (`back`) back. Returns how many agreed.
static size_t check_goldens(const soma_text *text, const char *file, const char *model, bool back) {
    json_t *root, *c;
    size_t i, n = 1;
    soma_error err = {0};
    if (soma__json_load(&root, file, &err)) fail_msg("%s", err.text);
    check_ids(text, json_string_value(json_object_get(root, "text")), json_object_get(root, "token_ids"), 0, true);
    json_decref(root);
    if (soma__json_load(&root, GOLDENS "/tokenizer_tests.json", &err)) fail_msg("%s", err.text);
    json_array_foreach(json_object_get(root, model), i, c) {
        const json_t *wanted = json_object_get(json_object_get(c, "encoded"), "input_ids");
        check_ids(text, json_string_value(json_object_get(c, "input")), wanted, 0, true);
        if (back) check_decoded(text, wanted, json_string_value(json_object_get(c, "decoded_without_special")));
        n++;
    }
    json_decref(root);
    return n;
}

static void test_llama(void **state) {
    if (!read_pieces()) skip();
    soma_text *text = open_json(false);
    assert_int_equal(soma__text_size(text), N_PIECES);
    assert_true(check_goldens(text, GOLDENS "/llama_encoded.json", "coreml-projects/Llama-2-7b-chat-coreml", true) >= 16);
    soma__text_close(text);
}

// Gemma's form puts nothing in front of a text: with the mark written out the ids are the library's.
static void test_gemma_form(void **state) {
#ifndef SOMA_SENTENCEPIECE
    skip();
#endif
    static const char *const texts[] = {
        "Task: pick up cube, State: 0 128 255;\nAction: ",
        "  two  and   three   spaces ",
        "\t\n\n",
        "caf\xc3\xa9 \xe8\xb5\xa4\xe3\x81\x84 \xf0\x9f\x99\x82\xf0\x9f\x91\x8d",
        "don't_stop-now (please) 3.14159 x2",
        "a",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    soma_text *model;
    soma_error err = {0};
    if (!read_pieces() || !soma__file_exists(TOKENIZERS "/llama2/tokenizer.model")) skip();
    soma_text *text = open_json(true);
    if (soma__text_open(&model, TOKENIZERS "/llama2/tokenizer.model", &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < SOMA_COUNT(texts); i++) {
        int32_t ids[256], wanted[256];
        size_t n, n_wanted;
        char marked[256];
        snprintf(marked, sizeof marked, "\xe2\x96\x81%s", texts[i]);
        assert_int_equal(soma__text_encode(text, marked, true, ids, 256, &n, &err), SOMA_OK);
        assert_int_equal(soma__text_encode(model, texts[i], true, wanted, 256, &n_wanted, &err), SOMA_OK);
        if (n != n_wanted || memcmp(ids, wanted, n * sizeof *ids)) fail_msg("\"%s\": %zu ids, the library has %zu", texts[i], n, n_wanted);
    }
    soma__text_close(model);
    soma__text_close(text);
}

// ---- GPT-2's words: the golden has them in GPT-2's alphabet, in which a character is a byte.
static void test_gpt2_words(void **state) {
#ifndef SOMA_UTF8PROC
    skip();
#endif
    if (!soma__file_exists(GOLDENS "/gpt2_encoded_tokens.json")) skip();
    json_t *root, *word;
    size_t i, len = 0;
    soma_error err = {0};
    if (soma__json_load(&root, GOLDENS "/gpt2_encoded_tokens.json", &err)) fail_msg("%s", err.text);
    const char *s = json_string_value(json_object_get(root, "text")), *end = s + strlen(s);
    json_array_foreach(json_object_get(root, "encoded_text"), i, word) {
        bool dropped;
        const char *wanted = json_string_value(word);
        for (len = 0; *wanted; wanted++) len += ((unsigned char)*wanted & 0xc0) != 0x80;
        assert_true(s < end);
        assert_int_equal(soma__split_next(&soma__split_gpt2, s, end, &dropped), len);
        assert_false(dropped);
        s += len;
    }
    assert_ptr_equal(s, end);
    json_decref(root);
}

// ---- PaliGemma
static void test_paligemma(void **state) {
    static const int32_t wanted[] = {2,      7071,   235292, 4788,   908,    28660,  235269, 3040,   235292, 235248, 235276, 235248,
                                     235274, 235284, 235321, 235248, 235284, 235308, 235308, 235289, 108,    4022,   235292, 235248};
    static const struct {
        const char *piece;
        int32_t id;
    } known[] = {{"<pad>", 0},     {"<eos>", 1},  {"<bos>", 2},          {"\n", 108},          {"Task", 7071},
                 {"Action", 4022}, {"|", 235371}, {"<loc0000>", 256000}, {"<loc1023>", 257023}};
    if (!soma__dir_exists(TOKENIZERS "/paligemma")) skip();
    soma_text *text;
    soma_error err = {0};
    int32_t ids[64];
    uint8_t mask[64];
    size_t n;
    if (soma__text_open(&text, TOKENIZERS "/paligemma", &err)) fail_msg("%s", err.text);
    if (soma__text_limit(text, 257152, "PaliGemma", &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < SOMA_COUNT(known); i++) assert_int_equal(soma__text_id(text, known[i].piece), known[i].id);
    const double robot[] = {-1, 0, 1};
    assert_int_equal(soma__prompt_encode(text, SOMA_PROMPT_PI05, "pick up cube", robot, 3, ids, mask, 64, &n, &err), SOMA_OK);
    assert_int_equal(n, SOMA_COUNT(wanted));
    assert_memory_equal(ids, wanted, sizeof wanted);
    assert_int_equal(soma__prompt_encode(text, SOMA_PROMPT_PI0, "pick up cube", NULL, 0, ids, mask, 64, &n, &err), SOMA_OK);
    assert_int_equal(ids[n - 1], 108);
    if (soma__file_exists(GOLDENS "/gemma_encoded.json")) // the first 256,000 ids are Gemma's
        assert_true(check_goldens(text, GOLDENS "/gemma_encoded.json", "pcuenq/gemma-tokenizer", false) >= 16);
    soma__text_close(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_gemma_form),
        cmocka_unit_test(test_gpt2_words),
        cmocka_unit_test(test_paligemma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
