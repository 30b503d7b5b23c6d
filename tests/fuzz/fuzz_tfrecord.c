// SPDX-License-Identifier: Apache-2.0
// Any bytes as a TFRecord file, and as one tf.train.Example: sentences, or lists that lie within the bytes.
#include "format/example.h"
#include "format/tfrecord.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_example(const uint8_t *data, size_t size) {
    soma_example e = {0};
    soma_error err = {0};
    if (soma__example_parse(&e, data, size, "record", &err) && !strstr(err.text, "record")) abort();
    for (size_t i = 0; i < e.n_lists; i++) {
        const soma_example_list *l = &e.lists[i];
        int64_t n;
        soma_span bytes;
        float value[16];
        if (l->values.size > size || l->name.size > size) abort();
        if (soma__example_count(&n, &e, l, "record", &err)) continue;
        if (n < 0 || n > (int64_t)size) abort();
        bool number = l->kind == SOMA_EXAMPLE_FLOAT || l->kind == SOMA_EXAMPLE_INT;
        if (n <= 16 && soma__example_floats(value, n, &e, l, "record", &err) == SOMA_OK && !number) abort();
        if (soma__example_bytes(&bytes, n - 1, &e, l, "record", &err) == SOMA_OK &&
            (bytes.data < data || bytes.data + bytes.size > data + size))
            abort();
    }
    soma__example_free(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    soma_error err = {0};
    size_t at = 0;
    read_example(data, size);
    while (at < size) {
        soma_tfrecord r;
        if (soma__tfrecord_at(&r, data, size, at, "file", &err)) break;
        if (r.next <= at || r.next > size) abort();
        if (soma__tfrecord_check(&r, data, "file", &err) == SOMA_OK) read_example(data + r.offset + 12, r.size);
        at = r.next;
    }
    return 0;
}
