// SPDX-License-Identifier: Apache-2.0
// The first message is searched for pictures and numbers, and becomes a description as a policy has one; from then on every message is read
// as an observation for that policy.
#include "serve/collect.h"

#include "base/file.h"
#include "serve/observe.h"

#include <string.h>

struct soma_collector {
    soma_collect_opts o;
    char metadata[200];
    soma_recorder *recorder; // NULL: no frame came yet
    bool taken;              // a client records
    soma_arena arena;        // of the description
    soma_policy_info info, action_info;
    int sizes[SOMA_MAX_CAMERAS][2];
    char *task; // of the open episode; NULL: none was told
};

soma_status soma__collector_open(soma_collector **out, const soma_collect_opts *o, soma_error *err) {
    char **names;
    size_t n = 0;
    *out = NULL;
    if (!(o->fps > 0) || o->fps > 1000) return soma__fail(err, SOMA_BAD_INPUT, "a recording needs its rate: frames per second, up to 1000");
    if (soma__dir_exists(o->path)) {
        SOMA_TRY(soma__dir_list(&names, &n, o->path, err));
        soma__dir_list_free(names, n);
    }
    if (n && !o->resume)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: is not empty; name a new folder, or resume the recording in it", o->path);
    soma_collector *r = *out = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, o->path);
    r->o = *o;
    snprintf(r->metadata, sizeof r->metadata, "{\"records\": true, \"fps\": %g}", o->fps);
    return SOMA_OK;
}

void soma__collector_close(soma_collector *r) {
    if (!r) return;
    soma_recorder_close(r->recorder);
    soma__arena_free(&r->arena);
    soma__free(r->task);
    soma__free(r);
}

// ---- what a frame is

static const soma_msg *find_action(const soma_msg *message, const char **key) {
    static const char *const keys[] = {"action", "actions"};
    for (size_t i = 0; i < SOMA_COUNT(keys); i++) {
        const soma_msg *m = soma__msg_get(message, *key = keys[i]);
        if (m) return m;
    }
    return NULL;
}

static const soma_msg *find_state(const soma_msg *message) {
    static const char *const keys[] = {"state", "observation/state", "observation.state"};
    const soma_msg *m = NULL;
    for (size_t i = 0; !m && i < SOMA_COUNT(keys); i++) m = soma__msg_get(message, keys[i]);
    return m;
}

// "observation/images/front" is of the camera "front".
static const char *name_camera(soma_arena *arena, const soma_msg *key) {
    static const char *const before[] = {"observation/images/", "observation.images.", "observation/", "observation."};
    char *name = soma__arena_printf(arena, "%.*s", (int)SOMA_MIN(key->n, 200u), key->bytes);
    for (size_t i = 0; name && i < SOMA_COUNT(before); i++)
        if (!strncmp(name, before[i], strlen(before[i]))) return name + strlen(before[i]);
    return name;
}

static soma_status find_cameras(soma_collector *r, const char **names, const soma_msg *map, soma_error *err) {
    for (uint32_t i = 0; map && map->kind == SOMA_MSG_MAP && i < map->n; i++) {
        const soma_msg *m = &map->pairs[i].value;
        if (m->kind != SOMA_MSG_NDARRAY || m->array->n_dims != 3) continue;
        if (r->info.n_cameras == SOMA_MAX_CAMERAS)
            return soma__fail(err, SOMA_UNSUPPORTED, "the message has more than %d pictures", SOMA_MAX_CAMERAS);
        if (!(names[r->info.n_cameras++] = name_camera(&r->arena, &map->pairs[i].key))) return soma__no_memory(err, "the cameras");
    }
    return SOMA_OK;
}

static soma_status count_numbers(int *n, const soma_msg *m, const char *what, soma_error *err) {
    char found[200];
    int64_t size = m ? soma__msg_n_numbers(m) : -1;
    if (size < 1 || size > 4096)
        return soma__fail(err, SOMA_BAD_INPUT, "the frame has no \"%s\" with 1 to 4096 numbers, found %s", what,
                          m ? soma__msg_describe(found, m) : "nothing");
    *n = (int)size;
    return SOMA_OK;
}

static soma_status describe(soma_collector *r, const soma_msg *message, soma_error *err) {
    const char **names = soma__arena_alloc(&r->arena, SOMA_MAX_CAMERAS * sizeof *names), **key = soma__arena_alloc(&r->arena, sizeof *key);
    if (!names || !key) return soma__no_memory(err, "the cameras");
    r->info = (soma_policy_info){.family = "recording", .rate = r->o.fps, .camera_names = names};
    r->action_info = (soma_policy_info){.n_state_keys = 1, .state_keys = key};
    SOMA_TRY(count_numbers(&r->info.n_state, find_state(message), "state", err));
    SOMA_TRY(count_numbers(&r->action_info.n_state, find_action(message, key), "action", err));
    SOMA_TRY(find_cameras(r, names, message, err));
    return find_cameras(r, names, soma__msg_get(message, "images"), err);
}

static soma_status begin(soma_collector *r, const soma_msg *message, soma_arena *arena, soma_error *err) {
    soma_obs obs;
    soma__arena_free(&r->arena); // of a message that was refused
    SOMA_TRY(describe(r, message, err));
    SOMA_TRY(soma__observe(&obs, &r->info, message, arena, err));
    for (int c = 0; c < obs.n_images; c++) {
        r->sizes[c][0] = obs.images[c].width;
        r->sizes[c][1] = obs.images[c].height;
    }
    const soma_recorder_spec spec = {.robot_type = r->o.robot_type,
                                     .fps = r->o.fps,
                                     .n_state = r->info.n_state,
                                     .n_actions = r->action_info.n_state,
                                     .n_cameras = r->info.n_cameras,
                                     .camera_names = r->info.camera_names,
                                     .image_sizes = (const int(*)[2])r->sizes,
                                     .resume = r->o.resume};
    return soma_recorder_open(&r->recorder, r->o.path, &spec, err);
}

// ---- frames

static soma_status add_frame(soma_collector *r, const soma_msg *message, soma_arena *arena, soma_error *err) {
    soma_obs obs, action;
    const uint8_t *images[SOMA_MAX_CAMERAS];
    if (!r->recorder) SOMA_TRY(begin(r, message, arena, err));
    SOMA_TRY(soma__observe(&obs, &r->info, message, arena, err));
    SOMA_TRY(soma__observe(&action, &r->action_info, message, arena, err));
    if (obs.n_images < r->info.n_cameras)
        return soma__fail(err, SOMA_BAD_INPUT, "the frame has %d of %d cameras", obs.n_images, r->info.n_cameras);
    for (int c = 0; c < obs.n_images; c++) {
        const soma_image *image = &obs.images[c];
        if (image->width != r->sizes[c][0] || image->height != r->sizes[c][1])
            return soma__fail(err, SOMA_BAD_INPUT, "the picture of camera \"%s\" has %d x %d pixels, the first one had %d x %d",
                              image->camera, image->width, image->height, r->sizes[c][0], r->sizes[c][1]);
        images[c] = image->pixels;
    }
    if (obs.prompt && *obs.prompt && (!r->task || strcmp(r->task, obs.prompt) != 0)) {
        char *task = soma__strdup(obs.prompt);
        if (!task) return soma__no_memory(err, "the task");
        soma__free(r->task);
        r->task = task;
    }
    return soma_recorder_frame(r->recorder, obs.state, action.state, images, err);
}

static void forget(soma_collector *r) {
    if (r->recorder) soma_recorder_drop(r->recorder);
    soma__free(r->task);
    r->task = NULL;
}

static bool says(const soma_msg *message, const char *key) {
    const soma_msg *m = soma__msg_get(message, key);
    return m && m->kind == SOMA_MSG_BOOL && m->flag;
}

static soma_status end_episode(soma_collector *r, soma_error *err) {
    if (!r->recorder) return soma__fail(err, SOMA_BAD_INPUT, "an episode ends that has no frame");
    SOMA_TRY(soma_recorder_episode(r->recorder, r->task, err));
    forget(r);
    return SOMA_OK;
}

static soma_status take(void *ctx, void *pilot, const soma_msg *message, soma_arena *arena, soma_str *answer, soma_error *err) {
    soma_collector *r = ctx;
    const char *key;
    const bool end = says(message, "end"), drop = says(message, "drop");
    (void)pilot;
    if (message->kind != SOMA_MSG_MAP) return soma__fail(err, SOMA_BAD_INPUT, "a frame is a map");
    if (!drop && (!end || find_action(message, &key))) SOMA_TRY(add_frame(r, message, arena, err));
    if (drop)
        forget(r);
    else if (end)
        SOMA_TRY(end_episode(r, err));
    soma_recorder_counts n = {0};
    if (r->recorder) n = soma_recorder_count(r->recorder);
    soma__msg_put_map(answer, 3);
    soma__msg_put_str(answer, "episodes");
    soma__msg_put_int(answer, n.episodes);
    soma__msg_put_str(answer, "frames");
    soma__msg_put_int(answer, n.episode_frames);
    soma__msg_put_str(answer, "left_out");
    soma__msg_put_int(answer, n.left_out);
    return SOMA_OK;
}

// ---- as a policy

static soma_status open_client(void *ctx, void **pilot, soma_error *err) {
    soma_collector *r = ctx;
    if (r->taken) return soma__fail(err, SOMA_BUSY, "another client is recording");
    r->taken = true;
    *pilot = r;
    return SOMA_OK;
}

static void close_client(void *pilot) {
    soma_collector *r = pilot;
    int64_t open = r->recorder ? soma_recorder_count(r->recorder).episode_frames : 0;
    if (open) soma__log(SOMA_LOG_WARN, "the client has gone in the middle of an episode; its %lld frames are dropped", (long long)open);
    forget(r);
    r->taken = false;
}

soma_server_policy soma__collector_policy(soma_collector *r) {
    return (soma_server_policy){.ctx = r,
                                .info = {.family = "recording", .rate = r->o.fps, .horizon = 1, .metadata_json = r->metadata},
                                .open = open_client,
                                .message = take,
                                .close = close_client};
}

soma_status soma__collector_finish(soma_collector *r, soma_recorder_counts *counts, soma_error *err) {
    *counts = (soma_recorder_counts){0};
    if (!r->recorder) return SOMA_OK;
    soma_status status = soma_recorder_finish(r->recorder, err);
    *counts = soma_recorder_count(r->recorder);
    return status;
}
