// SPDX-License-Identifier: Apache-2.0
// Any bytes as a .npy file: what is accepted lies inside the file.
#include "format/npy.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    soma_npy a;
    soma_error err = {0};
    if (soma__npy_parse(&a, data, size, "fuzz", &err)) {
        if (!err.text[0]) abort();
        return 0;
    }
    int64_t n = 1;
    for (int i = 0; i < a.n_dims; i++) n *= a.shape[i];
    if (n != a.n_values || (const uint8_t *)a.data + (size_t)n * soma_dtype_size(a.dtype) != data + size) abort();
    return 0;
}
