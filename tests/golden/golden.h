// SPDX-License-Identifier: Apache-2.0
// What is held against the reference's outputs in ../shared/golden: each comparison is one row of the table that `make parity` collects
// (case and file, tensor, what computed it, largest error, relative L2 error, tolerance), and the first that is too far off fails the test.
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

#define GOLDEN SOMA_SOURCE_DIR "/../shared/golden/"

// How a tolerance is meant: of the largest difference; of the largest, relative to the value where that is above 1; of the L2 norm,
// relative to the reference's.
typedef enum golden_kind { GOLDEN_MAX, GOLDEN_EACH, GOLDEN_L2 } golden_kind;

// `file` under GOLDEN. Absent: the test says so and is skipped.
static inline const char *golden_path(char path[SOMA_PATH_MAX], const char *file) {
    snprintf(path, SOMA_PATH_MAX, GOLDEN "%s", file);
    if (!soma__file_exists(path) && !soma__dir_exists(path)) {
        print_message("skipped: %s is not here\n", path);
        skip();
    }
    return path;
}

static inline soma_safetensors *golden_open(const char *file) {
    char path[SOMA_PATH_MAX];
    soma_safetensors *st = NULL;
    soma_error err = {0};
    if (soma__safetensors_open(&st, golden_path(path, file), &err)) fail_msg("%s", err.text);
    return st;
}

static inline const soma_safetensor *golden_find(const soma_safetensors *st, const char *name) {
    const soma_safetensor *t = soma__safetensors_find(st, name);
    if (!t) fail_msg("%s has no %s", soma__safetensors_path(st), name);
    return t;
}

// The values as f32; release with free.
static inline float *golden_floats(const soma_safetensor *t) {
    float *values = malloc(sizeof *values * (size_t)(t->n_values + 1));
    assert_non_null(values);
    soma__to_f32(values, t->dtype, t->data, t->n_values);
    return values;
}

// The nearest bf16; values are finite.
static inline uint16_t golden_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

// NULL when absent; otherwise n_values values of the dtype, aligned, to be released with free.
static inline void *golden_get(const soma_safetensors *st, const char *name, soma_dtype dtype, int64_t *n_values) {
    const soma_safetensor *t = soma__safetensors_find(st, name);
    *n_values = 0;
    if (!t) return NULL;
    if (t->dtype != dtype) fail_msg("%s is %s", name, soma_dtype_name(t->dtype));
    size_t size = (size_t)t->n_values * soma_dtype_size(dtype);
    void *copy = malloc(size + 1);
    assert_non_null(copy);
    memcpy(copy, t->data, size);
    *n_values = t->n_values;
    return copy;
}

// One row. file: under GOLDEN; by: what computed it ("plain", "bf16" ...).
static inline void golden_row(const char *file, const char *tensor, const char *by, soma_difference d, golden_kind kind, double allowed) {
    static const char *const kinds[] = {"max", "each", "L2"};
    const double off = kind == GOLDEN_MAX ? d.max_abs : kind == GOLDEN_EACH ? d.each : d.relative;
    const bool ok = off <= allowed;
    print_message("parity %-38s %-50s %-6s %8.1e %8.1e %8.2g %-4s %s\n", file, tensor, by, d.max_abs, d.relative, allowed, kinds[kind],
                  ok ? "ok" : "FAIL");
    if (!ok) fail_msg("%s: %s (%s) is off by %.3g (%s), allowed are %.3g", file, tensor, by, off, kinds[kind], allowed);
}

// What was found, as an array of want's shape, against a tensor of a golden file. rows: see soma__safetensor_difference.
static inline void golden_hold_rows(const soma_safetensors *st, const soma_safetensor *want, const char *by, soma_dtype dtype,
                                    const void *found, const soma_safetensor *rows, golden_kind kind, double allowed) {
    const soma_safetensor got = {.dtype = dtype, .data = found};
    golden_row(soma__safetensors_path(st) + strlen(GOLDEN), want->name, by, soma__safetensor_difference(&got, want, rows), kind, allowed);
}

static inline void golden_hold(const soma_safetensors *st, const char *name, const char *by, soma_dtype dtype, const void *found,
                               golden_kind kind, double allowed) {
    golden_hold_rows(st, golden_find(st, name), by, dtype, found, NULL, kind, allowed);
}

// Bytes or texts that are the same, or not.
static inline void golden_same(const char *file, const char *what, bool same) {
    golden_row(file, what, "-", (soma_difference){.max_abs = same ? 0 : NAN}, GOLDEN_MAX, 0);
}

#endif
