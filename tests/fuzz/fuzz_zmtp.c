// SPDX-License-Identifier: Apache-2.0
// Any bytes as a ZeroMQ connection, whole and cut into pieces: the same messages either way, none above the limit, a sentence for a
// refusal.
#include "format/zmtp.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 300 };

// How many messages and pings there are, times their bytes; `step`: bytes that come at a time.
static uint64_t read_all(const uint8_t *data, size_t size, size_t step) {
    soma_zmtp z = {.max_message = MOST};
    soma_str body = {0};
    soma_error err = {0};
    uint64_t sum = 17;
    for (size_t at = 0; at < size; at += step) {
        const unsigned char *p = data + at;
        size_t len = SOMA_MIN(step, size - at);
        while (len) {
            soma_zmtp_found found = soma__zmtp_feed(&z, &p, &len, &body, &err);
            if (body.len > MOST || z.n_head > SOMA_ZMTP_HEAD) abort();
            if (found == SOMA_ZMTP_REFUSED && !err.text[0]) abort();
            if (found == SOMA_ZMTP_REFUSED) goto done;
            if (found == SOMA_ZMTP_MESSAGE) sum = sum * 31 + body.len;
            if (found == SOMA_ZMTP_PING) {
                unsigned char pong[64];
                sum = sum * 37 + soma__zmtp_pong(pong, z.head, z.n_head);
            }
            if (found == SOMA_ZMTP_MESSAGE) body.len = 0;
        }
    }
done:
    soma__str_free(&body);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    // what a fuzzer need not find out: the greeting and READY
    soma_str all = {0};
    if (size && data[0] & 1) soma__zmtp_put_greeting(&all, "REQ");
    if (size) soma__str_add_bytes(&all, data + 1, size - 1);
    uint64_t whole = read_all((const uint8_t *)all.text, all.len, all.len + 1);
    if (whole != read_all((const uint8_t *)all.text, all.len, 1) || whole != read_all((const uint8_t *)all.text, all.len, 7)) abort();
    soma__str_free(&all);
    return 0;
}
