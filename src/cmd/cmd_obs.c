// SPDX-License-Identifier: Apache-2.0
// Observations from the three kinds of source.
#include "cmd/cmd_obs.h"
#include "base/file.h"
#include "serve/observe.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { OBS_FILE_MAX = 1 << 30 };

void soma__cmd_obs_close(soma_cmd_obs *s) {
    soma__arena_free(&s->arena);
    soma__free(s->message);
    soma__safetensors_close(s->tensors);
    if (s->reader) s->data->format->reader_close(s->reader);
    soma__dataset_close(s->data);
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

// ---- the three kinds of source

// "state" [n] of any dtype, "image.<camera>" u8 [height, width, 3], "prompt" in the metadata.
static soma_status from_tensors(soma_cmd_obs *s, const char *path, soma_error *err) {
    SOMA_TRY(soma__safetensors_open(&s->tensors, path, err));
    soma_obs *o = &s->obs;
    const soma_safetensor *state = soma__safetensors_find(s->tensors, "state");
    char shape[160];
    if (!state || state->n_dims != 1)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: wanted a tensor \"state\" [n], found %s", path,
                          state ? soma__safetensor_shape(shape, state) : "none");
    float *values = soma__arena_alloc(&s->arena, (size_t)state->n_values * sizeof *values);
    if (!values) return soma__no_memory(err, "the state");
    soma__to_f32(values, state->dtype, state->data, state->n_values);
    o->state = values;
    o->n_state = (int)state->n_values;
    o->prompt = soma__safetensors_metadata(s->tensors, "prompt");
    for (size_t i = 0; i < soma__safetensors_count(s->tensors); i++) {
        const soma_safetensor *t = soma__safetensors_at(s->tensors, i);
        if (strncmp(t->name, "image.", 6)) continue;
        if (t->dtype != SOMA_U8 || t->n_dims != 3 || t->shape[2] != 3 || o->n_images == SOMA_MAX_CAMERAS)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is %s %s; wanted U8 [height, width, 3], and at most %d of them", path,
                              t->name, soma_dtype_name(t->dtype), soma__safetensor_shape(shape, t), SOMA_MAX_CAMERAS);
        o->images[o->n_images++] = (soma_image){t->name + 6, t->data, (int)t->shape[1], (int)t->shape[0]};
    }
    return SOMA_OK;
}

static soma_status from_message(soma_cmd_obs *s, const char *path, const soma_policy_info *info, soma_error *err) {
    size_t size;
    const soma_msg *message;
    SOMA_TRY(soma__file_read(&s->message, &size, path, OBS_FILE_MAX, err));
    if (soma__msg_parse(&message, &s->arena, s->message, size, true, err) || soma__observe(&s->obs, info, message, &s->arena, err))
        return soma__fail_in(err, "%s", path);
    for (int i = 0; i < s->obs.n_images; i++) { // the policy may be gone when the pictures are looked at
        s->obs.images[i].camera = soma__arena_strdup(&s->arena, s->obs.images[i].camera);
        if (!s->obs.images[i].camera) return soma__no_memory(err, "a camera's name");
    }
    return SOMA_OK;
}

static soma_status read_state(soma_cmd_obs *s, int64_t episode, int64_t frame, soma_error *err) {
    int f = soma__dataset_feature(s->data, "observation.state");
    if (f < 0) f = soma__dataset_feature(s->data, "state");
    if (f < 0) return soma__fail(err, SOMA_NOT_FOUND, "%s: no feature observation.state or state", s->data->path);
    size_t size = (size_t)s->data->features[f].size;
    float *all = soma__arena_alloc(&s->arena, (size_t)s->data->episodes[episode].n_frames * size * sizeof *all);
    if (!all) return soma__no_memory(err, "the state");
    SOMA_TRY(s->data->format->read_vectors(s->reader, episode, f, all, err));
    s->obs.state = all + (size_t)frame * size;
    s->obs.n_state = (int)size;
    return SOMA_OK;
}

static soma_status read_pictures(soma_cmd_obs *s, const soma_policy_info *info, int64_t episode, int64_t frame, soma_error *err) {
    const soma_dataset *d = s->data;
    for (int c = 0; c < info->n_cameras; c++) {
        for (int f = 0; f < d->n_features; f++) {
            const char *dot = strrchr(d->features[f].name, '.'), *camera = dot ? dot + 1 : d->features[f].name;
            if (d->features[f].kind != SOMA_FEATURE_IMAGE || strcmp(camera, info->camera_names[c])) continue;
            uint8_t *rgb = soma__arena_alloc(&s->arena, (size_t)d->features[f].size);
            if (!rgb) return soma__no_memory(err, "a picture");
            SOMA_TRY(d->format->read_image(s->reader, episode, frame, f, rgb, err));
            s->obs.images[s->obs.n_images++] = (soma_image){camera, rgb, (int)d->features[f].shape[1], (int)d->features[f].shape[0]};
            break;
        }
    }
    return SOMA_OK;
}

static soma_status from_dataset(soma_cmd_obs *s, const char *path, int64_t episode, int64_t frame, const soma_policy_info *info,
                                soma_error *err) {
    SOMA_TRY(soma__dataset_open(&s->data, path, err));
    int64_t i = 0;
    while (i < s->data->n_episodes && s->data->episodes[i].index != episode) i++;
    if (i == s->data->n_episodes || !s->data->episodes[i].present)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: episode %" PRId64 " is not there", path, episode);
    const soma_episode *e = &s->data->episodes[i];
    if (frame < 0 || frame >= e->n_frames)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: episode %" PRId64 " has frames 0 to %" PRId64 ", not %" PRId64, path, episode,
                          e->n_frames - 1, frame);
    SOMA_TRY(s->data->format->reader_open(&s->reader, s->data, err));
    s->obs.prompt = e->task;
    SOMA_TRY(read_state(s, i, frame, err));
    return e->video_present ? read_pictures(s, info, i, frame, err) : SOMA_OK;
}

soma_status soma__cmd_obs_open(soma_cmd_obs *s, const char *path, int64_t episode, int64_t frame, const soma_policy_info *info,
                               soma_error *err) {
    soma_status status;
    if (soma__dir_exists(path))
        status = from_dataset(s, path, episode, frame, info, err);
    else if (ends_with(path, ".safetensors"))
        status = from_tensors(s, path, err);
    else if (ends_with(path, ".msgpack"))
        status = from_message(s, path, info, err);
    else
        status = soma__fail(err, SOMA_BAD_INPUT, "%s: wanted a .safetensors file, a .msgpack file or a dataset's folder", path);
    return status;
}
