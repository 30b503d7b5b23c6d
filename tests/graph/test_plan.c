// SPDX-License-Identifier: Apache-2.0
// The graph's first mistake, states that outlive a run, the optimiser's step against its formula, memory reuse, and every allocation
// failing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "device/device.h"

#include <math.h>
#include <string.h>

static soma_device *device;

static int open_device(void **state) { return soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 2}, NULL) != SOMA_OK; }

static int close_device(void **state) {
    soma__device_close(device);
    return 0;
}

static soma_graph *new_graph(void) {
    soma_graph *g;
    assert_int_equal(soma_graph_new(&g, NULL), SOMA_OK);
    return g;
}

static void test_first_mistake_sticks(void **state) {
    soma_graph *g = new_graph();
    soma_error err = {0};
    soma_plan *plan;
    soma_tensor *x = soma_input(g, "x", SOMA_F32, 2, (int64_t[]){3, 4});
    soma_tensor *w = soma_weight(g, "layers.0.q_proj.weight", SOMA_F32, (soma_init){0}, 2, (int64_t[]){5, 7});
    soma_tensor *y = soma_matmul(x, w, NULL, SOMA_F32);
    soma_output(soma_add(y, soma_reshape(y, 1, (int64_t[]){99})), "y"); // harmless after the first
    assert_int_equal(soma__plan_new(&plan, g, NULL, NULL, device, &err), SOMA_BAD_GRAPH);
    assert_non_null(strstr(err.text, "matmul of [3, 4] and [5, 7]"));
    assert_non_null(strstr(err.text, "layers.0.q_proj.weight"));
    assert_null(plan);
    soma_graph_free(g);
}

static void test_one_name_one_shape(void **state) {
    soma_graph *g = new_graph();
    soma_weight(g, "w", SOMA_F32, (soma_init){0}, 1, (int64_t[]){4});
    assert_ptr_equal(soma_weight(g, "w", SOMA_F32, (soma_init){0}, 1, (int64_t[]){4}), g->tensors[0]);
    soma_weight(g, "w", SOMA_F32, (soma_init){0}, 1, (int64_t[]){5});
    assert_int_equal(g->error.code, SOMA_BAD_GRAPH);
    assert_non_null(strstr(g->error.text, "[4]"));
    assert_non_null(strstr(g->error.text, "[5]"));
    soma_graph_free(g);
}

static void test_state_outlives_a_run(void **state) {
    soma_graph *g = new_graph();
    soma_layout states = {0};
    soma_plan *plan;
    soma_frame *frame;
    soma_error err;
    int64_t n = 3;
    soma_tensor *count = soma_state(g, "count", SOMA_F32, 1, &n), *x = soma_input(g, "x", SOMA_F32, 1, &n);
    soma_output(soma_store(soma_add(count, x), count), "now"); // the stored value, read after the write
    assert_int_equal(soma__layout_add(&states, g, SOMA_ROLE_STATE, &err), SOMA_OK);
    assert_int_equal(soma__plan_new(&plan, g, NULL, &states, device, &err), SOMA_OK);
    float memory[16] = {1, 2, 3}, in[3] = {10, 20, 30}, out[3];
    assert_int_equal(soma__frame_new(&frame, plan, NULL, NULL, memory, &err), SOMA_OK);
    assert_int_equal(soma__frame_put(frame, "x", in, sizeof in, &err), SOMA_OK);
    soma__frame_run(frame);
    soma__frame_run(frame);
    assert_int_equal(soma__frame_get(frame, "now", out, sizeof out, &err), SOMA_OK);
    for (int i = 0; i < 3; i++) {
        assert_float_equal(out[i], (i + 1) + 2 * in[i], 0);
        assert_float_equal(memory[i], out[i], 0);
    }
    assert_int_equal(soma__frame_put(frame, "x", in, 8, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "[3]"));
    assert_int_equal(soma__frame_put(frame, "y", in, 8, &err), SOMA_NOT_FOUND);
    soma__frame_free(frame);
    soma__plan_free(plan);
    soma__layout_free(&states);
    soma_graph_free(g);
}

// A cache [B, S, 2]: each sample's rows go where its input says at that run; what does not fit is left out.
static void test_rows_of_a_state(void **state) {
    soma_graph *g = new_graph();
    soma_layout states = {0};
    soma_plan *plan;
    soma_frame *frame;
    soma_error err;
    soma_tensor *cache = soma_state(g, "cache", SOMA_F32, 3, (int64_t[]){2, 4, 2});
    soma_tensor *x = soma_input(g, "x", SOMA_F32, 3, (int64_t[]){2, 1, 2}), *row = soma_input(g, "row", SOMA_I32, 1, (int64_t[]){2});
    soma_output(soma_store_rows(x, cache, row), "now");
    assert_int_equal(soma__layout_add(&states, g, SOMA_ROLE_STATE, &err), SOMA_OK);
    assert_int_equal(soma__plan_new(&plan, g, NULL, &states, device, &err), SOMA_OK);
    float memory[16] = {0}, out[16];
    assert_int_equal(soma__frame_new(&frame, plan, NULL, NULL, memory, &err), SOMA_OK);
    const int32_t rows[3][2] = {{0, 3}, {2, 1}, {4, -1}};
    for (int run = 0; run < 3; run++) {
        float in[] = {10 * run + 1, 10 * run + 2, 10 * run + 3, 10 * run + 4};
        assert_int_equal(soma__frame_put(frame, "x", in, sizeof in, &err), SOMA_OK);
        assert_int_equal(soma__frame_put(frame, "row", rows[run], sizeof rows[run], &err), SOMA_OK);
        soma__frame_run(frame);
    }
    const float want[16] = {1, 2, 0, 0, 11, 12, 0, 0, 0, 0, 13, 14, 0, 0, 3, 4};
    assert_int_equal(soma__frame_get(frame, "now", out, sizeof out, &err), SOMA_OK);
    assert_memory_equal(memory, want, sizeof want);
    assert_memory_equal(out, want, sizeof want);
    soma__frame_free(frame);
    soma__plan_free(plan);
    soma__layout_free(&states);
    soma_store_rows(soma_reshape(x, 3, (int64_t[]){1, 2, 2}), cache, row);
    assert_int_equal(g->error.code, SOMA_BAD_GRAPH);
    soma_graph_free(g);
}

// Two steps with all terms alive, against the formula in double.
static void test_adamw(void **state) {
    enum { N = 1000 };
    static float w[N], gr[N], m[N], v[N], ema[N];
    double dw[N], dm[N] = {0}, dv[N] = {0}, de[N];
    for (int i = 0; i < N; i++) {
        dw[i] = de[i] = w[i] = ema[i] = sinf((float)i);
        gr[i] = cosf((float)i * 1.7f);
        m[i] = v[i] = 0;
    }
    soma_graph *g = new_graph();
    soma_layout states = {0};
    soma_plan *plan;
    soma_frame *frame;
    soma_error err;
    const char *names[] = {"w", "g", "m", "v", "ema"};
    soma_tensor *t[5];
    int64_t n = N;
    for (int i = 0; i < 5; i++) t[i] = soma_state(g, names[i], SOMA_F32, 1, &n);
    soma_adamw(t[0], t[1], t[2], t[3], t[4], soma_input(g, "s", SOMA_F32, 1, (int64_t[]){8}),
               soma_input(g, "k", SOMA_F32, 1, (int64_t[]){1}));
    assert_int_equal(soma__layout_add(&states, g, SOMA_ROLE_STATE, &err), SOMA_OK);
    char *memory = soma__alloc(states.size);
    float *arrays[] = {w, gr, m, v, ema};
    for (int i = 0; i < 5; i++) memcpy(memory + soma__layout_find(&states, names[i])->place, arrays[i], sizeof w);
    assert_int_equal(soma__plan_new(&plan, g, NULL, &states, device, &err), SOMA_OK);
    assert_int_equal(soma__frame_new(&frame, plan, NULL, NULL, memory, &err), SOMA_OK);
    for (int step = 1; step <= 2; step++) {
        double lr = 0.01, b1 = 0.9, b2 = 0.95, eps = 1e-8, wd = 0.1, c1 = 1 / (1 - pow(b1, step)), c2 = 1 / (1 - pow(b2, step)), d = 0.9,
               k = 0.5;
        float s[8] = {(float)lr, (float)b1, (float)b2, (float)eps, (float)wd, (float)c1, (float)c2, (float)d}, kf = (float)k;
        assert_int_equal(soma__frame_put(frame, "s", s, sizeof s, &err), SOMA_OK);
        assert_int_equal(soma__frame_put(frame, "k", &kf, sizeof kf, &err), SOMA_OK);
        soma__frame_run(frame);
        for (int i = 0; i < N; i++) {
            double gi = gr[i] * k;
            dm[i] = b1 * dm[i] + (1 - b1) * gi;
            dv[i] = b2 * dv[i] + (1 - b2) * gi * gi;
            dw[i] -= lr * (dm[i] * c1 / (sqrt(dv[i] * c2) + eps) + wd * dw[i]);
            de[i] = d * de[i] + (1 - d) * dw[i];
        }
    }
    memcpy(w, memory + soma__layout_find(&states, "w")->place, sizeof w);
    memcpy(ema, memory + soma__layout_find(&states, "ema")->place, sizeof w);
    for (int i = 0; i < N; i++) {
        assert_float_equal(w[i], dw[i], 2e-6);
        assert_float_equal(ema[i], de[i], 2e-6);
    }
    soma__frame_free(frame);
    soma__plan_free(plan);
    soma__free(memory);
    soma__layout_free(&states);
    soma_graph_free(g);
}

// A long row of sums: memory stays that of a few tensors, and the numbers are right all the same.
static soma_plan *long_plan(soma_graph *g, soma_error *err) {
    int64_t shape[] = {64, 64};
    soma_tensor *x = soma_input(g, "x", SOMA_F32, 2, shape), *y = x;
    for (int i = 0; i < 40; i++)
        y = soma_add(soma_transpose(y), soma_affine(x, 1, (float)i)); // the transpose keeps them from being one chain
    soma_output(y, "y");
    soma_plan *plan;
    return soma__plan_new(&plan, g, NULL, NULL, device, err) ? NULL : plan;
}

static void test_memory_is_reused(void **state) {
    soma_graph *g = new_graph();
    soma_error err;
    soma_plan *plan = long_plan(g, &err);
    assert_non_null(plan);
    assert_true(plan->size[SOMA_ROLE_SCRATCH] <= 4 * 64 * 64 * sizeof(float));
    soma_frame *frame;
    assert_int_equal(soma__frame_new(&frame, plan, NULL, NULL, NULL, &err), SOMA_OK);
    float x[64 * 64], y[64 * 64];
    for (int i = 0; i < 64 * 64; i++) x[i] = (float)(i % 17);
    assert_int_equal(soma__frame_put(frame, "x", x, sizeof x, &err), SOMA_OK);
    soma__frame_run(frame);
    assert_int_equal(soma__frame_get(frame, "y", y, sizeof y, &err), SOMA_OK);
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) { // 41 terms, every second one transposed; 0 + 1 + .. + 39
            float a = x[i * 64 + j], b = x[j * 64 + i];
            assert_float_equal(y[i * 64 + j], 21 * a + 20 * b + 780, 1e-3);
        }
    soma__frame_free(frame);
    soma__plan_free(plan);
    soma_graph_free(g);
}

// What only products of bf16 read is kept as bf16, and what others read, too, or is seen, is not: the bits are the same.
static soma_tensor *gated(soma_graph *g, bool seen) {
    const soma_init none = {0};
    soma_tensor *x = soma_input(g, "x", SOMA_F32, 2, (int64_t[]){130, 70});
    soma_tensor *w[] = {soma_input(g, "gate", SOMA_F32, 2, (int64_t[]){66, 70}), soma_input(g, "up", SOMA_F32, 2, (int64_t[]){66, 70}),
                        soma_input(g, "down", SOMA_F32, 2, (int64_t[]){70, 66})};
    soma_tensor *y = soma_rms_normalise(x, soma_weight(g, "norm", SOMA_F32, none, 1, (int64_t[]){70}), 1e-6f);
    soma_tensor *gate = soma_apply(soma_matmul(y, w[0], NULL, SOMA_BF16), SOMA_UNARY_GELU);
    soma_tensor *h = soma_mul(gate, soma_matmul(y, w[1], NULL, SOMA_BF16));
    soma_output(soma_add(x, soma_matmul(h, w[2], NULL, SOMA_BF16)), "y");
    if (seen) soma_output(y, "normalised"), soma_output(h, "hidden");
    return y;
}

static void test_rounded_where_nobody_sees_it(void **state) {
    static float in[130 * 70], out[2][130 * 70], norm[128];
    for (int i = 0; i < 130 * 70; i++) in[i] = sinf((float)i);
    for (int seen = 0; seen < 2; seen++) {
        soma_graph *g = new_graph();
        soma_layout weights = {0};
        soma_plan *plan;
        soma_frame *frame;
        soma_error err;
        const soma_tensor *y = gated(g, seen);
        assert_int_equal(soma__layout_add(&weights, g, SOMA_ROLE_WEIGHT, &err), SOMA_OK);
        assert_int_equal(soma__plan_new(&plan, g, &weights, NULL, device, &err), SOMA_OK);
        assert_int_equal(y->dtype, seen ? SOMA_F32 : SOMA_BF16);
        assert_int_equal(soma__frame_new(&frame, plan, norm, NULL, NULL, &err), SOMA_OK);
        assert_int_equal(soma__frame_put(frame, "x", in, sizeof in, &err), SOMA_OK);
        const char *names[] = {"gate", "up", "down"};
        for (int i = 0; i < 3; i++) assert_int_equal(soma__frame_put(frame, names[i], in + 7 * i, 66 * 70 * 4, &err), SOMA_OK);
        soma__frame_run(frame);
        assert_int_equal(soma__frame_get(frame, "y", out[seen], sizeof out[seen], &err), SOMA_OK);
        soma__frame_free(frame);
        soma__plan_free(plan);
        soma__layout_free(&weights);
        soma_graph_free(g);
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_true(out[0][5] != in[5]);
}

static void test_every_allocation_may_fail(void **state) {
    for (int64_t n = 0;; n++) {
        soma_graph *g = NULL;
        soma_error err = {0};
        soma_plan *plan = NULL;
        soma__alloc_fail_after(n);
        soma_status status = soma_graph_new(&g, &err);
        if (status == SOMA_OK) plan = long_plan(g, &err);
        soma__alloc_fail_after(-1);
        bool done = plan != NULL;
        if (!done) assert_int_equal(err.code, SOMA_NO_MEMORY);
        soma__plan_free(plan);
        soma_graph_free(g);
        if (done) break;
        assert_true(n < 1000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_mistake_sticks),
        cmocka_unit_test(test_one_name_one_shape),
        cmocka_unit_test(test_state_outlives_a_run),
        cmocka_unit_test(test_rows_of_a_state),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_memory_is_reused),
        cmocka_unit_test(test_rounded_where_nobody_sees_it),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
