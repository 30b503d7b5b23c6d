// SPDX-License-Identifier: Apache-2.0
// Traces of the small models, held against the reference's outputs of the same names.
#ifndef SOMA_TESTS_GOLDEN_TRACED_H
#define SOMA_TESTS_GOLDEN_TRACED_H

#include "golden/golden.h"

#include "policy/trace.h"

typedef struct traced {
    soma_trace trace;
    const char *by; // for the table
} traced;

// A policy's folder on inputs. isa: "plain", or "" for the best of this machine.
static inline traced traced_policy(const char *folder, const soma_safetensors *in, const char *isa, const soma_trace_opts *o) {
    const bool f32 = !strcmp(o->dtype, "f32");
    traced t = {.by = !f32 ? o->dtype : *isa ? isa : "fast"};
    soma_error err = {0};
    soma_device *device = NULL;
    if (soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 2, .isa = isa}, &err)) fail_msg("%s", err.text);
    if (soma__trace_run(&t.trace, folder, in, o, device, &err)) fail_msg("%s", err.text);
    soma__device_close(device);
    return t;
}

// The golden folder's policy on its `inputs`.
static inline traced traced_run(const char *folder, const char *inputs, const char *isa, const soma_trace_opts *o) {
    char path[SOMA_PATH_MAX], file[160];
    snprintf(file, sizeof file, "%s/%s", folder, inputs);
    soma_safetensors *in = golden_open(file);
    traced t = traced_policy(golden_path(path, folder), in, isa, o);
    soma__safetensors_close(in);
    return t;
}

static inline const soma_safetensor *traced_find(const traced *t, const char *name) {
    const soma_safetensor *got = soma__trace_find(&t->trace, name);
    if (!got) fail_msg("%s is not given", name);
    return got;
}

// The tensor of the same name, over the rows that stand for a token; what is given must be finite everywhere.
static inline void traced_hold(const traced *t, const soma_safetensors *st, const soma_safetensor *want, golden_kind kind, double allowed) {
    char a[160], b[160];
    const soma_safetensor *got = traced_find(t, want->name);
    if (got->n_dims != want->n_dims || memcmp(got->shape, want->shape, sizeof *want->shape * (size_t)want->n_dims))
        fail_msg("%s is %s, not %s", want->name, soma__safetensor_shape(a, got), soma__safetensor_shape(b, want));
    golden_hold_rows(st, want, t->by, got->dtype, got->data, soma__trace_rows(&t->trace, want->name), kind, allowed);
    if (!isfinite(soma__safetensor_difference(got, got, NULL).max_abs)) fail_msg("%s has a value that is not finite", want->name);
}

// Every gradient of the file, relative to its own length. Those that are nothing but rounding (keys' biases cancel in softmax), to the
// length of all, `norm`.
static inline void traced_hold_grads(const traced *t, const soma_safetensors *st, double norm) {
    for (size_t i = 0; i < soma__safetensors_count(st); i++) {
        const soma_safetensor *want = soma__safetensors_at(st, i);
        const bool noise = soma__safetensor_difference(want, want, NULL).norm < 1e-6 * norm;
        traced_hold(t, st, want, noise ? GOLDEN_MAX : GOLDEN_L2, noise ? 1e-6 * norm : 1e-4);
    }
}

#endif
