// SPDX-License-Identifier: Apache-2.0
// pi0 and pi0.5 against openpi's PyTorch code, openpi's JAX code and LeRobot's, tensor by tensor: every intermediate of the prefix, the
// sampler, the training loss and all gradients. Tolerances are those of the goldens' README, which were measured between two independent
// executions of the reference.
#include "golden/traced.h"

static double tolerance(const char *name) {
    bool ours = !strncmp(name, "sample.", 7) && strstr(name, ".x_t"); // as the actions: the sum of the steps before
    if (ours || !strncmp(name, "actions", 7)) return 2e-5;
    if (!strcmp(name, "train.grad_global_norm")) return 1e-4;
    if (!strcmp(name, "train.loss_elementwise")) return 1e-4; // (v - u)^2, |v - u| up to 5.5: 2 |v - u| times v_t's 1e-5
    return 1e-5;
}

// The plain kernels are the specification and are held against the reference; what is fast is held against the plain ones. (Both f32
// computations lie some 8e-6 from the f64 one after four layers, the plain kernels with their f64 sums 1.5e-6: the reference and a fast
// kernel may be 1e-5 apart with nothing wrong in either.)
static void hold_fast(const traced *fast, const traced *plain) {
    for (size_t i = 0; i < plain->trace.n_tensors; i++) {
        const soma_safetensor *want = &plain->trace.tensors[i];
        bool grad = want->name[0] == 'b' && want->name[2] == '.'; // all of them are held against the reference's
        if (want->dtype != SOMA_F32 || grad) continue;
        soma_difference d = soma__safetensor_difference(traced_find(fast, want->name), want, NULL);
        if (!(d.max_abs <= tolerance(want->name))) fail_msg("%s: fast kernels are off by %.3g from the plain ones", want->name, d.max_abs);
    }
}

static void hold_openpi(const char *folder) {
    char file[160];
    const soma_trace_opts o = {.dtype = "f32", .grads = true, .time = "openpi"};
    traced plain = traced_run(folder, "inputs.safetensors", "plain", &o), fast = traced_run(folder, "inputs.safetensors", "", &o);
    snprintf(file, sizeof file, "%s/outputs.safetensors", folder);
    soma_safetensors *outputs = golden_open(file);
    snprintf(file, sizeof file, "%s/grads.safetensors", folder);
    soma_safetensors *grads = golden_open(file);
    const double norm = *(const float *)golden_find(outputs, "train.grad_global_norm")->data;
    for (size_t i = 0; i < soma__safetensors_count(outputs); i++) {
        const soma_safetensor *want = soma__safetensors_at(outputs, i);
        traced_hold(&plain, outputs, want, GOLDEN_MAX, tolerance(want->name));
    }
    traced_hold_grads(&plain, grads, norm);
    traced_hold_grads(&fast, grads, norm);
    hold_fast(&fast, &plain);
    soma__trace_free(&plain.trace);
    soma__trace_free(&fast.trace);
    soma__safetensors_close(outputs);
    soma__safetensors_close(grads);
}

// LeRobot's code on the same weights: its own times give its own actions, and openpi's times do not.
static void hold_lerobot(const char *folder) {
    char file[160];
    snprintf(file, sizeof file, "%s/outputs_lerobot.safetensors", folder);
    traced own = traced_run(folder, "inputs.safetensors", "plain", &(soma_trace_opts){.dtype = "f32", .time = "lerobot"}),
           other = traced_run(folder, "inputs.safetensors", "plain", &(soma_trace_opts){.dtype = "f32", .time = "openpi"});
    soma_safetensors *st = golden_open(file);
    traced_hold(&own, st, golden_find(st, "actions"), GOLDEN_MAX, tolerance("actions"));
    traced_hold(&own, st, golden_find(st, "train.loss_elementwise"), GOLDEN_MAX, tolerance("train.loss_elementwise"));
    double off = soma__safetensor_difference(traced_find(&other, "actions"), golden_find(st, "actions"), NULL).max_abs;
    print_message("%s: with openpi's times LeRobot's actions are off by %.2g\n", folder, off);
    assert_true(off > tolerance("actions"));
    soma__trace_free(&own.trace);
    soma__trace_free(&other.trace);
    soma__safetensors_close(st);
}

// openpi's JAX code embeds the time in f32. Its fastest sine turns 2 pi / 0.004 = 1571 times as fast as t, an angle that f32 holds to 6e-5:
// what depends on it gets the 2e-4 that the README allows the actions for that.
static void hold_jax(const char *folder) {
    char file[160];
    snprintf(file, sizeof file, "%s/outputs_jaxsrc.safetensors", folder);
    traced t = traced_run(folder, "inputs.safetensors", "plain", &(soma_trace_opts){.dtype = "f32", .time = "openpi"});
    soma_safetensors *st = golden_open(file);
    for (size_t i = 0; i < soma__safetensors_count(st); i++) {
        const soma_safetensor *want = soma__safetensors_at(st, i), *loss = traced_find(&t, "train.loss_elementwise");
        if (strcmp(want->name, "train.loss_per_step")) {
            traced_hold(&t, st, want, GOLDEN_MAX, strcmp(want->name, "prefix_embs") ? 2e-4 : 1e-5);
            continue;
        }
        float mean[64] = {0}; // over the dimensions of each step's action
        int64_t A = loss->shape[2];
        assert_true(want->n_values <= 64 && want->n_values == loss->shape[0] * loss->shape[1]);
        for (int64_t k = 0; k < want->n_values * A; k++) mean[k / A] += ((const float *)loss->data)[k] / (float)A;
        golden_hold(st, want->name, t.by, SOMA_F32, mean, GOLDEN_MAX, 2e-4);
    }
    soma__trace_free(&t.trace);
    soma__safetensors_close(st);
}

// bf16 against openpi's own bf16. Two computations that round at the same places but sum in other orders are each as far from f32 as the
// other, and apart by the square root of two of that, at most: what they round alike (the weights) does not set them apart. Ours must not
// be farther from f32 than the reference's is.
static void hold_bf16(const char *folder) {
    char file[160];
    traced t = traced_run(folder, "inputs.safetensors", "plain", &(soma_trace_opts){.dtype = "bf16", .time = "openpi"});
    snprintf(file, sizeof file, "%s/outputs.safetensors", folder);
    soma_safetensors *exact = golden_open(file);
    snprintf(file, sizeof file, "%s/outputs_bf16.safetensors", folder);
    soma_safetensors *st = golden_open(file);
    for (size_t i = 0; i < soma__safetensors_count(st); i++) {
        const soma_safetensor *want = soma__safetensors_at(st, i), *f32 = golden_find(exact, want->name);
        const double theirs = soma__safetensor_difference(want, f32, NULL).relative;
        traced_hold(&t, st, want, GOLDEN_L2, sqrt(2) * theirs);
        traced_hold(&t, exact, f32, GOLDEN_L2, theirs);
    }
    soma__trace_free(&t.trace);
    soma__safetensors_close(st);
    soma__safetensors_close(exact);
}

static void pi0_bf16(void **state) { hold_bf16("pi0_tiny"); }
static void pi05_bf16(void **state) { hold_bf16("pi05_tiny"); }
static void pi0_lerobot(void **state) { hold_lerobot("pi0_tiny"); }
static void pi05_lerobot(void **state) { hold_lerobot("pi05_tiny"); }
static void pi0_jax(void **state) { hold_jax("pi0_tiny"); }
static void pi05_jax(void **state) { hold_jax("pi05_tiny"); }
static void pi0(void **state) { hold_openpi("pi0_tiny"); }
static void pi05(void **state) { hold_openpi("pi05_tiny"); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pi0),          cmocka_unit_test(pi05),     cmocka_unit_test(pi0_lerobot),
                                       cmocka_unit_test(pi05_lerobot), cmocka_unit_test(pi0_jax),  cmocka_unit_test(pi05_jax),
                                       cmocka_unit_test(pi0_bf16),     cmocka_unit_test(pi05_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
