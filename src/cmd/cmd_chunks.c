// SPDX-License-Identifier: Apache-2.0
// See cmd_chunks.h. The quantiles are those of numpy.quantile over every frame of the dataset, as the published goldens have them. Over
// ranks each reads its own episodes and no others; what all must agree on comes when every rank has read.
#include "cmd/cmd_chunks.h"

#include "base/file.h"
#include "data/dataset.h"
#include "data/stats.h"
#include "format/npy.h"
#include "format/safetensors.h"

#include <math.h>
#include <string.h>

enum { MAX_STEPS = 1 << 16, MAX_VALUES = INT32_MAX }; // of a chunk; of all chunks together

void soma__chunks_free(soma_chunks *c) {
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
    if (c->T < 1 || c->T > MAX_STEPS || c->A < 1 || c->n < 0 || (c->n && c->A > MAX_VALUES / c->T / c->n))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %lld chunks of %lld steps and %lld dimensions are more than fit in memory", path,
                          (long long)c->n, (long long)c->T, (long long)c->A);
    c->values = soma__alloc((size_t)(c->n * c->T * c->A + 1) * sizeof *c->values);
    return c->values ? SOMA_OK : soma__no_memory(err, "the chunks");
}

static void clip(soma_chunks *c) {
    c->clipped = true;
    for (int64_t i = 0; i < c->n * c->T * c->A; i++)
        if (c->values[i] < -1 || c->values[i] > 1) c->values[i] = c->values[i] < 0 ? -1 : 1; // NaN stays, to be refused
}

// ---- arrays

static soma_status take_array(soma_chunks *c, const char *path, soma_dtype dtype, int n_dims, const int64_t *shape, const void *data,
                              const soma_chunk_opts *o, soma_error *err) {
    if (n_dims != 3 || (dtype != SOMA_F32 && dtype != SOMA_F64))
        return soma__fail(err, SOMA_BAD_INPUT,
                          "%s: the chunks must be an F32 or F64 array [chunks, steps, dimensions]; this is %s with %d dimensions", path,
                          soma_dtype_name(dtype), n_dims);
    int64_t from, to, all = shape[0], every = o->max_chunks > 0 ? SOMA_MAX((all + o->max_chunks - 1) / o->max_chunks, 1) : 1;
    c->T = shape[1];
    c->A = shape[2];
    c->total = (all + every - 1) / every;
    c->frames = all;
    soma__ranks_part(o->ranks, c->total, &from, &to);
    c->n = to - from;
    SOMA_TRY(room(c, path, err));
    for (int64_t i = 0; i < c->n; i++)
        for (int64_t k = 0; k < c->T * c->A; k++) {
            const char *at = (const char *)data + (size_t)((from + i) * every * c->T * c->A + k) * soma_dtype_size(dtype);
            float narrow;
            if (dtype == SOMA_F64)
                memcpy(&c->values[i * c->T * c->A + k], at, sizeof(double));
            else {
                memcpy(&narrow, at, sizeof narrow);
                c->values[i * c->T * c->A + k] = (double)narrow;
            }
        }
    return SOMA_OK;
}

static soma_status read_safetensors(soma_chunks *c, const char *path, const soma_chunk_opts *o, soma_error *err) {
    soma_safetensors *st;
    SOMA_TRY(soma__safetensors_open(&st, path, err));
    const soma_safetensor *t = soma__safetensors_find(st, "chunks");
    soma_status status = t ? take_array(c, path, t->dtype, t->n_dims, t->shape, t->data, o, err)
                           : soma__fail(err, SOMA_NOT_FOUND, "%s: there is no tensor \"chunks\" [chunks, steps, dimensions]", path);
    soma__safetensors_close(st);
    return status;
}

static soma_status read_npy(soma_chunks *c, const char *path, const soma_chunk_opts *o, soma_error *err) {
    soma_file_map map;
    soma_npy a;
    SOMA_TRY(soma__file_map(&map, path, err));
    soma_status status = soma__npy_parse(&a, map.data, map.size, path, err);
    if (status == SOMA_OK) status = take_array(c, path, a.dtype, a.n_dims, a.shape, a.data, o, err);
    soma__file_unmap(&map);
    return status;
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

// The frames of this rank's episodes, one after the other.
typedef struct recording {
    float *actions;      // [n, A]
    int64_t n, from, to; // an episode is ours when its first frame is one of these, counted through all that are there
} recording;

// Once without a reader for the sizes, once with it for the values. Chunk number k begins at every stride-th frame of all episodes'
// possible starts, counted through.
static soma_status walk(soma_chunks *c, recording *r, const soma_dataset *d, int feature, int64_t stride, soma_dataset_reader *reader,
                        soma_error *err) {
    int64_t frame = 0, start = 0, size = c->T * c->A; // frame, start: those of the episodes before
    c->n = r->n = 0;
    for (int64_t i = 0; i < d->n_episodes; i++) {
        const soma_episode *e = &d->episodes[i];
        int64_t n = starts(e, c->T);
        if (e->present && frame >= r->from && frame < r->to) {
            const float *actions = reader ? r->actions + r->n * c->A : NULL;
            if (reader) SOMA_TRY(d->format->read_vectors(reader, i, feature, r->actions + r->n * c->A, err));
            for (int64_t f = (stride - start % stride) % stride; f < n; f += stride, c->n++)
                for (int64_t k = 0; reader && k < size; k++) c->values[c->n * size + k] = (double)actions[f * c->A + k];
            r->n += e->n_frames;
        }
        start += n;
        frame += e->present ? e->n_frames : 0;
    }
    return SOMA_OK;
}

static soma_status read_episodes(soma_chunks *c, recording *r, const soma_dataset *d, const soma_chunk_opts *o, soma_error *err) {
    int feature;
    int64_t possible = 0, stride = o->stride;
    soma_dataset_reader *reader;
    SOMA_TRY(find_actions(&feature, d, o->feature, err));
    c->rate = d->fps;
    c->A = d->features[feature].size;
    if (!o->horizon && !(d->fps > 0))
        return soma__fail(err, SOMA_BAD_INPUT,
                          "%s: the dataset does not tell its rate, so that one second has no length; --horizon tells the steps", d->path);
    c->T = o->horizon ? o->horizon : (int64_t)lround(d->fps);
    for (int64_t e = 0; e < d->n_episodes; e++) {
        possible += starts(&d->episodes[e], c->T);
        c->frames += d->episodes[e].present ? d->episodes[e].n_frames : 0;
    }
    if (o->max_chunks) stride = SOMA_MAX(stride, (possible + o->max_chunks - 1) / o->max_chunks);
    c->total = (possible + stride - 1) / stride;
    soma__ranks_part(o->ranks, c->frames, &r->from, &r->to);
    SOMA_TRY(walk(c, r, d, feature, stride, NULL, err));
    SOMA_TRY(room(c, d->path, err));
    r->actions = soma__alloc((size_t)(r->n * c->A + 1) * sizeof *r->actions);
    if (!r->actions) return soma__no_memory(err, "the actions of a dataset");
    SOMA_TRY(d->format->reader_open(&reader, d, err));
    soma_status status = walk(c, r, d, feature, stride, reader, err);
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
        for (int64_t i = 0; i < r->n; i++) column[i] = r->actions[i * c->A + a];
        soma__stats_quantiles(both, (double[]){0.01, 0.99}, 2, column, (size_t)r->n, ranks);
        c->q01[a] = both[0];
        c->q99[a] = both[1];
        c->still += both[0] == both[1];
    }
    soma__free(column);
    if (status != SOMA_OK) return status;
    c->norm = (soma_norm){.key = "actions", .size = (int)c->A, .q01 = c->q01, .q99 = c->q99};
    soma__norm_apply(&c->norm, SOMA_NORM_QUANTILE, c->values, c->n * c->T, (int)c->A);
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

soma_status soma__chunks_read(soma_chunks *c, const char *path, const soma_chunk_opts *o, soma_error *err) {
    *c = (soma_chunks){0};
    SOMA_CHECK(o->stride >= 1 && o->horizon >= 0, "a stride is at least 1");
    set_name(c, path);
    recording r = {0};
    soma_status status = ends(path, ".safetensors") ? read_safetensors(c, path, o, err)
                         : ends(path, ".npy")       ? read_npy(c, path, o, err)
                                                    : read_dataset(c, &r, path, o, err);
    status = settle(o->ranks, status, c, path, err);
    if (status == SOMA_OK && o->normalise && r.actions) status = normalise(c, &r, path, o->ranks, err);
    soma__free(r.actions);
    if (status == SOMA_OK && o->clip) clip(c);
    if (status != SOMA_OK) soma__chunks_free(c);
    return status;
}
