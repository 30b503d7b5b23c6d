// SPDX-License-Identifier: Apache-2.0
// Counting by halves of a float's bits. Tables are large and hardly touched (robots' values share few exponents), so they are asked for
// zeroed: what is never counted into costs no memory.
#include "data/tally.h"
#include "data/float_key.h"

#include <math.h>
#include <string.h>

enum { PARTS = 1 << 16, PIECE = 4096, NONE = 255 };

typedef struct column {
    float min, max;                           // over all workers, after the turn
    uint64_t total;                           // values
    uint64_t below[2 * SOMA_TALLY_QUANTILES]; // values in parts before that of place k
    uint64_t place[2 * SOMA_TALLY_QUANTILES]; // the lower and the upper neighbour of each quantile
    uint16_t part[2 * SOMA_TALLY_QUANTILES];
    uint8_t slot[2 * SOMA_TALLY_QUANTILES]; // which table of the second look
    double weight[SOMA_TALLY_QUANTILES];    // of the upper neighbour
    int n_slots;
    uint8_t *slots; // [PARTS] the table of a part; NONE
} column;

typedef struct worker {
    float *min, *max;  // [width]
    uint64_t *parts;   // [width, PARTS]
    uint64_t **within; // [width] of [n_slots, PARTS]
} worker;

struct soma_tally {
    int width, n_q, n_workers;
    double q[SOMA_TALLY_QUANTILES];
    column *columns;
    worker *workers;
};

void soma__moments_add(soma_moments *all, const soma_moments *more) {
    double n = all->n + more->n, apart = more->mean - all->mean;
    if (!(more->n > 0)) return;
    all->mean += apart * (more->n / n);
    all->squares += more->squares + apart * apart * (all->n * (more->n / n));
    all->n = n;
}

static bool start_worker(worker *w, int width) {
    w->min = soma__alloc((size_t)width * sizeof *w->min);
    w->max = soma__alloc((size_t)width * sizeof *w->max);
    w->parts = soma__calloc((size_t)width * PARTS, sizeof *w->parts);
    w->within = soma__calloc((size_t)width, sizeof *w->within);
    for (int c = 0; c < width && w->min && w->max; c++) w->min[c] = INFINITY, w->max[c] = -INFINITY;
    return w->min && w->max && w->parts && w->within;
}

soma_status soma__tally_new(soma_tally **out, int width, const double *quantiles, int n_q, int n_workers, soma_error *err) {
    SOMA_CHECK(width > 0 && n_q >= 0 && n_q <= SOMA_TALLY_QUANTILES && n_workers > 0, "a tally has columns, workers and a few quantiles");
    soma_tally *t = *out = soma__calloc(1, sizeof *t);
    if (!t) return soma__no_memory(err, "statistics");
    t->width = width;
    t->n_q = n_q;
    for (int i = 0; i < n_q; i++) t->q[i] = quantiles[i];
    t->columns = soma__calloc((size_t)width, sizeof *t->columns);
    t->workers = soma__calloc((size_t)n_workers, sizeof *t->workers);
    bool ok = t->columns && t->workers;
    for (; ok && t->n_workers < n_workers; t->n_workers++)
        if (!(ok = start_worker(&t->workers[t->n_workers], width))) {
            t->n_workers++;
            break;
        }
    if (ok) return SOMA_OK;
    soma__tally_free(t);
    *out = NULL;
    return soma__no_memory(err, "statistics");
}

void soma__tally_free(soma_tally *t) {
    if (!t) return;
    for (int i = 0; t->workers && i < t->n_workers; i++) {
        worker *w = &t->workers[i];
        for (int c = 0; w->within && c < t->width; c++) soma__free(w->within[c]);
        soma__free(w->min);
        soma__free(w->max);
        soma__free(w->parts);
        soma__free(w->within);
    }
    for (int c = 0; t->columns && c < t->width; c++) soma__free(t->columns[c].slots);
    soma__free(t->columns);
    soma__free(t->workers);
    soma__free(t);
}

// ---- the first look

// Sums in eight strands, whose shape does not depend on the machine.
static soma_moments moments_of(const float *values, const uint32_t *weights, size_t n) {
    enum { STRANDS = 8 };
    double sum[STRANDS] = {0}, square[STRANDS] = {0}, count = weights ? 0 : (double)n;
    size_t whole = n / STRANDS * STRANDS;
    for (size_t i = 0; weights && i < n; i++) count += weights[i];
    for (size_t i = 0; i < whole; i += STRANDS)
        for (size_t k = 0; k < STRANDS; k++) sum[k] += (double)values[i + k] * (weights ? weights[i + k] : 1);
    for (size_t i = whole; i < n; i++) sum[i - whole] += (double)values[i] * (weights ? weights[i] : 1);
    double mean = ((sum[0] + sum[1]) + (sum[2] + sum[3]) + ((sum[4] + sum[5]) + (sum[6] + sum[7]))) / count;
    for (size_t i = 0; i < whole; i += STRANDS)
        for (size_t k = 0; k < STRANDS; k++) {
            double apart = (double)values[i + k] - mean;
            square[k] += apart * apart * (weights ? weights[i + k] : 1);
        }
    for (size_t i = whole; i < n; i++)
        square[i - whole] += ((double)values[i] - mean) * ((double)values[i] - mean) * (weights ? weights[i] : 1);
    return (soma_moments){count, mean,
                          (square[0] + square[1]) + (square[2] + square[3]) + ((square[4] + square[5]) + (square[6] + square[7]))};
}

void soma__tally_first(soma_tally *t, int at, int c, const float *values, const uint32_t *weights, size_t n, soma_moments *moments) {
    worker *w = &t->workers[at];
    uint64_t *parts = w->parts + (size_t)c * PARTS;
    float low = w->min[c], high = w->max[c];
    for (size_t from = 0; from < n; from += PIECE) { // a piece stays in the nearest cache through the three passes
        size_t some = SOMA_MIN(n - from, (size_t)PIECE);
        const float *v = values + from;
        const uint32_t *often = weights ? weights + from : NULL;
        soma_moments m = moments_of(v, often, some);
        soma__moments_add(moments, &m);
        for (size_t i = 0; i < some; i++) {
            low = v[i] < low ? v[i] : low;
            high = v[i] > high ? v[i] : high;
        }
        for (size_t i = 0; i < some; i++) parts[soma__float_key(v[i]) >> 16] += often ? often[i] : 1;
    }
    w->min[c] = low;
    w->max[c] = high;
}

// ---- the turn

static void find_places(const soma_tally *t, column *c, const uint64_t *parts) {
    for (int k = 0; k < 2 * t->n_q; k++) {
        double at = t->q[k / 2] * (double)(c->total - 1), rank = floor(at);
        c->weight[k / 2] = at - rank;
        c->place[k] = SOMA_MIN((uint64_t)rank + (uint64_t)(k % 2), c->total - 1);
        uint64_t below = 0;
        uint32_t part = 0;
        while (below + parts[part] <= c->place[k]) below += parts[part++];
        c->below[k] = below;
        c->part[k] = (uint16_t)part;
        if (c->slots[part] == NONE) c->slots[part] = (uint8_t)c->n_slots++;
        c->slot[k] = c->slots[part];
    }
}

soma_status soma__tally_turn(soma_tally *t, soma_error *err) {
    for (int i = 0; i < t->width; i++) {
        column *c = &t->columns[i];
        worker *first = &t->workers[0];
        uint64_t *parts = first->parts + (size_t)i * PARTS; // of all workers, from here on
        c->min = INFINITY;
        c->max = -INFINITY;
        for (int k = 0; k < t->n_workers; k++) {
            const worker *w = &t->workers[k];
            c->min = SOMA_MIN(c->min, w->min[i]);
            c->max = SOMA_MAX(c->max, w->max[i]);
            for (size_t p = 0; k && p < PARTS; p++) parts[p] += w->parts[(size_t)i * PARTS + p];
        }
        for (size_t p = 0; p < PARTS; p++) c->total += parts[p];
        if (!c->total) return soma__fail(err, SOMA_NOT_FOUND, "there are no values to take statistics of");
        if (!(c->slots = soma__alloc(PARTS))) return soma__no_memory(err, "statistics");
        memset(c->slots, NONE, PARTS);
        find_places(t, c, parts);
        for (int k = 0; k < t->n_workers && c->n_slots; k++)
            if (!(t->workers[k].within[i] = soma__calloc((size_t)c->n_slots * PARTS, sizeof(uint64_t))))
                return soma__no_memory(err, "statistics");
    }
    return SOMA_OK;
}

// ---- the second look

void soma__tally_second(soma_tally *t, int at, int c, const float *values, const uint32_t *weights, size_t n) {
    const uint8_t *slots = t->columns[c].slots;
    uint64_t *within = t->workers[at].within[c];
    for (size_t i = 0; i < n; i++) {
        uint32_t key = soma__float_key(values[i]);
        uint8_t slot = slots[key >> 16];
        if (slot != NONE) within[(size_t)slot * PARTS + (key & 0xffff)] += weights ? weights[i] : 1;
    }
}

static double value_at(const soma_tally *t, int i, int k) {
    const column *c = &t->columns[i];
    uint64_t below = c->below[k];
    for (uint32_t low = 0; low < PARTS; low++) {
        for (int w = 0; w < t->n_workers; w++) below += t->workers[w].within[i][(size_t)c->slot[k] * PARTS + low];
        if (below > c->place[k]) return (double)soma__key_float((uint32_t)c->part[k] << 16 | low);
    }
    SOMA_CHECK(false, "the second look shows the values of the first");
    return 0;
}

void soma__tally_result(const soma_tally *t, int i, double *min, double *max, double *quantiles) {
    const column *c = &t->columns[i];
    *min = (double)c->min;
    *max = (double)c->max;
    for (int k = 0; k < t->n_q; k++) {
        double lower = value_at(t, i, 2 * k), upper = value_at(t, i, 2 * k + 1);
        quantiles[k] = lower + c->weight[k] * (upper - lower);
    }
}
