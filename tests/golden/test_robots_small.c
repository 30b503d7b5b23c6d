// SPDX-License-Identifier: Apache-2.0
// Robots, LeRobot's rules, resizes and prompt texts against tests/golden/data/robots.safetensors, which tools/golden_robots.py made with
// numpy, Pillow and torch: the part of the reference's input and output path that a clean checkout can hold itself against.
#include "golden/generator.h"

#include "base/hash.h"
#include "policy/robot.h"
#include "text/unicode.h"

enum { SIDE = 24, WIDE = 32, STEPS = 3 };

static soma_safetensors *st;
static soma_error err;

static int setup(void **state) {
    return soma__safetensors_open(&st, SOMA_SOURCE_DIR "/tests/golden/data/robots.safetensors", &err) != SOMA_OK;
}

static int teardown(void **state) {
    soma__safetensors_close(st);
    return 0;
}

static const soma_safetensor *find(soma_dtype dtype, const char *format, ...) {
    char name[80];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const soma_safetensor *t = soma__safetensors_find(st, name);
    if (!t || t->dtype != dtype) fail_msg("the golden has no tensor %s of this kind", name);
    return t;
}

static void hashed(float *out, int64_t n, float scale, const char *format, ...) {
    char name[80];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    uint64_t seed = soma__hash(SOMA_HASH_START, name, strlen(name));
    for (int64_t i = 0; i < n; i++) out[i] = generator_value(seed, (uint64_t)i, scale, 0);
}

// The largest error relative to 1 or the value, printed as a line of the table.
static void hold(const char *robot, const char *rule, const char *what, const float *got, const double *want, int64_t n, double tolerance) {
    double worst = 0, off = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(got[i] - want[i]) / fmax(1, fabs(want[i]));
        if (!(d <= worst)) worst = d;
        off += (got[i] - want[i]) * (got[i] - want[i]);
        all += want[i] * want[i];
    }
    print_message("%-8s %-18s %-16s largest %8.2g  relative L2 %8.2g  tolerance %g\n", robot, rule, what, worst, sqrt(off / all),
                  tolerance);
    if (!(worst <= tolerance)) fail_msg("%s, %s: %s is off by %g", robot, rule, what, worst);
}

// ---- robots

static void hold_robot(const char *name, const char *rule) {
    static soma_robot r;
    soma_model model = {.info = {.type = "pi0",
                                 .state_input = true,
                                 .form = SOMA_PROMPT_PI0,
                                 .horizon = STEPS,
                                 .action_dim = WIDE,
                                 .state_dim = WIDE,
                                 .n_cameras = 3,
                                 .image_size = 8,
                                 .max_tokens = 8,
                                 .vocab = 256}};
    json_t *config = json_object();
    if (soma__robot_resolve(config, "nowhere", name, &err)) fail_msg("%s", err.text);
    json_object_set_new(json_object_get(config, "robot"), "normalise", json_string(rule));
    if (soma__robot_read(&r, json_object_get(config, "robot"), &model, name, &err)) fail_msg("%s", err.text);
    json_decref(config);
    static const char *const keys[] = {"state", "actions"}, *const prompts[] = {"pick"};
    soma_norm norms[2];
    for (int k = 0; k < 2; k++) {
        const soma_safetensor *mean = find(SOMA_F64, "%s.%s.mean", name, keys[k]);
        norms[k] = (soma_norm){.key = keys[k],
                               .size = (int)mean->n_values,
                               .mean = mean->data,
                               .std = find(SOMA_F64, "%s.%s.std", name, keys[k])->data,
                               .q01 = find(SOMA_F64, "%s.%s.q01", name, keys[k])->data,
                               .q99 = find(SOMA_F64, "%s.%s.q99", name, keys[k])->data};
    }
    soma_rows rows;
    if (soma__norm_stats_new(&r.stats, norms, 2, name, &err) || soma__text_from_prompts(&r.text, prompts, 1, &err) ||
        soma__robot_check(&r, &model, name, &err) || soma__rows_new(&rows, &r, &model, 1, &err))
        fail_msg("%s", err.text);
    static float state[WIDE], values[STEPS * WIDE], out[STEPS * WIDE];
    static const uint8_t pixels[8 * 8 * 3];
    hashed(state, r.n_state, 1, "%s.state", name);
    soma_obs obs = {.state = state, .n_state = r.n_state, .n_images = 1, .images = {{r.cameras[0], pixels, 8, 8}}};
    if (soma__robot_observe(&r, &rows, 0, &obs, &err)) fail_msg("%s", err.text);
    hold(name, rule, "state", rows.state, find(SOMA_F64, "%s.%s.state", name, rule)->data, WIDE, 1e-6); // one rounding to f32
    hashed(values, STEPS * r.n_actions, 1, "%s.actions", name);
    soma__robot_to_model(&r, &model, state, values, out);
    hold(name, rule, "actions", out, find(SOMA_F64, "%s.%s.actions", name, rule)->data, STEPS * WIDE, 1e-6);
    hashed(values, STEPS * WIDE, 1, "%s.chunk", name);
    soma__robot_from_model(&r, &model, state, values, out);
    hold(name, rule, "robot_actions", out, find(SOMA_F64, "%s.%s.robot_actions", name, rule)->data, STEPS * r.n_actions, 1e-6);
    soma__rows_free(&rows);
    soma__robot_close(&r);
}

static void test_robots(void **state) {
    static const char *const robots[] = {"aloha", "droid", "libero", "ur5"};
    for (size_t i = 0; i < SOMA_COUNT(robots); i++) {
        hold_robot(robots[i], "openpi_zscore");
        hold_robot(robots[i], "openpi_quantile");
    }
}

// ---- LeRobot's rules: equal to torch's f32 to the last bit

static void test_lerobot_rules(void **state) {
    static const struct {
        const char *name;
        soma_norm_rule rule;
    } rules[] = {{"lerobot_mean_std", SOMA_NORM_MEAN_STD},
                 {"lerobot_quantiles", SOMA_NORM_QUANTILES},
                 {"lerobot_min_max", SOMA_NORM_MIN_MAX},
                 {"lerobot_quantile10", SOMA_NORM_QUANTILE10}};
    double low[5], high[5], deviation[5];
    float x[30];
    for (int i = 0; i < 5; i++) {
        low[i] = ((const float *)find(SOMA_F32, "lerobot.low")->data)[i];
        high[i] = ((const float *)find(SOMA_F32, "lerobot.high")->data)[i];
        deviation[i] = ((const float *)find(SOMA_F32, "lerobot.std")->data)[i];
    }
    const soma_norm norm = {"x", 5, low, deviation, low, high, low, high, low, high};
    hashed(x, 30, 3, "lerobot.x");
    for (size_t k = 0; k < SOMA_COUNT(rules); k++)
        for (int undo = 0; undo < 2; undo++) {
            double y[30];
            for (int i = 0; i < 30; i++) y[i] = x[i];
            (undo ? soma__norm_undo : soma__norm_apply)(&norm, rules[k].rule, y, 6, 5);
            const float *want = find(SOMA_F32, "%s.%s", rules[k ? 1 : 0].name, undo ? "out" : "in")->data; // three of them are one formula
            for (int i = 0; i < 30; i++)
                if (y[i] != want[i]) fail_msg("%s[%d]: %.9g, wanted %.9g", rules[k].name, i, y[i], want[i]);
            const int32_t *bins = find(SOMA_I32, "bins")->data;
            for (int i = 0; i < 30 && k && !undo; i++) assert_int_equal(soma__prompt_bin(y[i]), bins[i]);
        }
}

// ---- pictures

static void test_pictures(void **state) {
    static const int sizes[][2] = {{40, 60}, {33, 20}, {9, 7}, {24, 24}, {25, 23}};
    static float x[40 * 60 * 3], real[SIDE * SIDE * 3];
    static uint8_t in[40 * 60 * 3], out[SIDE * SIDE * 3];
    double worst = 0;
    for (size_t i = 0; i < SOMA_COUNT(sizes); i++) {
        int h = sizes[i][0], w = sizes[i][1];
        hashed(x, h * w * 3, 1, "picture.%dx%d", h, w);
        for (int k = 0; k < h * w * 3; k++) in[k] = (uint8_t)floor(((double)x[k] + 1) * 128);
        soma_resizer *pil, *lerobot;
        if (soma__resizer_new(&pil, SOMA_RESIZE_PIL, w, h, SIDE, SIDE, &err) ||
            soma__resizer_new(&lerobot, SOMA_RESIZE_LEROBOT, w, h, SIDE, SIDE, &err))
            fail_msg("%s", err.text);
        soma__resizer_u8(pil, in, out);
        assert_memory_equal(out, find(SOMA_U8, "picture.%dx%d.pil", h, w)->data, sizeof out);
        soma__resizer_f32(lerobot, in, real);
        const float *want = find(SOMA_F32, "picture.%dx%d.lerobot", h, w)->data;
        for (size_t k = 0; k < SOMA_COUNT(real); k++) worst = fmax(worst, fabsf(real[k] - want[k]));
        soma__resizer_free(pil);
        soma__resizer_free(lerobot);
    }
    print_message("pictures: 5 equal to Pillow's, 5 within %.2g of torch's, tolerance 1e-05\n", worst);
    assert_true(worst <= 1e-5);
}

// ---- texts

static void test_texts(void **state) {
    const soma_safetensor *told = find(SOMA_U8, "text.prompt"), *numbers = find(SOMA_F64, "text.state");
    char prompt[100] = "";
    memcpy(prompt, told->data, (size_t)told->n_values);
    for (int form = 1; form <= SOMA_PROMPT_LEROBOT_FAST; form++) { // the padded forms: tests/policy/test_lerobot_versions.c
        const char *name = soma__prompt_form_name((soma_prompt_form)form);
        if (form == SOMA_PROMPT_FAST && soma__unicode_lower(0xc4) != 0xe4) continue; // built without utf8proc
        const soma_safetensor *want = find(SOMA_U8, "text.%s", name);
        soma_str s = {0};
        soma__prompt_text(&s, (soma_prompt_form)form, prompt, numbers->data, (int)numbers->n_values);
        if ((int64_t)s.len != want->n_values || memcmp(s.text, want->data, s.len)) fail_msg("%s: \"%s\"", name, s.text);
        soma__str_free(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_robots), cmocka_unit_test(test_lerobot_rules), cmocka_unit_test(test_pictures),
                                       cmocka_unit_test(test_texts)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
