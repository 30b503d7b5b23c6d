// SPDX-License-Identifier: Apache-2.0
// Two looks (data/tally.h) over the episodes. Chunks are never stored: a frame's differences are made in a small buffer each time they are
// looked at, and where nothing is taken off, a number counts as often as chunks hold it.
#include "data/exact.h"

#include <math.h>
#include <string.h>

enum { ROOM = 16384 }; // differences that are shown at once; the longest horizon

typedef struct scratch { // of a thread
    float *rows;         // [longest, row]; NULL where all numbers are kept
    float *values;       // [longest + longest horizon] of one column
    float *differences;  // [ROOM]
    uint32_t *weights;   // [longest]
} scratch;

typedef struct taking {
    const soma_exact *x;
    soma_tally *tally;
    scratch *scratch;    // [threads]
    float *kept;         // all episodes' numbers; NULL: they are read again
    int64_t *starts;     // [n_episodes + 1] frames before each episode
    soma_moments *units; // [SOMA_SWEEP_BLOCK, n_columns] of episodes that are not settled
    soma_moments *all;   // [n_columns]
    bool second;
} taking;

static int64_t frames_of(const taking *k, int64_t place) { return k->starts[place + 1] - k->starts[place]; }

// Number `index` of every frame, with a step from frame to frame.
static const float *numbers(const soma_exact *x, const float *rows, int64_t n, int index, int *step) {
    bool first = index < x->split;
    *step = first ? x->split : x->row - x->split;
    return first ? rows + index : rows + n * x->split + (index - x->split);
}

// How many chunks hold the action of each frame.
static void weigh(uint32_t *weights, int64_t n, int64_t horizon) {
    for (int64_t t = 0; t < n; t++) weights[t] = (uint32_t)SOMA_MIN(t + 1, horizon);
    for (int64_t f = SOMA_MAX(n - horizon + 1, (int64_t)0); f < n; f++) weights[n - 1] += (uint32_t)(f + horizon - n);
}

static void show(taking *k, int thread, int column, const float *values, const uint32_t *weights, int64_t n, soma_moments *unit) {
    if (k->second)
        soma__tally_second(k->tally, thread, column, values, weights, (size_t)n);
    else
        soma__tally_first(k->tally, thread, column, values, weights, (size_t)n, unit);
}

static void show_column(taking *k, const float *rows, int64_t n, int thread, int column, soma_moments *unit) {
    const soma_exact_column *c = &k->x->columns[column];
    scratch *s = &k->scratch[thread];
    int step, base_step = 0;
    const float *from = numbers(k->x, rows, n, c->value, &step), *base = NULL;
    if (c->base >= 0) base = numbers(k->x, rows, n, c->base, &base_step);
    for (int64_t f = 0; f < n; f++) s->values[f] = from[f * step];
    if (!base) {
        if (c->horizon > 1) weigh(s->weights, n, c->horizon);
        show(k, thread, column, s->values, c->horizon > 1 ? s->weights : NULL, n, unit);
        return;
    }
    for (int64_t i = 0; i < c->horizon; i++) s->values[n + i] = s->values[n - 1];
    int64_t filled = 0;
    for (int64_t f = 0; f < n; f++) {
        float *out = s->differences + filled, less = base[f * base_step];
        for (int64_t i = 0; i < c->horizon; i++) out[i] = s->values[f + i] - less;
        filled += c->horizon;
        if (filled + c->horizon <= ROOM && f < n - 1) continue;
        show(k, thread, column, s->differences, NULL, filled, unit);
        filled = 0;
    }
}

static soma_status visit(void *user, soma_dataset_reader *reader, int64_t place, int thread, soma_error *err) {
    taking *k = user;
    const soma_exact *x = k->x;
    int64_t n = frames_of(k, place);
    float *rows = k->kept ? k->kept + k->starts[place] * x->row : k->scratch[thread].rows;
    soma_moments *units = k->units + place % SOMA_SWEEP_BLOCK * x->n_columns;
    memset(units, 0, (size_t)x->n_columns * sizeof *units);
    if (!n) return SOMA_OK;
    if (!k->second || !k->kept) SOMA_TRY(x->read(x->user, reader, x->episodes[place], rows, err));
    for (int c = 0; c < x->n_columns; c++) show_column(k, rows, n, thread, c, &units[c]);
    return SOMA_OK;
}

static void settle(void *user, int64_t place) {
    taking *k = user;
    const soma_moments *units = k->units + place % SOMA_SWEEP_BLOCK * k->x->n_columns;
    for (int c = 0; c < k->x->n_columns && !k->second; c++) soma__moments_add(&k->all[c], &units[c]);
}

static bool tell(void *user, int64_t done, int64_t total) {
    const taking *k = user;
    return k->x->progress(k->x->progress_user, done + (k->second ? total : 0), 2 * total);
}

// ---- memory

static bool make_room(taking *k) {
    const soma_exact *x = k->x;
    int64_t longest = 0, horizon = 1, threads = soma__pool_threads(x->pool);
    k->starts = soma__calloc((size_t)x->n_episodes + 1, sizeof *k->starts);
    k->units = soma__calloc((size_t)SOMA_SWEEP_BLOCK * (size_t)x->n_columns, sizeof *k->units);
    k->all = soma__calloc((size_t)x->n_columns, sizeof *k->all);
    k->scratch = soma__calloc((size_t)threads, sizeof *k->scratch);
    if (!k->starts || !k->units || !k->all || !k->scratch) return false;
    for (int64_t i = 0; i < x->n_episodes; i++) {
        int64_t n = x->dataset->episodes[x->episodes[i]].n_frames;
        k->starts[i + 1] = k->starts[i] + n;
        longest = SOMA_MAX(longest, n);
    }
    for (int c = 0; c < x->n_columns; c++) horizon = SOMA_MAX(horizon, x->columns[c].horizon);
    size_t row = (size_t)x->row * sizeof(float), all = (size_t)k->starts[x->n_episodes] * row;
    if (all <= x->memory && !(k->kept = soma__alloc(all + 1))) return false;
    for (int64_t i = 0; i < threads; i++) {
        scratch *s = &k->scratch[i];
        s->rows = k->kept ? NULL : soma__alloc((size_t)longest * row + 1);
        s->values = soma__alloc((size_t)(longest + horizon) * sizeof *s->values);
        s->differences = soma__alloc(ROOM * sizeof *s->differences);
        s->weights = soma__alloc((size_t)(longest + 1) * sizeof *s->weights);
        if ((!s->rows && !k->kept) || !s->values || !s->differences || !s->weights) return false;
    }
    return true;
}

static void free_room(taking *k) {
    for (int i = 0; k->scratch && i < soma__pool_threads(k->x->pool); i++) {
        soma__free(k->scratch[i].rows);
        soma__free(k->scratch[i].values);
        soma__free(k->scratch[i].differences);
        soma__free(k->scratch[i].weights);
    }
    soma__free(k->scratch);
    soma__free(k->kept);
    soma__free(k->starts);
    soma__free(k->units);
    soma__free(k->all);
    soma__tally_free(k->tally);
}

soma_status soma__exact_take(soma_column_stats *stats, const soma_exact *x, int *reads, soma_error *err) {
    for (int c = 0; c < x->n_columns; c++)
        SOMA_CHECK(x->columns[c].horizon >= 1 && x->columns[c].horizon <= ROOM, "a chunk has 1 to 16384 actions");
    taking k = {.x = x};
    soma_sweep sweep = {x->dataset, x->episodes, x->n_episodes, x->pool, visit, settle, x->progress ? tell : NULL, &k, &k};
    soma_status status = make_room(&k)
                             ? soma__tally_new(&k.tally, x->n_columns, x->quantiles, x->n_quantiles, soma__pool_threads(x->pool), err)
                             : soma__no_memory(err, "a dataset's numbers");
    if (reads) *reads = k.kept ? 1 : 2;
    if (status == SOMA_OK) status = soma__dataset_sweep(&sweep, err);
    if (status == SOMA_OK && (status = soma__tally_turn(k.tally, err)) != SOMA_OK) soma__fail_in(err, "%s", x->dataset->path);
    k.second = true;
    if (status == SOMA_OK) status = soma__dataset_sweep(&sweep, err);
    for (int c = 0; c < x->n_columns && status == SOMA_OK; c++) {
        soma_column_stats *s = &stats[c];
        s->count = k.all[c].n;
        s->mean = k.all[c].mean;
        s->std = sqrt(k.all[c].squares / k.all[c].n);
        soma__tally_result(k.tally, c, &s->min, &s->max, s->quantiles);
    }
    free_room(&k);
    return status;
}
