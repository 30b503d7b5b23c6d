// SPDX-License-Identifier: Apache-2.0
// `soma stats` on a real arm's demonstrations: the numbers that LeRobot wrote beside them, and those of a robot with its own conventions.
#include "cmd/program.h"

#include "base/file.h"
#include "base/json.h"
#include "toy_dataset.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DATA SOMA_SOURCE_DIR "/../shared/data/lerobot/so101_real_v30"

enum { SIZE = 6 };

static int soma(const char *arguments) {
    char line[2000];
    snprintf(line, sizeof line, "%s 2>&1", arguments);
    return run_soma(NULL, line);
}

static json_t *load(const char *path) {
    json_t *value;
    soma_error err = {0};
    if (soma__json_load(&value, path, &err)) fail_msg("%s", err.text);
    return value;
}

static void numbers(double out[SIZE], const json_t *root, const char *key, const char *list) {
    const json_t *values = json_object_get(json_object_get(root, key), list);
    assert_int_equal(json_array_size(values), SIZE);
    for (size_t i = 0; i < SIZE; i++) out[i] = json_number_value(json_array_get(values, i));
}

static json_t *stats_of(const char *options, const char *out) {
    char line[1500];
    snprintf(line, sizeof line, "stats --data " DATA " --horizon 1 --out %s %s", out, options);
    if (soma(line)) fail_msg("%s", said);
    return load(out);
}

static void test_real_arm(void **state) {
    if (!soma__dir_exists(DATA)) skip();
    char folder[] = "/tmp/soma_stats_XXXXXX", out[64], robot[64], option[80];
    assert_non_null(mkdtemp(folder));
    snprintf(out, sizeof out, "%s/norm_stats.json", folder);
    snprintf(robot, sizeof robot, "%s/arm.json", folder);
    snprintf(option, sizeof option, "--robot %s", robot);
    json_t *theirs = load(DATA "/meta/stats.json"), *all = stats_of("", out), *ours = json_object_get(all, "norm_stats");
    static const char *const keys[][2] = {{"state", "observation.state"}, {"actions", "action"}};
    static const char *const lists[] = {"mean", "std", "min", "max"};
    double a[SIZE], b[SIZE], pose[SIZE], action[SIZE];
    for (int k = 0; k < 2; k++)
        for (int l = 0; l < 4; l++) {
            numbers(a, ours, keys[k][0], lists[l]);
            numbers(b, theirs, keys[k][1], lists[l]);
            for (int i = 0; i < SIZE; i++)
                if (!(fabs(a[i] - b[i]) <= 1e-4 * fmax(1, fabs(b[i]))))
                    fail_msg("%s.%s[%d]: %g, LeRobot has %g", keys[k][0], lists[l], i, a[i], b[i]);
        }
    numbers(pose, ours, "state", "mean");
    numbers(action, ours, "actions", "mean");
    json_decref(all);

    // degrees to turns and relative actions, the gripper as it is
    static const char text[] =
        "{\"n_state\": 6, \"n_actions\": 6, \"cameras\": [], \"delta\": [5, -1],"
        " \"convert\": [{\"state\": [0, 1], \"actions\": [0, 1], \"scale\": 0.0027777777777777778, \"offset\": 0.5}]}";
    assert_int_equal(soma__file_write(robot, text, strlen(text), NULL), SOMA_OK);
    all = stats_of(option, out);
    numbers(a, json_object_get(all, "norm_stats"), "state", "mean");
    numbers(b, json_object_get(all, "norm_stats"), "actions", "mean");
    for (int i = 0; i < SIZE; i++) {
        double scale = i < 2 ? 1 / 360.0 : 1, offset = i < 2 ? 0.5 : 0;
        assert_float_equal(a[i], pose[i] * scale + offset, 1e-9);
        assert_float_equal(b[i], i < 5 ? (action[i] - pose[i]) * scale : action[i], 1e-9);
    }
    json_decref(all);
    json_decref(theirs);
    assert_int_equal(soma__dir_remove(folder, NULL), SOMA_OK);
}

static double at(const json_t *root, const char *a, const char *b, const char *list, size_t i) {
    const json_t *values = json_object_get(json_object_get(json_object_get(root, a), b), list);
    if (!json_is_array(values)) fail_msg("no %s of %s.%s", list, a, b);
    return json_number_value(json_array_get(values, i));
}

// `soma data stats` is the same verb; --quantiles openpi is near to exact; any quantile is told; threads and memory change no bit.
static void test_ways(void **state) {
    if (!soma__dir_exists(DATA)) skip();
    static const char *const lines[] = {
        "data stats " DATA " --delta --horizon 20 --quantile 0.01,0.99,0.5,0.999,0.001 --threads 1 --out /tmp/%s.a",
        "stats " DATA " --delta --horizon 20 --quantile 0.01,0.99,0.5,0.999,0.001 --threads 3 --memory 0 --out /tmp/%s.b",
        "stats " DATA " --delta --horizon 20 --quantile 0.01,0.99,0.5,0.999,0.001 --quantiles openpi --out /tmp/%s.c"};
    char name[] = "soma_stats_ways", line[1500], path[3][64];
    json_t *all[3];
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof line, lines[i], name);
        snprintf(path[i], sizeof path[i], "/tmp/%s.%c", name, 'a' + i);
        if (soma(line)) fail_msg("%s", said);
        assert_non_null(strstr(said, i == 1 ? "read twice" : "read once"));
        all[i] = load(path[i]);
    }
    assert_true(json_equal(all[0], all[1]));
    static const char *const quantiles[] = {"q01", "q99", "q50", "q99.9", "q00.1"};
    for (size_t q = 0; q < SOMA_COUNT(quantiles); q++)
        for (size_t i = 0; i < SIZE; i++) { // of the states, which come in four pieces, openpi's own are further off than this
            double exact = at(all[0], "norm_stats", "actions", quantiles[q], i), low = at(all[0], "norm_stats", "actions", "min", i);
            double openpi = at(all[2], "norm_stats", "actions", quantiles[q], i), high = at(all[0], "norm_stats", "actions", "max", i);
            if (fabs(exact - openpi) > 0.02 * (high - low)) fail_msg("actions.%s[%zu]: %g, openpi's %g", quantiles[q], i, exact, openpi);
        }
    for (int i = 0; i < 3; i++) {
        json_decref(all[i]);
        unlink(path[i]);
    }
}

#define HUMANOID SOMA_SOURCE_DIR "/../shared/data/lerobot/gr1_sim_picknplace_v20"

// LeRobot's form beside the file that came with the data; GR00T's by the parts of modality.json.
static void test_forms(void **state) {
    if (!soma__dir_exists(HUMANOID)) skip();
    if (soma("stats " HUMANOID " --horizon 1 --form lerobot --out /tmp/soma_stats_form.json")) fail_msg("%s", said);
    json_t *ours = load("/tmp/soma_stats_form.json"), *theirs = load(HUMANOID "/meta/stats.json");
    static const char *const features[] = {"observation.state", "action", "timestamp", "task_index"};
    static const char *const lists[] = {"mean", "std", "min", "max", "q01", "q99"};
    for (size_t f = 0; f < SOMA_COUNT(features); f++)
        for (size_t l = 0; l < SOMA_COUNT(lists); l++) {
            const json_t *a = json_object_get(json_object_get(ours, features[f]), lists[l]);
            const json_t *b = json_object_get(json_object_get(theirs, features[f]), lists[l]);
            for (size_t i = 0; i < json_array_size(b); i++) {
                double x = json_number_value(json_array_get(a, i)), y = json_number_value(json_array_get(b, i));
                if (!(fabs(x - y) <= 1e-5 * fmax(1, fabs(y)))) fail_msg("%s.%s[%zu]: %.9g, theirs %.9g", features[f], lists[l], i, x, y);
            }
        }
    json_decref(theirs);

    if (soma("stats " HUMANOID " --horizon 16 --delta --form groot --tag gr1 --out /tmp/soma_stats_form.json")) fail_msg("%s", said);
    json_t *tagged = load("/tmp/soma_stats_form.json");
    const json_t *all = json_object_get(json_object_get(tagged, "gr1"), "statistics");
    for (size_t i = 0; i < 7; i++) {
        const json_t *whole = json_object_get(json_object_get(ours, "observation.state"), "mean");
        assert_float_equal(at(all, "state", "right_arm", "mean", i), json_number_value(json_array_get(whole, 22 + i)), 1e-12);
        whole = json_object_get(json_object_get(ours, "action"), "max");
        assert_true(at(all, "action", "left_arm", "max", i) == json_number_value(json_array_get(whole, i)));
    }
    assert_true(fabs(at(all, "relative_action", "left_arm", "mean", 0)) < fabs(at(all, "action", "left_arm", "mean", 0)));
    const json_t *modalities = json_object_get(json_object_get(tagged, "gr1"), "modalities");
    assert_int_equal(json_array_size(json_object_get(json_object_get(json_object_get(modalities, "action"), "waist"), "shape")), 1);
    assert_false(json_is_true(json_object_get(json_object_get(json_object_get(modalities, "action"), "waist"), "absolute")));
    json_decref(tagged);
    json_decref(ours);
    unlink("/tmp/soma_stats_form.json");
}

// ---- damage

static int toy_frames(int e) { return 30; }
static const char *toy_task(int e) { return "wave"; }
static void toy_frame(int e, int f, float *state, float *action, uint8_t *picture) {
    for (int k = 0; k < 2; k++) state[k] = action[k] = (float)(e + f * k);
}

// One of three files ends early: with --skip-bad every verb goes on without its episode and counts it, without it ends with the file's
// name.
static void test_skip_bad(void **state) {
    static const char *const names[] = {"a", "b"};
    const toy_dataset toy = {2, 2, 16, 10, names, 3, 1, toy_frames, toy_task, toy_frame};
    char folder[] = "/tmp/soma_stats_XXXXXX", data[64], file[128], line[600];
    assert_non_null(mkdtemp(folder));
    snprintf(data, sizeof data, "%s/toy", folder);
    assert_int_equal(write_toy_dataset(&toy, data, NULL), SOMA_OK);
    snprintf(file, sizeof file, "%s/data/chunk-000/file-001.parquet", data);
    assert_int_equal(truncate(file, 300), 0);
    const char *const verbs[][2] = {
        {"stats --data %s/toy --out %s/stats.json", "1 damaged parts were left out"},
        {"fast fit --data %s/toy --horizon 10 --out %s/fast --json", "\"skipped\": 1"},
        {"train --data %s/toy --out %s/policy --steps 1 --batch 2 --holdout-share 0 --cameras none", "1 damaged parts are left out"},
        {"data convert %s/toy --out %s/converted", "1 that cannot be read left out"},
    };
    for (size_t i = 0; i < SOMA_COUNT(verbs); i++)
        for (int skip = 0; skip < 2; skip++) {
            int at = snprintf(line, sizeof line, verbs[i][0], folder, folder); // NOLINT: the formats are above
            if (skip) snprintf(line + at, sizeof line - (size_t)at, i == 3 ? "_ --skip-bad" : " --skip-bad");
            int code = soma(line);
            const char *wanted = skip ? verbs[i][1] : "file-001.parquet: cannot be read as parquet";
            if (code != !skip || !strstr(said, wanted) || !strstr(said, "file-001.parquet")) fail_msg("soma %s: %d, %s", line, code, said);
        }
    assert_int_equal(soma__dir_remove(folder, NULL), SOMA_OK);
}

static void test_refused(void **state) {
    assert_int_equal(soma("stats"), 1);
    assert_non_null(strstr(said, "--data is missing"));
    assert_int_equal(soma("stats --data /nonexistent"), 1);
    if (!soma__dir_exists(DATA)) skip();
    assert_int_equal(soma("stats --data " DATA " --robot droid"), 1);
    assert_non_null(strstr(said, "has 6 state and 6 action values, the robot droid 8 and 8"));
    assert_int_equal(soma("stats --data " DATA " --state-key torque"), 1);
    assert_non_null(strstr(said, "torque"));
    assert_int_equal(soma("stats --data " DATA " --horizon 0"), 1);
    assert_int_equal(soma("stats " DATA " --quantile 0.5,1.5"), 1);
    assert_non_null(strstr(said, "wanted at most 32 numbers from 0 to 1"));
    assert_int_equal(soma("stats " DATA " --form numpy"), 1);
    assert_non_null(strstr(said, "openpi, lerobot or groot"));
    assert_int_equal(soma("stats " DATA " --form groot --out /tmp/soma_none.json"), 1);
    assert_non_null(strstr(said, "names no parts"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_real_arm), cmocka_unit_test(test_ways), cmocka_unit_test(test_forms),
                                       cmocka_unit_test(test_skip_bad), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
