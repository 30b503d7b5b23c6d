// SPDX-License-Identifier: Apache-2.0
// GR00T's meta/modality.json as parts of the dataset (data/dataset.h), with the names that GR00T's configs use: state.left_arm,
// action.left_arm, video.ego_view, annotation.human.action.task_description.
//
// An entry for a feature that this dataset does not have is left out (the file is often shared between datasets); a range that does not lie
// within its feature is refused.
#include "base/file.h"
#include "data/lerobot/lerobot.h"
#include "format/modality.h"

#include <string.h>

static const struct {
    const char *name, *whole; // the feature that is meant where "original_key" does not say; NULL: "annotation.NAME"
} groups[] = {{"state", "observation.state"}, {"action", "action"}, {"video", ""}, {"annotation", NULL}};

static int find_feature(const lerobot *l, const char *name) {
    for (int i = 0; i < l->d.n_features; i++)
        if (!strcmp(l->features[i].name, name)) return i;
    return -1;
}

// The feature that an entry means; -1: none of this dataset.
static int find_whole(const lerobot *l, const soma_modality_entry *entry) {
    char usual[400];
    size_t g = 0;
    while (strcmp(groups[g].name, entry->group)) g++;
    snprintf(usual, sizeof usual, "%s%.380s", groups[g].whole ? groups[g].whole : "annotation.", groups[g].whole ? "" : entry->name);
    int whole = find_feature(l, entry->key ? entry->key : usual);
    if (whole < 0) return -1;
    const soma_feature *f = &l->features[whole];
    if (lerobot_is_text(f)) return groups[g].whole ? -1 : whole; // only an annotation is told in words
    return f->kind == (strcmp(entry->group, "video") ? SOMA_FEATURE_VECTOR : SOMA_FEATURE_IMAGE) ? whole : -1;
}

static soma_status read_range(soma_feature *part, const soma_modality_entry *entry, const soma_feature *whole, const char *where,
                              soma_error *err) {
    int64_t from = entry->start < 0 ? 0 : entry->start, to = entry->end < 0 ? whole->size : entry->end;
    if (whole->n_dims != 1 || to <= from || to > whole->size)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is %lld to %lld of \"%s\", which has %lld values", where, part->name,
                          (long long)from, (long long)to, whole->name, (long long)whole->size);
    part->start = from;
    part->size = part->shape[0] = to - from;
    part->names = whole->names ? whole->names + from : NULL;
    return SOMA_OK;
}

static soma_status take(void *user, const soma_modality_entry *entry, const char *where, soma_error *err) {
    lerobot *l = user;
    int whole = find_whole(l, entry);
    if (whole < 0) return SOMA_OK;
    if (l->d.n_parts == LEROBOT_PARTS) return soma__fail(err, SOMA_BAD_INPUT, "%s: more than %d parts", where, LEROBOT_PARTS);
    soma_feature *part = &l->features[l->d.n_features + l->d.n_parts];
    *part = l->features[whole];
    part->whole = whole;
    part->name = soma__arena_printf(&l->arena, "%s.%s", entry->group, entry->name);
    if (!part->name) return soma__no_memory(err, where);
    if (entry->rotation && !(part->rotation = soma__arena_strdup(&l->arena, entry->rotation))) return soma__no_memory(err, where);
    part->relative = entry->relative;
    if (!strcmp(entry->group, "state") || !strcmp(entry->group, "action"))
        SOMA_TRY(read_range(part, entry, &l->features[whole], where, err));
    l->d.n_parts++;
    return SOMA_OK;
}

soma_status lerobot_read_modality(lerobot *l, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(path, l->d.path, "meta/modality.json", err));
    return soma__file_exists(path) ? soma__modality_each(path, take, l, err) : SOMA_OK;
}
