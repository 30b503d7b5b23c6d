// SPDX-License-Identifier: Apache-2.0
// The word vocabulary: splitting, determinism, the file and back, and every way in which the file can be wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "text/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const prompts[] = {"Touch the red cube", "touch the GREEN cube.", "touch the blue cube", "put it into the bowl"};

static soma_text *make(void) {
    soma_text *text = NULL;
    soma_error err = {0};
    if (soma__text_from_prompts(&text, prompts, 4, &err)) fail_msg("%s", err.text);
    return text;
}

static void test_ids(void **state) {
    soma_text *text = make();
    int32_t ids[16];
    size_t n;
    assert_int_equal(soma__text_id(text, "<pad>"), 0);
    assert_int_equal(soma__text_id(text, "<eos>"), 1);
    assert_int_equal(soma__text_id(text, "<bos>"), 2);
    assert_int_equal(soma__text_id(text, "<unk>"), 3);
    assert_int_equal(soma__text_id(text, "purple"), -1);
    assert_int_equal(soma__text_id(text, "Red"), -1); // exactly as the vocabulary writes it
    assert_int_equal(soma__text_id(text, ""), -1);
    assert_true(soma__text_id(text, "blue") < soma__text_id(text, "red")); // sorted
    assert_int_equal(soma__text_encode(text, "  TOUCH the\tpurple cube.\n", true, ids, 16, &n, NULL), SOMA_OK);
    assert_int_equal(n, 7);
    assert_int_equal(ids[0], 2);
    assert_int_equal(ids[1], soma__text_id(text, "touch"));
    assert_int_equal(ids[3], 3);
    assert_int_equal(ids[4], soma__text_id(text, "cube"));
    assert_int_equal(ids[5], soma__text_id(text, "."));
    assert_int_equal(ids[6], soma__text_id(text, "\n"));
    for (size_t i = 0; i < n; i++) assert_in_range(ids[i], 0, soma__text_size(text) - 1);
    // the numbers of a state need no words of their own
    assert_int_equal(soma__text_encode(text, "255 -1", false, ids, 16, &n, NULL), SOMA_OK);
    assert_int_equal(n, 5);
    for (size_t i = 0; i < n; i++) assert_int_not_equal(ids[i], 3);
    soma__text_close(text);
}

static void test_room(void **state) {
    soma_text *text = make();
    int32_t ids[4] = {-7, -7, -7, -7};
    size_t n;
    assert_int_equal(soma__text_encode(text, "touch the red cube", true, ids, 2, &n, NULL), SOMA_OK);
    assert_int_equal(n, 5);
    assert_int_equal(ids[0], 2);
    assert_int_equal(ids[1], soma__text_id(text, "touch"));
    assert_int_equal(ids[2], -7);
    assert_int_equal(soma__text_encode(text, "touch the red cube", true, NULL, 0, &n, NULL), SOMA_OK);
    assert_int_equal(n, 5);
    assert_int_equal(soma__text_encode(text, "", false, NULL, 0, &n, NULL), SOMA_OK);
    assert_int_equal(n, 0);
    soma__text_close(text);
}

static void test_decode(void **state) {
    soma_text *text = make();
    int32_t ids[16];
    size_t n;
    soma_str s = {0};
    soma_error err = {0};
    assert_int_equal(soma__text_encode(text, "Put the violet bowl", true, ids, 16, &n, NULL), SOMA_OK);
    ids[n++] = 0;
    assert_int_equal(soma__text_decode(text, ids, n, &s, &err), SOMA_OK);
    assert_string_equal(s.text, "put the <unk> bowl");
    ids[1] = soma__text_size(text);
    assert_int_equal(soma__text_decode(text, ids, n, &s, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "outside the vocabulary"));
    soma__str_free(&s);
    soma__text_close(text);
}

// Order and repetition of the prompts make no difference, and the file gives the same ids back.
static void test_same_file(void **state) {
    const char *const shuffled[] = {"put it into the bowl", "touch the blue cube", "touch the blue cube", "touch the green cube.",
                                    "touch the red cube"};
    char dir[] = "/tmp/soma_words_XXXXXX", a[64], b[64];
    assert_non_null(mkdtemp(dir));
    snprintf(a, sizeof a, "%s/vocab.json", dir);
    snprintf(b, sizeof b, "%s/again.json", dir);
    soma_text *one = make(), *two, *read;
    soma_error err = {0};
    assert_int_equal(soma__text_from_prompts(&two, shuffled, 5, &err), SOMA_OK);
    assert_int_equal(soma__text_save(one, a, &err), SOMA_OK);
    assert_int_equal(soma__text_save(two, b, &err), SOMA_OK);
    char *text_a, *text_b;
    size_t size_a, size_b;
    assert_int_equal(soma__file_read(&text_a, &size_a, a, 1 << 20, &err), SOMA_OK);
    assert_int_equal(soma__file_read(&text_b, &size_b, b, 1 << 20, &err), SOMA_OK);
    assert_int_equal(size_a, size_b);
    assert_memory_equal(text_a, text_b, size_a);
    if (soma__text_open(&read, dir, &err)) fail_msg("%s", err.text); // finds vocab.json in the folder
    assert_int_equal(soma__text_size(read), soma__text_size(one));
    assert_int_equal(soma__text_id(read, "green"), soma__text_id(one, "green"));
    soma__free(text_a);
    soma__free(text_b);
    soma__text_close(one);
    soma__text_close(two);
    soma__text_close(read);
    assert_int_equal(soma__dir_remove(dir, &err), SOMA_OK);
}

static void test_bad_files(void **state) {
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"{", "not valid JSON"},
        {"{}", "\"type\" is missing"},
        {"{\"type\":\"bpe\",\"words\":[]}", "type \"words\""},
        {"{\"type\":\"words\"}", "\"words\" is missing"},
        {"{\"type\":\"words\",\"words\":{}}", "must be a list"},
        {"{\"type\":\"words\",\"words\":[\"a\",7]}", "words[1] is not a string"},
        {"{\"type\":\"words\",\"words\":[\"a\",\"\"]}", "words[1]"},
        {"{\"type\":\"words\",\"words\":[\"a\",\"b c\"]}", "\"b c\""},
        {"{\"type\":\"words\",\"words\":[\"Red\"]}", "\"Red\""},
        {"{\"type\":\"words\",\"words\":[\"12\"]}", "\"12\""},
        {"{\"type\":\"words\",\"words\":[\" a\"]}", "\" a\""},
        {"{\"type\":\"words\",\"words\":[\"a\",\"b\",\"a\"]}", "\"a\" stands twice"},
    };
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        soma_text *text = (soma_text *)1;
        soma_error err = {0};
        assert_int_not_equal(soma__text_open_bytes(&text, cases[i].json, strlen(cases[i].json), "dir/vocab.json", &err), SOMA_OK);
        assert_null(text);
        if (!strstr(err.text, cases[i].says) || !strstr(err.text, "dir/vocab.json")) fail_msg("case %zu: %s", i, err.text);
    }
    soma_text *text;
    soma_error err = {0};
    const char *const latin[] = {"touch the red cube", "\xd6"
                                                       "ffne"};
    assert_int_equal(soma__text_from_prompts(&text, latin, 2, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "prompt 1 is not UTF-8"));
    assert_int_equal(soma__text_open(&text, "/nonexistent/vocab.json", &err), SOMA_NOT_FOUND);
    assert_int_equal(soma__text_open(&text, SOMA_SOURCE_DIR "/src/text", &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "no text tokenizer here"));
    assert_non_null(strstr(err.text, "paligemma_tokenizer.model"));
    assert_non_null(strstr(err.text, "--text-tokenizer"));
}

// Each allocation fails once; what is half-made must be released (the sanitizers see to that) and the code must say so.
static void test_no_memory(void **state) {
    static const char json[] = "{\"type\":\"words\",\"words\":[\"a\",\"b\",\"c\"]}";
    int failed = 0;
    for (int n = 0; n < 40; n++) {
        soma_text *text = NULL;
        soma_error err = {0};
        soma__alloc_fail_after(n);
        soma_status made =
            n % 2 ? soma__text_from_prompts(&text, prompts, 4, &err) : soma__text_open_bytes(&text, json, sizeof json - 1, "v.json", &err);
        soma__alloc_fail_after(-1);
        assert_true(made == SOMA_OK || made == SOMA_NO_MEMORY);
        assert_true((made == SOMA_OK) == (text != NULL));
        failed += made != SOMA_OK;
        soma__text_close(text);
    }
    assert_in_range(failed, 4, 39);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),       cmocka_unit_test(test_room),      cmocka_unit_test(test_decode),
        cmocka_unit_test(test_same_file), cmocka_unit_test(test_bad_files), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
