// SPDX-License-Identifier: Apache-2.0
// One pass over the episodes. What can only be judged beside all others (a jump is large for this joint of this robot) is kept per episode
// as two numbers and judged at the end, so memory does not grow with the frames.
#include "data/check.h"
#include "data/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_FOLLOWED = 2, FEW_VALUES = 8, N_STEPS = 1 << 16 };
// A step is a jump when it is this many times the 99 % quantile of all steps of its dimension, and this part of the dimension's range.
// Grippers that only open and close (FEW_VALUES) are left out. Tried on the real recordings at hand: it tells joints
// that leap by half a radian between two frames, and is quiet elsewhere.
#define JUMP_STEPS 10.0
#define JUMP_RANGE 0.25
// A picture whose brightness varies less than this (of 255) shows nothing; a camera whose pictures differ by less on average stands still.
#define BLANK 1.5
#define FROZEN 0.02
// Times may be off by this part of a frame.
#define TIME_SLACK 0.1

const char *const soma__verdict_names[SOMA_VERDICT_COUNT] = {"ok", "doubtful", "bad", "absent"};

typedef struct dimension { // of a followed feature
    double min, max;
    float few[FEW_VALUES]; // the first different values
    int n_few;             // FEW_VALUES + 1: more than fit
    float *steps;          // [N_STEPS] a sample of |x[t+1] - x[t]|
    size_t n_steps;
    double usual, limit; // of the steps; set at the end
} dimension;

typedef struct largest { // step of one dimension in one episode
    float step;
    int32_t frame;
} largest;

typedef struct followed { // the state, or the actions
    int feature;          // -1: none
    dimension *dims;      // [size]
    largest *steps;       // [n_episodes, size]
    int64_t n_seen;       // steps, for the sample
} followed;

typedef struct checking {
    soma_check *c;
    const soma_dataset *d;
    const soma_check_opts *o;
    soma_dataset_reader *reader;
    followed state, action;
    int time, frame_index;
    float *values;
    size_t values_room;
    uint8_t *rgb[2];
    size_t rgb_room[2];
    uint8_t *looks; // [n_features, n_episodes] of cameras: 0 not looked at, else SEEN or BLANK_THERE
} checking;

enum { SEEN = 1, BLANK_THERE = 2 };

// ---- findings

static soma_status find(checking *k, int64_t episode, bool error, const char *kind, const char *format, ...) SOMA_PRINTF(5, 6);

static soma_status find(checking *k, int64_t episode, bool error, const char *kind, const char *format, ...) {
    soma_check *c = k->c;
    char text[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!SOMA_PUSH_ROOM(c->findings, c->n_findings, c->room)) return SOMA_NO_MEMORY;
    const char *copy = soma__arena_strdup(&c->arena, text);
    if (!copy) return SOMA_NO_MEMORY;
    c->findings[c->n_findings++] = (soma_finding){episode, error, kind, copy, c->n_findings};
    c->n_errors += error;
    c->n_warnings += !error;
    if (episode < 0 || c->verdicts[episode] == SOMA_VERDICT_ABSENT) return SOMA_OK;
    soma_verdict verdict = error ? SOMA_VERDICT_BAD : SOMA_VERDICT_DOUBTFUL;
    c->verdicts[episode] = SOMA_MAX(c->verdicts[episode], verdict);
    return SOMA_OK;
}

static long long number(const checking *k, int64_t episode) { return (long long)k->d->episodes[episode].index; }

// ---- numbers

static bool varies(const float *x, int64_t n, int64_t size) {
    for (int64_t i = size; i < n * size; i++)
        if (x[i] != x[i % size]) return true;
    return false;
}

static void follow_value(dimension *d, float x) {
    d->min = SOMA_MIN(d->min, (double)x);
    d->max = SOMA_MAX(d->max, (double)x);
    if (d->n_few > FEW_VALUES) return;
    for (int i = 0; i < d->n_few; i++)
        if (d->few[i] == x) return;
    if (d->n_few < FEW_VALUES) d->few[d->n_few] = x;
    d->n_few++;
}

// Every step goes into the episode's largest; the sample keeps all at first, then replaces at a fixed pattern.
static void follow(followed *f, const float *x, int64_t n, int64_t size, int64_t episode) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t j = 0; j < size; j++) {
            dimension *d = &f->dims[j];
            follow_value(d, x[t * size + j]);
            if (!t) continue;
            float step = fabsf(x[t * size + j] - x[(t - 1) * size + j]);
            largest *most = &f->steps[episode * size + j];
            if (step > most->step) *most = (largest){step, (int32_t)t};
            uint64_t place = (uint64_t)(f->n_seen + t - 1);
            if (place >= N_STEPS) place = place * 0x9e3779b97f4a7c15u >> 48;
            d->steps[place] = step;
            d->n_steps = SOMA_MIN(SOMA_MAX(d->n_steps, (size_t)place + 1), N_STEPS);
        }
    f->n_seen += SOMA_MAX(n - 1, 0);
}

static soma_status check_time(checking *k, int64_t e, const float *x, int64_t n) {
    double frame = k->d->fps > 0 ? 1 / k->d->fps : 0;
    for (int64_t t = 1; t < n; t++) {
        double step = (double)x[t] - (double)x[t - 1], slack = TIME_SLACK * frame + 2 * (double)fabsf(x[t]) * 1.2e-7;
        if (step <= 0)
            return find(k, e, true, "time", "episode %lld: the time of frame %lld is %.6g s, of the one before it %.6g s", number(k, e),
                        (long long)t, (double)x[t], (double)x[t - 1]);
        if (frame > 0 && fabs(step - frame) > slack)
            return find(k, e, false, "time", "episode %lld: frame %lld comes %.6g s after the one before it; at %g frames/s that is %.6g s",
                        number(k, e), (long long)t, step, k->d->fps, frame);
    }
    return SOMA_OK;
}

static soma_status check_count(checking *k, int64_t e, const float *x, int64_t n) {
    for (int64_t t = 0; t < n; t++)
        if (x[t] != (float)t)
            return find(k, e, true, "count", "episode %lld: frame %lld is numbered %.0f", number(k, e), (long long)t, (double)x[t]);
    return SOMA_OK;
}

static soma_status check_vector(checking *k, int64_t e, int feature, bool *moves, soma_error *err) {
    const soma_feature *f = &k->d->features[feature];
    int64_t n = k->d->episodes[e].n_frames;
    soma_error fault = {0};
    if (!soma__grow((void **)&k->values, &k->values_room, (size_t)(n * f->size) + 1, sizeof *k->values))
        return soma__no_memory(err, "an episode's values");
    soma_status status = k->d->format->read_vectors(k->reader, e, feature, k->values, &fault);
    if (status == SOMA_NO_MEMORY) return soma__no_memory(err, "an episode's values");
    if (status != SOMA_OK) return find(k, e, true, "values", "%s", fault.text);
    if (feature == k->time) return check_time(k, e, k->values, n);
    if (feature == k->frame_index) return check_count(k, e, k->values, n);
    if (feature != k->state.feature && feature != k->action.feature) return SOMA_OK;
    follow(feature == k->state.feature ? &k->state : &k->action, k->values, n, f->size, e);
    if (n < 2) return SOMA_OK;
    if (varies(k->values, n, f->size)) {
        *moves = *moves || feature == k->state.feature;
        return SOMA_OK;
    }
    return find(k, e, false, "still", "episode %lld: \"%s\" never changes over %lld frames", number(k, e), f->name, (long long)n);
}

// ---- pictures

static double deviation(const uint8_t *rgb, int64_t n) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += rgb[i];
        squares += (double)rgb[i] * rgb[i];
    }
    return sqrt(SOMA_MAX(squares / (double)n - sum / (double)n * (sum / (double)n), 0.0));
}

static double difference(const uint8_t *a, const uint8_t *b, int64_t n) {
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += abs(a[i] - b[i]);
    return (double)sum / (double)n;
}

static soma_status check_camera(checking *k, int64_t e, int feature, bool moves, soma_error *err) {
    const soma_feature *f = &k->d->features[feature];
    int64_t n = k->d->episodes[e].n_frames, m = SOMA_MIN(n, k->o->pictures);
    bool blank = m > 0, frozen = m > 1 && moves;
    for (int64_t i = 0; i < m; i++) {
        int64_t frame = m > 1 ? i * (n - 1) / (m - 1) : 0;
        soma_error fault = {0};
        for (int b = 0; b < 2; b++)
            if (!soma__grow((void **)&k->rgb[b], &k->rgb_room[b], (size_t)f->size, 1)) return soma__no_memory(err, "a picture");
        uint8_t *now = k->rgb[i % 2];
        soma_status status = k->d->format->read_image(k->reader, e, frame, feature, now, &fault);
        if (status == SOMA_NO_MEMORY) return soma__no_memory(err, "a picture");
        if (status != SOMA_OK) return find(k, e, true, "pictures", "%s", fault.text);
        k->c->n_pictures++;
        blank = blank && deviation(now, f->size) < BLANK;
        frozen = frozen && (!i || difference(now, k->rgb[1 - i % 2], f->size) < FROZEN);
    }
    if (m) k->looks[feature * k->d->n_episodes + e] = blank ? BLANK_THERE : SEEN;
    if (blank) return SOMA_OK; // judge_blank tells it
    if (frozen)
        return find(k, e, false, "frozen", "episode %lld: \"%s\" shows the same in %lld pictures while the robot moves", number(k, e),
                    f->name, (long long)m);
    return SOMA_OK;
}

// ---- episodes

static soma_status check_episode(checking *k, int64_t e, soma_error *err) {
    const soma_dataset *d = k->d;
    bool moves = false;
    if (!d->episodes[e].present) {
        k->c->verdicts[e] = SOMA_VERDICT_ABSENT;
        return SOMA_OK;
    }
    if (!d->episodes[e].n_frames) return find(k, e, true, "count", "episode %lld has no frames", number(k, e));
    for (int f = 0; f < d->n_features; f++)
        if (d->features[f].kind == SOMA_FEATURE_VECTOR) SOMA_TRY(check_vector(k, e, f, &moves, err));
    for (int f = 0; f < d->n_features && k->o->pictures; f++)
        if (d->features[f].kind == SOMA_FEATURE_IMAGE && d->format->present(d, e, f)) SOMA_TRY(check_camera(k, e, f, moves, err));
    return SOMA_OK;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

// Above which step each dimension jumps. Sorts the samples of steps.
static void set_limits(followed *f, int64_t size) {
    for (int64_t j = 0; j < size; j++) {
        dimension *d = &f->dims[j];
        d->limit = INFINITY;
        if (!d->n_steps || d->n_few <= FEW_VALUES) continue;
        qsort(d->steps, d->n_steps, sizeof *d->steps, ascending);
        d->usual = (double)d->steps[(d->n_steps - 1) * 99 / 100];
        d->limit = SOMA_MAX(JUMP_STEPS * d->usual, JUMP_RANGE * (d->max - d->min));
    }
}

// Of an episode's dimensions that jump, the one that jumps furthest beyond its limit is told.
static soma_status judge_jumps(checking *k, followed *f) {
    if (f->feature < 0) return SOMA_OK;
    const soma_feature *feature = &k->d->features[f->feature];
    set_limits(f, feature->size);
    for (int64_t e = 0; e < k->d->n_episodes; e++) {
        double worst = 1;
        int64_t at = -1;
        for (int64_t j = 0; j < feature->size; j++) {
            double times = (double)f->steps[e * feature->size + j].step / f->dims[j].limit;
            if (times <= worst) continue;
            worst = times;
            at = j;
        }
        if (at < 0) continue;
        const largest *l = &f->steps[e * feature->size + at];
        const char *name = feature->names && feature->n_dims == 1 ? feature->names[at] : "";
        SOMA_TRY(find(k, e, false, "jump",
                      "episode %lld: \"%s\" dimension %lld%s%s%s jumps by %.4g at frame %d; 99 %% of its steps are below %.4g",
                      number(k, e), feature->name, (long long)at, *name ? " (" : "", name, *name ? ")" : "", (double)l->step, l->frame,
                      f->dims[at].usual));
    }
    return SOMA_OK;
}

// A camera that never shows anything was declared and not used: that says nothing about an episode.
static soma_status judge_blank(checking *k) {
    int64_t n_episodes = k->d->n_episodes;
    for (int f = 0; f < k->d->n_features; f++) {
        int64_t seen = 0, blank = 0;
        for (int64_t e = 0; e < n_episodes; e++) {
            seen += k->looks[f * n_episodes + e] == SEEN;
            blank += k->looks[f * n_episodes + e] == BLANK_THERE;
        }
        if (blank > 1 && !seen)
            SOMA_TRY(find(k, -1, false, "blank", "\"%s\" shows one colour only, in all episodes", k->d->features[f].name));
        for (int64_t e = 0; e < n_episodes && (seen || blank == 1); e++)
            if (k->looks[f * n_episodes + e] == BLANK_THERE)
                SOMA_TRY(find(k, e, false, "blank", "episode %lld: \"%s\" shows one colour only", number(k, e), k->d->features[f].name));
    }
    return SOMA_OK;
}

// ---- statistics

// What the data say against declared statistics of a feature; the first dimension that differs is told. Where episodes are left out, only
// that values lie beyond the declared limits can be told.
static soma_status compare(checking *k, const soma_feature *f, const soma_feature_stats *declared, const soma_feature_stats *is,
                           bool whole) {
    for (int64_t j = 0; j < f->size; j++) {
        double range = is->max[j] - is->min[j], slack = 1e-4 * range + 1e-6 * SOMA_MAX(fabs(is->min[j]), fabs(is->max[j])) + 1e-9;
        if (declared->min && declared->max && (is->min[j] < declared->min[j] - slack || is->max[j] > declared->max[j] + slack))
            return find(k, -1, false, "statistics", "\"%s\" dimension %lld is %.6g to %.6g, its declared statistics say %.6g to %.6g",
                        f->name, (long long)j, is->min[j], is->max[j], declared->min[j], declared->max[j]);
        if (!whole || !declared->mean || !declared->std) continue;
        if (fabs(is->mean[j] - declared->mean[j]) > 0.01 * is->std[j] + slack ||
            fabs(is->std[j] - declared->std[j]) > 0.02 * is->std[j] + slack)
            return find(k, -1, false, "statistics",
                        "\"%s\" dimension %lld has mean %.6g and deviation %.6g, its declared statistics say %.6g and %.6g", f->name,
                        (long long)j, is->mean[j], is->std[j], declared->mean[j], declared->std[j]);
    }
    return SOMA_OK;
}

static soma_status check_feature_stats(checking *k, int feature, const int64_t *sound, int64_t n, soma_error *err) {
    const soma_dataset *d = k->d;
    soma_feature_stats declared = {0}, is = {0};
    soma_error fault = {0};
    if (feature < 0) return SOMA_OK;
    soma_status status = d->format->declared_stats(&declared, d, feature, &fault);
    if (status == SOMA_NOT_FOUND) return SOMA_OK;
    if (status == SOMA_OK) status = soma__dataset_stats(&is, d, feature, sound, n, &fault);
    if (status == SOMA_OK) status = compare(k, &d->features[feature], &declared, &is, n == d->n_episodes);
    soma__feature_stats_free(&declared);
    soma__feature_stats_free(&is);
    if (status == SOMA_OK) return SOMA_OK;
    return status == SOMA_NO_MEMORY ? soma__no_memory(err, "statistics") : find(k, -1, true, "statistics", "%s", fault.text);
}

// Of the state and the actions: the rest are counters and times.
static soma_status check_statistics(checking *k, soma_error *err) {
    const soma_dataset *d = k->d;
    int64_t n = 0, *sound = soma__alloc((size_t)(d->n_episodes + 1) * sizeof *sound);
    if (!sound) return soma__no_memory(err, "statistics");
    for (int64_t e = 0; e < d->n_episodes; e++)
        if (k->c->verdicts[e] < SOMA_VERDICT_BAD) sound[n++] = e;
    soma_status status = SOMA_OK;
    if (n && d->format->declared_stats) {
        status = check_feature_stats(k, k->state.feature, sound, n, err);
        if (status == SOMA_OK) status = check_feature_stats(k, k->action.feature, sound, n, err);
    }
    soma__free(sound);
    return status;
}

// ---- the whole

static int first_of(const soma_dataset *d, const char *const *names) {
    for (; *names; names++) {
        int f = soma__dataset_feature(d, *names);
        if (f >= 0 && d->features[f].kind == SOMA_FEATURE_VECTOR) return f;
    }
    return -1;
}

static bool start_following(followed *f, const soma_dataset *d) {
    if (f->feature < 0) return true;
    size_t size = (size_t)d->features[f->feature].size;
    f->dims = soma__calloc(size, sizeof *f->dims);
    f->steps = soma__calloc((size_t)d->n_episodes * size + 1, sizeof *f->steps);
    for (size_t j = 0; f->dims && f->steps && j < size; j++) {
        f->dims[j].min = INFINITY;
        f->dims[j].max = -INFINITY;
        if (!(f->dims[j].steps = soma__alloc(N_STEPS * sizeof(float)))) return false;
    }
    return f->dims && f->steps;
}

static void stop_following(followed *f, const soma_dataset *d) {
    for (int64_t j = 0; f->dims && j < d->features[f->feature].size; j++) soma__free(f->dims[j].steps);
    soma__free(f->dims);
    soma__free(f->steps);
}

static soma_status check_all(checking *k, soma_error *err) {
    const soma_dataset *d = k->d;
    for (int i = 0; i < d->n_absent; i++) SOMA_TRY(find(k, -1, true, "absent", "%s is absent", d->absent[i]));
    for (int i = 0; i < d->n_faults; i++) SOMA_TRY(find(k, -1, true, "damaged", "%s", d->faults[i]));
    SOMA_TRY(d->format->reader_open(&k->reader, d, err));
    for (int64_t e = 0; e < d->n_episodes; e++) {
        SOMA_TRY(check_episode(k, e, err));
        if (k->o->progress) k->o->progress(k->o->user, e + 1, d->n_episodes);
    }
    SOMA_TRY(judge_jumps(k, &k->state));
    SOMA_TRY(judge_jumps(k, &k->action));
    SOMA_TRY(judge_blank(k));
    return check_statistics(k, err);
}

static int by_episode(const void *a, const void *b) {
    const soma_finding *x = a, *y = b;
    if (x->episode != y->episode) return x->episode < y->episode ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

soma_status soma__dataset_check(soma_check *c, const soma_dataset *d, const soma_check_opts *o, soma_error *err) {
    static const char *const states[] = {"observation.state", "state", NULL}, *const actions[] = {"action", "actions", NULL};
    static const char *const times[] = {"timestamp", NULL}, *const counts[] = {"frame_index", NULL};
    *c = (soma_check){0};
    checking k = {.c = c, .d = d, .o = o, .state.feature = first_of(d, states), .action.feature = first_of(d, actions)};
    k.time = first_of(d, times);
    k.frame_index = first_of(d, counts);
    c->verdicts = soma__calloc((size_t)d->n_episodes + 1, sizeof *c->verdicts);
    k.looks = soma__calloc((size_t)d->n_episodes * (size_t)d->n_features + 1, 1);
    bool ok = c->verdicts && k.looks && start_following(&k.state, d) && start_following(&k.action, d);
    soma_status status = ok ? check_all(&k, err) : SOMA_NO_MEMORY;
    if (status == SOMA_NO_MEMORY) soma__no_memory(err, "what is found in a dataset");
    d->format->reader_close(k.reader);
    stop_following(&k.state, d);
    stop_following(&k.action, d);
    soma__free(k.values);
    soma__free(k.looks);
    for (int b = 0; b < 2; b++) soma__free(k.rgb[b]);
    if (c->n_findings) qsort(c->findings, c->n_findings, sizeof *c->findings, by_episode);
    if (status != SOMA_OK) soma__check_free(c);
    return status;
}

void soma__check_free(soma_check *c) {
    soma__free(c->findings);
    soma__free(c->verdicts);
    soma__arena_free(&c->arena);
    *c = (soma_check){0};
}

json_t *soma__check_json(const soma_check *c, const soma_dataset *d) {
    json_t *findings = json_array(), *episodes = json_array(), *verdicts = json_object();
    int64_t n[SOMA_VERDICT_COUNT] = {0};
    for (size_t i = 0; i < c->n_findings; i++) {
        const soma_finding *f = &c->findings[i];
        json_t *episode = f->episode < 0 ? json_null() : json_integer((json_int_t)d->episodes[f->episode].index);
        json_array_append_new(findings,
                              json_pack("{s:o, s:b, s:s, s:s}", "episode", episode, "error", f->error, "kind", f->kind, "text", f->text));
    }
    for (int64_t e = 0; e < d->n_episodes; e++) {
        n[c->verdicts[e]]++;
        json_array_append_new(
            episodes, json_pack("{s:I, s:s}", "episode", (json_int_t)d->episodes[e].index, "verdict", soma__verdict_names[c->verdicts[e]]));
    }
    for (int v = 0; v < SOMA_VERDICT_COUNT; v++) json_object_set_new(verdicts, soma__verdict_names[v], json_integer((json_int_t)n[v]));
    return json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:o}", "path", d->path, "errors", (json_int_t)c->n_errors, "warnings",
                     (json_int_t)c->n_warnings, "pictures", (json_int_t)c->n_pictures, "verdicts", verdicts, "findings", findings,
                     "episodes", episodes);
}
