// SPDX-License-Identifier: Apache-2.0
// See cmd_chunks.h. The quantiles are those of numpy.quantile over every frame of the dataset, as the published goldens have them. Over
// ranks each reads its own episodes and no others; what all must agree on comes when every rank has read.
#include "cmd/cmd_chunks.h"

#include "base/file.h"
#include "data/screen.h"
#include "data/stats.h"
#include "format/npy.h"
#include "format/safetensors.h"

#include <math.h>
#include <string.h>

enum { MAX_STEPS = 1 << 16, MAX_VALUES = INT32_MAX }; // of a chunk; of all chunks that are held as floats

static void close_source(soma_chunks *c) {
    soma__free(c->starts);
    soma__free(c->actions);
    soma__file_unmap(&c->map);
    soma__safetensors_close(c->st);
    c->rows = NULL;
    c->starts = NULL;
    c->actions = NULL;
    c->st = NULL;
}

void soma__chunks_free(soma_chunks *c) {
    close_source(c);
    soma__free(c->values);
    soma__free(c->q01);
    soma__free(c->q99);
    *c = (soma_chunks){0};
}

void soma__chunks_undo(const soma_chunks *c, double *values, int64_t n_rows) {
    if (c->norm.key) soma__norm_undo(&c->norm, SOMA_NORM_QUANTILE, values, n_rows, (int)c->A);
}

static void set_name(soma_chunks *c, const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t from = end;
    while (from > 0 && path[from - 1] != '/') from--;
    size_t len = SOMA_MIN(end - from, sizeof c->name - 1);
    memcpy(c->name, path + from, len);
    c->name[len] = 0;
}

static soma_status room(soma_chunks *c, const char *path, soma_error *err) {
    if (c->T < 1 || c->T > MAX_STEPS || c->A < 1 || c->A > MAX_VALUES / c->T || c->n < 0)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: there are no chunks of %lld steps and %lld dimensions", path, (long long)c->T,
                          (long long)c->A);
    c->starts = soma__alloc((size_t)(c->n + 1) * sizeof *c->starts);
    return c->starts ? SOMA_OK : soma__no_memory(err, "the chunks");
}

void soma__chunks_cut(const soma_chunks *c, int64_t from, int64_t n, double *out) {
    int64_t size = c->T * c->A;
    for (int64_t i = 0; i < n; i++) {
        const char *at = (const char *)c->rows + (size_t)(c->starts[from + i] * c->A) * soma_dtype_size(c->dtype);
        if (c->dtype == SOMA_F64) {
            memcpy(out + i * size, at, (size_t)size * sizeof *out);
            continue;
        }
        for (int64_t k = 0; k < size; k++) {
            float narrow;
            memcpy(&narrow, at + (size_t)k * sizeof narrow, sizeof narrow);
            out[i * size + k] = (double)narrow;
        }
    }
    if (c->norm.key) soma__norm_apply(&c->norm, SOMA_NORM_QUANTILE, out, n * c->T, (int)c->A);
    for (int64_t i = 0; c->clipped && i < n * size; i++)
        if (out[i] < -1 || out[i] > 1) out[i] = out[i] < 0 ? -1 : 1; // NaN stays, to be refused
}

// ---- arrays

static soma_status take_array(soma_chunks *c, const char *path, soma_dtype dtype, int n_dims, const int64_t *shape, const void *data,
                              const soma_chunk_opts *o, soma_error *err) {
    if (n_dims != 3 || (dtype != SOMA_F32 && dtype != SOMA_F64))
        return soma__fail(err, SOMA_BAD_INPUT,
                          "%s: the chunks must be an F32 or F64 array [chunks, steps, dimensions]; this is %s with %d dimensions", path,
                          soma_dtype_name(dtype), n_dims);
    int64_t to, all = shape[0], every = o->max_chunks > 0 ? SOMA_MAX((all + o->max_chunks - 1) / o->max_chunks, 1) : 1;
    c->T = shape[1];
    c->A = shape[2];
    c->total = (all + every - 1) / every;
    c->frames = all;
    soma__ranks_part(o->ranks, c->total, &c->before, &to);
    c->n = to - c->before;
    SOMA_TRY(room(c, path, err));
    c->rows = data;
    c->dtype = dtype;
    for (int64_t i = 0; i < c->n; i++) c->starts[i] = (c->before + i) * every * c->T;
    return SOMA_OK;
}

static soma_status read_safetensors(soma_chunks *c, const char *path, const soma_chunk_opts *o, soma_error *err) {
    SOMA_TRY(soma__safetensors_open(&c->st, path, err));
    const soma_safetensor *t = soma__safetensors_find(c->st, "chunks");
    if (!t) return soma__fail(err, SOMA_NOT_FOUND, "%s: there is no tensor \"chunks\" [chunks, steps, dimensions]", path);
    return take_array(c, path, t->dtype, t->n_dims, t->shape, t->data, o, err);
}

static soma_status read_npy(soma_chunks *c, const char *path, const soma_chunk_opts *o, soma_error *err) {
    soma_npy a;
    SOMA_TRY(soma__file_map(&c->map, path, err));
    SOMA_TRY(soma__npy_parse(&a, c->map.data, c->map.size, path, err));
    return take_array(c, path, a.dtype, a.n_dims, a.shape, a.data, o, err);
}

// ---- a dataset

static soma_status find_actions(int *feature, const soma_dataset *d, const char *name, soma_error *err) {
    *feature = soma__dataset_feature(d, *name ? name : "action");
    if (*feature < 0 && !*name) *feature = soma__dataset_feature(d, "actions");
    if (*feature >= 0 && d->features[*feature].kind == SOMA_FEATURE_VECTOR && d->features[*feature].size > 0) return SOMA_OK;
    return soma__fail(err, SOMA_NOT_FOUND, "%s: there is no vector feature \"%s\"; --action-key names another", d->path,
                      *name ? name : "action");
}

static int64_t starts(const soma_episode *e, int64_t T) { return e->present && e->n_frames >= T ? e->n_frames - T + 1 : 0; }

// The actions of this rank's episodes, one after the other: those whose first frame is one of `from` .. `to` - 1, counted through all
// frames that are there.
typedef struct recording {
    int64_t n, from, to; // frames
    int feature;
    int64_t stride;
} recording;

// Once without a reader for the sizes, once with it for the actions. Chunk number k begins at every stride-th frame of all episodes'
// possible starts, counted through.
static soma_status walk(soma_chunks *c, recording *r, const soma_dataset *d, soma_dataset_reader *reader, soma_error *err) {
    int64_t frame = 0, start = 0; // those of the episodes before
    c->n = r->n = c->before = 0;
    for (int64_t i = 0; i < d->n_episodes; i++) {
        const soma_episode *e = &d->episodes[i];
        int64_t n = starts(e, c->T), first = (r->stride - start % r->stride) % r->stride;
        if (!e->present) continue;
        if (frame >= r->from && frame < r->to) {
            if (!r->n) c->before = (start + r->stride - 1) / r->stride;
            if (reader) SOMA_TRY(d->format->read_vectors(reader, i, r->feature, c->actions + r->n * c->A, err));
            for (int64_t f = first; f < n; f += r->stride, c->n++)
                if (reader) c->starts[c->n] = r->n + f;
            r->n += e->n_frames;
        }
        start += n;
        frame += e->n_frames;
    }
    return SOMA_OK;
}

static soma_status read_episodes(soma_chunks *c, recording *r, soma_dataset *d, const soma_chunk_opts *o, soma_error *err) {
    int64_t possible = 0;
    soma_dataset_reader *reader;
    SOMA_TRY(find_actions(&r->feature, d, o->feature, err));
    const soma_screen screen = {.skip_bad = o->skip_bad, .features = &r->feature, .n_features = 1, .threads = 1};
    SOMA_TRY(soma__dataset_screen(&c->skipped, d, &screen, err));
    c->rate = d->fps;
    c->A = d->features[r->feature].size;
    if (!o->horizon && !(d->fps > 0))
        return soma__fail(err, SOMA_BAD_INPUT,
                          "%s: the dataset does not tell its rate, so that one second has no length; --horizon tells the steps", d->path);
    c->T = o->horizon ? o->horizon : (int64_t)lround(d->fps);
    for (int64_t e = 0; e < d->n_episodes; e++) {
        possible += starts(&d->episodes[e], c->T);
        c->frames += d->episodes[e].present ? d->episodes[e].n_frames : 0;
    }
    r->stride = o->max_chunks ? SOMA_MAX(o->stride, (possible + o->max_chunks - 1) / o->max_chunks) : o->stride;
    c->total = (possible + r->stride - 1) / r->stride;
    soma__ranks_part(o->ranks, c->frames, &r->from, &r->to);
    SOMA_TRY(walk(c, r, d, NULL, err));
    SOMA_TRY(room(c, d->path, err));
    c->rows = c->actions = soma__alloc((size_t)(r->n * c->A + 1) * sizeof *c->actions);
    c->dtype = SOMA_F32;
    if (!c->actions) return soma__no_memory(err, "the actions of a dataset");
    SOMA_TRY(d->format->reader_open(&reader, d, err));
    soma_status status = walk(c, r, d, reader, err);
    d->format->reader_close(reader);
    return status;
}

static soma_status read_dataset(soma_chunks *c, recording *r, const char *path, const soma_chunk_opts *o, soma_error *err) {
    soma_dataset *d;
    SOMA_TRY(soma__dataset_open(&d, path, err));
    soma_status status = read_episodes(c, r, d, o, err);
    soma__dataset_close(d);
    return status;
}

// By the quantiles over all frames of all ranks.
static soma_status normalise(soma_chunks *c, const recording *r, const char *path, soma_ranks *ranks, soma_error *err) {
    if (!c->frames) return soma__fail(err, SOMA_NOT_FOUND, "%s: no frames to take statistics of the actions from", path);
    c->q01 = soma__calloc((size_t)c->A, sizeof *c->q01);
    c->q99 = soma__calloc((size_t)c->A, sizeof *c->q99);
    float *column = soma__alloc((size_t)(r->n + 1) * sizeof *column);
    bool ok = c->q01 && c->q99 && column;
    soma_status status = soma__ranks_agree(ranks, ok ? SOMA_OK : soma__no_memory(err, "the statistics"), err);
    for (int64_t a = 0; status == SOMA_OK && a < c->A; a++) {
        double both[2];
        for (int64_t i = 0; i < r->n; i++) column[i] = c->actions[i * c->A + a];
        soma__stats_quantiles(both, (double[]){0.01, 0.99}, 2, column, (size_t)r->n, ranks);
        c->q01[a] = both[0];
        c->q99[a] = both[1];
        c->still += both[0] == both[1];
    }
    soma__free(column);
    if (status != SOMA_OK) return status;
    c->norm = (soma_norm){.key = "actions", .size = (int)c->A, .q01 = c->q01, .q99 = c->q99};
    return SOMA_OK;
}

// Every rank has read its share or none has, and of the same thing.
static soma_status settle(soma_ranks *ranks, soma_status status, const soma_chunks *c, const char *path, soma_error *err) {
    int64_t seen[] = {c->T, c->A, c->total, c->frames};
    SOMA_TRY(soma__ranks_agree(ranks, status, err));
    for (size_t i = 0; i < SOMA_COUNT(seen); i++) SOMA_TRY(soma__ranks_same(ranks, seen[i], path, err));
    return SOMA_OK;
}

static bool ends(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && !strcmp(path + n - m, end);
}

soma_status soma__chunks_open(soma_chunks *c, const char *path, const soma_chunk_opts *o, soma_error *err) {
    recording r = {0};
    *c = (soma_chunks){0};
    SOMA_CHECK(o->stride >= 1 && o->horizon >= 0, "a stride is at least 1");
    set_name(c, path);
    c->clipped = o->clip;
    soma_status status = ends(path, ".safetensors") ? read_safetensors(c, path, o, err)
                         : ends(path, ".npy")       ? read_npy(c, path, o, err)
                                                    : read_dataset(c, &r, path, o, err);
    status = settle(o->ranks, status, c, path, err);
    if (status == SOMA_OK && o->normalise && c->actions) status = normalise(c, &r, path, o->ranks, err);
    if (status != SOMA_OK) soma__chunks_free(c);
    return status;
}

soma_status soma__chunks_read(soma_chunks *c, const char *path, const soma_chunk_opts *o, soma_error *err) {
    SOMA_TRY(soma__chunks_open(c, path, o, err));
    soma_status status = SOMA_OK;
    if (c->n && c->T * c->A > MAX_VALUES / c->n)
        status = soma__fail(err, SOMA_BAD_INPUT,
                            "%s: %lld chunks of %lld steps and %lld dimensions are too many at once; --max-chunks takes fewer", path,
                            (long long)c->n, (long long)c->T, (long long)c->A);
    else if (!(c->values = soma__alloc((size_t)(c->n * c->T * c->A + 1) * sizeof *c->values)))
        status = soma__no_memory(err, "the chunks");
    else
        soma__chunks_cut(c, 0, c->n, c->values);
    close_source(c);
    if (status != SOMA_OK) soma__chunks_free(c);
    return status;
}
