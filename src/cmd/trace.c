// SPDX-License-Identifier: Apache-2.0
// `soma trace`: named inputs in, named intermediates out. The tool with which a port is checked against its original.
#include "cmd/cmd.h"
#include "policy/trace.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define TRACE_OPTS(X)                                                                                                       \
    X(TEXT, policy, "", "folder with config.json and model.safetensors")                                                    \
    X(TEXT, inputs, "", "a safetensors file with the inputs by name")                                                       \
    X(TEXT, out, "", "the safetensors file to write")                                                                       \
    X(TEXT, dtype, "f32", "f32, mixed (bf16 products); inference only: bf16, int8, int8w, int4w")                           \
    X(TEXT, time, "", "whose flow times: openpi or lerobot; empty: those of the project that the config is from")           \
    X(FLAG, grads, false, "also write the gradients of the training loss")                                                  \
    X(TEXT, against, "", "a safetensors file of a reference: print the error of each tensor")                               \
    X(INT, stop_token, 0, "of a policy that writes tokens: decode the first row once more, alone, until it writes this id") \
    X(FLAG, list, false, "print what can be fed and what can be given, and stop")                                           \
    X(TEXT, device, "cpu", "where it is computed")                                                                          \
    X(TEXT, isa, "", "plain, avx2, neon ...; empty: plain, above 16 MiB of weights the best there is")                      \
    X(INT, threads, 0, "threads; 0: as many as processors")
SOMA_OPTS_DECLARE(trace_opts, TRACE_OPTS)
#define OPTS_TYPE trace_opts
SOMA_OPTS_DEFINE_LOCAL(trace_opts, TRACE_OPTS, trace_defaults)
#undef OPTS_TYPE

// The plain kernels sum in f64. A reference in f32 is itself off by some 1e-5 after four layers, so nothing should be added to that where
// it costs seconds only.
static const char *choose_isa(const trace_opts *o) {
    soma_safetensors *weights = NULL;
    double bytes = 0;
    if (*o->isa || soma__safetensors_open(&weights, o->policy, NULL) != SOMA_OK) return o->isa; // what is wrong is told when it is loaded
    for (size_t i = 0; i < soma__safetensors_count(weights); i++) {
        const soma_safetensor *t = soma__safetensors_at(weights, i);
        bytes += (double)t->n_values * (double)soma_dtype_size(t->dtype);
    }
    soma__safetensors_close(weights);
    return bytes <= 16 << 20 ? "plain" : "";
}

static soma_status work(const trace_opts *o, soma_trace *trace, soma_error *err) {
    soma_device *device = NULL;
    soma_safetensors *inputs = NULL;
    const soma_trace_opts t = {.dtype = o->dtype, .time = o->time, .grads = o->grads, .stop_token = o->stop_token, .names_only = o->list};
    const soma_device_opts d = {.threads = (int)o->threads, .isa = choose_isa(o)};
    soma_status status = soma__device_open(&device, o->device, &d, err);
    if (status == SOMA_OK && !o->list) status = soma__safetensors_open(&inputs, o->inputs, err);
    if (status == SOMA_OK) status = soma__trace_run(trace, o->policy, inputs, &t, device, err);
    if (status == SOMA_OK && *o->out && !o->list) status = soma__safetensors_write(o->out, trace->tensors, trace->n_tensors, NULL, err);
    soma__safetensors_close(inputs);
    soma__device_close(device);
    return status;
}

static json_t *to_json(const soma_safetensor *tensors, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++) {
        const soma_safetensor *t = &tensors[i];
        json_t *shape = json_array();
        for (int k = 0; k < t->n_dims; k++) json_array_append_new(shape, json_integer(t->shape[k]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", t->name, "dtype", soma_dtype_name(t->dtype), "shape", shape));
    }
    return list;
}

static void print_list(const char *title, const soma_safetensor *tensors, size_t n) {
    char shape[160];
    printf("%s\n", title);
    for (size_t i = 0; i < n; i++)
        printf("  %-5s %-18s %s\n", soma_dtype_name(tensors[i].dtype), soma__safetensor_shape(shape, &tensors[i]), tensors[i].name);
}

// ---- against a reference

static json_t *error_json(double x) { return isfinite(x) ? json_real(x) : json_string("nan"); }
static double error_value(const json_t *x) { return json_is_real(x) ? json_real_value(x) : NAN; }

static soma_status compare_one(json_t *list, const soma_trace *trace, const soma_safetensor *got, const soma_safetensors *reference,
                               soma_error *err) {
    const soma_safetensor *want = soma__safetensors_find(reference, got->name);
    if (!want) return SOMA_OK;
    char a[160], b[160];
    if (got->n_dims != want->n_dims || memcmp(got->shape, want->shape, sizeof *want->shape * (size_t)want->n_dims))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s is %s there and %s here", soma__safetensors_path(reference), want->name,
                          soma__safetensor_shape(a, want), soma__safetensor_shape(b, got));
    soma_difference d = soma__safetensor_difference(got, want, soma__trace_rows(trace, want->name));
    json_array_append_new(
        list, json_pack("{s:s, s:o, s:o}", "name", want->name, "max_abs", error_json(d.max_abs), "relative_l2", error_json(d.relative)));
    return SOMA_OK;
}

// In the order in which they are computed, so that the first that is off is where to look.
static soma_status compare_all(json_t *list, const soma_trace *trace, const char *path, size_t *n_there, soma_error *err) {
    soma_safetensors *reference = NULL;
    SOMA_TRY(soma__safetensors_open(&reference, path, err));
    soma_status status = SOMA_OK;
    *n_there = soma__safetensors_count(reference);
    for (size_t i = 0; status == SOMA_OK && i < trace->n_tensors; i++)
        status = compare_one(list, trace, &trace->tensors[i], reference, err);
    soma__safetensors_close(reference);
    return status;
}

static int print_comparison(const soma_cmd *cmd, const trace_opts *o, const soma_trace *trace) {
    soma_error err = {0};
    json_t *list = json_array();
    size_t n_there = 0, i;
    const json_t *d;
    if (!list) return soma__cmd_print_json(cmd, NULL);
    if (compare_all(list, trace, o->against, &n_there, &err) != SOMA_OK) {
        json_decref(list);
        return soma__cmd_fail(cmd, &err);
    }
    if (cmd->json) return soma__cmd_print_json(cmd, list);
    printf("max abs   rel. L2   tensor\n");
    json_array_foreach(list, i, d) printf("%.2e  %.2e  %s\n", error_value(json_object_get(d, "max_abs")),
                                          error_value(json_object_get(d, "relative_l2")), json_string_value(json_object_get(d, "name")));
    printf("%zu of the %zu tensors of %s were compared\n", json_array_size(list), n_there, o->against);
    json_decref(list);
    return SOMA_EXIT_OK;
}

static int print(const soma_cmd *cmd, const trace_opts *o, const soma_trace *trace) {
    if (o->list && cmd->json)
        return soma__cmd_print_json(cmd, json_pack("{s:o, s:o}", "inputs", to_json(trace->inputs, trace->n_inputs), "outputs",
                                                   to_json(trace->tensors, trace->n_tensors)));
    if (o->list) {
        print_list("inputs (pictures also as image.<camera>, F32 [B, 3, H, W] in -1..1; any B)", trace->inputs, trace->n_inputs);
        print_list("outputs", trace->tensors, trace->n_tensors);
        return SOMA_EXIT_OK;
    }
    if (*o->against) return print_comparison(cmd, o, trace);
    if (cmd->json) return soma__cmd_print_json(cmd, to_json(trace->tensors, trace->n_tensors));
    printf("%zu tensors written to %s\n", trace->n_tensors, o->out);
    return SOMA_EXIT_OK;
}

static int run(int argc, char **argv) {
    trace_opts o = trace_defaults();
    soma_cmd cmd = {.usage = "--policy DIR --inputs IN.safetensors --out OUT.safetensors [options]",
                    .about = "Feeds named inputs to a policy's network and writes its named intermediates, to compare them with another\n"
                             "implementation's. Names, shapes and what is computed: docs/trace.md.\n\n"
                             "Examples:\n"
                             "  soma trace --policy p --inputs p/inputs.safetensors --out o.safetensors\n"
                             "  soma trace --policy p --inputs p/inputs.safetensors --against p/outputs.safetensors\n"
                             "  soma trace --policy p --list\n",
                    .has_json = true,
                    .groups = {{&trace_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (!*o.policy) return soma__cmd_usage(&cmd, "--policy DIR is missing");
    if (!o.list && (!*o.inputs || !(*o.out || *o.against)))
        return soma__cmd_usage(&cmd, "--inputs FILE is needed with --out FILE or --against FILE; or --list");
    soma_trace trace = {0};
    soma_error err = {0};
    code = work(&o, &trace, &err) == SOMA_OK ? print(&cmd, &o, &trace) : soma__cmd_fail(&cmd, &err);
    soma__trace_free(&trace);
    return code;
}

const soma_verb soma__verb_trace = {"trace", "write a network's intermediates by name", run};
