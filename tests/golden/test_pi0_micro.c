// SPDX-License-Identifier: Apache-2.0
// pi0 and pi0.5 of a few numbers against an independent float64 program (tools/golden_pi0_micro.py), through a checkpoint that is written
// and read on the way: prefix, keys, one velocity, the sampler, the loss, and the slope of the loss along a direction in all weights.
#include "golden/generator.h"

#include "base/hash.h"
#include "policy/params.h"
#include "policy/trace.h"

#include <unistd.h>

static const char *const config_text =
    "{\"model_type\": \"%s\", \"camera_order\": [\"scene\", \"wrist\"], \"action_horizon\": 3, \"action_dim\": 3, \"max_token_len\": 4,"
    " \"vocab_size\": 10,"
    " \"paligemma\": {\"width\": 8, \"depth\": 2, \"mlp_dim\": 12, \"num_heads\": 4, \"num_kv_heads\": 2, \"head_dim\": 4},"
    " \"action_expert\": {\"width\": 6, \"depth\": 2, \"mlp_dim\": 10, \"num_heads\": 4, \"num_kv_heads\": 2, \"head_dim\": 4},"
    " \"vision\": {\"hidden_size\": 8, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 12, \"patch_size\": 4,"
    " \"image_size\": 8}}";

typedef struct micro {
    char folder[64];
    soma_device *device;
    soma_model *model;
    soma_params *params;
} micro;

static uint64_t seed_of(const char *name) { return soma__hash(SOMA_HASH_START, name, strlen(name)); }

static float *hashed(const char *name, int64_t n, float scale) {
    float *values = malloc(sizeof *values * (size_t)n);
    assert_non_null(values);
    for (int64_t i = 0; i < n; i++) values[i] = generator_value(seed_of(name), (uint64_t)i, scale, 0);
    return values;
}

static void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

// A folder as a trace takes it: the config as the family writes it, and every weight 0.5 times its hash.
static void write_policy(micro *m) {
    soma_error err = {0};
    char path[128];
    json_t *config = m->model->family->config(m->model);
    snprintf(path, sizeof path, "%s/config.json", m->folder);
    ok(soma__json_save(config, path, &err), &err);
    json_decref(config);
    soma_graph *graphs[2];
    for (int i = 0; i < 2; i++) {
        soma_build b = soma__build_defaults(i ? SOMA_PROGRAM_DENOISE : SOMA_PROGRAM_ENCODE, 1);
        b.whole = true;
        ok(soma_graph_new(&graphs[i], &err), &err);
        m->model->family->build(m->model, &b, graphs[i]);
    }
    ok(soma__params_new(&m->params, m->device, (const soma_graph *const *)graphs, 2, &err), &err);
    for (size_t s = 0; s < m->params->layout.n_slots; s++) {
        const soma_slot *slot = &m->params->layout.slots[s];
        float *values = hashed(slot->name, (int64_t)(slot->size / sizeof(float)), 0.5f);
        m->device->kind->put(m->device, (char *)m->params->memory + slot->place, values, slot->size);
        free(values);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", m->folder);
    ok(soma__params_save(m->params, NULL, path, NULL, &err), &err);
    soma__params_free(m->params);
    soma_graph_free(graphs[0]);
    soma_graph_free(graphs[1]);
}

enum { LONGEST = 7 };

// L: how long the prompts are padded to; the reference's have 4.
static void write_inputs(const micro *m, int64_t L) {
    static const uint8_t scene[] = {1, 1}, wrist[] = {0, 1};
    static const int32_t prompts[2][LONGEST] = {{1, 9, 3}, {4, 2}};
    int32_t tokens[2 * LONGEST];
    uint8_t token_mask[2 * LONGEST];
    for (int64_t i = 0; i < 2 * L; i++) {
        tokens[i] = prompts[i / L][i % L];
        token_mask[i] = i % L < (i < L ? 3 : 2);
    }
    static const float time[] = {0.25f, 0.8125f};
    const struct {
        const char *name;
        int n_dims;
        int64_t shape[4];
        float scale;
    } floats[] = {{"image.scene", 4, {2, 3, 8, 8}, 1},
                  {"image.wrist", 4, {2, 3, 8, 8}, 1},
                  {"state", 2, {2, 3}, 1},
                  {"noise", 3, {2, 3, 3}, 1.5f},
                  {"actions", 3, {2, 3, 3}, 1}};
    soma_safetensor t[10] = {
        {.name = "image_mask.scene", .dtype = SOMA_U8, .n_dims = 1, .shape = {2}, .data = scene},
        {.name = "image_mask.wrist", .dtype = SOMA_BOOL, .n_dims = 1, .shape = {2}, .data = wrist},
        {.name = "token_mask", .dtype = SOMA_U8, .n_dims = 2, .shape = {2, L}, .data = token_mask},
        {.name = "tokens", .dtype = SOMA_I32, .n_dims = 2, .shape = {2, L}, .data = tokens},
        {.name = "train_time", .dtype = SOMA_F32, .n_dims = 1, .shape = {2}, .data = time},
    };
    for (size_t i = 0; i < SOMA_COUNT(floats); i++) {
        int64_t n = 1;
        for (int k = 0; k < floats[i].n_dims; k++) n *= floats[i].shape[k];
        t[5 + i] = (soma_safetensor){
            .name = floats[i].name, .dtype = SOMA_F32, .n_dims = floats[i].n_dims, .data = hashed(floats[i].name, n, floats[i].scale)};
        memcpy(t[5 + i].shape, floats[i].shape, sizeof floats[i].shape);
    }
    soma_error err = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/inputs.safetensors", m->folder);
    ok(soma__safetensors_write(path, t, SOMA_COUNT(t), NULL, &err), &err);
    for (size_t i = 0; i < SOMA_COUNT(floats); i++) free((void *)t[5 + i].data);
}

// The slope along the direction in which every weight moves by its second hash, from the gradients.
static double slope(const soma_trace *trace) {
    double sum = 0;
    for (size_t i = 0; i < trace->n_tensors; i++) {
        const soma_safetensor *t = &trace->tensors[i];
        if (strncmp(t->name, "b2.", 3)) continue;
        char name[600];
        int64_t n = 1;
        for (int k = 0; k < t->n_dims; k++) n *= t->shape[k];
        snprintf(name, sizeof name, "%s.direction", t->name + 3);
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
    const double off = soma__safetensor_difference(got, want, soma__trace_rows(trace, want->name)).max_abs;
    if (!(off <= 1e-5)) fail_msg("%s is off by %.3g, allowed are 1e-5", want->name, off);
}

static micro open_micro(const char *type, const char *isa, int64_t L) {
    micro m = {.folder = "/tmp/soma_micro_XXXXXX"};
    soma_error err = {0};
    char text[2000];
    json_t *config = NULL;
    assert_non_null(mkdtemp(m.folder));
    snprintf(text, sizeof text, config_text, type);
    ok(soma__json_parse(&config, text, strlen(text), "the test's config", &err), &err);
    ok(soma__model_new(&m.model, config, "the test's config", &err), &err);
    ok(soma__device_open(&m.device, "cpu", &(soma_device_opts){.threads = 1, .isa = isa}, &err), &err);
    json_decref(config);
    write_policy(&m);
    write_inputs(&m, L);
    return m;
}

static void close_micro(micro *m) {
    soma__device_close(m->device);
    soma__model_free(m->model);
    soma__dir_remove(m->folder, NULL);
}

static soma_safetensors *open_inputs(const micro *m) {
    char path[128];
    soma_error err = {0};
    soma_safetensors *inputs = NULL;
    snprintf(path, sizeof path, "%s/inputs.safetensors", m->folder);
    ok(soma__safetensors_open(&inputs, path, &err), &err);
    return inputs;
}

static void hold_micro(const char *type, const char *isa, int64_t L) {
    micro m = open_micro(type, isa, L);
    soma_error err = {0};
    soma_safetensors *inputs = open_inputs(&m), *reference = NULL;
    soma_trace trace = {0};
    char path[SOMA_PATH_MAX];
    snprintf(path, sizeof path, SOMA_SOURCE_DIR "/tests/golden/data/%s_micro.safetensors", type);
    ok(soma__safetensors_open(&reference, path, &err), &err);
    ok(soma__trace_run(&trace, m.folder, inputs, &(soma_trace_opts){.dtype = "f32", .grads = true}, m.device, &err), &err);
    for (size_t i = 0; i < soma__safetensors_count(reference); i++) {
        const soma_safetensor *want = soma__safetensors_at(reference, i);
        if (L == 4 || strncmp(want->name, "prefix", 6)) hold(&trace, want); // in a longer prefix the same rows stand elsewhere
    }
    soma__trace_free(&trace);
    soma__safetensors_close(inputs);
    soma__safetensors_close(reference);
    close_micro(&m);
}

// Wherever memory runs out, a sentence comes back and nothing is lost (the sanitizers watch).
static void memory_may_end_anywhere(void **state) {
    micro m = open_micro("pi05", "", 4);
    soma_safetensors *inputs = open_inputs(&m);
    const soma_trace_opts o = {.dtype = "f32", .grads = true};
    int64_t n = 0;
    for (soma_status status = SOMA_NO_MEMORY; status != SOMA_OK; n++) {
        soma_trace trace = {0};
        soma_error err = {0};
        soma__alloc_fail_after(n);
        status = soma__trace_run(&trace, m.folder, inputs, &o, m.device, &err);
        soma__alloc_fail_after(-1);
        if (status != SOMA_OK && status != SOMA_NO_MEMORY)
            fail_msg("allocation %lld: %s: %s", (long long)n, soma_status_word(status), err.text);
        if (status != SOMA_OK) assert_true(*err.text);
        soma__trace_free(&trace);
    }
    assert_true(n > 50);
    print_message("%lld allocations failed in turn\n", (long long)n - 1);
    soma__safetensors_close(inputs);
    close_micro(&m);
}

static void names_need_no_weights(void **state) {
    micro m = open_micro("pi0", "", 4);
    char path[128];
    soma_trace trace = {0}, ran = {0};
    soma_error err = {0};
    soma_safetensors *inputs = open_inputs(&m);
    ok(soma__trace_run(&ran, m.folder, inputs, &(soma_trace_opts){.dtype = "f32"}, m.device, &err), &err);
    snprintf(path, sizeof path, "%s/model.safetensors", m.folder);
    assert_int_equal(unlink(path), 0);
    ok(soma__trace_run(&trace, m.folder, NULL, &(soma_trace_opts){.dtype = "f32", .names_only = true}, m.device, &err), &err);
    assert_int_equal(trace.n_tensors, ran.n_tensors); // what is listed is what is given
    for (size_t i = 0; i < trace.n_tensors; i++) assert_string_equal(trace.tensors[i].name, ran.tensors[i].name);
    assert_int_equal(trace.n_inputs, 11);
    soma__trace_free(&trace);
    soma__trace_free(&ran);
    soma__safetensors_close(inputs);
    close_micro(&m);
}

static void pi0_plain(void **state) { hold_micro("pi0", "plain", 4); }
static void pi0_best(void **state) { hold_micro("pi0", "", 4); }
static void pi05_plain(void **state) { hold_micro("pi05", "plain", 4); }
static void pi05_best(void **state) { hold_micro("pi05", "", 4); }
static void prompts_of_any_length(void **state) { // masked places change nothing, and the config's length is not asked
    hold_micro("pi0", "", LONGEST);
    hold_micro("pi05", "", 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pi0_plain),
        cmocka_unit_test(pi0_best),
        cmocka_unit_test(pi05_plain),
        cmocka_unit_test(pi05_best),
        cmocka_unit_test(prompts_of_any_length),
        cmocka_unit_test(memory_may_end_anywhere),
        cmocka_unit_test(names_need_no_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
