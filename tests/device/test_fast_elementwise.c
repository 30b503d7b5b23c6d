// SPDX-License-Identifier: Apache-2.0
// Element-wise chains against the plain kernel, and the vector functions against libm over the range of f32.
#include "fast_harness.h"

typedef struct wanted {
    float *values;
    float tolerance; // relative, with an absolute floor
} wanted;

static void compare(harness *h, const soma_tensor *out, soma_isa isa, void *user) {
    const wanted *w = user;
    for (int64_t i = 0; i < soma__numel(out); i++) {
        const float got = (float)harness_get(h, out, i), want = w->values[i];
        if (isnan(got) && isnan(want)) continue;
        if (!(got == want || fabsf(got - want) <= w->tolerance * (fabsf(want) + 0.1f)))
            fail_msg("isa %s, [%d]: %g, wanted %g", cpu_isa_name(isa), (int)i, (double)got, (double)want);
    }
}

// The chain's nodes in order; every owner that is no node is filled.
static void check(harness *h, soma_tensor **nodes, int n_nodes, float tolerance) {
    harness_place(h);
    for (size_t i = 0; i < h->g->n_tensors; i++) {
        soma_tensor *t = h->g->tensors[i];
        if (t->op == SOMA_OP_LEAF) harness_fill(h, t, i + 1, 2);
    }
    const soma_step step = {nodes, n_nodes};
    const soma_tensor *out = nodes[n_nodes - 1];
    wanted w = {soma__alloc((size_t)soma__numel(out) * 4), tolerance};
    cpu_plain[SOMA_OP_ADD](&h->run, &step);
    for (int64_t i = 0; i < soma__numel(out); i++) w.values[i] = (float)harness_get(h, out, i);
    assert_int_not_equal(harness_all(h, cpu_fast_elementwise, &step, compare, &w), 0);
    soma__free(w.values);
    harness_close(h);
}

static void broadcasts(void **state) {
    for (int kind = 0; kind < 8; kind++) {
        harness h = harness_open();
        soma_tensor *a = harness_input(&h, SOMA_F32, SHAPE(7, 33, 41)), *b = NULL;
        const int order[] = {2, 1, 0};
        if (kind == 0) b = harness_input(&h, SOMA_F32, SHAPE(41));
        if (kind == 1) b = harness_input(&h, SOMA_BF16, SHAPE(33, 1));
        if (kind == 2) b = harness_input(&h, SOMA_F32, SHAPE(7, 1, 41));
        if (kind == 3) b = harness_input(&h, SOMA_F32, SHAPE(1));
        if (kind == 4) b = soma_permute(harness_input(&h, SOMA_F32, SHAPE(41, 33, 7)), order);
        if (kind == 5) b = soma_slice(harness_input(&h, SOMA_BF16, SHAPE(7, 33, 50)), 2, 5, 41);
        if (kind == 6) b = soma_slice(harness_input(&h, SOMA_F32, SHAPE(7, 40, 41)), 1, 3, 33);
        if (kind == 7) b = harness_input(&h, SOMA_F32, SHAPE(7, 33, 41));
        soma_tensor *n[] = {kind & 1 ? soma_div(a, b) : soma_sub(a, b)};
        check(&h, n, 1, 0);
    }
}

static void chains(void **state) {
    harness h = harness_open();
    soma_tensor *x = harness_input(&h, SOMA_F32, SHAPE(64, 300)), *gate = harness_input(&h, SOMA_F32, SHAPE(64, 300));
    soma_tensor *bias = harness_input(&h, SOMA_F32, SHAPE(300));
    soma_tensor *n[6];
    n[0] = soma_add(x, bias);
    n[1] = soma_apply(n[0], SOMA_UNARY_GELU);
    n[2] = soma_mul(n[1], gate);
    n[3] = soma_add(n[2], x);
    n[4] = soma_mul(n[3], n[0]); // an early value read late
    n[5] = soma_affine(n[4], 0.5f, -1);
    check(&h, n, 6, 1e-5f);
    h = harness_open();
    x = harness_input(&h, SOMA_F32, SHAPE(9000));
    n[0] = soma_affine(x, 2, 1);
    n[1] = soma_apply(n[0], SOMA_UNARY_TANH);
    n[2] = soma_cast(n[1], SOMA_BF16);
    check(&h, n, 3, 0x1p-8f);
}

static void large_results_pass_the_caches(void **state) {
    harness h = harness_open();
    soma_tensor *x = harness_input(&h, SOMA_F32, SHAPE(2049, 2049)), *bias = harness_input(&h, SOMA_F32, SHAPE(2049)); // above 4 << 20
    soma_tensor *n[] = {soma_affine(x, 2, 1), NULL};
    n[1] = soma_mul(n[0], bias);
    check(&h, n, 2, 1e-6f);
}

static void copies(void **state) {
    const int order[] = {0, 2, 1, 3};
    const soma_dtype types[][2] = {
        {SOMA_F32, SOMA_BF16}, {SOMA_BF16, SOMA_F32}, {SOMA_U8, SOMA_F32}, {SOMA_I32, SOMA_F32}, {SOMA_U8, SOMA_BF16}};
    for (size_t i = 0; i < SOMA_COUNT(types); i++) {
        harness h = harness_open();
        soma_tensor *n[] = {soma_cast(soma_permute(harness_input(&h, types[i][0], SHAPE(2, 5, 7, 19)), order), types[i][1])};
        check(&h, n, 1, 0);
        h = harness_open();
        n[0] = soma_cast(harness_input(&h, types[i][0], SHAPE(20011)), types[i][1]);
        check(&h, n, 1, 0);
    }
    for (soma_dtype type = SOMA_F32; type <= SOMA_U8; type++) {
        harness h = harness_open();
        soma_tensor *n[] = {soma_contiguous(soma_permute(harness_input(&h, type, SHAPE(2, 5, 7, 19)), order))};
        check(&h, n, 1, 0);
    }
}

static void gradients(void **state) {
    for (int f = 0; f < SOMA_UNARY_COUNT; f++) {
        harness h = harness_open();
        soma_tensor *x = harness_input(&h, SOMA_F32, SHAPE(3000)), *dy = harness_input(&h, SOMA_F32, SHAPE(3000));
        soma_tensor *y = soma_apply(x, (soma_unary)f);
        soma_tensor node = *y; // as the gradient's builder makes it
        node.op = SOMA_OP_UNARY_GRAD;
        node.src[1] = dy;
        soma_tensor *n[] = {&node};
        harness_place(&h);
        node.place = y->place;
        harness_fill(&h, x, 5, 3);
        harness_fill(&h, dy, 6, 1);
        const soma_step step = {n, 1};
        float values[3000];
        cpu_plain[SOMA_OP_ADD](&h.run, &step);
        memcpy(values, harness_data(&h, &node), sizeof values);
        wanted w = {values, 2e-5f}; // the plain kernel's own float formulas cancel
        assert_int_equal(harness_all(&h, cpu_fast_elementwise, &step, compare, &w), cpu_best_isa());
        harness_close(&h);
    }
}

typedef struct accuracy {
    soma_unary f;
    double worst, allowed;
} accuracy;

static double exact(soma_unary f, double x) {
    switch (f) {
    case SOMA_UNARY_EXP: return exp(x);
    case SOMA_UNARY_LOG: return log(x);
    case SOMA_UNARY_TANH: return tanh(x);
    case SOMA_UNARY_SIGMOID: return 1 / (1 + exp(-x));
    default: return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    }
}

static void measure(harness *h, const soma_tensor *out, soma_isa isa, void *user) {
    accuracy *a = user;
    const float *y = harness_data(h, out), *x = harness_data(h, out->src[0]);
    for (int64_t i = 0; i < soma__numel(out); i++) {
        const double want = exact(a->f, (double)x[i]);
        if (isnan(want) || isinf((float)want)) {
            if (isnan(want) ? !isnan(y[i]) : y[i] != (float)want)
                fail_msg("f %d (%g) = %g, wanted %g", a->f, (double)x[i], (double)y[i], want);
            continue;
        }
        // subnormals have fewer bits (a sigmoid of -89 is zero); a gelu far below zero is the tail of two cancelling terms
        const double error = fabs((double)y[i] - want) / fmax(fabs(want), a->f == SOMA_UNARY_GELU      ? 1e-3
                                                                          : a->f == SOMA_UNARY_SIGMOID ? 1e-30
                                                                                                       : (double)0x1p-126f);
        if (!(error <= a->allowed)) fail_msg("f %d (%a) = %a, wanted %a: %g", a->f, (double)x[i], (double)y[i], want, error);
        a->worst = fmax(a->worst, error);
    }
}

static void functions(void **state) {
    accuracy all[] = {{SOMA_UNARY_EXP, 0, 1.5e-7},
                      {SOMA_UNARY_LOG, 0, 2e-7},
                      {SOMA_UNARY_TANH, 0, 2e-7},
                      {SOMA_UNARY_SIGMOID, 0, 2.5e-7},
                      {SOMA_UNARY_GELU, 0, 1.5e-6}};
    enum { N = 1 << 18 };
    for (size_t k = 0; k < SOMA_COUNT(all); k++) {
        harness h = harness_open();
        soma_tensor *x = harness_input(&h, SOMA_F32, SHAPE(N)), *y = soma_apply(x, all[k].f);
        harness_place(&h);
        float *p = harness_data(&h, x);
        for (uint32_t i = 0; i < N; i++) { // half over all bit patterns, half where the function bends
            union {
                uint32_t u;
                float f;
            } bits = {.u = i * 32771u};
            p[i] = i & 1 ? bits.f : ((float)i / N - 0.5f) * 24;
        }
        assert_int_equal(harness_all(&h, cpu_fast_elementwise, &(soma_step){&y, 1}, measure, &all[k]), cpu_best_isa());
        print_message("function %d: largest relative error %.3g\n", all[k].f, all[k].worst);
        harness_close(&h);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broadcasts), cmocka_unit_test(chains),    cmocka_unit_test(large_results_pass_the_caches),
        cmocka_unit_test(copies),     cmocka_unit_test(gradients), cmocka_unit_test(functions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
