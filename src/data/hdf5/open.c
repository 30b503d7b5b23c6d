// SPDX-License-Identifier: Apache-2.0
// Demonstrations in HDF5, in the layouts that robots use. A dataset is a file, or a folder of files; an episode is
//   a file with /action                                        ALOHA, ACT: episode_3.hdf5, /observations/qpos,
//   /observations/images/cam_high a group with actions in /data, or at the root of a file    robomimic, LIBERO: /data/demo_3/actions,
//   /data/demo_3/obs/...
// Every array with as many rows as the actions is a feature; the first episode tells which there are.
#include "data/hdf5/hdf5_data.h"
#include "format/image.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FEATURES = 1000, MAX_DEPTH = 6, MAX_EPISODES = 4000000, VECTOR_MAX = 65536, ACT_RATE = 50 }; // ACT's constants.py: DT = 0.02

// ---- which files

static bool ends(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

static bool is_hdf5_name(const char *name) { return ends(name, ".hdf5") || ends(name, ".h5"); }

// A folder that says itself that it is something else may hold such a file by the way (a checkpoint's weights, raw data).
static bool is_other(const char *path) {
    static const char *const files[] = {"meta/info.json", "dataset_info.json", "config.json"};
    char file[SOMA_PATH_MAX];
    for (size_t i = 0; i < SOMA_COUNT(files); i++)
        if (!soma__path_join(file, path, files[i], NULL) && soma__file_exists(file)) return true;
    return false;
}

bool hdf5_probe(const char *path) {
    char **names;
    size_t n;
    bool found = false;
    if (soma__file_exists(path)) return is_hdf5_name(path);
    if (!soma__dir_exists(path) || is_other(path) || soma__dir_list(&names, &n, path, NULL)) return false;
    for (size_t i = 0; i < n && !found; i++) found = is_hdf5_name(names[i]);
    soma__dir_list_free(names, n);
    return found;
}

// "demo_10" comes behind "demo_9": runs of digits compare as numbers.
static int by_number(const char *a, const char *b) {
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            char *a_end, *b_end;
            unsigned long long x = strtoull(a, &a_end, 10), y = strtoull(b, &b_end, 10);
            if (x != y) return x < y ? -1 : 1;
            a = a_end;
            b = b_end;
        } else if (*a != *b) {
            return *a < *b ? -1 : 1;
        } else {
            a++, b++;
        }
    }
    return (*a != 0) - (*b != 0);
}

static int by_name(const void *a, const void *b) { return by_number(*(char *const *)a, *(char *const *)b); }
static int by_entry(const void *a, const void *b) {
    return by_number(((const soma_hdf5_entry *)a)->name, ((const soma_hdf5_entry *)b)->name);
}

// ---- features

// observation.state, observation.images.cam_high, action: the names that policies look for. What is an observation is called so whatever
// the file calls it; ALOHA's joint positions are the state.
static char *feature_name(soma_arena *arena, const char *key, bool picture) {
    static const char *const words[] = {"observations", "observation", "obs"};
    const char *rest = NULL;
    for (size_t i = 0; i < SOMA_COUNT(words) && !rest; i++) {
        size_t n = strlen(words[i]);
        if (!strncmp(key, words[i], n) && (!key[n] || key[n] == '/')) rest = key + n + (key[n] == '/');
    }
    char *name = !rest                                         ? soma__arena_strdup(arena, key)
                 : !*rest || !strcmp(rest, "qpos")             ? soma__arena_strdup(arena, "observation.state")
                 : picture && strncmp(rest, "images/", 7) != 0 ? soma__arena_printf(arena, "observation.images.%s", rest)
                                                               : soma__arena_printf(arena, "observation.%s", rest);
    for (char *p = name; p && *p; p++)
        if (*p == '/') *p = '.';
    return name;
}

// A picture that is stored as PNG or JPEG, if the array's first row is one.
static soma_status settle_coded(hdf5_data *h, soma_feature *f, soma_hdf5 *file, const char *name, const soma_hdf5_array *a,
                                soma_error *err) {
    char *bytes = NULL;
    size_t size = 0;
    bool padded = a->kind == SOMA_HDF5_NUMBER;
    if (!a->shape[0] || (padded && (a->n_dims != 2 || strcmp(a->dtype, "uint8") != 0 || a->row_size < 16 || a->row_size > 64 << 20)) ||
        (!padded && a->n_dims != 1))
        return SOMA_OK;
    if (padded) {
        size = (size_t)a->row_size;
        bytes = soma__alloc(size);
        if (!bytes) return soma__no_memory(err, name);
        soma_status status = soma__hdf5_u8((uint8_t *)bytes, file, name, 0, 1, err);
        if (status != SOMA_OK) {
            soma__free(bytes);
            return status;
        }
    } else {
        SOMA_TRY(soma__hdf5_bytes(&bytes, &size, file, name, 0, err));
    }
    int width, height;
    bool picture = size > 8 && (!memcmp(bytes, "\xff\xd8\xff", 3) || !memcmp(bytes, "\x89PNG", 4));
    soma_status status = picture ? soma__image_size(&width, &height, bytes, size, name, err) : SOMA_OK;
    soma__free(bytes);
    if (status != SOMA_OK || !picture) return status;
    *f = (soma_feature){
        .kind = SOMA_FEATURE_IMAGE, .dtype = "image", .n_dims = 3, .shape = {height, width, 3}, .size = (int64_t)width * height * 3};
    h->coded[h->d.n_features] = true;
    return SOMA_OK;
}

static soma_status add_feature(hdf5_data *h, soma_hdf5 *file, const char *name, const char *key, int64_t n_frames, soma_error *err) {
    soma_hdf5_array a;
    soma_error fault = {0};
    if (soma__hdf5_describe(&a, file, name, &fault)) // an array that cannot be read is left out; the others serve
        return fault.code == SOMA_NO_MEMORY ? soma__no_memory(err, name) : SOMA_OK;
    if (a.n_dims < 1 || a.shape[0] != n_frames) return SOMA_OK;
    if (h->d.n_features == MAX_FEATURES)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: more than %d arrays per episode", h->d.path, MAX_FEATURES);
    soma_feature *f = &h->features[h->d.n_features];
    *f = (soma_feature){.kind = SOMA_FEATURE_OTHER, .dtype = a.dtype, .n_dims = 1, .shape = {1}, .size = 1};
    SOMA_TRY(settle_coded(h, f, file, name, &a, err));
    if (f->kind == SOMA_FEATURE_OTHER && a.kind == SOMA_HDF5_NUMBER && a.row_size > 0) {
        bool picture = a.n_dims == 4 && a.shape[3] == 3 && !strcmp(a.dtype, "uint8") && a.shape[1] <= 16384 && a.shape[2] <= 16384;
        f->n_dims = SOMA_MAX(a.n_dims - 1, 1);
        for (int i = 1; i < a.n_dims; i++) f->shape[i - 1] = a.shape[i];
        f->size = a.row_size;
        f->kind = picture ? SOMA_FEATURE_IMAGE : a.row_size <= VECTOR_MAX ? SOMA_FEATURE_VECTOR : SOMA_FEATURE_OTHER;
    }
    f->name = feature_name(&h->arena, key, f->kind == SOMA_FEATURE_IMAGE);
    h->keys[h->d.n_features] = soma__arena_strdup(&h->arena, key);
    if (!f->name || !h->keys[h->d.n_features]) return soma__no_memory(err, name);
    if (soma__dataset_feature(&h->d, f->name) < 0) h->d.n_features++; // of two arrays that get one name, the first counts
    return SOMA_OK;
}

static soma_status find_features(hdf5_data *h, soma_hdf5 *file, const char *group, const char *prefix, int64_t n_frames, int depth,
                                 soma_error *err) {
    soma_hdf5_entry *entries;
    size_t n;
    if (depth > MAX_DEPTH) return SOMA_OK;
    SOMA_TRY(soma__hdf5_list(&entries, &n, file, *group ? group : "/", err));
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        char name[1000], key[1000];
        if (!strcmp(entries[i].name, "next_obs")) continue; // robomimic's observations, one frame later
        if (snprintf(name, sizeof name, "%s/%s", group, entries[i].name) >= (int)sizeof name) continue;
        if (snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "/" : "", entries[i].name) >= (int)sizeof key) continue;
        status =
            entries[i].group ? find_features(h, file, name, key, n_frames, depth + 1, err) : add_feature(h, file, name, key, n_frames, err);
    }
    soma__hdf5_entries_free(entries, n);
    return status;
}

// ---- episodes

static soma_status add_fault(hdf5_data *h, const soma_error *fault, soma_error *err) {
    if (fault->code == SOMA_NO_MEMORY) return soma__no_memory(err, "the episodes of a dataset");
    size_t n = (size_t)h->d.n_faults;
    char *text = soma__arena_strdup(&h->arena, fault->text);
    if (!text || !SOMA_PUSH_ROOM(h->faults, n, h->faults_room)) return soma__no_memory(err, "the faults of a dataset");
    h->faults[h->d.n_faults++] = text;
    h->d.faults = h->faults;
    return SOMA_OK;
}

// The array of an episode's actions; n_dims 0 when there is none that can be read.
static soma_status find_action(soma_hdf5_array *a, char name[1000], soma_hdf5 *file, const char *group, soma_error *err) {
    static const char *const words[] = {"action", "actions"};
    for (size_t i = 0; i < SOMA_COUNT(words); i++) {
        soma_error fault = {0};
        if (snprintf(name, 1000, "%s/%s", group, words[i]) >= 1000) continue;
        soma_status status = soma__hdf5_describe(a, file, name, &fault);
        if (status == SOMA_NO_MEMORY) return soma__no_memory(err, name);
        if (status == SOMA_OK && a->n_dims >= 1) return SOMA_OK;
    }
    *a = (soma_hdf5_array){0};
    return SOMA_OK;
}

// The instruction: an attribute of the episode, of /data, of the file, or within LIBERO's problem_info.
static soma_status find_task(hdf5_data *h, soma_episode *e, soma_hdf5 *file, const char *group, soma_error *err) {
    static const char *const words[] = {"language_instruction", "instruction", "task", "prompt", "language"};
    const char *const objects[] = {*group ? group : "/", "/data", "/"};
    char *text = NULL;
    for (size_t o = 0; o < SOMA_COUNT(objects) && !text; o++)
        for (size_t i = 0; i < SOMA_COUNT(words) && !text; i++) SOMA_TRY(soma__hdf5_text_attribute(&text, file, objects[o], words[i], err));
    if (text) {
        e->task = soma__arena_strdup(&h->arena, text);
    } else {
        json_t *info = NULL;
        SOMA_TRY(soma__hdf5_text_attribute(&text, file, "/data", "problem_info", err));
        if (text && !soma__json_parse(&info, text, strlen(text), "problem_info", NULL)) {
            const json_t *said = json_object_get(info, "language_instruction");
            const char *words_said = json_string_value(json_is_array(said) ? json_array_get(said, 0) : said);
            if (words_said) e->task = soma__arena_strdup(&h->arena, words_said);
        }
        json_decref(info);
    }
    soma__free(text);
    return e->task ? SOMA_OK : soma__no_memory(err, "an instruction");
}

static soma_status add_episode(hdf5_data *h, soma_hdf5 *file, const char *path, const char *group, soma_error *err) {
    char name[1000];
    soma_hdf5_array a;
    double declared;
    size_t n = (size_t)h->d.n_episodes;
    if (n >= MAX_EPISODES) return soma__fail(err, SOMA_BAD_INPUT, "%s: more than %d episodes", h->d.path, MAX_EPISODES);
    if (!SOMA_PUSH_ROOM(h->episodes, n, h->episodes_room) || !SOMA_PUSH_ROOM(h->places, n, h->places_room))
        return soma__no_memory(err, "the episode table");
    soma_episode *e = &h->episodes[n];
    hdf5_place *p = &h->places[n];
    *e = (soma_episode){.index = h->d.n_episodes++, .task = ""};
    *p = (hdf5_place){soma__arena_strdup(&h->arena, path), soma__arena_strdup(&h->arena, group)};
    h->d.episodes = h->episodes;
    if (!p->file || !p->group) return soma__no_memory(err, "the episode table");
    SOMA_TRY(find_action(&a, name, file, group, err));
    if (!a.n_dims) {
        soma_error fault = {0};
        soma__fail(&fault, SOMA_BAD_INPUT, "%s: episode %s has no \"action\" or \"actions\" that can be read", path, *group ? group : "/");
        return add_fault(h, &fault, err);
    }
    e->n_frames = a.shape[0];
    h->d.n_frames += e->n_frames;
    if (soma__hdf5_number_attribute(&declared, file, *group ? group : "/", "num_samples") && declared != (double)e->n_frames) {
        soma_error fault = {0};
        soma__fail(&fault, SOMA_BAD_INPUT, "%s: %s has %lld rows, the attribute num_samples says %.0f", path, name, (long long)e->n_frames,
                   declared);
        return add_fault(h, &fault, err);
    }
    e->present = e->video_present = true;
    h->d.episodes_present++;
    h->d.frames_present += e->n_frames;
    if (!h->d.n_features && e->n_frames) SOMA_TRY(find_features(h, file, group, "", e->n_frames, 0, err));
    return find_task(h, e, file, group, err);
}

// robomimic's env_args tell the rate and the robot; ACT's recordings are at 50 Hz and do not say so.
static soma_status find_rate(hdf5_data *h, soma_hdf5 *file, bool whole, soma_error *err) {
    char *text;
    json_t *args = NULL;
    soma_hdf5_array a;
    SOMA_TRY(soma__hdf5_text_attribute(&text, file, "/data", "env_args", err));
    if (text && !soma__json_parse(&args, text, strlen(text), "env_args", NULL)) {
        const json_t *settings = json_object_get(args, "env_kwargs"), *robots = json_object_get(settings, "robots");
        double rate = json_number_value(json_object_get(settings, "control_freq"));
        const char *robot = json_string_value(json_is_array(robots) ? json_array_get(robots, 0) : robots);
        if (rate > 0 && rate < 1e6) h->d.fps = rate;
        if (robot) h->d.robot_type = soma__arena_strdup(&h->arena, robot);
    }
    json_decref(args);
    soma__free(text);
    if (!h->d.fps && whole) {
        soma_error none = {0};
        soma_status status = soma__hdf5_describe(&a, file, "/observations/qpos", &none);
        if (status == SOMA_NO_MEMORY) return soma__no_memory(err, "an array");
        if (status == SOMA_OK) h->d.fps = ACT_RATE;
    }
    return h->d.robot_type ? SOMA_OK : soma__no_memory(err, "a robot's name");
}

// The episodes among the groups of `parent`: those that have actions.
static soma_status add_groups(hdf5_data *h, soma_hdf5 *file, const char *path, const char *parent, soma_error *err) {
    soma_hdf5_entry *entries;
    size_t n;
    SOMA_TRY(soma__hdf5_list(&entries, &n, file, *parent ? parent : "/", err));
    if (n) qsort(entries, n, sizeof *entries, by_entry);
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        char group[900];
        size_t len = strlen(entries[i].name);
        bool numbered = len && isdigit((unsigned char)entries[i].name[len - 1]);
        if (!entries[i].group || !numbered || snprintf(group, sizeof group, "%s/%s", parent, entries[i].name) >= (int)sizeof group)
            continue;
        status = add_episode(h, file, path, group, err);
    }
    soma__hdf5_entries_free(entries, n);
    return status;
}

static soma_status read_opened(hdf5_data *h, soma_hdf5 *file, const char *path, soma_error *err) {
    char name[1000];
    soma_hdf5_array a;
    int64_t before = h->d.n_episodes;
    SOMA_TRY(find_action(&a, name, file, "", err));
    if (!h->d.fps) SOMA_TRY(find_rate(h, file, a.n_dims > 0, err));
    if (a.n_dims) return add_episode(h, file, path, "", err);
    soma_hdf5_entry *entries;
    size_t n;
    bool data = false;
    SOMA_TRY(soma__hdf5_list(&entries, &n, file, "/", err));
    for (size_t i = 0; i < n; i++) data = data || (entries[i].group && !strcmp(entries[i].name, "data"));
    soma__hdf5_entries_free(entries, n);
    SOMA_TRY(add_groups(h, file, path, data ? "/data" : "", err));
    if (h->d.n_episodes > before) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: holds no episode: neither /action nor groups like /data/demo_0 with actions", path);
}

static soma_status read_file(hdf5_data *h, const char *path, soma_error *err) {
    soma_hdf5 *file;
    soma_error fault = {0};
    soma_status status = soma__hdf5_open(&file, path, &fault);
    if (status == SOMA_OK) status = read_opened(h, file, path, &fault);
    soma__hdf5_close(file);
    return status == SOMA_OK ? SOMA_OK : add_fault(h, &fault, err);
}

static soma_status read_folder(hdf5_data *h, soma_error *err) {
    char **names;
    size_t n;
    SOMA_TRY(soma__dir_list(&names, &n, h->d.path, err));
    if (n) qsort(names, n, sizeof *names, by_name);
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        char path[SOMA_PATH_MAX];
        if (!is_hdf5_name(names[i])) continue;
        status = soma__path_join(path, h->d.path, names[i], err);
        if (status == SOMA_OK) status = read_file(h, path, err);
    }
    soma__dir_list_free(names, n);
    return status;
}

static soma_status open_all(hdf5_data *h, soma_error *err) {
    h->features = soma__arena_alloc(&h->arena, MAX_FEATURES * sizeof *h->features);
    h->keys = soma__arena_alloc(&h->arena, MAX_FEATURES * sizeof *h->keys);
    h->coded = soma__arena_alloc(&h->arena, MAX_FEATURES);
    if (!h->features || !h->keys || !h->coded) return soma__no_memory(err, h->d.path);
    h->d.features = h->features;
    SOMA_TRY(soma__file_exists(h->d.path) ? read_file(h, h->d.path, err) : read_folder(h, err));
    if (h->d.n_features) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s", h->d.n_faults ? h->faults[0] : "no episode has frames");
}

soma_status hdf5_data_open(soma_dataset **out, const char *path, soma_error *err) {
    *out = NULL;
    hdf5_data *h = soma__calloc(1, sizeof *h);
    if (!h) return soma__no_memory(err, path);
    h->d.format = &soma__dataset_format_hdf5;
    h->d.hint = h->d.robot_type = h->d.version = "";
    h->d.path = soma__arena_strdup(&h->arena, path);
    soma_status status = h->d.path ? open_all(h, err) : soma__no_memory(err, path);
    if (status == SOMA_OK) *out = &h->d;
    if (status != SOMA_OK) hdf5_data_close(&h->d);
    return status;
}

void hdf5_data_close(soma_dataset *d) {
    hdf5_data *h = (hdf5_data *)d;
    if (!h) return;
    soma__free(h->episodes);
    soma__free(h->places);
    soma__free(h->faults);
    soma__arena_free(&h->arena);
    soma__free(h);
}

soma_status hdf5_array_name(char out[SOMA_PATH_MAX], const hdf5_data *h, int64_t episode, int feature, soma_error *err) {
    return soma__path_join(out, h->places[episode].group, h->keys[feature], err);
}
