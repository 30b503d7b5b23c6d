// SPDX-License-Identifier: Apache-2.0
// The one reader and writer of GR00T's modality.json: data/ makes parts of a dataset from it, serve/ the names that clients use.
#include "format/modality.h"

#include <string.h>

static const char *const groups[] = {"state", "action", "video", "annotation"};

// A number of an entry; -1 where there is none.
static bool read_place(int64_t *out, const json_t *value, int64_t least) {
    *out = value ? (int64_t)json_integer_value(value) : -1;
    return !value || (json_is_integer(value) && *out >= least);
}

static soma_status take_entry(const char *group, const char *name, const json_t *value, const char *path, soma_modality_take *take,
                              void *user, soma_error *err) {
    soma_modality_entry e = {.group = group,
                             .name = name,
                             .key = json_string_value(json_object_get(value, "original_key")),
                             .rotation = json_string_value(json_object_get(value, "rotation_type")),
                             .relative = json_is_false(json_object_get(value, "absolute"))};
    if (!read_place(&e.start, json_object_get(value, "start"), 0) || !read_place(&e.end, json_object_get(value, "end"), e.start + 1))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s.%.80s\" has a \"start\" and an \"end\" behind it, both whole numbers", path, group,
                          name);
    return take(user, &e, path, err);
}

soma_status soma__modality_each(const char *path, soma_modality_take *take, void *user, soma_error *err) {
    json_t *file, *value;
    const char *name;
    SOMA_TRY(soma__json_load(&file, path, err));
    soma_status status = json_is_object(file) ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "%s: must hold a JSON object", path);
    for (size_t g = 0; g < SOMA_COUNT(groups) && status == SOMA_OK; g++)
        json_object_foreach(json_object_get(file, groups[g]), name, value) {
            status = take_entry(groups[g], name, value, path, take, user, err);
            if (status != SOMA_OK) break;
        }
    json_decref(file);
    return status;
}

bool soma__modality_put(json_t *file, const soma_modality_entry *e) {
    if (!json_object_get(file, e->group)) json_object_set_new(file, e->group, json_object());
    json_t *entry = json_object();
    bool ok = !json_object_set_new(json_object_get(file, e->group), e->name, entry);
    if (ok && e->start >= 0) ok = !json_object_set_new(entry, "start", json_integer(e->start));
    if (ok && e->end >= 0) ok = !json_object_set_new(entry, "end", json_integer(e->end));
    if (ok && e->key) ok = !json_object_set_new(entry, "original_key", json_string(e->key));
    if (ok && e->rotation) ok = !json_object_set_new(entry, "rotation_type", json_string(e->rotation));
    if (ok && e->relative) ok = !json_object_set_new(entry, "absolute", json_false());
    return ok;
}

bool soma__modality_instructs(const char *name) {
    static const char annotation[] = "annotation.", judges[] = ".validity";
    const size_t n = strlen(name), end = sizeof judges - 1;
    return !strncmp(name, annotation, sizeof annotation - 1) && (n < end || strcmp(name + n - end, judges) != 0);
}
