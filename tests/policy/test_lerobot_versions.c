// SPDX-License-Identifier: Apache-2.0
// What one LeRobot folder means depends on the version that wrote it: 0.4 pads the state in the prompt to 32 values and puts a border of -3
// round pictures (seen by running 0.4.4: tools/check_export.py), later ones do neither. The version is told by the fields of config.json.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "policy/robot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/soma_test_lerobot_versions_XXXXXX";

static int make_dir(void **state) { return mkdtemp(dir) ? 0 : 1; }
static int remove_dir(void **state) { return soma__dir_remove(dir, NULL) != SOMA_OK; }

// The robot of a config of `type` with these fields, and one step of the prompt, where `step` is not NULL.
static const char *config_of_step = "";

static json_t *robot_of(const char *type, const char *fields, const char *step) {
    char text[1024], path[128];
    soma_error err = {0};
    json_t *config, *robot;
    snprintf(text, sizeof text,
             "{\"type\": \"%s\", \"input_features\": {\"observation.images.top\": {\"type\": \"VISUAL\", \"shape\": [3, 8, 8]}, "
             "\"observation.state\": {\"type\": \"STATE\", \"shape\": [2]}}, "
             "\"output_features\": {\"action\": {\"type\": \"ACTION\", \"shape\": [2]}}%s}",
             type, fields);
    if (soma__json_parse(&config, text, strlen(text), "config.json", &err)) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/policy_preprocessor.json", dir);
    snprintf(text, sizeof text, "{\"steps\": [{\"registry_name\": \"%s\", \"config\": {%s}}]}", step ? step : "", config_of_step);
    unlink(path);
    if (step) assert_int_equal(soma__file_write(path, text, strlen(text), NULL), SOMA_OK);
    if (soma__robot_from_lerobot(&robot, config, dir, &err)) fail_msg("%s", err.text);
    json_decref(config);
    return robot;
}

static void test_versions(void **state) {
    static const char old[] = ", \"compile_model\": false", new[] = ", \"compile_model\": false, \"use_relative_actions\": false",
                      ours[] = "", five[] = "pi05_prepare_state_tokenizer_processor_step",
                      fast[] = "pi0_fast_prepare_state_tokenizer_processor_step";
    static const struct {
        const char *type, *fields, *step, *form, *resize;
    } cases[] = {{"pi0", old, "pi0_new_line_processor", "lerobot_pi0", "lerobot_04"},
                 {"pi05", old, five, "lerobot_04_pi05", "lerobot_04"},
                 {"pi05", old, NULL, "lerobot_04_pi05", "lerobot_04"},
                 {"pi0_fast", old, fast, "lerobot_04_pi0_fast", "lerobot_04"},
                 {"pi0", new, NULL, "lerobot_pi0", "lerobot"},
                 {"pi05", new, five, "pi05", "lerobot"},
                 {"pi0_fast", new, fast, "lerobot_pi0_fast", "lerobot"},
                 {"pi05", ours, five, "pi05", "lerobot"},
                 {"smolvla", old, "smolvla_new_line_processor", "smolvla", "smolvla"}, // always was so
                 {"smolvla", new, NULL, "smolvla", "smolvla"}};
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        json_t *robot = robot_of(cases[i].type, cases[i].fields, cases[i].step);
        assert_string_equal(json_string_value(json_object_get(robot, "prompt_form")), cases[i].form);
        assert_string_equal(json_string_value(json_object_get(robot, "resize")), cases[i].resize);
        json_decref(robot);
    }
    // soma's export of a policy that learned from padded states says so in the step
    for (int width = 2; width <= 32; width += 30) {
        config_of_step = width == 32 ? "\"max_state_dim\": 32" : "\"max_state_dim\": 2";
        json_t *robot = robot_of("pi05", ours, five);
        assert_string_equal(json_string_value(json_object_get(robot, "prompt_form")), width == 32 ? "lerobot_04_pi05" : "pi05");
        json_decref(robot);
    }
}

// 0 is the middle of the range, bin 128; a state that is wider than 32 is not cut.
static void test_padded_prompt(void **state) {
    double values[40] = {-1, 1};
    soma_str s = {0};
    soma__prompt_text(&s, SOMA_PROMPT_LEROBOT_04_PI05, "go_on", values, 2);
    assert_string_equal(s.text,
                        "Task: go on, State: 0 255 128 128 128 128 128 128 128 128 128 128 128 128 128 128 128 128 128 128 128 128 128 "
                        "128 128 128 128 128 128 128 128 128;\nAction: ");
    soma__str_free(&s);
    soma__prompt_text(&s, SOMA_PROMPT_LEROBOT_04_FAST, "go", values, 2);
    assert_non_null(strstr(s.text, "State: 0 255 128"));
    assert_string_equal(s.text + s.len - 6, " 128;\n");
    assert_int_equal(soma__prompt_state_width(SOMA_PROMPT_LEROBOT_04_FAST, 2), 32);
    assert_int_equal(soma__prompt_state_width(SOMA_PROMPT_LEROBOT_04_PI05, 40), 40);
    assert_int_equal(soma__prompt_state_width(SOMA_PROMPT_LEROBOT_FAST, 2), 2);
    soma__str_free(&s);
}

// 4 x 2 into 4 x 4: a line above and one below. Inside, both versions say the same.
static void test_border(void **state) {
    uint8_t in[4 * 2 * 3];
    float now[4 * 4 * 3], then[4 * 4 * 3];
    for (size_t i = 0; i < sizeof in; i++) in[i] = (uint8_t)(i * 9);
    for (int old = 0; old < 2; old++) {
        soma_resizer *r;
        assert_int_equal(soma__resizer_new(&r, old ? SOMA_RESIZE_LEROBOT_04 : SOMA_RESIZE_LEROBOT, 4, 2, 4, 4, NULL), SOMA_OK);
        soma__resizer_f32(r, in, old ? then : now);
        soma__resizer_free(r);
    }
    for (int i = 0; i < 4 * 4 * 3; i++) {
        bool border = i < 12 || i >= 36;
        assert_true(then[i] == (border ? -3.0f : now[i]));
        if (border) assert_true(now[i] == -1.0f);
    }
    soma_resizer *r; // SmolVLA's picture lies at the bottom
    assert_int_equal(soma__resizer_new(&r, SOMA_RESIZE_SMOLVLA, 4, 2, 4, 4, NULL), SOMA_OK);
    soma__resizer_f32(r, in, then);
    soma__resizer_free(r);
    for (int i = 0; i < 4 * 4 * 3; i++) assert_true(then[i] == (i < 24 ? -1.0f : now[i - 12]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_padded_prompt),
        cmocka_unit_test(test_border),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
