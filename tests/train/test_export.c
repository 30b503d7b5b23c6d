// SPDX-License-Identifier: Apache-2.0
// An exported checkpoint acts as what it was made of: a policy, base and adapter of both kinds, in both layouts; its tensors have the
// published names; bad input is told.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "policy/export.h"
#include "train/tuned.h"

static void tune(const char *name, const char *lora, bool delta) {
    soma_train_opts o = options(name);
    soma_error err = {0};
    strcpy(o.lora, lora);
    o.delta = delta;
    o.steps = 8;
    o.lr = 2e-2;
    if (soma_train(&o, NULL, NULL, &err)) fail_msg("%s", err.text);
}

static soma_exported export(const char *policy, const char *adapter, const char *out, bool lerobot, soma_dtype dtype) {
    char a[SOMA_OPT_TEXT], b[SOMA_OPT_TEXT], c[SOMA_OPT_TEXT];
    soma_exported r;
    soma_error err = {0};
    path(a, policy);
    path(b, adapter ? adapter : "");
    path(c, out);
    soma_export_opts o = {.policy = a, .adapter = adapter ? b : NULL, .out = c, .lerobot = lerobot, .dtype = dtype, .asset = "dot"};
    if (soma__export(&r, &o, NULL, NULL, &err)) fail_msg("%s", err.text);
    return r;
}

static void assert_same_actions(const char *a, const char *b, double tolerance) {
    float x[8], y[8];
    act(a, x);
    act(b, y);
    double d = distance(x, y);
    printf("%-16s %-20s actions differ by %.1e\n", a, b, d);
    if (!(d <= tolerance)) fail_msg("%s and %s act differently, by %.2e", a, b, d);
}

static void test_policy(void **state) {
    soma_exported r = export("base", NULL, "base_openpi", false, SOMA_F32);
    assert_int_equal(r.n_folded, 0);
    assert_true(r.n_tensors > 60 && r.n_absent > 0); // the expert's head, the prefix's last layer
    assert_same_actions("base", "base_openpi", 0);
    export("base", NULL, "base_lerobot", true, SOMA_F32);
    assert_same_actions("base", "base_lerobot", 1e-5); // the other time rule, statistics in f32
}

static void test_openpi_pairs(void **state) {
    float base[8], tuned[8];
    tune("pairs", "openpi", false);
    act("base", base);
    act("pairs", tuned);
    assert_true(distance(base, tuned) > 1e-2);
    soma_exported r = export("pairs", NULL, "pairs_openpi", false, SOMA_F32);
    assert_int_equal(r.n_folded, 14 + 14 - 5); // two layers of two stacks; of the last of the prefix only keys and values are computed
    assert_same_actions("pairs", "pairs_openpi", 2e-5);
    export("pairs", NULL, "pairs_lerobot", true, SOMA_F32);
    assert_same_actions("pairs", "pairs_lerobot", 2e-5);
    export("base", "pairs", "pairs_again", false, SOMA_BF16);
    assert_same_actions("pairs", "pairs_again", 3e-2); // weights of 8 bits
}

static void test_peft_pairs_and_relative_actions(void **state) {
    tune("peft", "peft", true);
    soma_exported r = export("peft", NULL, "peft_lerobot", true, SOMA_F32);
    assert_int_equal(r.n_folded, 2 * 2 + 5);
    assert_same_actions("peft", "peft_lerobot", 2e-5);
}

static void test_names(void **state) {
    char file[SOMA_PATH_MAX];
    soma_safetensors *st;
    soma_error err;
    const char *const wanted[][2] = {
        {"base_openpi", "paligemma_with_expert.paligemma.lm_head.weight"},
        {"base_openpi", "paligemma_with_expert.gemma_expert.lm_head.weight"},
        {"base_openpi", "action_time_mlp_in.bias"},
        {"base_lerobot", "model.paligemma_with_expert.paligemma.lm_head.weight"},
        {"base_lerobot", "model.paligemma_with_expert.paligemma.model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"},
    };
    for (size_t i = 0; i < SOMA_COUNT(wanted); i++) {
        path(file, wanted[i][0]);
        if (soma__safetensors_open(&st, file, &err)) fail_msg("%s", err.text);
        if (!soma__safetensors_find(st, wanted[i][1])) fail_msg("%s: no %s", wanted[i][0], wanted[i][1]);
        soma__safetensors_close(st);
    }
    path(file, "base_openpi/assets/dot/norm_stats.json");
    assert_true(soma__file_exists(file));
    path(file, "base_lerobot/policy_preprocessor_step_5_normalizer_processor.safetensors");
    assert_true(soma__file_exists(file));
}

static json_t *load(const char *name) {
    char file[SOMA_PATH_MAX];
    soma_error err;
    json_t *json;
    path(file, name);
    if (soma__json_load(&json, file, &err)) fail_msg("%s", err.text);
    return json;
}

// LeRobot's parser refuses a whole config for one key that its version has not: those of relative actions are there where they are needed
// alone. Its 0.4 pads the state up to the step's max_state_dim before it goes into pi0.5's prompt, where openpi and soma do not.
static void test_what_older_lerobots_read(void **state) {
    static const char *const newer[] = {"use_relative_actions", "relative_exclude_joints", "action_feature_names"};
    json_t *plain = load("base_lerobot/config.json"), *relative = load("peft_lerobot/config.json");
    for (size_t i = 0; i < SOMA_COUNT(newer); i++) {
        assert_null(json_object_get(plain, newer[i]));
        assert_non_null(json_object_get(relative, newer[i]));
    }
    json_decref(plain);
    json_decref(relative);
    soma_train_opts o = options("five");
    soma_error err;
    o.init[0] = 0;
    strcpy(o.family, "pi05");
    path(o.model, "model.json");
    o.horizon = 4;
    o.steps = 1;
    if (soma_train(&o, NULL, NULL, &err)) fail_msg("%s", err.text);
    export("five", NULL, "five_lerobot", true, SOMA_F32);
    assert_same_actions("five", "five_lerobot", 1e-5);
    json_t *before = load("five_lerobot/policy_preprocessor.json"), *step;
    size_t i;
    int64_t width = 0;
    json_array_foreach(json_object_get(before, "steps"), i, step) {
        const json_t *n = json_object_get(json_object_get(step, "config"), "max_state_dim");
        if (n) width = json_integer_value(n);
    }
    assert_int_equal(width, 2); // the robot's, not the model's
    json_decref(before);
}

static void test_every_allocation_may_fail(void **state) {
    char policy[SOMA_OPT_TEXT], out[SOMA_OPT_TEXT];
    path(policy, "pairs");
    path(out, "failing");
    for (int64_t n = 0;; n += 1 + n / 16) {
        soma_exported r;
        soma_error err = {0};
        soma_export_opts o = {.policy = policy, .out = out, .lerobot = n % 2, .dtype = SOMA_F32, .asset = "dot"};
        soma__alloc_fail_after(n);
        soma_status status = soma__export(&r, &o, NULL, NULL, &err);
        soma__alloc_fail_after(-1);
        if (status != SOMA_OK && status != SOMA_NO_MEMORY) fail_msg("after %lld allocations: %s", (long long)n, err.text);
        char weights[SOMA_OPT_TEXT + 32];
        snprintf(weights, sizeof weights, "%s/model.safetensors", out);
        assert_int_equal(soma__file_exists(weights), status == SOMA_OK);
        assert_int_equal(soma__dir_remove(out, NULL), SOMA_OK);
        if (status == SOMA_OK) break;
        assert_true(n < 1000000);
    }
}

static void test_bad_input(void **state) {
    char policy[SOMA_OPT_TEXT], out[SOMA_OPT_TEXT];
    soma_exported r;
    soma_error err = {0};
    path(policy, "base");
    path(out, "base");
    soma_export_opts o = {.policy = policy, .out = out, .dtype = SOMA_F32, .asset = "dot"};
    assert_int_equal(soma__export(&r, &o, NULL, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "there already"));
    path(out, "bad");
    o.adapter = policy;
    assert_int_equal(soma__export(&r, &o, NULL, NULL, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "adapter_config.json"));
    o.adapter = NULL;
    soma_train_opts t = options("mean");
    t.mean_steps = t.steps = 1;
    if (soma_train(&t, NULL, NULL, &err)) fail_msg("%s", err.text);
    path(policy, "mean");
    o.lerobot = true;
    assert_int_equal(soma__export(&r, &o, NULL, NULL, &err), SOMA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "mean chunk"));
    char file[SOMA_OPT_TEXT];
    path(file, "bad");
    assert_int_equal(soma__dir_remove(file, NULL), SOMA_OK);
    path(policy, "nowhere");
    assert_int_not_equal(soma__export(&r, &o, NULL, NULL, &err), SOMA_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy),
        cmocka_unit_test(test_openpi_pairs),
        cmocka_unit_test(test_peft_pairs_and_relative_actions),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_what_older_lerobots_read),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, make_base, remove_dots);
}
