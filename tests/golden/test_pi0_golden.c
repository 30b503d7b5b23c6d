// SPDX-License-Identifier: Apache-2.0
// pi0 and pi0.5 against openpi's PyTorch code, tensor by tensor: every intermediate of the prefix, the sampler, the training loss and all
// gradients. Tolerances are those that were measured between two independent executions of the reference.
#include "golden/golden.h"

#include "policy/trace.h"

static double tolerance(const char *name) {
    if (!strncmp(name, "actions", 7)) return 2e-5;
    if (!strncmp(name, "sample.", 7) && strstr(name, ".x_t")) return 2e-5;
    if (!strncmp(name, "sample.", 7) && strstr(name, ".v_t")) return 2e-5; // its x_t is our own
    if (!strcmp(name, "train.grad_global_norm")) return 1e-4;
    if (!strcmp(name, "train.loss_elementwise")) return 1e-4; // (v - u)^2, |v - u| up to 5.5: 2 |v - u| times v_t's 1e-5
    return 1e-5;
}

static bool masked_rows(const char *name) {
    return !strncmp(name, "prefix.", 7) || !strncmp(name, "train.prefix.", 13) || !strcmp(name, "prefix_embs") ||
           !strncmp(name, "prefix_kv.", 10);
}

// Calls it for each tensor of the reference; returns how many were held against it.
static int hold_outputs(const char *name, const soma_trace *trace, const soma_safetensors *reference) {
    print_message("%-9s %-44s %8s %8s %8s\n", "case", "tensor", "largest", "rel. L2", "allowed");
    const soma_safetensor *pad = soma__safetensors_find(reference, "prefix_pad_masks");
    int n = 0;
    for (size_t i = 0; i < soma__safetensors_count(reference); i++, n++) {
        const soma_safetensor *want = soma__safetensors_at(reference, i), *got = soma__trace_find(trace, want->name);
        bool finite;
        golden_error e = golden_hold(got, want, want->shape[want->n_dims - 1], masked_rows(want->name) ? pad->data : NULL, &finite);
        print_message("%-9s %-44s %8.1e %8.1e %8.0e\n", name, want->name, e.max_abs, e.relative, tolerance(want->name));
        if (!(e.max_abs <= tolerance(want->name)))
            fail_msg("%s is off by %.3g, allowed are %.3g", want->name, e.max_abs, tolerance(want->name));
        if (!finite) fail_msg("%s has a value that is not finite", want->name);
    }
    return n;
}

static int hold_grads(const soma_trace *trace, const soma_safetensors *reference, double *worst) {
    double norm = *(const float *)soma__trace_find(trace, "train.grad_global_norm")->data; // held against the reference before
    int n = 0;
    for (size_t i = 0; i < soma__safetensors_count(reference); i++, n++) {
        const soma_safetensor *want = soma__safetensors_at(reference, i), *got = soma__trace_find(trace, want->name);
        if (!got) fail_msg("the gradient %s is not given", want->name);
        assert_int_equal(got->n_dims, want->n_dims);
        assert_memory_equal(got->shape, want->shape, sizeof *want->shape * (size_t)want->n_dims);
        float *y = golden_floats(want);
        golden_error e = golden_compare(got->data, y, want->n_values, 1, NULL);
        // keys' biases cancel in softmax: their gradient is zero but for rounding, in the reference too
        if (e.norm < 1e-6 * norm)
            assert_true(e.max_abs < 1e-6 * norm);
        else if (!(e.relative <= 1e-4))
            fail_msg("the gradient %s is off by %.3g (relative, L2), allowed are 1e-4", want->name, e.relative);
        else
            *worst = fmax(*worst, e.relative);
        free(y);
    }
    return n;
}

static soma_safetensors *open_in(const char *folder, const char *name) {
    char path[SOMA_PATH_MAX + 64];
    soma_safetensors *st = NULL;
    soma_error err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (soma__safetensors_open(&st, path, &err)) fail_msg("%s", err.text);
    return st;
}

static void run_trace(soma_trace *trace, const char *folder, const soma_safetensors *inputs, const char *isa, const char *time) {
    soma_error err = {0};
    soma_device *device = NULL;
    const soma_device_opts d = {.threads = 2, .isa = isa};
    const soma_trace_opts o = {.dtype = "f32", .grads = true, .time = time};
    if (soma__device_open(&device, "cpu", &d, &err)) fail_msg("%s", err.text);
    print_message("%s\n", device->kind->info(device));
    if (soma__trace_run(trace, folder, inputs, &o, device, &err)) fail_msg("%s", err.text);
    soma__device_close(device);
}

// The plain kernels are the specification and are held against the reference; what is fast is held against the plain ones. (Both f32
// computations lie some 8e-6 from the f64 one after four layers, the plain kernels with their f64 sums 1.5e-6: the reference and a fast
// kernel may be 1e-5 apart with nothing wrong in either.)
static void hold_fast(const soma_trace *fast, const soma_trace *plain) {
    for (size_t i = 0; i < plain->n_tensors; i++) {
        const soma_safetensor *want = &plain->tensors[i], *got = soma__trace_find(fast, want->name);
        int64_t n = 1;
        for (int k = 0; k < want->n_dims; k++) n *= want->shape[k];
        bool grad = want->name[0] == 'b' && want->name[2] == '.'; // all of them were held against the reference's
        if (want->dtype != SOMA_F32 || grad) continue;
        golden_error e = golden_compare(got->data, want->data, n, 1, NULL);
        if (!(e.max_abs <= tolerance(want->name))) fail_msg("%s: fast kernels are off by %.3g from the plain ones", want->name, e.max_abs);
    }
}

static void hold_case(const char *name) {
    char folder[SOMA_PATH_MAX];
    if (!golden_folder(folder, name)) skip();
    soma_trace plain = {0}, fast = {0};
    soma_safetensors *inputs = open_in(folder, "inputs.safetensors"), *outputs = open_in(folder, "outputs.safetensors"),
                     *grads = open_in(folder, "grads.safetensors");
    run_trace(&plain, folder, inputs, "plain", "openpi");
    run_trace(&fast, folder, inputs, "", "openpi");
    double worst = 0, worst_fast = 0;
    int n = hold_outputs(name, &plain, outputs), m = hold_grads(&plain, grads, &worst);
    hold_grads(&fast, grads, &worst_fast);
    hold_fast(&fast, &plain);
    print_message("%s: %d tensors agree; %d gradients within %.2g (plain) and %.2g (fast), relative L2\n", name, n, m, worst, worst_fast);
    soma__trace_free(&plain);
    soma__trace_free(&fast);
    soma__safetensors_close(inputs);
    soma__safetensors_close(outputs);
    soma__safetensors_close(grads);
}

// LeRobot's code on the same weights: its own times give its own actions, and openpi's times do not.
static void hold_lerobot(const char *name) {
    char folder[SOMA_PATH_MAX];
    if (!golden_folder(folder, name)) skip();
    soma_safetensors *inputs = open_in(folder, "inputs.safetensors"), *outputs = open_in(folder, "outputs_lerobot.safetensors");
    const soma_safetensor *actions = soma__safetensors_find(outputs, "actions"),
                          *loss = soma__safetensors_find(outputs, "train.loss_elementwise");
    double off[2];
    for (int i = 0; i < 2; i++) {
        soma_trace trace = {0};
        run_trace(&trace, folder, inputs, "plain", i ? "openpi" : "lerobot");
        off[i] = golden_compare(soma__trace_find(&trace, "actions")->data, actions->data, actions->n_values, 1, NULL).max_abs;
        golden_error e = golden_compare(soma__trace_find(&trace, "train.loss_elementwise")->data, loss->data, loss->n_values, 1, NULL);
        assert_true(e.max_abs <= tolerance("train.loss_elementwise"));
        soma__trace_free(&trace);
    }
    print_message("%s: LeRobot's actions are off by %.2g with --time lerobot, by %.2g with --time openpi\n", name, off[0], off[1]);
    assert_true(off[0] <= tolerance("actions"));
    assert_true(off[1] > tolerance("actions"));
    soma__safetensors_close(inputs);
    soma__safetensors_close(outputs);
}

static void pi0_lerobot(void **state) { hold_lerobot("pi0_tiny"); }
static void pi05_lerobot(void **state) { hold_lerobot("pi05_tiny"); }
static void pi0(void **state) { hold_case("pi0_tiny"); }
static void pi05(void **state) { hold_case("pi05_tiny"); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pi0), cmocka_unit_test(pi05), cmocka_unit_test(pi0_lerobot),
                                       cmocka_unit_test(pi05_lerobot)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
