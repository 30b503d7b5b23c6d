// SPDX-License-Identifier: Apache-2.0
// Reading and writing a config by its table of fields.
#include "model/fields.h"

#include <stdio.h>
#include <string.h>

soma_status soma__optional(soma_status status, soma_error *err) {
    if (status == SOMA_NOT_FOUND && err) *err = (soma_error){0};
    return status == SOMA_NOT_FOUND ? SOMA_OK : status;
}

// Sections hold sizes of ours only: what is no field there is a misspelling.
static soma_status refuse_unknown(const soma_field *fields, size_t n, const char *section, const json_t *in, const char *where,
                                  soma_error *err) {
    if (!json_is_object(in)) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is an object of sizes", where, section);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)in, key, value) {
        bool known = false;
        for (size_t i = 0; i < n && !known; i++) known = !strcmp(fields[i].section, section) && !strcmp(fields[i].key, key);
        if (!known) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" has no size named \"%.64s\"", where, section, key);
    }
    return SOMA_OK;
}

static soma_status read_bool(bool *out, const json_t *in, const char *key, const char *where, soma_error *err) {
    const json_t *value = json_object_get(in, key);
    if (!value) return SOMA_NOT_FOUND;
    if (!json_is_boolean(value)) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is true or false", where, key);
    *out = json_is_true(value);
    return SOMA_OK;
}

soma_status soma__fields_read(void *config, const soma_field *fields, size_t n, const json_t *json, const char *where, soma_error *err) {
    for (size_t i = 0; i < n; i++) {
        const soma_field *f = &fields[i];
        const json_t *in = *f->section ? json_object_get(json, f->section) : json;
        if (!in) continue;
        if (*f->section) SOMA_TRY(refuse_unknown(fields, n, f->section, in, where, err));
        const char *key = f->other && !json_object_get(in, f->key) ? f->other : f->key;
        void *at = (char *)config + f->offset;
        soma_status status = SOMA_OK;
        switch (f->kind) {
        case SOMA_FIELD_INT: status = soma__json_int(at, in, key, f->min, f->max, where, err); break;
        case SOMA_FIELD_REAL: status = soma__json_real(at, in, key, where, err); break;
        case SOMA_FIELD_BOOL: status = read_bool(at, in, key, where, err); break;
        }
        SOMA_TRY(soma__optional(status, err));
    }
    return SOMA_OK;
}

static json_t *field_json(const void *config, const soma_field *f) {
    const void *at = (const char *)config + f->offset;
    switch (f->kind) {
    case SOMA_FIELD_INT: return json_integer(*(const int64_t *)at);
    case SOMA_FIELD_REAL: return json_real(*(const double *)at);
    default: return json_boolean(*(const bool *)at);
    }
}

bool soma__fields_write(const void *config, const soma_field *fields, size_t n, json_t *out) {
    for (size_t i = 0; i < n; i++) {
        const soma_field *f = &fields[i];
        if (*f->section && !json_object_get(out, f->section) && json_object_set_new(out, f->section, json_object())) return false;
        json_t *in = *f->section ? json_object_get(out, f->section) : out;
        if (json_object_set_new(in, f->key, field_json(config, f))) return false;
    }
    return true;
}

soma_status soma__cameras_read(soma_camera_name names[SOMA_MODEL_CAMERAS], soma_model_info *info, const json_t *json, const char *where,
                               soma_error *err) {
    const json_t *list = json_object_get(json, "camera_order");
    size_t n = list ? json_array_size(list) : (size_t)info->n_cameras;
    if (n < 1 || n > SOMA_MODEL_CAMERAS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"camera_order\" is a list of 1 to %d names", where, SOMA_MODEL_CAMERAS);
    for (size_t i = 0; list && i < n; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name || !*name || strlen(name) >= sizeof names[i])
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"camera_order\": a camera's name is a text of 1 to 63 bytes", where);
        snprintf(names[i], sizeof names[i], "%s", name);
    }
    info->n_cameras = (int)n;
    for (size_t i = 0; i < n; i++) info->cameras[i] = names[i];
    return SOMA_OK;
}

bool soma__cameras_write(const soma_model_info *info, json_t *out) {
    json_t *list = json_array();
    for (int i = 0; i < info->n_cameras; i++)
        if (json_array_append_new(list, json_string(info->cameras[i]))) {
            json_decref(list);
            return false;
        }
    return list && !json_object_set_new(out, "camera_order", list);
}

soma_status soma__check_vision(const soma_vit_config *c, const char *where, soma_error *err) {
    if (c->image % c->patch || c->width % c->n_heads)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: image_size is a multiple of patch_size, and hidden_size of num_attention_heads", where);
    return SOMA_OK;
}

soma_status soma__check_gemma(const soma_gemma *c, const char *where, soma_error *err) {
    if (c->n_heads % c->n_kv_heads || c->head_dim % 2)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: num_heads is a multiple of num_kv_heads, and head_dim is even", where);
    return SOMA_OK;
}

soma_status soma__config_new(soma_model **model, size_t size, soma_config_read *read, const json_t *json, const char *where,
                             soma_error *err) {
    void *config = soma__alloc(size);
    json_t *own = json_copy((json_t *)json);
    *model = NULL;
    soma_status status = config && own ? read(config, own, where, err) : soma__no_memory(err, "a model's config");
    json_decref(own);
    if (status == SOMA_OK)
        *model = config;
    else
        soma__free(config);
    return status;
}

soma_status soma__preset_read(size_t *which, const soma_family *family, const json_t *json, const char *where, soma_error *err) {
    const char *preset = "base";
    SOMA_TRY(soma__optional(soma__json_string(&preset, json, "preset", where, err), err));
    char known[128] = "";
    for (size_t i = 0, n = 0; family->presets[i]; i++) {
        if (!strcmp(family->presets[i], preset)) {
            *which = i;
            return SOMA_OK;
        }
        if (n < sizeof known) n += (size_t)snprintf(known + n, sizeof known - n, "%s\"%s\"", i ? ", " : "", family->presets[i]);
    }
    return soma__fail(err, SOMA_BAD_INPUT, "%s: %s has no preset \"%.64s\"; there are %s", where, family->name, preset, known);
}

json_t *soma__config_json(const soma_model *model, const char *preset, const soma_field *fields, size_t n) {
    json_t *out = json_pack("{s:s, s:s}", "model_type", model->info.type, "preset", preset);
    if (out && soma__cameras_write(&model->info, out) && soma__fields_write(model, fields, n, out)) return out;
    json_decref(out);
    return NULL;
}
