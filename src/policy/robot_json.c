// SPDX-License-Identifier: Apache-2.0
// A robot as a JSON object (docs/robots.md): read with every mistake named, written with what differs from the defaults.
#include "policy/robot.h"

#include "base/file.h"
#include "base/str.h"
#include "transform/delta.h"

#include <stdio.h>
#include <string.h>

static const char *const resize_names[] = {"pil", "torch", "lerobot", "lerobot_04", "smolvla"}; // in the order of soma_resize_rule

// Everything that the object may have. "like", "model", "metadata", "asset_id" and "norm_stats" are read by soma__robot_resolve and _stats.
static const char *const keys[] = {"name",
                                   "like",
                                   "n_state",
                                   "n_actions",
                                   "rate",
                                   "cameras",
                                   "state_keys",
                                   "convert",
                                   "cameras_required",
                                   "cameras_ignored",
                                   "absent",
                                   "cameras_optional",
                                   "delta",
                                   "hold",
                                   "normalise",
                                   "resize",
                                   "prompt_form",
                                   "prompt",
                                   "asset_id",
                                   "norm_stats",
                                   "model",
                                   "metadata"};

static soma_status check_keys(const json_t *robot, const char *where, soma_error *err) {
    const char *key;
    json_t *value;
    if (!json_is_object(robot)) return soma__fail(err, SOMA_BAD_INPUT, "%s: a robot is a JSON object", where);
    json_object_foreach((json_t *)robot, key, value) {
        size_t nearest = 0, best = SIZE_MAX;
        for (size_t i = 0; i < SOMA_COUNT(keys); i++) {
            size_t d = soma__str_distance(key, keys[i]);
            if (d < best) best = d, nearest = i;
        }
        if (!best) continue;
        bool near = soma__str_near(key, best);
        return soma__fail(err, SOMA_BAD_INPUT, "%s: a robot has no \"%.64s\"%s%s%s", where, key, near ? "; did you mean \"" : "",
                          near ? keys[nearest] : "", near ? "\"?" : "");
    }
    return SOMA_OK;
}

// ---- reading

static soma_status copy_name(soma_robot_name out, const json_t *value, const char *key, const char *where, soma_error *err) {
    const char *name = json_string_value(value);
    if (!name || !*name || strlen(name) >= sizeof(soma_robot_name))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is a list of names of 1 to %d bytes", where, key, SOMA_ROBOT_NAME - 1);
    strcpy(out, name);
    return SOMA_OK;
}

static soma_status read_names(soma_robot_name *out, int *n, int room, const json_t *robot, const char *key, const char *where,
                              soma_error *err) {
    const json_t *list = json_object_get(robot, key), *value;
    size_t i;
    *n = 0;
    if (!list) return SOMA_OK;
    if (!json_is_array(list) || json_array_size(list) > (size_t)room)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is a list of at most %d names", where, key, room);
    json_array_foreach(list, i, value) SOMA_TRY(copy_name(out[(*n)++], value, key, where, err));
    return SOMA_OK;
}

static int find_camera(const soma_robot *r, const char *name) {
    int i = 0;
    while (i < r->n_cameras && strcmp(r->cameras[i], name)) i++;
    return i;
}

// The list's places are the model's cameras; null: this robot has none there.
static soma_status read_cameras(soma_robot *r, const json_t *robot, const char *where, soma_error *err) {
    const json_t *list, *value;
    size_t slot;
    SOMA_TRY(soma__json_get(&list, robot, "cameras", where, err));
    if (!json_is_array(list) || json_array_size(list) > SOMA_MAX_CAMERAS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"cameras\" is a list of at most %d names", where, SOMA_MAX_CAMERAS);
    r->n_cameras = 0;
    json_array_foreach(list, slot, value) {
        if (json_is_null(value)) continue;
        soma_robot_name name;
        SOMA_TRY(copy_name(name, value, "cameras", where, err));
        if (find_camera(r, name) < r->n_cameras) return soma__fail(err, SOMA_BAD_INPUT, "%s: camera \"%s\" is listed twice", where, name);
        memcpy(r->cameras[r->n_cameras], name, sizeof name);
        r->slots[r->n_cameras++] = (int)slot;
    }
    soma_robot_name needed[SOMA_ROBOT_NAMES];
    int n;
    SOMA_TRY(read_names(needed, &n, SOMA_ROBOT_NAMES, robot, "cameras_required", where, err));
    for (int i = 0; i < n; i++) {
        int camera = find_camera(r, needed[i]);
        if (camera == r->n_cameras)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"cameras_required\": there is no camera \"%s\"", where, needed[i]);
        r->required[camera] = true;
    }
    SOMA_TRY(read_names(r->ignored, &r->n_ignored, SOMA_ROBOT_NAMES, robot, "cameras_ignored", where, err));
    if (json_object_get(robot, "cameras_optional")) SOMA_TRY(soma__json_bool(&r->cameras_optional, robot, "cameras_optional", where, err));
    const char *absent = "masked";
    if (json_object_get(robot, "absent")) SOMA_TRY(soma__json_string(&absent, robot, "absent", where, err));
    r->absent_black = !strcmp(absent, "black");
    if (r->absent_black || !strcmp(absent, "masked")) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: \"absent\" is \"masked\" or \"black\", not \"%.40s\"", where, absent);
}

static soma_status set_forms(soma_form *forms, int n, soma_form form, const json_t *entry, const char *key, const char *where,
                             soma_error *err) {
    const json_t *list = json_object_get(entry, key), *value;
    size_t i;
    if (!list) return SOMA_OK;
    json_array_foreach(list, i, value) {
        json_int_t at = json_is_integer(value) ? json_integer_value(value) : -1;
        if (at < 0 || at >= n)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"convert\": \"%s\" lists places from 0 to %d", where, key, n - 1);
        if (forms[at].kind != SOMA_FORM_SAME)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"convert\": %s %d is converted twice", where, key, (int)at);
        forms[at] = form;
    }
    return json_is_array(list) ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "%s: \"convert\": \"%s\" is a list of places", where, key);
}

static soma_status read_convert(soma_robot *r, const json_t *robot, const char *where, soma_error *err) {
    const json_t *list = json_object_get(robot, "convert"), *entry;
    size_t i;
    if (!list) return SOMA_OK;
    if (!json_is_array(list)) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"convert\" is a list of objects", where);
    json_array_foreach(list, i, entry) {
        const char *key, *name = NULL;
        json_t *value;
        json_object_foreach((json_t *)entry, key,
                            value) if (strcmp(key, "state") && strcmp(key, "actions") && strcmp(key, "form") && strcmp(key, "scale") &&
                                       strcmp(key, "offset")) return soma__fail(err, SOMA_BAD_INPUT,
                                                                                "%s: \"convert\" has \"state\", \"actions\", \"form\", "
                                                                                "\"scale\" and \"offset\", no \"%.40s\"",
                                                                                where, key);
        soma_form form = {.kind = SOMA_FORM_AFFINE, .scale = 1};
        if (json_object_get(entry, "form")) {
            SOMA_TRY(soma__json_string(&name, entry, "form", where, err));
            form = (soma_form){.kind = SOMA_FORM_ALOHA_GRIPPER};
            if (strcmp(name, "aloha_gripper"))
                return soma__fail(err, SOMA_BAD_INPUT, "%s: \"convert\": the form \"%.40s\" is not known; there is \"aloha_gripper\"",
                                  where, name);
        }
        if (json_object_get(entry, "scale")) SOMA_TRY(soma__json_real(&form.scale, entry, "scale", where, err));
        if (json_object_get(entry, "offset")) SOMA_TRY(soma__json_real(&form.offset, entry, "offset", where, err));
        if (!name && form.scale == 0) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"convert\": a scale of 0 cannot be undone", where);
        SOMA_TRY(set_forms(r->state_forms, r->n_state, form, entry, "state", where, err));
        SOMA_TRY(set_forms(r->action_forms, r->n_actions, form, entry, "actions", where, err));
    }
    return SOMA_OK;
}

// A list of true and false, or of runs: [6, -1] is six times true, once false. What it does not reach is false.
static soma_status read_delta(soma_robot *r, const json_t *robot, const char *where, soma_error *err) {
    const json_t *list = json_object_get(robot, "delta"), *value;
    size_t i, n = json_array_size(list), flags = 0;
    int runs[SOMA_ROBOT_MAX_DIMS], reached;
    if (!list) return SOMA_OK;
    if (!json_is_array(list) || n > SOMA_ROBOT_MAX_DIMS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"delta\" is a list of at most %d entries", where, SOMA_ROBOT_MAX_DIMS);
    json_array_foreach(list, i, value) {
        json_int_t run = json_is_integer(value) ? json_integer_value(value) : 0;
        flags += json_is_boolean(value);
        if (!json_is_boolean(value) && (!run || run > SOMA_ROBOT_MAX_DIMS || run < -SOMA_ROBOT_MAX_DIMS))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"delta\" is a list of true and false, or of runs such as [6, -1]", where);
        runs[i] = json_is_boolean(value) ? (json_is_true(value) ? 1 : -1) : (int)run;
    }
    reached = soma__delta_mask(r->delta, SOMA_ROBOT_MAX_DIMS, runs, (int)n);
    if (reached > r->n_actions || (flags && flags != n))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"delta\" speaks of %d actions, there are %d", where, reached, r->n_actions);
    return SOMA_OK;
}

// One rule for both, or one each; not told: openpi's for this family.
static soma_status read_rules(soma_robot *r, const json_t *robot, const soma_model *model, const char *where, soma_error *err) {
    const json_t *value = json_object_get(robot, "normalise");
    const char *state, *actions;
    state = actions = strcmp(model->info.type, "pi0") ? "openpi_quantile" : "openpi_zscore";
    if (json_is_object(value)) {
        SOMA_TRY(soma__json_string(&state, value, "state", where, err));
        SOMA_TRY(soma__json_string(&actions, value, "actions", where, err));
    } else if (value) {
        SOMA_TRY(soma__json_string(&state, robot, "normalise", where, err));
        actions = state;
    }
    soma_status status = soma__norm_rule_parse(&r->state_rule, state, err);
    if (status == SOMA_OK) status = soma__norm_rule_parse(&r->action_rule, actions, err);
    return status == SOMA_OK ? SOMA_OK : soma__fail_in(err, "%s", where);
}

static soma_status read_texts(soma_robot *r, const json_t *robot, const char *where, soma_error *err) {
    const char *text;
    if (json_object_get(robot, "prompt_form")) {
        SOMA_TRY(soma__json_string(&text, robot, "prompt_form", where, err));
        if (soma__prompt_form_parse(&r->form, text, err)) return soma__fail_in(err, "%s", where);
    }
    if (json_object_get(robot, "prompt")) {
        SOMA_TRY(soma__json_string(&text, robot, "prompt", where, err));
        if (strlen(text) >= sizeof r->prompt)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"prompt\" has at most %zu bytes", where, sizeof r->prompt - 1);
        strcpy(r->prompt, text);
    }
    if (!json_object_get(robot, "resize")) return SOMA_OK;
    SOMA_TRY(soma__json_string(&text, robot, "resize", where, err));
    for (size_t i = 0; i < SOMA_COUNT(resize_names); i++)
        if (!strcmp(text, resize_names[i])) {
            r->resize = (soma_resize_rule)i;
            return SOMA_OK;
        }
    return soma__fail(err, SOMA_BAD_INPUT,
                      "%s: \"resize\" is \"pil\", \"torch\", \"lerobot\", \"lerobot_04\" or \"smolvla\", not \"%.40s\"", where, text);
}

soma_status soma__robot_read(soma_robot *r, const json_t *robot, const soma_model *model, const char *where, soma_error *err) {
    int64_t n_state, n_actions;
    *r = (soma_robot){0};
    SOMA_TRY(check_keys(robot, where, err));
    SOMA_TRY(soma__json_int(&n_state, robot, "n_state", 0, SOMA_ROBOT_MAX_DIMS, where, err));
    SOMA_TRY(soma__json_int(&n_actions, robot, "n_actions", 1, SOMA_ROBOT_MAX_DIMS, where, err));
    if (json_object_get(robot, "rate")) SOMA_TRY(soma__json_real(&r->rate, robot, "rate", where, err));
    if (!(r->rate >= 0)) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"rate\" is %g Hz; 0 means unknown", where, r->rate);
    r->n_state = (int)n_state;
    r->n_actions = (int)n_actions;
    SOMA_TRY(read_rules(r, robot, model, where, err));
    SOMA_TRY(read_texts(r, robot, where, err));
    SOMA_TRY(read_delta(r, robot, where, err));
    SOMA_TRY(soma__robot_read_hold(r, robot, where, err));
    SOMA_TRY(read_convert(r, robot, where, err));
    SOMA_TRY(read_names(r->state_keys, &r->n_state_keys, SOMA_ROBOT_NAMES, robot, "state_keys", where, err));
    SOMA_TRY(read_cameras(r, robot, where, err));
    if (!json_object_get(robot, "absent")) r->absent_black = soma__robot_prompt_form(r, model) == SOMA_PROMPT_FAST;
    return SOMA_OK;
}

// ---- writing

static json_t *names_json(const soma_robot_name *names, int n) {
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_string(names[i]));
    return list;
}

static json_t *cameras_json(const soma_robot *r) {
    json_t *list = json_array();
    for (int i = 0; i < r->n_cameras; i++) {
        while (json_array_size(list) < (size_t)r->slots[i] && !json_array_append_new(list, json_null()))
            ;
        json_array_append_new(list, json_string(r->cameras[i]));
    }
    return list;
}

static json_t *required_json(const soma_robot *r) {
    json_t *list = json_array();
    for (int i = 0; i < r->n_cameras; i++)
        if (r->required[i]) json_array_append_new(list, json_string(r->cameras[i]));
    return list;
}

static void add_forms(json_t *list, const soma_form *forms, int n, const char *key) {
    for (int i = 0; i < n; i++) {
        json_t *entry = NULL;
        if (forms[i].kind == SOMA_FORM_AFFINE)
            entry = json_pack("{s:[i], s:f, s:f}", key, i, "scale", forms[i].scale, "offset", forms[i].offset);
        if (forms[i].kind == SOMA_FORM_ALOHA_GRIPPER) entry = json_pack("{s:[i], s:s}", key, i, "form", "aloha_gripper");
        if (entry) json_array_append_new(list, entry);
    }
}

// Takes `value`; an empty list is not worth a line.
static void put_list(json_t *object, const char *key, json_t *value) {
    if (json_array_size(value))
        json_object_set_new(object, key, value);
    else
        json_decref(value);
}

json_t *soma__robot_json(const soma_robot *r) {
    json_t *delta = json_array(), *convert = json_array(),
           *out = json_pack("{s:i, s:i, s:f}", "n_state", r->n_state, "n_actions", r->n_actions, "rate", r->rate);
    const char *state = soma__norm_rule_name(r->state_rule), *actions = soma__norm_rule_name(r->action_rule);
    for (int i = 0; i < r->n_actions; i++) json_array_append_new(delta, json_boolean(r->delta[i]));
    add_forms(convert, r->state_forms, r->n_state, "state");
    add_forms(convert, r->action_forms, r->n_actions, "actions");
    json_t *rules = r->state_rule == r->action_rule ? json_string(state) : json_pack("{s:s, s:s}", "state", state, "actions", actions);
    bool ok = out && delta && convert && rules;
    if (!ok) {
        json_decref(delta), json_decref(convert), json_decref(rules), json_decref(out);
        return NULL;
    }
    json_object_set_new(out, "normalise", rules);
    json_object_set_new(out, "delta", delta);
    put_list(out, "convert", convert);
    put_list(out, "hold", soma__robot_hold_json(r));
    json_object_set_new(out, "cameras", cameras_json(r));
    put_list(out, "cameras_required", required_json(r));
    put_list(out, "cameras_ignored", names_json(r->ignored, r->n_ignored));
    put_list(out, "state_keys", names_json(r->state_keys, r->n_state_keys));
    json_object_set_new(out, "cameras_optional", json_boolean(r->cameras_optional));
    json_object_set_new(out, "absent", json_string(r->absent_black ? "black" : "masked"));
    if (r->resize != SOMA_RESIZE_PIL) json_object_set_new(out, "resize", json_string(resize_names[r->resize]));
    if (r->form != SOMA_PROMPT_MODEL) json_object_set_new(out, "prompt_form", json_string(soma__prompt_form_name(r->form)));
    if (*r->prompt) json_object_set_new(out, "prompt", json_string(r->prompt));
    return out;
}
