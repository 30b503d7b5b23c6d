// SPDX-License-Identifier: Apache-2.0
// Reads through the dataset interface and writes through the recorder's writer; an episode that fails half-way is dropped whole.
#include "data/convert.h"
#include "base/arena.h"
#include "base/file.h"
#include "data/writer.h"
#include "format/modality.h"

#include <string.h>

typedef struct chosen { // features of one dataset
    int n_states, states[SOMA_CONVERT_VECTORS];
    int n_actions, actions[SOMA_CONVERT_VECTORS];
    int n_cameras, cameras[SOMA_CONVERT_CAMERAS];
    int extras[SOMA_CONVERT_EXTRAS]; // in the order of the spec's
} chosen;

typedef struct converting {
    const soma_convert_opts *o;
    soma_arena arena;
    soma_dataset_spec spec; // of the first dataset
    soma_dataset_extra extras[SOMA_CONVERT_EXTRAS];
    const soma_dataset *d; // the one that is read
    chosen f;
    soma_dataset_reader *reader;
    soma_dataset_writer *writer;
    float *state, *action, *extra, *part; // one episode: [frames, n] each, [frames, one feature]
    size_t state_room, action_room, extra_room, part_room;
    int extra_size;
    uint8_t *pictures[SOMA_CONVERT_CAMERAS];
    int64_t done, total; // episodes
    json_t *modality;    // the parts that the first dataset names, as they lie in what is written; NULL: it names none
} converting;

// ---- which features

// Names separated by commas, as positions of features of this kind.
static soma_status find_features(int *out, int *n, int most, const soma_dataset *d, const char *names, soma_feature_kind kind,
                                 soma_error *err) {
    char name[400];
    *n = 0;
    for (const char *p = names; *p; p += *p == ',') {
        size_t len = strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", (int)SOMA_MIN(len, sizeof name - 1), p);
        p += len;
        int f = soma__dataset_feature(d, name);
        if (f < 0 || d->features[f].kind != kind)
            return soma__fail(err, SOMA_NOT_FOUND, "%s: there is no %s feature \"%s\"; `soma data info` lists them", d->path,
                              kind == SOMA_FEATURE_IMAGE ? "picture" : "vector", name);
        if (*n == most) return soma__fail(err, SOMA_BAD_INPUT, "more than %d features are named", most);
        out[(*n)++] = f;
    }
    return SOMA_OK;
}

static const char *usual(const soma_dataset *d, const char *given, const char *first, const char *second) {
    return given && *given ? given : soma__dataset_feature(d, first) >= 0 ? first : second;
}

static soma_status choose(chosen *c, const soma_dataset *d, const soma_convert_opts *o, soma_error *err) {
    const char *states = usual(d, o->states, "observation.state", "state"), *actions = usual(d, o->actions, "action", "actions");
    *c = (chosen){0};
    SOMA_TRY(find_features(c->states, &c->n_states, SOMA_CONVERT_VECTORS, d, states, SOMA_FEATURE_VECTOR, err));
    SOMA_TRY(find_features(c->actions, &c->n_actions, SOMA_CONVERT_VECTORS, d, actions, SOMA_FEATURE_VECTOR, err));
    if (o->cameras && !strcmp(o->cameras, "none")) return SOMA_OK;
    if (o->cameras && *o->cameras)
        return find_features(c->cameras, &c->n_cameras, SOMA_CONVERT_CAMERAS, d, o->cameras, SOMA_FEATURE_IMAGE, err);
    for (int f = 0; f < d->n_features; f++) {
        if (d->features[f].kind != SOMA_FEATURE_IMAGE || !soma__dataset_has(d, f)) continue;
        if (c->n_cameras == SOMA_CONVERT_CAMERAS)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: has more than %d cameras: choose with --cameras", d->path, SOMA_CONVERT_CAMERAS);
        c->cameras[c->n_cameras++] = f;
    }
    return SOMA_OK;
}

// ---- what is written

static const char *last_name(const soma_feature *f) {
    const char *dot = strrchr(f->name, '.');
    return dot ? dot + 1 : f->name;
}

// The names of all dimensions: the feature's own, or "gripper.0" by its name and place.
static const char *const *name_dimensions(converting *c, const int *features, int n_features, int *n) {
    int at = 0;
    for (int i = 0; i < n_features; i++) *n += (int)c->d->features[features[i]].size;
    const char **names = soma__arena_alloc(&c->arena, sizeof *names * (size_t)(*n + 1));
    for (int i = 0; i < n_features && names; i++) {
        const soma_feature *f = &c->d->features[features[i]];
        for (int64_t j = 0; j < f->size; j++, at++) {
            bool named = f->names && f->n_dims == 1;
            names[at] = named ? f->names[j] : soma__arena_printf(&c->arena, "%s.%lld", last_name(f), (long long)j);
            if (!names[at]) return NULL;
        }
    }
    return names;
}

static soma_status name_cameras(converting *c, soma_error *err) {
    const char **names = soma__arena_alloc(&c->arena, sizeof *names * (size_t)(c->f.n_cameras + 1));
    if (!names) return soma__no_memory(err, "the cameras");
    for (int i = 0; i < c->f.n_cameras; i++) {
        const soma_feature *f = &c->d->features[c->f.cameras[i]];
        names[i] = last_name(f);
        for (int k = 0; k < i; k++)
            if (!strcmp(names[k], names[i]))
                return soma__fail(err, SOMA_BAD_INPUT, "%s: two cameras would be called \"%s\": choose with --cameras", c->d->path,
                                  names[i]);
        c->spec.image_width = (int)f->shape[1];
        c->spec.image_height = (int)f->shape[0];
        if (!(c->pictures[i] = soma__alloc((size_t)f->size))) return soma__no_memory(err, "a picture");
    }
    c->spec.camera_names = names;
    c->spec.n_cameras = c->f.n_cameras;
    return SOMA_OK;
}

// ---- GR00T's names of parts

static bool put_part(converting *c, const char *group, const soma_feature *part, int64_t start, int64_t end, const char *key) {
    const size_t prefix = strlen(group) + 1;
    const soma_modality_entry entry = {.group = group,
                                       .name = part->name + (strncmp(part->name, group, prefix - 1) ? 0 : prefix),
                                       .key = key,
                                       .start = start,
                                       .end = end,
                                       .rotation = part->rotation,
                                       .relative = part->relative};
    if (json_object_get(json_object_get(c->modality, group), entry.name)) return true; // it is there twice: its first place
    return soma__modality_put(c->modality, &entry);
}

// The parts that lie in the features which become the state or the action, wherever those begin in it.
static bool put_vectors(converting *c, const char *group, const int *features, int n) {
    const soma_dataset *d = c->d;
    bool ok = true;
    for (int64_t i = 0, at = 0; i < n; at += d->features[features[i++]].size)
        for (int p = d->n_features; p < d->n_features + d->n_parts && ok; p++) {
            const soma_feature *f = &d->features[features[i]], *part = &d->features[p];
            const int whole = features[i] < d->n_features ? features[i] : f->whole;
            if (part->whole != whole || part->kind != SOMA_FEATURE_VECTOR || strncmp(part->name, group, strlen(group)) != 0) continue;
            if (part->start < f->start || part->start + part->size > f->start + f->size) continue;
            const int64_t start = at + part->start - f->start;
            ok = put_part(c, group, part, start, start + part->size, NULL);
        }
    return ok;
}

// Annotations are told by the task of each row: their columns are not kept.
static soma_status keep_parts(converting *c, soma_error *err) {
    const soma_dataset *d = c->d;
    char key[400];
    bool told = false;
    if (!d->n_parts) return SOMA_OK;
    c->modality = json_object();
    bool ok = c->modality && put_vectors(c, "state", c->f.states, c->f.n_states) && put_vectors(c, "action", c->f.actions, c->f.n_actions);
    for (int p = d->n_features; p < d->n_features + d->n_parts && ok; p++) {
        const soma_feature *part = &d->features[p];
        for (int i = 0; i < c->f.n_cameras && ok && part->kind == SOMA_FEATURE_IMAGE; i++) {
            const int camera = c->f.cameras[i];
            if (part->whole != (camera < d->n_features ? camera : d->features[camera].whole)) continue;
            snprintf(key, sizeof key, "observation.images.%.300s", c->spec.camera_names[i]);
            ok = put_part(c, "video", part, -1, -1, key);
        }
        if (told || !soma__modality_instructs(part->name)) continue;
        ok = ok && put_part(c, "annotation", part, -1, -1, "task_index");
        told = true;
    }
    return ok ? SOMA_OK : soma__no_memory(err, "the names of parts");
}

static soma_status save_parts(const converting *c, const char *out, soma_error *err) {
    char path[SOMA_PATH_MAX];
    if (!c->modality) return SOMA_OK;
    SOMA_TRY(soma__path_join(path, out, "meta/modality.json", err));
    return soma__json_save(c->modality, path, err);
}

// ---- features beside state and action

static bool among(int feature, const int *features, int n) {
    for (int i = 0; i < n; i++)
        if (features[i] == feature) return true;
    return false;
}

// What the writer makes itself, and what has a place already. An annotation is a place in the list of tasks, which will be another one.
static bool has_place(const converting *c, int feature) {
    if (soma__dataset_writer_makes(c->d->features[feature].name)) return true;
    if (!strncmp(c->d->features[feature].name, "annotation.", 11)) return true;
    return among(feature, c->f.states, c->f.n_states) || among(feature, c->f.actions, c->f.n_actions);
}

static soma_dataset_extra as_extra(const soma_feature *f) {
    bool whole = !strncmp(f->dtype, "int", 3) || !strncmp(f->dtype, "uint", 4);
    soma_dataset_extra x = {.name = f->name,
                            .dtype = !strcmp(f->dtype, "bool") ? "bool"
                                     : whole                   ? "int64"
                                                               : "float32",
                            .n_dims = f->n_dims ? f->n_dims : 1,
                            .shape = {1, 1, 1},
                            .names = f->names};
    if (f->n_dims > 3) { // more than the writer has
        x.n_dims = 1;
        x.shape[0] = f->size;
        x.names = NULL;
    } else if (f->n_dims) {
        memcpy(x.shape, f->shape, sizeof x.shape[0] * (size_t)f->n_dims);
    }
    return x;
}

static soma_status choose_extras(converting *c, soma_error *err) {
    const char *names = c->o->extras ? c->o->extras : "";
    int features[SOMA_CONVERT_EXTRAS], n = 0;
    if (!strcmp(names, "none")) return SOMA_OK;
    if (*names) SOMA_TRY(find_features(features, &n, SOMA_CONVERT_EXTRAS, c->d, names, SOMA_FEATURE_VECTOR, err));
    for (int f = 0; !*names && f < c->d->n_features && n < SOMA_CONVERT_EXTRAS; f++)
        if (c->d->features[f].kind == SOMA_FEATURE_VECTOR && !has_place(c, f)) features[n++] = f;
    for (int i = 0; i < n; i++) c->extras[i] = as_extra(&c->d->features[features[i]]);
    c->spec.extras = c->extras;
    c->spec.n_extras = n;
    return SOMA_OK;
}

// Of those that were named, each must be there; of all, those stay that every dataset has.
static soma_status match_extras(converting *c, soma_error *err) {
    int kept = 0;
    for (int i = 0; i < c->spec.n_extras; i++) {
        const soma_dataset_extra *x = &c->extras[i];
        int f = soma__dataset_feature(c->d, x->name);
        soma_dataset_extra here = f < 0 ? (soma_dataset_extra){0} : as_extra(&c->d->features[f]);
        bool same = f >= 0 && c->d->features[f].kind == SOMA_FEATURE_VECTOR && here.n_dims == x->n_dims && !has_place(c, f) &&
                    !memcmp(here.shape, x->shape, sizeof x->shape);
        if (!same && c->o->extras && *c->o->extras)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: has no \"%s\" of the first dataset's shape, or it is the state or the action",
                              c->d->path, x->name);
        if (same) c->extras[kept++] = *x;
    }
    c->spec.n_extras = kept;
    return SOMA_OK;
}

static void find_extras(converting *c) {
    c->extra_size = 0;
    for (int i = 0; i < c->spec.n_extras; i++) {
        c->f.extras[i] = soma__dataset_feature(c->d, c->extras[i].name);
        c->extra_size += (int)c->d->features[c->f.extras[i]].size;
    }
}

// The first dataset says what all have.
static soma_status make_spec(converting *c, soma_error *err) {
    c->spec = (soma_dataset_spec){.robot_type = c->d->robot_type, .fps = c->o->fps > 0 ? c->o->fps : c->d->fps};
    if (!(c->spec.fps > 0)) return soma__fail(err, SOMA_BAD_INPUT, "%s: the dataset tells no rate: give it with --fps", c->d->path);
    c->spec.state_names = name_dimensions(c, c->f.states, c->f.n_states, &c->spec.n_state);
    c->spec.action_names = name_dimensions(c, c->f.actions, c->f.n_actions, &c->spec.n_actions);
    if (!c->spec.state_names || !c->spec.action_names) return soma__no_memory(err, "the names of dimensions");
    SOMA_TRY(choose_extras(c, err));
    SOMA_TRY(name_cameras(c, err));
    return keep_parts(c, err);
}

static soma_status check_vectors(const converting *c, const int *features, int n_features, int wanted, const char *what, soma_error *err) {
    int64_t n = 0;
    for (int i = 0; i < n_features; i++) n += c->d->features[features[i]].size;
    if (n == wanted) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: %s has %lld numbers per frame, the first dataset %d", c->d->path, what, (long long)n,
                      wanted);
}

static soma_status check_source(const converting *c, soma_error *err) {
    const soma_dataset_spec *s = &c->spec;
    SOMA_TRY(check_vectors(c, c->f.states, c->f.n_states, s->n_state, "the state", err));
    SOMA_TRY(check_vectors(c, c->f.actions, c->f.n_actions, s->n_actions, "the action", err));
    if (!(c->o->fps > 0) && c->d->fps != s->fps)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %g frames/s, the first dataset %g; --fps says one for all", c->d->path, c->d->fps,
                          s->fps);
    if (c->f.n_cameras != s->n_cameras)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %d cameras, the first dataset %d: choose with --cameras", c->d->path, c->f.n_cameras,
                          s->n_cameras);
    for (int i = 0; i < c->f.n_cameras; i++) {
        const soma_feature *f = &c->d->features[c->f.cameras[i]];
        if (strcmp(last_name(f), s->camera_names[i]) != 0)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: camera %d is \"%s\", in the first dataset \"%s\": choose with --cameras",
                              c->d->path, i, last_name(f), s->camera_names[i]);
        if (f->shape[0] != s->image_height || f->shape[1] != s->image_width)
            return soma__fail(err, SOMA_UNSUPPORTED,
                              "%s: \"%s\" is %lld x %lld, others are %d x %d; the writer wants one size: choose with --cameras", c->d->path,
                              f->name, (long long)f->shape[1], (long long)f->shape[0], s->image_width, s->image_height);
    }
    return SOMA_OK;
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
    for (int i = 0; i < c->f.n_cameras; i++) {
        int feature = c->f.cameras[i];
        if (!c->d->format->present(c->d, e, feature))
            return soma__fail(err, SOMA_NOT_FOUND, "%s: episode %lld has no pictures of \"%s\" in this copy", c->d->path,
                              (long long)c->d->episodes[e].index, c->d->features[feature].name);
        SOMA_TRY(c->d->format->read_image(c->reader, e, frame, feature, c->pictures[i], err));
    }
    return SOMA_OK;
}

// *readable is false when the episode itself, not the writing, is what failed.
static soma_status convert_episode(converting *c, int64_t e, bool *readable, soma_error *err) {
    const soma_episode *episode = &c->d->episodes[e];
    soma_status status = read_joined(c, &c->state, &c->state_room, c->f.states, c->f.n_states, c->spec.n_state, e, err);
    if (status == SOMA_OK) status = read_joined(c, &c->action, &c->action_room, c->f.actions, c->f.n_actions, c->spec.n_actions, e, err);
    if (status == SOMA_OK) status = read_joined(c, &c->extra, &c->extra_room, c->f.extras, c->spec.n_extras, c->extra_size, e, err);
    for (int64_t t = 0; t < episode->n_frames && status == SOMA_OK; t++) {
        status = read_pictures(c, e, t, err);
        if (status != SOMA_OK) break;
        SOMA_TRY(soma__dataset_writer_frame(c->writer, c->state + t * c->spec.n_state, c->action + t * c->spec.n_actions,
                                            (const uint8_t *const *)c->pictures, err));
        if (c->extra_size) SOMA_TRY(soma__dataset_writer_extras(c->writer, c->extra + t * c->extra_size, err));
    }
    *readable = status == SOMA_OK;
    return status == SOMA_OK ? soma__dataset_writer_episode(c->writer, episode->task, err) : status;
}

static soma_status convert_one(converting *c, soma_converted *result, int64_t e, soma_error *err) {
    const soma_episode *episode = &c->d->episodes[e];
    soma_error why = {0};
    bool readable = true;
    if (!episode->present || !episode->n_frames) {
        result->absent++;
        return SOMA_OK;
    }
    soma_status status = convert_episode(c, e, &readable, &why);
    if (status == SOMA_OK) {
        result->episodes++;
        result->frames += episode->n_frames;
        return SOMA_OK;
    }
    if (readable || !c->o->skip_bad || status == SOMA_NO_MEMORY) return soma__fail(err, status, "%s", why.text);
    soma__dataset_writer_drop(c->writer);
    result->skipped++;
    if (c->o->skipped) c->o->skipped(c->o->user, why.text);
    return SOMA_OK;
}

static soma_status convert_source(converting *c, soma_converted *result, const soma_convert_source *s, soma_error *err) {
    soma_status status = c->d->format->reader_open(&c->reader, c->d, err);
    for (int64_t e = 0; e < c->d->n_episodes && status == SOMA_OK; e++) {
        if (s->chosen && !s->chosen[e]) continue;
        status = convert_one(c, result, e, err);
        if (c->o->progress) c->o->progress(c->o->user, ++c->done, c->total);
    }
    c->d->format->reader_close(c->reader);
    c->reader = NULL;
    return status;
}

// All datasets are looked at before the first frame is written.
static soma_status convert_all(converting *c, soma_converted *result, const soma_convert_source *sources, int n, const char *out,
                               soma_error *err) {
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n; i++) {
            c->d = sources[i].dataset;
            SOMA_TRY(choose(&c->f, c->d, c->o, err));
            if (pass) {
                find_extras(c);
                SOMA_TRY(convert_source(c, result, &sources[i], err));
                continue;
            }
            if (!i) SOMA_TRY(make_spec(c, err));
            SOMA_TRY(check_source(c, err));
            SOMA_TRY(match_extras(c, err));
            for (int64_t e = 0; e < c->d->n_episodes; e++) c->total += !sources[i].chosen || sources[i].chosen[e];
            if (i == n - 1) SOMA_TRY(soma__dataset_writer_open(&c->writer, out, &c->spec, err));
        }
    if (!result->episodes) return soma__fail(err, SOMA_BAD_INPUT, "%s: no episode could be converted", sources[0].dataset->path);
    SOMA_TRY(soma__dataset_writer_finish(c->writer, err));
    return save_parts(c, out, err);
}

soma_status soma__dataset_convert(soma_converted *result, const soma_convert_source *sources, int n_sources, const char *out,
                                  const soma_convert_opts *o, soma_error *err) {
    SOMA_CHECK(n_sources > 0, "a conversion has a dataset to begin with");
    *result = (soma_converted){0};
    converting c = {.o = o};
    soma_status status = convert_all(&c, result, sources, n_sources, out, err);
    soma__dataset_writer_close(c.writer);
    for (int i = 0; i < SOMA_CONVERT_CAMERAS; i++) soma__free(c.pictures[i]);
    soma__free(c.state);
    soma__free(c.action);
    soma__free(c.extra);
    soma__free(c.part);
    json_decref(c.modality);
    soma__arena_free(&c.arena);
    return status;
}
