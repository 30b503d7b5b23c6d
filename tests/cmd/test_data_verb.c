// SPDX-License-Identifier: Apache-2.0
// `soma data` as a user runs it on real recordings: figures that match what each says of itself, verdicts, and a conversion that is sound.
#include "cmd/program.h"

#include "base/file.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DATA SOMA_SOURCE_DIR "/../shared/data/"

static json_t *ask(const char *arguments, int expected) {
    char line[1500];
    json_t *value;
    soma_error err = {0};
    snprintf(line, sizeof line, "data %s --json 2>/dev/null", arguments);
    int code = run_soma(NULL, line);
    if (code != expected) fail_msg("%s: exit code %d: %s", arguments, code, said);
    if (soma__json_parse(&value, said, strlen(said), arguments, &err)) fail_msg("%s", err.text);
    return value;
}

static long long number(const json_t *o, const char *key) { return (long long)json_integer_value(json_object_get(o, key)); }

static void figures(void **state) {
    static const struct {
        const char *path, *format;
        int episodes, episodes_present, frames, frames_present, absent;
        double fps;
        int doubtful, check;
    } sets[] = {
        // declared and present; what is absent is known of these copies (../shared/data/README.md)
        {"lerobot/gr1_sim_picknplace_v20", "lerobot", 5, 5, 2096, 2096, 5, 20, 5,
         1}, // info.json names a second camera, which has no videos
        {"lerobot/unitree_g1_inspire_real_v21", "lerobot", 100, 10, -1, -1, 187, 30, 1, 1},
        {"lerobot/dualarm_hands_real_v30", "lerobot", 50, 20, 20814, 8787, 80, 30, 5, 1}, // its videos lie in another folder
        {"lerobot/so101_real_v30", "lerobot", 4, 4, 1492, 1492, 2, 30, 0, 1},
        {"lerobot/pusht_v30/pusht_slice", "lerobot", 3, 3, 420, 420, 1, 10, 0, 1},
        {"lerobot/pusht_v30/pusht_image_slice", "lerobot", 3, 3, 420, 420, 0, 10, 0, 0},
        {"rlds/bridge_dataset", "rlds", 50, 25, 250, 250, 1, 0, 0, 1}, // the split `val` is declared and absent; RLDS declares no frames
        {"hdf5/bc_cart_pendulum/demo/demo.hdf5", "hdf5", 100, 100, 30000, 30000, 0, 0, 15, 0}, // a force that leaps at the second frame
    };
    if (!soma__dir_exists(DATA "lerobot")) {
        print_message("%s is absent\n", DATA);
        skip();
    }
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char line[1000];
        snprintf(line, sizeof line, "info " DATA "%s", sets[i].path);
        if (run_soma(NULL, "data info " DATA "hdf5/bc_cart_pendulum/demo/demo.hdf5 2>/dev/null") && !strcmp(sets[i].format, "hdf5"))
            continue;
        json_t *info = ask(line, 0);
        assert_string_equal(json_string_value(json_object_get(info, "format")), sets[i].format);
        assert_int_equal(number(info, "episodes"), sets[i].episodes);
        assert_int_equal(number(info, "episodes_present"), sets[i].episodes_present);
        if (sets[i].frames >= 0) assert_int_equal(number(info, "frames"), sets[i].frames);
        if (sets[i].frames >= 0) assert_int_equal(number(info, "frames_present"), sets[i].frames_present);
        assert_int_equal(json_array_size(json_object_get(info, "absent")), sets[i].absent);
        assert_int_equal(json_array_size(json_object_get(info, "faults")), 0);
        assert_true(json_number_value(json_object_get(info, "fps")) == sets[i].fps);
        json_decref(info);
        snprintf(line, sizeof line, "check --pictures 2 " DATA "%s", sets[i].path);
        json_t *check = ask(line, sets[i].check), *verdicts = json_object_get(check, "verdicts");
        assert_int_equal(number(check, "errors"), sets[i].absent);
        assert_int_equal(number(verdicts, "bad"), 0);
        assert_int_equal(number(verdicts, "doubtful"), sets[i].doubtful);
        assert_int_equal(number(verdicts, "absent"), sets[i].episodes - sets[i].episodes_present);
        json_decref(check);
    }
}

static void convert(void **state) {
    char folder[] = "/tmp/soma_data_XXXXXX", line[1500];
    if (!soma__dir_exists(DATA "rlds")) skip();
    assert_non_null(mkdtemp(folder));
    snprintf(line, sizeof line, "convert " DATA "rlds/bridge_dataset --fps 5 --cameras observation.image_0 --out %s/v30", folder);
    json_t *result = ask(line, 0);
    assert_int_equal(number(result, "episodes"), 25);
    assert_int_equal(number(result, "frames"), 250);
    assert_int_equal(number(result, "absent"), 25);
    json_decref(result);
    snprintf(line, sizeof line, "check --strict %s/v30", folder);
    result = ask(line, 0);
    assert_int_equal(number(result, "warnings"), 0);
    json_decref(result);
    assert_int_equal(run_soma(NULL, "data convert " DATA "rlds/bridge_dataset --out /tmp/none 2>&1"), 1);
    assert_non_null(strstr(said, "--fps"));
    assert_int_equal(run_soma(NULL, "data convert " DATA "rlds/bridge_dataset --fps 5 --state-key nothing --out /tmp/none 2>&1"), 1);
    assert_non_null(strstr(said, "there is no vector feature \"nothing\""));
    assert_int_equal(soma__dir_remove(folder, NULL), SOMA_OK);
}

static void wrong_lines(void **state) {
    assert_int_equal(run_soma(NULL, "data 2>&1"), 2);
    assert_int_equal(run_soma(NULL, "data mend /tmp 2>&1"), 2);
    assert_non_null(strstr(said, "mend"));
    assert_int_equal(run_soma(NULL, "data convert /tmp 2>&1"), 2);
    assert_non_null(strstr(said, "--out"));
    assert_int_equal(run_soma(NULL, "data info /nowhere 2>&1"), 1);
    assert_non_null(strstr(said, "/nowhere"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(figures), cmocka_unit_test(convert), cmocka_unit_test(wrong_lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
