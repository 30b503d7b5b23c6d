// SPDX-License-Identifier: Apache-2.0
// `soma inspect --quantise-report`: bounds that a sound quantisation keeps with random weights, with outliers and without, and the command
// line.
#include "cmd/program.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static char dir[] = "/tmp/soma-quant-XXXXXX";

static int soma(const char *arguments) {
    char line[1000], with[1200];
    snprintf(line, sizeof line, arguments, dir);
    snprintf(with, sizeof with, "%s 2>%s/errors", line, dir);
    return run_soma(NULL, with);
}

static int make_dir(void **state) {
    if (!mkdtemp(dir)) return 1;
    return soma("init --preset nano --seed 3 --out %1$s/pi0") || soma("init --family pi0_fast --preset nano --seed 3 --out %1$s/fast");
}
static int remove_dir(void **state) { return soma__dir_remove(dir, NULL) != SOMA_OK; }

static json_t *report(const char *arguments) {
    json_t *value;
    soma_error err = {0};
    if (soma(arguments)) fail_msg("%s: %.300s", arguments, said);
    if (soma__json_parse(&value, said, strlen(said), "output", &err)) fail_msg("%s: %.200s", err.text, said);
    return value;
}

static double number(const json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }

static void errors_are_small(void **state) {
    json_t *told = report("inspect --policy %1$s/pi0 --quantise-report --json"), *rows = json_object_get(told, "dtypes"), *row;
    const double most[] = {0, 0.02, 0.06, 0.05, 0.4}; // f32, bf16, int8, int8w, int4w; measured about half of that
    size_t i, k;
    assert_int_equal(json_array_size(rows), 5);
    assert_int_equal(json_integer_value(json_object_get(told, "steps")), 10);
    assert_int_equal(json_integer_value(json_object_get(told, "layers")), 4);
    json_array_foreach(rows, i, row) {
        json_t *velocity = json_object_get(row, "velocity"), *v;
        assert_true(number(row, "prefix_keys") <= most[i]);
        assert_true(number(row, "prefix_values") <= most[i]);
        assert_true(i == 0 || number(row, "prefix_values") > 1e-5); // it was done at all
        assert_int_equal(json_array_size(velocity), 10);
        json_array_foreach(velocity, k, v) assert_true(json_real_value(v) <= most[i]);
        assert_true(i == 0 || number(row, "weights_size") <= number(json_array_get(rows, i - 1), "weights_size"));
    }
    json_decref(told);
}

static void outliers_and_tokens(void **state) {
    json_t *told = report("inspect --policy %1$s/pi0 --quantise-report --outliers 0.001 --seed 5 --json");
    assert_true(json_integer_value(json_object_get(told, "channels")) > 50); // one of every matrix at least
    json_decref(told);
    told = report("inspect --policy %1$s/fast --quantise-report --json");
    json_t *int8w = json_array_get(json_object_get(told, "dtypes"), 3);
    assert_null(json_object_get(int8w, "velocity"));
    assert_true(number(int8w, "logits") > 0 && number(int8w, "logits") < 0.05);
    json_decref(told);
}

static void command_line(void **state) {
    assert_int_equal(soma("inspect --policy %1$s/pi0"), 2);
    assert_int_equal(soma("inspect --quantise-report"), 2);
    assert_int_equal(soma("inspect"), 2);
    assert_int_equal(soma("inspect --policy %1$s/pi0 --quantise-report --outliers 2"), 2);
    assert_int_equal(soma("inspect --policy %1$s/none --quantise-report"), 1);
    assert_int_equal(soma("inspect --policy %1$s/pi0 --quantise-report"), 0);
    assert_non_null(strstr(said, "velocity, step 10"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_small),
        cmocka_unit_test(outliers_and_tokens),
        cmocka_unit_test(command_line),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
