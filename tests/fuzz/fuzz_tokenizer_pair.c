// SPDX-License-Identifier: Apache-2.0
// Any bytes as vocab.json, merges.txt and tokenizer_config.json, with zeros between them; an empty vocab.json or config counts as absent.
#include "text/tokenizer.h"
#include "text/tokenizer_pair.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static soma_bytes part(const uint8_t **data, size_t *size) {
    const uint8_t *from = *data, *zero = *size ? memchr(from, 0, *size) : NULL;
    size_t len = zero ? (size_t)(zero - from) : *size, used = zero ? len + 1 : len;
    *data += used;
    *size -= used;
    return (soma_bytes){len ? (const char *)from : NULL, len};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    soma_bytes vocab = part(&data, &size), merges = part(&data, &size), config = part(&data, &size);
    soma_tokenizer_json *json;
    soma_tokenizer *t;
    soma_error err = {0};
    int32_t ids[64];
    size_t n;
    if (soma__tokenizer_pair_parse(&json, vocab, merges, config, "a folder", &err)) {
        if (json || !strstr(err.text, "a folder")) abort();
        return 0;
    }
    if (soma__tokenizer_new(&t, json, "a folder", &err)) return 0;
    if (soma__tokenizer_encode(t, "don't <x> 12 ab", 15, SOMA_MARKS_NONE, ids, 64, &n, &err)) abort();
    for (size_t i = 0; i < n && i < 64; i++)
        if (ids[i] < 0 || ids[i] >= soma__tokenizer_size(t)) abort();
    soma__tokenizer_free(t);
    return 0;
}
