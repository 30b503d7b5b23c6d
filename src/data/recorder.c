// SPDX-License-Identifier: Apache-2.0
// A live dataset writer with a rule for frames that come too fast.
#include <soma/record.h>

#include "base/arena.h"
#include "base/file.h"
#include "data/writer.h"

#include <math.h>
#include <string.h>

enum { VALUES_MAX = 4096, CAMERAS_MAX = 64 };
#define QUEUE_SECONDS 2.0

struct soma_recorder {
    soma_dataset_writer *writer;
    bool wait;
    soma_recorder_counts counts;
};

static soma_status check_spec(const char *path, const soma_recorder_spec *s, soma_error *err) {
    if (!(s->fps > 0) || s->fps > 1000 || s->n_state < 1 || s->n_state > VALUES_MAX || s->n_actions < 1 || s->n_actions > VALUES_MAX ||
        s->n_cameras < 0 || s->n_cameras > CAMERAS_MAX || s->queue < 0)
        return soma__fail(
            err, SOMA_BAD_INPUT,
            "%s: a recording needs a rate up to 1000 Hz, 1 to %d values of state and action, and 0 to %d cameras, not %g Hz, %d, "
            "%d and %d",
            path, VALUES_MAX, CAMERAS_MAX, s->fps, s->n_state, s->n_actions, s->n_cameras);
    SOMA_CHECK(!s->n_cameras || (s->camera_names && s->image_sizes), "cameras of a recording have names and sizes");
    return SOMA_OK;
}

// state_0, state_1, ... where no names are given.
static const char *const *name_values(soma_arena *arena, const char *const *names, const char *what, int n) {
    if (names) return names;
    const char **out = soma__arena_alloc(arena, (size_t)n * sizeof *out);
    for (int i = 0; out && i < n; i++)
        if (!(out[i] = soma__arena_printf(arena, "%s_%d", what, i))) return NULL;
    return out;
}

static soma_status open_writer(soma_recorder *r, const char *path, const soma_recorder_spec *s, soma_arena *arena, soma_error *err) {
    char info[SOMA_PATH_MAX];
    const soma_dataset_spec spec = {.robot_type = s->robot_type,
                                    .fps = s->fps,
                                    .n_state = s->n_state,
                                    .n_actions = s->n_actions,
                                    .n_cameras = s->n_cameras,
                                    .state_names = name_values(arena, s->state_names, "state", s->n_state),
                                    .action_names = name_values(arena, s->action_names, "action", s->n_actions),
                                    .camera_names = s->camera_names,
                                    .image_sizes = s->image_sizes,
                                    .live = s->queue ? s->queue : (int)ceil(QUEUE_SECONDS * s->fps)};
    if (!spec.state_names || !spec.action_names) return soma__no_memory(err, "the names of a recording");
    SOMA_TRY(soma__path_join(info, path, "meta/info.json", err));
    if (!s->resume || !soma__file_exists(info)) return soma__dataset_writer_open(&r->writer, path, &spec, err);
    SOMA_TRY(soma__dataset_writer_resume(&r->writer, path, &spec, err));
    r->counts.episodes = soma__dataset_writer_episodes(r->writer);
    r->counts.frames = soma__dataset_writer_frames(r->writer);
    soma__log(SOMA_LOG_INFO, "%s: goes on behind %lld episodes", path, (long long)r->counts.episodes);
    return SOMA_OK;
}

soma_status soma_recorder_open(soma_recorder **out, const char *path, const soma_recorder_spec *spec, soma_error *err) {
    *out = NULL;
    SOMA_TRY(check_spec(path, spec, err));
    soma_arena arena = {0};
    soma_recorder *r = soma__calloc(1, sizeof *r);
    soma_status status = r ? open_writer(r, path, spec, &arena, err) : soma__no_memory(err, path);
    soma__arena_free(&arena);
    if (status != SOMA_OK) {
        soma_recorder_close(r);
        return status;
    }
    r->wait = spec->wait;
    *out = r;
    return SOMA_OK;
}

soma_status soma_recorder_frame(soma_recorder *r, const float *state, const float *action, const uint8_t *const *images, soma_error *err) {
    if (!r->wait && !soma__dataset_writer_has_room(r->writer)) {
        if (!r->counts.left_out++) soma__log(SOMA_LOG_WARN, "the encoders are behind; frames are left out of the recording");
        return SOMA_OK;
    }
    SOMA_TRY(soma__dataset_writer_frame(r->writer, state, action, images, err));
    r->counts.episode_frames++;
    return SOMA_OK;
}

soma_status soma_recorder_episode(soma_recorder *r, const char *task, soma_error *err) {
    SOMA_TRY(soma__dataset_writer_episode(r->writer, task, err));
    r->counts.episodes++;
    r->counts.frames += r->counts.episode_frames;
    r->counts.episode_frames = 0;
    return SOMA_OK;
}

void soma_recorder_drop(soma_recorder *r) {
    soma__dataset_writer_drop(r->writer);
    r->counts.episode_frames = 0;
}

soma_recorder_counts soma_recorder_count(const soma_recorder *r) { return r->counts; }

soma_status soma_recorder_finish(soma_recorder *r, soma_error *err) {
    r->counts.episode_frames = 0;
    return soma__dataset_writer_finish(r->writer, err);
}

void soma_recorder_close(soma_recorder *r) {
    if (!r) return;
    soma__dataset_writer_close(r->writer);
    soma__free(r);
}
