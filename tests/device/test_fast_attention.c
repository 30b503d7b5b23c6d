// SPDX-License-Identifier: Apache-2.0
// Attention and its gradient against the plain kernels: masks with holes, queries that see nothing, shared key heads, strided views.
#include "fast_harness.h"

typedef struct wanted {
    const float *values;
    float tolerance; // of the largest value
} wanted;

static void compare(harness *h, const soma_tensor *out, soma_isa isa, void *user) {
    const wanted *w = user;
    const int64_t n = soma__numel(out);
    float largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmaxf(largest, fabsf(w->values[i]));
    for (int64_t i = 0; i < n; i++) {
        const float got = (float)harness_get(h, out, i);
        if (!(fabsf(got - w->values[i]) <= w->tolerance * largest))
            fail_msg("isa %s, [%d of %d]: %g, wanted %g", cpu_isa_name(isa), (int)i, (int)n, (double)got, (double)w->values[i]);
    }
}

enum { CAUSAL, HOLES, BLIND };

static void blocks(int32_t *q, int32_t *k, int64_t B, int64_t T, int64_t S, int mask) {
    for (int64_t b = 0; b < B; b++) {
        for (int64_t i = 0; i < T; i++) q[b * T + i] = mask == BLIND && i % 3 ? -5 : (int32_t)(i + S - T);
        for (int64_t j = 0; j < S; j++) k[b * S + j] = mask == HOLES && (j / 70) % 2 ? SOMA_BLOCK_NEVER : (int32_t)j;
    }
}

static void check(int64_t B, int64_t T, int64_t H, int64_t S, int64_t KV, int64_t K, int mask, bool views, soma_dtype dtype,
                  soma_dtype product) {
    harness h = harness_open();
    const int order[] = {0, 2, 1, 3};
    soma_tensor *q =
        views ? soma_slice(harness_input(&h, dtype, SHAPE(B, T, H + 2 * KV, K)), 2, 0, H) : harness_input(&h, dtype, SHAPE(B, T, H, K));
    soma_tensor *k =
        views ? soma_permute(harness_input(&h, dtype, SHAPE(B, KV, S, K)), order) : harness_input(&h, dtype, SHAPE(B, S, KV, K));
    soma_tensor *v =
        views ? soma_slice(harness_input(&h, dtype, SHAPE(B, S, KV, K + 3)), 3, 1, K) : harness_input(&h, dtype, SHAPE(B, S, KV, K));
    soma_tensor *qb = harness_input(&h, SOMA_I32, SHAPE(B, T)), *kb = harness_input(&h, SOMA_I32, SHAPE(B, S));
    soma_tensor *out = soma_attend(q, k, v, qb, kb, 1 / sqrtf((float)K), product);
    soma_tensor *dout = harness_input(&h, SOMA_F32, SHAPE(B, T, H, K));
    soma_tensor *grad = harness_input(&h, SOMA_F32, SHAPE(soma__numel(q) + 2 * soma__numel(k)));
    harness_place(&h);
    for (int i = 0; i < 3; i++) harness_fill(&h, soma__owner(out->src[i]), (uint64_t)i + 1, 1);
    harness_fill(&h, dout, 9, 1);
    blocks(harness_data(&h, qb), harness_data(&h, kb), B, T, S, mask);
    float *scratch = soma__alloc((size_t)S * 8), *values = soma__alloc((size_t)soma__numel(grad) * 4);
    h.run.shared = (char *)scratch;
    soma_step step = {&out, 1};
    cpu_plain[SOMA_OP_ATTENTION](&h.run, &step);
    for (int64_t i = 0; i < soma__numel(out); i++) values[i] = (float)harness_get(&h, out, i);
    wanted w = {values, dtype == SOMA_BF16 || product == SOMA_BF16 ? 0x1p-7f : 3e-6f}; // probabilities may be rounded to bf16
    assert_int_equal(harness_all(&h, cpu_fast_attention, &step, compare, &w), cpu_best_isa());

    if (dtype == SOMA_F32) {
        soma_tensor node = *grad; // as the gradient's builder makes it
        node.op = SOMA_OP_ATTENTION_GRAD;
        memcpy(node.src, out->src, sizeof node.src);
        node.src[5] = out, node.src[6] = dout, node.p = out->p;
        soma_tensor *nodes[] = {&node};
        step.nodes = nodes;
        h.run.shared = (char *)scratch;
        cpu_plain[SOMA_OP_ATTENTION_GRAD](&h.run, &step);
        for (int64_t i = 0; i < soma__numel(grad); i++) values[i] = (float)harness_get(&h, grad, i);
        w.tolerance = product == SOMA_BF16 ? 0x1p-7f : 1e-5f;
        assert_int_equal(harness_all(&h, cpu_fast_attention_grad, &step, compare, &w), cpu_best_isa());
    }
    soma__free(scratch);
    soma__free(values);
    harness_close(&h);
}

static void shapes(void **state) {
    for (int product = 0; product < 2; product++)
        for (int mask = CAUSAL; mask <= BLIND; mask++) {
            const soma_dtype p = product ? SOMA_BF16 : SOMA_F32;
            check(2, 70, 4, 70, 1, 32, mask, false, SOMA_F32, p);
            check(1, 51, 4, 333, 2, 40, mask, true, SOMA_F32, p);
            check(1, 5, 2, 150, 2, 9, mask, true, SOMA_F32, p);
            check(1, 1, 3, 65, 1, 256, mask, false, SOMA_F32, p);
            check(2, 49, 2, 130, 1, 64, mask, true, SOMA_BF16, p);
        }
}

static void declines(void **state) {
    harness h = harness_open();
    soma_tensor *q = harness_input(&h, SOMA_F32, SHAPE(1, 4, 1, 300)), *qb = harness_input(&h, SOMA_I32, SHAPE(1, 4));
    soma_tensor *out = soma_attend(q, q, q, qb, qb, 1, SOMA_F32); // heads of more than 256
    assert_null(cpu_fast_attention(&(soma_step){&out, 1}, cpu_best_isa()).run);
    harness_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shapes), cmocka_unit_test(declines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
