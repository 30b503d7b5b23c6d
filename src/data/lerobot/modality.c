// SPDX-License-Identifier: Apache-2.0
// GR00T's meta/modality.json: which values of a state or an action are which part of the robot, what its cameras and its annotations are
// called. They become parts of the dataset (data/dataset.h) with the names that GR00T's configs use: state.left_arm, action.left_arm,
// video.ego_view, annotation.human.action.task_description.
//
// An entry for a feature that this dataset does not have is left out (the file is often shared between datasets); a range that does not lie
// within its feature is refused.
#include "base/file.h"
#include "data/lerobot/lerobot.h"

#include <string.h>

typedef struct group {
    const char *name, *whole; // the feature that is meant where "original_key" does not say; NULL: "annotation.NAME"
    soma_feature_kind kind;
} group;

static const group groups[] = {{"state", "observation.state", SOMA_FEATURE_VECTOR},
                               {"action", "action", SOMA_FEATURE_VECTOR},
                               {"video", "", SOMA_FEATURE_IMAGE},
                               {"annotation", NULL, SOMA_FEATURE_VECTOR}};

static int find_feature(const lerobot *l, const char *name) {
    for (int i = 0; i < l->d.n_features; i++)
        if (!strcmp(l->features[i].name, name)) return i;
    return -1;
}

static soma_status read_range(soma_feature *part, const json_t *entry, const soma_feature *whole, const char *where, soma_error *err) {
    const json_t *start = json_object_get(entry, "start"), *end = json_object_get(entry, "end");
    int64_t from = start ? (int64_t)json_integer_value(start) : 0, to = end ? (int64_t)json_integer_value(end) : whole->size;
    bool numbers = (!start || json_is_integer(start)) && (!end || json_is_integer(end));
    if (!numbers || whole->n_dims != 1 || from < 0 || to <= from || to > whole->size)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is %lld to %lld of \"%s\", which has %lld values", where, part->name,
                          (long long)from, (long long)to, whole->name, (long long)whole->size);
    part->start = from;
    part->size = part->shape[0] = to - from;
    part->names = whole->names ? whole->names + from : NULL;
    return SOMA_OK;
}

static soma_status read_part(lerobot *l, const group *g, const char *name, const json_t *entry, const char *where, soma_error *err) {
    const char *key = json_string_value(json_object_get(entry, "original_key")), *rotation;
    char usual[400];
    snprintf(usual, sizeof usual, "%s", g->whole ? g->whole : "annotation.");
    if (!g->whole) snprintf(usual, sizeof usual, "annotation.%.380s", name);
    int whole = find_feature(l, key ? key : usual);
    if (whole < 0 || l->features[whole].kind != g->kind) return SOMA_OK;
    if (l->d.n_parts == LEROBOT_PARTS) return soma__fail(err, SOMA_BAD_INPUT, "%s: more than %d parts", where, LEROBOT_PARTS);
    soma_feature *part = &l->features[l->d.n_features + l->d.n_parts];
    *part = l->features[whole];
    part->whole = whole;
    part->name = soma__arena_printf(&l->arena, "%s.%s", g->name, name);
    if (!part->name) return soma__no_memory(err, where);
    rotation = json_string_value(json_object_get(entry, "rotation_type"));
    if (rotation && !(part->rotation = soma__arena_strdup(&l->arena, rotation))) return soma__no_memory(err, where);
    part->relative = json_is_false(json_object_get(entry, "absolute"));
    if (g->kind == SOMA_FEATURE_VECTOR && g->whole) SOMA_TRY(read_range(part, entry, &l->features[whole], where, err));
    l->d.n_parts++;
    return SOMA_OK;
}

soma_status lerobot_read_modality(lerobot *l, soma_error *err) {
    char path[SOMA_PATH_MAX];
    json_t *all, *entry;
    const char *name;
    SOMA_TRY(soma__path_join(path, l->d.path, "meta/modality.json", err));
    if (!soma__file_exists(path)) return SOMA_OK;
    SOMA_TRY(soma__json_load(&all, path, err));
    soma_status status = json_is_object(all) ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "%s: must hold a JSON object", path);
    for (size_t g = 0; g < SOMA_COUNT(groups) && status == SOMA_OK; g++)
        json_object_foreach(json_object_get(all, groups[g].name), name, entry) {
            status = read_part(l, &groups[g], name, entry, path, err);
            if (status != SOMA_OK) break;
        }
    json_decref(all);
    return status;
}
