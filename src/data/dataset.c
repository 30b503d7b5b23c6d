// SPDX-License-Identifier: Apache-2.0
// What is the same for every dataset format: finding the format, describing a dataset, exact statistics of a feature.
#include "data/dataset.h"
#include "base/file.h"
#include "base/str.h"
#include "data/exact.h"
#include "data/stats.h"

#include <math.h>
#include <string.h>

soma_status soma__dataset_open(soma_dataset **out, const char *path, soma_error *err) {
    *out = NULL;
    if (!soma__dir_exists(path) && !soma__file_exists(path)) return soma__fail(err, SOMA_NOT_FOUND, "%s: no such folder", path);
    for (const soma_dataset_format *const *f = soma__dataset_registry; *f; f++) {
        if (!(*f)->probe(path)) continue;
        SOMA_TRY((*f)->open(out, path, err));
        for (int i = 0; i < (*out)->n_faults; i++) soma__log(SOMA_LOG_WARN, "%s", (*out)->faults[i]);
        return SOMA_OK;
    }
    soma_str known = {0};
    for (const soma_dataset_format *const *f = soma__dataset_registry; *f; f++) soma__str_printf(&known, " %s", (*f)->name);
    soma_status status =
        soma__fail(err, SOMA_UNSUPPORTED, "%s: not a dataset of a known layout; known are:%s", path, known.text ? known.text : "");
    soma__str_free(&known);
    return status;
}

void soma__dataset_close(soma_dataset *dataset) {
    if (dataset) dataset->format->close(dataset);
}

int soma__dataset_feature(const soma_dataset *dataset, const char *name) {
    for (int i = 0; i < dataset->n_features + dataset->n_parts; i++)
        if (!strcmp(dataset->features[i].name, name)) return i;
    return -1;
}

bool soma__dataset_has(const soma_dataset *d, int feature) {
    for (int64_t e = 0; e < d->n_episodes; e++)
        if (d->format->present(d, e, feature)) return true;
    return false;
}

soma_status soma__dataset_read_instructions(soma_dataset *d, const int64_t *episodes, int64_t n, soma_error *err) {
    soma_dataset_reader *r;
    if (!d->format->read_instructions) return SOMA_OK;
    SOMA_TRY(d->format->reader_open(&r, d, err));
    soma_status status = SOMA_OK;
    for (int64_t i = 0; i < n && status == SOMA_OK; i++) status = d->format->read_instructions(d, r, episodes[i], err);
    d->format->reader_close(r);
    return status;
}

soma_status soma__dataset_check_finite(const soma_dataset *d, const char *file, int64_t episode, int feature, const float *values,
                                       soma_error *err) {
    const soma_feature *f = &d->features[feature];
    int64_t n = d->episodes[episode].n_frames * f->size, i = 0;
    while (i < n && isfinite(values[i])) i++;
    if (i == n) return SOMA_OK;
    const char *name = f->names && f->n_dims == 1 ? f->names[i % f->size] : "";
    return soma__fail(err, SOMA_BAD_INPUT,
                      "%s/%s: \"%s\" is %s in episode %lld, frame %lld, dimension %lld%s%s%s; mend or drop the episode", d->path, file,
                      f->name, isnan(values[i]) ? "not a number" : "infinite", (long long)d->episodes[episode].index,
                      (long long)(i / f->size), (long long)(i % f->size), *name ? " (" : "", name, *name ? ")" : "");
}

// ---- description

static json_t *describe_feature(const soma_dataset *d, int f) {
    static const char *const kinds[] = {[SOMA_FEATURE_VECTOR] = "vector", [SOMA_FEATURE_IMAGE] = "image", [SOMA_FEATURE_OTHER] = "other"};
    const soma_feature *feature = &d->features[f];
    json_t *shape = json_array(), *names = feature->names ? json_array() : json_null();
    int64_t n = 0;
    for (int i = 0; i < feature->n_dims; i++) json_array_append_new(shape, json_integer(feature->shape[i]));
    for (int64_t i = 0; feature->names && i < feature->shape[feature->n_dims - 1]; i++)
        json_array_append_new(names, json_string(feature->names[i]));
    for (int64_t e = 0; e < d->n_episodes; e++) n += d->format->present(d, e, f);
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:I}", "name", feature->name, "kind", kinds[feature->kind], "dtype", feature->dtype,
                     "shape", shape, "names", names, "episodes_present", (json_int_t)n);
}

// The different tasks in order of first appearance. A set keeps it linear for datasets of many episodes.
static json_t *describe_tasks(const soma_dataset *d) {
    json_t *tasks = json_array(), *seen = json_object();
    for (int64_t e = 0; tasks && seen && e < d->n_episodes; e++) {
        const char *task = d->episodes[e].task;
        if (!*task || json_object_get(seen, task)) continue;
        json_object_set_new(seen, task, json_true());
        json_array_append_new(tasks, json_string(task));
    }
    json_decref(seen);
    return tasks;
}

static json_t *describe_part(const soma_dataset *d, const soma_feature *f) {
    json_t *part = json_pack("{s:s, s:s, s:I, s:I}", "name", f->name, "of", d->features[f->whole].name, "start", (json_int_t)f->start,
                             "end", (json_int_t)(f->start + f->size));
    if (part && f->rotation) json_object_set_new(part, "rotation", json_string(f->rotation));
    if (part && f->relative) json_object_set_new(part, "relative", json_true());
    return part;
}

json_t *soma__dataset_info(const soma_dataset *d) {
    json_t *features = json_array(), *parts = json_array(), *absent = json_array(), *faults = json_array();
    for (int i = 0; i < d->n_parts; i++) json_array_append_new(parts, describe_part(d, &d->features[d->n_features + i]));
    for (int i = 0; i < d->n_features; i++) json_array_append_new(features, describe_feature(d, i));
    for (int i = 0; i < d->n_absent; i++) json_array_append_new(absent, json_string(d->absent[i]));
    for (int i = 0; i < d->n_faults; i++) json_array_append_new(faults, json_string(d->faults[i]));
    int64_t with_video = 0;
    for (int64_t e = 0; e < d->n_episodes; e++) with_video += d->episodes[e].present && d->episodes[e].video_present;
    return json_pack("{s:s, s:s, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:s}", "path", d->path, "format",
                     d->format->name, "version", d->version, "robot_type", d->robot_type, "fps", d->fps, "episodes",
                     (json_int_t)d->n_episodes, "frames", (json_int_t)d->n_frames, "episodes_present", (json_int_t)d->episodes_present,
                     "frames_present", (json_int_t)d->frames_present, "episodes_with_pictures", (json_int_t)with_video, "tasks",
                     describe_tasks(d), "features", features, "parts", parts, "absent", absent, "faults", faults, "hint", d->hint);
}

// ---- statistics

enum { COLUMNS = 256 }; // looked at together; wider features are read in turns
#define MEMORY ((size_t)1 << 30)

typedef struct one_feature {
    const soma_dataset *d;
    int feature;
} one_feature;

static soma_status read_feature(void *user, soma_dataset_reader *reader, int64_t episode, float *out, soma_error *err) {
    const one_feature *o = user;
    return o->d->format->read_vectors(reader, episode, o->feature, out, err);
}

static soma_status take(soma_feature_stats *stats, soma_exact *x, soma_column_stats *taken, soma_exact_column *columns, soma_error *err) {
    double **arrays[SOMA_STAT_COUNT], quantiles[SOMA_STAT_COUNT];
    x->n_quantiles = soma__stats_places(quantiles);
    x->quantiles = quantiles;
    x->columns = columns;
    soma__stats_arrays(arrays, stats);
    for (int a = 0; a < SOMA_STAT_COUNT; a++)
        if (!(*arrays[a] = soma__alloc((size_t)x->row * sizeof(double)))) return soma__no_memory(err, "the statistics of a feature");
    for (int from = 0; from < x->row; from += COLUMNS) {
        x->n_columns = SOMA_MIN(x->row - from, (int)COLUMNS);
        for (int c = 0; c < x->n_columns; c++) columns[c] = (soma_exact_column){from + c, -1, 1};
        SOMA_TRY(soma__exact_take(taken, x, NULL, err));
        for (int c = 0; c < x->n_columns; c++) {
            const soma_column_stats *t = &taken[c];
            const double first[] = {t->min, t->max, t->mean, t->std};
            for (int a = 0; a < SOMA_STAT_COUNT; a++) (*arrays[a])[from + c] = a < 4 ? first[a] : t->quantiles[a - 4];
            stats->count = (int64_t)t->count;
        }
    }
    return SOMA_OK;
}

// The positions that are meant, of episodes that are there; *n of them.
static soma_status list_episodes(int64_t **out, int64_t *n, const soma_dataset *d, const int64_t *given, int64_t n_given, soma_error *err) {
    int64_t frames = 0;
    *n = 0;
    *out = soma__alloc(((size_t)SOMA_MAX(n_given, d->n_episodes) + 1) * sizeof **out);
    if (!*out) return soma__no_memory(err, "the list of episodes");
    for (int64_t i = 0; i < (given ? n_given : d->n_episodes); i++) {
        int64_t e = given ? given[i] : i;
        SOMA_CHECK(e >= 0 && e < d->n_episodes, "an episode is a position in the dataset");
        if (!given && !d->episodes[e].present) continue;
        (*out)[(*n)++] = e;
        frames += d->episodes[e].n_frames;
    }
    return frames ? SOMA_OK : soma__fail(err, SOMA_NOT_FOUND, "%s: no frames to take statistics from", d->path);
}

soma_status soma__dataset_stats(soma_feature_stats *stats, const soma_dataset *d, int feature, const int64_t *episodes, int64_t n_episodes,
                                soma_error *err) {
    SOMA_CHECK(feature >= 0 && feature < d->n_features + d->n_parts, "a feature is a position in the dataset");
    *stats = (soma_feature_stats){0};
    if (d->features[feature].kind != SOMA_FEATURE_VECTOR)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is not a vector of numbers", d->path, d->features[feature].name);
    one_feature one = {d, feature};
    int64_t *listed = NULL, size = d->features[feature].size;
    soma_exact x = {.dataset = d, .memory = MEMORY, .row = (int)size, .split = (int)size, .read = read_feature, .user = &one};
    soma_column_stats *taken = soma__alloc(COLUMNS * sizeof *taken);
    soma_exact_column *columns = soma__alloc(COLUMNS * sizeof *columns);
    soma_status status = taken && columns ? SOMA_OK : soma__no_memory(err, "the statistics of a feature");
    if (status == SOMA_OK) status = list_episodes(&listed, &x.n_episodes, d, episodes, n_episodes, err);
    if (status == SOMA_OK) status = soma__pool_new(&x.pool, 1, err);
    x.episodes = listed;
    if (status == SOMA_OK) status = take(stats, &x, taken, columns, err);
    soma__pool_free(x.pool);
    soma__free(listed);
    soma__free(taken);
    soma__free(columns);
    if (status != SOMA_OK) soma__feature_stats_free(stats);
    return status;
}

void soma__feature_stats_free(soma_feature_stats *s) {
    double **arrays[SOMA_STAT_COUNT];
    soma__stats_arrays(arrays, s);
    for (int a = 0; a < SOMA_STAT_COUNT; a++) soma__free(*arrays[a]);
    *s = (soma_feature_stats){0};
}
