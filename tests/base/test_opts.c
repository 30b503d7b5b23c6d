// SPDX-License-Identifier: Apache-2.0
// One list of options gives defaults, flags, JSON and help, and says which name is wrong.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/opts.h"

#include <stdlib.h>
#include <string.h>

#define TEST_OPTS(X)                                   \
    X(INT, batch_size, 32, "samples per step")         \
    X(REAL, learning_rate, 5e-5, "peak learning rate") \
    X(FLAG, half, true, "bf16 products")               \
    X(TEXT, dataset, "", "folder")
SOMA_OPTS_DECLARE(test_opts, TEST_OPTS)
#define OPTS_TYPE test_opts
SOMA_OPTS_DEFINE_LOCAL(test_opts, TEST_OPTS, test_defaults)
#undef OPTS_TYPE

static soma_error err;

static int arg(test_opts *o, const char *a, const char *b) {
    char *argv[] = {(char *)a, (char *)b};
    int used = -1;
    err = (soma_error){0};
    return soma__opts_arg(&test_opts_table, o, b ? 2 : 1, argv, &used, &err) == SOMA_OK ? used : -1;
}

static void defaults_hold_the_list(void **state) {
    test_opts o = test_defaults();
    assert_int_equal(o.batch_size, 32);
    assert_true(o.learning_rate == 5e-5);
    assert_true(o.half);
    assert_string_equal(o.dataset, "");
    SOMA_OPTS_CHECK(&o);
}

static void flags_set_fields(void **state) {
    test_opts o = test_defaults();
    assert_int_equal(arg(&o, "--batch-size", "-8"), 2);
    assert_int_equal(o.batch_size, -8);
    assert_int_equal(arg(&o, "--batch_size=0", NULL), 1);
    assert_int_equal(o.batch_size, 0);
    assert_int_equal(arg(&o, "--learning-rate=1e-3", NULL), 1);
    assert_true(o.learning_rate == 1e-3);
    assert_int_equal(arg(&o, "--no-half", "next"), 1);
    assert_false(o.half);
    assert_int_equal(arg(&o, "--half", "next"), 1);
    assert_true(o.half);
    assert_int_equal(arg(&o, "--half=false", NULL), 1);
    assert_false(o.half);
    assert_int_equal(arg(&o, "--dataset", "--odd name"), 2);
    assert_string_equal(o.dataset, "--odd name");
    assert_int_equal(arg(&o, "--dataset=", NULL), 1);
    assert_string_equal(o.dataset, "");
    assert_int_equal(arg(&o, "--unknown", "1"), 0); // left to others
    assert_int_equal(arg(&o, "--no-batch-size", NULL), 0);
    assert_int_equal(arg(&o, "word", NULL), 0);
}

static void wrong_values_are_refused(void **state) {
    static const char *const bad[] = {"--batch-size=12x",
                                      "--batch-size=",
                                      "--batch-size=1.5",
                                      "--batch-size=99999999999999999999",
                                      "--learning-rate=fast",
                                      "--learning-rate=nan",
                                      "--learning-rate=inf",
                                      "--half=maybe",
                                      "--dataset",
                                      "--batch-size"};
    for (size_t i = 0; i < SOMA_COUNT(bad); i++) {
        test_opts o = test_defaults();
        if (arg(&o, bad[i], NULL) != -1) fail_msg("accepted: %s", bad[i]);
        assert_int_equal(err.code, SOMA_BAD_INPUT);
        assert_non_null(strstr(err.text, "--"));
    }
    char longer[SOMA_OPT_TEXT + 20] = "--dataset=";
    memset(longer + 10, 'x', SOMA_OPT_TEXT);
    test_opts o = test_defaults();
    assert_int_equal(arg(&o, longer, NULL), -1);
    assert_string_equal(o.dataset, "");
}

static void json_goes_round(void **state) {
    test_opts o = test_defaults(), back = test_defaults();
    o.batch_size = INT64_MAX;
    o.learning_rate = 1.0 / 3;
    o.half = false;
    strcpy(o.dataset, "a \"quoted\" folder");
    json_t *j = soma__opts_to_json(&test_opts_table, &o);
    assert_non_null(j);
    assert_int_equal(soma__opts_from_json(&test_opts_table, &back, j, "config.json", &err), SOMA_OK);
    assert_memory_equal(&o.batch_size, &back.batch_size, sizeof o.batch_size);
    assert_true(o.learning_rate == back.learning_rate);
    assert_false(back.half);
    assert_string_equal(o.dataset, back.dataset);
    json_decref(j);
}

static void json_errors(const char *text, const char *sentence) {
    test_opts o = test_defaults();
    json_t *j = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(j);
    assert_int_equal(soma__opts_from_json(&test_opts_table, &o, j, "config.json", &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, sentence);
    json_decref(j);
}

static void json_errors_name_the_key(void **state) {
    json_errors("{\"batchsize\": 4}", "config.json: \"batchsize\" is not an option here; did you mean \"batch_size\"?");
    json_errors("{\"qqqq\": 4}", "config.json: \"qqqq\" is not an option here");
    json_errors("{\"batch_size\": \"4\"}", "config.json: \"batch_size\" must be a whole number");
    json_errors("{\"half\": 1}", "config.json: \"half\" must be true or false");
    json_errors("{\"dataset\": null}", "config.json: \"dataset\" must be a string");
    json_errors("[]", "config.json: the options must be a JSON object");
}

static void help_tells_flag_meaning_default(void **state) {
    char *text;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    soma__opts_help(&test_opts_table, f);
    fclose(f);
    assert_non_null(strstr(text, "--batch-size"));
    assert_non_null(strstr(text, "samples per step [32]"));
    assert_non_null(strstr(text, "[5e-05]"));
    assert_non_null(strstr(text, "bf16 products [yes]"));
    free(text);
}

static void nearest_over_two_tables(void **state) {
    const char *nearest = NULL;
    size_t distance = SIZE_MAX;
    assert_null(soma__opts_find(&test_opts_table, "datasets", &nearest, &distance));
    assert_string_equal(nearest, "dataset");
    assert_int_equal(distance, 1);
    assert_string_equal(soma__opts_find(&test_opts_table, "batch-size", NULL, NULL)->name, "batch_size");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_hold_the_list),   cmocka_unit_test(flags_set_fields),
        cmocka_unit_test(wrong_values_are_refused), cmocka_unit_test(json_goes_round),
        cmocka_unit_test(json_errors_name_the_key), cmocka_unit_test(help_tells_flag_meaning_default),
        cmocka_unit_test(nearest_over_two_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
