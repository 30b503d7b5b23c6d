// SPDX-License-Identifier: Apache-2.0
// soma bench: what programs read of it. Figures are only held against each other: a test is no quiet machine.
#include "program.h"

#include "base/file.h"
#include "base/json.h"
#include "toy_dataset.h"

#include <stdlib.h>
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

static void policies_are_one_table(void **state) {
    json_t *v = bench("policy --random --family pi0,pi0_fast --dtype bf16,int4w --preset nano --threads 1 --repeats 1 --answer 4"), *row;
    static const char *const wanted[][2] = {{"pi0", "bf16"}, {"pi0", "int4w"}, {"pi0_fast", "bf16"}, {"pi0_fast", "int4w"}};
    size_t i;
    assert_int_equal(json_array_size(json_object_get(v, "policies")), SOMA_COUNT(wanted));
    json_array_foreach(json_object_get(v, "policies"), i, row) {
        assert_string_equal(json_string_value(json_object_get(row, "family")), wanted[i][0]);
        assert_string_equal(json_string_value(json_object_get(row, "dtype")), wanted[i][1]);
        assert_true(real(row, "limit_share") > 0 && real(row, "step_limit_s") > 0);
    }
    json_decref(v);
    assert_int_equal(run_soma(NULL, "bench policy --random --family pi0,pi05 --preset nano --threads 1 --repeats 1 2>&1"), 0);
    assert_non_null(strstr(said, "\n  pi05 "));
    assert_int_equal(run_soma(NULL, "bench policy --random --family pi0,nobody --preset nano --threads 1 --repeats 1 2>&1"), 1);
    assert_non_null(strstr(said, "nobody"));
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

static int toy_length(int episode) { return 20 + episode; }
static const char *toy_task(int episode) { return episode ? "push" : "pull"; }
static void toy_frame(int episode, int frame, float *state, float *action, uint8_t *picture) {
    state[0] = action[0] = (float)frame;
    memset(picture, 10 * frame + episode, TOY_SIDE * TOY_SIDE * 3);
}

static void loader_reads_from_files_memory_and_folder(void **state) {
    static const char *const names[] = {"x"}, *const ways[] = {"decoded", "memory", "folder", "folder_again"};
    const toy_dataset toy = {1, 1, TOY_SIDE, 10, names, 3, 2, toy_length, toy_task, toy_frame};
    char root[] = "/tmp/soma_bench_XXXXXX", data[100], line[400];
    assert_non_null(mkdtemp(root));
    snprintf(data, sizeof data, "%s/toy", root);
    assert_int_equal(write_toy_dataset(&toy, data, NULL), SOMA_OK);
    snprintf(line, sizeof line, "loader --data %s --scratch %s --save %s/order --steps 0 --seconds 0.03 --batch 4 --workers 2", data, root,
             root);
    json_t *v = bench(line), *row = json_array_get(json_object_get(v, "datasets"), 0);
    assert_int_equal((int)real(row, "frames"), 63);
    assert_true(real(row, "limit_pictures_per_second") > 0);
    for (size_t i = 0; i < SOMA_COUNT(ways); i++) assert_true(real(json_object_get(row, ways[i]), "pictures_per_second") > 0);
    assert_true(json_is_null(json_object_get(v, "trainer")));
    json_decref(v);
    char *order;
    size_t size;
    snprintf(line, sizeof line, "%s/order", root);
    assert_int_equal(soma__file_read(&order, &size, line, 1 << 20, NULL), SOMA_OK);
    assert_non_null(strstr(order, "\"batch\": 4}\n[["));
    soma__free(order);
    char **names_left;
    size_t n;
    assert_int_equal(soma__dir_list(&names_left, &n, root, NULL), SOMA_OK);
    assert_int_equal(n, 2); // the dataset and the order: nothing else is left behind
    soma__dir_list_free(names_left, n);
    assert_int_equal(soma__dir_remove(root, NULL), SOMA_OK);
    assert_int_equal(run_soma(NULL, "bench loader --workers 0 2>/dev/null"), 1);
    assert_int_equal(run_soma(NULL, "bench loader --data /nowhere --steps 0 2>/dev/null"), 1);
}

static void serve_tells_its_keys(void **state) {
    static const char sizes[] = "{\"camera_order\": [\"a\", \"b\", \"c\"]}";
    char root[] = "/tmp/soma_bench_test_XXXXXX", model[64], line[200];
    assert_non_null(mkdtemp(root));
    snprintf(model, sizeof model, "%s/model.json", root);
    assert_int_equal(soma__file_write(model, sizes, strlen(sizes), NULL), SOMA_OK);
    snprintf(line, sizeof line, "serve --model %s --requests 5 --clients 2 --rate 5 --seconds 0.5 --threads 1", model);
    json_t *v = bench(line), *batch = json_object_get(v, "batch_ms"), *load = json_object_get(v, "load"),
           *over = json_object_get(v, "overload");
    assert_true(real(v, "bare_p50_ms") > 0 && real(v, "added_p50_ms") > 0 && real(v, "added_p99_ms") >= real(v, "added_p50_ms"));
    assert_int_equal((int)real(v, "images"), 3);
    assert_int_equal(json_array_size(batch), 8);
    assert_true(real(v, "capacity_per_s") > 0 && json_number_value(json_array_get(batch, 0)) > 0 && real(load, "policy_ms") > 0);
    assert_true(real(load, "sent") == real(load, "answered") + real(load, "busy"));
    assert_true(real(load, "sent") > 0 && real(over, "sent") > 0 && real(load, "misses") >= 0);
    json_decref(v);
    assert_int_equal(soma__dir_remove(root, NULL), SOMA_OK);
    assert_int_equal(run_soma(NULL, "bench serve --clients 0 2>/dev/null"), 1);
}

static void record_tells_what_was_left_out(void **state) {
    json_t *v = bench("record --seconds 0.2 --cameras 2 --camera-width 64 --camera-height 48 --rate 20"),
           *filmed = json_object_get(v, "filmed");
    assert_int_equal((int)real(filmed, "frames") + (int)real(filmed, "left_out"), 4);
    assert_true(real(json_object_get(v, "fast"), "pictures_per_second") > 0);
    json_decref(v);
    assert_int_equal(run_soma(NULL, "bench record --cameras 0 2>/dev/null"), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(machine_has_a_row_for_each_number_of_threads),
        cmocka_unit_test(policy_tells_its_keys),
        cmocka_unit_test(policies_are_one_table),
        cmocka_unit_test(loader_reads_from_files_memory_and_folder),
        cmocka_unit_test(serve_tells_its_keys),
        cmocka_unit_test(record_tells_what_was_left_out),
        cmocka_unit_test(what_cannot_be_measured_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
