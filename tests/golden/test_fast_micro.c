// SPDX-License-Identifier: Apache-2.0
// FAST against a small golden of our own (tools/golden_fast.py): fitted anew from its chunks, every merge, code, id and decoded value
// agrees.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "format/safetensors.h"
#include "text/fast_fit.h"
#include "text/fast_impl.h"
#include "text/tokenizer_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const void *get(const soma_safetensors *st, const char *name, soma_dtype dtype, int64_t *n) {
    const soma_safetensor *t = soma__safetensors_find(st, name);
    if (!t || t->dtype != dtype || !soma__safetensor_aligned(t)) fail_msg("no aligned %s", name);
    if (n) *n = t->n_values;
    return t->data;
}

static int64_t number(const soma_safetensors *st, const char *key) {
    const char *text = soma__safetensors_metadata(st, key);
    if (!text) fail_msg("no %s", key);
    return strtoll(text, NULL, 10);
}

static void check_merges(const soma_fast *fast, const soma_safetensors *st) {
    int64_t n;
    soma_tokenizer_json *json;
    soma_error err = {0};
    const int32_t *merges = get(st, "merges", SOMA_I32, &n);
    if (soma__tokenizer_json_parse(&json, fast->json, fast->json_len, "ours", &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__fast_vocab(fast), number(st, "vocab_size"));
    assert_int_equal(soma__fast_min_token(fast), number(st, "min_token"));
    assert_int_equal(json->n_merges * 3, n);
    assert_true(json->n_merges > 50);
    for (size_t i = 0; i < json->n_merges; i++) {
        const soma_merge *m = &json->merges[i];
        if (m->left != merges[3 * i] || m->right != merges[3 * i + 1] || m->merged != merges[3 * i + 2]) fail_msg("merge %zu", i);
    }
    soma__tokenizer_json_free(json);
}

static void check_chunks(const soma_fast *fast, const soma_safetensors *st, int64_t N, int64_t T, int64_t A) {
    const double *x = get(st, "chunks", SOMA_F64, NULL), *decoded = get(st, "decoded", SOMA_F64, NULL);
    const int32_t *codes = get(st, "codes", SOMA_I32, NULL), *ids = get(st, "token_ids", SOMA_I32, NULL),
                  *offsets = get(st, "offsets", SOMA_I32, NULL);
    soma_fast_work *work;
    soma_error err = {0};
    double back[64];
    assert_true(T * A <= 64);
    assert_int_equal(soma__fast_work_new(&work, fast, &err), SOMA_OK);
    for (int64_t i = 0; i < N; i++) {
        soma_fast_ids out;
        size_t n = (size_t)(offsets[i + 1] - offsets[i]);
        if (soma__fast_encode(work, x + i * T * A, T, A, &out, &err)) fail_msg("%s", err.text);
        assert_memory_equal(out.codes, codes + i * T * A, (size_t)(T * A) * sizeof *codes);
        assert_int_equal(out.n, n);
        assert_memory_equal(out.ids, ids + offsets[i], n * sizeof *ids);
        if (soma__fast_decode(work, ids + offsets[i], n, SOMA_FAST_STRICT, T, A, back, &err)) fail_msg("%s", err.text);
        for (int64_t k = 0; k < T * A; k++) assert_true(fabs(back[k] - decoded[i * T * A + k]) <= 1e-12);
    }
    soma__fast_work_free(work);
}

static void test_micro(void **state) {
    soma_safetensors *st;
    soma_fast_fit *fit;
    soma_fast *fast;
    soma_pool *pool;
    soma_error err = {0};
    if (soma__safetensors_open(&st, SOMA_SOURCE_DIR "/tests/golden/data/fast_micro.safetensors", &err)) fail_msg("%s", err.text);
    const soma_safetensor *chunks = soma__safetensors_find(st, "chunks");
    int64_t N = chunks->shape[0], T = chunks->shape[1], A = chunks->shape[2];
    assert_int_equal(soma__pool_new(&pool, 2, &err), SOMA_OK);
    assert_int_equal(soma__fast_fit_new(&fit, (double)number(st, "scale"), NULL, &err), SOMA_OK);
    if (soma__fast_fit_add(fit, get(st, "chunks", SOMA_F64, NULL), N, T, A, pool, &err)) fail_msg("%s", err.text);
    if (soma__fast_fit_run(&fast, fit, number(st, "vocab"), pool, &err)) fail_msg("%s", err.text);
    check_merges(fast, st);
    check_chunks(fast, st, N, T, A);
    soma__fast_close(fast);
    soma__fast_fit_free(fit);
    soma__pool_free(pool);
    soma__safetensors_close(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_micro)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
