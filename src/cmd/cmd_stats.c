// SPDX-License-Identifier: Apache-2.0
// Three forms of one table. Part names and sub-ranges of GR00T's form are those of the dataset's meta/modality.json.
#include "cmd/cmd_stats.h"
#include "base/json.h"
#include "data/stats.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- lists

static void name_quantile(char out[32], double q) {
    double percent = q * 100;
    if (fabs(percent - round(percent)) < 1e-9)
        snprintf(out, 32, "q%02.0f", percent);
    else
        snprintf(out, 32, percent < 10 ? "q0%.6g" : "q%.6g", percent);
}

// {mean, std, min, max, quantiles} of `n` columns; NULL when memory is out.
static json_t *lists(const soma_column_stats *stats, int64_t n, const soma_statistics_opts *o) {
    static const char *const names[] = {"mean", "std", "min", "max"};
    json_t *entry = json_object();
    bool ok = entry != NULL;
    for (int l = 0; ok && l < 4 + o->n_quantiles; l++) {
        char name[32];
        json_t *list = json_array();
        for (int64_t i = 0; i < n; i++) {
            const soma_column_stats *s = &stats[i];
            const double first[] = {s->mean, s->std, s->min, s->max};
            ok = !json_array_append_new(list, json_real(l < 4 ? first[l] : s->quantiles[l - 4])) && ok;
        }
        if (l >= 4) name_quantile(name, o->quantiles[l - 4]);
        ok = !json_object_set_new(entry, l < 4 ? names[l] : name, list) && ok;
    }
    if (ok) return entry;
    json_decref(entry);
    return NULL;
}

static json_t *counted(json_t *entry, double count) {
    if (entry) json_object_set_new(entry, "count", json_pack("[I]", (json_int_t)count));
    return entry;
}

// ---- forms

static soma_status openpi(json_t **out, const char *tag, const soma_statistics_opts *o, const soma_column_stats *stats, soma_error *err) {
    (void)tag;
    (void)err;
    int N = o->robot->n_state;
    *out = json_pack("{s:{s:o, s:o}}", "norm_stats", "state", lists(stats, N, o), "actions", lists(stats + N, o->robot->n_actions, o));
    return SOMA_OK;
}

// A feature as it is recorded, neither converted nor in chunks.
static soma_status recorded(json_t **out, const soma_statistics_opts *o, int feature, soma_error *err) {
    soma_feature_stats s;
    double **arrays[SOMA_STAT_COUNT];
    SOMA_TRY(soma__dataset_stats(&s, o->data, feature, o->episodes, o->n_episodes, err));
    soma__stats_arrays(arrays, &s);
    *out = json_object();
    for (int a = 0; a < SOMA_STAT_COUNT; a++) {
        json_t *list = json_array();
        for (int64_t i = 0; i < o->data->features[feature].size; i++) json_array_append_new(list, json_real((*arrays[a])[i]));
        json_object_set_new(*out, soma__stat_names[a], list);
    }
    counted(*out, (double)s.count);
    soma__feature_stats_free(&s);
    return SOMA_OK;
}

static soma_status lerobot(json_t **out, const char *tag, const soma_statistics_opts *o, const soma_column_stats *stats, soma_error *err) {
    (void)tag;
    int N = o->robot->n_state;
    const soma_feature *f = o->data->features;
    *out = json_object();
    json_object_set_new(*out, f[o->state_feature].name, counted(lists(stats, N, o), stats[0].count));
    json_object_set_new(*out, f[o->action_feature].name, counted(lists(stats + N, o->robot->n_actions, o), stats[N].count));
    for (int i = 0; i < o->data->n_features; i++)
        if (f[i].kind == SOMA_FEATURE_VECTOR && i != o->state_feature && i != o->action_feature) {
            json_t *entry;
            SOMA_TRY(recorded(&entry, o, i, err));
            json_object_set_new(*out, f[i].name, entry);
        }
    return SOMA_OK;
}

// What follows the first dot of "state.left_arm".
static const char *part_name(const soma_feature *part) { return strchr(part->name, '.') + 1; }

static bool relative(const soma_statistics_opts *o, const soma_feature *part) {
    bool any = part->relative;
    for (int64_t i = 0; i < part->size; i++) any = any || o->robot->delta[part->start + i];
    return any;
}

static json_t *describe(const soma_feature *part, bool absolute) {
    json_t *entry = json_pack("{s:b, s:[I], s:b}", "absolute", absolute, "shape", (json_int_t)part->size, "continuous", 1);
    if (entry) json_object_set_new(entry, "rotation_type", part->rotation ? json_string(part->rotation) : json_null());
    return entry;
}

// Relative actions have statistics of their own in GR00T N1.6; "action" is then of the recorded ones.
static soma_status groot(json_t **out, const char *tag, const soma_statistics_opts *o, const soma_column_stats *stats, soma_error *err) {
    const soma_dataset *d = o->data;
    json_t *state = json_object(), *action = json_object(), *differences = json_object();
    json_t *states = json_object(), *actions = json_object(), *video = json_object();
    soma_status status = SOMA_OK;
    for (int i = d->n_features; i < d->n_features + d->n_parts && status == SOMA_OK; i++) {
        const soma_feature *part = &d->features[i];
        const char *name = part_name(part);
        if (part->kind == SOMA_FEATURE_IMAGE)
            json_object_set_new(video, name,
                                json_pack("{s:[I,I], s:i, s:f}", "resolution", (json_int_t)part->shape[1], (json_int_t)part->shape[0],
                                          "channels", 3, "fps", d->fps));
        if (part->whole == o->state_feature && !strncmp(part->name, "state.", 6)) {
            json_object_set_new(state, name, lists(stats + part->start, part->size, o));
            json_object_set_new(states, name, describe(part, true));
        } else if (part->whole == o->action_feature && !strncmp(part->name, "action.", 7)) {
            json_t *entry = lists(stats + o->robot->n_state + part->start, part->size, o), *raw = NULL;
            json_object_set_new(actions, name, describe(part, !relative(o, part)));
            if (relative(o, part)) status = recorded(&raw, o, i, err);
            if (raw) json_object_set(differences, name, entry);
            json_object_set_new(action, name, raw ? raw : json_incref(entry));
            json_decref(entry);
        }
    }
    if (status == SOMA_OK && (!json_object_size(state) || !json_object_size(action)))
        status = soma__fail(err, SOMA_NOT_FOUND, "%s/meta/modality.json: names no parts of \"%s\" and \"%s\", which GR00T's form needs",
                            d->path, d->features[o->state_feature].name, d->features[o->action_feature].name);
    *out =
        json_pack("{s:{s:{s:o, s:o, s:o}, s:{s:o, s:o, s:o}, s:s}}", tag, "statistics", "state", state, "action", action, "relative_action",
                  differences, "modalities", "video", video, "state", states, "action", actions, "embodiment_tag", tag);
    json_t *all = json_object_get(json_object_get(*out, tag), "statistics");
    if (!json_object_size(json_object_get(all, "relative_action"))) json_object_del(all, "relative_action");
    return status;
}

static const struct form {
    const char *name, *quantiles;
    soma_status (*make)(json_t **out, const char *tag, const soma_statistics_opts *o, const soma_column_stats *stats, soma_error *err);
} forms[] = {{"openpi", "0.01,0.99", openpi}, {"lerobot", "0.01,0.1,0.5,0.9,0.99", lerobot}, {"groot", "0.01,0.99", groot}};

static const struct form *find_form(const char *name) {
    for (size_t i = 0; i < SOMA_COUNT(forms); i++)
        if (!strcmp(forms[i].name, name)) return &forms[i];
    return NULL;
}

soma_status soma__cmd_stats_check(const char *form, soma_error *err) {
    if (find_form(form)) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "--form %.40s: openpi, lerobot or groot are possible", form);
}

const char *soma__cmd_stats_quantiles(const char *form) {
    const struct form *f = find_form(form);
    return f ? f->quantiles : "";
}

soma_status soma__cmd_stats_write(const char *path, const char *form, const char *tag, const soma_statistics_opts *o,
                                  const soma_column_stats *stats, soma_error *err) {
    json_t *all = NULL;
    soma_status status = find_form(form)->make(&all, tag, o, stats, err);
    if (status == SOMA_OK) status = all ? soma__json_save(all, path, err) : soma__no_memory(err, path);
    json_decref(all);
    return status;
}
