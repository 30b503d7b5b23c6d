// SPDX-License-Identifier: Apache-2.0
// soma bench: what programs read of it. Figures are only held against each other: a test is no quiet machine.
#include "program.h"

#include "base/json.h"
#include "base/base.h"

#include <string.h>

static json_t *bench(const char *arguments) {
    char line[400];
    json_t *value = NULL;
    snprintf(line, sizeof line, "bench %s --json 2>/dev/null", arguments);
    if (run_soma(NULL, line) != 0) fail_msg("soma %s: %s", line, said);
    assert_int_equal(soma__json_parse(&value, said, strlen(said), "the figures", NULL), SOMA_OK);
    return value;
}

static double real(const json_t *object, const char *key) {
    if (!json_is_number(json_object_get(object, key))) fail_msg("%s is no number: %s", key, said);
    return json_number_value(json_object_get(object, key));
}

static void machine_has_a_row_for_each_number_of_threads(void **state) {
    json_t *v = bench("machine --threads 2"), *peaks = json_object_get(v, "peaks"), *row;
    size_t i;
    assert_int_equal(json_array_size(peaks), 2);
    json_array_foreach(peaks, i, row) {
        assert_int_equal((int)real(row, "threads"), (int)i + 1);
        assert_int_equal(json_array_size(json_object_get(row, "read")), 4);
        size_t k;
        json_t *one;
        json_array_foreach(json_object_get(row, "multiply"), k, one) assert_true(real(one, "gop_per_second") > 0);
        json_array_foreach(json_object_get(row, "read"), k, one) assert_true(real(one, "gb_per_second") > 0);
    }
    json_decref(v);
}

static void policy_tells_its_keys(void **state) {
    static const char *const keys[] = {"load_s", "first_chunk_s", "chunk_median_s", "chunk_p99_s", "prefix_s",         "step_s",
                                       "flops",  "bytes",         "limit_s",        "limit_share", "peak_memory_bytes"};
    static const char *const families[] = {"pi0", "pi05", "pi0_fast"};
    for (size_t f = 0; f < SOMA_COUNT(families); f++) {
        char line[200];
        snprintf(line, sizeof line, "policy --random --family %s --preset nano --threads 1 --repeats 2 --answer 4 --profile", families[f]);
        json_t *v = bench(line), *profile = json_object_get(v, "profile");
        for (size_t i = 0; i < SOMA_COUNT(keys); i++)
            if (!(real(v, keys[i]) > 0)) fail_msg("%s of %s: %s", keys[i], families[f], said);
        assert_true(real(v, "chunk_p99_s") >= real(v, "chunk_median_s"));
        assert_true(json_is_boolean(json_object_get(v, "disturbed")));
        // the products that the profile saw are those that were counted
        double flops = 0;
        const char *part;
        json_t *rows, *row;
        size_t i;
        json_object_foreach(profile, part, rows) json_array_foreach(rows, i, row) flops +=
            real(row, "flops") * (strcmp(part, "step") ? 1 : real(v, "steps"));
        assert_true(flops > 0.999 * real(v, "flops") && flops < 1.001 * real(v, "flops"));
        json_decref(v);
    }
}

static void what_cannot_be_measured_is_told(void **state) {
    assert_int_equal(run_soma(NULL, "bench nothing 2>&1"), 2);
    assert_non_null(strstr(said, "machine"));
    assert_int_equal(run_soma(NULL, "bench policy 2>&1"), 1);
    assert_non_null(strstr(said, "--random"));
    assert_int_equal(run_soma(NULL, "bench policy --random --dtype int3 2>&1"), 1);
    assert_non_null(strstr(said, "int3"));
    assert_int_equal(run_soma(NULL, "bench policy --random --isa mmx 2>&1"), 1);
    assert_non_null(strstr(said, "mmx"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machine_has_a_row_for_each_number_of_threads),
        cmocka_unit_test(policy_tells_its_keys),
        cmocka_unit_test(what_cannot_be_measured_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
