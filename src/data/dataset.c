// SPDX-License-Identifier: Apache-2.0
// What is the same for every dataset format: finding the format, describing a dataset, exact statistics of a feature.
#include "data/dataset.h"
#include "base/file.h"
#include "base/str.h"
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
    for (int i = 0; i < dataset->n_features; i++)
        if (!strcmp(dataset->features[i].name, name)) return i;
    return -1;
}

bool soma__dataset_has(const soma_dataset *d, int feature) {
    for (int64_t e = 0; e < d->n_episodes; e++)
        if (d->format->present(d, e, feature)) return true;
    return false;
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

json_t *soma__dataset_info(const soma_dataset *d) {
    json_t *features = json_array(), *absent = json_array(), *faults = json_array();
    for (int i = 0; i < d->n_features; i++) json_array_append_new(features, describe_feature(d, i));
    for (int i = 0; i < d->n_absent; i++) json_array_append_new(absent, json_string(d->absent[i]));
    for (int i = 0; i < d->n_faults; i++) json_array_append_new(faults, json_string(d->faults[i]));
    int64_t with_video = 0;
    for (int64_t e = 0; e < d->n_episodes; e++) with_video += d->episodes[e].present && d->episodes[e].video_present;
    return json_pack("{s:s, s:s, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:s}", "path", d->path, "format",
                     d->format->name, "version", d->version, "robot_type", d->robot_type, "fps", d->fps, "episodes",
                     (json_int_t)d->n_episodes, "frames", (json_int_t)d->n_frames, "episodes_present", (json_int_t)d->episodes_present,
                     "frames_present", (json_int_t)d->frames_present, "episodes_with_pictures", (json_int_t)with_video, "tasks",
                     describe_tasks(d), "features", features, "absent", absent, "faults", faults, "hint", d->hint);
}

// ---- statistics

// All frames of the episodes, one after the other: float [n_frames, size], to be released with soma__free.
static soma_status gather(float **out, int64_t *n_frames, const soma_dataset *d, int feature, const int64_t *episodes, int64_t n_episodes,
                          soma_error *err) {
    int64_t size = d->features[feature].size, at = 0;
    *n_frames = 0;
    for (int64_t i = 0; i < n_episodes; i++) {
        int64_t e = episodes ? episodes[i] : i;
        SOMA_CHECK(e >= 0 && e < d->n_episodes, "an episode is a position in the dataset");
        if (episodes || d->episodes[e].present) *n_frames += d->episodes[e].n_frames;
    }
    if (!*n_frames)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no frames to take statistics of \"%s\" from", d->path, d->features[feature].name);
    soma_dataset_reader *reader = NULL;
    float *values = soma__alloc((size_t)*n_frames * (size_t)size * sizeof *values);
    soma_status status = values ? d->format->reader_open(&reader, d, err) : soma__no_memory(err, "the values of a feature");
    for (int64_t i = 0; i < n_episodes && status == SOMA_OK; i++) {
        int64_t e = episodes ? episodes[i] : i;
        if (!episodes && !d->episodes[e].present) continue;
        status = d->format->read_vectors(reader, e, feature, values + at * size, err);
        at += d->episodes[e].n_frames;
    }
    if (reader) d->format->reader_close(reader);
    if (status == SOMA_OK) *out = values;
    if (status != SOMA_OK) soma__free(values);
    return status;
}

soma_status soma__dataset_stats(soma_feature_stats *stats, const soma_dataset *d, int feature, const int64_t *episodes, int64_t n_episodes,
                                soma_error *err) {
    SOMA_CHECK(feature >= 0 && feature < d->n_features, "a feature is a position in the dataset");
    *stats = (soma_feature_stats){0};
    if (d->features[feature].kind != SOMA_FEATURE_VECTOR)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is not a vector of numbers", d->path, d->features[feature].name);
    size_t size = (size_t)d->features[feature].size;
    int64_t n;
    float *values = NULL;
    SOMA_TRY(gather(&values, &n, d, feature, episodes, episodes ? n_episodes : d->n_episodes, err));
    float *column = soma__alloc((size_t)n * sizeof *column);
    double **arrays[SOMA_STAT_COUNT];
    soma__stats_arrays(arrays, stats);
    bool ok = column != NULL;
    for (int a = 0; a < SOMA_STAT_COUNT && ok; a++) ok = (*arrays[a] = soma__alloc(size * sizeof(double))) != NULL;
    for (size_t k = 0; k < size && ok; k++) {
        double out[SOMA_STAT_COUNT];
        for (int64_t i = 0; i < n; i++) column[i] = values[(size_t)i * size + k];
        soma__stats_of(out, column, (size_t)n);
        for (int a = 0; a < SOMA_STAT_COUNT; a++) (*arrays[a])[k] = out[a];
    }
    stats->count = n;
    soma__free(column);
    soma__free(values);
    if (ok) return SOMA_OK;
    soma__feature_stats_free(stats);
    return soma__no_memory(err, "the statistics of a feature");
}

void soma__feature_stats_free(soma_feature_stats *s) {
    double **arrays[SOMA_STAT_COUNT];
    soma__stats_arrays(arrays, s);
    for (int a = 0; a < SOMA_STAT_COUNT; a++) soma__free(*arrays[a]);
    *s = (soma_feature_stats){0};
}
