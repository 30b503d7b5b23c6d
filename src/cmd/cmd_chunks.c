// SPDX-License-Identifier: Apache-2.0
// See cmd_chunks.h. The quantiles are those of numpy.quantile over every frame of the dataset, as the published goldens have them.
#include "cmd/cmd_chunks.h"

#include "base/file.h"
#include "data/dataset.h"
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
    int64_t all = shape[0], every = o->max_chunks > 0 ? SOMA_MAX((all + o->max_chunks - 1) / o->max_chunks, 1) : 1;
    c->T = shape[1];
    c->A = shape[2];
    c->n = (all + every - 1) / every;
    c->frames = all;
    SOMA_TRY(room(c, path, err));
    for (int64_t i = 0; i < c->n; i++)
        for (int64_t k = 0; k < c->T * c->A; k++) {
            const char *at = (const char *)data + (size_t)(i * every * c->T * c->A + k) * soma_dtype_size(dtype);
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

static soma_status statistics(soma_chunks *c, const soma_dataset *d, int feature, soma_error *err) {
    soma_feature_stats s;
    size_t size = (size_t)c->A * sizeof(double);
    SOMA_TRY(soma__dataset_stats(&s, d, feature, NULL, 0, err));
    c->q01 = soma__alloc(size);
    c->q99 = soma__alloc(size);
    if (c->q01 && c->q99) {
        memcpy(c->q01, s.q01, size);
        memcpy(c->q99, s.q99, size);
        for (int64_t a = 0; a < c->A; a++) c->still += c->q01[a] == c->q99[a];
        c->norm = (soma_norm){.key = "actions", .size = (int)c->A, .q01 = c->q01, .q99 = c->q99};
    }
    soma__feature_stats_free(&s);
    return c->norm.key ? SOMA_OK : soma__no_memory(err, "the statistics");
}

static int64_t starts(const soma_episode *e, int64_t T) { return e->present && e->n_frames >= T ? e->n_frames - T + 1 : 0; }

// Chunk number k begins at every stride-th frame of all episodes' possible starts, counted through.
static soma_status cut(soma_chunks *c, const soma_dataset *d, int feature, int64_t stride, soma_error *err) {
    soma_dataset_reader *reader;
    int64_t longest = 0, base = 0, taken = 0;
    for (int64_t e = 0; e < d->n_episodes; e++)
        if (d->episodes[e].present) longest = SOMA_MAX(longest, d->episodes[e].n_frames);
    float *actions = soma__alloc((size_t)(longest * c->A + 1) * sizeof *actions);
    if (!actions) return soma__no_memory(err, "an episode");
    soma_status status = d->format->reader_open(&reader, d, err);
    for (int64_t e = 0; status == SOMA_OK && e < d->n_episodes; e++) {
        int64_t n = starts(&d->episodes[e], c->T), f = (stride - base % stride) % stride;
        base += n;
        if (f >= n) continue;
        status = d->format->read_vectors(reader, e, feature, actions, err);
        for (; status == SOMA_OK && f < n; f += stride, taken++)
            for (int64_t k = 0; k < c->T * c->A; k++) c->values[taken * c->T * c->A + k] = (double)actions[f * c->A + k];
    }
    soma__free(actions);
    if (reader) d->format->reader_close(reader);
    SOMA_CHECK(status != SOMA_OK || taken == c->n, "as many chunks are cut as were counted");
    return status;
}

static soma_status read_dataset(soma_chunks *c, const char *path, const soma_chunk_opts *o, soma_error *err) {
    soma_dataset *d;
    int feature;
    int64_t possible = 0, stride = o->stride;
    SOMA_TRY(soma__dataset_open(&d, path, err));
    soma_status status = find_actions(&feature, d, o->feature, err);
    if (status == SOMA_OK) {
        c->rate = d->fps;
        c->A = d->features[feature].size;
        c->T = o->horizon ? o->horizon : (int64_t)lround(d->fps);
        for (int64_t e = 0; e < d->n_episodes; e++) {
            possible += starts(&d->episodes[e], c->T);
            c->frames += d->episodes[e].present ? d->episodes[e].n_frames : 0;
        }
        if (o->max_chunks) stride = SOMA_MAX(stride, (possible + o->max_chunks - 1) / o->max_chunks);
        c->n = (possible + stride - 1) / stride;
        status = room(c, path, err);
    }
    if (status == SOMA_OK) status = cut(c, d, feature, stride, err);
    if (status == SOMA_OK && o->normalise) {
        status = statistics(c, d, feature, err);
        if (status == SOMA_OK) soma__norm_apply(&c->norm, SOMA_NORM_QUANTILE, c->values, c->n * c->T, (int)c->A);
    }
    soma__dataset_close(d);
    return status;
}

static bool ends(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && !strcmp(path + n - m, end);
}

soma_status soma__chunks_read(soma_chunks *c, const char *path, const soma_chunk_opts *o, soma_error *err) {
    *c = (soma_chunks){0};
    SOMA_CHECK(o->stride >= 1 && o->horizon >= 0, "a stride is at least 1");
    set_name(c, path);
    soma_status status = ends(path, ".safetensors") ? read_safetensors(c, path, o, err)
                         : ends(path, ".npy")       ? read_npy(c, path, o, err)
                                                    : read_dataset(c, path, o, err);
    if (status == SOMA_OK && o->clip) clip(c);
    if (status != SOMA_OK) soma__chunks_free(c);
    return status;
}
