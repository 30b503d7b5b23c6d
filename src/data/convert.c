// SPDX-License-Identifier: Apache-2.0
// Reads through the dataset interface and writes through the recorder's writer; an episode that fails half-way is dropped whole.
#include "data/convert.h"
#include "base/arena.h"
#include "data/writer.h"

#include <string.h>

typedef struct converting {
    const soma_dataset *d;
    const soma_convert_opts *o;
    soma_arena arena;
    soma_dataset_reader *reader;
    soma_dataset_writer *writer;
    soma_dataset_spec spec;
    float *state, *action, *part; // one episode: [frames, n], [frames, n], [frames, one feature]
    size_t state_room, action_room, part_room;
    uint8_t *pictures[SOMA_CONVERT_CAMERAS];
} converting;

// ---- what is written

// The names of all dimensions: the feature's own, or "state.3" by its name and place.
static const char *const *name_dimensions(converting *c, const int *features, int n_features, int *n) {
    int at = 0;
    for (int i = 0; i < n_features; i++) *n += (int)c->d->features[features[i]].size;
    const char **names = soma__arena_alloc(&c->arena, sizeof *names * (size_t)(*n + 1));
    for (int i = 0; i < n_features && names; i++) {
        const soma_feature *f = &c->d->features[features[i]];
        const char *dot = strrchr(f->name, '.');
        for (int64_t j = 0; j < f->size; j++, at++) {
            bool named = f->names && f->n_dims == 1;
            names[at] = named ? f->names[j] : soma__arena_printf(&c->arena, "%s.%lld", dot ? dot + 1 : f->name, (long long)j);
            if (!names[at]) return NULL;
        }
    }
    return names;
}

static soma_status name_cameras(converting *c, soma_error *err) {
    const soma_convert_opts *o = c->o;
    const char **names = soma__arena_alloc(&c->arena, sizeof *names * (size_t)(o->n_cameras + 1));
    if (!names) return soma__no_memory(err, "the cameras");
    for (int i = 0; i < o->n_cameras; i++) {
        const soma_feature *f = &c->d->features[o->cameras[i]], *first = &c->d->features[o->cameras[0]];
        const char *dot = strrchr(f->name, '.');
        names[i] = dot ? dot + 1 : f->name;
        if (f->shape[0] != first->shape[0] || f->shape[1] != first->shape[1])
            return soma__fail(err, SOMA_UNSUPPORTED,
                              "%s: \"%s\" is %lld x %lld and \"%s\" %lld x %lld; the writer wants one size: choose with --cameras",
                              c->d->path, first->name, (long long)first->shape[1], (long long)first->shape[0], f->name,
                              (long long)f->shape[1], (long long)f->shape[0]);
        for (int k = 0; k < i; k++)
            if (!strcmp(names[k], names[i]))
                return soma__fail(err, SOMA_BAD_INPUT, "%s: two cameras would be called \"%s\": choose with --cameras", c->d->path,
                                  names[i]);
        c->spec.image_width = (int)f->shape[1];
        c->spec.image_height = (int)f->shape[0];
        if (!(c->pictures[i] = soma__alloc((size_t)f->size))) return soma__no_memory(err, "a picture");
    }
    c->spec.camera_names = names;
    c->spec.n_cameras = o->n_cameras;
    return SOMA_OK;
}

static soma_status prepare(converting *c, soma_error *err) {
    const soma_convert_opts *o = c->o;
    c->spec = (soma_dataset_spec){.robot_type = c->d->robot_type, .fps = o->fps > 0 ? o->fps : c->d->fps};
    if (!(c->spec.fps > 0)) return soma__fail(err, SOMA_BAD_INPUT, "%s: the dataset tells no rate: give it with --fps", c->d->path);
    c->spec.state_names = name_dimensions(c, o->states, o->n_states, &c->spec.n_state);
    c->spec.action_names = name_dimensions(c, o->actions, o->n_actions, &c->spec.n_actions);
    if (!c->spec.state_names || !c->spec.action_names) return soma__no_memory(err, "the names of dimensions");
    return name_cameras(c, err);
}

// ---- episodes

// Features side by side: out [frames, n].
static soma_status read_joined(converting *c, float **out, size_t *room, const int *features, int n_features, int n, int64_t e,
                               soma_error *err) {
    int64_t frames = c->d->episodes[e].n_frames, at = 0;
    if (!soma__grow((void **)out, room, (size_t)(frames * n) + 1, sizeof **out)) return soma__no_memory(err, "an episode");
    for (int i = 0; i < n_features; i++) {
        int64_t size = c->d->features[features[i]].size;
        if (!soma__grow((void **)&c->part, &c->part_room, (size_t)(frames * size) + 1, sizeof *c->part))
            return soma__no_memory(err, "an episode");
        SOMA_TRY(c->d->format->read_vectors(c->reader, e, features[i], c->part, err));
        for (int64_t t = 0; t < frames; t++) memcpy(*out + t * n + at, c->part + t * size, (size_t)size * sizeof **out);
        at += size;
    }
    return SOMA_OK;
}

static soma_status read_pictures(converting *c, int64_t e, int64_t frame, soma_error *err) {
    for (int i = 0; i < c->o->n_cameras; i++) {
        int feature = c->o->cameras[i];
        if (!c->d->format->present(c->d, e, feature))
            return soma__fail(err, SOMA_NOT_FOUND, "%s: episode %lld has no pictures of \"%s\" in this copy", c->d->path,
                              (long long)c->d->episodes[e].index, c->d->features[feature].name);
        SOMA_TRY(c->d->format->read_image(c->reader, e, frame, feature, c->pictures[i], err));
    }
    return SOMA_OK;
}

// *readable is false when the episode itself, not the writing, is what failed.
static soma_status convert_episode(converting *c, int64_t e, bool *readable, soma_error *err) {
    const soma_convert_opts *o = c->o;
    const soma_episode *episode = &c->d->episodes[e];
    soma_status status = read_joined(c, &c->state, &c->state_room, o->states, o->n_states, c->spec.n_state, e, err);
    if (status == SOMA_OK) status = read_joined(c, &c->action, &c->action_room, o->actions, o->n_actions, c->spec.n_actions, e, err);
    for (int64_t t = 0; t < episode->n_frames && status == SOMA_OK; t++) {
        status = read_pictures(c, e, t, err);
        if (status == SOMA_OK)
            SOMA_TRY(soma__dataset_writer_frame(c->writer, c->state + t * c->spec.n_state, c->action + t * c->spec.n_actions,
                                                (const uint8_t *const *)c->pictures, err));
    }
    *readable = status == SOMA_OK;
    return status == SOMA_OK ? soma__dataset_writer_episode(c->writer, episode->task, err) : status;
}

static soma_status convert_all(converting *c, soma_converted *result, soma_error *err) {
    const soma_dataset *d = c->d;
    for (int64_t e = 0; e < d->n_episodes; e++) {
        bool readable = true;
        if (!d->episodes[e].present || !d->episodes[e].n_frames) continue;
        soma_status status = convert_episode(c, e, &readable, err);
        if (status != SOMA_OK && (readable || !c->o->skip_bad || status == SOMA_NO_MEMORY)) return status;
        if (status != SOMA_OK) {
            soma__dataset_writer_drop(c->writer);
            result->skipped++;
            if (c->o->skipped) c->o->skipped(c->o->user, e, err ? err->text : "");
        } else {
            result->episodes++;
            result->frames += d->episodes[e].n_frames;
        }
        if (c->o->progress) c->o->progress(c->o->user, e + 1, d->n_episodes);
    }
    if (!result->episodes) return soma__fail(err, SOMA_BAD_INPUT, "%s: no episode could be converted", d->path);
    return soma__dataset_writer_finish(c->writer, err);
}

soma_status soma__dataset_convert(soma_converted *result, const soma_dataset *d, const char *out, const soma_convert_opts *o,
                                  soma_error *err) {
    SOMA_CHECK(o->n_states > 0 && o->n_actions > 0 && o->n_states <= SOMA_CONVERT_VECTORS && o->n_actions <= SOMA_CONVERT_VECTORS &&
                   o->n_cameras >= 0 && o->n_cameras <= SOMA_CONVERT_CAMERAS,
               "a conversion has a state, actions, and as many cameras as there is room for");
    *result = (soma_converted){0};
    converting c = {.d = d, .o = o};
    soma_status status = prepare(&c, err);
    if (status == SOMA_OK) status = d->format->reader_open(&c.reader, d, err);
    if (status == SOMA_OK) status = soma__dataset_writer_open(&c.writer, out, &c.spec, err);
    if (status == SOMA_OK) status = convert_all(&c, result, err);
    soma__dataset_writer_close(c.writer);
    d->format->reader_close(c.reader);
    for (int i = 0; i < SOMA_CONVERT_CAMERAS; i++) soma__free(c.pictures[i]);
    soma__free(c.state);
    soma__free(c.action);
    soma__free(c.part);
    soma__arena_free(&c.arena);
    return status;
}
