// SPDX-License-Identifier: Apache-2.0
// Any ids, decoded strictly and relaxed to any small shape: an error with zeros or finite numbers, and where both agree that all is well
// they agree on the values. The tokenizer has tokens that begin and end inside characters.
#include "text/fast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char tokenizer[] =
    "{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
    "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"!\":0,\"\\\"\":1,\"#\":2,\"$\":3,\"\xc3\x85\":4,"
    "\"\xc2\xa2\":5,"
    "\"\xc2\xa3\":6,\"\xc3\xaf\":7,\"\xc2\xbb\":8,\"\xc2\xa2\xc3\x85\":9,\"\xc3\x85\xc2\xa2\":10,\"\xc3\xaf\xc2\xbb\":11,\"!!\":12,\"!!!!"
    "\":13,"
    "\"\\u0000\":14},\"merges\":[[\"\xc2\xa2\",\"\xc3\x85\"],[\"\xc3\x85\",\"\xc2\xa2\"],[\"\xc3\xaf\",\"\xc2\xbb\"],[\"!\",\"!\"],[\"!!\","
    "\"!!\"]]}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char config[] = "{\"scale\": 10, \"min_token\": -36}";
    soma_fast *fast;
    soma_fast_work *work;
    soma_error err = {0};
    if (size < 2) return 0;
    int64_t T = data[0] % 9, A = data[1] % 5; // 0 among them
    size_t n = size - 2;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    double strict[64], relaxed[64];
    for (size_t i = 0; i < n; i++) ids[i] = data[2 + i] >= 250 ? (int32_t)0x80000000 >> (data[2 + i] - 250) : data[2 + i] % 17;
    if (soma__fast_parse(&fast, tokenizer, sizeof tokenizer - 1, config, sizeof config - 1, "fuzz", &err)) abort();
    if (soma__fast_work_new(&work, fast, &err)) abort();
    soma_status a = soma__fast_decode(work, ids, n, SOMA_FAST_STRICT, T, A, strict, &err);
    soma_status b = soma__fast_decode(work, ids, n, SOMA_FAST_RELAXED, T, A, relaxed, &err);
    if ((T < 1 || A < 1) != (b != SOMA_OK) || (a == SOMA_OK && b != SOMA_OK)) abort();
    for (int64_t i = 0; i < T * A; i++) {
        if (!isfinite(relaxed[i]) || !isfinite(strict[i]) || (a != SOMA_OK && strict[i] != 0)) abort();
        if (a == SOMA_OK && strict[i] != relaxed[i]) abort();
    }
    soma__fast_work_free(work);
    soma__fast_close(fast);
    free(ids);
    return 0;
}
