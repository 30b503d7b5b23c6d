// SPDX-License-Identifier: Apache-2.0
// Groups of chunks are encoded into memory of their own and put together afterwards, so that no thread waits for another.
#include "text/fast_batch.h"

#include <string.h>

enum { GROUP = 64 };

typedef struct group {
    int32_t *ids;
    size_t n, room;
} group;

typedef struct batch {
    const soma_fast *fast;
    soma_fast_work **works; // [n_threads]
    double *chunks;
    const double *input;
    const int32_t *ids;
    const int64_t *offsets;
    int64_t n, T, A;
    soma_fast_rule rule;
    soma_fast_rows *rows;
    uint8_t *ok;
    group *groups;
    int64_t n_groups;
    bool *failed; // [n_threads] memory was out
} batch;

static soma_status begin(batch *b, soma_pool *pool, soma_error *err) {
    int n_threads = soma__pool_threads(pool);
    b->n_groups = (b->n + GROUP - 1) / GROUP;
    b->works = soma__calloc((size_t)n_threads, sizeof *b->works);
    b->failed = soma__calloc((size_t)n_threads, sizeof *b->failed);
    if (!b->works || !b->failed) return soma__no_memory(err, "a batch of chunks");
    for (int i = 0; i < n_threads; i++) SOMA_TRY(soma__fast_work_new(&b->works[i], b->fast, err));
    return SOMA_OK;
}

static soma_status end(batch *b, soma_pool *pool, soma_status status, soma_error *err) {
    for (int i = 0; i < soma__pool_threads(pool); i++) {
        if (b->failed && b->failed[i] && status == SOMA_OK) status = soma__no_memory(err, "a batch of chunks");
        if (b->works) soma__fast_work_free(b->works[i]);
    }
    soma__free(b->works);
    soma__free(b->failed);
    return status;
}

// ---- encoding

static void encode_group(void *ctx, int64_t item, int thread) {
    batch *b = ctx;
    group *g = &b->groups[item];
    for (int64_t i = item * GROUP; i < SOMA_MIN((item + 1) * GROUP, b->n) && !b->failed[thread]; i++) {
        soma_fast_ids out;
        soma_status status = soma__fast_encode(b->works[thread], b->input + i * b->T * b->A, b->T, b->A, &out, NULL);
        size_t n = status == SOMA_OK ? out.n : 0;
        if (status == SOMA_NO_MEMORY || !soma__grow((void **)&g->ids, &g->room, g->n + n, sizeof *g->ids)) {
            b->failed[thread] = true;
            return;
        }
        if (n) memcpy(g->ids + g->n, out.ids, n * sizeof *g->ids);
        g->n += n;
        b->rows->ok[i] = status == SOMA_OK;
        b->rows->limits[i] = status == SOMA_OK && (out.n_clipped || out.n_lost);
        b->rows->offsets[i + 1] = (int64_t)n;
    }
}

static soma_status gather(batch *b, soma_error *err) {
    soma_fast_rows *r = b->rows;
    for (int64_t i = 0; i < b->n; i++) {
        r->n_refused += !r->ok[i];
        r->offsets[i + 1] += r->offsets[i];
    }
    r->ids = soma__alloc(((size_t)r->offsets[b->n] + 1) * sizeof *r->ids);
    if (!r->ids) return soma__no_memory(err, "a batch of chunks");
    for (int64_t k = 0; k < b->n_groups; k++)
        if (b->groups[k].n) memcpy(r->ids + r->offsets[k * GROUP], b->groups[k].ids, b->groups[k].n * sizeof *r->ids);
    for (int64_t i = 0; r->n_refused && i < b->n; i++) { // once more, for the sentence
        soma_fast_ids out;
        if (r->ok[i]) continue;
        soma__fast_encode(b->works[0], b->input + i * b->T * b->A, b->T, b->A, &out, &r->first);
        soma__fail_in(&r->first, "chunk %lld", (long long)i);
        break;
    }
    return SOMA_OK;
}

soma_status soma__fast_encode_batch(soma_fast_rows *rows, const soma_fast *fast, const double *chunks, int64_t n, int64_t T, int64_t A,
                                    soma_pool *pool, soma_error *err) {
    batch b = {.fast = fast, .input = chunks, .n = n, .T = T, .A = A, .rows = rows};
    *rows = (soma_fast_rows){.n = n};
    rows->offsets = soma__calloc((size_t)n + 1, sizeof *rows->offsets);
    rows->ok = soma__calloc((size_t)n + 1, 1);
    rows->limits = soma__calloc((size_t)n + 1, 1);
    b.groups = soma__calloc((size_t)(n / GROUP) + 1, sizeof *b.groups);
    soma_status status =
        rows->offsets && rows->ok && rows->limits && b.groups ? begin(&b, pool, err) : soma__no_memory(err, "a batch of chunks");
    if (status == SOMA_OK) {
        soma__pool_run(pool, b.n_groups, encode_group, &b);
        bool failed = false;
        for (int i = 0; i < soma__pool_threads(pool); i++) failed |= b.failed[i];
        if (!failed) status = gather(&b, err);
    }
    status = end(&b, pool, status, err);
    for (int64_t k = 0; b.groups && k < b.n_groups; k++) soma__free(b.groups[k].ids);
    soma__free(b.groups);
    if (status != SOMA_OK) soma__fast_rows_free(rows);
    return status;
}

void soma__fast_rows_free(soma_fast_rows *rows) {
    soma__free(rows->offsets);
    soma__free(rows->ids);
    soma__free(rows->ok);
    soma__free(rows->limits);
    *rows = (soma_fast_rows){0};
}

// ---- decoding

static void decode_group(void *ctx, int64_t item, int thread) {
    batch *b = ctx;
    for (int64_t i = item * GROUP; i < SOMA_MIN((item + 1) * GROUP, b->n); i++) {
        soma_status status = soma__fast_decode(b->works[thread], b->ids + b->offsets[i], (size_t)(b->offsets[i + 1] - b->offsets[i]),
                                               b->rule, b->T, b->A, b->chunks + i * b->T * b->A, NULL);
        b->failed[thread] |= status == SOMA_NO_MEMORY;
        if (b->ok) b->ok[i] = status == SOMA_OK;
    }
}

soma_status soma__fast_decode_batch(double *chunks, uint8_t *ok, const soma_fast *fast, const int32_t *ids, const int64_t *offsets,
                                    int64_t n, soma_fast_rule rule, int64_t T, int64_t A, soma_pool *pool, soma_error *err) {
    batch b = {.fast = fast, .chunks = chunks, .ids = ids, .offsets = offsets, .n = n, .T = T, .A = A, .rule = rule, .ok = ok};
    if (T < 1 || A < 1 || T > SOMA_FAST_MAX_STEPS || A > SOMA_FAST_MAX_CODES / T)
        return soma__fail(err, SOMA_BAD_INPUT, "chunks of %lld steps and %lld dimensions cannot be decoded", (long long)T, (long long)A);
    soma_status status = begin(&b, pool, err);
    if (status == SOMA_OK) soma__pool_run(pool, b.n_groups, decode_group, &b);
    return end(&b, pool, status, err);
}
