// SPDX-License-Identifier: Apache-2.0
// The goldens of further families, ../shared/golden-families: a tensor's tolerance is ten times what the reference in f32 is off from
// itself in f64 (f64_deviation.json), at least 1e-5, as the folder's README says. A case's policy folder is made from its config and
// weights.
#ifndef SOMA_TESTS_GOLDEN_FAMILIES_H
#define SOMA_TESTS_GOLDEN_FAMILIES_H

#include "golden/traced.h"

#include "base/json.h"

#include <unistd.h>

#define FAMILIES "../golden-families/"

typedef struct family_case {
    const char *name; // "act_tiny"
    char folder[128], inputs[160];
    json_t *config, *deviation; // the golden's
    soma_safetensors *in, *out, *grads;
} family_case;

static inline json_t *family_json(const char *name, const char *file) {
    char path[SOMA_PATH_MAX], under[160];
    json_t *root = NULL;
    soma_error err = {0};
    snprintf(under, sizeof under, FAMILIES "%s/%s", name, file);
    if (soma__json_load(&root, golden_path(path, under), &err)) fail_msg("%s", err.text);
    return root;
}

static inline soma_safetensors *family_file(const char *name, const char *file) {
    char under[160];
    snprintf(under, sizeof under, FAMILIES "%s/%s", name, file);
    return golden_open(under);
}

// Where the golden is not here, the test is skipped before anything is made.
static inline void family_open(family_case *f, const char *name) {
    *f = (family_case){.name = name, .config = family_json(name, "config.json"), .deviation = family_json(name, "f64_deviation.json")};
    f->in = family_file(name, "inputs.safetensors");
    f->out = family_file(name, "outputs.safetensors");
    f->grads = family_file(name, "grads.safetensors");
    snprintf(f->folder, sizeof f->folder, "/tmp/soma_%s_%d", name, (int)getpid());
}

static inline void family_close(family_case *f) {
    static const char *const files[] = {"config.json", "inputs.safetensors", "model.safetensors"};
    for (size_t i = 0; i < SOMA_COUNT(files); i++) {
        char path[SOMA_PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", f->folder, files[i]);
        unlink(path);
    }
    rmdir(f->folder);
    json_decref(f->config);
    json_decref(f->deviation);
    soma__safetensors_close(f->in);
    soma__safetensors_close(f->out);
    soma__safetensors_close(f->grads);
}

// One of the golden's inputs under the name that a trace wants.
typedef struct family_input {
    const char *golden, *name;
} family_input;

// The policy's folder with this config, and the inputs under their names.
static inline void family_make(family_case *f, const json_t *config, const family_input *inputs, size_t n) {
    char path[SOMA_PATH_MAX], weights[SOMA_PATH_MAX], under[160];
    soma_safetensor tensors[16];
    soma_error err = {0};
    assert_true(n <= SOMA_COUNT(tensors));
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *golden_find(f->in, inputs[i].golden);
        tensors[i].name = inputs[i].name;
    }
    if (soma__dir_make(f->folder, &err)) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/config.json", f->folder);
    if (soma__json_save(config, path, &err)) fail_msg("%s", err.text);
    snprintf(f->inputs, sizeof f->inputs, "%s/inputs.safetensors", f->folder);
    if (soma__safetensors_write(f->inputs, tensors, n, NULL, &err)) fail_msg("%s", err.text);
    snprintf(under, sizeof under, FAMILIES "%s/model.safetensors", f->name);
    golden_path(weights, under);
    snprintf(path, sizeof path, "%s/model.safetensors", f->folder);
    unlink(path);
    char *real = realpath(weights, NULL);
    assert_int_equal(symlink(real, path), 0);
    free(real);
}

static inline traced family_trace(const family_case *f, const char *isa, const soma_trace_opts *o) {
    soma_safetensors *in = NULL;
    soma_error err = {0};
    if (soma__safetensors_open(&in, f->inputs, &err)) fail_msg("%s", err.text);
    traced t = traced_policy(f->folder, in, isa, o);
    soma__safetensors_close(in);
    return t;
}

static inline double family_tolerance(const family_case *f, const char *name) {
    return fmax(1e-5, 10 * json_number_value(json_object_get(json_object_get(f->deviation, "outputs"), name)));
}

// The golden's output `name` against the trace's `as`.
static inline void family_hold(const family_case *f, const traced *t, const char *name, const char *as) {
    const soma_safetensor *want = golden_find(f->out, name), *got = traced_find(t, as);
    char a[160], b[160];
    int64_t n = 1;
    for (int i = 0; i < got->n_dims; i++) n *= got->shape[i];
    if (n != want->n_values) fail_msg("%s is %s, not %s", as, soma__safetensor_shape(a, got), soma__safetensor_shape(b, want));
    const soma_difference d = soma__safetensor_difference(got, want, soma__trace_rows(&t->trace, as));
    golden_row(soma__safetensors_path(f->out) + strlen(GOLDEN), name, t->by, d, GOLDEN_MAX,
               want->dtype == SOMA_F32 ? family_tolerance(f, name) : 0);
    if (!isfinite(soma__safetensor_difference(got, got, NULL).max_abs)) fail_msg("%s has a value that is not finite", as);
}

// Every gradient, relative to its own length; those that are nothing but rounding to the length of all. prefix: of the golden's names that
// the trace's do not have.
static inline void family_hold_grads(const family_case *f, const traced *t, const char *prefix) {
    const double norm = *(const float *)golden_find(f->out, "train.grad_global_norm")->data;
    for (size_t i = 0; i < soma__safetensors_count(f->grads); i++) {
        const soma_safetensor *want = soma__safetensors_at(f->grads, i);
        char name[300];
        assert_true(!strncmp(want->name, prefix, strlen(prefix)));
        snprintf(name, sizeof name, "b2.%s", want->name + strlen(prefix));
        const bool noise = soma__safetensor_difference(want, want, NULL).norm < 1e-5 * norm;
        const soma_difference d = soma__safetensor_difference(traced_find(t, name), want, NULL);
        golden_row(soma__safetensors_path(f->grads) + strlen(GOLDEN), want->name, t->by, d, noise ? GOLDEN_MAX : GOLDEN_L2,
                   noise ? 1e-6 * norm
                         : fmax(1e-5, 10 * json_number_value(json_object_get(json_object_get(f->deviation, "grads_relL2"), want->name))));
    }
}

// What acting computes, with weights packed as a policy packs them (a trace that learns keeps them as published): f32 against the golden,
// and products in bf16 on the fast kernels against the plain ones, apart by what tests/ops
// allows attention (probabilities round to bf16).
static inline void family_hold_packed(const family_case *f, const char *(*name_of)(const char *golden, char out[128])) {
    const soma_trace_opts f32 = {.dtype = "f32"}, bf16 = {.dtype = "int8w"};
    traced fast = family_trace(f, "", &f32), rounded = family_trace(f, "", &bf16), plain = family_trace(f, "plain", &bf16);
    char name[128];
    for (size_t i = 0; i < soma__safetensors_count(f->out); i++) {
        const char *golden = soma__safetensors_at(f->out, i)->name, *as = name_of(golden, name);
        if (as && !strncmp(golden, "infer.", 6)) family_hold(f, &fast, golden, as);
    }
    for (size_t i = 0; i < plain.trace.n_tensors; i++) {
        const soma_safetensor *want = &plain.trace.tensors[i];
        const double d = soma__safetensor_difference(traced_find(&rounded, want->name), want, NULL).relative;
        if (!(d <= 1e-2)) fail_msg("%s: fast kernels are off by %.3g of its length", want->name, d);
    }
    soma__trace_free(&fast.trace);
    soma__trace_free(&rounded.trace);
    soma__trace_free(&plain.trace);
}

#endif
