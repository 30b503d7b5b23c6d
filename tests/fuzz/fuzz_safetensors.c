// SPDX-License-Identifier: Apache-2.0
// Any bytes as a safetensors file: a sentence, or tensors whose every value lies inside the bytes.
#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const soma_safetensor *t, const uint8_t *data, size_t size) {
    const uint8_t *first = t->data;
    int64_t n = 1;
    char shape[160];
    float values[64];
    for (int i = 0; i < t->n_dims; i++) n *= t->shape[i];
    if (n != t->n_values || n < 0) abort();
    if (n && (first < data || (size_t)n > size / soma_dtype_size(t->dtype) || first + (size_t)n * soma_dtype_size(t->dtype) > data + size))
        abort();
    soma__safetensor_shape(shape, t);
    for (int64_t i = 0; i < n; i += 64) soma__to_f32(values, t->dtype, first + (size_t)i * soma_dtype_size(t->dtype), SOMA_MIN(n - i, 64));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    soma_safetensors *st;
    soma_error err = {0};
    if (soma__safetensors_open_bytes(&st, data, size, "bytes", &err)) {
        if (st || !strstr(err.text, "bytes")) abort();
        return 0;
    }
    for (size_t i = 0; i < soma__safetensors_count(st); i++) {
        const soma_safetensor *t = soma__safetensors_at(st, i);
        if (soma__safetensors_find(st, t->name) != t) abort();
        read_all(t, data, size);
    }
    soma__safetensors_metadata(st, "format");
    soma__safetensors_close(st);
    return 0;
}
