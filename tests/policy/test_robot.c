// SPDX-License-Identifier: Apache-2.0
// Robots as JSON: built in, from a user's file, from a LeRobot folder's processors, from openpi's assets; what they refuse; and the rows
// that an observation becomes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "policy/robot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char root[] = "/tmp/soma_robot_XXXXXX";
static soma_model *model; // pi0, 2 cameras of 16 x 16, horizon 3, 8 actions and state values, 8 tokens
static soma_error err;

static int setup(void **state) {
    json_t *config = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:[s, s], s:{s:i, s:i}}", "model_type", "pi0", "preset", "nano",
                               "action_horizon", 3, "action_dim", 8, "state_dim", 8, "max_token_len", 8, "camera_order", "base", "hand",
                               "vision", "image_size", 16, "patch_size", 8);
    bool failed = !mkdtemp(root) || soma__model_new(&model, config, "test", &err);
    json_decref(config);
    return failed;
}

static int teardown(void **state) {
    soma__model_free(model);
    return soma__dir_remove(root, NULL) != SOMA_OK;
}

static const char *in_root(const char *name) {
    static char path[4][SOMA_PATH_MAX];
    static int turn;
    char *out = path[turn++ % 4];
    if (soma__path_join(out, root, name, &err)) fail_msg("%s", err.text);
    return out;
}

static void put_file(const char *name, const char *text) {
    char folder[SOMA_PATH_MAX];
    strcpy(folder, in_root(name));
    *strrchr(folder, '/') = 0;
    assert_int_equal(soma__dir_make(folder, &err), SOMA_OK);
    assert_int_equal(soma__file_write(in_root(name), text, strlen(text), &err), SOMA_OK);
}

static void clean_root(void) {
    assert_int_equal(soma__dir_remove(root, &err), SOMA_OK);
    assert_int_equal(soma__dir_make(root, &err), SOMA_OK);
}

static json_t *parse(const char *text) {
    json_t *value = json_loads(text, 0, NULL);
    if (!value) fail_msg("not JSON: %s", text);
    return value;
}

static char warned[1000];
static void on_log(void *user, soma_log_level level, const char *text) {
    if (level == SOMA_LOG_WARN) snprintf(warned, sizeof warned, "%s", text);
}

// ---- objects

static soma_status read_text(soma_robot *r, const char *text) {
    json_t *robot = parse(text);
    soma_status status = soma__robot_read(r, robot, model, "x.json", &err);
    json_decref(robot);
    return status;
}

static void same_robot(const soma_robot *a, const soma_robot *b) {
    json_t *x = soma__robot_json(a), *y = soma__robot_json(b);
    assert_true(x && y && json_equal(x, y));
    json_decref(x);
    json_decref(y);
    assert_memory_equal(a->state_forms, b->state_forms, sizeof a->state_forms);
    assert_memory_equal(a->action_forms, b->action_forms, sizeof a->action_forms);
    assert_memory_equal(a->slots, b->slots, sizeof a->slots);
    assert_memory_equal(a->required, b->required, sizeof a->required);
    assert_true(a->absent_black == b->absent_black && a->form == b->form && a->resize == b->resize);
}

static void test_builtins(void **state) {
    size_t n = 0;
    for (const char *name; (name = soma__robot_builtin_name(n)); n++) {
        json_t *config = json_object(), *again;
        static soma_robot r, copy;
        if (soma__robot_resolve(config, root, name, &err)) fail_msg("%s: %s", name, err.text);
        soma_model stub = {.info = {.type = strstr(name, "fast") ? "pi0_fast" : strstr(name, "pi05") ? "pi05" : "pi0"}};
        stub.info.state_input = !strcmp(stub.info.type, "pi0");
        if (soma__robot_read(&r, json_object_get(config, "robot"), &stub, name, &err)) fail_msg("%s", err.text);
        assert_true(r.n_cameras >= 2 && r.n_state >= 7 && r.n_actions >= 7 && r.rate > 0);
        assert_int_equal(r.state_rule, stub.info.state_input ? SOMA_NORM_ZSCORE : SOMA_NORM_QUANTILE);
        assert_int_equal(r.absent_black, strstr(name, "fast") != NULL);
        bool released = strncmp(name, "pi0", 3) == 0;
        assert_true(released == json_is_integer(json_object_get(config, "action_horizon")));
        again = soma__robot_json(&r);
        if (soma__robot_read(&copy, again, &stub, name, &err)) fail_msg("%s", err.text);
        same_robot(&r, &copy);
        json_decref(again);
        json_decref(config);
    }
    assert_int_equal(n, 21);
}

static void test_hold(void **state) {
    static soma_robot r;
    json_t *robot = parse("{\"n_state\": 4, \"n_actions\": 5, \"cameras\": [], \"hold\": [[\"state\", 2], \"zero\", [\"last\", 2]]}");
    if (soma__robot_read(&r, robot, model, "it", &err)) fail_msg("%s", err.text);
    const float now[] = {1, 2, 3, 4}, last[] = {-1, -2, -3, -4, -5};
    float action[5];
    assert_false(soma__robot_hold(&r, now, NULL, action)); // a gripper that was told nothing yet
    assert_true(soma__robot_hold(&r, now, last, action));
    const float wanted[] = {1, 2, 0, -4, -5};
    assert_memory_equal(action, wanted, sizeof wanted);
    json_decref(robot);
    robot = parse("{\"n_state\": 4, \"n_actions\": 5, \"cameras\": []}");
    if (soma__robot_read(&r, robot, model, "it", &err)) fail_msg("%s", err.text);
    assert_false(soma__robot_hold(&r, now, last, action)); // it is not guessed
    json_decref(robot);
}

static void released(const char *name, int horizon, int tokens, int n_delta) {
    json_t *config = parse("{\"action_horizon\": 7}");
    static soma_robot r;
    if (soma__robot_resolve(config, root, name, &err)) fail_msg("%s", err.text);
    assert_int_equal(json_integer_value(json_object_get(config, "action_horizon")), horizon);
    assert_int_equal(json_integer_value(json_object_get(config, "max_token_len")), tokens);
    if (soma__robot_read(&r, json_object_get(config, "robot"), model, name, &err)) fail_msg("%s", err.text);
    for (int i = 0; i < SOMA_ROBOT_MAX_DIMS; i++) n_delta -= r.delta[i];
    assert_int_equal(n_delta, 0);
    json_decref(config);
}

// facts 2.6
static void test_released(void **state) {
    released("pi0_aloha", 50, 48, 12);
    released("pi0_aloha_sim", 50, 48, 0);
    released("pi05_aloha", 50, 200, 12);
    released("pi0_droid", 10, 48, 0);
    released("pi05_droid", 15, 200, 0);
    released("pi05_droid_jointpos", 15, 200, 7);
    released("pi0_fast_droid", 10, 250, 0);
    released("pi0_libero", 50, 48, 6);
    released("pi05_libero", 10, 200, 0);
    released("pi0_fast_libero", 10, 180, 6);
    json_t *config = json_object();
    soma_robot *r = calloc(1, sizeof *r);
    assert_int_equal(soma__robot_resolve(config, root, "pi0_fast_droid", &err), SOMA_OK);
    assert_int_equal(soma__robot_read(r, json_object_get(config, "robot"), model, "x", &err), SOMA_OK);
    assert_true(r->n_cameras == 2 && r->slots[0] == 0 && r->slots[1] == 2 && r->absent_black);
    assert_int_equal(json_array_size(json_object_get(config, "camera_order")), 3);
    json_decref(config);
    config = json_object();
    assert_int_equal(soma__robot_resolve(config, root, "pi0_aloha_towel", &err), SOMA_OK);
    assert_int_equal(soma__robot_read(r, json_object_get(config, "robot"), model, "x", &err), SOMA_OK);
    assert_string_equal(r->prompt, "fold the towel");
    assert_true(r->required[0] && !r->required[1] && !strcmp(r->ignored[0], "cam_low"));
    assert_int_equal(json_array_size(json_object_get(json_object_get(config, "metadata"), "reset_pose")), 6);
    json_decref(config);
    free(r);
}

static void test_refused_objects(void **state) {
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"{}", "n_state"},
        {"{\"n_state\": 2}", "n_actions"},
        {"{\"n_state\": 2, \"n_actions\": 0, \"cameras\": []}", "n_actions"},
        {"{\"n_state\": 2, \"n_actions\": 2}", "cameras"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"camera\": 1}", "no \"camera\"; did you mean \"cameras\"?"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [7]}", "list of names"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [\"a\", \"a\"]}", "\"a\" is listed twice"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [\"a\"], \"cameras_required\": [\"b\"]}", "no camera \"b\""},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"absent\": \"white\"}", "masked"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"delta\": [3]}", "speaks of 3 actions, there are 2"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"delta\": [0]}", "runs such as"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"delta\": [true, 1]}", "delta"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"delta\": [200, 200, 2000000000]}", "delta"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"hold\": \"still\"}", "\"zero\" or \"last\""},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"hold\": [\"zero\"]}", "speaks of 1 actions, there are 2"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"hold\": [[\"zero\", 3]]}", "more than the 2 actions"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"hold\": [[\"zero\", -1]]}", "pairs"},
        {"{\"n_state\": 1, \"n_actions\": 2, \"cameras\": [], \"hold\": \"state\"}", "the state has 1"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"convert\": [{\"state\": [2], \"scale\": 2}]}", "places from 0 to 1"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"convert\": [{\"state\": [0, 0]}]}", "state 0 is converted twice"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"convert\": [{\"state\": [0], \"scale\": 0}]}", "scale of 0"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"convert\": [{\"state\": [0], \"sclae\": 2}]}", "no \"sclae\""},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"convert\": [{\"form\": \"radians\"}]}", "radians"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"normalise\": \"z\"}", "openpi_zscore"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"normalise\": {\"state\": \"identity\"}}", "actions"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"prompt_form\": \"pi1\"}", "pi05"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"resize\": \"area\"}", "lerobot"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"rate\": -1}", "rate"},
        {"[]", "JSON object"},
    };
    static soma_robot r;
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        err = (soma_error){0};
        if (read_text(&r, cases[i].json) == SOMA_OK) fail_msg("case %zu was read", i);
        if (!strstr(err.text, cases[i].says) || !strstr(err.text, "x.json")) fail_msg("case %zu: %s", i, err.text);
    }
}

// ---- which robot

static void test_users_file(void **state) {
    static soma_robot r;
    put_file("mine/arm.json", "{\"like\": \"droid\", \"rate\": 30, \"delta\": [7, -1], \"norm_stats\": \"stats.json\","
                              " \"convert\": [{\"state\": [7], \"actions\": [7], \"scale\": -1, \"offset\": 1}]}");
    json_t *config = parse("{\"model_type\": \"pi0\"}");
    if (soma__robot_resolve(config, root, in_root("mine/arm.json"), &err)) fail_msg("%s", err.text);
    const json_t *robot = json_object_get(config, "robot");
    assert_string_equal(json_string_value(json_object_get(robot, "norm_stats")), in_root("mine/stats.json"));
    if (soma__robot_read(&r, robot, model, "arm.json", &err)) fail_msg("%s", err.text);
    assert_true(r.rate == 30 && r.delta[6] && !r.delta[7] && r.state_forms[7].scale == -1 && r.n_state_keys == 2);
    // laid over what the checkpoint says: the rest stays
    json_decref(config);
    config = parse("{\"robot\": {\"n_state\": 2, \"n_actions\": 3, \"cameras\": [\"base\"], \"resize\": \"lerobot\"}}");
    put_file("rate.json", "{\"rate\": 12.5}");
    if (soma__robot_resolve(config, root, in_root("rate.json"), &err)) fail_msg("%s", err.text);
    if (soma__robot_read(&r, json_object_get(config, "robot"), model, "x", &err)) fail_msg("%s", err.text);
    assert_true(r.rate == 12.5 && r.n_actions == 3 && r.resize == SOMA_RESIZE_LEROBOT);
    json_decref(config);
    config = json_object();
    assert_int_equal(soma__robot_resolve(config, root, "drod", &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "no robot is called \"drod\""));
    assert_non_null(strstr(err.text, "pi05_droid"));
    put_file("bad.json", "[1]");
    assert_int_equal(soma__robot_resolve(config, root, in_root("bad.json"), &err), SOMA_BAD_INPUT);
    put_file("bad.json", "{\"like\": \"r2d2\"}");
    assert_int_equal(soma__robot_resolve(config, root, in_root("bad.json"), &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "r2d2"));
    // nobody says: left to the opening, which names the option
    assert_int_equal(soma__robot_resolve(config, root, "", &err), SOMA_OK);
    assert_int_equal(soma__robot_open(&r, config, root, "", model, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "--robot"));
    json_decref(config);
    clean_root();
}

// ---- statistics

static const char stats_text[] = "{\"norm_stats\": {\"state\": {\"mean\": [1, 2], \"std\": [1, 4], \"q01\": null, \"q99\": null},"
                                 " \"actions\": {\"mean\": [0, 0], \"std\": [2, 2]}}}";

static soma_status find_stats(const char *robot_json, double *mean) {
    json_t *robot = parse(robot_json);
    soma_norm_stats *stats;
    const soma_norm *norm;
    soma_status status = soma__robot_stats(&stats, robot, root, true, &err);
    if (status == SOMA_OK) {
        assert_int_equal(soma__norm_find(&norm, stats, "state", SOMA_NORM_ZSCORE, 2, &err), SOMA_OK);
        *mean = norm->mean[0];
    }
    soma__norm_stats_free(stats);
    json_decref(robot);
    return status;
}

static void test_assets(void **state) {
    double mean = 0;
    assert_int_equal(find_stats("{}", &mean), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "assets/<asset_id>/norm_stats.json"));
    put_file("assets/physical-intelligence/libero/norm_stats.json", stats_text);
    assert_int_equal(find_stats("{}", &mean), SOMA_OK); // the only one
    assert_true(mean == 1);
    assert_int_equal(find_stats("{\"asset_id\": \"my/own\"}", &mean), SOMA_OK);
    put_file("assets/droid/norm_stats.json", "{\"norm_stats\": {\"state\": {\"mean\": [5, 2], \"std\": [1, 4]}}}");
    assert_int_equal(find_stats("{\"asset_id\": \"droid\"}", &mean), SOMA_OK);
    assert_true(mean == 5);
    assert_int_equal(find_stats("{\"asset_id\": \"physical-intelligence/libero\"}", &mean), SOMA_OK);
    assert_true(mean == 1);
    assert_int_equal(find_stats("{}", &mean), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "\"droid\", \"physical-intelligence/libero\""));
    assert_int_equal(find_stats("{\"norm_stats\": \"assets/droid/norm_stats.json\"}", &mean), SOMA_OK);
    assert_true(mean == 5);
    assert_int_equal(find_stats("{\"norm_stats\": 3}", &mean), SOMA_BAD_INPUT);
    put_file("norm_stats.json", "{\"norm_stats\": {\"state\": {\"mean\": [9, 2], \"std\": [1, 4]}}}");
    assert_int_equal(find_stats("{\"asset_id\": \"droid\"}", &mean), SOMA_OK); // soma's own place comes first
    assert_true(mean == 9);
    clean_root();
}

// ---- LeRobot's folders

static const char lerobot_config[] =
    "{\"type\": \"pi0\", \"input_features\": {"
    "\"observation.images.base_0_rgb\": {\"type\": \"VISUAL\", \"shape\": [3, 224, 224]},"
    "\"observation.images.empty_camera_0\": {\"type\": \"VISUAL\", \"shape\": [3, 224, 224]},"
    "\"observation.images.wrist\": {\"type\": \"VISUAL\", \"shape\": [3, 224, 224]},"
    "\"observation.state\": {\"type\": \"STATE\", \"shape\": [2]}},"
    "\"output_features\": {\"action\": {\"type\": \"ACTION\", \"shape\": [2]}},"
    "\"normalization_mapping\": {\"VISUAL\": \"IDENTITY\", \"STATE\": \"MEAN_STD\", \"ACTION\": \"MEAN_STD\"}}";

static const char pre_text[] =
    "{\"name\": \"policy_preprocessor\", \"steps\": ["
    "{\"registry_name\": \"rename_observations_processor\", \"config\": {\"rename_map\": {\"observation.images.top\": "
    "\"observation.images.base_0_rgb\"}}},"
    "{\"registry_name\": \"to_batch_processor\", \"config\": {}},"
    "{\"registry_name\": \"pi0_new_line_processor\", \"config\": {}},"
    "{\"registry_name\": \"tokenizer_processor\", \"config\": {\"max_length\": 48}},"
    "{\"registry_name\": \"device_processor\", \"config\": {}},"
    "{\"registry_name\": \"relative_actions_processor\", \"config\": {\"enabled\": true, \"exclude_joints\": [\"gripper\"], "
    "\"action_names\": "
    "[\"shoulder.pos\", \"Gripper.pos\"]}},"
    "{\"registry_name\": \"normalizer_processor\", \"config\": {\"eps\": 1e-08, \"features\": {}, \"norm_map\": {\"VISUAL\": \"IDENTITY\", "
    "\"STATE\": \"%s\", \"ACTION\": \"MEAN_STD\"}}, \"state_file\": \"pre.safetensors\"}]}";
static const char post_text[] = "{\"name\": \"policy_postprocessor\", \"steps\": ["
                                "{\"registry_name\": \"unnormalizer_processor\", \"config\": {\"eps\": 1e-08, \"features\": {}, "
                                "\"norm_map\": {\"ACTION\": \"MEAN_STD\"}}, "
                                "\"state_file\": \"post.safetensors\"},"
                                "{\"registry_name\": \"absolute_actions_processor\", \"config\": {\"enabled\": true}},"
                                "{\"registry_name\": \"device_processor\", \"config\": {}}]}";

static void put_lerobot(const char *state_mode, int width) {
    char pre[4000];
    static const float mean[] = {1, 2, 3}, std[] = {0.5f, 4, 1}, low[] = {-1, 0, 0}, high[] = {3, 8, 1};
    const soma_safetensor tensors[] = {{.name = "observation.state.mean", .n_dims = 1, .shape = {width}, .data = mean},
                                       {.name = "observation.state.std", .n_dims = 1, .shape = {width}, .data = std},
                                       {.name = "observation.state.q01", .n_dims = 1, .shape = {width}, .data = low},
                                       {.name = "observation.state.q99", .n_dims = 1, .shape = {width}, .data = high},
                                       {.name = "action.mean", .n_dims = 1, .shape = {2}, .data = mean},
                                       {.name = "action.std", .n_dims = 1, .shape = {2}, .data = std}};
    snprintf(pre, sizeof pre, pre_text, state_mode);
    put_file("policy_preprocessor.json", pre);
    put_file("policy_postprocessor.json", post_text);
    assert_int_equal(soma__safetensors_write(in_root("pre.safetensors"), tensors, 4, NULL, &err), SOMA_OK);
    assert_int_equal(soma__safetensors_write(in_root("post.safetensors"), tensors + 4, 2, NULL, &err), SOMA_OK);
    put_file("vocab.json", "");
    static const char *const prompts[] = {"pick up the cube"};
    soma_text *text;
    assert_int_equal(soma__text_from_prompts(&text, prompts, 1, &err), SOMA_OK);
    assert_int_equal(soma__text_save(text, in_root("vocab.json"), &err), SOMA_OK);
    soma__text_close(text);
}

// The whole way of opening; the model has three cameras then.
static soma_status open_lerobot(soma_robot *r, soma_model **made) {
    json_t *config = parse(lerobot_config);
    *made = NULL;
    soma_status status = soma__robot_resolve(config, root, "", &err);
    if (status == SOMA_OK) {
        json_object_set_new(config, "preset", json_string("nano"));
        json_object_set_new(config, "model_type", json_string("pi0"));
        json_object_set_new(config, "action_horizon", json_integer(3));
        status = soma__model_new(made, config, "config.json", &err);
    }
    if (status == SOMA_OK) status = soma__robot_open(r, config, root, "", *made, &err);
    json_decref(config);
    return status;
}

static void test_lerobot(void **state) {
    static soma_robot r;
    soma_model *three;
    put_lerobot("QUANTILES", 2);
    if (open_lerobot(&r, &three)) fail_msg("%s", err.text);
    assert_int_equal(three->info.n_cameras, 3);
    assert_string_equal(three->info.cameras[1], "empty_camera_0");
    assert_true(r.n_cameras == 2 && r.slots[1] == 2);
    assert_string_equal(r.cameras[0], "top"); // as the robot sends it
    assert_string_equal(r.cameras[1], "wrist");
    assert_true(r.n_state == 2 && r.n_actions == 2 && r.delta[0] && !r.delta[1]);
    assert_true(r.state_rule == SOMA_NORM_QUANTILES && r.action_rule == SOMA_NORM_MEAN_STD);
    assert_true(r.form == SOMA_PROMPT_LEROBOT_PI0 && r.resize == SOMA_RESIZE_LEROBOT && !r.absent_black);
    assert_true(r.state->q99[1] == 8 && r.actions->std[1] == 4);
    // there and back: relative, then LeRobot's z-score
    const float pose[] = {0.5f, 4}, chunk[6] = {1, 2, 3, 4, 5, 6};
    float in[3 * 7], out[6];
    soma__robot_to_model(&r, three, pose, chunk, in);
    assert_float_equal(in[0], (1 - 0.5 - 1) / 0.5, 1e-6);
    assert_float_equal(in[1], (2 - 2) / 4.0, 1e-6);
    assert_true(in[2] == 0 && in[6] == 0);
    soma__robot_from_model(&r, three, pose, in, out);
    for (int i = 0; i < 6; i++) assert_float_equal(out[i], chunk[i], 1e-6);
    soma__robot_close(&r);
    soma__model_free(three);
    clean_root();
}

static void refuse_lerobot(const char *says) {
    static soma_robot r;
    soma_model *three;
    err = (soma_error){0};
    if (open_lerobot(&r, &three) == SOMA_OK) fail_msg("opened, though \"%s\"", says);
    if (!strstr(err.text, says)) fail_msg("\"%s\" does not say \"%s\"", err.text, says);
    soma__model_free(three);
    clean_root();
}

static void test_refused_lerobot(void **state) {
    put_lerobot("MEAN_STD", 3);
    refuse_lerobot("state has statistics of 3 values; 2 are to be normalised");
    put_lerobot("MEAN_STD", 1);
    refuse_lerobot("state has statistics of 1 values; 2 are to be normalised");
    put_lerobot("QUANTILE10", 2);
    refuse_lerobot("state.q10 is missing");
    put_lerobot("MEDIAN", 2);
    refuse_lerobot("MEDIAN");
    put_lerobot("MEAN_STD", 2);
    put_file("policy_preprocessor.json", "{\"steps\": [{\"registry_name\": \"magic_processor\", \"config\": {}}]}");
    refuse_lerobot("\"magic_processor\" is not known");
    put_lerobot("MEAN_STD", 2);
    put_file("policy_preprocessor.json", "{\"steps\": [{\"config\": {}}]}");
    refuse_lerobot("registry_name");
    put_lerobot("MEAN_STD", 2);
    put_file("policy_preprocessor.json", "{\"steps\": [{\"registry_name\": \"normalizer_processor\", \"state_file\": \"../x\"}]}");
    refuse_lerobot("state_file");
    put_lerobot("MEAN_STD", 2);
    unlink(in_root("post.safetensors"));
    refuse_lerobot("post.safetensors");
    put_lerobot("MEAN_STD", 2);
    put_file("policy_preprocessor.json",
             "{\"steps\": [{\"registry_name\": \"normalizer_processor\", \"config\": {\"norm_map\": {\"VISUAL\": \"MEAN_STD\"}}}]}");
    refuse_lerobot("pictures are normalised");
    put_lerobot("MEAN_STD", 2);
    put_file("policy_preprocessor.json", "{\"steps\": [{\"registry_name\": \"normalizer_processor\", \"config\": {\"eps\": 0.1}}]}");
    refuse_lerobot("eps");
}

// No statistics, as LeRobot's base checkpoints have none: values pass as they are, and it is said.
static void test_lerobot_without_statistics(void **state) {
    static soma_robot r;
    soma_model *three;
    put_lerobot("MEAN_STD", 2);
    put_file("policy_preprocessor.json",
             "{\"steps\": [{\"registry_name\": \"normalizer_processor\", \"config\": {\"norm_map\": {\"STATE\": \"MEAN_STD\"}}}]}");
    put_file("policy_postprocessor.json",
             "{\"steps\": [{\"registry_name\": \"unnormalizer_processor\", \"config\": {\"norm_map\": {\"ACTION\": \"MEAN_STD\"}}}]}");
    soma_log_set(on_log, NULL);
    if (open_lerobot(&r, &three)) fail_msg("%s", err.text);
    soma_log_set(NULL, NULL);
    assert_non_null(strstr(warned, "no statistics of the actions"));
    assert_true(!r.stats && !r.state && r.state_rule == SOMA_NORM_IDENTITY);
    const float pose[] = {0.5f, 4}, chunk[6] = {1, 2, 3, 4, 5, 6};
    float in[3 * 7], out[6];
    soma__robot_to_model(&r, three, pose, chunk, in);
    soma__robot_from_model(&r, three, pose, in, out);
    assert_memory_equal(out, chunk, sizeof out);
    soma__robot_close(&r);
    soma__model_free(three);
    clean_root();
}

// A list of what is normalised, and an older name of the relative step.
static void test_lerobot_keys(void **state) {
    static soma_robot r;
    soma_model *three;
    put_lerobot("MEAN_STD", 2);
    put_file(
        "policy_preprocessor.json",
        "{\"steps\": [{\"registry_name\": \"delta_actions_processor\", \"config\": {\"enabled\": true, \"exclude_joints\": [\"gripper\"],"
        " \"action_names\": null}}, {\"registry_name\": \"normalizer_processor\", \"config\": {\"norm_map\": {\"STATE\": \"MEAN_STD\"},"
        " \"normalize_observation_keys\": [\"observation.force\"]}, \"state_file\": \"pre.safetensors\"}]}");
    if (open_lerobot(&r, &three)) fail_msg("%s", err.text);
    assert_true(r.state_rule == SOMA_NORM_IDENTITY && r.action_rule == SOMA_NORM_MEAN_STD);
    assert_true(r.delta[0] && r.delta[1]); // without names, all
    soma__robot_close(&r);
    soma__model_free(three);
    // the lists that the rule needs are enough
    static const float low[] = {0, 1}, high[] = {2, 5};
    const soma_safetensor quantiles[] = {{.name = "observation.state.q01", .n_dims = 1, .shape = {2}, .data = low},
                                         {.name = "observation.state.q99", .n_dims = 1, .shape = {2}, .data = high}};
    put_lerobot("QUANTILES", 2);
    assert_int_equal(soma__safetensors_write(in_root("pre.safetensors"), quantiles, 2, NULL, &err), SOMA_OK);
    if (open_lerobot(&r, &three)) fail_msg("%s", err.text);
    assert_true(!r.state->mean && r.state->q99[1] == 5);
    soma__robot_close(&r);
    soma__model_free(three);
    clean_root();
}

static void test_every_allocation_may_fail(void **state) {
    put_lerobot("QUANTILES", 2);
    for (int64_t n = 0;; n++) {
        static soma_robot r;
        soma_model *three;
        err = (soma_error){0};
        soma__alloc_fail_after(n);
        soma_status status = open_lerobot(&r, &three);
        soma__alloc_fail_after(-1);
        if (status == SOMA_OK) soma__robot_close(&r);
        soma__model_free(three);
        if (status == SOMA_OK) break;
        assert_true(*err.text && n < 10000);
    }
    clean_root();
}

// ---- rows

static const uint8_t picture[24 * 20 * 3] = {9, 80, 200, 7, 7, 7, 255, 0, 31};
static const float pose[] = {2, 6};

static void open_robot(soma_robot *r, soma_rows *rows, const char *json) {
    static const char *const prompts[] = {"pick up the cube"};
    if (read_text(r, json)) fail_msg("%s", err.text);
    assert_int_equal(soma__norm_stats_parse(&r->stats, stats_text, strlen(stats_text), "x", &err), SOMA_OK);
    assert_int_equal(soma__text_from_prompts(&r->text, prompts, 1, &err), SOMA_OK);
    if (soma__robot_check(r, model, "x.json", &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__rows_new(rows, r, model, 2, &err), SOMA_OK);
}

static soma_obs observation(void) {
    return (soma_obs){.prompt = "pick up", .state = pose, .n_state = 2, .n_images = 1, .images = {{"b", picture, 24, 20}}};
}

static void test_rows_f32(void **state) {
    static soma_robot r;
    soma_rows rows;
    open_robot(&r, &rows,
               "{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [null, \"b\"], \"resize\": \"lerobot\", \"normalise\": \"openpi_zscore\","
               " \"convert\": [{\"state\": [1], \"scale\": 0.5, \"offset\": 1}]}");
    assert_true(rows.batch.image_dtype == SOMA_F32 && soma__robot_image_dtype(&r) == SOMA_F32);
    soma_obs obs = observation();
    if (soma__robot_observe(&r, &rows, 1, &obs, &err)) fail_msg("%s", err.text);
    static float wanted[16 * 16 * 3];
    soma_resizer *resizer;
    assert_int_equal(soma__resizer_new(&resizer, SOMA_RESIZE_LEROBOT, 24, 20, 16, 16, &err), SOMA_OK);
    soma__resizer_f32(resizer, picture, wanted);
    soma__resizer_free(resizer);
    const float *row = (const float *)rows.images + 2 * 768; // row 1
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 256; i++) {
            assert_true(row[c * 256 + i] == -1); // the camera that this robot has not
            assert_true(row[768 + c * 256 + i] == wanted[i * 3 + c]);
        }
    assert_true(!rows.image_mask[2] && rows.image_mask[3]);
    assert_float_equal(rows.state[8], (2 - 1) / (1 + 1e-6), 1e-6);
    assert_float_equal(rows.state[9], (6 * 0.5 + 1 - 2) / (4 + 1e-6), 1e-6);
    assert_true(rows.state[10] == 0);
    soma__rows_free(&rows);
    soma__robot_close(&r);
}

static void test_rows(void **state) {
    static soma_robot r;
    soma_rows rows;
    open_robot(&r, &rows,
               "{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [\"a\", \"b\"], \"absent\": \"black\", \"cameras_required\": [\"b\"],"
               " \"prompt\": \"the cube\", \"normalise\": \"openpi_zscore\"}");
    soma_obs obs = observation();
    memset(rows.images, 5, 768 * 4);
    if (soma__robot_observe(&r, &rows, 0, &obs, &err)) fail_msg("%s", err.text);
    assert_true(rows.image_mask[0] && rows.image_mask[1]); // black and looked at
    for (int i = 0; i < 768; i++) assert_int_equal(((uint8_t *)rows.images)[i], 0);
    int32_t told = rows.tokens[1];
    obs.prompt = NULL;
    if (soma__robot_observe(&r, &rows, 0, &obs, &err)) fail_msg("%s", err.text);
    assert_int_not_equal(rows.tokens[1], told);
    assert_int_equal(rows.tokens[1], soma__text_id(r.text, "the")); // its own
    // a prompt that is too long: its end is cut off, told once
    soma_log_set(on_log, NULL);
    *warned = 0;
    obs.prompt = "pick up the cube the cube the cube";
    if (soma__robot_observe(&r, &rows, 0, &obs, &err)) fail_msg("%s", err.text);
    assert_string_equal(warned, "the prompt has 10 tokens, the model takes 8: its end was cut off");
    *warned = 0;
    if (soma__robot_observe(&r, &rows, 0, &obs, &err)) fail_msg("%s", err.text);
    assert_string_equal(warned, "");
    soma_log_set(NULL, NULL);
    for (int i = 0; i < 8; i++) assert_int_equal(rows.token_mask[i], 1);

    obs = observation();
    obs.images[0].camera = "a";
    assert_int_equal(soma__robot_observe(&r, &rows, 0, &obs, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "no picture of \"b\""));
    obs.images[0].camera = "c";
    assert_int_equal(soma__robot_observe(&r, &rows, 0, &obs, &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, "camera \"c\": this policy knows \"a\", \"b\"");
    obs = observation();
    const float nan[] = {1, NAN};
    obs.state = nan;
    assert_int_equal(soma__robot_observe(&r, &rows, 0, &obs, &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, "state[1] is not a finite number");
    obs = observation();
    obs.n_state = 3;
    assert_int_equal(soma__robot_observe(&r, &rows, 0, &obs, &err), SOMA_BAD_INPUT);
    soma__rows_free(&rows);
    soma__robot_close(&r);
}

// What does not fit the model.
static void test_check(void **state) {
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"{\"n_state\": 2, \"n_actions\": 9, \"cameras\": []}", "9 action values, the model takes at most 8 and 8"},
        {"{\"n_state\": 9, \"n_actions\": 2, \"cameras\": []}", "9 state"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [null, null, \"a\"]}", "3 cameras, the model sees 2"},
        {"{\"n_state\": 2, \"n_actions\": 3, \"cameras\": [], \"delta\": [3]}", "action 2 is relative to a state value"},
        {"{\"n_state\": 3, \"n_actions\": 2, \"cameras\": []}", "state has statistics of 2 values; 3 are to be normalised"},
        {"{\"n_state\": 2, \"n_actions\": 3, \"cameras\": []}", "actions has statistics of 2 values; 3 are to be normalised"},
        {"{\"n_state\": 2, \"n_actions\": 2, \"cameras\": [], \"normalise\": \"openpi_quantile\"}", "state.q01 is missing"},
    };
    static const char *const prompts[] = {"pick up the cube"};
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        static soma_robot r;
        if (read_text(&r, cases[i].json)) fail_msg("%s", err.text);
        assert_int_equal(soma__norm_stats_parse(&r.stats, stats_text, strlen(stats_text), "x", &err), SOMA_OK);
        assert_int_equal(soma__text_from_prompts(&r.text, prompts, 1, &err), SOMA_OK);
        if (soma__robot_check(&r, model, "x.json", &err) == SOMA_OK) fail_msg("case %zu passed", i);
        if (!strstr(err.text, cases[i].says)) fail_msg("case %zu: %s", i, err.text);
        soma__robot_close(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtins),        cmocka_unit_test(test_released),
        cmocka_unit_test(test_refused_objects), cmocka_unit_test(test_users_file),
        cmocka_unit_test(test_assets),          cmocka_unit_test(test_lerobot),
        cmocka_unit_test(test_refused_lerobot), cmocka_unit_test(test_lerobot_without_statistics),
        cmocka_unit_test(test_lerobot_keys),    cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_rows_f32),        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_check),           cmocka_unit_test(test_hold),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
