// SPDX-License-Identifier: Apache-2.0
// `soma stats` on a real arm's demonstrations: the numbers that LeRobot wrote beside them, and those of a robot with its own conventions.
#include "cmd/program.h"

#include "base/file.h"
#include "base/json.h"

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
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_real_arm), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
