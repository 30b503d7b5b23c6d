// SPDX-License-Identifier: Apache-2.0
// Which robot a checkpoint is for, and its files: the checkpoint's own word, a name or file that the user gives, statistics, vocabulary.
#include "policy/robot.h"

#include "base/file.h"
#include "base/str.h"
#include "format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- which robot

// A file beside the robot's own means what it says from anywhere: its path becomes absolute.
static soma_status anchor_stats(json_t *robot, const char *path, soma_error *err) {
    const char *name = json_string_value(json_object_get(robot, "norm_stats"));
    if (!name || *name == '/') return SOMA_OK;
    char full[SOMA_PATH_MAX], *real = realpath(path, NULL);
    if (!real) return soma__fail(err, SOMA_IO, "%s: its folder cannot be found", path);
    *strrchr(real, '/') = 0;
    soma_status status = soma__path_join(full, *real ? real : "/", name, err);
    free(real);
    if (status == SOMA_OK && json_object_set_new(robot, "norm_stats", json_string(full))) return soma__no_memory(err, "a robot");
    return status;
}

static soma_status load_given(json_t **robot, const char *given, soma_error *err) {
    *robot = soma__robot_builtin(given);
    if (*robot) return SOMA_OK;
    if (soma__file_exists(given)) {
        SOMA_TRY(soma__json_load(robot, given, err));
        if (json_is_object(*robot)) return anchor_stats(*robot, given, err);
        return soma__fail(err, SOMA_BAD_INPUT, "%s: a robot is a JSON object", given);
    }
    soma_str names = {0};
    for (size_t i = 0; soma__robot_builtin_name(i); i++) soma__str_printf(&names, "%s%s", i ? ", " : "", soma__robot_builtin_name(i));
    soma_status status = soma__fail(err, SOMA_NOT_FOUND, "no robot is called \"%.200s\", and there is no such file; built in are %s", given,
                                    names.text ? names.text : "");
    soma__str_free(&names);
    return status;
}

// Lays what `robot` is "like" beneath it. Releases *robot when it fails.
static soma_status expand_like(json_t **robot, const char *where, soma_error *err) {
    for (int depth = 0; json_object_get(*robot, "like"); depth++) {
        const char *name = json_string_value(json_object_get(*robot, "like"));
        json_t *base = name ? soma__robot_builtin(name) : NULL;
        if (!base || depth > 8)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"like\" names a built-in robot, not \"%.60s\"", where, name ? name : "");
        json_object_del(*robot, "like");
        bool failed = json_object_update(base, *robot);
        json_decref(*robot);
        *robot = base;
        if (failed) return soma__no_memory(err, "a robot");
    }
    return SOMA_OK;
}

static soma_status lay_over(json_t **base, const char *given, soma_error *err) {
    json_t *robot = NULL;
    soma_status status = load_given(&robot, given, err);
    if (status == SOMA_OK) status = expand_like(&robot, given, err);
    if (status == SOMA_OK && *base && json_object_update(*base, robot)) status = soma__no_memory(err, "a robot");
    if (status == SOMA_OK && !*base) *base = json_incref(robot);
    json_decref(robot);
    return status;
}

soma_status soma__robot_resolve(json_t *config, const char *dir, const char *given, soma_error *err) {
    char where[SOMA_PATH_MAX], steps[SOMA_PATH_MAX];
    json_t *robot = NULL, *own = json_object_get(config, "robot"), *value;
    SOMA_TRY(soma__path_join(where, dir, "config.json", err));
    SOMA_TRY(soma__path_join(steps, dir, "policy_preprocessor.json", err));
    soma_status status = SOMA_OK;
    if (own) {
        robot = json_deep_copy(own);
        status = robot ? expand_like(&robot, where, err) : soma__no_memory(err, "a robot");
    } else if (json_object_get(config, "input_features") || soma__file_exists(steps))
        status = soma__robot_from_lerobot(&robot, config, dir, err);
    if (status == SOMA_OK && *given) status = lay_over(&robot, given, err);
    const char *key;
    bool failed = false;
    json_object_foreach(json_object_get(robot, "model"), key, value) failed |= json_object_set(config, key, value) != 0;
    value = json_object_get(robot, "metadata");
    if (status == SOMA_OK && value && !json_object_get(config, "metadata")) failed |= json_object_set(config, "metadata", value) != 0;
    if (status == SOMA_OK && robot) failed |= json_object_set(config, "robot", robot) != 0;
    json_decref(robot);
    return status == SOMA_OK && failed ? soma__no_memory(err, "a robot") : status;
}

soma_status soma__robot_adopt(soma_robot *r, const char *given, const char *where, soma_error *err) {
    static const soma_model any = {
        .info = {.type = "pi0", .state_input = true, .form = SOMA_PROMPT_PI0}}; // a robot's conventions do not depend on the family
    json_t *robot = NULL;
    soma_robot *other = soma__alloc(sizeof *other);
    soma_status status = other ? lay_over(&robot, given, err) : soma__no_memory(err, "a robot");
    if (status == SOMA_OK && !json_object_get(robot, "n_state")) json_object_set_new(robot, "n_state", json_integer(r->n_state));
    if (status == SOMA_OK && !json_object_get(robot, "n_actions")) json_object_set_new(robot, "n_actions", json_integer(r->n_actions));
    if (status == SOMA_OK && !json_object_get(robot, "cameras")) json_object_set_new(robot, "cameras", json_array());
    if (status == SOMA_OK) status = soma__robot_read(other, robot, &any, given, err);
    if (status == SOMA_OK && (other->n_state != r->n_state || other->n_actions != r->n_actions))
        status = soma__fail(err, SOMA_BAD_INPUT, "%s has %d state and %d action values, the robot %s %d and %d", where, r->n_state,
                            r->n_actions, given, other->n_state, other->n_actions);
    if (status == SOMA_OK) {
        memcpy(r->state_forms, other->state_forms, sizeof r->state_forms);
        memcpy(r->action_forms, other->action_forms, sizeof r->action_forms);
        memcpy(r->delta, other->delta, sizeof r->delta);
        memcpy(r->hold, other->hold, sizeof r->hold);
        memcpy(r->ignored, other->ignored, sizeof r->ignored);
        memcpy(r->state_keys, other->state_keys, sizeof r->state_keys);
        memcpy(r->prompt, other->prompt, sizeof r->prompt);
        r->n_ignored = other->n_ignored;
        r->n_state_keys = other->n_state_keys;
    }
    soma__free(other);
    json_decref(robot);
    return status;
}

// ---- statistics

// <feature>.<list> of LeRobot's file as the lists of `norm`, in `arena`; f32, as LeRobot itself computes. A feature without a mean is
// absent.
static soma_status read_lists(soma_norm *norm, const soma_safetensors *st, const char *feature, soma_arena *arena, soma_error *err) {
    const struct {
        const char *name;
        const double **list;
    } lists[] = {{"mean", &norm->mean}, {"std", &norm->std}, {"q01", &norm->q01}, {"q99", &norm->q99},
                 {"min", &norm->min},   {"max", &norm->max}, {"q10", &norm->q10}, {"q90", &norm->q90}};
    for (size_t i = 0; i < SOMA_COUNT(lists); i++) {
        char name[128], shape[160];
        snprintf(name, sizeof name, "%s.%s", feature, lists[i].name);
        const soma_safetensor *t = soma__safetensors_find(st, name);
        if (!t) continue;
        if (t->n_values < 1 || t->n_values > SOMA_ROBOT_MAX_DIMS || t->n_dims > 2 || (norm->size && t->n_values != norm->size))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: %s is %s; statistics of one feature have one width, at most %d",
                              soma__safetensors_path(st), name, soma__safetensor_shape(shape, t), SOMA_ROBOT_MAX_DIMS);
        norm->size = (int)t->n_values;
        float values[SOMA_ROBOT_MAX_DIMS];
        double *list = soma__arena_alloc(arena, (size_t)norm->size * sizeof *list);
        if (!list) return soma__no_memory(err, "the statistics");
        soma__to_f32(values, t->dtype, t->data, norm->size);
        for (int k = 0; k < norm->size; k++) list[k] = values[k];
        *lists[i].list = list;
    }
    return SOMA_OK;
}

static soma_status stats_of_tensors(soma_norm_stats **stats, const json_t *files, const char *dir, soma_error *err) {
    static const char *const keys[] = {"state", "actions"}, *const features[] = {"observation.state", "action"},
                             *const among_weights[] = {"normalize_inputs.buffer_observation_state", "unnormalize_outputs.buffer_action"};
    soma_arena arena = {0};
    soma_norm norms[2];
    size_t n = 0;
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < 2 && status == SOMA_OK; i++) {
        char path[SOMA_PATH_MAX];
        soma_safetensors *st = NULL;
        const char *file = json_string_value(json_object_get(files, keys[i]));
        if (!file) continue;
        status = soma__path_join(path, dir, file, err);
        if (status == SOMA_OK) status = soma__safetensors_open(&st, path, err);
        norms[n] = (soma_norm){.key = keys[i]};
        if (status == SOMA_OK) status = read_lists(&norms[n], st, features[i], &arena, err);
        if (status == SOMA_OK && !norms[n].size) status = read_lists(&norms[n], st, among_weights[i], &arena, err);
        n += norms[n].size > 0;
        soma__safetensors_close(st);
    }
    if (status == SOMA_OK) status = soma__norm_stats_new(stats, norms, n, dir, err);
    soma__arena_free(&arena);
    return status;
}

// Every norm_stats.json below `folder`, two levels deep, as "asset_id" and, of the first, its path.
static soma_status search_assets(const char *folder, const char *id, int depth, soma_str *ids, int *n, char first[SOMA_PATH_MAX],
                                 soma_error *err) {
    char **names = NULL, path[SOMA_PATH_MAX], below[SOMA_PATH_MAX];
    size_t n_names = 0;
    if (!soma__dir_exists(folder)) return SOMA_OK;
    SOMA_TRY(soma__dir_list(&names, &n_names, folder, err));
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < n_names && status == SOMA_OK; i++) {
        if (!strcmp(names[i], "norm_stats.json") && *id) {
            status = soma__path_join(path, folder, names[i], err);
            if (!(*n)++) strcpy(first, path);
            soma__str_printf(ids, "%s\"%s\"", *n > 1 ? ", " : "", id);
        } else if (depth < 2) {
            status = soma__path_join(path, folder, names[i], err);
            if (status == SOMA_OK) status = *id ? soma__path_join(below, id, names[i], err) : SOMA_OK;
            if (status == SOMA_OK) status = search_assets(path, *id ? below : names[i], depth + 1, ids, n, first, err);
        }
    }
    soma__dir_list_free(names, n_names);
    return status;
}

// norm_stats.json of the folder; of the asset that the robot names; or the only one that there is. *path "": there is none.
static soma_status find_stats(char path[SOMA_PATH_MAX], const char *dir, const char *asset, soma_error *err) {
    char assets[SOMA_PATH_MAX], of_asset[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(path, dir, "norm_stats.json", err));
    if (soma__file_exists(path)) return SOMA_OK;
    SOMA_TRY(soma__path_join(assets, dir, "assets", err));
    if (asset) {
        SOMA_TRY(soma__path_join(of_asset, assets, asset, err));
        SOMA_TRY(soma__path_join(path, of_asset, "norm_stats.json", err));
        if (soma__file_exists(path)) return SOMA_OK;
    }
    soma_str ids = {0};
    int n = 0;
    *path = 0;
    soma_status status = search_assets(assets, "", 0, &ids, &n, path, err);
    if (status == SOMA_OK && n > 1)
        status = soma__fail(err, SOMA_NOT_FOUND, "%s: it has the statistics of %s: name one as \"asset_id\" in a robot's file (--robot)",
                            assets, ids.text ? ids.text : "several robots");
    if (status == SOMA_OK && n == 1 && asset)
        soma__log(SOMA_LOG_INFO, "%s: no statistics of \"%s\"; those of %s are taken", assets, asset, ids.text ? ids.text : "its robot");
    soma__str_free(&ids);
    return status;
}

soma_status soma__robot_stats(soma_norm_stats **stats, const json_t *robot, const char *dir, bool needed, soma_error *err) {
    const json_t *given = json_object_get(robot, "norm_stats");
    char path[SOMA_PATH_MAX] = "";
    *stats = NULL;
    if (json_is_object(given)) return stats_of_tensors(stats, given, dir, err);
    if (given && !json_is_string(given)) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"norm_stats\" is the name of a file", dir);
    if (given && *json_string_value(given) == '/') return soma__norm_stats_read(stats, json_string_value(given), err);
    if (given) {
        SOMA_TRY(soma__path_join(path, dir, json_string_value(given), err));
        return soma__norm_stats_read(stats, path, err);
    }
    SOMA_TRY(find_stats(path, dir, json_string_value(json_object_get(robot, "asset_id")), err));
    if (*path) return soma__norm_stats_read(stats, path, err);
    if (!needed) return SOMA_OK;
    return soma__fail(err, SOMA_NOT_FOUND,
                      "%s: no statistics: wanted norm_stats.json, assets/<asset_id>/norm_stats.json, or \"norm_stats\" in a robot's file "
                      "(--robot)",
                      dir);
}

// ---- opening

static soma_status open_text(soma_robot *r, const char *from, const soma_model *model, soma_error *err) {
    if (!model->info.max_tokens) return SOMA_OK; // it reads no text
    soma_status status = soma__text_open(&r->text, from, err);
    if (status != SOMA_NOT_FOUND || !model->info.tokenizer) return status;
    return soma__fail(
        err, SOMA_NOT_FOUND,
        "%s: no text tokenizer here, in tokenizer/ or in assets/. Released checkpoints of %s come without it: fetch %s, and put "
        "it into this folder or name it with --text-tokenizer",
        from, model->info.type, model->info.tokenizer);
}

soma_status soma__robot_open(soma_robot *r, const json_t *config, const char *dir, const char *text_path, const soma_model *model,
                             soma_error *err) {
    *r = (soma_robot){0};
    char where[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(where, dir, "config.json", err));
    const json_t *robot = json_object_get(config, "robot");
    if (!robot)
        return soma__fail(err, SOMA_NOT_FOUND,
                          "%s: it does not say which robot it is for (no \"robot\" object, no policy_preprocessor.json): give one with "
                          "--robot, such as aloha, droid, libero, ur5, or a JSON file",
                          where);
    soma_status status = soma__robot_read(r, robot, model, where, err);
    bool needed = r->state_rule != SOMA_NORM_IDENTITY || r->action_rule != SOMA_NORM_IDENTITY;
    if (status == SOMA_OK) status = soma__robot_stats(&r->stats, robot, dir, needed, err);
    if (status == SOMA_OK) status = open_text(r, *text_path ? text_path : dir, model, err);
    if (status == SOMA_OK) status = soma__robot_check(r, model, where, err);
    if (status != SOMA_OK) soma__robot_close(r);
    return status;
}

void soma__robot_close(soma_robot *r) {
    soma__norm_stats_free(r->stats);
    soma__text_close(r->text);
    *r = (soma_robot){0};
}
