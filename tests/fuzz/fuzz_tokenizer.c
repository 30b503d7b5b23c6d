// SPDX-License-Identifier: Apache-2.0
// Any bytes as tokenizer.json. What is accepted must encode any text to ids of its vocabulary, the same number whatever the room, and make
// text of them again; what is refused names the file.
#include "text/tokenizer.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const soma_tokenizer *t, const char *s, size_t len) {
    int32_t ids[512];
    size_t n, again;
    soma_error err = {0};
    if (soma__tokenizer_encode(t, s, len, SOMA_MARKS_BACK, ids, 512, &n, &err)) return; // post-processors may ask for too much
    if (soma__tokenizer_encode(t, s, len, SOMA_MARKS_BACK, NULL, 0, &again, &err) || again != n) abort();
    if (n > 512) n = 512;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= soma__tokenizer_size(t)) abort();
    soma_str out = {0};
    if (soma__tokenizer_decode(t, ids, n, &out, &err) || !soma__utf8_valid(out.text, out.len)) abort();
    soma__str_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "Pick up the red cube,  don't drop\n it: 12 345 <x> \xc3\xa4\xe2\x96\x81\xe2\x96\x81 e\xcc\x81 \xff ab abc";
    soma_tokenizer_json *json;
    soma_tokenizer *t;
    soma_error err = {0};
    if (soma__tokenizer_json_parse(&json, data, size, "a file", &err)) {
        if (json || !strstr(err.text, "a file")) abort();
        return 0;
    }
    if (soma__tokenizer_new(&t, json, "a file", &err)) {
        if (t || !strstr(err.text, "a file")) abort();
        return 0;
    }
    check(t, text, sizeof text - 1);
    check(t, (const char *)data, size < 400 ? size : 400); // its own bytes hold its own pieces
    soma__tokenizer_limit(t, 3);
    check(t, text, sizeof text - 1);
    soma__tokenizer_free(t);
    return 0;
}
