// SPDX-License-Identifier: Apache-2.0
// `soma trace`: named inputs in, named intermediates out. The tool with which a port is checked against its original.
#include "cmd/cmd.h"
#include "policy/trace.h"

#include <stdio.h>
#include <string.h>

#define TRACE_OPTS(X)                                                                     \
    X(TEXT, policy, "", "folder with config.json and model.safetensors")                  \
    X(TEXT, inputs, "", "a safetensors file with the inputs by name")                     \
    X(TEXT, out, "", "the safetensors file to write")                                     \
    X(TEXT, dtype, "f32", "f32, mixed (bf16 products) or bf16 (inference only)")          \
    X(FLAG, grads, false, "also write the gradients of the training loss")                \
    X(FLAG, list, false, "print the names that can be given, and stop")                   \
    X(TEXT, device, "cpu", "where it is computed")                                        \
    X(TEXT, isa, "", "plain, avx2, avx512 or amx; empty: the best that this machine has") \
    X(INT, threads, 0, "threads; 0: as many as processors")
SOMA_OPTS_DECLARE(trace_opts, TRACE_OPTS)
#define OPTS_TYPE trace_opts
SOMA_OPTS_DEFINE_LOCAL(trace_opts, TRACE_OPTS, trace_defaults)
#undef OPTS_TYPE

static soma_status work(const trace_opts *o, soma_trace *trace, soma_error *err) {
    soma_device *device = NULL;
    soma_safetensors *inputs = NULL;
    const soma_trace_opts t = {.dtype = o->dtype, .grads = o->grads, .names_only = o->list};
    const soma_device_opts d = {.threads = (int)o->threads, .isa = o->isa};
    soma_status status = soma__device_open(&device, o->device, &d, err);
    if (status == SOMA_OK && !o->list) status = soma__safetensors_open(&inputs, o->inputs, err);
    if (status == SOMA_OK) status = soma__trace_run(trace, o->policy, inputs, &t, device, err);
    if (status == SOMA_OK && *o->out && !o->list) status = soma__safetensors_write(o->out, trace->tensors, trace->n_tensors, NULL, err);
    soma__safetensors_close(inputs);
    soma__device_close(device);
    return status;
}

static json_t *to_json(const soma_trace *trace) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < trace->n_tensors; i++) {
        const soma_safetensor *t = &trace->tensors[i];
        json_t *shape = json_array();
        for (int k = 0; k < t->n_dims; k++) json_array_append_new(shape, json_integer(t->shape[k]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", t->name, "dtype", soma_dtype_name(t->dtype), "shape", shape));
    }
    return list;
}

static int print(const soma_cmd *cmd, const trace_opts *o, const soma_trace *trace) {
    if (cmd->json) return soma__cmd_print_json(cmd, to_json(trace));
    char shape[160];
    for (size_t i = 0; o->list && i < trace->n_tensors; i++)
        printf("%-5s %-20s %s\n", soma_dtype_name(trace->tensors[i].dtype), soma__safetensor_shape(shape, &trace->tensors[i]),
               trace->tensors[i].name);
    if (!o->list) printf("%zu tensors written to %s\n", trace->n_tensors, o->out);
    return SOMA_EXIT_OK;
}

static int run(int argc, char **argv) {
    trace_opts o = trace_defaults();
    soma_cmd cmd = {.usage = "--policy DIR --inputs IN.safetensors --out OUT.safetensors [options]",
                    .about = "Feeds named inputs to a policy's network and writes its named intermediates, to compare them with another\n"
                             "implementation's. Names, shapes and what is computed: docs/trace.md.\n\n"
                             "Examples:\n"
                             "  soma trace --policy p --inputs p/inputs.safetensors --out o.safetensors\n"
                             "  soma trace --policy p --list\n",
                    .has_json = true,
                    .groups = {{&trace_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (!*o.policy) return soma__cmd_usage(&cmd, "--policy DIR is missing");
    if (!o.list && (!*o.inputs || !*o.out)) return soma__cmd_usage(&cmd, "--inputs FILE and --out FILE are needed, or --list");
    soma_trace trace = {0};
    soma_error err = {0};
    code = work(&o, &trace, &err) == SOMA_OK ? print(&cmd, &o, &trace) : soma__cmd_fail(&cmd, &err);
    soma__trace_free(&trace);
    return code;
}

const soma_verb soma__verb_trace = {"trace", "write a network's intermediates by name", run};
