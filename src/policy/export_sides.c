// SPDX-License-Identifier: Apache-2.0
// What lies beside an exported checkpoint's weights. openpi reads assets/<asset_id>/norm_stats.json and takes sizes from its own code; the
// config is for the reader, and for soma. LeRobot reads config.json, the steps before and after the policy, and their statistics; its
// parser refuses keys that it does not know. pi0-FAST's action tokenizer goes along, in fast/.
//
// LeRobot's rules are openpi's but for the small number in the denominator: it goes into the statistics, so that the numbers stay.
#include "policy/export.h"

#include "model/paligemma.h"
#include "model/recognise.h"
#include "policy/written.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static soma_status save(json_t *value, const char *dir, const char *name, soma_error *err) { // takes the reference
    char path[SOMA_PATH_MAX];
    if (!value) return soma__no_memory(err, name);
    soma_status status = soma__path_join(path, dir, name, err);
    if (status == SOMA_OK) status = soma__json_save(value, path, err);
    json_decref(value);
    return status;
}

// Tokenizers are not made by soma: the one that there is goes along, if any.
static soma_status copy_vocabulary(const char *from, const char *to, soma_error *err) {
    char path[SOMA_PATH_MAX];
    return soma__text_find(path, from, NULL) == SOMA_NOT_FOUND ? SOMA_OK : soma__text_copy(from, to, err);
}

// Its Python is the published processor's, which soma does not ship.
static soma_status copy_action_tokenizer(const char *from, const char *to, soma_error *err) {
    char folder[SOMA_PATH_MAX];
    soma_fast *fast;
    SOMA_TRY(soma__writing_find(folder, from, err));
    SOMA_TRY(soma__fast_open(&fast, folder, err));
    soma_status status = soma__path_join(folder, to, "fast", err);
    if (status == SOMA_OK) status = soma__fast_save(fast, folder, err);
    soma__fast_close(fast);
    return status;
}

static bool writes(const soma_model *model) { return model->info.answer.max > 0; }

// ---- openpi

static soma_status openpi_sides(const soma_export_opts *o, const soma_model *model, const soma_robot *robot, soma_error *err) {
    char assets[SOMA_PATH_MAX], dir[SOMA_PATH_MAX], path[SOMA_PATH_MAX];
    json_t *config = model->family->config(model), *own = soma__robot_json(robot);
    if (!config || !own) {
        json_decref(config), json_decref(own);
        return soma__no_memory(err, "the config");
    }
    const char *language = soma__variant_of(config, "paligemma"), *expert = soma__variant_of(config, "action_expert");
    if (language) json_object_set_new(config, "paligemma_variant", json_string(language));
    if (expert) json_object_set_new(config, "action_expert_variant", json_string(expert));
    json_object_set_new(config, "precision", json_string(o->dtype == SOMA_F32 ? "float32" : "bfloat16"));
    json_object_set_new(own, "asset_id", json_string(o->asset));
    json_object_set_new(config, "robot", own);
    SOMA_TRY(save(config, o->out, "config.json", err));
    if (!robot->stats) return SOMA_OK;
    SOMA_TRY(soma__path_join(assets, o->out, "assets", err));
    SOMA_TRY(soma__path_join(dir, assets, o->asset, err));
    SOMA_TRY(soma__dir_make(dir, err));
    SOMA_TRY(soma__path_join(path, dir, "norm_stats.json", err));
    return soma__norm_stats_write(robot->stats, path, err);
}

// ---- LeRobot

static const struct {
    soma_norm_rule rule;
    const char *mode;
} modes[] = {{SOMA_NORM_ZSCORE, "MEAN_STD"},     {SOMA_NORM_QUANTILE, "QUANTILES"}, {SOMA_NORM_MEAN_STD, "MEAN_STD"},
             {SOMA_NORM_QUANTILES, "QUANTILES"}, {SOMA_NORM_MIN_MAX, "MIN_MAX"},    {SOMA_NORM_QUANTILE10, "QUANTILE10"},
             {SOMA_NORM_IDENTITY, "IDENTITY"}};

static const char *mode_of(soma_norm_rule rule) {
    for (size_t i = 0; i < SOMA_COUNT(modes); i++)
        if (modes[i].rule == rule) return modes[i].mode;
    return "IDENTITY";
}

// The pictures' mean and deviation for each camera, of families that take them so: adds to the n tensors. `values` [2][3] and `names` hold
// what they point to.
static size_t add_picture_stats(soma_safetensor *tensors, size_t n, float values[2][3], char names[][96], const soma_model *model,
                                const soma_robot *robot) {
    static const char *const keys[] = {"image_mean", "image_std"}, *const lists[] = {"mean", "std"};
    json_t *config = model && model->family->fits ? model->family->config(model) : NULL;
    for (int i = 0; config && i < 2; i++) {
        for (size_t c = 0; c < 3; c++) values[i][c] = (float)json_number_value(json_array_get(json_object_get(config, keys[i]), c));
        for (int k = 0; k < robot->n_cameras; k++) {
            char *name = names[i * SOMA_MAX_CAMERAS + k];
            snprintf(name, 96, "observation.images.%s.%s", robot->cameras[k], lists[i]);
            tensors[n++] = (soma_safetensor){.name = name, .dtype = SOMA_F32, .n_dims = 3, .shape = {3, 1, 1}, .data = values[i]};
        }
    }
    json_decref(config);
    return n;
}

// model, robot: whose pictures' statistics go along; NULL: none.
static soma_status save_stats(const char *dir, const char *file, const char *feature, const soma_norm *norm, soma_norm_rule rule,
                              const soma_model *model, const soma_robot *robot, soma_error *err) {
    const struct {
        const char *name;
        const double *values;
        bool wider; // the upper end, or the spread, takes openpi's 1e-6 in
    } lists[] = {{"mean", norm->mean, false}, {"std", norm->std, rule == SOMA_NORM_ZSCORE},
                 {"q01", norm->q01, false},   {"q99", norm->q99, rule == SOMA_NORM_QUANTILE},
                 {"min", norm->min, false},   {"max", norm->max, false},
                 {"q10", norm->q10, false},   {"q90", norm->q90, false}};
    soma_safetensor tensors[SOMA_COUNT(lists) + 2 * SOMA_MAX_CAMERAS];
    float pictures[2][3];
    char camera_names[2 * SOMA_MAX_CAMERAS][96];
    float values[SOMA_COUNT(lists)][SOMA_ROBOT_MAX_DIMS];
    char names[SOMA_COUNT(lists)][64], path[SOMA_PATH_MAX];
    size_t n = 0;
    for (size_t i = 0; i < SOMA_COUNT(lists); i++) {
        if (!lists[i].values) continue;
        for (int k = 0; k < norm->size; k++) values[n][k] = (float)(lists[i].values[k] + (lists[i].wider ? 1e-6 : 0));
        snprintf(names[n], sizeof names[n], "%s.%s", feature, lists[i].name);
        tensors[n] = (soma_safetensor){.name = names[n], .dtype = SOMA_F32, .n_dims = 1, .shape = {norm->size}, .data = values[n]};
        n++;
    }
    n = add_picture_stats(tensors, n, pictures, camera_names, model, robot);
    SOMA_TRY(soma__path_join(path, dir, file, err));
    return soma__safetensors_write(path, tensors, n, NULL, err);
}

static json_t *vector(const char *type, int n) { return json_pack("{s:s, s:[i]}", "type", type, "shape", n); }

static json_t *features_json(const soma_model *model, const soma_robot *robot, bool inputs, bool outputs) {
    json_t *out = json_object();
    const int height = (int)model->info.image_size, width = (int)soma__image_width(&model->info);
    for (int i = 0; inputs && i < robot->n_cameras; i++) {
        char key[128];
        snprintf(key, sizeof key, "observation.images.%s", robot->cameras[i]);
        json_object_set_new(out, key, json_pack("{s:s, s:[i, i, i]}", "type", "VISUAL", "shape", 3, height, width));
    }
    if (inputs && robot->n_state) json_object_set_new(out, "observation.state", vector("STATE", robot->n_state));
    if (outputs) json_object_set_new(out, "action", vector("ACTION", robot->n_actions));
    return out;
}

static json_t *map_json(const soma_model *model, const soma_robot *robot) {
    return json_pack("{s:s, s:s, s:s}", "VISUAL", model->family->fits ? "MEAN_STD" : "IDENTITY", "STATE", mode_of(robot->state_rule),
                     "ACTION", mode_of(robot->action_rule));
}

// LeRobot tells relative actions by names; these say which stay absolute.
static json_t *action_names(const soma_robot *robot) {
    json_t *names = json_array();
    for (int i = 0; i < robot->n_actions; i++) {
        char name[32];
        snprintf(name, sizeof name, robot->delta[i] ? "joint_%d" : "gripper_%d", i);
        json_array_append_new(names, json_string(name));
    }
    return names;
}

static bool any_delta(const soma_robot *robot) {
    bool any = false;
    for (int i = 0; i < robot->n_actions; i++) any |= robot->delta[i];
    return any;
}

static void add_step(json_t *steps, const char *name, json_t *config, const char *file) {
    json_t *step = json_pack("{s:s, s:o}", "registry_name", name, "config", config);
    if (file) json_object_set_new(step, "state_file", json_string(file));
    json_array_append_new(steps, step);
}

static json_t *device_json(void) { return json_pack("{s:s, s:n}", "device", "cpu", "float_dtype"); }

// pi0.5 and pi0-FAST write the normalised state into the prompt.
static void add_state_step(json_t *steps, const soma_model *model, const soma_robot *robot) {
    const int width = soma__prompt_state_width(soma__robot_prompt_form(robot, model), robot->n_state); // LeRobot 0.4 pads up to it
    add_step(steps, writes(model) ? "pi0_fast_prepare_state_tokenizer_processor_step" : "pi05_prepare_state_tokenizer_processor_step",
             json_pack("{s:i, s:s}", "max_state_dim", width, "task_key", "task"), NULL);
}

static void add_answer_step(json_t *steps, const soma_model *model) {
    add_step(steps, "action_tokenizer_processor",
             json_pack("{s:b, s:I, s:I, s:s}", "trust_remote_code", 1, "max_action_tokens", (json_int_t)model->info.answer.max,
                       "fast_skip_tokens", (json_int_t)model->info.answer.skip, "action_tokenizer_name", SOMA_FAST_FOLDER),
             NULL);
}

static soma_status save_steps(const soma_export_opts *o, const soma_model *model, const soma_robot *robot, soma_error *err) {
    static const char before_file[] = "policy_preprocessor_step_%d_normalizer_processor.safetensors",
                      after_file[] = "policy_postprocessor_step_0_unnormalizer_processor.safetensors";
    const soma_lerobot *habits = &model->family->lerobot;
    const char *new_line = model->info.state_input ? habits->new_line : NULL; // else the prompt tells the state: it is normalised first
    const bool relative = any_delta(robot);
    const bool stats = robot->state && robot->actions;
    char file[96];
    json_t *before = json_array(), *after = json_array();
    add_step(before, "rename_observations_processor", json_pack("{s:{}}", "rename_map"), NULL);
    add_step(before, "to_batch_processor", json_object(), NULL);
    json_t *change = json_pack("{s:b, s:[s], s:o}", "enabled", relative, "exclude_joints", "gripper", "action_names", action_names(robot));
    if (relative)
        add_step(before, "relative_actions_processor", change, NULL);
    else
        json_decref(change);
    const bool text = model->info.max_tokens > 0;
    json_t *tokens =
        json_pack("{s:I, s:s, s:s, s:s, s:b, s:s}", "max_length", (json_int_t)model->info.max_tokens, "task_key", "task", "padding_side",
                  "right", "padding", "max_length", "truncation", 1, "tokenizer_name", text ? habits->tokenizer : "");
    json_t *norm =
        json_pack("{s:f, s:o, s:o}", "eps", 1e-8, "features", features_json(model, robot, true, true), "norm_map", map_json(model, robot));
    if (new_line) {
        add_step(before, new_line, json_object(), NULL);
        add_step(before, "tokenizer_processor", tokens, NULL);
        add_step(before, "device_processor", device_json(), NULL);
    }
    snprintf(file, sizeof file, before_file, (int)json_array_size(before));
    add_step(before, "normalizer_processor", norm, stats ? file : NULL);
    if (!new_line) {
        if (text) add_state_step(before, model, robot);
        if (text) add_step(before, "tokenizer_processor", json_incref(tokens), NULL);
        if (writes(model)) add_answer_step(before, model);
        add_step(before, "device_processor", device_json(), NULL);
        json_decref(tokens);
    }
    json_t *back =
        json_pack("{s:f, s:o, s:o}", "eps", 1e-8, "features", features_json(model, robot, false, true), "norm_map", map_json(model, robot));
    add_step(after, "unnormalizer_processor", back, stats ? after_file : NULL);
    if (relative) add_step(after, "absolute_actions_processor", json_pack("{s:b}", "enabled", 1), NULL);
    add_step(after, "device_processor", device_json(), NULL);
    soma_status status =
        save(json_pack("{s:s, s:o}", "name", "policy_preprocessor", "steps", before), o->out, "policy_preprocessor.json", err);
    json_t *end = json_pack("{s:s, s:o}", "name", "policy_postprocessor", "steps", after);
    if (status == SOMA_OK)
        status = save(end, o->out, "policy_postprocessor.json", err);
    else
        json_decref(end);
    if (!stats) return status;
    if (status == SOMA_OK) status = save_stats(o->out, file, "observation.state", robot->state, robot->state_rule, model, robot, err);
    if (status == SOMA_OK) status = save_stats(o->out, after_file, "action", robot->actions, robot->action_rule, NULL, NULL, err);
    return status;
}

static soma_status lerobot_sides(const soma_export_opts *o, const soma_model *model, const soma_robot *robot, soma_error *err) {
    const soma_model_info *info = &model->info;
    bool own = false;
    json_t *config =
        json_pack("{s:s, s:I, s:o, s:o, s:s, s:b, s:b, s:o}", "type", info->type, "n_obs_steps", (json_int_t)(1 + info->history),
                  "input_features", features_json(model, robot, true, false), "output_features", features_json(model, robot, false, true),
                  "device", "cpu", "use_amp", 0, "push_to_hub", 0, "normalization_mapping", map_json(model, robot));
    json_t *padded = json_pack("{s:I, s:I, s:I, s:I, s:i, s:I}", "chunk_size", (json_int_t)info->horizon, "n_action_steps",
                               (json_int_t)info->horizon, "max_state_dim", (json_int_t)info->state_dim, "max_action_dim",
                               (json_int_t)info->action_dim, "empty_cameras", 0, "tokenizer_max_length", (json_int_t)info->max_tokens);
    if (config && padded && !model->family->fits) json_object_update(config, padded);
    json_decref(padded);
    json_t *fields = model->family->lerobot.fields(model, o->dtype, &own);
    if (!config || !fields || json_object_update(config, fields)) {
        json_decref(config), json_decref(fields);
        return soma__no_memory(err, "the config");
    }
    json_decref(fields);
    if (own) soma__log(SOMA_LOG_WARN, "%s: LeRobot has no name for these sizes, and its loader will refuse them", o->out);
    if (any_delta(robot)) { // since LeRobot 0.5; before, its parser refuses the keys
        json_object_set_new(config, "use_relative_actions", json_true());
        json_object_set_new(config, "relative_exclude_joints", json_pack("[s]", "gripper"));
        json_object_set_new(config, "action_feature_names", action_names(robot));
    }
    SOMA_TRY(save(config, o->out, "config.json", err));
    return save_steps(o, model, robot, err);
}

// What LeRobot's steps cannot say is refused instead of lost.
static soma_status check_lerobot(const soma_export_opts *o, const soma_model *model, const soma_robot *r, soma_error *err) {
    bool forms = false;
    if (!model->family->lerobot.fields)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: LeRobot has no policy %s; --layout openpi keeps it for soma", o->policy,
                          model->info.type);
    if (writes(model) && (!model->info.answer.lerobot || model->info.answer.gap))
        return soma__fail(err, SOMA_UNSUPPORTED,
                          "%s: it writes openpi's form of answers, which LeRobot does not read; a policy for LeRobot is trained with "
                          "\"lerobot_form\": true in --model",
                          o->policy);
    if (!writes(model) && model->info.noise != 1 && !model->info.no_flow)
        return soma__fail(
            err, SOMA_UNSUPPORTED,
            "%s: it answers with the mean chunk, from no noise, which LeRobot cannot be told; --layout openpi keeps it for soma",
            o->policy);
    for (int i = 0; i < r->n_state; i++) forms |= r->state_forms[i].kind != SOMA_FORM_SAME;
    for (int i = 0; i < r->n_actions; i++) forms |= r->action_forms[i].kind != SOMA_FORM_SAME;
    if (forms)
        return soma__fail(err, SOMA_UNSUPPORTED,
                          "%s: LeRobot has no step for this robot's conversions of joints; --layout openpi keeps them", o->policy);
    return SOMA_OK;
}

soma_status soma__export_sides(const soma_export_opts *o, const soma_model *model, const soma_robot *robot, const char *vocabulary,
                               soma_error *err) {
    if (o->lerobot) SOMA_TRY(check_lerobot(o, model, robot, err));
    if (!o->lerobot && writes(model))
        soma__log(SOMA_LOG_WARN, "%s: openpi's PyTorch code has no pi0-FAST: this folder is for soma", o->out);
    else if (!writes(model) && model->info.noise != 1 && !model->info.no_flow)
        soma__log(SOMA_LOG_WARN, "%s: it answers with the mean chunk, from no noise; openpi's sampler starts from noise", o->out);
    SOMA_TRY(o->lerobot ? lerobot_sides(o, model, robot, err) : openpi_sides(o, model, robot, err));
    if (writes(model)) SOMA_TRY(copy_action_tokenizer(vocabulary, o->out, err));
    return copy_vocabulary(vocabulary, o->out, err);
}
