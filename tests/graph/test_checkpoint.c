// SPDX-License-Identifier: Apache-2.0
// Recomputation: the same loss and the same gradients to the bit, in a fraction of the memory; taps and states inside a segment stay what
// they are; every allocation may fail.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "device/device.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LAYERS = 12, ROWS = 96, D = 32, F = 128 };

typedef struct {
    soma_graph *graph;
    soma_plan *plan;
    soma_frame *frame;
    soma_layout weights, states;
    char *w, *g, *s;
} net;

static soma_tensor *linear(soma_graph *g, const char *name, int i, soma_tensor *x, int64_t out) {
    char full[32];
    snprintf(full, sizeof full, "%s.%d", name, i);
    int64_t in = x->shape[x->n_dims - 1];
    return soma_matmul(x, soma_weight(g, full, SOMA_F32, (soma_init){0}, 2, (int64_t[]){out, in}), NULL, SOMA_BF16);
}

// Residual blocks with a norm, attention, a slice, a state that is written, and a tap inside the segment.
static soma_status build(net *n, bool segments, soma_device *device, soma_error *err) {
    *n = (net){0};
    SOMA_TRY(soma_graph_new(&n->graph, err));
    soma_graph *g = n->graph;
    g->keep_taps = true;
    soma_tensor *x = soma_input(g, "x", SOMA_F32, 2, (int64_t[]){ROWS, D});
    soma_tensor *block = soma_cast(soma_constant(g, 0, 2, (int64_t[]){1, ROWS}), SOMA_I32);
    for (int i = 0; i < LAYERS; i++) {
        if (segments) soma_checkpoint(g, true);
        soma_tensor *h = soma_rms_normalise(x, NULL, 1e-6f);
        soma_tensor *qk = soma_reshape(linear(g, "qk", i, h, 2 * D), 4, (int64_t[]){1, ROWS, 4, D / 2});
        soma_tensor *k = soma_slice(qk, 2, 2, 2), *v = soma_reshape(linear(g, "v", i, h, D), 4, (int64_t[]){1, ROWS, 2, D / 2});
        if (i == 1) soma_store(soma_contiguous(k), soma_state(g, "keys", SOMA_F32, 4, k->shape));
        soma_tensor *a = soma_attend(soma_slice(qk, 2, 0, 2), k, v, block, block, 0.25f, SOMA_F32);
        x = soma_add(x, soma_reshape(a, 2, (int64_t[]){ROWS, D}));
        h = soma_tap(soma_apply(linear(g, "up", i, x, F), SOMA_UNARY_GELU), "hidden.%d", i);
        x = soma_add(x, linear(g, "down", i, h, D));
    }
    soma_checkpoint(g, false);
    soma_tensor *loss = soma_mean_all(soma_apply(x, SOMA_UNARY_SQUARE));
    soma_output(loss, "loss");
    soma_backward(loss, NULL, 0, NULL);
    SOMA_TRY(soma__layout_add(&n->weights, g, SOMA_ROLE_WEIGHT, err));
    SOMA_TRY(soma__layout_add(&n->states, g, SOMA_ROLE_STATE, err));
    SOMA_TRY(soma__plan_new(&n->plan, g, &n->weights, &n->states, device, err));
    n->w = soma__calloc(1, n->weights.size);
    n->g = soma__calloc(1, n->weights.size);
    n->s = soma__calloc(1, n->states.size);
    if (!n->w || !n->g || !n->s) return soma__no_memory(err, "the test's weights");
    return soma__frame_new(&n->frame, n->plan, n->w, n->g, n->s, err);
}

static void release(net *n) {
    soma__frame_free(n->frame);
    soma__plan_free(n->plan);
    soma_graph_free(n->graph);
    soma__layout_free(&n->weights);
    soma__layout_free(&n->states);
    soma__free(n->w);
    soma__free(n->g);
    soma__free(n->s);
}

static void run(net *n, float *loss) {
    static float x[ROWS * D];
    for (int i = 0; i < ROWS * D; i++) x[i] = sinf((float)i * 0.37f);
    for (size_t i = 0; i < n->weights.size / 4; i++) ((float *)n->w)[i] = 0.2f * cosf((float)i * 1.3f);
    soma_error err;
    if (soma__frame_put(n->frame, "x", x, sizeof x, &err)) fail_msg("%s", err.text);
    soma__frame_run(n->frame);
    if (soma__frame_get(n->frame, "loss", loss, sizeof *loss, &err)) fail_msg("%s", err.text);
}

static void test_same_bits_in_less_memory(void **state) {
    soma_device *device;
    soma_error err;
    assert_int_equal(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 2}, NULL), SOMA_OK);
    net kept, again;
    float a, b;
    if (build(&kept, false, device, &err) || build(&again, true, device, &err)) fail_msg("%s", err.text);
    run(&kept, &a);
    run(&again, &b);
    assert_true(isfinite(a) && a > 0);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(kept.weights.size, again.weights.size);
    double sum = 0;
    for (size_t i = 0; i < kept.weights.size / 4; i++) sum += fabsf(((float *)kept.g)[i]);
    assert_true(sum > 0);
    assert_memory_equal(kept.g, again.g, kept.weights.size);
    assert_memory_equal(kept.s, again.s, kept.states.size);
    size_t most = kept.plan->size[SOMA_ROLE_SCRATCH], least = again.plan->size[SOMA_ROLE_SCRATCH];
    if (!(least < most / 3)) fail_msg("%zu bytes of intermediates with recomputation, %zu without", least, most);
    assert_true(again.plan->flops > kept.plan->flops);
    release(&kept);
    release(&again);
    soma__device_close(device);
}

static void test_every_allocation_may_fail(void **state) {
    soma_device *device;
    assert_int_equal(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1}, NULL), SOMA_OK);
    for (int64_t i = 0;; i += 1 + i / 8) {
        net n;
        soma_error err = {0};
        soma__alloc_fail_after(i);
        soma_status status = build(&n, true, device, &err);
        soma__alloc_fail_after(-1);
        if (status != SOMA_OK) assert_int_equal(status, SOMA_NO_MEMORY);
        release(&n);
        if (status == SOMA_OK) break;
        assert_true(i < 100000);
    }
    soma__device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits_in_less_memory), cmocka_unit_test(test_every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
