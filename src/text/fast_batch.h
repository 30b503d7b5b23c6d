// SPDX-License-Identifier: Apache-2.0
// Many chunks at once, on all threads. The result does not depend on how many there are.
#ifndef SOMA_TEXT_FAST_BATCH_H
#define SOMA_TEXT_FAST_BATCH_H

#include "base/pool.h"
#include "text/fast.h"

// Row i is ids[offsets[i]] .. ids[offsets[i + 1] - 1]. Release with soma__fast_rows_free.
typedef struct soma_fast_rows {
    int64_t n;
    int64_t *offsets; // [n + 1]
    int32_t *ids;     // [offsets[n]]
    uint8_t *ok;      // [n] 0: the chunk was refused and has no ids
    uint8_t *limits;  // [n] 1: codes were clipped or lost
    int64_t n_refused;
    soma_error first; // why the first of them was refused
} soma_fast_rows;

// chunks [n, T, A]. A chunk that soma__fast_encode refuses is marked and the others go on; only memory makes the call fail.
soma_status soma__fast_encode_batch(soma_fast_rows *rows, const soma_fast *fast, const double *chunks, int64_t n, int64_t T, int64_t A,
                                    soma_pool *pool, soma_error *err);
void soma__fast_rows_free(soma_fast_rows *rows);

// Rows to chunks [n, T, A]; ok [n] (NULL allowed) is 0 and the chunk zeros where soma__fast_decode says so. ids and offsets as above; the
// offsets rise.
soma_status soma__fast_decode_batch(double *chunks, uint8_t *ok, const soma_fast *fast, const int32_t *ids, const int64_t *offsets,
                                    int64_t n, soma_fast_rule rule, int64_t T, int64_t A, soma_pool *pool, soma_error *err);

#endif
