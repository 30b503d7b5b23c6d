// SPDX-License-Identifier: Apache-2.0
// The chunks of one timeline, newest first in a ring. A chunk has an origin, the moment of its row 0: of the observation it was made from,
// or in `open`, where the robot stands still meanwhile, of its arrival.
//
// A seam is where a newly arrived chunk changes what would have been sent at that moment: the largest difference of any dimension. Measured
// this way the robot's own motion is no part of it, and a chunk that continues the one before exactly has none.
#include "policy/timeline.h"

#include "base/str.h"

#include <math.h>
#include <string.h>

#define OPTS_TYPE soma_chunk_opts
SOMA_OPTS_DEFINE(soma_chunk_opts, SOMA_CHUNK_OPTS, soma_chunk_defaults)
#undef OPTS_TYPE

enum { MAX_DEPTH = 64, DELAYS = 10 }; // the delay to expect is the longest of so many (Black et al. 2025)

typedef enum { OPEN, ASYNC, ENSEMBLE } mode;

typedef struct {
    double origin;
    int n; // rows
    float *values;
} chunk;

struct soma_timeline {
    soma_chunk_opts opts;
    mode mode;
    int horizon, n_actions, depth; // depth: chunks that are kept
    int n_chunks, newest;
    chunk ring[MAX_DEPTH];
    float *values;    // [depth, horizon, n_actions]
    float *last;      // [n_actions] as sent
    float *was, *mix; // [n_actions] work
    bool under_way, asked_before;
    double asked, asked_last; // when the chunk under way was asked for, and the one before it
    double delays[DELAYS], expected;
    int n_delays;
    soma_chunk_report report;
    double delay_sum, seam_sum;
};

static soma_status check(soma_timeline *c, int horizon, soma_error *err) {
    static const char *const modes[] = {"open", "async", "ensemble"};
    const soma_chunk_opts *o = &c->opts;
    SOMA_OPTS_CHECK(o);
    int found;
    SOMA_TRY(soma__name_parse(&found, modes, SOMA_COUNT(modes), o->chunks, "way of executing chunks", err));
    c->mode = (mode)found;
    if (o->execute < 0) return soma__fail(err, SOMA_BAD_INPUT, "execute is %lld; at least one action per chunk", (long long)o->execute);
    if (o->ensemble_depth < 1 || o->ensemble_depth > MAX_DEPTH)
        return soma__fail(err, SOMA_BAD_INPUT, "ensemble-depth is %lld; 1 to %d", (long long)o->ensemble_depth, MAX_DEPTH);
    if (!isfinite(o->ensemble_weight)) return soma__fail(err, SOMA_BAD_INPUT, "ensemble-weight is not a finite number");
    if (!o->execute || o->execute > horizon) c->opts.execute = horizon;
    c->depth = c->mode == ENSEMBLE ? (int)o->ensemble_depth : 1;
    return SOMA_OK;
}

soma_status soma__timeline_new(soma_timeline **out, const soma_chunk_opts *opts, int horizon, int n_actions, double delay,
                               soma_error *err) {
    *out = NULL;
    SOMA_CHECK(horizon > 0 && n_actions > 0, "a chunk has actions");
    soma_timeline *c = soma__calloc(1, sizeof *c);
    if (!c) return soma__no_memory(err, "chunks");
    c->opts = opts ? *opts : soma_chunk_defaults();
    c->horizon = horizon;
    c->n_actions = n_actions;
    c->expected = delay;
    soma_status status = check(c, horizon, err);
    const size_t A = (size_t)n_actions, size = (size_t)c->depth * (size_t)horizon * A;
    if (status == SOMA_OK && !(c->values = soma__calloc(size + 3 * A, sizeof *c->values))) status = soma__no_memory(err, "chunks");
    if (status != SOMA_OK) {
        soma__timeline_free(c);
        return status;
    }
    c->last = c->values + size;
    c->was = c->last + A;
    c->mix = c->was + A;
    for (int i = 0; i < c->depth; i++) c->ring[i].values = c->values + (size_t)i * (size_t)horizon * A;
    *out = c;
    return SOMA_OK;
}

void soma__timeline_free(soma_timeline *c) {
    if (!c) return;
    soma__free(c->values);
    soma__free(c);
}

void soma__timeline_reset(soma_timeline *c) {
    c->n_chunks = 0;
    c->under_way = c->asked_before = false;
    memset(c->last, 0, sizeof *c->last * (size_t)c->n_actions);
}

// ---- asking

bool soma__timeline_wants(const soma_timeline *c, double now) {
    if (c->under_way) return false;
    if (!c->n_chunks) return true;
    const chunk *newest = &c->ring[c->newest];
    const double since = c->mode == OPEN ? newest->origin : c->asked;
    return now - since >= (double)SOMA_MIN(c->opts.execute, newest->n) - 1e-9;
}

void soma__timeline_expect(soma_timeline *c, double delay) {
    if (!c->n_delays) c->expected = delay;
}

void soma__timeline_ask(soma_timeline *c, double now, int *executed, int *delay) {
    *executed = c->asked_before ? (int)lround(now - c->asked) : 0;
    *delay = (int)ceil(c->expected - 1e-9);
    c->asked_last = c->asked;
    c->asked = now;
    c->under_way = c->asked_before = true;
    if (c->mode == OPEN) *executed = *delay = 0; // it stands still, and then follows the chunk from its first row
}

void soma__timeline_lost(soma_timeline *c) {
    c->under_way = false;
    c->asked = c->asked_last;
    c->asked_before = c->n_chunks > 0;
}

// ---- what is sent

// Row `row` of the timeline by all chunks that have it: of one, its action; of several, their mean with the i-th oldest weighing
// exp(-weight i). False: none has it.
static bool mean_at(const soma_timeline *c, double step, float *out) {
    double sum = 0;
    int i = 0;
    memset(out, 0, sizeof *out * (size_t)c->n_actions);
    for (int age = c->n_chunks - 1; age >= 0; age--) { // the oldest first
        const chunk *k = &c->ring[(c->newest - age + c->depth) % c->depth];
        const long row = lround(step - k->origin);
        if (row < 0 || row >= k->n) continue;
        const double weight = exp(-c->opts.ensemble_weight * i++);
        sum += weight;
        for (int d = 0; d < c->n_actions; d++) out[d] += (float)(weight / sum) * (k->values[row * c->n_actions + d] - out[d]);
    }
    return sum > 0;
}

// Rows lie at the newest chunk's origin and whole steps from there.
static bool sample(const soma_timeline *c, double now, float *out) {
    if (!c->n_chunks) return false;
    const double origin = c->ring[c->newest].origin, before = origin + floor(now - origin + 1e-9), share = now - before;
    if (!mean_at(c, before, out)) return false;
    if (share < 1e-6 || !mean_at(c, before + 1, c->mix)) return true; // behind the last row it stands
    for (int d = 0; d < c->n_actions; d++) out[d] += (float)share * (c->mix[d] - out[d]);
    return true;
}

bool soma__timeline_action(soma_timeline *c, double now, float *action) {
    const bool there = sample(c, now, action) && !(c->mode == OPEN && c->under_way);
    if (there)
        memcpy(c->last, action, sizeof *action * (size_t)c->n_actions);
    else
        memcpy(action, c->last, sizeof *action * (size_t)c->n_actions);
    c->report.held += !there;
    c->report.steps++;
    return there;
}

static void note_delay(soma_timeline *c, double delay) {
    soma_chunk_report *r = &c->report;
    c->delays[c->n_delays++ % DELAYS] = delay;
    c->expected = 0;
    for (int i = 0; i < SOMA_MIN(c->n_delays, DELAYS); i++) c->expected = fmax(c->expected, c->delays[i]);
    r->delay = delay;
    r->delay_max = fmax(r->delay_max, delay);
    c->delay_sum += delay;
    r->delay_mean = c->delay_sum / (double)++r->delays;
}

static void note_seam(soma_timeline *c, const float *is) {
    soma_chunk_report *r = &c->report;
    r->seam = 0;
    for (int d = 0; d < c->n_actions; d++) r->seam = fmax(r->seam, fabs((double)is[d] - (double)c->was[d]));
    r->seam_max = fmax(r->seam_max, r->seam);
    c->seam_sum += r->seam;
    r->seam_mean = c->seam_sum / (double)++r->seams;
}

void soma__timeline_arrive(soma_timeline *c, double now, const float *values, int n) {
    SOMA_CHECK(c->under_way && n > 0 && n <= c->horizon, "a chunk that was asked for, of at most the horizon");
    c->report.chunks++;
    const bool compared = sample(c, c->mode == OPEN ? c->asked : now, c->was);
    chunk *k = &c->ring[c->newest = (c->newest + 1) % c->depth];
    c->n_chunks = SOMA_MIN(c->n_chunks + 1, c->depth);
    c->under_way = false;
    k->origin = c->mode == OPEN ? now : c->asked;
    k->n = n;
    memcpy(k->values, values, sizeof *values * (size_t)n * (size_t)c->n_actions);
    if (compared || now > c->asked) note_delay(c, now - c->asked); // a first chunk that nobody waited for tells nothing
    float is[c->n_actions];
    if (compared && sample(c, now, is)) note_seam(c, is);
}

soma_chunk_report soma__timeline_read(const soma_timeline *c) { return c->report; }

static double mean_of(double a, int64_t n_a, double b, int64_t n_b) {
    return n_a + n_b ? (a * (double)n_a + b * (double)n_b) / (double)(n_a + n_b) : 0;
}

void soma__chunk_report_add(soma_chunk_report *sum, soma_chunk_report more) {
    sum->delay_mean = mean_of(sum->delay_mean, sum->delays, more.delay_mean, more.delays);
    sum->seam_mean = mean_of(sum->seam_mean, sum->seams, more.seam_mean, more.seams);
    sum->delay_max = fmax(sum->delay_max, more.delay_max);
    sum->seam_max = fmax(sum->seam_max, more.seam_max);
    sum->delay = more.delay;
    sum->seam = more.seam;
    sum->steps += more.steps;
    sum->held += more.held;
    sum->chunks += more.chunks;
    sum->delays += more.delays;
    sum->seams += more.seams;
}
