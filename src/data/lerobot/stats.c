// SPDX-License-Identifier: Apache-2.0
// The statistics that a LeRobot dataset declares: meta/stats.json (v2.0, v3.0), or meta/episodes_stats.jsonl (v2.1), whose episodes are put
// together: limits are the outermost, mean and deviation those of all frames.
#include "base/file.h"
#include "data/lerobot/lerobot.h"

#include <math.h>
#include <string.h>

enum { LINES_MAX = 1 << 30 };

// All numbers in a list of lists, in order; false when there are not `n`.
static bool flatten(const json_t *v, double *out, int64_t n, int64_t *at) {
    size_t i;
    json_t *item;
    if (json_is_number(v)) {
        if (*at < n) out[*at] = json_number_value(v);
        return (*at)++ < n;
    }
    if (!json_is_array(v)) return false;
    json_array_foreach(v, i, item) if (!flatten(item, out, n, at)) return false;
    return true;
}

static bool read_list(double *out, const json_t *entry, const char *key, int64_t n) {
    int64_t at = 0;
    return flatten(json_object_get(entry, key), out, n, &at) && at == n;
}

static bool make_room(soma_feature_stats *s, int64_t n) {
    double **lists[] = {&s->mean, &s->std, &s->min, &s->max};
    for (size_t i = 0; i < SOMA_COUNT(lists); i++)
        if (!(*lists[i] = soma__calloc((size_t)n, sizeof(double)))) return false;
    return true;
}

static bool read_entry(soma_feature_stats *s, const json_t *entry, int64_t n) {
    return read_list(s->mean, entry, "mean", n) && read_list(s->std, entry, "std", n) && read_list(s->min, entry, "min", n) &&
           read_list(s->max, entry, "max", n);
}

static soma_status fail_entry(soma_error *err, const char *where, const soma_feature *f) {
    return soma__fail(err, SOMA_BAD_INPUT, "%s: the statistics of \"%s\" are not mean, std, min and max of %lld numbers each", where,
                      f->name, (long long)f->size);
}

static soma_status from_whole(soma_feature_stats *s, const soma_feature *f, const char *path, soma_error *err) {
    json_t *all;
    SOMA_TRY(soma__json_load(&all, path, err));
    const json_t *entry = json_object_get(all, f->name);
    soma_status status = !entry                          ? soma__fail(err, SOMA_NOT_FOUND, "%s: has no \"%s\"", path, f->name)
                         : read_entry(s, entry, f->size) ? SOMA_OK
                                                         : fail_entry(err, path, f);
    json_decref(all);
    return status;
}

// ---- v2.1: per episode

// Adds one episode: `s` holds sums of values and of squares until the end.
static bool add_episode(soma_feature_stats *s, soma_feature_stats *one, const json_t *entry, int64_t n) {
    double count;
    int64_t at = 0;
    if (!read_entry(one, entry, n) || !flatten(json_object_get(entry, "count"), &count, 1, &at) || !(count >= 1) || count > 1e12)
        return false;
    for (int64_t j = 0; j < n; j++) {
        s->mean[j] += count * one->mean[j];
        s->std[j] += count * (one->std[j] * one->std[j] + one->mean[j] * one->mean[j]);
        s->min[j] = s->count ? SOMA_MIN(s->min[j], one->min[j]) : one->min[j];
        s->max[j] = s->count ? SOMA_MAX(s->max[j], one->max[j]) : one->max[j];
    }
    s->count += (int64_t)count;
    return true;
}

static soma_status from_lines(soma_feature_stats *s, soma_feature_stats *one, const soma_feature *f, const char *path, soma_error *err) {
    char *text;
    size_t size;
    SOMA_TRY(soma__file_read(&text, &size, path, LINES_MAX, err));
    soma_status status = SOMA_OK;
    for (const char *line = text + strspn(text, "\r\n"); *line && status == SOMA_OK;) {
        size_t len = strcspn(line, "\r\n");
        json_t *episode;
        status = soma__json_parse(&episode, line, len, path, err);
        if (status != SOMA_OK) break;
        const json_t *entry = json_object_get(json_object_get(episode, "stats"), f->name);
        if (!entry) status = soma__fail(err, SOMA_NOT_FOUND, "%s: has no \"%s\"", path, f->name);
        if (entry && !add_episode(s, one, entry, f->size)) status = fail_entry(err, path, f);
        json_decref(episode);
        line += len + strspn(line + len, "\r\n");
    }
    soma__free(text);
    if (status == SOMA_OK && !s->count) status = soma__fail(err, SOMA_NOT_FOUND, "%s: lists no episode", path);
    for (int64_t j = 0; j < f->size && status == SOMA_OK; j++) {
        s->mean[j] /= (double)s->count;
        s->std[j] = sqrt(SOMA_MAX(s->std[j] / (double)s->count - s->mean[j] * s->mean[j], 0.0));
    }
    return status;
}

soma_status lerobot_declared_stats(soma_feature_stats *stats, const soma_dataset *d, int feature, soma_error *err) {
    const soma_feature *f = &d->features[feature];
    char whole[SOMA_PATH_MAX], lines[SOMA_PATH_MAX];
    soma_feature_stats one = {0};
    *stats = (soma_feature_stats){0};
    SOMA_TRY(soma__path_join(whole, d->path, "meta/stats.json", err));
    SOMA_TRY(soma__path_join(lines, d->path, "meta/episodes_stats.jsonl", err));
    bool has_whole = soma__file_exists(whole);
    if (!has_whole && !soma__file_exists(lines)) return soma__fail(err, SOMA_NOT_FOUND, "%s: declares no statistics", d->path);
    soma_status status = make_room(stats, f->size) && make_room(&one, f->size) ? SOMA_OK : soma__no_memory(err, "statistics");
    if (status == SOMA_OK) status = has_whole ? from_whole(stats, f, whole, err) : from_lines(stats, &one, f, lines, err);
    soma__feature_stats_free(&one);
    if (status != SOMA_OK) soma__feature_stats_free(stats);
    return status;
}
