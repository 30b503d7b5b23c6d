// SPDX-License-Identifier: Apache-2.0
// Prompt forms against the texts that openpi's own tokenizer code produced, and the rules on their own.
#include "golden/golden.h"

#include "base/json.h"
#include "text/answer.h"
#include "text/prompt.h"
#include "text/unicode.h"

static void check_clean(const char *given, const char *wanted) {
    soma_str s = {0};
    soma__prompt_clean(&s, given);
    assert_string_equal(s.text, wanted);
    soma__str_free(&s);
}

static void test_clean(void **state) {
    check_clean("", "");
    check_clean(" \n\t ", "");
    check_clean("  Pick_up THE\nblue_Cube \n", "Pick up THE blue Cube");
    check_clean("a_b__c", "a b  c");
    check_clean("\xc2\xa0\xe3\x80\x80 \xc3\x96"
                "ffne die T\xc3\xbcr\xe2\x80\xa9",
                "\xc3\x96"
                "ffne die T\xc3\xbcr");
    check_clean("_a_", " a ");     // stripped before '_' becomes a space
    check_clean("x\xa0", "x\xa0"); // a stray byte is no white space
    check_clean("x\xe2\x80", "x\xe2\x80");
}

static void test_bins(void **state) {
    static const struct {
        double x;
        int bin;
    } cases[] = {{-1.2, -1}, {-1, 0}, {-0.995, 0}, {0, 128}, {0.5, 192}, {0.9921875, 255}, {1, 255}, {3, 255}, {-0.0, 128}};
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) assert_int_equal(soma__prompt_bin(cases[i].x), cases[i].bin);
    for (int k = -127; k < 128; k++) { // each edge belongs to the bin above it, its neighbour below to the one under it
        assert_int_equal(soma__prompt_bin(k / 128.0), k + 128);
        assert_int_equal(soma__prompt_bin(nextafter(k / 128.0, -2)), k + 127);
    }
    assert_int_equal(soma__prompt_bin(nextafter(-1, -2)), -1);
    assert_int_equal(soma__prompt_bin(INFINITY), 255);
    assert_int_equal(soma__prompt_bin(-INFINITY), -1);
}

static void test_forms(void **state) {
    const char *const prompts[] = {"touch the red cube"};
    soma_text *text;
    assert_int_equal(soma__text_from_prompts(&text, prompts, 1, NULL), SOMA_OK);
    int32_t ids[64];
    uint8_t mask[64];
    size_t needed;
    soma_error err = {0};
    assert_int_equal(soma__prompt_encode(text, SOMA_PROMPT_PI0, " touch_the red cube", NULL, 0, ids, mask, 12, &needed, &err), SOMA_OK);
    const char *const wanted[] = {"<bos>", "touch", "the", "red", "cube", "\n"};
    assert_int_equal(needed, 6);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(mask[i], i < 6);
        assert_int_equal(ids[i], i < 6 ? soma__text_id(text, wanted[i]) : 0);
    }
    // too long: the end is cut off and the caller can see it
    for (size_t len = 0; len < 6; len++) {
        ids[len] = -5;
        assert_int_equal(soma__prompt_encode(text, SOMA_PROMPT_PI0, "touch the red cube", NULL, 0, ids, mask, len, &needed, &err), SOMA_OK);
        assert_int_equal(needed, 6);
        assert_int_equal(ids[len], -5);
        for (size_t i = 0; i < len; i++) assert_int_equal(mask[i], 1);
    }
    const double robot[] = {0, -2, 1};
    assert_int_equal(soma__prompt_encode(text, SOMA_PROMPT_PI05, "touch the red cube", robot, 3, ids, mask, 64, &needed, &err), SOMA_OK);
    const char *const second[] = {"<bos>", "task", ":", "touch", "the", "red", "cube", ",", "state", ":",      "1",
                                  "2",     "8",    "-", "1",     "2",   "5",   "5",    ";", "\n",    "action", ":"};
    assert_int_equal(needed, SOMA_COUNT(second));
    for (size_t i = 0; i < needed; i++) assert_int_equal(ids[i], soma__text_id(text, second[i]));
    const double broken[] = {0, NAN};
    assert_int_equal(soma__prompt_encode(text, SOMA_PROMPT_PI05, "", broken, 2, ids, mask, 64, &needed, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "[1]"));
    soma__text_close(text);
}

static void check_text(soma_prompt_form form, const char *prompt, const double *state, int n, const char *wanted) {
    soma_str s = {0};
    soma__prompt_text(&s, form, prompt, state, n);
    if (strcmp(s.text, wanted)) fail_msg("%s: \"%s\", wanted \"%s\"", soma__prompt_form_name(form), s.text, wanted);
    soma__str_free(&s);
}

static void test_other_forms(void **state) {
    const double x[] = {-1, 0.5};
    check_text(SOMA_PROMPT_LEROBOT_PI0, " Put_it ", NULL, 0, " Put_it \n");
    check_text(SOMA_PROMPT_LEROBOT_PI0, "put it\n", NULL, 0, "put it\n");
    check_text(SOMA_PROMPT_LEROBOT_PI0, "", NULL, 0, "\n");
    check_text(SOMA_PROMPT_SMOLVLA, " Put_it ", NULL, 0, " Put_it \n");
    check_text(SOMA_PROMPT_SMOLVLA, "put it\n", NULL, 0, "put it\n");
    check_text(SOMA_PROMPT_LEROBOT_FAST, " Put_it\nthere ", x, 2, "Task: Put it there, State: 0 192;\n");
    check_text(SOMA_PROMPT_FAST, " Put_IT\nThere ", x, 2, "Task: put it\nthere, State: 0 192;\n");
    if (soma__unicode_lower(0xd6) == 0xf6) // the tables are there
        check_text(SOMA_PROMPT_FAST, "\xc3\x96 \xce\xa9 \xd0\x96 \xd0\x81 \xc3\x97 \xe2\x82\xac", x, 1,
                   "Task: \xc3\xb6 \xcf\x89 \xd0\xb6 \xd1\x91 \xc3\x97 \xe2\x82\xac, State: 0;\n");
    for (int i = 1; i < SOMA_PROMPT_COUNT; i++) {
        soma_prompt_form form;
        assert_int_equal(soma__prompt_form_parse(&form, soma__prompt_form_name((soma_prompt_form)i), NULL), SOMA_OK);
        assert_int_equal(form, i);
    }
    soma_prompt_form form;
    soma_error err = {0};
    assert_int_equal(soma__prompt_form_parse(&form, "", &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "pi0, pi05, pi0_fast"));
}

// Every text that openpi handed to SentencePiece, for every prompt and state of the golden file.
static void test_golden_texts(void **state) {
    char path[SOMA_PATH_MAX];
    json_t *root;
    soma_error err = {0};
    if (soma__json_load(&root, golden_path(path, "preprocess/prompts.json"), &err)) fail_msg("%s", err.text);
    const json_t *cases = json_object_get(root, "cases"), *c;
    size_t i, with_state = 0, fast = 0;
    json_array_foreach(cases, i, c) {
        const char *prompt = json_string_value(json_object_get(c, "prompt"));
        const json_t *values = json_object_get(c, "state"), *calls = json_object_get(c, "paligemma_calls"),
                     *fast_calls = json_object_get(c, "fast_calls_no_actions");
        double x[32];
        int n = (int)json_array_size(values);
        assert_in_range(n, 0, 32);
        for (int k = 0; k < n; k++) x[k] = json_number_value(json_array_get(values, (size_t)k));
        char wanted[4096] = ""; // the texts of one encoding after the other
        const json_t *call;
        size_t k;
        json_array_foreach(calls, k, call) {
            assert_true(json_is_true(json_object_get(call, "add_bos")) == (k == 0));
            strcat(wanted, json_string_value(json_object_get(call, "text")));
        }
        assert_int_equal(k, n ? 1 : 2);
        check_text(n ? SOMA_PROMPT_PI05 : SOMA_PROMPT_PI0, prompt, x, n, wanted);
        with_state += n > 0;
        if (!fast_calls) continue;
        assert_int_equal(json_array_size(fast_calls), 1);
        check_text(SOMA_PROMPT_FAST, prompt, x, n, json_string_value(json_object_get(json_array_get(fast_calls, 0), "text")));
        fast++;
    }
    assert_true(i >= 40 && with_state >= 30 && fast >= 30);
    golden_same("preprocess/prompts.json", "cases.paligemma_calls", true); // each was checked above
    golden_same("preprocess/prompts.json", "cases.fast_calls_no_actions", true);
    json_decref(root);
}

// Which id a FAST code has, and a whole answer; openpi's stand-in for a text tokenizer made 3 4 5 6 7 of every text.
static void test_golden_answer(void **state) {
    static const char file[] = "preprocess/prompts.json";
    const soma_answer_form form = {
        .head = {3, 4, 5, 6, 7}, .n_head = 5, .bar = {3, 4, 5, 6}, .n_bar = 4, .eos = 7, .first = 257152 - 1 - 128, .n_codes = 2048};
    char path[SOMA_PATH_MAX];
    json_t *root;
    soma_error err = {0};
    int32_t codes[16] = {0}, ids[32] = {3, 4, 5, 6, 7};
    if (soma__json_load(&root, golden_path(path, file), &err)) fail_msg("%s", err.text);
    const json_t *map = json_object_get(root, "fast_map"), *fast = json_object_get(map, "fast"), *known = json_object_get(map, "paligemma"),
                 *tokens = json_object_get(json_object_get(root, "fast_layout"), "tokens");
    size_t n = json_array_size(fast);
    assert_in_range(n, 1, 16);
    for (size_t i = 0; i < n; i++) codes[i] = (int32_t)json_integer_value(json_array_get(fast, i));
    size_t len = 5 + soma__answer_write(&form, codes, n, ids + 5, 27);
    bool same = len == 5 + 5 + n + 5, mapped = true;
    for (size_t i = 0; i < n; i++) mapped &= ids[10 + i] == json_integer_value(json_array_get(known, i));
    for (size_t i = 0; same && i < json_array_size(tokens); i++)
        same &= (i < len ? ids[i] : 0) == json_integer_value(json_array_get(tokens, i));
    golden_same(file, "fast_map", mapped);
    golden_same(file, "fast_layout.tokens", same);
    json_decref(root);
}

static void test_golden_bins(void **state) {
    int64_t n;
    soma_safetensors *st = golden_open("preprocess/state_bins.safetensors");
    double *x = golden_get(st, "state", SOMA_F64, &n);
    assert_true(x && n > 3000);
    int32_t *bins = malloc((size_t)n * sizeof *bins);
    for (int64_t i = 0; i < n; i++) bins[i] = soma__prompt_bin(x[i]);
    golden_hold(st, "bins", "-", SOMA_I32, bins, GOLDEN_MAX, 0);
    free(bins);
    free(x);
    soma__safetensors_close(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),        cmocka_unit_test(test_bins),          cmocka_unit_test(test_forms),
        cmocka_unit_test(test_golden_texts), cmocka_unit_test(test_golden_answer), cmocka_unit_test(test_golden_bins),
        cmocka_unit_test(test_other_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
