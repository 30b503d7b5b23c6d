// SPDX-License-Identifier: Apache-2.0
// Any bytes to the msgpack parser: it refuses with a sentence or gives a tree that can be walked, written and parsed again.
#include "format/msgpack.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const soma_msg *m) {
    char text[200];
    soma__msg_describe(text, m);
    int64_t n = soma__msg_n_numbers(m);
    for (int64_t i = 0; i < n; i++) soma__msg_number(m, i);
    for (uint32_t i = 0; m->kind == SOMA_MSG_ARRAY && i < m->n; i++) walk(&m->items[i]);
    for (uint32_t i = 0; m->kind == SOMA_MSG_MAP && i < m->n; i++) walk(&m->pairs[i].value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (int str_keys = 0; str_keys < 2; str_keys++) {
        soma_arena arena = {0};
        soma_error err = {0};
        soma_str out = {0}, again = {0};
        const soma_msg *m;
        if (soma__msg_parse(&m, &arena, data, size, str_keys, &err) == SOMA_OK) {
            walk(m);
            soma__msg_put(&out, m);
            if (soma__msg_parse(&m, &arena, out.text, out.len, str_keys, &err)) abort();
            soma__msg_put(&again, m);
            if (again.len != out.len) abort();
        } else if (!err.text[0])
            abort();
        soma__str_free(&out);
        soma__str_free(&again);
        soma__arena_free(&arena);
    }
    return 0;
}
