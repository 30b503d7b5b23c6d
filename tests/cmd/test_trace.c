// SPDX-License-Identifier: Apache-2.0
// `soma trace` as a user runs it: what --list names can be fed, what is written is what --against finds again, and what does not fit is
// told. That the numbers are the references' is shown in tests/golden.
#include "cmd/program.h"

#include "base/file.h"
#include "base/json.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char dir[] = "/tmp/soma-trace-XXXXXX";

static int make_dir(void **state) { return !mkdtemp(dir); }
static int remove_dir(void **state) { return soma__dir_remove(dir, NULL) != SOMA_OK; }

static int soma(const char *arguments) {
    char line[1000];
    snprintf(line, sizeof line, "%s 2>errors", arguments);
    return run_soma(dir, line);
}

static json_t *json_said(void) {
    json_t *value;
    soma_error err = {0};
    if (soma__json_parse(&value, said, strlen(said), "output", &err)) fail_msg("%s: %.200s", err.text, said);
    return value;
}

static soma_safetensors *open_file(const char *name) {
    char path[100];
    soma_safetensors *st;
    soma_error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (soma__safetensors_open(&st, path, &err)) fail_msg("%s", err.text);
    return st;
}

static void write_file(const char *name, const soma_safetensor *tensors, size_t n) {
    char path[100];
    soma_error err = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (soma__safetensors_write(path, tensors, n, NULL, &err)) fail_msg("%s", err.text);
}

// A file with every tensor that --list says can be fed: masks of ones, small ids, numbers in -1..1.
static void write_inputs(const json_t *inputs) {
    size_t n = json_array_size(inputs), i, k;
    const json_t *side;
    soma_safetensor *t = calloc(n, sizeof *t);
    assert_non_null(t);
    for (i = 0; i < n; i++) {
        const json_t *input = json_array_get(inputs, i);
        const char *dtype = json_string_value(json_object_get(input, "dtype"));
        t[i].name = json_string_value(json_object_get(input, "name"));
        t[i].dtype = !strcmp(dtype, "F32") ? SOMA_F32 : !strcmp(dtype, "I32") ? SOMA_I32 : SOMA_U8;
        int64_t n_values = 1;
        json_array_foreach(json_object_get(input, "shape"), k, side) n_values *= t[i].shape[t[i].n_dims++] = json_integer_value(side);
        void *data = malloc((size_t)n_values * 4);
        assert_non_null(data);
        for (int64_t v = 0; v < n_values; v++)
            if (t[i].dtype == SOMA_F32)
                ((float *)data)[v] = (float)sin(1.7 * (double)v + (double)i) * 0.5f + 0.5f;
            else if (t[i].dtype == SOMA_I32)
                ((int32_t *)data)[v] = (int32_t)v;
            else
                ((uint8_t *)data)[v] = strstr(t[i].name, "mask") ? 1 : (uint8_t)(v * 7);
        t[i].data = data;
    }
    write_file("in.safetensors", t, n);
    for (i = 0; i < n; i++) free((void *)t[i].data);
    free(t);
}

static void test_there_and_back(void **state) {
    static const char small[] = "{\"paligemma\": {\"depth\": 2}, \"action_expert\": {\"depth\": 2}, \"vision\": {\"image_size\": 32}}";
    char path[100];
    snprintf(path, sizeof path, "%s/small.json", dir);
    assert_int_equal(soma__file_write(path, small, strlen(small), NULL), SOMA_OK);
    if (soma("init --family pi0 --preset nano --model small.json --seed 3 --out p")) fail_msg("%s", said);
    assert_int_equal(soma("trace --policy p --list --json"), 0);
    json_t *list = json_said();
    write_inputs(json_object_get(list, "inputs"));
    assert_int_equal(soma("trace --policy p --inputs in.safetensors --dtype bf16 --out out.safetensors"), 0);
    assert_int_equal(soma("trace --policy p --inputs in.safetensors --dtype bf16 --against out.safetensors --json"), 0);
    json_t *rows = json_said(), *row;
    soma_safetensors *st = open_file("out.safetensors");
    size_t i, n = soma__safetensors_count(st);
    assert_in_range(n, 40, json_array_size(json_object_get(list, "outputs"))); // bf16: nothing is trained
    assert_int_equal(json_array_size(rows), n);
    json_array_foreach(rows, i, row) assert_true(json_number_value(json_object_get(row, "max_abs")) == 0);
    soma__safetensors_close(st);
    json_decref(rows);
    json_decref(list);
}

// References that differ: a NaN is the largest of errors and no number, another shape is told.
static void test_what_differs(void **state) {
    soma_safetensors *st = open_file("out.safetensors");
    const soma_safetensor *actions = soma__safetensors_find(st, "actions");
    assert_non_null(actions);
    float *values = malloc(sizeof *values * (size_t)actions->n_values);
    assert_non_null(values);
    memcpy(values, actions->data, sizeof *values * (size_t)actions->n_values);
    soma_safetensor t = *actions;
    t.data = values;
    values[2] += 0.5f;
    write_file("ref.safetensors", &t, 1);
    assert_int_equal(soma("trace --policy p --inputs in.safetensors --dtype bf16 --against ref.safetensors"), 0);
    if (!strstr(said, "5.00e-01  ") || !strstr(said, "1 of the 1 tensors")) fail_msg("%s", said);
    values[1] = NAN;
    write_file("ref.safetensors", &t, 1);
    assert_int_equal(soma("trace --policy p --inputs in.safetensors --dtype bf16 --against ref.safetensors --json"), 0);
    json_t *rows = json_said();
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 0), "max_abs")), "nan");
    json_decref(rows);
    t.shape[1]--;
    write_file("ref.safetensors", &t, 1);
    assert_int_equal(soma("trace --policy p --inputs in.safetensors --dtype bf16 --against ref.safetensors"), 1);
    assert_int_equal(run_line(dir, "cat errors"), 0);
    if (!strstr(said, "actions is [1, 29, 7] there and [1, 30, 7] here")) fail_msg("%s", said);
    free(values);
    soma__safetensors_close(st);
}

static void test_inputs_that_do_not_fit(void **state) {
    soma_safetensors *st = open_file("in.safetensors");
    const size_t n = soma__safetensors_count(st);
    soma_safetensor *t = calloc(n, sizeof *t);
    assert_non_null(t);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (strcmp(soma__safetensors_at(st, i)->name, "tokens")) t[kept++] = *soma__safetensors_at(st, i);
    assert_int_equal(kept, n - 1);
    write_file("less.safetensors", t, kept);
    assert_int_equal(soma("trace --policy p --inputs less.safetensors --out other.safetensors"), 1);
    assert_int_equal(run_line(dir, "cat errors; ls"), 0);
    if (!strstr(said, "it has no tensor tokens [B, L]") || strstr(said, "other.safetensors")) fail_msg("%s", said);
    free(t);
    soma__safetensors_close(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_what_differs),
                                       cmocka_unit_test(test_inputs_that_do_not_fit)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
