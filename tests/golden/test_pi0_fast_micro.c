// SPDX-License-Identifier: Apache-2.0
// pi0-FAST of a few numbers against an independent float64 program without a cache (tools/golden_pi0_fast_micro.py), through a checkpoint
// that is written and read on the way: the tokens that are written, their logits, the loss, and its slope along a direction in all weights.
#include "golden/generator.h"

#include "base/hash.h"
#include "policy/params.h"
#include "policy/trace.h"

enum { B = 2, L = 4, A = 6, T = 9 };

static const char *const config_text =
    "{\"model_type\": \"pi0_fast\", \"camera_order\": [\"scene\", \"wrist\"], \"tie_word_embeddings\": %s, \"vocab_size\": 12,"
    " \"fast_skip_tokens\": 0, \"max_decoding_steps\": 7,"
    " \"paligemma\": {\"width\": 8, \"depth\": 2, \"mlp_dim\": 12, \"num_heads\": 4, \"num_kv_heads\": 2, \"head_dim\": 4},"
    " \"vision\": {\"hidden_size\": 8, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 12, \"patch_size\": 4,"
    " \"image_size\": 8}}";

static char folder[] = "/tmp/soma_test_fast_micro_XXXXXX";

static void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

static float *hashed(const char *name, int64_t n, float scale) {
    float *values = malloc(sizeof *values * (size_t)n);
    assert_non_null(values);
    for (int64_t i = 0; i < n; i++) values[i] = generator_value(soma__hash(SOMA_HASH_START, name, strlen(name)), (uint64_t)i, scale, 0);
    return values;
}

// The config, and every weight 0.5 times its hash.
static void write_policy(bool tied) {
    char text[1024], path[SOMA_PATH_MAX];
    soma_error err = {0};
    json_t *config;
    soma_model *model;
    soma_layout layout = {0};
    snprintf(text, sizeof text, config_text, tied ? "true" : "false");
    ok(soma__json_parse(&config, text, strlen(text), "micro", &err), &err);
    ok(soma__model_new(&model, config, "micro", &err), &err);
    snprintf(path, sizeof path, "%s/config.json", folder);
    ok(soma__json_save(config, path, &err), &err);
    ok(soma__model_weights(&layout, model, true, &err), &err);
    soma_safetensor *t = calloc(layout.n_slots, sizeof *t);
    for (size_t i = 0; i < layout.n_slots; i++) {
        const soma_slot *slot = &layout.slots[i];
        t[i] = (soma_safetensor){.name = slot->name, .dtype = SOMA_F32, .n_dims = slot->n_dims};
        memcpy(t[i].shape, slot->shape, sizeof slot->shape);
        t[i].data = hashed(slot->name, (int64_t)(slot->size / sizeof(float)), 0.5f);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    ok(soma__safetensors_write(path, t, layout.n_slots, NULL, &err), &err);
    for (size_t i = 0; i < layout.n_slots; i++) free((void *)t[i].data);
    free(t);
    soma__layout_free(&layout);
    soma__model_free(model);
    json_decref(config);
}

// The inputs of one form; the numbers are those of the tool.
static void write_inputs(bool lerobot) {
    static const uint8_t scene[] = {1, 1}, wrist[] = {0, 1}, mask[] = {1, 1, 1, 0, 1, 1, 0, 0};
    static const int32_t prompt[] = {1, 9, 3, 0, 4, 11, 0, 0};
    static const int32_t answer[] = {2, 5, 8, 10, 7, 1, 2, 6, 7, 1, 0, 0};
    static const uint8_t answer_mask[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0};
    static const int32_t whole[] = {1, 9, 3, 5, 8, 10, 7, 1, 0, 4, 11, 6, 7, 1, 0, 0, 0, 0};
    static const uint8_t there[] = {1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0};
    static const uint8_t causal[] = {0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0};
    float *images[] = {hashed("image.scene", B * 3 * 8 * 8, 1), hashed("image.wrist", B * 3 * 8 * 8, 1)};
    const soma_safetensor both[] = {
        {.name = "image.scene", .dtype = SOMA_F32, .n_dims = 4, .shape = {B, 3, 8, 8}, .data = images[0]},
        {.name = "image.wrist", .dtype = SOMA_F32, .n_dims = 4, .shape = {B, 3, 8, 8}, .data = images[1]},
    };
    const soma_safetensor of_lerobot[] = {
        both[0],
        both[1],
        {.name = "image_mask.scene", .dtype = SOMA_U8, .n_dims = 1, .shape = {B}, .data = scene},
        {.name = "image_mask.wrist", .dtype = SOMA_U8, .n_dims = 1, .shape = {B}, .data = wrist},
        {.name = "tokens", .dtype = SOMA_I32, .n_dims = 2, .shape = {B, L}, .data = prompt},
        {.name = "token_mask", .dtype = SOMA_U8, .n_dims = 2, .shape = {B, L}, .data = mask},
        {.name = "action_tokens", .dtype = SOMA_I32, .n_dims = 2, .shape = {B, A}, .data = answer},
        {.name = "action_token_mask", .dtype = SOMA_U8, .n_dims = 2, .shape = {B, A}, .data = answer_mask},
    };
    const soma_safetensor of_openpi[] = {
        both[0],
        both[1],
        {.name = "prompt_tokens", .dtype = SOMA_I32, .n_dims = 2, .shape = {B, L}, .data = prompt},
        {.name = "prompt_mask", .dtype = SOMA_U8, .n_dims = 2, .shape = {B, L}, .data = mask},
        {.name = "tokens", .dtype = SOMA_I32, .n_dims = 2, .shape = {B, T}, .data = whole},
        {.name = "token_mask", .dtype = SOMA_U8, .n_dims = 2, .shape = {B, T}, .data = there},
        {.name = "token_ar_mask", .dtype = SOMA_U8, .n_dims = 2, .shape = {B, T}, .data = causal},
        {.name = "token_loss_mask", .dtype = SOMA_U8, .n_dims = 2, .shape = {B, T}, .data = causal},
    };
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    snprintf(path, sizeof path, "%s/inputs.safetensors", folder);
    ok(soma__safetensors_write(path, lerobot ? of_lerobot : of_openpi, SOMA_COUNT(of_lerobot), NULL, &err), &err);
    free(images[0]);
    free(images[1]);
}

// The slope along the direction in which every weight moves by its second hash, from the gradients.
static double slope(const soma_trace *trace) {
    double sum = 0;
    for (size_t i = 0; i < trace->n_tensors; i++) {
        const soma_safetensor *t = &trace->tensors[i];
        if (strncmp(t->name, "paligemma_with_expert.", 22)) continue;
        char name[600];
        int64_t n = 1;
        for (int k = 0; k < t->n_dims; k++) n *= t->shape[k];
        snprintf(name, sizeof name, "%s.direction", t->name);
        float *direction = hashed(name, n, 1);
        for (int64_t k = 0; k < n; k++) sum += (double)direction[k] * (double)((const float *)t->data)[k];
        free(direction);
    }
    return sum;
}

static void hold(const soma_trace *trace, const soma_safetensor *want) {
    if (!strcmp(want->name, "slope")) {
        float *y = golden_floats(want);
        double s = slope(trace);
        if (!(fabs(s - *y) < 1e-4 * fabs((double)*y))) fail_msg("the slope of the loss is %.7g, not %.7g", s, (double)*y);
        free(y);
        return;
    }
    const soma_safetensor *got = soma__trace_find(trace, want->name);
    if (!got) fail_msg("%s is not given", want->name);
    const double off = soma__safetensor_difference(got, want, soma__trace_rows(trace, want->name)).max_abs,
                 allowed = strstr(want->name, "tokens") ? 0 : 1e-5;
    if (!(off <= allowed)) fail_msg("%s is off by %.3g, allowed are %.3g", want->name, off, allowed);
}

static void run(soma_trace *trace, const char *isa) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_safetensors *inputs;
    soma_device *device;
    snprintf(path, sizeof path, "%s/inputs.safetensors", folder);
    ok(soma__safetensors_open(&inputs, path, &err), &err);
    ok(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 2, .isa = isa}, &err), &err);
    soma_status status = soma__trace_run(trace, folder, inputs, &(soma_trace_opts){.dtype = "f32", .grads = true}, device, &err);
    soma__device_close(device);
    soma__safetensors_close(inputs);
    ok(status, &err);
}

static void hold_micro(const char *form, const char *isa) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_trace trace = {0};
    soma_safetensors *reference;
    bool lerobot = !strcmp(form, "lerobot");
    write_policy(lerobot);
    write_inputs(lerobot);
    run(&trace, isa);
    snprintf(path, sizeof path, SOMA_SOURCE_DIR "/tests/golden/data/pi0_fast_micro_%s.safetensors", form);
    ok(soma__safetensors_open(&reference, path, &err), &err);
    for (size_t i = 0; i < soma__safetensors_count(reference); i++) hold(&trace, soma__safetensors_at(reference, i));
    soma__safetensors_close(reference);
    soma__trace_free(&trace);
}

// Wherever memory runs out, a sentence comes back and nothing is lost (the sanitizers watch).
static void memory_may_end_anywhere(void **state) {
    write_policy(true);
    write_inputs(true);
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_safetensors *inputs;
    soma_device *device;
    snprintf(path, sizeof path, "%s/inputs.safetensors", folder);
    ok(soma__safetensors_open(&inputs, path, &err), &err);
    ok(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1}, &err), &err);
    const soma_trace_opts o = {.dtype = "f32", .grads = true, .stop_token = 7};
    int64_t n = 0;
    for (soma_status status = SOMA_NO_MEMORY; status != SOMA_OK; n++) {
        soma_trace trace = {0};
        err = (soma_error){0};
        soma__alloc_fail_after(n);
        status = soma__trace_run(&trace, folder, inputs, &o, device, &err);
        soma__alloc_fail_after(-1);
        if (status != SOMA_OK && status != SOMA_NO_MEMORY)
            fail_msg("allocation %lld: %s: %s", (long long)n, soma_status_word(status), err.text);
        if (status != SOMA_OK) assert_true(*err.text);
        soma__trace_free(&trace);
    }
    assert_true(n > 50);
    print_message("%lld allocations failed in turn\n", (long long)n - 1);
    soma__device_close(device);
    soma__safetensors_close(inputs);
}

static void names_are_what_is_given(void **state) {
    write_policy(true);
    write_inputs(false);
    soma_trace ran = {0}, names = {0};
    soma_device *device;
    soma_error err = {0};
    run(&ran, "");
    ok(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1}, &err), &err);
    ok(soma__trace_run(&names, folder, NULL, &(soma_trace_opts){.dtype = "f32", .grads = true, .names_only = true}, device, &err), &err);
    assert_int_equal(names.n_tensors, ran.n_tensors);
    for (size_t i = 0; i < names.n_tensors; i++) assert_string_equal(names.tensors[i].name, ran.tensors[i].name);
    soma__device_close(device);
    soma__trace_free(&ran);
    soma__trace_free(&names);
}

static int make_folder(void **state) { return !mkdtemp(folder); }
static int remove_folder(void **state) { return soma__dir_remove(folder, NULL) != SOMA_OK; }

static void lerobot_plain(void **state) { hold_micro("lerobot", "plain"); }
static void lerobot_best(void **state) { hold_micro("lerobot", ""); }
static void openpi_plain(void **state) { hold_micro("openpi", "plain"); }
static void openpi_best(void **state) { hold_micro("openpi", ""); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lerobot_plain),
        cmocka_unit_test(lerobot_best),
        cmocka_unit_test(openpi_plain),
        cmocka_unit_test(openpi_best),
        cmocka_unit_test(memory_may_end_anywhere),
        cmocka_unit_test(names_are_what_is_given),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
