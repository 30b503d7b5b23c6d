// SPDX-License-Identifier: Apache-2.0
// Opening an RLDS dataset: dataset_info.json names splits and shards; each shard is mapped and walked record by record, which touches the
// frames' counts and the instruction and leaves pictures alone. An absent shard is listed; a damaged one is a fault, and what stands before
// the damage can be used.
#include "data/rlds/rlds.h"
#include "format/image.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_EPISODES = 4000000, MAX_SHARDS = 60000, MAX_TASK = 4096 };

// ---- which folder

static bool is_dataset(const char *dir) {
    char path[SOMA_PATH_MAX];
    return soma__path_join(path, dir, "dataset_info.json", NULL) == SOMA_OK && soma__file_exists(path) &&
           soma__path_join(path, dir, "features.json", NULL) == SOMA_OK && soma__file_exists(path);
}

static bool is_newer(const int a[3], const int b[3]) {
    for (int i = 0; i < 3; i++)
        if (a[i] != b[i]) return a[i] > b[i];
    return false;
}

// The folder itself, or its newest version: TensorFlow Datasets keeps NAME/1.0.0.
static bool find_folder(char out[SOMA_PATH_MAX], const char *path) {
    char **names;
    size_t n;
    int best[3] = {-1, -1, -1};
    if (is_dataset(path)) return snprintf(out, SOMA_PATH_MAX, "%s", path) < SOMA_PATH_MAX;
    if (!soma__dir_exists(path) || soma__dir_list(&names, &n, path, NULL)) return false;
    for (size_t i = 0; i < n; i++) {
        char dir[SOMA_PATH_MAX];
        int v[3], end = 0;
        if (sscanf(names[i], "%d.%d.%d%n", &v[0], &v[1], &v[2], &end) != 3 || names[i][end] || !is_newer(v, best)) continue;
        if (soma__path_join(dir, path, names[i], NULL) || !is_dataset(dir)) continue;
        memcpy(best, v, sizeof best);
        memcpy(out, dir, sizeof dir);
    }
    soma__dir_list_free(names, n);
    return best[0] >= 0;
}

bool rlds_probe(const char *path) {
    char dir[SOMA_PATH_MAX];
    return find_folder(dir, path);
}

// ---- records

void rlds_name_record(char out[SOMA_PATH_MAX + 100], const rlds *l, int64_t episode) {
    snprintf(out, SOMA_PATH_MAX + 100, "%.2000s/%.1000s: episode %lld (record at byte %zu)", l->d.path, l->places[episode].shard->name,
             (long long)episode, l->places[episode].record.offset);
}

soma_status rlds_parse(soma_example *e, const rlds *l, int64_t episode, soma_error *err) {
    char where[SOMA_PATH_MAX + 100];
    const rlds_place *p = &l->places[episode];
    rlds_name_record(where, l, episode);
    return soma__example_parse(e, p->shard->map.data + p->record.offset + 12, p->record.size, where, err);
}

static soma_status add_fault(rlds *l, const soma_error *fault, soma_error *err) {
    if (fault->code == SOMA_NO_MEMORY) return soma__no_memory(err, "the episodes of a dataset");
    size_t n = (size_t)l->d.n_faults;
    char *text = soma__arena_strdup(&l->arena, fault->text);
    if (!text || !SOMA_PUSH_ROOM(l->faults, n, l->faults_room)) return soma__no_memory(err, "the faults of a dataset");
    l->faults[l->d.n_faults++] = text;
    l->d.faults = l->faults;
    return SOMA_OK;
}

// How many steps a record has: the longest of its lists tells, by its declared size; a float list tells it without a look at its values.
static soma_status count_frames(int64_t *n, const rlds *l, const soma_example *e, const char *where, soma_error *err) {
    const soma_example_list *best = NULL;
    int64_t size = 1;
    for (int f = 0; f < l->d.n_features && !(best && best->kind == SOMA_EXAMPLE_FLOAT); f++) {
        const soma_feature *feature = &l->features[f];
        const soma_example_list *list = soma__example_find(e, l->keys[f]);
        if (!list || list->kind == SOMA_EXAMPLE_EMPTY || (feature->kind == SOMA_FEATURE_OTHER && list->kind != SOMA_EXAMPLE_BYTES))
            continue;
        if (best && list->kind != SOMA_EXAMPLE_FLOAT) continue;
        best = list;
        size = list->kind == SOMA_EXAMPLE_BYTES ? 1 : feature->size;
    }
    if (!best) return soma__fail(err, SOMA_BAD_INPUT, "%s: holds none of the features of features.json", where);
    SOMA_TRY(soma__example_count(n, e, best, where, err));
    if (*n % size)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%.*s\" has %lld numbers, no multiple of %lld", where,
                          (int)SOMA_MIN(best->name.size, 200), (const char *)best->name.data, (long long)*n, (long long)size);
    *n /= size;
    return SOMA_OK;
}

// Sizes that features.json leaves open are those of the first picture.
static soma_status settle_pictures(rlds *l, const soma_example *e, const char *where, soma_error *err) {
    for (int i = 0; i < l->d.n_features; i++) {
        soma_feature *f = &l->features[i];
        int width, height;
        soma_span bytes;
        if (f->kind != SOMA_FEATURE_IMAGE || (f->shape[0] > 0 && f->shape[1] > 0)) continue;
        const soma_example_list *list = soma__example_find(e, l->keys[i]);
        if (!list) continue;
        SOMA_TRY(soma__example_bytes(&bytes, 0, e, list, where, err));
        SOMA_TRY(soma__image_size(&width, &height, bytes.data, bytes.size, where, err));
        f->shape[0] = height;
        f->shape[1] = width;
        f->size = (int64_t)height * width * 3;
    }
    return SOMA_OK;
}

// A text of the first frame; *out is left alone where the record has none.
static soma_status read_text(const char **out, rlds *l, const soma_example *e, const char *key, const char *where, soma_error *err) {
    soma_span text;
    const soma_example_list *list = soma__example_find(e, key);
    if (!list) return SOMA_OK;
    SOMA_TRY(soma__example_bytes(&text, 0, e, list, where, err));
    char *copy = soma__arena_alloc(&l->arena, SOMA_MIN(text.size, MAX_TASK) + 1);
    if (!copy) return soma__no_memory(err, where);
    memcpy(copy, text.data, SOMA_MIN(text.size, MAX_TASK));
    *out = copy;
    return SOMA_OK;
}

// The instruction, and where a record has several (language_instruction_2, ..._3, as DROID's) the others that are not empty.
static soma_status read_task(rlds *l, soma_episode *ep, const soma_example *e, const char *where, soma_error *err) {
    enum { FIRST = 2, LAST = 9 };
    const char *found[LAST - FIRST + 1];
    char key[400];
    int n = 0;
    if (!l->task || !ep->n_frames) return SOMA_OK;
    SOMA_TRY(read_text(&ep->task, l, e, l->task, where, err));
    for (int i = FIRST; i <= LAST; i++) {
        const char *text = NULL;
        snprintf(key, sizeof key, "%.380s_%d", l->task, i);
        SOMA_TRY(read_text(&text, l, e, key, where, err));
        if (text && *text) found[n++] = text;
    }
    if (!n) return SOMA_OK;
    const char **others = soma__arena_alloc(&l->arena, sizeof *others * (size_t)n);
    if (!others) return soma__no_memory(err, where);
    memcpy(others, found, sizeof *others * (size_t)n);
    ep->others = others;
    ep->n_others = n;
    return SOMA_OK;
}

// One record whose frame is sound; what is wrong within it is its own episode's fault alone.
static soma_status place_episode(rlds *l, soma_example *e, int64_t i, soma_error *err) {
    char where[SOMA_PATH_MAX + 100];
    soma_error fault = {0};
    soma_episode *ep = &l->episodes[i];
    rlds_name_record(where, l, i);
    soma_status status = rlds_parse(e, l, i, &fault);
    if (status == SOMA_OK) status = count_frames(&ep->n_frames, l, e, where, &fault);
    if (status == SOMA_OK && ep->n_frames) status = settle_pictures(l, e, where, &fault);
    if (status == SOMA_OK) status = read_task(l, ep, e, where, &fault);
    if (status != SOMA_OK) {
        ep->n_frames = 0;
        return add_fault(l, &fault, err);
    }
    ep->present = ep->video_present = true;
    l->d.episodes_present++;
    l->d.frames_present += ep->n_frames;
    return SOMA_OK;
}

// ---- shards

static soma_status read_shard(rlds *l, rlds_shard *s, int64_t first, int64_t n, soma_error *err) {
    char path[SOMA_PATH_MAX];
    soma_error fault = {0};
    soma_example e = {0};
    SOMA_TRY(soma__path_join(path, l->d.path, s->name, err));
    SOMA_TRY(soma__file_map(&s->map, path, err));
    size_t at = 0;
    int64_t i = 0;
    soma_status status = SOMA_OK;
    for (; i < n && at < s->map.size && status == SOMA_OK; i++) {
        rlds_place *p = &l->places[first + i];
        if (soma__tfrecord_at(&p->record, s->map.data, s->map.size, at, path, &fault)) break;
        p->shard = s;
        at = p->record.next;
        status = place_episode(l, &e, first + i, err);
    }
    soma__example_free(&e);
    if (status != SOMA_OK) return status;
    if (fault.code) return add_fault(l, &fault, err);
    if (i == n && at == s->map.size) return SOMA_OK;
    soma__fail(&fault, SOMA_BAD_INPUT, "%s: has %s %lld records, dataset_info.json says %lld", path, i < n ? "only" : "more than",
               (long long)i, (long long)n);
    return add_fault(l, &fault, err);
}

// The template of a split: {DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y} unless the split says otherwise.
static soma_status shard_name(char out[SOMA_PATH_MAX], const char *template, const char *dataset, const char *split, int64_t k, int64_t of,
                              soma_error *err) {
    char x[80], y[80], xy[200];
    snprintf(x, sizeof x, "%05lld", (long long)k);
    snprintf(y, sizeof y, "%05lld", (long long)of);
    snprintf(xy, sizeof xy, "%s-of-%s", x, y);
    const char *const parts[][2] = {{"{DATASET}", dataset}, {"{SPLIT}", split},   {"{FILEFORMAT}", "tfrecord"},
                                    {"{SHARD_X_OF_Y}", xy}, {"{SHARD_INDEX}", x}, {"{NUM_SHARDS}", y}};
    size_t len = 0;
    for (const char *p = template; *p;) {
        char letter[2] = {*p, 0};
        const char *piece = letter;
        size_t step = 1;
        for (size_t i = 0; i < SOMA_COUNT(parts); i++)
            if (!strncmp(p, parts[i][0], strlen(parts[i][0]))) {
                piece = parts[i][1];
                step = strlen(parts[i][0]);
            }
        size_t n = strlen(piece);
        if (len + n >= SOMA_PATH_MAX) return soma__fail(err, SOMA_BAD_INPUT, "dataset_info.json: a shard's name becomes too long");
        memcpy(out + len, piece, n);
        len += n;
        p += step;
    }
    out[len] = 0;
    if (strchr(out, '/') || strchr(out, '{'))
        return soma__fail(err, SOMA_BAD_INPUT, "dataset_info.json: \"%.200s\" cannot be a shard's name", out);
    return SOMA_OK;
}

static int64_t count_of(const json_t *length) { // numbers are written as texts
    if (json_is_integer(length)) return (int64_t)json_integer_value(length);
    const char *text = json_string_value(length);
    char *end = NULL;
    long long n = text && *text ? strtoll(text, &end, 10) : -1;
    return end && !*end ? n : -1;
}

// Room for all that is declared, before the first record is read: readers keep pointers into these arrays.
static soma_status count_all(rlds *l, const json_t *splits, const char *where, soma_error *err) {
    size_t s, k;
    json_t *split, *length;
    json_array_foreach(splits, s, split) {
        const json_t *lengths = json_object_get(split, "shardLengths");
        if (!json_string_value(json_object_get(split, "name")) || !json_array_size(lengths))
            return soma__fail(err, SOMA_UNSUPPORTED, "%s: split %zu has no \"name\" or no \"shardLengths\"", where, s);
        json_array_foreach(lengths, k, length) {
            int64_t n = count_of(length);
            if (n < 0 || n > MAX_EPISODES || (l->d.n_episodes += n) > MAX_EPISODES || ++l->n_shards > MAX_SHARDS)
                return soma__fail(err, SOMA_BAD_INPUT,
                                  "%s: \"shardLengths\" of split %zu: more than %d episodes or %d shards, or no numbers", where, s,
                                  MAX_EPISODES, MAX_SHARDS);
        }
    }
    size_t n = (size_t)l->d.n_episodes;
    l->episodes = soma__arena_alloc(&l->arena, n * sizeof *l->episodes + 1);
    l->places = soma__arena_alloc(&l->arena, n * sizeof *l->places + 1);
    l->checked = soma__arena_alloc(&l->arena, n + 1);
    l->shards = soma__arena_alloc(&l->arena, l->n_shards * sizeof *l->shards + 1);
    l->d.episodes = l->episodes;
    if (!l->episodes || !l->places || !l->checked || !l->shards) return soma__no_memory(err, "the episode table");
    for (size_t i = 0; i < n; i++) l->episodes[i] = (soma_episode){.index = (int64_t)i, .task = ""};
    return SOMA_OK;
}

static soma_status read_split(rlds *l, const json_t *split, const char *dataset, rlds_shard **shard, int64_t *first, soma_error *err) {
    const json_t *lengths = json_object_get(split, "shardLengths"), *template = json_object_get(split, "filepathTemplate");
    const char *form = json_is_string(template) ? json_string_value(template) : "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}";
    size_t k, of = json_array_size(lengths);
    json_t *length;
    json_array_foreach(lengths, k, length) {
        char name[SOMA_PATH_MAX], path[SOMA_PATH_MAX];
        int64_t n = count_of(length);
        rlds_shard *s = (*shard)++;
        SOMA_TRY(shard_name(name, form, dataset, json_string_value(json_object_get(split, "name")), (int64_t)k, (int64_t)of, err));
        SOMA_TRY(soma__path_join(path, l->d.path, name, err));
        if (!(s->name = soma__arena_strdup(&l->arena, name))) return soma__no_memory(err, path);
        for (int64_t i = 0; i < n; i++) l->places[*first + i].shard = s;
        if (soma__file_exists(path)) {
            SOMA_TRY(read_shard(l, s, *first, n, err));
        } else {
            size_t absent = (size_t)l->d.n_absent;
            if (!SOMA_PUSH_ROOM(l->absent, absent, l->absent_room)) return soma__no_memory(err, path);
            l->absent[l->d.n_absent++] = s->name;
            l->d.absent = l->absent;
        }
        *first += n;
    }
    return SOMA_OK;
}

static soma_status read_info(rlds *l, const json_t *info, const char *where, soma_error *err) {
    const char *name, *version = json_string_value(json_object_get(info, "version"));
    const char *kind = json_string_value(json_object_get(info, "fileFormat"));
    const json_t *splits;
    size_t s;
    json_t *split;
    rlds_shard *shard;
    int64_t first = 0;
    SOMA_TRY(soma__json_string(&name, info, "name", where, err));
    SOMA_TRY(soma__json_get(&splits, info, "splits", where, err));
    if (kind && strcmp(kind, "tfrecord"))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: the shards are \"%.100s\" files; tfrecord can be read", where, kind);
    l->d.version = soma__arena_strdup(&l->arena, version ? version : "");
    if (!l->d.version) return soma__no_memory(err, where);
    SOMA_TRY(count_all(l, splits, where, err));
    shard = l->shards;
    json_array_foreach(splits, s, split) SOMA_TRY(read_split(l, split, name, &shard, &first, err));
    l->d.n_frames = l->d.frames_present;      // RLDS declares episodes, not frames
    for (int f = 0; f < l->d.n_features; f++) // pictures of a size that no record told
        if (l->features[f].kind == SOMA_FEATURE_IMAGE && (l->features[f].shape[0] < 1 || l->features[f].shape[1] < 1))
            l->features[f].kind = SOMA_FEATURE_OTHER;
    return SOMA_OK;
}

static soma_status open_all(rlds *l, soma_error *err) {
    char path[SOMA_PATH_MAX];
    json_t *info;
    SOMA_TRY(rlds_read_features(l, err));
    SOMA_TRY(soma__path_join(path, l->d.path, "dataset_info.json", err));
    SOMA_TRY(soma__json_load(&info, path, err));
    soma_status status = read_info(l, info, path, err);
    json_decref(info);
    return status;
}

soma_status rlds_open(soma_dataset **out, const char *path, soma_error *err) {
    char dir[SOMA_PATH_MAX];
    *out = NULL;
    if (!find_folder(dir, path)) return soma__fail(err, SOMA_NOT_FOUND, "%s: holds no dataset_info.json with features.json", path);
    rlds *l = soma__calloc(1, sizeof *l);
    if (!l) return soma__no_memory(err, path);
    l->d.format = &soma__dataset_format_rlds;
    l->d.hint = l->d.robot_type = "";
    l->d.path = soma__arena_strdup(&l->arena, dir);
    soma_status status = l->d.path ? open_all(l, err) : soma__no_memory(err, path);
    if (status == SOMA_OK) *out = &l->d;
    if (status != SOMA_OK) rlds_close(&l->d);
    return status;
}

void rlds_close(soma_dataset *d) {
    rlds *l = (rlds *)d;
    if (!l) return;
    for (size_t i = 0; l->shards && i < l->n_shards; i++) soma__file_unmap(&l->shards[i].map);
    soma__free(l->absent);
    soma__free(l->faults);
    soma__arena_free(&l->arena);
    soma__free(l);
}
