// SPDX-License-Identifier: Apache-2.0
// See ranks.h.
#include "base/ranks.h"

void soma__ranks_sum(soma_ranks *ranks, int64_t *values, size_t n) {
    if (ranks) ranks->sum(ranks, values, n);
}

void soma__ranks_max(soma_ranks *ranks, int64_t *values, size_t n) {
    if (ranks) ranks->max(ranks, values, n);
}

void soma__ranks_part(const soma_ranks *ranks, int64_t n, int64_t *from, int64_t *to) {
    *from = ranks ? n * ranks->rank / ranks->count : 0;
    *to = ranks ? n * (ranks->rank + 1) / ranks->count : n;
}

soma_status soma__ranks_agree(soma_ranks *ranks, soma_status status, soma_error *err) {
    if (!ranks) return status;
    int64_t failed = status != SOMA_OK, first = failed ? ranks->count - ranks->rank : 0; // the largest is that of the first rank
    ranks->sum(ranks, &failed, 1);
    if (!failed) return SOMA_OK;
    ranks->max(ranks, &first, 1);
    int owner = ranks->count - (int)first;
    soma_error said = {.code = status};
    if (err && status != SOMA_OK) said = *err;
    ranks->share(ranks, &said, sizeof said, owner);
    if (err) *err = said;
    if (failed < ranks->count) soma__fail_in(err, "rank %d of %d", owner, ranks->count);
    return said.code;
}

soma_status soma__ranks_same(soma_ranks *ranks, int64_t value, const char *what, soma_error *err) {
    int64_t both[] = {value, -value}; // the largest and the smallest
    soma__ranks_max(ranks, both, 2);
    if (both[0] == -both[1]) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: the ranks see different copies of it (%lld here; from %lld to %lld)", what,
                      (long long)value, (long long)-both[1], (long long)both[0]);
}
