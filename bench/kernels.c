// SPDX-License-Identifier: Apache-2.0
// Single ops at the shapes that nano's training and pi0's inference have: time, share of the registers' peak or of memory's speed.
#include "bench/bench.h"
#include "device/cpu/peak.h"

#include <string.h>

typedef struct {
    const char *name;
    soma_op op;
    int64_t M, N, K; // matmul: [M, K] x [N, K]; attention: M queries, N keys, K head size
    bool transposed; // both factors: a weight's gradient
} kernel_row;

static const kernel_row rows[] = {
    {"qkv projection", SOMA_OP_MATMUL, 4480, 128, 128, false},    {"feed-forward up", SOMA_OP_MATMUL, 4480, 256, 128, false},
    {"feed-forward down", SOMA_OP_MATMUL, 4480, 128, 256, false}, {"weight's gradient", SOMA_OP_MATMUL, 256, 128, 4480, true},
    {"prefix of pi0", SOMA_OP_MATMUL, 816, 2048, 2048, false},    {"expert of pi0", SOMA_OP_MATMUL, 51, 4096, 1024, false},
    {"one token", SOMA_OP_MATMUL, 1, 16384, 2048, false},         {"attention, nano", SOMA_OP_ATTENTION, 140, 140, 32, false},
    {"attention, pi0", SOMA_OP_ATTENTION, 816, 816, 256, false},
};

static soma_tensor *build(soma_graph *g, const kernel_row *r, soma_dtype product) {
    if (r->op == SOMA_OP_ATTENTION) {
        int64_t B = r->K == 32 ? 32 : 1, H = r->K == 32 ? 4 : 8;
        soma_tensor *q = soma_input(g, "q", SOMA_F32, 4, (int64_t[]){B, r->M, H, r->K}),
                    *k = soma_input(g, "k", SOMA_F32, 4, (int64_t[]){B, r->N, 1, r->K});
        soma_tensor *v = soma_input(g, "v", SOMA_F32, 4, (int64_t[]){B, r->N, 1, r->K});
        soma_tensor *qb = soma_input(g, "qb", SOMA_I32, 2, (int64_t[]){B, r->M}),
                    *kb = soma_input(g, "kb", SOMA_I32, 2, (int64_t[]){B, r->N});
        return soma_attend(q, k, v, qb, kb, 0.1f, product);
    }
    soma_tensor *a = soma_input(g, "a", SOMA_F32, 2, r->transposed ? (int64_t[]){r->K, r->M} : (int64_t[]){r->M, r->K});
    soma_tensor *b =
        soma_input(g, "b", r->transposed ? SOMA_F32 : product, 2, r->transposed ? (int64_t[]){r->K, r->N} : (int64_t[]){r->N, r->K});
    return r->transposed ? soma_matmul(soma_transpose(a), soma_transpose(b), NULL, product) : soma_matmul(a, b, NULL, product);
}

static soma_status measure(json_t *out, const kernel_row *r, soma_device *device, soma_dtype product, int64_t repeats, double peak,
                           soma_error *err) {
    soma_graph *g = NULL;
    soma_plan *plan = NULL;
    soma_frame *frame = NULL;
    double *seconds = soma__calloc((size_t)repeats, sizeof *seconds);
    soma_status status = seconds ? soma_graph_new(&g, err) : soma__no_memory(err, "the timings");
    if (status == SOMA_OK) {
        soma_output(build(g, r, product), "y");
        status = soma__plan_new(&plan, g, NULL, NULL, device, err);
    }
    if (status == SOMA_OK) status = soma__frame_new(&frame, plan, NULL, NULL, NULL, err);
    for (int64_t i = -2; i < repeats && status == SOMA_OK; i++) {
        double started = soma__seconds();
        soma__frame_run(frame);
        if (i >= 0) seconds[i] = soma__seconds() - started;
    }
    if (status == SOMA_OK) {
        soma_spread s = soma__bench_spread(seconds, repeats);
        json_array_append_new(out,
                              json_pack("{s:s, s:I, s:I, s:I, s:[f, f, f], s:f, s:f}", "kernel", r->name, "M", (json_int_t)r->M, "N",
                                        (json_int_t)r->N, "K", (json_int_t)r->K, "seconds", s.median, s.low, s.high, "gflop_per_second",
                                        plan->flops / 1e9 / s.median, "share_of_peak", peak > 0 ? plan->flops / s.median / peak : 0));
    }
    soma__frame_free(frame);
    soma__plan_free(plan);
    soma_graph_free(g);
    soma__free(seconds);
    return status;
}

soma_status soma__bench_kernels(json_t **out, const soma_bench_opts *o, soma_error *err) {
    *out = NULL;
    soma_device *device;
    soma_pool *pool = NULL;
    soma_isa isa;
    SOMA_TRY(soma__bench_isa(&isa, o->isa, err));
    soma_dtype product = strcmp(o->dtype, "f32") ? SOMA_BF16 : SOMA_F32;
    SOMA_TRY(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = (int)o->threads, .isa = o->isa}, err));
    soma_status status = soma__pool_new(&pool, (int)o->threads, err);
    json_t *list = json_array();
    double peak = status == SOMA_OK ? cpu_peak_flops(isa, product == SOMA_F32 ? CPU_OF_F32 : CPU_OF_BF16, pool) : 0;
    for (size_t i = 0; i < SOMA_COUNT(rows) && status == SOMA_OK; i++)
        status = measure(list, &rows[i], device, product, o->repeats, peak, err);
    if (status == SOMA_OK)
        *out = json_pack("{s:s, s:o, s:s, s:f, s:O}", "what", "kernels", "machine",
                         soma__bench_machine(cpu_isa_name(isa), soma__pool_threads(pool)), "dtype", o->dtype, "peak_gflop_per_second",
                         peak / 1e9, "kernels", list);
    json_decref(list);
    soma__pool_free(pool);
    soma__device_close(device);
    return status;
}
