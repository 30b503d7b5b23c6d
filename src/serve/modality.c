// SPDX-License-Identifier: Apache-2.0
// modality.json (format/modality.h) against a policy: the parts must cover its state and action without holes, in any order, and the videos
// must be its cameras.
#include "format/modality.h"
#include "serve/groot_map.h"

#include <stdio.h>
#include <string.h>

static soma_status check_name(const char *name, const char *where, soma_error *err) {
    size_t n = strlen(name);
    if (n && n < SOMA_MODALITY_NAME && strcspn(name, "\"\\\n\r\t") == n) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%.80s\" cannot be the name of a part (1 to %d bytes, no quotes)", where, name,
                      SOMA_MODALITY_NAME - 1);
}

typedef struct reading {
    soma_modality *m;
    const soma_policy_info *info;
    bool taken[2][4096]; // numbers of the state, of the action
    int covered[2];
} reading;

static soma_status read_part(reading *r, const soma_modality_entry *e, const char *where, soma_error *err) {
    const int k = !strcmp(e->group, "action"), size = k ? r->info->n_actions : r->info->n_state;
    const int64_t most = SOMA_MIN(size, (int)SOMA_COUNT(r->taken[k]));
    soma_modality_part *parts = k ? r->m->actions : r->m->states;
    int *n = k ? &r->m->n_actions : &r->m->n_states;
    if (*n == SOMA_MODALITY_PARTS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" has more than %d parts", where, e->group, SOMA_MODALITY_PARTS);
    if (e->start < 0 || e->end < 0)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s.%s\" has no \"start\" and \"end\"", where, e->group, e->name);
    for (int64_t i = e->start; i < SOMA_MIN(e->end, most); i++) {
        if (r->taken[k][i]) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\": two parts have number %lld", where, e->group, (long long)i);
        r->taken[k][i] = true;
    }
    if (e->end > most)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s.%s\" ends at %lld; the policy has %d", where, e->group, e->name, (long long)e->end,
                          size);
    r->covered[k] += (int)(e->end - e->start);
    soma_modality_part *p = &parts[(*n)++];
    snprintf(p->name, sizeof p->name, "%s", e->name);
    p->start = (int)e->start;
    p->end = (int)e->end;
    return SOMA_OK;
}

static soma_status read_video(reading *r, const soma_modality_entry *e, const char *where, soma_error *err) {
    static const char prefix[] = "observation.images.";
    soma_modality *m = r->m;
    const char *key = e->key ? e->key : e->name, *camera = NULL;
    if (!strncmp(key, prefix, sizeof prefix - 1)) key += sizeof prefix - 1;
    for (int i = 0; i < r->info->n_cameras; i++)
        if (!strcmp(r->info->camera_names[i], key)) camera = r->info->camera_names[i];
    if (!camera || m->n_videos == SOMA_MAX_CAMERAS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"video.%s\" is camera \"%.80s\", which the policy does not have", where, e->name, key);
    snprintf(m->videos[m->n_videos].name, SOMA_MODALITY_NAME, "%s", e->name);
    m->videos[m->n_videos++].camera = camera;
    return SOMA_OK;
}

static soma_status take(void *user, const soma_modality_entry *e, const char *where, soma_error *err) {
    if (!strcmp(e->group, "annotation")) return SOMA_OK;
    SOMA_TRY(check_name(e->name, where, err));
    return strcmp(e->group, "video") ? read_part(user, e, where, err) : read_video(user, e, where, err);
}

static soma_status check_whole(const reading *r, const char *where, soma_error *err) {
    for (int k = 0; k < 2; k++) {
        const int size = k ? r->info->n_actions : r->info->n_state;
        if (r->covered[k] != size)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: the parts of \"%s\" have %d numbers in all; the policy has %d", where,
                              k ? "action" : "state", r->covered[k], size);
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
    reading r = {.m = m, .info = info};
    SOMA_TRY(soma__modality_each(path, take, &r, err));
    return check_whole(&r, path, err);
}
