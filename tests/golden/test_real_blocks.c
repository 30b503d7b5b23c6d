// SPDX-License-Identifier: Apache-2.0
// One layer of each transformer at its released size, f32 and bf16, against the reference code's outputs. Weights are generated.
#include "golden/generator.h"

#include "model/pi0/pi0.h"
#include "policy/params.h"

typedef struct block {
    json_t *config;
    soma_safetensors *outputs;
    soma_device *device;
    soma_graph *graph;
    soma_params *params;
    soma_plan *plan;
    soma_frame *frame;
} block;

static void open_block(block *b, const char *name) {
    char folder[SOMA_PATH_MAX], path[SOMA_PATH_MAX + 32];
    if (!golden_folder(folder, name)) skip();
    *b = (block){0};
    soma_error err = {0};
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (soma__json_load(&b->config, path, &err)) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/outputs.safetensors", folder);
    if (soma__safetensors_open(&b->outputs, path, &err)) fail_msg("%s", err.text);
    if (soma__device_open(&b->device, "cpu", &(soma_device_opts){.threads = 2}, &err)) fail_msg("%s", err.text);
}

static void close_block(block *b) {
    soma__safetensors_close(b->outputs);
    soma__device_close(b->device);
    json_decref(b->config);
}

static void start(block *b) {
    soma_error err = {0};
    if (soma_graph_new(&b->graph, &err)) fail_msg("%s", err.text);
}

static void finish(block *b) {
    soma__frame_free(b->frame);
    soma__plan_free(b->plan);
    soma__params_free(b->params);
    soma_graph_free(b->graph);
}

static void put_as(block *b, const soma_slot *slot, const float *values, int64_t n) {
    void *to = (char *)b->params->memory + slot->place;
    if (slot->dtype == SOMA_F32) {
        b->device->kind->put(b->device, to, values, slot->size);
        return;
    }
    uint16_t *half = malloc(slot->size);
    assert_non_null(half);
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &values[i], sizeof u);
        half[i] = (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
    }
    b->device->kind->put(b->device, to, half, slot->size);
    free(half);
}

// Plans what was built, fills the weights from the generator and the inputs of the list by name.
static void compile_block(block *b, const char *const *inputs) {
    soma_error err = {0};
    const soma_graph *graph = b->graph;
    if (soma__params_new(&b->params, b->device, &graph, 1, &err)) fail_msg("%s", err.text);
    for (size_t s = 0; s < b->params->layout.n_slots; s++) {
        const soma_slot *slot = &b->params->layout.slots[s];
        int64_t n;
        float *values = generator_tensor(b->config, slot->name, &n);
        assert_int_equal((size_t)n * soma_dtype_size(slot->dtype), slot->size);
        put_as(b, slot, values, n);
        free(values);
    }
    if (soma__plan_new(&b->plan, b->graph, &b->params->layout, NULL, b->device, &err)) fail_msg("%s", err.text);
    if (soma__frame_new(&b->frame, b->plan, b->params->memory, NULL, NULL, &err)) fail_msg("%s", err.text);
    for (; *inputs; inputs++) {
        int64_t n;
        float *values = generator_tensor(b->config, *inputs, &n);
        if (soma__frame_put(b->frame, *inputs, values, (size_t)n * sizeof(float), &err)) fail_msg("%s", err.text);
        free(values);
    }
}

// allowed: of the largest error in f32, of the relative one in bf16; 0: it is only shown.
static void hold(block *b, const char *name, const char *reference, const uint8_t *rows, double allowed, bool bf16) {
    soma_error err = {0};
    const soma_safetensor *want = soma__safetensors_find(b->outputs, reference);
    assert_non_null(want);
    float *x = malloc(sizeof *x * (size_t)want->n_values), *y = golden_floats(want);
    if (soma__frame_get(b->frame, name, x, sizeof *x * (size_t)want->n_values, &err)) fail_msg("%s", err.text);
    golden_error e = golden_compare(x, y, want->n_values, want->shape[want->n_dims - 1], rows);
    print_message("%-32s max %.2g  relative %.2g", reference, e.max_abs, e.relative);
    if (allowed > 0) print_message("  allowed %.2g (%s)", allowed, bf16 ? "relative" : "max");
    print_message("\n");
    assert_true(allowed == 0 || (bf16 ? e.relative < allowed : e.max_abs < allowed));
    free(x);
    free(y);
}

// ---- SigLIP

static void siglip(bool bf16) {
    block b;
    open_block(&b, "siglip_block_real");
    start(&b);
    const soma_precision_rule rule = {"*", bf16 ? SOMA_PRECISION_BF16 : SOMA_PRECISION_F32};
    const soma_scope_spec spec = {.rules = &rule, .n_rules = 1};
    const soma_scope root = soma_scope_root(b.graph, &spec);
    const soma_vit_config c = {.width = 1152, .n_heads = 16, .mlp = 4304, .eps = 1e-6f};
    soma_tensor *x = soma_input(b.graph, "input", SOMA_F32, 3, (int64_t[]){1, 256, 1152});
    soma_output(soma_cast(soma_vit_block(&root, soma_cast(x, rule.precision.activation), &c), SOMA_F32), "out");
    compile_block(&b, (const char *const[]){"input", NULL});
    soma__frame_run(b.frame);
    hold(&b, "out", bf16 ? "out_bf16" : "out", NULL, bf16 ? 1e-2 : 3e-5, bf16);
    finish(&b);
    close_block(&b);
}

static void siglip_f32(void **state) { siglip(false); }
static void siglip_bf16(void **state) { siglip(true); }

// ---- Gemma, both experts together

static void put_i32(block *b, const char *name, const int32_t *values, int64_t n) {
    soma_error err = {0};
    if (soma__frame_put(b->frame, name, values, sizeof *values * (size_t)n, &err)) fail_msg("%s", err.text);
}

static soma_stream stream_of(soma_graph *g, const soma_scope *root, const soma_gemma *c, const char *scope, const char *input, int64_t T,
                             int64_t S) {
    char name[64];
    soma_stream s = {.c = c, .scope = soma_scope_in(root, "%s", scope)};
    snprintf(name, sizeof name, "%s_embs", input);
    s.x = soma_cast(soma_input(g, name, SOMA_F32, 3, (int64_t[]){1, T, c->width}), root->precision.activation);
    snprintf(name, sizeof name, "%s.position", input);
    s.pos = soma_input(g, name, SOMA_I32, 2, (int64_t[]){1, T});
    snprintf(name, sizeof name, "%s.q_block", input);
    s.mask.q_block = soma_input(g, name, SOMA_I32, 2, (int64_t[]){1, T});
    snprintf(name, sizeof name, "%s.k_block", input);
    s.mask.k_block = soma_input(g, name, SOMA_I32, 2, (int64_t[]){1, S});
    return s;
}

static void put_masks(block *b, int64_t S, int64_t T) {
    const uint8_t *pad = soma__safetensors_find(b->outputs, "pad_masks")->data,
                  *att = soma__safetensors_find(b->outputs, "att_masks")->data;
    const soma_safetensor *pos = soma__safetensors_find(b->outputs, "position_ids");
    int32_t at = 0, blocks[128], keys[128], positions[128];
    assert_true(S + T <= 128 && pos->dtype == SOMA_I32);
    memcpy(positions, pos->data, sizeof(int32_t) * (size_t)(S + T));
    for (int64_t i = 0; i < S + T; i++) {
        blocks[i] = at += att[i];
        keys[i] = pad[i] ? at : SOMA_BLOCK_NEVER;
    }
    put_i32(b, "prefix.position", positions, S);
    put_i32(b, "prefix.q_block", blocks, S);
    put_i32(b, "prefix.k_block", keys, S);
    put_i32(b, "suffix.position", positions + S, T);
    put_i32(b, "suffix.q_block", blocks + S, T);
    put_i32(b, "suffix.k_block", keys, S + T);
}

static float rounded(double x) { // to bf16 and back
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    u = (u + 0x7fffu + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&f, &u, sizeof f);
    return f;
}

// Our keys with the reference's rotation in place of ours: casting its module to bf16 rounds the frequencies, and after 800 positions that
// is a tenth of a key. (Sines and cosines, which it rounds too, hardly count.) Then they are the reference's.
static void hold_rounded_rotation(block *b, int64_t S, const uint8_t *pad) {
    enum { K = 256 };
    soma_error err = {0};
    const soma_safetensor *want = soma__safetensors_find(b->outputs, "bf16.k"), *pos = soma__safetensors_find(b->outputs, "position_ids");
    float *k = malloc(sizeof *k * (size_t)(S * K)), *theirs = golden_floats(want);
    if (soma__frame_get(b->frame, "k", k, sizeof *k * (size_t)(S * K), &err)) fail_msg("%s", err.text);
    for (int64_t t = 0; t < S; t++)
        for (int j = 0; j < K / 2; j++) {
            const double at = ((const int32_t *)pos->data)[t], f = pow(10000, -2.0 * j / K), c = cos(at * f), s = sin(at * f);
            const double c_rounded = rounded(cos(at * rounded(f))), s_rounded = rounded(sin(at * rounded(f)));
            float *x = &k[t * K + j], *y = x + K / 2;
            const double u = *x * c + *y * s, v = *y * c - *x * s; // before the rotation
            *x = (float)(u * c_rounded - v * s_rounded);
            *y = (float)(v * c_rounded + u * s_rounded);
        }
    golden_error e = golden_compare(k, theirs, S * K, K, pad);
    print_message("%-32s max %.2g  relative %.2g\n", "bf16.k, rounded frequencies", e.max_abs, e.relative);
    assert_true(e.relative < 2e-2);
    free(k);
    free(theirs);
}

static void gemma(bool pi05, bool bf16) {
    block b;
    open_block(&b, pi05 ? "gemma_block_real_pi05" : "gemma_block_real_pi0");
    start(&b);
    const int64_t S = 96, T = pi05 ? 10 : 11;
    const soma_gemma language = {.width = 2048, .mlp = 16384, .n_heads = 8, .n_kv_heads = 1, .head_dim = 256, .eps = 1e-6, .theta = 10000};
    const soma_gemma expert = {.width = 1024, .mlp = 4096, .n_heads = 8, .n_kv_heads = 1, .head_dim = 256, .eps = 1e-6, .theta = 10000};
    soma_precision_rule rules[PI0_RULES];
    pi0_precision_rules(bf16 ? SOMA_PRECISION_BF16 : SOMA_PRECISION_F32, rules);
    const soma_scope_spec spec = {.rules = rules, .n_rules = PI0_RULES};
    const soma_scope root = soma_scope_root(b.graph, &spec);
    soma_stream s[2] = {stream_of(b.graph, &root, &language, "language_model", "prefix", S, S),
                        stream_of(b.graph, &root, &expert, "gemma_expert", "suffix", T, S + T)};
    if (pi05) s[1].cond = soma_input(b.graph, "adarms_cond", SOMA_F32, 2, (int64_t[]){1, 1024});
    // once with both streams together, as in training, and once with the prefix first and its keys and values kept, as in acting
    static const bool all[2] = {false, false}, keys_only[2] = {true, false};
    soma_stream first[2] = {s[0]}, second[2] = {{0}, s[1]};
    soma_kv kv = pi0_trunk_layer(first, 0, (soma_kv){0}, keys_only);
    soma_output(soma_cast(soma_permute(kv.k, (int[]){0, 2, 1, 3}), SOMA_F32), "k");
    soma_output(soma_cast(soma_permute(kv.v, (int[]){0, 2, 1, 3}), SOMA_F32), "v");
    pi0_trunk_layer(second, 0, kv, all);
    soma_output(soma_cast(soma_gemma_norm(&second[1], second[1].scope, "norm", second[1].x).y, SOMA_F32), "cached_suffix_final_norm");
    pi0_trunk_layer(s, 0, (soma_kv){0}, all);
    soma_output(soma_cast(s[0].x, SOMA_F32), "prefix_layer_out");
    soma_output(soma_cast(s[1].x, SOMA_F32), "suffix_layer_out");
    soma_output(soma_cast(soma_gemma_norm(&s[1], s[1].scope, "norm", s[1].x).y, SOMA_F32), "suffix_final_norm");
    compile_block(&b, (const char *const[]){"prefix_embs", "suffix_embs", pi05 ? "adarms_cond" : NULL, NULL});
    put_masks(&b, S, T);
    soma__frame_run(b.frame);
    const uint8_t *pad = soma__safetensors_find(b.outputs, "pad_masks")->data;
    static const char *const names[] = {"k", "v", "prefix_layer_out", "suffix_layer_out", "suffix_final_norm", "cached_suffix_final_norm"};
    for (size_t i = 0; i < SOMA_COUNT(names); i++) {
        // Our bf16 is held against the f32 reference, and must be nearer to it than the reference's own bf16 is (1.7e-2 and more: it
        // also rounds the rotation's frequencies, which turns keys at position 800 by a tenth; we, like openpi's JAX code, do not).
        char reference[64];
        snprintf(reference, sizeof reference, "f32.%s", names[i]);
        hold(&b, names[i], reference, i < 3 ? pad : NULL, bf16 ? 1e-2 : 5e-5, bf16);
        if (!bf16) continue;
        // The reference's own bf16: within the README's 2e-2 but for what its rounded frequencies do, which is shown for the keys below;
        // pi0's suffix, which reads them, is 2.3e-2 from it, as far as it is itself from f32.
        snprintf(reference, sizeof reference, "bf16.%s", names[i]);
        hold(&b, names[i], reference, i < 3 ? pad : NULL, i && (i < 3 || pi05) ? 2e-2 : 0, true);
    }
    if (bf16) hold_rounded_rotation(&b, S, pad);
    finish(&b);
    close_block(&b);
}

static void gemma_pi0_f32(void **state) { gemma(false, false); }
static void gemma_pi05_f32(void **state) { gemma(true, false); }
static void gemma_pi0_bf16(void **state) { gemma(false, true); }
static void gemma_pi05_bf16(void **state) { gemma(true, true); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(siglip_f32),     cmocka_unit_test(siglip_bf16),    cmocka_unit_test(gemma_pi0_f32),
        cmocka_unit_test(gemma_pi05_f32), cmocka_unit_test(gemma_pi0_bf16), cmocka_unit_test(gemma_pi05_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
