// SPDX-License-Identifier: Apache-2.0
// What golden tests share: comparing named tensors with a reference, the first wrong one being the message.
#ifndef SOMA_TESTS_GOLDEN_GOLDEN_H
#define SOMA_TESTS_GOLDEN_GOLDEN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline float *golden_floats(const soma_safetensor *t) {
    float *values = malloc(sizeof *values * (size_t)(t->n_values + 1));
    assert_non_null(values);
    soma__to_f32(values, t->dtype, t->data, t->n_values);
    return values;
}

typedef struct golden_error {
    double max_abs, relative, norm; // the largest difference; the difference's L2 norm over the reference's; the reference's
} golden_error;

// Rows are the first two dimensions; a row whose `rows` entry is 0 is skipped (NULL: none is).
static inline golden_error golden_compare(const float *a, const float *b, int64_t n, int64_t row, const uint8_t *rows) {
    golden_error e = {0};
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        if (rows && !rows[i / row]) continue;
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= e.max_abs)) e.max_abs = d; // a NaN is the largest difference
        off += d * d;
        all += (double)b[i] * (double)b[i];
    }
    e.norm = sqrt(all);
    e.relative = sqrt(off / (all > 0 ? all : 1));
    return e;
}

// A tensor of a reference against what was found under its name: its error, all shapes and values checked. rows, row: as above; *finite:
// all that was found is.
static inline golden_error golden_hold(const soma_safetensor *got, const soma_safetensor *want, int64_t row, const uint8_t *rows,
                                       bool *finite) {
    char a[160], b[160];
    if (!got) fail_msg("%s is not given", want->name);
    if (got->n_dims != want->n_dims || memcmp(got->shape, want->shape, sizeof *want->shape * (size_t)want->n_dims))
        fail_msg("%s is %s, not %s", want->name, soma__safetensor_shape(a, got), soma__safetensor_shape(b, want));
    soma_safetensor whole = *got;
    whole.n_values = want->n_values;
    float *x = golden_floats(&whole), *y = golden_floats(want);
    golden_error e = golden_compare(x, y, want->n_values, row, rows);
    *finite = true;
    for (int64_t k = 0; k < want->n_values; k++) *finite &= isfinite(x[k]) != 0;
    free(x);
    free(y);
    return e;
}

static inline bool golden_folder(char path[SOMA_PATH_MAX], const char *name) {
    snprintf(path, SOMA_PATH_MAX, SOMA_SOURCE_DIR "/../shared/golden/%s", name);
    if (soma__dir_exists(path)) return true;
    print_message("skipped: %s is not here\n", path);
    return false;
}

#endif
