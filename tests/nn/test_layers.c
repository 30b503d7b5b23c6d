// SPDX-License-Identifier: Apache-2.0
// Layers and scopes: names, precision by glob, adapters, frozen weights, and the formulas that no golden model covers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device/device.h"
#include "nn/nn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench {
    soma_device *device;
    soma_graph *graph;
    soma_layout layout, frozen;
    void *weights, *grads, *still;
    soma_plan *plan;
    soma_frame *frame;
} bench;

static void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

static bench open_bench(void) {
    bench b = {0};
    soma_error err = {0};
    ok(soma__device_open(&b.device, "cpu", &(soma_device_opts){.threads = 1}, &err), &err);
    ok(soma_graph_new(&b.graph, &err), &err);
    return b;
}

static void compile_bench(bench *b) {
    soma_error err = {0};
    ok(soma__layout_add(&b->layout, b->graph, SOMA_ROLE_WEIGHT, &err), &err);
    ok(soma__layout_add(&b->frozen, b->graph, SOMA_ROLE_FROZEN, &err), &err);
    b->layout.frozen = &b->frozen;
    ok(b->device->kind->alloc(b->device, &b->still, b->frozen.size, &err), &err);
    ok(b->device->kind->alloc(b->device, &b->weights, b->layout.size, &err), &err);
    ok(b->device->kind->alloc(b->device, &b->grads, b->layout.size, &err), &err);
    ok(soma__plan_new(&b->plan, b->graph, &b->layout, NULL, b->device, &err), &err);
    ok(soma__frame_new(&b->frame, b->plan, b->weights, b->grads, NULL, &err), &err);
    b->frame->buffers[SOMA_ROLE_FROZEN] = b->still;
}

static void close_bench(bench *b) {
    soma__frame_free(b->frame);
    soma__plan_free(b->plan);
    if (b->weights) b->device->kind->free(b->device, b->weights);
    if (b->grads) b->device->kind->free(b->device, b->grads);
    if (b->still) b->device->kind->free(b->device, b->still);
    soma__layout_free(&b->layout);
    soma__layout_free(&b->frozen);
    soma_graph_free(b->graph);
    soma__device_close(b->device);
}

static void set(bench *b, const char *weight, const float *values) {
    const soma_slot *slot = soma__layout_find(&b->layout, weight), *frozen = soma__layout_find(&b->frozen, weight);
    if (!slot && !frozen) fail_msg("there is no weight %s", weight);
    char *to = slot ? (char *)b->weights + slot->place : (char *)b->still + frozen->place;
    b->device->kind->put(b->device, to, values, slot ? slot->size : frozen->size);
}

static void put(bench *b, const char *name, const float *values, size_t n) {
    soma_error err = {0};
    ok(soma__frame_put(b->frame, name, values, n * sizeof *values, &err), &err);
}

static void get(bench *b, const char *name, float *values, size_t n) {
    soma_error err = {0};
    ok(soma__frame_get(b->frame, name, values, n * sizeof *values, &err), &err);
}

static const soma_precision_rule all_f32 = {"*", {SOMA_F32, SOMA_F32, SOMA_F32}};
static const soma_scope_spec plain = {.rules = &all_f32, .n_rules = 1};

// ---- scopes

static void names_and_precision(void **state) {
    bench b = open_bench();
    const soma_precision_rule rules[] = {
        {"*", SOMA_PRECISION_BF16}, {"*norm*", {SOMA_F32, SOMA_BF16, SOMA_F32}}, {"tower.*.special", SOMA_PRECISION_F32}};
    const char *const frozen[] = {"tower.*"};
    const soma_scope_spec spec = {.rules = rules, .n_rules = 3, .frozen = frozen, .n_frozen = 1};
    const soma_scope root = soma_scope_root(b.graph, &spec);
    const soma_scope *layer = soma_scope_in(soma_scope_in(&root, "tower"), "layers.%d", 3);
    assert_string_equal(layer->name, "tower.layers.3");
    soma_tensor *x = soma_input(b.graph, "x", SOMA_F32, 3, (int64_t[]){1, 2, 4});
    soma_tensor *y = soma_linear(layer, "up", x, 6, true);
    assert_int_equal(y->dtype, SOMA_BF16); // the scope's activation, whatever came in
    assert_int_equal(soma_rms_norm(layer, "input_norm", y, 1e-6f)->dtype, SOMA_BF16);
    assert_int_equal(soma_linear(layer, "special", y, 2, false)->dtype, SOMA_F32);
    assert_int_equal(soma_linear(&root, "head", y, 2, false)->dtype, SOMA_BF16);
    soma_error err = {0};
    soma_layout still = {0};
    ok(soma__layout_add(&b.layout, b.graph, SOMA_ROLE_WEIGHT, &err), &err);
    ok(soma__layout_add(&still, b.graph, SOMA_ROLE_FROZEN, &err), &err);
    const struct {
        const char *name;
        soma_dtype dtype;
        const soma_layout *in;
    } wanted[] = {{"tower.layers.3.up.weight", SOMA_BF16, &still},
                  {"tower.layers.3.up.bias", SOMA_BF16, &still},
                  {"tower.layers.3.input_norm.weight", SOMA_F32, &still},
                  {"tower.layers.3.special.weight", SOMA_F32, &still},
                  {"head.weight", SOMA_BF16, &b.layout}};
    assert_int_equal(b.layout.n_slots + still.n_slots, SOMA_COUNT(wanted));
    for (size_t i = 0; i < SOMA_COUNT(wanted); i++) {
        const soma_slot *slot = soma__layout_find(wanted[i].in, wanted[i].name);
        if (!slot) fail_msg("there is no weight %s", wanted[i].name);
        assert_int_equal(slot->dtype, wanted[i].dtype);
    }
    soma__layout_free(&still);
    close_bench(&b);
}

// A mistake of shapes is told by the plan, with the weight it happened at, and nothing crashes on the way there.
static void mistakes_are_told(void **state) {
    bench b = open_bench();
    const soma_scope root = soma_scope_root(b.graph, &plain);
    soma_tensor *x = soma_input(b.graph, "x", SOMA_F32, 3, (int64_t[]){1, 2, 6});
    soma_tensor *h = soma_heads(soma_linear(&root, "q_proj", x, 10, false), 4); // 10 is no multiple of 4
    h = soma_merge_heads(soma_attention(&root, h, h, h, (soma_mask){0}));
    h = soma_gated_mlp(&root, soma_layer_norm(&root, "n", h, 1e-6f), 8, SOMA_UNARY_GELU);
    h = soma_ada_rms_norm(&root, "a", h, soma_mlp(&root, h, 3), 1e-6f).y;
    soma_output(soma_repeat_rows(h, 3), "y");
    soma_plan *plan = NULL;
    soma_error err = {0};
    assert_int_equal(soma__plan_new(&plan, b.graph, NULL, NULL, b.device, &err), SOMA_BAD_GRAPH);
    if (!strstr(err.text, "heads") || !strstr(err.text, "q_proj")) fail_msg("%s", err.text);
    close_bench(&b);
}

// ---- adapters

static void adapter_adds_its_product(void **state) {
    bench b = open_bench();
    const soma_adapter adapter = {.glob = "layer.*_proj", .rank = 2, .scale = 1.5f};
    const soma_scope_spec spec = {.rules = &all_f32, .n_rules = 1, .adapters = &adapter, .n_adapters = 1};
    const soma_scope root = soma_scope_root(b.graph, &spec);
    const soma_scope *layer = soma_scope_in(&root, "layer");
    soma_tensor *x = soma_input(b.graph, "x", SOMA_F32, 2, (int64_t[]){1, 2});
    soma_output(soma_linear(layer, "q_proj", x, 2, true), "with");
    soma_output(soma_linear(layer, "other", x, 2, false), "without");
    compile_bench(&b);
    set(&b, "layer.q_proj.weight", (float[]){1, 0, 0, 1});
    set(&b, "layer.q_proj.bias", (float[]){10, 20});
    set(&b, "layer.q_proj.lora_A.weight", (float[]){1, 1, 0, 2}); // A x = (x0 + x1, 2 x1)
    set(&b, "layer.q_proj.lora_B.weight", (float[]){1, 0, 1, 1}); // B u = (u0, u0 + u1)
    set(&b, "layer.other.weight", (float[]){1, 0, 0, 1});
    put(&b, "x", (float[]){3, 4}, 2);
    soma__frame_run(b.frame);
    float y[2];
    get(&b, "with", y, 2); // A x = (7, 8); B A x = (7, 15)
    assert_float_equal(y[0], 3 + 10 + 1.5f * 7, 1e-6f);
    assert_float_equal(y[1], 4 + 20 + 1.5f * 15, 1e-6f);
    get(&b, "without", y, 2);
    assert_float_equal(y[0], 3, 0);
    assert_int_equal(b.layout.n_slots, 5);
    close_bench(&b);
}

// Only the pair is trained when the rest is frozen: there is no room for other gradients.
static void frozen_weights_get_no_gradient(void **state) {
    bench b = open_bench();
    const soma_adapter adapter = {.glob = "*", .rank = 1, .scale = 1};
    const char *const frozen[] = {"proj*"}; // the pair, too, by its name; it is trained nevertheless
    const soma_scope_spec spec = {.rules = &all_f32, .n_rules = 1, .adapters = &adapter, .n_adapters = 1, .frozen = frozen, .n_frozen = 1};
    const soma_scope root = soma_scope_root(b.graph, &spec);
    soma_tensor *x = soma_input(b.graph, "x", SOMA_F32, 2, (int64_t[]){1, 2});
    soma_tensor *loss = soma_mean_all(soma_apply(soma_linear(&root, "proj", x, 2, false), SOMA_UNARY_SQUARE));
    soma_output(loss, "loss");
    soma_backward(loss, NULL, 0, NULL);
    compile_bench(&b);
    set(&b, "proj.weight", (float[]){1, 2, 3, 4});
    set(&b, "proj.lora_A.weight", (float[]){1, -1});
    set(&b, "proj.lora_B.weight", (float[]){2, 5});
    put(&b, "x", (float[]){1, 3}, 2);
    soma__frame_run(b.frame);
    // A x = -2, y = W x + B (A x) = (7 - 4, 15 - 10) = (3, 5); dL/dy = y; dB = y (A x) = (-6, -10); dA = (B . y) x = 31 (1, 3)
    const float *g = (const float *)((char *)b.grads + soma__layout_find(&b.layout, "proj.lora_B.weight")->place);
    assert_float_equal(g[0], -6, 1e-5f);
    assert_float_equal(g[1], -10, 1e-5f);
    g = (const float *)((char *)b.grads + soma__layout_find(&b.layout, "proj.lora_A.weight")->place);
    assert_float_equal(g[0], 31, 1e-4f);
    assert_float_equal(g[1], 93, 1e-4f);
    assert_null(soma__layout_find(&b.layout, "proj.weight"));
    assert_int_equal(b.layout.n_slots, 2);
    close_bench(&b);
}

// ---- formulas

static void adaptive_norm(void **state) {
    bench b = open_bench();
    const soma_scope root = soma_scope_root(b.graph, &plain);
    soma_tensor *x = soma_input(b.graph, "x", SOMA_F32, 3, (int64_t[]){1, 1, 2}),
                *cond = soma_input(b.graph, "cond", SOMA_F32, 2, (int64_t[]){1, 1});
    soma_normed n = soma_ada_rms_norm(&root, "norm", x, cond, 1e-6f);
    soma_output(n.y, "y");
    soma_output(n.gate, "gate");
    compile_bench(&b);
    set(&b, "norm.dense.weight", (float[]){1, 2, 3, 4, 5, 6}); // scale (1, 2), shift (3, 4), gate (5, 6), times cond
    set(&b, "norm.dense.bias", (float[]){0, 0, 0, 0, 0, 0.5f});
    put(&b, "x", (float[]){3, 4}, 2);
    put(&b, "cond", (float[]){0.5f}, 1);
    soma__frame_run(b.frame);
    float y[2], gate[2], rms = sqrtf(12.5f);
    get(&b, "y", y, 2);
    get(&b, "gate", gate, 2);
    assert_float_equal(y[0], 3 / rms * 1.5f + 1.5f, 1e-5f);
    assert_float_equal(y[1], 4 / rms * 2 + 2, 1e-5f);
    assert_float_equal(gate[0], 2.5f, 0);
    assert_float_equal(gate[1], 3.5f, 0); // not squashed
    close_bench(&b);
}

// Bytes as cameras give them and floats as published models take them are the same picture.
static void patches_of_bytes_and_floats(void **state) {
    enum { SIDE = 4, P = 2, D = 3, N = 2 };
    bench b = open_bench();
    const soma_scope root = soma_scope_root(b.graph, &plain);
    soma_tensor *u = soma_input(b.graph, "bytes", SOMA_U8, 4, (int64_t[]){N, SIDE, SIDE, 3});
    soma_tensor *f = soma_input(b.graph, "floats", SOMA_F32, 4, (int64_t[]){N, 3, SIDE, SIDE});
    soma_output(soma_patch_embed(&root, "patch", u, P, D), "from_bytes");
    soma_output(soma_patch_embed(&root, "patch", f, P, D), "from_floats");
    compile_bench(&b);
    uint8_t bytes[N * SIDE * SIDE * 3];
    float floats[N * SIDE * SIDE * 3], kernel[D * 3 * P * P], bias[D] = {0.5f, -1, 2}, x[N * 4 * D], y[N * 4 * D];
    for (int i = 0; i < D * 3 * P * P; i++) kernel[i] = sinf((float)i);
    for (int n = 0; n < N; n++)
        for (int p = 0; p < SIDE * SIDE; p++)
            for (int c = 0; c < 3; c++) {
                uint8_t v = (uint8_t)((n * 91 + p * 37 + c * 53) % 256);
                bytes[(n * SIDE * SIDE + p) * 3 + c] = v;
                floats[(n * 3 + c) * SIDE * SIDE + p] = (float)v / 255 * 2 - 1;
            }
    set(&b, "patch.weight", kernel);
    set(&b, "patch.bias", bias);
    soma_error err = {0};
    ok(soma__frame_put(b.frame, "bytes", bytes, sizeof bytes, &err), &err);
    put(&b, "floats", floats, SOMA_COUNT(floats));
    soma__frame_run(b.frame);
    get(&b, "from_bytes", x, SOMA_COUNT(x));
    get(&b, "from_floats", y, SOMA_COUNT(y));
    for (size_t i = 0; i < SOMA_COUNT(x); i++) assert_float_equal(x[i], y[i], 1e-5f);
    // picture 1, the patch at row 0, column 1, output 2, by hand
    float sum = bias[2];
    for (int c = 0; c < 3; c++)
        for (int r = 0; r < P; r++)
            for (int q = 0; q < P; q++) sum += kernel[((2 * 3 + c) * P + r) * P + q] * floats[(3 + c) * SIDE * SIDE + r * SIDE + P + q];
    assert_float_equal(y[(4 + 1) * D + 2], sum, 1e-5f);
    close_bench(&b);
}

static void repeated_rows(void **state) {
    bench b = open_bench();
    soma_tensor *x = soma_input(b.graph, "x", SOMA_F32, 3, (int64_t[]){2, 1, 2});
    assert_ptr_equal(soma_repeat_rows(x, 1), x);
    soma_tensor *y = soma_repeat_rows(x, 3);
    assert_int_equal(y->shape[0], 6);
    soma_output(y, "y");
    compile_bench(&b);
    put(&b, "x", (float[]){1, 2, 3, 4}, 4);
    soma__frame_run(b.frame);
    float out[12];
    get(&b, "y", out, 12);
    for (int i = 0; i < 12; i++) assert_float_equal(out[i], (float)(i / 6 * 2 + i % 2 + 1), 0);
    close_bench(&b);
}

// A ramp, by the transcription of SmolVLM's reshapes: token (i, j) holds the patches (2 i + a, 2 j + b), row by row, each with its values.
static void pixel_shuffle(void **state) {
    enum { N = 2, SIDE = 4, D = 3, BY = 2, HALF = SIDE / BY };
    bench b = open_bench();
    float x[N * SIDE * SIDE * D], y[N * SIDE * SIDE * D];
    for (size_t i = 0; i < SOMA_COUNT(x); i++) x[i] = (float)i;
    soma_output(soma_pixel_shuffle(soma_input(b.graph, "x", SOMA_F32, 3, (int64_t[]){N, SIDE * SIDE, D}), BY), "y");
    compile_bench(&b);
    put(&b, "x", x, SOMA_COUNT(x));
    soma__frame_run(b.frame);
    get(&b, "y", y, SOMA_COUNT(y));
    const float *at = y;
    for (int n = 0; n < N; n++)
        for (int token = 0; token < HALF * HALF; token++)
            for (int patch = 0; patch < BY * BY; patch++)
                for (int d = 0; d < D; d++) {
                    const int row = token / HALF * BY + patch / BY, column = token % HALF * BY + patch % BY;
                    assert_true(*at++ == x[((n * SIDE + row) * SIDE + column) * D + d]);
                }
    close_bench(&b);
    b = open_bench();
    soma_pixel_shuffle(soma_input(b.graph, "x", SOMA_F32, 3, (int64_t[]){1, 16, 3}), 3); // 3 does not divide 4
    assert_int_not_equal(b.graph->error.code, SOMA_OK);
    assert_non_null(strstr(b.graph->error.text, "square"));
    close_bench(&b);
}

// Llama's: w x / rms(x), and silu(gate x) * up x. Gemma's of the same weights are something else.
static void llama_formulas(void **state) {
    enum { D = 2 };
    bench b = open_bench();
    const soma_scope root = soma_scope_root(b.graph, &plain);
    soma_tensor *x = soma_input(b.graph, "x", SOMA_F32, 2, (int64_t[]){1, D});
    soma_output(soma_scaled_rms_norm(&root, "norm", x, 0), "n");
    soma_output(soma_gated_mlp(&root, x, 1, SOMA_UNARY_SILU), "m");
    compile_bench(&b);
    const float in[D] = {3, -4}, w[D] = {0.5f, 2}, gate[D] = {1, 0}, up[D] = {0, 1}, down[D] = {1, -2};
    set(&b, "norm.weight", w);
    set(&b, "gate_proj.weight", gate);
    set(&b, "up_proj.weight", up);
    set(&b, "down_proj.weight", down);
    put(&b, "x", in, D);
    soma__frame_run(b.frame);
    float n[D], m[D];
    get(&b, "n", n, D);
    get(&b, "m", m, D);
    const double rms = sqrt(12.5), h = 3 / (1 + exp(-3.0)) * -4;
    assert_float_equal(n[0], 0.5 * 3 / rms, 1e-6);
    assert_float_equal(n[1], 2 * -4 / rms, 1e-6);
    assert_float_equal(m[0], h, 1e-5);
    assert_float_equal(m[1], -2 * h, 1e-5);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_precision),
        cmocka_unit_test(mistakes_are_told),
        cmocka_unit_test(adapter_adds_its_product),
        cmocka_unit_test(frozen_weights_get_no_gradient),
        cmocka_unit_test(adaptive_norm),
        cmocka_unit_test(patches_of_bytes_and_floats),
        cmocka_unit_test(repeated_rows),
        cmocka_unit_test(pixel_shuffle),
        cmocka_unit_test(llama_formulas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
