// SPDX-License-Identifier: Apache-2.0
// SentencePiece models against ids from the reference tokenizers. The models are other people's files: the cases are skipped without them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "text/prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENIZERS SOMA_SOURCE_DIR "/../shared/data/tokenizers"
#define LLAMA TOKENIZERS "/llama2/tokenizer.model"
#define UNIGRAM TOKENIZERS "/sentencepiece_test/test_model.model"

static soma_text *open_or_skip(const char *path) {
    soma_text *text = NULL;
    soma_error err = {0};
#ifdef SOMA_SENTENCEPIECE
    if (!soma__file_exists(path)) skip();
    if (soma__text_open(&text, path, &err)) fail_msg("%s", err.text);
#else
    assert_int_equal(soma__text_open_bytes(&text, "\n", 1, "tokenizer.model", &err), SOMA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "without SentencePiece"));
    skip();
#endif
    return text;
}

static void check_ids(const soma_text *text, const char *input, const json_t *wanted, bool add_bos) {
    int32_t ids[1024];
    size_t n;
    soma_error err = {0};
    if (soma__text_encode(text, input, add_bos, ids, SOMA_COUNT(ids), &n, &err)) fail_msg("%s", err.text);
    if (n != json_array_size(wanted)) fail_msg("\"%s\": %zu ids, wanted %zu", input, n, json_array_size(wanted));
    for (size_t i = 0; i < n; i++)
        if (ids[i] != json_integer_value(json_array_get(wanted, i))) fail_msg("\"%s\": id %zu is %d", input, i, ids[i]);
}

static void check_text(const soma_text *text, const json_t *ids, const char *wanted) {
    int32_t list[1024];
    size_t n = json_array_size(ids);
    assert_true(n <= SOMA_COUNT(list));
    for (size_t i = 0; i < n; i++) list[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    soma_str s = {0};
    soma_error err = {0};
    if (soma__text_decode(text, list, n, &s, &err)) fail_msg("%s", err.text);
    assert_string_equal(s.text, wanted);
    soma__str_free(&s);
}

static void test_llama_ids(void **state) {
    soma_text *text = open_or_skip(LLAMA);
    json_t *root;
    soma_error err = {0};
    size_t i, n = 0;
    json_t *c;
    if (soma__json_load(&root, TOKENIZERS "/encoded_goldens/llama_encoded.json", &err)) fail_msg("%s", err.text);
    // the golden's pieces: ids follow from them, since every piece of a model is unique
    const json_t *pieces = json_object_get(root, "bpe_tokens"), *ids = json_object_get(root, "token_ids");
    const char *input = json_string_value(json_object_get(root, "text"));
    assert_true(json_array_size(pieces) > 100);
    size_t offset = json_array_size(ids) - json_array_size(pieces); // token_ids has the mark of begin in front
    assert_in_range(offset, 0, 1);
    check_ids(text, input, ids, offset == 1);
    json_array_foreach(pieces, i, c)
        assert_int_equal(soma__text_id(text, json_string_value(c)), json_integer_value(json_array_get(ids, i + offset)));
    json_decref(root);

    if (soma__json_load(&root, TOKENIZERS "/encoded_goldens/tokenizer_tests.json", &err)) fail_msg("%s", err.text);
    json_array_foreach(json_object_get(root, "coreml-projects/Llama-2-7b-chat-coreml"), i, c) {
        const json_t *wanted = json_object_get(json_object_get(c, "encoded"), "input_ids");
        check_ids(text, json_string_value(json_object_get(c, "input")), wanted, true);
        check_text(text, wanted, json_string_value(json_object_get(c, "decoded_without_special")));
        n++;
    }
    assert_true(n >= 15);
    json_decref(root);
    soma__text_close(text);
}

static void test_llama_details(void **state) {
    soma_text *text = open_or_skip(LLAMA);
    int32_t ids[8], more[32];
    size_t n, again;
    soma_error err = {0};
    assert_int_equal(soma__text_size(text), 32000);
    assert_int_equal(soma__text_id(text, "<s>"), 1);
    assert_int_equal(soma__text_id(text, "<unk>"), 0);
    assert_int_equal(soma__text_id(text, "no such piece"), -1);
    // less room than needed: the front of the same ids, and the count of all
    assert_int_equal(soma__text_encode(text, "pick up the blue cube and wait", true, more, 32, &n, &err), SOMA_OK);
    ids[3] = -5;
    assert_int_equal(soma__text_encode(text, "pick up the blue cube and wait", true, ids, 3, &again, &err), SOMA_OK);
    assert_int_equal(n, again);
    assert_true(n > 3);
    assert_memory_equal(ids, more, 3 * sizeof *ids);
    assert_int_equal(ids[3], -5);
    ids[0] = 32000;
    soma_str s = {0};
    assert_int_equal(soma__text_decode(text, ids, 1, &s, &err), SOMA_BAD_INPUT);
    assert_int_equal(soma__text_save(text, "/tmp/never", &err), SOMA_UNSUPPORTED);
    assert_int_equal(soma__text_encode(text, "\xff\xfe broken \xe2\x96", false, more, 32, &n, &err), SOMA_OK); // replaced, not refused
    soma__text_close(text);
}

// No ids were published for this model; what is encoded must come back, and the prompt form must end as it does for pi0.
static void test_unigram(void **state) {
    soma_text *text = open_or_skip(UNIGRAM);
    int32_t ids[200];
    uint8_t mask[200];
    size_t n;
    soma_str s = {0};
    soma_error err = {0};
    assert_int_equal(soma__text_size(text), 1000);
    assert_int_equal(soma__text_encode(text, "I saw a girl with a telescope.", false, ids, 200, &n, &err), SOMA_OK);
    assert_int_equal(soma__text_decode(text, ids, n, &s, &err), SOMA_OK);
    assert_string_equal(s.text, "I saw a girl with a telescope.");
    soma__str_free(&s);
    const double robot[] = {0, 1};
    assert_int_equal(soma__prompt_encode(text, SOMA_PROMPT_PI05, "saw a girl", robot, 2, ids, mask, 200, &n, &err), SOMA_OK);
    assert_int_equal(ids[0], soma__text_id(text, "<s>"));
    assert_int_equal(soma__text_decode(text, ids, n, &s, &err), SOMA_OK);
    assert_non_null(strstr(s.text, "saw a girl, State: 128 255;"));
    soma__str_free(&s);
    soma__text_close(text);
}

// Truncated and disfigured models are refused with a sentence that names the file, or load and then work.
static void test_damaged(void **state) {
    soma_text *text = open_or_skip(UNIGRAM);
    soma__text_close(text);
    char *bytes;
    size_t size, refused = 0, n;
    soma_error err = {0};
    int32_t ids[64];
    assert_int_equal(soma__file_read(&bytes, &size, UNIGRAM, 1 << 20, &err), SOMA_OK);
    for (size_t cut = 0; cut < size; cut += size / 40) {
        soma_status opened = soma__text_open_bytes(&text, bytes, cut, "cut.model", &err);
        if (opened == SOMA_OK)
            assert_int_equal(soma__text_encode(text, "a girl", false, ids, 64, &n, &err), SOMA_OK);
        else if (!strstr(err.text, "cut.model"))
            fail_msg("%s", err.text);
        refused += opened != SOMA_OK;
        soma__text_close(text);
    }
    assert_true(refused > 10);
    soma__free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_ids),
        cmocka_unit_test(test_llama_details),
        cmocka_unit_test(test_unigram),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
