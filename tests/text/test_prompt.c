// SPDX-License-Identifier: Apache-2.0
// Prompt forms against the texts that openpi's own tokenizer code produced, and the rules on their own.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "format/safetensors.h"
#include "text/prompt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PROMPTS SOMA_SOURCE_DIR "/../shared/golden/preprocess/prompts.json"
#define BINS SOMA_SOURCE_DIR "/../shared/golden/preprocess/state_bins.safetensors"

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
    assert_int_equal(soma__prompt_encode(text, " touch_the red cube", NULL, 0, ids, mask, 12, &needed, &err), SOMA_OK);
    const char *const wanted[] = {"<bos>", "touch", "the", "red", "cube", "\n"};
    assert_int_equal(needed, 6);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(mask[i], i < 6);
        assert_int_equal(ids[i], i < 6 ? soma__text_id(text, wanted[i]) : 0);
    }
    // too long: the end is cut off and the caller can see it
    for (size_t len = 0; len < 6; len++) {
        ids[len] = -5;
        assert_int_equal(soma__prompt_encode(text, "touch the red cube", NULL, 0, ids, mask, len, &needed, &err), SOMA_OK);
        assert_int_equal(needed, 6);
        assert_int_equal(ids[len], -5);
        for (size_t i = 0; i < len; i++) assert_int_equal(mask[i], 1);
    }
    const double robot[] = {0, -2, 1};
    assert_int_equal(soma__prompt_encode(text, "touch the red cube", robot, 3, ids, mask, 64, &needed, &err), SOMA_OK);
    const char *const second[] = {"<bos>", "task", ":", "touch", "the", "red", "cube", ",", "state", ":",      "1",
                                  "2",     "8",    "-", "1",     "2",   "5",   "5",    ";", "\n",    "action", ":"};
    assert_int_equal(needed, SOMA_COUNT(second));
    for (size_t i = 0; i < needed; i++) assert_int_equal(ids[i], soma__text_id(text, second[i]));
    const double broken[] = {0, NAN};
    assert_int_equal(soma__prompt_encode(text, "", broken, 2, ids, mask, 64, &needed, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "[1]"));
    soma__text_close(text);
}

// Every text that openpi handed to SentencePiece, for every prompt and state of the golden file.
static void test_golden_texts(void **state) {
    if (!soma__file_exists(PROMPTS)) skip();
    json_t *root;
    soma_error err = {0};
    if (soma__json_load(&root, PROMPTS, &err)) fail_msg("%s", err.text);
    const json_t *cases = json_object_get(root, "cases"), *c;
    size_t i, with_state = 0;
    json_array_foreach(cases, i, c) {
        const char *prompt = json_string_value(json_object_get(c, "prompt"));
        const json_t *values = json_object_get(c, "state"), *calls = json_object_get(c, "paligemma_calls");
        const char *wanted = json_string_value(json_object_get(json_array_get(calls, 0), "text"));
        assert_true(json_is_true(json_object_get(json_array_get(calls, 0), "add_bos")));
        soma_str s = {0};
        if (json_is_array(values)) {
            double x[32];
            int n = (int)json_array_size(values);
            assert_in_range(n, 1, 32);
            for (int k = 0; k < n; k++) x[k] = json_number_value(json_array_get(values, (size_t)k));
            soma__prompt_text(&s, prompt, x, n);
            assert_int_equal(json_array_size(calls), 1);
            with_state++;
        } else {
            soma__prompt_clean(&s, prompt);
            assert_int_equal(json_array_size(calls), 2);
            assert_string_equal(json_string_value(json_object_get(json_array_get(calls, 1), "text")), "\n");
        }
        assert_string_equal(s.text, wanted);
        soma__str_free(&s);
    }
    assert_true(i >= 40 && with_state >= 30);
    json_decref(root);
}

static void test_golden_bins(void **state) {
    if (!soma__file_exists(BINS)) skip();
    soma_safetensors *st;
    soma_error err = {0};
    if (soma__safetensors_open(&st, BINS, &err)) fail_msg("%s", err.text);
    const soma_safetensor *x = soma__safetensors_find(st, "state"), *bins = soma__safetensors_find(st, "bins");
    assert_non_null(x);
    assert_non_null(bins);
    assert_true(x->n_values == bins->n_values && x->n_values > 3000);
    for (int64_t i = 0; i < x->n_values; i++) {
        double value;
        int32_t bin;
        memcpy(&value, (const char *)x->data + 8 * i, 8);
        memcpy(&bin, (const char *)bins->data + 4 * i, 4);
        if (soma__prompt_bin(value) != bin) fail_msg("state %.17g: bin %d, wanted %d", value, soma__prompt_bin(value), bin);
    }
    soma__safetensors_close(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),        cmocka_unit_test(test_bins),        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_golden_texts), cmocka_unit_test(test_golden_bins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
