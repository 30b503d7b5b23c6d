// SPDX-License-Identifier: Apache-2.0
// What the tests of this folder share: tensors of a golden file by name, absent files skip.
#ifndef SOMA_TESTS_TRANSFORM_GOLDEN_H
#define SOMA_TESTS_TRANSFORM_GOLDEN_H

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

#define SHARED SOMA_SOURCE_DIR "/../shared/"

static inline soma_safetensors *golden_open(const char *path) {
    soma_safetensors *st = NULL;
    soma_error err = {0};
    if (!soma__file_exists(path)) skip();
    if (soma__safetensors_open(&st, path, &err)) fail_msg("%s", err.text);
    return st;
}

// NULL when absent; otherwise n_values values of the dtype, aligned, to be released with free.
static inline void *golden_get(const soma_safetensors *st, const char *name, soma_dtype dtype, int64_t *n_values) {
    const soma_safetensor *t = soma__safetensors_find(st, name);
    *n_values = 0;
    if (!t) return NULL;
    if (t->dtype != dtype) fail_msg("%s is %s", name, soma_dtype_name(t->dtype));
    size_t size = (size_t)t->n_values * soma_dtype_size(dtype);
    void *copy = malloc(size + 1);
    memcpy(copy, t->data, size);
    *n_values = t->n_values;
    return copy;
}

static inline void check_f64(const char *name, const double *got, const double *wanted, int64_t n, double relative) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - wanted[i]) <= relative * fmax(1, fabs(wanted[i]))))
            fail_msg("%s[%lld]: %.17g, wanted %.17g", name, (long long)i, got[i], wanted[i]);
}

// The same for a golden tensor, with its line of the table: case, tensor, largest and relative L2 error, tolerance.
static inline void hold_f64(const char *name, const char *tensor, const double *got, const double *wanted, int64_t n, double relative) {
    double worst = 0, off = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs(got[i] - wanted[i]) / fmax(1, fabs(wanted[i])));
        off += (got[i] - wanted[i]) * (got[i] - wanted[i]);
        all += wanted[i] * wanted[i];
    }
    print_message("%-14s %-28s largest %8.2g  relative L2 %8.2g  tolerance %g\n", name, tensor, worst, sqrt(off / (all > 0 ? all : 1)),
                  relative);
    check_f64(tensor, got, wanted, n, relative);
}

// Returns the largest difference.
static inline double check_f32(const char *name, const float *got, const float *wanted, int64_t n, double tolerance) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - wanted[i]);
        if (!(d <= tolerance)) fail_msg("%s[%lld]: %.9g, wanted %.9g", name, (long long)i, got[i], wanted[i]);
        worst = fmax(worst, d);
    }
    return worst;
}

#endif
