// SPDX-License-Identifier: Apache-2.0
// soma bench kernels: single ops at the sizes of pi0 (base, two and three pictures, pi0-FAST's one token), of ResNet-18 at 224 pixels
// and of Diffusion Policy's UNet at 16 steps, each as a share of the registers' peak and of memory's speed, both measured in the same run.
//
// Weights are packed as a policy packs them. A product of few rows reads its weights once: so many different weights follow one another
// that no cache holds them.
#include "bench/bench.h"
#include "bench/random_weights.h"
#include "device/cpu/peak.h"
#include "policy/params.h"
#include "policy/policy.h"

#include <stdio.h>
#include <string.h>

enum { FEW_ROWS = 64, NO_CACHE = 256 << 20 };

typedef enum kernel_kind { LINEAR, ATTENTION, RMS_NORM, LAYER_NORM, ROPE, GATE, CONV, ROW_CONV, ROW_UP, KINDS } kernel_kind;

// LINEAR: [M, K] x [N, K]; ATTENTION: M queries, N keys, H heads of size K, KV of them with keys of their own; the rest: [M, N], ROPE H
// heads of size K. CONV: a picture of M x M pixels, ROW_CONV and ROW_UP (transposed) a row of M, from K to N channels, by a kernel of H
// places a side with stride KV.
typedef struct kernel {
    const char *name;
    kernel_kind kind;
    int64_t M, N, K, H, KV;
} kernel;

static const kernel kernels[] = {
    {"language q, o", LINEAR, 528, 2048, 2048},
    {"language k, v", LINEAR, 528, 256, 2048},
    {"language gate, up", LINEAR, 528, 16384, 2048},
    {"language down", LINEAR, 528, 2048, 16384},
    {"language q, o", LINEAR, 816, 2048, 2048},
    {"language k, v", LINEAR, 816, 256, 2048},
    {"language gate, up", LINEAR, 816, 16384, 2048},
    {"language down", LINEAR, 816, 2048, 16384},
    {"vision q, k, v, o", LINEAR, 512, 1152, 1152},
    {"vision fc1", LINEAR, 512, 4304, 1152},
    {"vision fc2", LINEAR, 512, 1152, 4304},
    {"projector", LINEAR, 512, 2048, 1152},
    {"expert q", LINEAR, 51, 2048, 1024},
    {"expert k, v", LINEAR, 51, 256, 1024},
    {"expert o", LINEAR, 51, 1024, 2048},
    {"expert gate, up", LINEAR, 51, 4096, 1024},
    {"expert down", LINEAR, 51, 1024, 4096},
    {"language q, o", LINEAR, 1, 2048, 2048},
    {"language k, v", LINEAR, 1, 256, 2048},
    {"language gate, up", LINEAR, 1, 16384, 2048},
    {"language down", LINEAR, 1, 2048, 16384},
    {"prefix attention", ATTENTION, 528, 528, 256, 8, 1},
    {"prefix attention", ATTENTION, 816, 816, 256, 8, 1},
    {"suffix attention", ATTENTION, 51, 579, 256, 8, 1},
    {"suffix attention", ATTENTION, 51, 867, 256, 8, 1},
    {"a token's attention", ATTENTION, 1, 867, 256, 8, 1},
    {"a picture's attention", ATTENTION, 256, 256, 72, 16, 16},
    {"prefix rms norm", RMS_NORM, 816, 2048},
    {"suffix rms norm", RMS_NORM, 51, 1024},
    {"vision layer norm", LAYER_NORM, 768, 1152},
    {"prefix rope", ROPE, 816, 2048, 256, 8},
    {"prefix gate", GATE, 816, 16384},
    {"suffix gate", GATE, 51, 4096},
    {"resnet stem", CONV, 224, 64, 3, 7, 2},
    {"resnet stage 1", CONV, 56, 64, 64, 3, 1},
    {"resnet stage 2", CONV, 28, 128, 128, 3, 1},
    {"resnet stage 3", CONV, 14, 256, 256, 3, 1},
    {"resnet stage 4", CONV, 7, 512, 512, 3, 1},
    {"resnet down", CONV, 56, 128, 64, 3, 2},
    {"unet level 1", ROW_CONV, 16, 512, 512, 5, 1},
    {"unet level 2", ROW_CONV, 8, 1024, 1024, 5, 1},
    {"unet level 3", ROW_CONV, 4, 2048, 2048, 5, 1},
    {"unet up", ROW_UP, 8, 512, 512, 4, 2},
};

static soma_tensor *convolve(soma_graph *g, const kernel *r, const soma_precision *p) {
    const bool row = r->kind != CONV, up = r->kind == ROW_UP;
    const int32_t stride = (int32_t)r->KV, pad = (int32_t)(up ? 1 : r->H / 2);
    const soma_window window = {.stride = {row ? 1 : stride, stride}, .pad = {row ? 0 : pad, pad}};
    soma_tensor *x = soma_input(g, "x", SOMA_F32, 4, (int64_t[]){1, row ? 1 : r->M, r->M, r->K});
    const int64_t shape[] = {up ? r->K : r->N, up ? r->N : r->K, row ? 1 : r->H, r->H};
    soma_tensor *w = soma_weight(g, "w", p->weight, soma_init_normal(0.02), 4, shape);
    return up ? soma_conv_transposed(x, w, NULL, window, (int64_t[]){1, r->M * stride}, p->product)
              : soma_conv(x, w, NULL, window, p->product);
}

static void build(soma_graph *g, const kernel *r, const soma_precision *p, int64_t copies) {
    const soma_precision_rule rule = {"*", *p};
    const soma_scope_spec spec = {.rules = &rule, .n_rules = 1};
    const soma_scope root = soma_scope_root(g, &spec);
    const int64_t M = r->M, N = r->N, K = r->K, H = r->H, heads[] = {1, M, H, K}, keys[] = {1, N, r->KV, K};
    soma_tensor *y = NULL;
    switch (r->kind) {
    case LINEAR: {
        soma_tensor *x = soma_input(g, "x", SOMA_F32, 2, (int64_t[]){M, K});
        for (int64_t i = 0; i < copies; i++) {
            char name[24];
            snprintf(name, sizeof name, "w%lld", (long long)i);
            soma_output(soma_linear(&root, name, x, N, false), name);
        }
        return;
    }
    case ATTENTION: {
        const soma_mask mask = {soma_input(g, "q_block", SOMA_I32, 2, (int64_t[]){1, M}),
                                soma_input(g, "k_block", SOMA_I32, 2, (int64_t[]){1, N})};
        y = soma_attention(&root, soma_input(g, "q", SOMA_F32, 4, heads), soma_input(g, "k", SOMA_F32, 4, keys),
                           soma_input(g, "v", SOMA_F32, 4, keys), mask);
        break;
    }
    case RMS_NORM: y = soma_rms_norm(&root, "norm", soma_input(g, "x", SOMA_F32, 2, (int64_t[]){M, N}), 1e-6f); break;
    case LAYER_NORM: y = soma_layer_norm(&root, "norm", soma_input(g, "x", SOMA_F32, 2, (int64_t[]){M, N}), 1e-6f); break;
    case ROPE:
        y = soma_rope(soma_input(g, "x", SOMA_F32, 4, heads), soma_input(g, "position", SOMA_I32, 2, (int64_t[]){1, M}), 10000);
        break;
    case GATE:
        y = soma_mul(soma_apply(soma_input(g, "gate", SOMA_F32, 2, (int64_t[]){M, N}), SOMA_UNARY_GELU),
                     soma_input(g, "up", SOMA_F32, 2, (int64_t[]){M, N}));
        break;
    case CONV:
    case ROW_CONV:
    case ROW_UP: y = convolve(g, r, p); break;
    case KINDS: break;
    }
    soma_output(y, "y");
}

typedef struct subject {
    soma_graph *graph;
    soma_layout weights; // their names and shapes, of which random ones are made
    soma_bench_random random;
    soma_params *params;
    soma_plan *plan;
    soma_frame *frame;
} subject;

static soma_status prepare(subject *s, const kernel *r, soma_device *device, const soma_precision *precision, int64_t copies,
                           soma_error *err) {
    soma_safetensors *file;
    SOMA_TRY(soma_graph_new(&s->graph, err));
    build(s->graph, r, precision, copies);
    SOMA_TRY(soma__layout_add(&s->weights, s->graph, SOMA_ROLE_WEIGHT, err));
    SOMA_TRY(soma__bench_random_open(&s->random, &file, &s->weights, err));
    SOMA_TRY(soma__params_open(&s->params, device, (const soma_graph *const *)&s->graph, 1, SOMA_ROLE_WEIGHT, file, NULL, err));
    SOMA_TRY(soma__plan_new(&s->plan, s->graph, &s->params->layout, NULL, device, err));
    return soma__frame_new(&s->frame, s->plan, s->params->memory, NULL, NULL, err);
}

static void subject_close(subject *s) {
    soma__frame_free(s->frame);
    soma__plan_free(s->plan);
    soma__params_free(s->params);
    soma__bench_random_close(&s->random);
    soma__layout_free(&s->weights);
    soma_graph_free(s->graph);
}

static double weight_bytes(const soma_params *params) {
    double bytes = 0;
    for (size_t i = 0; i < params->layout.n_slots; i++) bytes += (double)params->layout.slots[i].size;
    return bytes;
}

// Of a product its weights count, of everything else what goes in and out (and a convolution's kernel).
static json_t *row_of(const kernel *r, const subject *s, int64_t copies, double *seconds, int64_t repeats, double peak, soma_pool *pool) {
    const double io = r->kind == LINEAR ? 0 : (double)s->plan->size[SOMA_ROLE_IO], bytes = weight_bytes(s->params) + io,
                 each = (double)copies;
    const double speed = cpu_peak_read((size_t)bytes, false, pool);
    for (int64_t i = 0; i < repeats; i++) seconds[i] /= each;
    const soma_spread t = soma__bench_spread(seconds, repeats);
    const double flops = s->plan->flops / each, read = bytes / each;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:[f, f, f], s:f, s:f, s:f, s:f}", "kernel", r->name, "M", (json_int_t)r->M, "N",
                     (json_int_t)r->N, "K", (json_int_t)r->K, "H", (json_int_t)r->H, "seconds", t.median, t.low, t.high, "gflop_per_second",
                     flops / 1e9 / t.median, "share_of_peak", peak > 0 ? flops / t.median / peak : 0, "gb_per_second",
                     read / 1e9 / t.median, "share_of_read", speed > 0 ? read / t.median / speed : 0);
}

static soma_status measure(json_t *out, const kernel *r, soma_device *device, const soma_precision *precision, int64_t repeats, double peak,
                           soma_pool *pool, soma_error *err) {
    subject s = {0};
    const int64_t copies = r->kind == LINEAR && r->M <= FEW_ROWS ? NO_CACHE / (2 * r->N * r->K) + 1 : 1;
    double *seconds = soma__calloc((size_t)repeats, sizeof *seconds);
    soma_status status = seconds ? prepare(&s, r, device, precision, copies, err) : soma__no_memory(err, "the timings");
    for (int64_t i = -2; i < repeats && status == SOMA_OK; i++) {
        const double started = soma__seconds();
        soma__frame_run(s.frame);
        if (i >= 0) seconds[i] = soma__seconds() - started;
    }
    if (status == SOMA_OK) json_array_append_new(out, row_of(r, &s, copies, seconds, repeats, peak, pool));
    subject_close(&s);
    soma__free(seconds);
    return status;
}

soma_status soma__bench_kernels(json_t **out, const soma_bench_opts *o, soma_error *err) {
    *out = NULL;
    soma_device *device;
    soma_pool *pool = NULL;
    soma_isa isa;
    soma_precision precision;
    if (o->repeats < 1) return soma__fail(err, SOMA_BAD_INPUT, "repeats is at least 1");
    SOMA_TRY(cpu_isa_parse(&isa, o->isa, err));
    SOMA_TRY(soma__policy_precision(&precision, o->dtype, err));
    SOMA_TRY(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = (int)o->threads, .isa = o->isa}, err));
    soma_status status = soma__pool_new(&pool, (int)o->threads, err);
    json_t *list = json_array();
    const double peak = status == SOMA_OK ? cpu_peak_flops(isa, soma__bench_multiplied(o->dtype), pool) : 0;
    for (size_t i = 0; i < SOMA_COUNT(kernels) && status == SOMA_OK; i++)
        status = measure(list, &kernels[i], device, &precision, o->repeats, peak, pool, err);
    if (status == SOMA_OK)
        *out = json_pack("{s:s, s:o, s:s, s:f, s:O}", "what", "kernels", "machine",
                         soma__bench_machine(cpu_isa_name(isa), soma__pool_threads(pool)), "dtype", o->dtype, "peak_gflop_per_second",
                         peak / 1e9, "kernels", list);
    json_decref(list);
    soma__pool_free(pool);
    soma__device_close(device);
    return status;
}

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

void soma__bench_kernels_print(const json_t *r) {
    size_t i;
    json_t *row;
    printf("  %-22s %5s %6s %6s %10s %10s %9s %8s %7s %8s\n", "kernel", "M", "N", "K", "us", "fastest", "GFLOP/s", "of peak", "GB/s",
           "of read");
    json_array_foreach(json_object_get(r, "kernels"), i, row) {
        const json_t *seconds = json_object_get(row, "seconds");
        printf("  %-22s %5.0f %6.0f %6.0f %10.1f %10.1f", json_string_value(json_object_get(row, "kernel")), real(row, "M"), real(row, "N"),
               real(row, "K"), 1e6 * json_number_value(json_array_get(seconds, 0)), 1e6 * json_number_value(json_array_get(seconds, 1)));
        if (real(row, "gflop_per_second") > 0)
            printf(" %9.1f %7.1f%%", real(row, "gflop_per_second"), 100 * real(row, "share_of_peak"));
        else
            printf(" %18s", "");
        printf(" %7.1f %7.1f%%\n", real(row, "gb_per_second"), 100 * real(row, "share_of_read"));
    }
}
