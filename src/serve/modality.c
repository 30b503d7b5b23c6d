// SPDX-License-Identifier: Apache-2.0
// modality.json, as GR00T's datasets have it in meta/: {"state": {K: {start, end}}, "action": {K: {start, end}}, "video": {K:
// {original_key: "observation.images.CAMERA"}}}. Parts must cover the policy's state and action without holes, in any order.
#include "serve/groot_map.h"

#include <stdio.h>
#include <string.h>

static soma_status check_name(const char *name, const char *where, soma_error *err) {
    size_t n = strlen(name);
    if (n && n < SOMA_MODALITY_NAME && strcspn(name, "\"\\\n\r\t") == n) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%.80s\" cannot be the name of a part (1 to %d bytes, no quotes)", where, name,
                      SOMA_MODALITY_NAME - 1);
}

static soma_status read_parts(soma_modality_part *parts, int *n, const json_t *file, const char *group, int size, const char *where,
                              soma_error *err) {
    const char *name;
    json_t *part;
    const json_t *object = json_object_get(file, group);
    int64_t start, end, covered = 0;
    bool taken[4096] = {0};
    if (!json_is_object(object)) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is not an object", where, group);
    json_object_foreach((json_t *)object, name, part) {
        SOMA_TRY(check_name(name, where, err));
        if (*n == SOMA_MODALITY_PARTS)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" has more than %d parts", where, group, SOMA_MODALITY_PARTS);
        SOMA_TRY(soma__json_int(&start, part, "start", 0, SOMA_COUNT(taken) - 1, where, err));
        SOMA_TRY(soma__json_int(&end, part, "end", start + 1, SOMA_COUNT(taken), where, err));
        for (int64_t i = start; i < end; i++) {
            if (taken[i]) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\": two parts have number %lld", where, group, (long long)i);
            taken[i] = true;
        }
        covered += end - start;
        soma_modality_part *p = &parts[(*n)++];
        snprintf(p->name, sizeof p->name, "%s", name);
        p->start = (int)start;
        p->end = (int)end;
        if (end > size)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s.%s\" ends at %lld; the policy has %d", where, group, name, (long long)end,
                              size);
    }
    if (covered == size) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: the parts of \"%s\" have %lld numbers in all; the policy has %d", where, group,
                      (long long)covered, size);
}

static soma_status read_videos(soma_modality *m, const json_t *file, const soma_policy_info *info, const char *where, soma_error *err) {
    static const char prefix[] = "observation.images.";
    const char *name;
    json_t *video;
    json_object_foreach(json_object_get(file, "video"), name, video) {
        const char *key = json_string_value(json_object_get(video, "original_key"));
        SOMA_TRY(check_name(name, where, err));
        if (!key) key = name;
        if (!strncmp(key, prefix, sizeof prefix - 1)) key += sizeof prefix - 1;
        const char *camera = NULL;
        for (int i = 0; i < info->n_cameras; i++)
            if (!strcmp(info->camera_names[i], key)) camera = info->camera_names[i];
        if (!camera || m->n_videos == SOMA_MAX_CAMERAS)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"video.%s\" is camera \"%.80s\", which the policy does not have", where, name,
                              key);
        snprintf(m->videos[m->n_videos].name, SOMA_MODALITY_NAME, "%s", name);
        m->videos[m->n_videos++].camera = camera;
    }
    return SOMA_OK;
}

static void own_names(soma_modality *m, const soma_policy_info *info) {
    for (; m->n_videos < info->n_cameras; m->n_videos++) {
        snprintf(m->videos[m->n_videos].name, SOMA_MODALITY_NAME, "%s", info->camera_names[m->n_videos]);
        m->videos[m->n_videos].camera = info->camera_names[m->n_videos];
    }
    for (; m->n_states < SOMA_MIN(info->n_state_keys, SOMA_MODALITY_PARTS); m->n_states++)
        snprintf(m->states[m->n_states].name, SOMA_MODALITY_NAME, "%s", info->state_keys[m->n_states]);
    if (!m->n_states && info->n_state) m->states[m->n_states++] = (soma_modality_part){"state", 0, info->n_state};
    m->actions[m->n_actions++] = (soma_modality_part){"action", 0, info->n_actions};
}

soma_status soma__modality_read(soma_modality *m, const soma_policy_info *info, const char *path, soma_error *err) {
    *m = (soma_modality){0};
    if (!path[0]) {
        own_names(m, info);
        return SOMA_OK;
    }
    json_t *file;
    SOMA_TRY(soma__json_load(&file, path, err));
    soma_status status = read_parts(m->states, &m->n_states, file, "state", info->n_state, path, err);
    if (status == SOMA_OK) status = read_parts(m->actions, &m->n_actions, file, "action", info->n_actions, path, err);
    if (status == SOMA_OK) status = read_videos(m, file, info, path, err);
    json_decref(file);
    return status;
}
