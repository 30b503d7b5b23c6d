// SPDX-License-Identifier: Apache-2.0
// A LeRobot folder's word about its robot: config.json tells features and their widths, policy_preprocessor.json and
// policy_postprocessor.json the steps between robot and model, in order, with the statistics in safetensors files beside them. What a step
// means is said here as soma's own robot object; a step that is not known is refused, for it would change the numbers.
//
// The same names mean other numbers to LeRobot up to 0.4: it pads the state in the prompt, and a picture's border is darker. A folder is
// read as the version that wrote it did, for so it was trained.
#include "policy/robot.h"

#include "base/file.h"
#include "base/str.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct reading {
    const json_t *config;
    json_t *robot;        // what is being made
    json_t *stats;        // {"state": file, "actions": file}
    const char *rules[2]; // state, actions; NULL: not told yet
    json_t *renames;      // of the observation's keys, from -> to
    const char *dir;
    bool fits;                 // of a family that takes pictures by mean and deviation (soma_family.fits)
    char where[SOMA_PATH_MAX]; // the file whose steps are read
} reading;

// ---- features

static const char *stripped(const char *key) {
    static const char *const prefixes[] = {"observation.images.", "observation."};
    for (size_t i = 0; i < SOMA_COUNT(prefixes); i++)
        if (!strncmp(key, prefixes[i], strlen(prefixes[i]))) return key + strlen(prefixes[i]);
    return key;
}

// The key under which the robot sends what the policy calls `key`.
static const char *sent_as(const reading *r, const char *key) {
    const char *from;
    json_t *to;
    json_object_foreach(r->renames, from, to) if (json_is_string(to) && !strcmp(json_string_value(to), key)) return from;
    return key;
}

static soma_status width_of(int *width, const json_t *feature, const char *key, const char *where, soma_error *err) {
    const json_t *shape = json_object_get(feature, "shape");
    json_int_t n = json_array_size(shape) == 1 ? json_integer_value(json_array_get(shape, 0)) : 0;
    if (n < 1 || n > SOMA_ROBOT_MAX_DIMS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the feature \"%.80s\" has a shape of one number from 1 to %d", where, key,
                          SOMA_ROBOT_MAX_DIMS);
    *width = (int)n;
    return SOMA_OK;
}

// The pictures in the config's order, which is the model's. "empty_camera_0" is a place that no robot fills.
static soma_status read_features(reading *r, const char *where, soma_error *err) {
    const json_t *features;
    json_t *feature, *cameras = json_array(), *order = json_array(), *keys = json_array();
    const char *key;
    int n_state = 0, n_actions = 0;
    soma_status status = cameras && order && keys ? SOMA_OK : soma__no_memory(err, "a robot");
    if (status == SOMA_OK) status = soma__json_get(&features, r->config, "input_features", where, err);
    if (status == SOMA_OK) json_object_foreach((json_t *)features, key, feature) {
            const char *type = json_string_value(json_object_get(feature, "type"));
            if (type && !strcmp(type, "VISUAL")) {
                const char *name = stripped(key);
                json_array_append_new(order, json_string(name));
                json_array_append_new(cameras, strncmp(name, "empty_camera", 12) ? json_string(stripped(sent_as(r, key))) : json_null());
            } else if (type && !strcmp(type, "STATE") && !strcmp(key, "observation.state")) {
                status = width_of(&n_state, feature, key, where, err);
                json_array_append_new(keys, json_string(stripped(sent_as(r, key))));
            } else
                status = soma__fail(err, SOMA_UNSUPPORTED, "%s: the input feature \"%.80s\" (%.20s) has no place in this policy", where,
                                    key, type ? type : "no type");
            if (status != SOMA_OK) break;
        }
    const json_t *outputs = json_object_get(r->config, "output_features");
    if (status == SOMA_OK) status = width_of(&n_actions, json_object_get(outputs, "action"), "action", where, err);
    if (status == SOMA_OK && json_array_size(order) && !json_object_get(r->config, "camera_order")) {
        if (!json_object_get(r->robot, "model")) json_object_set_new(r->robot, "model", json_object());
        json_object_set(json_object_get(r->robot, "model"), "camera_order", order);
    }
    json_object_set_new(r->robot, "n_state", json_integer(n_state));
    json_object_set_new(r->robot, "n_actions", json_integer(n_actions));
    json_object_set_new(r->robot, "cameras", cameras);
    json_object_set_new(r->robot, "state_keys", keys);
    json_decref(order);
    return status;
}

// ---- steps

static soma_status set_rule(reading *r, int which, const json_t *map, const char *type, soma_error *err) {
    static const struct {
        const char *mode, *rule;
    } modes[] = {{"MEAN_STD", "lerobot_mean_std"},
                 {"QUANTILES", "lerobot_quantiles"},
                 {"MIN_MAX", "lerobot_min_max"},
                 {"QUANTILE10", "lerobot_quantile10"},
                 {"IDENTITY", "identity"}};
    const json_t *mode = json_object_get(map, type);
    if (!mode) {
        r->rules[which] = "identity";
        return SOMA_OK;
    }
    for (size_t i = 0; i < SOMA_COUNT(modes); i++)
        if (json_is_string(mode) && !strcmp(json_string_value(mode), modes[i].mode)) {
            r->rules[which] = modes[i].rule;
            return SOMA_OK;
        }
    return soma__fail(err, SOMA_UNSUPPORTED,
                      "%s: %s is normalised by \"%.40s\"; MEAN_STD, QUANTILES, MIN_MAX, QUANTILE10 and IDENTITY are known", r->where, type,
                      json_is_string(mode) ? json_string_value(mode) : "?");
}

// A list of keys to normalise, where there is one, may leave the state out.
static bool normalises_state(const json_t *config) {
    const json_t *keys = json_object_get(config, "normalize_observation_keys"), *key;
    size_t i;
    json_array_foreach(keys, i, key) if (json_is_string(key) && !strcmp(json_string_value(key), "observation.state")) return true;
    return !json_is_array(keys);
}

// The statistics of a camera's pictures, under the name that a step's file gives them, or that LeRobot gave them in model.safetensors
// before it had steps. False: there are none.
static bool picture_list(double out[3], const soma_safetensors *st, const char *key, const char *list) {
    char name[256];
    snprintf(name, sizeof name, "%s.%s", key, list);
    const soma_safetensor *t = soma__safetensors_find(st, name);
    if (!t) {
        int at = snprintf(name, sizeof name, "normalize_inputs.buffer_");
        for (const char *k = key; *k && at + 1 < (int)sizeof name; k++) name[at++] = *k == '.' ? '_' : *k;
        snprintf(name + at, sizeof name - (size_t)at, ".%s", list);
        t = soma__safetensors_find(st, name);
    }
    if (!t || t->n_values != 3) return false;
    float values[3];
    soma__to_f32(values, t->dtype, t->data, 3);
    for (int i = 0; i < 3; i++) out[i] = values[i];
    return true;
}

// All cameras of one mean and deviation (ImageNet's, unless somebody trained otherwise), for the model.
static soma_status read_picture_lists(double lists[2][3], const reading *r, const soma_safetensors *st, soma_error *err) {
    static const char *const names[] = {"mean", "std"};
    const char *key;
    json_t *feature;
    bool any = false;
    json_object_foreach(json_object_get(r->config, "input_features"), key, feature) {
        const char *type = json_string_value(json_object_get(feature, "type"));
        if (!type || strcmp(type, "VISUAL")) continue;
        for (int i = 0; i < 2; i++) {
            double found[3] = {i, i, i};
            if (!picture_list(found, st, key, names[i]))
                soma__log(SOMA_LOG_WARN, "%s: no %s of \"%.80s\": its pictures pass as they are", soma__safetensors_path(st), names[i],
                          key);
            for (int c = 0; c < 3; c++) {
                if (any && fabs(found[c] - lists[i][c]) > 1e-4)
                    return soma__fail(err, SOMA_UNSUPPORTED, "%s: \"%.80s\" has statistics of its own; cameras that share theirs are known",
                                      soma__safetensors_path(st), key);
                lists[i][c] = found[c];
            }
        }
        any = true;
    }
    return SOMA_OK;
}

static soma_status take_pictures(reading *r, const char *mode, const char *file, soma_error *err) {
    double lists[2][3] = {{0, 0, 0}, {1, 1, 1}}; // IDENTITY: 0..1
    if (mode && strcmp(mode, "IDENTITY") && strcmp(mode, "MEAN_STD"))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: pictures are normalised by %.40s; MEAN_STD and IDENTITY are known", r->where, mode);
    if (mode && !strcmp(mode, "MEAN_STD") && file) {
        char path[SOMA_PATH_MAX];
        soma_safetensors *st;
        SOMA_TRY(soma__path_join(path, r->dir, file, err));
        SOMA_TRY(soma__safetensors_open(&st, path, err));
        soma_status status = read_picture_lists(lists, r, st, err);
        soma__safetensors_close(st);
        SOMA_TRY(status);
    }
    json_t *model = json_pack("{s:[f,f,f], s:[f,f,f]}", "image_mean", lists[0][0], lists[0][1], lists[0][2], "image_std", lists[1][0],
                              lists[1][1], lists[1][2]);
    return json_object_set_new(r->robot, "model", model) ? soma__no_memory(err, "a robot") : SOMA_OK;
}

// which: 0 the state (the normaliser), 1 the actions (the un-normaliser)
static soma_status take_normaliser(reading *r, const json_t *step, int which, soma_error *err) {
    const json_t *config = json_object_get(step, "config"), *map = json_object_get(config, "norm_map"),
                 *file = json_object_get(step, "state_file");
    const char *visual = json_string_value(json_object_get(map, "VISUAL"));
    const json_t *eps = json_object_get(config, "eps");
    if (!which && r->fits)
        SOMA_TRY(take_pictures(r, visual, json_string_value(file), err));
    else if (!which && visual && strcmp(visual, "IDENTITY"))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: pictures are normalised by %.40s; these models take them as they are", r->where,
                          visual);
    if (json_is_number(eps) && fabs(json_number_value(eps) - 1e-8) > 1e-12)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: the normaliser's eps is %g; LeRobot's 1e-8 is known", r->where,
                          json_number_value(eps));
    SOMA_TRY(set_rule(r, which, map, which ? "ACTION" : "STATE", err));
    if (!which && !normalises_state(config)) r->rules[0] = "identity";
    if (json_is_string(file)) {
        if (strchr(json_string_value(file), '/'))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"state_file\" is a file of this folder", r->where);
        json_object_set(r->stats, which ? "actions" : "state", (json_t *)file);
    } else if (strcmp(r->rules[which], "identity")) { // as LeRobot does where it has no statistics
        soma__log(SOMA_LOG_WARN, "%s: no statistics of the %s: they pass as they are", r->where, which ? "actions" : "state");
        r->rules[which] = "identity";
    }
    return SOMA_OK;
}

// All actions but those whose names hold an excluded word (case does not count); without names, all.
static soma_status take_relative(reading *r, const json_t *step, soma_error *err) {
    const json_t *config = json_object_get(step, "config"), *excluded = json_object_get(config, "exclude_joints"),
                 *names = json_object_get(config, "action_names"), *word;
    if (!json_is_true(json_object_get(config, "enabled"))) return SOMA_OK;
    json_t *delta = json_array();
    const json_t *shape = json_object_get(json_object_get(json_object_get(r->config, "output_features"), "action"), "shape");
    size_t k, n = (size_t)json_integer_value(json_array_get(shape, 0));
    for (size_t i = 0; i < n && i < SOMA_ROBOT_MAX_DIMS; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        bool relative = true;
        json_array_foreach(excluded, k, word) {
            const char *w = json_string_value(word);
            relative = relative && !(name && w && *w && strcasestr(name, w));
        }
        json_array_append_new(delta, json_boolean(relative));
    }
    return json_object_set_new(r->robot, "delta", delta) ? soma__no_memory(err, "a robot") : SOMA_OK;
}

// LeRobot writes every field of a config (soma's export does not), and those of relative actions came after 0.4.
static bool is_of_04(const json_t *config) {
    return json_object_get(config, "compile_model") && !json_object_get(config, "use_relative_actions");
}

// What each policy does with prompts and pictures, and what it did in 0.4 where that is not the same.
static const struct {
    const char *type, *step, *form, *form_04, *resize, *resize_04;
} habits[] = {
    {"pi0", "pi0_new_line_processor", "lerobot_pi0", "lerobot_pi0", "lerobot", "lerobot_04"},
    {"pi05", "pi05_prepare_state_tokenizer_processor_step", "pi05", "lerobot_04_pi05", "lerobot", "lerobot_04"},
    {"pi0_fast", "pi0_fast_prepare_state_tokenizer_processor_step", "lerobot_pi0_fast", "lerobot_04_pi0_fast", "lerobot", "lerobot_04"},
    {"smolvla", "smolvla_new_line_processor", "smolvla", "smolvla", "smolvla", "smolvla"}};

// `step` NULL: there is none. LeRobot's own steps do not tell the width; soma's do, for 0.4 to pad up to.
static const char *form_of(const reading *r, size_t i, const json_t *step) {
    int64_t width = json_integer_value(json_object_get(json_object_get(step, "config"), "max_state_dim"));
    return is_of_04(r->config) || width == soma__prompt_state_width(SOMA_PROMPT_LEROBOT_04_PI05, 0) ? habits[i].form_04 : habits[i].form;
}

static soma_status take_step(reading *r, const json_t *step, soma_error *err) {
    static const char *const elsewhere[] = {"to_batch_processor", "tokenizer_processor", "action_tokenizer_processor", "device_processor",
                                            "absolute_actions_processor"}; // absolute: the way back of relative
    const char *name = json_string_value(json_object_get(step, "registry_name"));
    if (!name) name = json_string_value(json_object_get(step, "class"));
    if (!name) return soma__fail(err, SOMA_BAD_INPUT, "%s: a step has no \"registry_name\"", r->where);
    for (size_t i = 0; i < SOMA_COUNT(habits); i++)
        if (!strcmp(name, habits[i].step)) {
            json_object_set_new(r->robot, "prompt_form", json_string(form_of(r, i, step)));
            return SOMA_OK;
        }
    for (size_t i = 0; i < SOMA_COUNT(elsewhere); i++)
        if (!strcmp(name, elsewhere[i])) return SOMA_OK;
    if (!strcmp(name, "normalizer_processor")) return take_normaliser(r, step, 0, err);
    if (!strcmp(name, "unnormalizer_processor")) return take_normaliser(r, step, 1, err);
    if (!strcmp(name, "relative_actions_processor") || !strcmp(name, "delta_actions_processor")) return take_relative(r, step, err);
    if (strcmp(name, "rename_observations_processor"))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: the step \"%.80s\" is not known", r->where, name);
    r->renames = json_object_get(json_object_get(step, "config"), "rename_map");
    return SOMA_OK;
}

static soma_status read_steps(reading *r, json_t **root, const char *dir, const char *file, soma_error *err) {
    SOMA_TRY(soma__path_join(r->where, dir, file, err));
    if (!soma__file_exists(r->where)) return SOMA_OK;
    SOMA_TRY(soma__json_load(root, r->where, err));
    const json_t *steps, *step;
    size_t i;
    SOMA_TRY(soma__json_get(&steps, *root, "steps", r->where, err));
    json_array_foreach(steps, i, step) SOMA_TRY(take_step(r, step, err));
    return SOMA_OK;
}

// What config.json says where the steps do not: folders from before LeRobot had processors.
static soma_status fill_gaps(reading *r, const char *where, soma_error *err) {
    const json_t *map = json_object_get(r->config, "normalization_mapping");
    const char *type = json_string_value(json_object_get(r->config, "type"));
    snprintf(r->where, sizeof r->where, "%s", where);
    if (!r->rules[0]) SOMA_TRY(set_rule(r, 0, map, "STATE", err));
    if (!r->rules[1]) SOMA_TRY(set_rule(r, 1, map, "ACTION", err));
    size_t own = 0; // of another type: pi0's
    for (size_t i = 0; i < SOMA_COUNT(habits); i++)
        if (type && !strcmp(type, habits[i].type)) own = i;
    if (type && !strcmp(type, habits[own].type) && !json_object_get(r->robot, "prompt_form"))
        json_object_set_new(r->robot, "prompt_form", json_string(form_of(r, own, NULL)));
    json_object_set_new(r->robot, "normalise", json_pack("{s:s, s:s}", "state", r->rules[0], "actions", r->rules[1]));
    const bool old = is_of_04(r->config);
    if (old && strcmp(habits[own].resize, habits[own].resize_04))
        soma__log(
            SOMA_LOG_WARN,
            "%s: saved by LeRobot 0.4 and read as it does (prompts, borders); where it was only converted there, docs/checkpoints.md helps",
            where);
    json_object_set_new(r->robot, "resize", json_string(r->fits ? "pil" : old ? habits[own].resize_04 : habits[own].resize));
    json_object_set_new(r->robot, "absent", json_string("masked"));
    if (json_object_size(r->stats)) json_object_set(r->robot, "norm_stats", r->stats);
    return SOMA_OK;
}

// Folders from before LeRobot had processors: the statistics lie among the weights.
static soma_status take_weights_word(reading *r, const char *where, soma_error *err) {
    const json_t *map = json_object_get(r->config, "normalization_mapping");
    snprintf(r->where, sizeof r->where, "%s", where);
    json_object_set_new(r->stats, "state", json_string("model.safetensors"));
    json_object_set_new(r->stats, "actions", json_string("model.safetensors"));
    return take_pictures(r, json_string_value(json_object_get(map, "VISUAL")), "model.safetensors", err);
}

soma_status soma__robot_from_lerobot(json_t **robot, const json_t *config, const char *dir, soma_error *err) {
    const char *type = json_string_value(json_object_get(config, "type"));
    const soma_family *family = type ? soma__family_find(type) : NULL;
    reading r = {.config = config, .robot = json_object(), .stats = json_object(), .dir = dir, .fits = family && family->fits};
    json_t *before = NULL, *after = NULL;
    char where[SOMA_PATH_MAX];
    *robot = NULL;
    soma_status status = r.robot && r.stats ? soma__path_join(where, dir, "config.json", err) : soma__no_memory(err, "a robot");
    if (status == SOMA_OK) status = read_steps(&r, &before, dir, "policy_preprocessor.json", err);
    if (status == SOMA_OK) status = read_steps(&r, &after, dir, "policy_postprocessor.json", err);
    if (status == SOMA_OK && r.fits && !before) status = take_weights_word(&r, where, err);
    if (status == SOMA_OK) status = read_features(&r, where, err);
    if (status == SOMA_OK) status = fill_gaps(&r, where, err);
    if (status == SOMA_OK) *robot = json_incref(r.robot);
    json_decref(r.robot);
    json_decref(r.stats);
    json_decref(before);
    json_decref(after);
    return status;
}
