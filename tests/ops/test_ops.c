// SPDX-License-Identifier: Apache-2.0
// The op table's test: one row per case, and every row is held three ways: the fast kernels of every instruction set this machine has
// against the plain ones, gradients against finite differences, and the same bits for 1, 2 and 3 threads. The printed table is the
// gradient check; a count assert makes an op without a row fail.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "device/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IN = 7 };
typedef enum { NORMAL, POSITIVE, IDS, POSITIONS, BLOCKS, BYTES, BF16 } fill;

typedef struct {
    fill fill;
    int n_dims;
    int64_t shape[SOMA_MAX_DIMS];
    bool fixed; // no gradient is asked for
} in;

typedef struct {
    const char *name;
    soma_op op;
    soma_tensor *(*build)(soma_tensor **x);
    in inputs[MAX_IN];
    double tolerance; // fast against plain, relative to the largest value; derived from dtype and length of the sums
    bool no_grad;
} row;

#define V1(a)            \
    {                    \
        NORMAL, 1, { a } \
    }
#define V2(a, b)            \
    {                       \
        NORMAL, 2, { a, b } \
    }
#define V3(a, b, c)            \
    {                          \
        NORMAL, 3, { a, b, c } \
    }
#define V4(a, b, c, d)            \
    {                             \
        NORMAL, 4, { a, b, c, d } \
    }

#define BUILD(name, expression) \
    static soma_tensor *name(soma_tensor **x) { return expression; }
BUILD(b_add, soma_add(x[0], x[1]))
BUILD(b_sub, soma_sub(x[0], x[1]))
BUILD(b_mul, soma_mul(x[0], x[1]))
BUILD(b_div, soma_div(x[0], x[1]))
BUILD(b_affine, soma_affine(x[0], -1.5f, 0.25f))
BUILD(b_exp, soma_apply(x[0], SOMA_UNARY_EXP))
BUILD(b_log, soma_apply(x[0], SOMA_UNARY_LOG))
BUILD(b_sqrt, soma_apply(x[0], SOMA_UNARY_SQRT))
BUILD(b_square, soma_apply(x[0], SOMA_UNARY_SQUARE))
BUILD(b_tanh, soma_apply(x[0], SOMA_UNARY_TANH))
BUILD(b_sigmoid, soma_apply(x[0], SOMA_UNARY_SIGMOID))
BUILD(b_silu, soma_apply(x[0], SOMA_UNARY_SILU))
BUILD(b_gelu, soma_apply(x[0], SOMA_UNARY_GELU))
BUILD(b_relu, soma_apply(x[0], SOMA_UNARY_RELU))
BUILD(b_mish, soma_apply(x[0], SOMA_UNARY_MISH))
BUILD(b_constant, soma_mul(x[0], soma_constant(x[0]->graph, 0.5f, 1, (int64_t[]){1})))
BUILD(b_chain, soma_add(soma_mul(soma_apply(x[0], SOMA_UNARY_GELU), x[1]), soma_affine(x[2], 2, 1)))
BUILD(b_transposed, soma_add(soma_transpose(x[0]), x[1]))
BUILD(b_bytes, soma_affine(soma_cast(x[0], SOMA_F32), 2 / 255.0f, -1))
BUILD(b_bf16, soma_cast(soma_mul(x[0], soma_cast(x[1], SOMA_F32)), SOMA_BF16))
BUILD(b_copy, soma_contiguous(soma_transpose(x[0])))
BUILD(b_permute, soma_reshape(soma_permute(x[0], (int[]){2, 0, 1, 3}), 2, (int64_t[]){12, 10}))
BUILD(b_expand, soma_mul(soma_expand(x[0], 3, (int64_t[]){4, 3, 5}), x[1]))
BUILD(b_slices, soma_add(soma_mul(soma_slice(x[0], 1, 0, 3), soma_slice(x[0], 1, 3, 3)), soma_slice(x[0], 1, 6, 3)))
BUILD(b_slice, soma_mul(soma_slice(x[0], 1, 2, 3), soma_slice(x[0], 1, 3, 3)))
BUILD(b_concat, soma_concat((soma_tensor *[]){x[0], x[1], soma_transpose(x[2])}, 3, 1))
BUILD(b_concat0, soma_concat((soma_tensor *[]){x[0], x[1]}, 2, 0))
BUILD(b_pad, soma_pad(x[0], 1, 2, 1))
BUILD(b_sum_rows, soma_sum(x[0], 1))
BUILD(b_sum_last, soma_sum(x[0], 4))
BUILD(b_sum_middle, soma_sum(x[0], 2))
BUILD(b_mean, soma_mean_all(x[0]))
BUILD(b_matmul, soma_matmul(x[0], x[1], x[2], SOMA_F32))
BUILD(b_matmul16, soma_matmul(x[0], x[1], x[2], SOMA_BF16))
BUILD(b_matmul_nobias, soma_matmul(x[0], x[1], NULL, SOMA_F32))
BUILD(b_matmul_tt, soma_matmul(soma_transpose(x[0]), soma_transpose(x[1]), NULL, SOMA_F32))
BUILD(b_matmul_tt16, soma_matmul(soma_transpose(x[0]), soma_transpose(x[1]), NULL, SOMA_BF16))
BUILD(b_int8, soma_quant_matmul(x[0], x[1], x[2], SOMA_QUANT_I8))
BUILD(b_int8w, soma_quant_matmul(x[0], x[1], x[2], SOMA_QUANT_I8W))
BUILD(b_int4w, soma_quant_matmul(x[0], x[1], x[2], SOMA_QUANT_I4W))
BUILD(b_int4w16, soma_quant_matmul(soma_cast(x[0], SOMA_BF16), soma_cast(x[1], SOMA_BF16), NULL, SOMA_QUANT_I4W))
BUILD(b_int8_slice, soma_quant_matmul(soma_slice(x[0], 2, 3, 70), x[1], NULL, SOMA_QUANT_I8))
BUILD(b_embed, soma_embed(x[0], x[1]))
BUILD(b_rms, soma_rms_normalise(x[0], x[1], 1e-6f))
BUILD(b_rms_plain, soma_rms_normalise(x[0], NULL, 1e-6f))
BUILD(b_layer, soma_layer_normalise(x[0], x[1], x[2], 1e-6f))
BUILD(b_rope, soma_rotate(x[0], x[1], 10000))
BUILD(b_attend, soma_attend(x[0], x[1], x[2], x[3], x[4], 0.25f, SOMA_F32))
BUILD(b_attend16, soma_attend(x[0], x[1], x[2], x[3], x[4], 0.25f, SOMA_BF16))
#define WINDOW(h, w, s, p) ((soma_window){{h, w}, {s, s}, {p, p}})
BUILD(b_conv, soma_conv(x[0], x[1], x[2], WINDOW(0, 0, 1, 1), SOMA_F32))
BUILD(b_conv16, soma_conv(x[0], x[1], x[2], WINDOW(0, 0, 1, 1), SOMA_BF16))
BUILD(b_conv_s2, soma_conv(x[0], x[1], NULL, WINDOW(0, 0, 2, 3), SOMA_F32))
BUILD(b_conv_s2_16, soma_conv(x[0], x[1], NULL, WINDOW(0, 0, 2, 3), SOMA_BF16))
BUILD(b_conv_row, soma_conv(x[0], x[1], x[2], ((soma_window){{0}, {1, 2}, {0, 1}}), SOMA_F32))
BUILD(b_conv_strided, soma_conv(soma_permute(x[0], (int[]){0, 2, 3, 1}), x[1], NULL, WINDOW(0, 0, 1, 0), SOMA_F32))
BUILD(b_up, soma_conv_transposed(x[0], x[1], x[2], WINDOW(0, 0, 2, 1), ((int64_t[]){8, 11}), SOMA_F32))
BUILD(b_up_row, soma_conv_transposed(x[0], x[1], x[2], ((soma_window){{0}, {1, 2}, {0, 1}}), ((int64_t[]){1, 18}), SOMA_F32))
BUILD(b_up_row16, soma_conv_transposed(x[0], x[1], x[2], ((soma_window){{0}, {1, 2}, {0, 1}}), ((int64_t[]){1, 18}), SOMA_BF16))
BUILD(b_up_gaps, soma_conv_transposed(x[0], x[1], x[2], WINDOW(0, 0, 3, 0), ((int64_t[]){8, 9}), SOMA_F32))
BUILD(b_pool, soma_max_pool(x[0], WINDOW(3, 3, 2, 1)))
BUILD(b_pool_strided, soma_max_pool(soma_permute(x[0], (int[]){0, 2, 3, 1}), WINDOW(2, 3, 1, 0)))
BUILD(b_softmax, soma_softmax(x[0]))
BUILD(b_dropout, soma_dropout(x[0], (soma_drop){x[1], 0.3f}))
BUILD(b_dropout_view, soma_dropout(soma_transpose(x[0]), (soma_drop){x[1], 0.3f}))
BUILD(b_attend_dropped, soma_attend_dropped(x[0], x[1], x[2], x[3], x[4], 0.25f, SOMA_F32, (soma_drop){x[5], 0.3f}))
BUILD(b_cross, soma_cross_entropy(x[0], x[1]))
BUILD(b_time, soma_time_embed(x[0], 16, 4e-3, 4.0))

#define ATTENTION(B, T, H, S, KV, K)                                                                             \
    {                                                                                                            \
        V4(B, T, H, K), V4(B, S, KV, K), V4(B, S, KV, K), {BLOCKS, 2, {B, T}, true}, { BLOCKS, 2, {B, S}, true } \
    }

#define KEY \
    { IDS, 1, {2}, true }
#define DROPPED(B, T, H, S, KV, K) \
    { V4(B, T, H, K), V4(B, S, KV, K), V4(B, S, KV, K), {BLOCKS, 2, {B, T}, true}, {BLOCKS, 2, {B, S}, true}, KEY }

static const row rows[] = {
    {"add", SOMA_OP_ADD, b_add, {V3(4, 3, 5), V3(4, 3, 5)}, 1e-7},
    {"add, broadcast", SOMA_OP_ADD, b_add, {V3(4, 1, 50), V2(30, 50)}, 1e-7},
    {"sub", SOMA_OP_SUB, b_sub, {V2(300, 70), V1(70)}, 1e-7},
    {"mul", SOMA_OP_MUL, b_mul, {V2(300, 70), V2(300, 1)}, 1e-7},
    {"div", SOMA_OP_DIV, b_div, {V2(30, 7), {POSITIVE, 2, {30, 7}}}, 1e-6},
    {"affine", SOMA_OP_AFFINE, b_affine, {V2(300, 70)}, 1e-6},
    {"exp", SOMA_OP_UNARY, b_exp, {V2(30, 70)}, 2e-6},
    {"log", SOMA_OP_UNARY, b_log, {{POSITIVE, 2, {30, 70}}}, 2e-6},
    {"sqrt", SOMA_OP_UNARY, b_sqrt, {{POSITIVE, 2, {30, 70}}}, 1e-6},
    {"square", SOMA_OP_UNARY, b_square, {V2(30, 70)}, 1e-6},
    {"tanh", SOMA_OP_UNARY, b_tanh, {V2(30, 70)}, 2e-6},
    {"sigmoid", SOMA_OP_UNARY, b_sigmoid, {V2(30, 70)}, 2e-6},
    {"silu", SOMA_OP_UNARY, b_silu, {V2(30, 70)}, 2e-6},
    {"gelu", SOMA_OP_UNARY_GRAD, b_gelu, {V2(300, 70)}, 2e-6},
    {"relu", SOMA_OP_UNARY, b_relu, {{POSITIVE, 2, {30, 70}}}, 1e-7},
    {"mish", SOMA_OP_UNARY, b_mish, {V2(30, 70)}, 2e-6},
    {"constant", SOMA_OP_CONSTANT, b_constant, {V2(3, 7)}, 1e-7},
    {"chain", SOMA_OP_UNARY, b_chain, {V3(4, 33, 50), V3(4, 33, 50), V1(50)}, 2e-6},
    {"transposed", SOMA_OP_ADD, b_transposed, {V2(33, 50), V2(50, 33)}, 1e-7},
    {"bytes to f32", SOMA_OP_COPY, b_bytes, {{BYTES, 3, {9, 9, 3}, true}}, 1e-6, true},
    {"bf16 in and out", SOMA_OP_COPY, b_bf16, {V2(30, 70), {BF16, 2, {30, 70}, true}}, 1e-7, true}, // steps of 2^-8: no difference quotient
    {"copy", SOMA_OP_COPY, b_copy, {V3(3, 33, 50)}, 1e-7},
    {"permute", SOMA_OP_VIEW, b_permute, {V4(3, 2, 4, 5)}, 1e-7},
    {"expand", SOMA_OP_VIEW, b_expand, {V2(3, 1), V3(4, 3, 5)}, 1e-6},
    {"slices that tile", SOMA_OP_VIEW, b_slices, {V3(2, 9, 5)}, 1e-6},
    {"slices that overlap", SOMA_OP_PAD, b_slice, {V3(2, 9, 5)}, 1e-6},
    {"concat", SOMA_OP_CONCAT, b_concat, {V3(4, 3, 5), V3(4, 2, 5), V3(4, 5, 7)}, 1e-7},
    {"concat, outermost", SOMA_OP_CONCAT, b_concat0, {V2(30, 70), V2(3, 70)}, 1e-7},
    {"pad", SOMA_OP_PAD, b_pad, {V3(4, 3, 5)}, 1e-7},
    {"sum over rows", SOMA_OP_SUM, b_sum_rows, {V2(1000, 70)}, 1e-5},
    {"sum over the last", SOMA_OP_SUM, b_sum_last, {V3(4, 30, 70)}, 1e-5},
    {"sum in the middle", SOMA_OP_SUM, b_sum_middle, {V3(4, 30, 70)}, 1e-5},
    {"mean of all", SOMA_OP_SUM, b_mean, {V3(4, 30, 70)}, 1e-5},
    {"matmul", SOMA_OP_MATMUL, b_matmul, {V3(3, 50, 70), V2(90, 70), V1(90)}, 1e-5},
    {"matmul, one row", SOMA_OP_MATMUL, b_matmul, {V2(1, 64), V2(40, 64), V1(40)}, 1e-5},
    {"matmul bf16", SOMA_OP_MATMUL, b_matmul16, {V3(3, 50, 70), V2(90, 70), V1(90)}, 1e-5, true},
    {"matmul bf16, large", SOMA_OP_MATMUL, b_matmul16, {V2(515, 130), V2(257, 130), V1(257)}, 1e-5, true},
    {"matmul, batched", SOMA_OP_MATMUL, b_matmul_nobias, {V4(2, 3, 20, 33), V4(2, 3, 17, 33)}, 1e-5},
    {"matmul, transposed", SOMA_OP_MATMUL, b_matmul_tt, {V2(600, 50), V2(600, 70)}, 2e-5},
    {"matmul bf16, transposed", SOMA_OP_MATMUL, b_matmul_tt16, {V2(1500, 50), V2(1500, 70)}, 2e-5, true},
    // whole numbers: the fast kernels give the plain ones' bits
    {"int8", SOMA_OP_QUANT_MATMUL, b_int8, {V3(3, 7, 70), V2(90, 70), V1(90)}, 0, true},
    {"int8, large", SOMA_OP_QUANT_MATMUL, b_int8, {V2(101, 300), V2(67, 300), V1(67)}, 0, true},
    {"int8, slice", SOMA_OP_QUANT_MATMUL, b_int8_slice, {V3(2, 3, 75), V2(40, 70)}, 0, true},
    {"int8w", SOMA_OP_QUANT_MATMUL, b_int8w, {V3(3, 7, 70), V2(90, 70), V1(90)}, 0, true},
    {"int8w, one row, long", SOMA_OP_QUANT_MATMUL, b_int8w, {V2(1, 2500), V2(64, 2500), V1(64)}, 0, true},
    {"int4w", SOMA_OP_QUANT_MATMUL, b_int4w, {V3(3, 7, 70), V2(90, 70), V1(90)}, 0, true},
    {"int4w, one row, long", SOMA_OP_QUANT_MATMUL, b_int4w, {V2(1, 2500), V2(64, 2500), V1(64)}, 0, true},
    {"int4w of bf16", SOMA_OP_QUANT_MATMUL, b_int4w16, {V2(9, 300), V2(33, 300)}, 0, true},
    {"embed", SOMA_OP_EMBED, b_embed, {V2(11, 50), {IDS, 2, {4, 6}, true}}, 1e-6},
    {"embed gradient", SOMA_OP_EMBED_GRAD, b_embed, {V2(11, 5), {IDS, 2, {9, 6}, true}}, 1e-6},
    {"rms_norm", SOMA_OP_RMS_NORM, b_rms, {V3(4, 30, 70), V1(70)}, 3e-6},
    {"rms_norm without weight", SOMA_OP_RMS_NORM_GRAD, b_rms_plain, {V3(4, 30, 64)}, 3e-6},
    {"layer_norm", SOMA_OP_LAYER_NORM, b_layer, {V3(4, 30, 70), V1(70), V1(70)}, 5e-6},
    {"layer_norm gradient", SOMA_OP_LAYER_NORM_GRAD, b_layer, {V2(700, 64), V1(64), V1(64)}, 5e-6},
    {"rope", SOMA_OP_ROPE, b_rope, {V4(2, 9, 3, 16), {POSITIONS, 2, {2, 9}, true}}, 2e-5},
    {"attention", SOMA_OP_ATTENTION, b_attend, ATTENTION(2, 19, 4, 37, 1, 16), 1e-5},
    {"attention, heads alike", SOMA_OP_ATTENTION, b_attend, ATTENTION(2, 70, 3, 70, 3, 24), 1e-5},
    {"attention, one query", SOMA_OP_ATTENTION, b_attend, ATTENTION(1, 1, 8, 150, 2, 32), 1e-5},
    {"attention gradient", SOMA_OP_ATTENTION_GRAD, b_attend, ATTENTION(2, 33, 2, 90, 1, 8), 1e-5},
    {"attention bf16", SOMA_OP_ATTENTION, b_attend16, ATTENTION(2, 40, 4, 90, 1, 32), 1e-2, true}, // probabilities round to bf16 (2^-9)
    {"conv", SOMA_OP_CONV, b_conv, {V4(2, 7, 9, 5), V4(6, 5, 3, 3), V1(6)}, 1e-5},
    {"conv, wide", SOMA_OP_CONV, b_conv, {V4(2, 9, 16, 70), V4(70, 70, 3, 3), V1(70)}, 2e-5},
    {"conv bf16", SOMA_OP_CONV, b_conv16, {V4(2, 7, 9, 5), V4(67, 5, 3, 3), V1(67)}, 1e-5, true},
    {"conv, stride", SOMA_OP_CONV_GRAD, b_conv_s2, {V4(2, 15, 18, 3), V4(8, 3, 7, 7)}, 1e-5},
    {"conv bf16, stride", SOMA_OP_CONV_GRAD, b_conv_s2_16, {V4(2, 15, 18, 4), V4(8, 4, 7, 7)}, 1e-5, true},
    {"conv, one row", SOMA_OP_CONV, b_conv_row, {V4(3, 1, 16, 10), V4(12, 10, 1, 3), V1(12)}, 1e-5},
    {"conv, channels first", SOMA_OP_CONV, b_conv_strided, {V4(2, 5, 7, 6), V4(4, 5, 2, 2)}, 1e-5},
    {"conv_transposed", SOMA_OP_CONV_TRANSPOSED, b_up, {V4(2, 4, 6, 5), V4(5, 7, 3, 3), V1(7)}, 1e-5},
    {"conv_transposed, one row", SOMA_OP_CONV_TRANSPOSED, b_up_row, {V4(3, 1, 9, 10), V4(10, 12, 1, 4), V1(12)}, 1e-5},
    {"conv_transposed bf16", SOMA_OP_CONV_TRANSPOSED, b_up_row16, {V4(3, 1, 9, 10), V4(10, 12, 1, 4), V1(12)}, 1e-5, true},
    {"conv_transposed, gaps", SOMA_OP_CONV_TRANSPOSED, b_up_gaps, {V4(2, 3, 3, 5), V4(5, 4, 2, 1), V1(4)}, 1e-5},
    {"max_pool", SOMA_OP_MAX_POOL, b_pool, {V4(2, 7, 10, 5)}, 1e-7, true}, // a place changes within h now and then: see the next
    {"max_pool gradient", SOMA_OP_MAX_POOL_GRAD, b_pool, {V4(1, 4, 5, 2)}, 1e-7},
    {"max_pool, channels first", SOMA_OP_MAX_POOL, b_pool_strided, {V4(2, 3, 5, 6)}, 1e-7, true},
    {"softmax", SOMA_OP_SOFTMAX, b_softmax, {V3(4, 6, 70)}, 1e-6},
    {"dropout", SOMA_OP_DROPOUT, b_dropout, {V3(5, 66, 150), KEY}, 1e-7},
    {"dropout of a view", SOMA_OP_DROPOUT, b_dropout_view, {V2(30, 70), KEY}, 1e-7},
    {"attention, dropped", SOMA_OP_ATTENTION, b_attend_dropped, DROPPED(2, 70, 4, 90, 2, 16), 1e-5},
    {"attention gradient, dropped", SOMA_OP_ATTENTION_GRAD, b_attend_dropped, DROPPED(2, 33, 2, 150, 2, 8), 1e-5},
    {"cross_entropy", SOMA_OP_CROSS_ENTROPY, b_cross, {V3(4, 6, 11), {IDS, 2, {4, 6}, true}}, 1e-6},
    {"cross_entropy gradient", SOMA_OP_CROSS_ENTROPY_GRAD, b_cross, {V2(50, 5003), {IDS, 1, {50}, true}}, 1e-6},
    {"time_embed", SOMA_OP_TIME_EMBED, b_time, {V1(5)}, 1e-6, true},
};

// ---- running a row

typedef struct {
    soma_graph *graph;
    soma_plan *plan;
    soma_frame *frame;
    soma_tensor *x[MAX_IN];
    int n_in;
    int64_t n_out, n_grad[MAX_IN];
} job;

static soma_dtype dtype_of(fill f) {
    return f == IDS || f == POSITIONS || f == BLOCKS ? SOMA_I32 : f == BYTES ? SOMA_U8 : f == BF16 ? SOMA_BF16 : SOMA_F32;
}

// The graph of a row: y, and with `grads` the gradient of sum(y * r) with respect to every input that has one.
static void job_open(job *j, const row *r, soma_device *device, bool grads) {
    soma_error err;
    *j = (job){0};
    assert_int_equal(soma_graph_new(&j->graph, &err), SOMA_OK);
    for (int i = 0; i < MAX_IN && r->inputs[i].n_dims; i++) {
        char name[8];
        snprintf(name, sizeof name, "x%d", i);
        j->x[i] = soma_input(j->graph, name, dtype_of(r->inputs[i].fill), r->inputs[i].n_dims, r->inputs[i].shape);
        j->n_in = i + 1;
    }
    soma_tensor *y = r->build(j->x);
    j->n_out = soma__numel(y);
    if (grads) {
        soma_tensor *weight = soma_input(j->graph, "r", SOMA_F32, y->n_dims, y->shape), *wrt[MAX_IN], *g[MAX_IN];
        soma_tensor *loss = soma_sum(soma_mul(soma_cast(y, SOMA_F32), weight), (1u << y->n_dims) - 1);
        loss = soma_reshape(loss, 1, (int64_t[]){1});
        int n = 0;
        for (int i = 0; i < j->n_in; i++)
            if (!r->inputs[i].fixed) wrt[n++] = j->x[i];
        soma_backward(loss, wrt, n, g);
        soma_output(loss, "loss");
        for (int i = 0, k = 0; i < j->n_in; i++) {
            char name[8];
            snprintf(name, sizeof name, "g%d", i);
            if (r->inputs[i].fixed) continue;
            assert_non_null(g[k]);
            j->n_grad[i] = soma__numel(g[k]);
            soma_output(g[k++], name);
        }
    }
    soma_output(soma_cast(y, SOMA_F32), "y");
    if (soma__plan_new(&j->plan, j->graph, NULL, NULL, device, &err)) fail_msg("%s: %s", r->name, err.text);
    assert_int_equal(soma__frame_new(&j->frame, j->plan, NULL, NULL, NULL, &err), SOMA_OK);
}

static void job_close(job *j) {
    soma__frame_free(j->frame);
    soma__plan_free(j->plan);
    soma_graph_free(j->graph);
}

static void put(job *j, const char *name, const void *data, size_t size) {
    soma_error err;
    if (soma__frame_put(j->frame, name, data, size, &err)) fail_msg("%s", err.text);
}

static float *get(job *j, const char *name, int64_t n) {
    soma_error err;
    float *out = malloc(sizeof *out * (size_t)n);
    if (soma__frame_get(j->frame, name, out, sizeof *out * (size_t)n, &err)) fail_msg("%s", err.text);
    return out;
}

// The same numbers for every device: they follow from the row's name.
static void fill_inputs(job *j, const row *r, const float *shift, double step) {
    soma_rng rng = soma__rng(soma__hash(SOMA_HASH_START, r->name, strlen(r->name)));
    for (int i = 0, at = 0; i < j->n_in; i++) {
        int64_t n = soma__numel(j->x[i]);
        char name[8], *data = malloc((size_t)n * 4);
        snprintf(name, sizeof name, "x%d", i);
        for (int64_t k = 0; k < n; k++) {
            float x = (float)soma__rng_normal(&rng);
            if (r->inputs[i].fill == POSITIVE) x = 0.5f + fabsf(x);
            if (shift && !r->inputs[i].fixed) x += (float)step * shift[at++];
            if (r->inputs[i].fill == BYTES)
                ((uint8_t *)data)[k] = (uint8_t)soma__rng_below(&rng, 256);
            else if (r->inputs[i].fill == BF16)
                ((uint16_t *)data)[k] = cpu_to_bf16(x);
            else if (r->inputs[i].fill == IDS)
                ((int32_t *)data)[k] = (int32_t)soma__rng_below(&rng, 12) - (k == 3);
            else if (r->inputs[i].fill == POSITIONS)
                ((int32_t *)data)[k] = (int32_t)soma__rng_below(&rng, 900);
            else if (r->inputs[i].fill == BLOCKS)
                ((int32_t *)data)[k] = k % 7 == 3 && i == 4 ? SOMA_BLOCK_NEVER : (int32_t)(k % 5) - (i == 3 && k == 1 ? 9 : 0);
            else
                ((float *)data)[k] = x;
        }
        put(j, name, data, (size_t)n * soma_dtype_size(j->x[i]->dtype));
        free(data);
    }
    if (!soma__plan_find(j->plan, "r")) return;
    float *weight = malloc(sizeof *weight * (size_t)j->n_out);
    soma__rng_normals(&rng, weight, (size_t)j->n_out);
    put(j, "r", weight, sizeof *weight * (size_t)j->n_out);
    free(weight);
}

static soma_device *open_device(soma_isa isa, int threads) {
    soma_device *d;
    soma_error err;
    soma_device_opts o = {.threads = threads, .isa = cpu_isa_name(isa)};
    if (soma__device_open(&d, "cpu", &o, &err)) fail_msg("%s", err.text);
    return d;
}

static bool has_gradient(const row *r) {
    return r->inputs[0].fill != BYTES && r->op != SOMA_OP_TIME_EMBED && r->op != SOMA_OP_QUANT_MATMUL;
}

static double difference(const float *a, const float *b, int64_t n) {
    double top = 1e-30, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        top = fmax(top, fabs(b[i]));
        double d = fabs((double)a[i] - b[i]);
        worst = isnan(d) ? INFINITY : fmax(worst, d);
    }
    return worst / top;
}

static void test_fast_against_plain(void **state) {
    soma_device *plain = open_device(SOMA_ISA_PLAIN, 1);
    for (soma_isa isa = SOMA_ISA_PLAIN + 1; isa <= cpu_best_isa(); isa++) {
        soma_device *fast = open_device(isa, 2);
        for (size_t i = 0; i < SOMA_COUNT(rows); i++) {
            const row *r = &rows[i];
            job a, b;
            bool grads = has_gradient(r);
            job_open(&a, r, plain, grads);
            job_open(&b, r, fast, grads);
            fill_inputs(&a, r, NULL, 0);
            fill_inputs(&b, r, NULL, 0);
            soma__frame_run(a.frame);
            soma__frame_run(b.frame);
            for (int o = -1; o < a.n_in; o++) {
                char name[16] = "y";
                if (o >= 0) snprintf(name, sizeof name, "g%d", o);
                int64_t n = o < 0 ? a.n_out : a.n_grad[o];
                if (!n) continue;
                float *pa = get(&a, name, n), *pb = get(&b, name, n);
                double d = difference(pb, pa, n);
                double limit =
                    o < 0 ? r->tolerance
                          : r->tolerance * 5 + (strstr(r->name, "bf16") ? 1e-2 : 0); // gradients: longer sums; dy rounds to bf16 too
                if (d > limit)
                    fail_msg("%s: %s on %s differs by %.2e of its largest value, allowed %.2e", r->name, name, cpu_isa_name(isa), d, limit);
                free(pa);
                free(pb);
            }
            job_close(&a);
            job_close(&b);
        }
        soma__device_close(fast);
    }
    soma__device_close(plain);
}

// Central differences along a random direction u, in float: error h^2 from the curve, 1e-7/h from rounding; h = 2e-3 leaves about 1e-4.
static void test_gradients(void **state) {
    soma_device *plain = open_device(SOMA_ISA_PLAIN, 1);
    printf("%-26s %14s %14s %10s\n", "gradient of", "finite diff.", "built", "rel. error");
    for (size_t i = 0; i < SOMA_COUNT(rows); i++) {
        const row *r = &rows[i];
        if (r->no_grad) continue;
        job j;
        job_open(&j, r, plain, true);
        int64_t n = 0, at = 0;
        for (int k = 0; k < j.n_in; k++) n += j.n_grad[k];
        float *u = malloc(sizeof *u * (size_t)n);
        soma_rng rng = soma__rng(99 + i);
        soma__rng_normals(&rng, u, (size_t)n);
        double built = 0, size = 0, numeric = 0, h = 2e-3;
        fill_inputs(&j, r, NULL, 0);
        soma__frame_run(j.frame);
        for (int k = 0; k < j.n_in; k++) {
            char name[8];
            snprintf(name, sizeof name, "g%d", k);
            if (!j.n_grad[k]) continue;
            float *g = get(&j, name, j.n_grad[k]);
            for (int64_t m = 0; m < j.n_grad[k]; m++, at++) {
                built += (double)g[m] * u[at];
                size += (double)g[m] * g[m];
            }
            free(g);
        }
        float *y[2], *weight = get(&j, "r", j.n_out);
        for (int s = 0; s < 2; s++) {
            fill_inputs(&j, r, u, s ? -h : h);
            soma__frame_run(j.frame);
            y[s] = get(&j, "y", j.n_out);
        }
        for (int64_t k = 0; k < j.n_out; k++) numeric += weight[k] * ((double)y[0][k] - y[1][k]) / (2 * h);
        double error = fabs(numeric - built) / sqrt(size + 1e-30); // u has unit variance: <g, u> is about |g|
        double limit = 3e-3;
        printf("%-26s %14.6g %14.6g %10.1e\n", r->name, numeric, built, error);
        if (!(error < limit)) fail_msg("%s: the gradient is wrong by %.2e of its length", r->name, error);
        free(y[0]);
        free(y[1]);
        free(u);
        free(weight);
        job_close(&j);
    }
    soma__device_close(plain);
}

static void test_threads_do_not_matter(void **state) {
#if defined(SOMA_EMULATED) // a hundred times slower, and waiting threads cost as much (tests/compile/neon.sh)
    enum { MOST_THREADS = 2 };
#else
    enum { MOST_THREADS = 3 };
#endif
    for (size_t i = 0; i < SOMA_COUNT(rows); i++) {
        uint64_t hash[MOST_THREADS];
        for (int threads = 1; threads <= MOST_THREADS; threads++) {
            soma_device *d = open_device(cpu_best_isa(), threads);
            job j;
            bool grads = has_gradient(&rows[i]);
            job_open(&j, &rows[i], d, grads);
            fill_inputs(&j, &rows[i], NULL, 0);
            uint64_t before = soma__alloc_count();
            soma__frame_run(j.frame);
            assert_int_equal(soma__alloc_count(), before); // a run allocates nothing
            hash[threads - 1] = soma__hash(SOMA_HASH_START, j.frame->buffers[SOMA_ROLE_IO], j.plan->size[SOMA_ROLE_IO]);
            job_close(&j);
            soma__device_close(d);
            if (hash[threads - 1] != hash[0]) fail_msg("%s: other bits with %d threads", rows[i].name, threads);
        }
    }
}

static void test_every_op_has_a_row(void **state) {
    bool seen[SOMA_OP_COUNT] = {[SOMA_OP_LEAF] = true, [SOMA_OP_STORE] = true, [SOMA_OP_ADAMW] = true}; // effects: tests/graph
    for (size_t i = 0; i < SOMA_COUNT(rows); i++) seen[rows[i].op] = true;
    for (int op = 0; op < SOMA_OP_COUNT; op++)
        if (!seen[op]) fail_msg("the op %s has no row", soma__op_name(op));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op_has_a_row),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_fast_against_plain),
        cmocka_unit_test(test_threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
