// SPDX-License-Identifier: Apache-2.0
// FAST against the published processor: every id, every code, every decoded value of ../shared/golden/fast, with the released tokenizer and
// with the fitted ones; malformed ids, strict and relaxed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "format/safetensors.h"
#include "text/fast.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN SOMA_SOURCE_DIR "/../shared/golden/fast/"

static const char *const fitted[] = {
    "fit_so101_real_v30_T16_v1024_s10",
    "fit_unitree_g1_inspire_real_v21_T10_v1024_s10",
    "fit_franka_sim_internvla_v20_T10_v1024_s10",
    "fit_franka_sim_internvla_v20_T15_v2048_s20",
};

static soma_safetensors *open_file(const char *folder, const char *name) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_safetensors *st = NULL;
    snprintf(path, sizeof path, GOLDEN "%s/%s", folder, name);
    if (soma__safetensors_open(&st, path, &err)) fail_msg("%s", err.text);
    return st;
}

// The writer of these files aligns its arrays.
static const void *get(const soma_safetensors *st, const char *name, soma_dtype dtype) {
    const soma_safetensor *t = soma__safetensors_find(st, name);
    if (!t || t->dtype != dtype || !soma__safetensor_aligned(t)) fail_msg("%s: no aligned %s", soma__safetensors_path(st), name);
    return t->data;
}

static soma_fast *open_fast(const char *folder) {
    char dir[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_fast *fast;
    snprintf(dir, sizeof dir, GOLDEN "%s", folder);
    if (soma__fast_open(&fast, dir, &err)) fail_msg("%s", err.text);
    return fast;
}

// Whether a code may be one off: the reference's own coefficient lies within 1e-9 of the middle between two, where its last bit decides.
static bool halfway(double scaled) { return fabs(fabs(scaled - floor(scaled)) - 0.5) < 1e-9; }

// Codes and ids of every chunk, and the chunk that comes back. Returns how many chunks there were. A chunk with a code that may and does
// differ is listed; its ids are other ids.
static int check_file(const soma_fast *fast, const char *folder, const char *name) {
    soma_safetensors *st = open_file(folder, name);
    const soma_safetensor *chunks = soma__safetensors_find(st, "chunks");
    int64_t N = chunks->shape[0], T = chunks->shape[1], A = chunks->shape[2];
    const double *x = get(st, "chunks", SOMA_F64), *decoded = get(st, "decoded", SOMA_F64), *scaled = get(st, "dct_scaled", SOMA_F64);
    const int32_t *codes = get(st, "codes", SOMA_I32), *ids = get(st, "token_ids", SOMA_I32), *offsets = get(st, "offsets", SOMA_I32);
    soma_fast_work *work;
    soma_error err = {0};
    double *back = malloc((size_t)(T * A) * sizeof *back);
    assert_int_equal(soma__fast_work_new(&work, fast, &err), SOMA_OK);
    for (int64_t i = 0; i < N; i++) {
        soma_fast_ids out;
        size_t n = (size_t)(offsets[i + 1] - offsets[i]);
        if (soma__fast_encode(work, x + i * T * A, T, A, &out, &err)) fail_msg("%s, chunk %d: %s", name, (int)i, err.text);
        int differ = 0;
        for (int64_t k = i * T * A; k < (i + 1) * T * A; k++)
            if (abs(out.codes[k - i * T * A] - codes[k]) == 1 && halfway(scaled[k])) {
                printf("%s, chunk %d: code %d, at %.17g, is %d and was %d\n", name, (int)i, (int)(k - i * T * A), scaled[k],
                       out.codes[k - i * T * A], codes[k]);
                differ++;
            }
        for (int64_t k = 0; k < T * A && !differ; k++)
            if (out.codes[k] != codes[i * T * A + k])
                fail_msg("%s, chunk %d: code %d is %d, wanted %d", name, (int)i, (int)k, out.codes[k], codes[i * T * A + k]);
        if (!differ && out.n != n) fail_msg("%s, chunk %d: %zu tokens, wanted %zu", name, (int)i, out.n, n);
        for (size_t k = 0; k < n && !differ; k++)
            if (out.ids[k] != ids[offsets[i] + (int)k])
                fail_msg("%s, chunk %d: id %zu is %d, wanted %d", name, (int)i, k, out.ids[k], ids[offsets[i] + (int)k]);
        if (soma__fast_decode(work, ids + offsets[i], n, SOMA_FAST_STRICT, T, A, back, &err)) fail_msg("%s: %s", name, err.text);
        for (int64_t k = 0; k < T * A; k++)
            if (!(fabs(back[k] - decoded[i * T * A + k]) <= 1e-12 * fmax(1, fabs(back[k]))))
                fail_msg("%s, chunk %d: value %d is %.17g, wanted %.17g", name, (int)i, (int)k, back[k], decoded[i * T * A + k]);
    }
    free(back);
    soma__fast_work_free(work);
    soma__safetensors_close(st);
    return (int)N;
}

static void test_universal(void **state) {
    char **names;
    size_t n;
    int files = 0, chunks = 0;
    soma_error err = {0};
    if (!soma__dir_exists(GOLDEN)) skip();
    soma_fast *fast = open_fast("universal");
    assert_int_equal(soma__fast_vocab(fast), 2048);
    assert_int_equal(soma__dir_list(&names, &n, GOLDEN "universal", &err), SOMA_OK);
    for (size_t i = 0; i < n; i++)
        if (strstr(names[i], ".safetensors") && strcmp(names[i], "malformed_decode.safetensors")) {
            chunks += check_file(fast, "universal", names[i]);
            files++;
        }
    soma__dir_list_free(names, n);
    soma__fast_close(fast);
    assert_true(files >= 13 && chunks >= 300);
}

static void test_fitted(void **state) {
    if (!soma__dir_exists(GOLDEN)) skip();
    for (size_t i = 0; i < SOMA_COUNT(fitted); i++) {
        soma_fast *fast = open_fast(fitted[i]);
        assert_int_equal(check_file(fast, fitted[i], "encode.safetensors"), 30);
        soma__fast_close(fast);
    }
}

static void test_malformed(void **state) {
    if (!soma__dir_exists(GOLDEN)) skip();
    soma_fast *fast = open_fast("universal");
    soma_safetensors *st = open_file("universal", "malformed_decode.safetensors");
    const double *strict = get(st, "strict", SOMA_F64), *relaxed = get(st, "relaxed", SOMA_F64);
    const int32_t *ids = get(st, "token_ids", SOMA_I32), *offsets = get(st, "offsets", SOMA_I32), *ok = get(st, "strict_ok", SOMA_I32);
    int64_t N = soma__safetensors_find(st, "strict_ok")->n_values;
    soma_fast_work *work;
    soma_error err = {0};
    assert_int_equal(soma__fast_work_new(&work, fast, &err), SOMA_OK);
    assert_true(N >= 20);
    for (int64_t i = 0; i < N; i++) {
        double back[70];
        size_t n = (size_t)(offsets[i + 1] - offsets[i]);
        soma_status status = soma__fast_decode(work, ids + offsets[i], n, SOMA_FAST_STRICT, 10, 7, back, &err);
        if ((status == SOMA_OK) != ok[i]) fail_msg("case %d: strict: %s", (int)i, err.text);
        for (int k = 0; k < 70; k++)
            if (!(fabs(back[k] - strict[i * 70 + k]) <= 1e-12)) fail_msg("case %d, strict: value %d", (int)i, k);
        if (soma__fast_decode(work, ids + offsets[i], n, SOMA_FAST_RELAXED, 10, 7, back, &err)) fail_msg("case %d: %s", (int)i, err.text);
        for (int k = 0; k < 70; k++)
            if (!(fabs(back[k] - relaxed[i * 70 + k]) <= 1e-12 * fmax(1, fabs(back[k]))))
                fail_msg("case %d, relaxed: value %d is %.17g, wanted %.17g", (int)i, k, back[k], relaxed[i * 70 + k]);
    }
    soma__fast_work_free(work);
    soma__safetensors_close(st);
    soma__fast_close(fast);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_universal),
        cmocka_unit_test(test_fitted),
        cmocka_unit_test(test_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
