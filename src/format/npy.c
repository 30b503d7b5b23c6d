// SPDX-License-Identifier: Apache-2.0
// The header is a Python dict literal: {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }. Its three keys are looked for in any
// order; anything else in it is refused.
#include "format/npy.h"

#include "base/file.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *descr;
    soma_dtype dtype;
} dtypes[] = {{"<f8", SOMA_F64}, {"<f4", SOMA_F32}, {"<f2", SOMA_F16}, {"<i8", SOMA_I64},
              {"<i4", SOMA_I32}, {"|u1", SOMA_U8},  {"|b1", SOMA_BOOL}};

typedef struct reader {
    const char *at, *end;
} reader;

static void space(reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n')) r->at++;
}

static bool take(reader *r, const char *word) {
    space(r);
    size_t len = strlen(word);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len)) return false;
    r->at += len;
    return true;
}

static bool read_shape(reader *r, soma_npy *a) {
    a->n_values = 1;
    if (!take(r, "(")) return false;
    for (a->n_dims = 0; !take(r, ")"); take(r, ",")) {
        int64_t value = 0;
        space(r);
        const char *from = r->at;
        for (; r->at < r->end && *r->at >= '0' && *r->at <= '9' && value <= INT64_MAX / 16; r->at++) value = 10 * value + (*r->at - '0');
        if (r->at == from || a->n_dims == SOMA_MAX_DIMS || (value && a->n_values > (INT64_MAX / 16) / value)) return false;
        a->shape[a->n_dims++] = value;
        a->n_values *= value;
    }
    return true;
}

static bool read_descr(reader *r, soma_npy *a) {
    for (size_t i = 0; i < SOMA_COUNT(dtypes); i++) {
        char quoted[8];
        snprintf(quoted, sizeof quoted, "'%s'", dtypes[i].descr);
        if (!take(r, quoted)) continue;
        a->dtype = dtypes[i].dtype;
        return true;
    }
    return false;
}

soma_status soma__npy_parse(soma_npy *array, const void *bytes, size_t size, const char *where, soma_error *err) {
    const unsigned char *p = bytes;
    *array = (soma_npy){0};
    if (size < 10 || memcmp(p, "\x93NUMPY", 6) || p[6] < 1 || p[6] > 3 || (p[6] > 1 && size < 12))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: not a .npy file", where);
    size_t start = p[6] == 1 ? 10 : 12, len = p[8] | (size_t)p[9] << 8;
    if (p[6] > 1) len |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (len > size - start) return soma__fail(err, SOMA_BAD_INPUT, "%s: the header is cut off", where);
    reader r = {(const char *)p + start, (const char *)p + start + len};
    bool descr = false, order = false, shape = false, ok = take(&r, "{");
    while (ok && !take(&r, "}")) {
        if (!descr && take(&r, "'descr'")) {
            ok = descr = take(&r, ":") && read_descr(&r, array);
            if (!ok)
                return soma__fail(err, SOMA_UNSUPPORTED, "%s: the array's dtype is not little-endian float, int32, int64, uint8 or bool",
                                  where);
        } else if (!order && take(&r, "'fortran_order'")) {
            ok = order = take(&r, ":") && take(&r, "False");
            if (!ok)
                return soma__fail(err, SOMA_UNSUPPORTED, "%s: the array is in Fortran order; save it with numpy.ascontiguousarray", where);
        } else if (!shape && take(&r, "'shape'"))
            ok = shape = take(&r, ":") && read_shape(&r, array);
        else
            ok = false;
        take(&r, ",");
    }
    if (!ok || !descr || !order || !shape) return soma__fail(err, SOMA_BAD_INPUT, "%s: the .npy header cannot be read", where);
    size_t left = size - start - len;
    if ((uint64_t)array->n_values * soma_dtype_size(array->dtype) != left)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %zu bytes behind the header, where the array of %lld values needs %llu", where, left,
                          (long long)array->n_values, (unsigned long long)((uint64_t)array->n_values * soma_dtype_size(array->dtype)));
    array->data = p + start + len;
    return SOMA_OK;
}

size_t soma__npy_header(char out[SOMA_NPY_HEADER], soma_dtype dtype, const int64_t *shape, int n_dims) {
    char list[160] = "";
    const char *descr = NULL;
    size_t used = 0;
    SOMA_CHECK(n_dims >= 0 && n_dims <= SOMA_MAX_DIMS, "an array has at most SOMA_MAX_DIMS dimensions");
    for (size_t i = 0; i < SOMA_COUNT(dtypes); i++)
        if (dtypes[i].dtype == dtype) descr = dtypes[i].descr;
    SOMA_CHECK(descr, "NumPy has this dtype");
    for (int i = 0; i < n_dims; i++) used += (size_t)snprintf(list + used, sizeof list - used, "%lld, ", (long long)shape[i]);
    int len = snprintf(out + 10, SOMA_NPY_HEADER - 10, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, list);
    size_t total = ((size_t)len + 10 + 1 + 63) / 64 * 64; // as NumPy aligns it
    memset(out + 10 + len, ' ', total - 10 - (size_t)len);
    out[total - 1] = '\n';
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (char)((total - 10) & 0xff);
    out[9] = (char)((total - 10) >> 8);
    return total;
}

soma_status soma__npy_write(const char *path, soma_dtype dtype, const int64_t *shape, int n_dims, const void *data, soma_error *err) {
    char header[SOMA_NPY_HEADER];
    size_t size = soma__npy_header(header, dtype, shape, n_dims), n_values = 1;
    for (int i = 0; i < n_dims; i++) n_values *= (size_t)shape[i];
    soma_file_writer w = {0};
    soma_status status = soma__file_writer_open(&w, path, err);
    if (status == SOMA_OK) status = soma__file_writer_put(&w, header, size, err);
    if (status == SOMA_OK) status = soma__file_writer_put(&w, data, n_values * soma_dtype_size(dtype), err);
    if (status == SOMA_OK) status = soma__file_writer_commit(&w, err);
    soma__file_writer_close(&w);
    return status;
}
