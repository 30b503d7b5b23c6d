// SPDX-License-Identifier: Apache-2.0
// Any bytes as tokenizer.json of a FAST tokenizer. What is accepted must encode and decode: the ids that the search gives are those that
// merging gives, and what was lost is told.
#include "text/fast.h"
#include "text/fast_bpe.h"
#include "text/fast_impl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { T = 6, A = 3 };

static void check(const soma_fast *fast) {
    static const double chunk[T * A] = {0.5, -0.3, 1, 0.4, -0.2, 1, 0.3, 0, 1, 0.2, 0.1, 0.9, 0.1, 0.3, 0.8, 0, 0.4, 0.7};
    double back[T * A];
    int32_t merged[4 * T * A];
    soma_fast_work *work;
    soma_fast_bpe_work plain = {0};
    soma_fast_ids out;
    soma_error err = {0};
    if (soma__fast_work_new(&work, fast, &err) || soma__fast_bpe_reserve(&plain, T * A, &err)) abort();
    if (soma__fast_encode(work, chunk, T, A, &out, &err) == SOMA_OK) {
        size_t n = 0;
        for (size_t at = 0, len, got; at < T * A; at += len, n += got) {
            len = soma__fast_word(fast->class_of, SOMA_FAST_SMALL, out.codes + at, T * A - at);
            if (soma__fast_bpe_merge(fast->bpe, &plain, out.codes + at, len, merged + n, &got, &err)) abort();
        }
        if (n != out.n || memcmp(merged, out.ids, n * sizeof *merged)) abort();
        for (size_t i = 0; i < out.n; i++)
            if (out.ids[i] < 0 || out.ids[i] >= soma__fast_vocab(fast)) abort();
        memcpy(merged, out.ids, out.n * sizeof *merged);
        bool strict = soma__fast_decode(work, merged, out.n, SOMA_FAST_STRICT, T, A, back, &err) == SOMA_OK;
        if (!strict && !out.n_lost) abort(); // what was written whole is read whole
        if (soma__fast_decode(work, merged, out.n, SOMA_FAST_RELAXED, T, A, back, &err)) abort();
    }
    soma__fast_bpe_work_free(&plain);
    soma__fast_work_free(work);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char config[] = "{\"scale\": 10, \"min_token\": -20}";
    soma_fast *fast;
    soma_error err = {0};
    const char *text = size ? (const char *)data : "";
    if (soma__fast_parse(&fast, text, size, config, sizeof config - 1, "fuzz", &err)) {
        if (fast || !err.text[0]) abort();
    } else {
        check(fast);
        soma__fast_close(fast);
    }
    if (soma__fast_parse(&fast, NULL, 0, text, size, "fuzz", &err) == SOMA_OK) soma__fast_close(fast); // as processor_config.json
    return 0;
}
