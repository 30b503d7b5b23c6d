// SPDX-License-Identifier: Apache-2.0
// Choosing tokens on the host, between runs of one plan. The cache has its planned length from the start; which of its rows are there is
// told by "cache.k_block", which gains one key per step.
#include "policy/decode.h"

#include <math.h>
#include <string.h>

// ---- one choice

static int allowed(const soma_decode *d, const int32_t *ids, int64_t n, soma_id_range ranges[2]) {
    int count = d->form ? soma__answer_next(d->form, ids, (size_t)n, ranges) : 0;
    if (count) return count;
    ranges[0] = (soma_id_range){0, (int32_t)d->vocab - 1};
    return 1;
}

static int32_t likeliest(const float *logits, const soma_id_range *ranges, int n) {
    int32_t best = -1;
    for (int r = 0; r < n; r++)
        for (int32_t i = ranges[r].from; i <= ranges[r].to; i++)
            if (best < 0 || logits[i] > logits[best] || (logits[i] == logits[best] && i < best)) best = i;
    return best;
}

static int32_t draw(const float *logits, const soma_id_range *ranges, int n, double temperature, soma_rng *rng) {
    double top = (double)logits[likeliest(logits, ranges, n)], all = 0;
    for (int r = 0; r < n; r++)
        for (int32_t i = ranges[r].from; i <= ranges[r].to; i++) all += exp(((double)logits[i] - top) / temperature);
    double left = soma__rng_uniform(rng) * all;
    int32_t last = ranges[0].from;
    for (int r = 0; r < n; r++)
        for (int32_t i = ranges[r].from; i <= ranges[r].to; i++) {
            double p = exp(((double)logits[i] - top) / temperature);
            if (p > 0) last = i;
            if ((left -= p) < 0) return i;
        }
    return last; // rounding used up the rest
}

int32_t soma__decode_choose(const soma_decode *d, const float *logits, const int32_t *ids, int64_t n, soma_rng *rng) {
    soma_id_range ranges[2];
    int count = allowed(d, ids, n, ranges);
    return d->temperature > 0 ? draw(logits, ranges, count, d->temperature, rng) : likeliest(logits, ranges, count);
}

// ---- the loop

typedef struct counters { // the family's arrays, which count along
    int32_t *row, *position, *k_block;
    int64_t width; // of one row of k_block
} counters;

static soma_status find_counters(counters *c, soma_feed *feed, int64_t B, soma_error *err) {
    const soma_feed_array *row = soma__feed_find(feed, "cache.row"), *position = soma__feed_find(feed, "cache.position"),
                          *k = soma__feed_find(feed, "cache.k_block");
    if (!row || !position || !k) return soma__fail(err, SOMA_UNSUPPORTED, "this family does not write its chunk as tokens");
    *c = (counters){row->own, position->own, k->own, (int64_t)(k->size / sizeof *c->k_block) / B};
    return SOMA_OK;
}

// The rows that are not over choose; true when that was the last choice of all.
static bool choose_all(soma_decode *d, bool *over) {
    bool all = true;
    for (int64_t b = 0; b < d->n_rows; b++) {
        int32_t *ids = d->ids + b * d->max;
        if (over[b]) continue;
        int64_t n = d->n_ids[b]++;
        ids[n] =
            d->follow ? d->follow[b * d->max + n] : soma__decode_choose(d, d->logits + b * d->vocab, ids, n, d->rngs ? &d->rngs[b] : NULL);
        over[b] = ids[n] == d->stop;
        all &= over[b];
    }
    return all;
}

static soma_status put_counters(soma_frame *f, const counters *c, int64_t B, soma_error *err) {
    SOMA_TRY(soma__frame_put(f, "cache.row", c->row, sizeof *c->row * (size_t)B, err));
    SOMA_TRY(soma__frame_put(f, "cache.position", c->position, sizeof *c->position * (size_t)B, err));
    return soma__frame_put(f, "cache.k_block", c->k_block, sizeof *c->k_block * (size_t)(B * c->width), err);
}

// The last tokens take their rows in the cache, and the next logits come out.
static soma_status run_step(soma_decode *d, soma_frame *decode, counters *c, soma_error *err) {
    int32_t last[d->n_rows];
    for (int64_t b = 0; b < d->n_rows; b++) {
        last[b] = d->ids[b * d->max + d->n_ids[b] - 1]; // a row that is over goes on with its stop, and nobody looks
        c->k_block[b * c->width + c->row[b]] = 0;
    }
    SOMA_TRY(soma__frame_put(decode, "token", last, sizeof last, err));
    SOMA_TRY(put_counters(decode, c, d->n_rows, err));
    soma__frame_run(decode);
    for (int64_t b = 0; b < d->n_rows; b++) {
        c->row[b]++;
        c->position[b]++;
    }
    return soma__frame_get(decode, "logits", d->logits, sizeof *d->logits * (size_t)(d->n_rows * d->vocab), err);
}

soma_status soma__decode(soma_decode *d, soma_frame *encode, soma_frame *decode, soma_feed *feed, soma_error *err) {
    counters c = {0};
    bool over[d->n_rows];
    memset(over, 0, sizeof over);
    SOMA_TRY(find_counters(&c, feed, d->n_rows, err));
    memset(d->ids, 0, sizeof *d->ids * (size_t)(d->n_rows * d->max));
    memset(d->n_ids, 0, sizeof *d->n_ids * (size_t)d->n_rows);
    soma__frame_run(encode);
    SOMA_TRY(soma__frame_get(encode, "logits", d->logits, sizeof *d->logits * (size_t)(d->n_rows * d->vocab), err));
    for (int64_t s = 0;; s++) {
        if (d->step) d->step(d->user, s, d->logits);
        if (choose_all(d, over) || s + 1 == d->max) return SOMA_OK;
        SOMA_TRY(run_step(d, decode, &c, err));
    }
}
