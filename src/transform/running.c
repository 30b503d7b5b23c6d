// SPDX-License-Identifier: Apache-2.0
// Running statistics. When the range grows, the old bins' counts move to the new bins that hold their left edges, as openpi does: a
// quantile may be off by one old bin, 1/5000 of the range at that time.
#include "transform/running.h"

#include <math.h>
#include <string.h>

enum { BINS = 5000 };

typedef struct column {
    double mean, square, low, high; // square: the mean of squares
    double edges[BINS + 1], counts[BINS];
} column;

struct soma_running {
    int width;
    int64_t n;
    column *columns;
    double *moved;    // [BINS] scratch
    double *lists[6]; // mean, std, q01, q99, min, max: [width] each
};

soma_status soma__running_new(soma_running **out, int width, soma_error *err) {
    SOMA_CHECK(width > 0, "statistics are of one number or more");
    soma_running *r = *out = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, "running statistics");
    r->width = width;
    r->columns = soma__calloc((size_t)width, sizeof *r->columns);
    r->moved = soma__calloc(BINS, sizeof *r->moved);
    bool ok = r->columns && r->moved;
    for (size_t i = 0; i < SOMA_COUNT(r->lists); i++) ok = (r->lists[i] = soma__calloc((size_t)width, sizeof(double))) && ok;
    if (ok) return SOMA_OK;
    soma__running_free(r);
    *out = NULL;
    return soma__no_memory(err, "running statistics");
}

void soma__running_free(soma_running *r) {
    if (!r) return;
    soma__free(r->columns);
    soma__free(r->moved);
    for (size_t i = 0; i < SOMA_COUNT(r->lists); i++) soma__free(r->lists[i]);
    soma__free(r);
}

int64_t soma__running_count(const soma_running *r) { return r->n; }

// BINS equal steps, ending exactly at `high`.
static void set_edges(column *c, double low, double high) {
    double step = (high - low) / BINS;
    for (int i = 0; i < BINS; i++) c->edges[i] = low + i * step;
    c->edges[BINS] = high;
}

// The last bin whose left edge is not above x; the last bin holds its right edge, too. x lies in the range.
static int bin_of(const column *c, double x) {
    int low = 0, high = BINS - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (c->edges[middle] <= x)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static void widen(soma_running *r, column *c) {
    static const double none[BINS];
    double old[BINS];
    memcpy(old, c->edges, sizeof old);
    memcpy(r->moved, c->counts, sizeof c->counts);
    memcpy(c->counts, none, sizeof none);
    set_edges(c, c->low, c->high);
    for (int i = 0; i < BINS; i++)
        if (old[i] >= c->low && old[i] <= c->high) c->counts[bin_of(c, old[i])] += r->moved[i]; // others are lost, as in openpi
}

static void add_moments(soma_running *r, column *c, const double *values, int64_t n) {
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) sum += values[i * r->width], square += values[i * r->width] * values[i * r->width];
    double share = (double)n / (double)(r->n + n);
    c->mean += (sum / (double)n - c->mean) * share;
    c->square += (square / (double)n - c->square) * share;
}

// Whether the range grew.
static bool add_range(const soma_running *r, column *c, const double *values, int64_t n) {
    double low = c->low, high = c->high;
    for (int64_t i = 0; i < n; i++) {
        double x = values[i * r->width];
        if (x < c->low) c->low = x;
        if (x > c->high) c->high = x;
    }
    return c->low < low || c->high > high;
}

void soma__running_add(soma_running *r, const double *rows, int64_t n) {
    bool grew = false;
    for (int d = 0; d < r->width; d++) {
        column *c = &r->columns[d];
        if (!r->n) c->low = INFINITY, c->high = -INFINITY;
        grew = add_range(r, c, rows + d, n) || grew;
        add_moments(r, c, rows + d, n);
    }
    for (int d = 0; d < r->width; d++) {
        column *c = &r->columns[d];
        if (!r->n)
            set_edges(c, c->low - 1e-10, c->high + 1e-10);
        else if (grew) // of any dimension: all are binned anew
            widen(r, c);
        for (int64_t i = 0; i < n; i++) c->counts[bin_of(c, rows[i * r->width + d])]++;
    }
    r->n += n;
}

static double quantile(const column *c, double rank) {
    double seen = 0;
    for (int i = 0; i < BINS; i++)
        if ((seen += c->counts[i]) >= rank) return c->edges[i];
    return c->edges[BINS];
}

double soma__running_quantile(const soma_running *r, int i, double q) { return quantile(&r->columns[i], q * (double)r->n); }

soma_status soma__running_norm(soma_running *r, soma_norm *norm, const char *key, soma_error *err) {
    if (r->n < 2) return soma__fail(err, SOMA_BAD_INPUT, "statistics of %s need two rows, there are %lld", key, (long long)r->n);
    for (int d = 0; d < r->width; d++) {
        const column *c = &r->columns[d];
        double variance = c->square - c->mean * c->mean;
        r->lists[0][d] = c->mean;
        r->lists[1][d] = sqrt(variance > 0 ? variance : 0);
        r->lists[2][d] = soma__running_quantile(r, d, 0.01);
        r->lists[3][d] = soma__running_quantile(r, d, 0.99);
        r->lists[4][d] = c->low;
        r->lists[5][d] = c->high;
    }
    *norm = (soma_norm){.key = key,
                        .size = r->width,
                        .mean = r->lists[0],
                        .std = r->lists[1],
                        .q01 = r->lists[2],
                        .q99 = r->lists[3],
                        .min = r->lists[4],
                        .max = r->lists[5]};
    return SOMA_OK;
}
