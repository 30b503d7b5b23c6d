// SPDX-License-Identifier: Apache-2.0
// LeRobot's meta/ folder, v2.0, v2.1 and v3.0: features, tasks, episodes, and which of the files that it names are there. Metadata may
// point to files that are absent: the dataset opens, the files are listed, their episodes are marked.
#include "data/lerobot/lerobot.h"
#include "base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FEATURES = 1000, MAX_EPISODES = 10000000, MAX_LENGTH = 100000000, LINES_MAX = 1 << 30, MAX_OTHERS = 1000 };

// ---- features

static const char *copy(lerobot *l, const char *s) { return soma__arena_strdup(&l->arena, s ? s : ""); }

static bool is_numeric(const char *dtype) {
    static const char *const words[] = {"float16", "float32", "float64", "int8",   "int16",  "int32",
                                        "int64",   "uint8",   "uint16",  "uint32", "uint64", "bool"};
    for (size_t i = 0; i < SOMA_COUNT(words); i++)
        if (!strcmp(dtype, words[i])) return true;
    return false;
}

// All strings in a list, a list of lists or a map of lists, in order; counts only where `out` is NULL.
static int flatten_names(lerobot *l, const json_t *names, const char **out, int n) {
    if (json_is_string(names)) {
        if (out && !(out[n] = copy(l, json_string_value(names)))) return -1;
        return n + 1;
    }
    size_t i;
    const char *key;
    json_t *value;
    if (json_is_array(names)) json_array_foreach(names, i, value) {
            if ((n = flatten_names(l, value, out, n)) < 0) return -1;
        }
    if (json_is_object(names)) json_object_foreach((json_t *)names, key, value) {
            if ((n = flatten_names(l, value, out, n)) < 0) return -1;
        }
    return n;
}

static soma_status read_names(lerobot *l, soma_feature *f, const json_t *names, soma_error *err) {
    int n = flatten_names(l, names, NULL, 0);
    if (!f->n_dims || n != f->shape[f->n_dims - 1]) return SOMA_OK;
    const char **out = soma__arena_alloc(&l->arena, sizeof *out * (size_t)n);
    if (!out || flatten_names(l, names, out, 0) < 0) return soma__no_memory(err, "the names of a feature");
    f->names = out;
    return SOMA_OK;
}

// Pictures are declared [height, width, channels] or [channels, height, width]; ours are the former.
static void settle_picture(soma_feature *f, const json_t *names) {
    const char *first = json_string_value(json_array_get(names, 0));
    f->kind = SOMA_FEATURE_OTHER;
    if (f->n_dims != 3) return;
    bool channels_first = first ? !strncmp(first, "channel", 7) : f->shape[2] != 3;
    int64_t height = f->shape[channels_first ? 1 : 0], width = f->shape[channels_first ? 2 : 1],
            channels = f->shape[channels_first ? 0 : 2];
    if (channels != 3 || height < 1 || width < 1 || height > 16384 || width > 16384) return;
    f->kind = SOMA_FEATURE_IMAGE;
    f->shape[0] = height;
    f->shape[1] = width;
    f->shape[2] = 3;
}

static soma_status read_feature(lerobot *l, soma_feature *f, const char *name, const json_t *entry, const char *where, soma_error *err) {
    const char *dtype;
    const json_t *shape;
    SOMA_TRY(soma__json_string(&dtype, entry, "dtype", where, err));
    SOMA_TRY(soma__json_get(&shape, entry, "shape", where, err));
    f->name = copy(l, name);
    f->dtype = copy(l, dtype);
    if (!f->name || !f->dtype) return soma__no_memory(err, where);
    if (!json_is_array(shape) || json_array_size(shape) > SOMA_MAX_DIMS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the shape of feature \"%s\" must be a list of at most %d numbers", where, name,
                          SOMA_MAX_DIMS);
    f->n_dims = (int)json_array_size(shape);
    f->size = 1;
    for (int i = 0; i < f->n_dims; i++) {
        const json_t *v = json_array_get(shape, (size_t)i);
        f->shape[i] = json_is_integer(v) ? (int64_t)json_integer_value(v) : 0;
        if (f->shape[i] < 1 || f->shape[i] > INT32_MAX || __builtin_mul_overflow(f->size, f->shape[i], &f->size) || f->size > INT32_MAX)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: feature \"%s\" has an impossible shape", where, name);
    }
    f->kind = is_numeric(dtype) ? SOMA_FEATURE_VECTOR : SOMA_FEATURE_OTHER;
    const json_t *names = json_object_get(entry, "names");
    if (!strcmp(dtype, "video") || !strcmp(dtype, "image")) {
        settle_picture(f, names);
        return SOMA_OK;
    }
    return read_names(l, f, names, err);
}

// A template of info.json must stay inside the folder.
static soma_status read_template(lerobot *l, const char **out, const json_t *info, const char *key, const char *where, soma_error *err) {
    const char *text = json_string_value(json_object_get(info, key));
    if (text && (text[0] == '/' || strstr(text, ".."))) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" leaves the folder", where, key);
    if (text && !(*out = copy(l, text))) return soma__no_memory(err, where);
    return SOMA_OK;
}

static soma_status read_info(lerobot *l, const json_t *info, const char *where, soma_error *err) {
    const char *version, *robot = json_string_value(json_object_get(info, "robot_type"));
    SOMA_TRY(soma__json_string(&version, info, "codebase_version", where, err));
    if (version[0] != 'v' || (version[1] != '2' && version[1] != '3') || version[2] != '.')
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: codebase_version \"%.20s\"; v2.0, v2.1 and v3.0 can be read", where, version);
    l->generation = version[1] - '0';
    l->d.version = copy(l, version);
    l->d.robot_type = copy(l, robot);
    SOMA_TRY(soma__json_real(&l->d.fps, info, "fps", where, err));
    if (!(l->d.fps > 0) || l->d.fps > 1e6) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"fps\" is %g", where, l->d.fps);
    SOMA_TRY(soma__json_int(&l->d.n_episodes, info, "total_episodes", 0, MAX_EPISODES, where, err));
    l->declared_episodes = l->d.n_episodes;
    SOMA_TRY(soma__json_int(&l->d.n_frames, info, "total_frames", 0, INT64_MAX, where, err));
    l->chunks_size = 1000;
    if (json_object_get(info, "chunks_size")) SOMA_TRY(soma__json_int(&l->chunks_size, info, "chunks_size", 1, INT32_MAX, where, err));
    SOMA_TRY(read_template(l, &l->data_path, info, "data_path", where, err));
    SOMA_TRY(read_template(l, &l->video_path, info, "video_path", where, err));
    if (!l->data_path) return soma__fail(err, SOMA_BAD_INPUT, "%s: the key \"data_path\" is missing", where);
    const json_t *features;
    SOMA_TRY(soma__json_get(&features, info, "features", where, err));
    size_t n = json_object_size(features);
    if (!n || n > MAX_FEATURES)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"features\" must be a map of 1 to %d features", where, MAX_FEATURES);
    l->features = soma__arena_alloc(&l->arena, (n + LEROBOT_PARTS) * sizeof *l->features);
    if (!l->d.version || !l->d.robot_type || !l->features) return soma__no_memory(err, where);
    l->d.features = l->features;
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)features, name, entry)
        SOMA_TRY(read_feature(l, &l->features[l->d.n_features++], name, entry, where, err));
    return SOMA_OK;
}

// ---- file names

typedef struct slots { // what a template may name
    int64_t episode_chunk, episode_index, chunk_index, file_index;
    const char *video_key;
} slots;

static bool slot_value(const slots *s, const char *name, size_t len, int64_t *number) {
    const struct {
        const char *name;
        int64_t value;
    } known[] = {{"episode_chunk", s->episode_chunk},
                 {"episode_index", s->episode_index},
                 {"chunk_index", s->chunk_index},
                 {"file_index", s->file_index}};
    for (size_t i = 0; i < SOMA_COUNT(known); i++)
        if (strlen(known[i].name) == len && !strncmp(known[i].name, name, len)) {
            *number = known[i].value;
            return true;
        }
    return false;
}

// Python's format strings as far as LeRobot uses them: {name} and {name:0Nd}.
static soma_status expand(char out[SOMA_PATH_MAX], const char *template, const slots *s, soma_error *err) {
    size_t len = 0;
    for (const char *p = template; *p;) {
        char piece[SOMA_PATH_MAX];
        const char *end = *p == '{' ? strchr(p, '}') : NULL;
        int64_t number;
        if (*p != '{') {
            snprintf(piece, sizeof piece, "%c", *p++);
        } else {
            size_t name = strcspn(p + 1, ":}");
            int width = end && p[1 + name] == ':' ? atoi(p + 2 + name) : 0;
            if (end && name == 9 && !strncmp(p + 1, "video_key", 9) && s->video_key) {
                snprintf(piece, sizeof piece, "%s", s->video_key);
            } else if (end && width >= 0 && width < 20 && slot_value(s, p + 1, name, &number)) {
                snprintf(piece, sizeof piece, "%0*lld", width, (long long)number);
            } else {
                return soma__fail(err, SOMA_BAD_INPUT, "meta/info.json: the path \"%s\" has a part that is not known", template);
            }
            p = end + 1;
        }
        size_t n = strlen(piece);
        if (len + n >= SOMA_PATH_MAX)
            return soma__fail(err, SOMA_BAD_INPUT, "meta/info.json: the path \"%.100s\" becomes too long", template);
        memcpy(out + len, piece, n);
        len += n;
    }
    out[len] = 0;
    return SOMA_OK;
}

static bool exists(const lerobot *l, const char *relative) {
    char path[SOMA_PATH_MAX];
    return soma__path_join(path, l->d.path, relative, NULL) == SOMA_OK && soma__file_exists(path);
}

// One file that the metadata names. Neighbouring episodes share shards, so the last answer is kept and not asked for again.
typedef struct known_file {
    const char *path;
    bool present;
} known_file;

static soma_status know_file(lerobot *l, known_file *last, const char *template, const slots *s, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(expand(path, template, s, err));
    if (last->path && !strcmp(last->path, path)) return SOMA_OK;
    last->path = copy(l, path);
    last->present = exists(l, path);
    if (!last->path) return soma__no_memory(err, "the files of a dataset");
    if (last->present) return SOMA_OK;
    size_t n = (size_t)l->d.n_absent;
    if (!SOMA_PUSH_ROOM(l->absent, n, l->absent_room)) return soma__no_memory(err, "the files of a dataset");
    l->absent[l->d.n_absent++] = last->path;
    l->d.absent = l->absent;
    return SOMA_OK;
}

// ---- episodes

typedef struct placing {      // what is known while episodes are placed one after the other
    known_file data, *videos; // [n_features]
    const char *file;         // that `block` lies in
    lerobot_block *block;
} placing;

static soma_status place_video(lerobot *l, placing *p, lerobot_video *v, int feature, slots *s, soma_error *err) {
    s->video_key = l->features[feature].name;
    if (strchr(s->video_key, '/') || strstr(s->video_key, "..") || !l->video_path)
        return soma__fail(err, SOMA_BAD_INPUT, "meta/info.json: there is no file name for the videos of \"%.200s\"", s->video_key);
    SOMA_TRY(know_file(l, &p->videos[feature], l->video_path, s, err));
    v->path = p->videos[feature].path;
    v->present = p->videos[feature].present;
    return SOMA_OK;
}

static void count_episode(lerobot *l, const soma_episode *e) {
    if (!e->present) return;
    l->d.episodes_present++;
    l->d.frames_present += e->n_frames;
}

// A camera without a single file was declared and never recorded, or its videos were left out whole: it makes no episode incomplete,
// unless there is no other.
static void mark_pictures(lerobot *l) {
    int cameras = 0, empty = 0;
    for (int f = 0; f < l->d.n_features; f++) {
        cameras += l->features[f].kind == SOMA_FEATURE_IMAGE;
        empty += l->features[f].kind == SOMA_FEATURE_IMAGE && !soma__dataset_has(&l->d, f);
    }
    for (int f = 0; f < l->d.n_features; f++) {
        if (l->features[f].kind != SOMA_FEATURE_IMAGE || (empty < cameras && !soma__dataset_has(&l->d, f))) continue;
        for (int64_t i = 0; i < l->d.n_episodes; i++)
            if (!lerobot_present(&l->d, i, f)) l->episodes[i].video_present = false;
    }
}

static soma_status start_episodes(lerobot *l, placing *p, int64_t n, soma_error *err) {
    l->d.n_episodes = n;
    l->episodes = soma__arena_alloc(&l->arena, (size_t)n * sizeof *l->episodes);
    l->places = soma__arena_alloc(&l->arena, (size_t)n * sizeof *l->places);
    p->videos = soma__arena_alloc(&l->arena, (size_t)l->d.n_features * sizeof *p->videos);
    l->d.episodes = l->episodes;
    return l->episodes && l->places && p->videos ? SOMA_OK : soma__no_memory(err, "the episode table");
}

static lerobot_video *start_videos(lerobot *l, int64_t i) {
    lerobot_video *videos = soma__arena_alloc(&l->arena, (size_t)l->d.n_features * sizeof *videos);
    l->places[i].videos = videos;
    return videos;
}

// Room for the instructions behind the first of `n`; NULL when there are none, or no memory.
static const char **start_others(lerobot *l, soma_episode *e, size_t n) {
    if (n < 2) return NULL;
    e->n_others = (int)SOMA_MIN(n - 1, (size_t)MAX_OTHERS);
    const char **others = soma__arena_alloc(&l->arena, (size_t)e->n_others * sizeof *others);
    e->others = others;
    return others;
}

// ---- v2: meta/episodes.jsonl, a file per episode

static soma_status place_v2(lerobot *l, placing *p, int64_t i, const json_t *line, const char *where, soma_error *err) {
    soma_episode *e = &l->episodes[i];
    SOMA_TRY(soma__json_int(&e->index, line, "episode_index", 0, INT32_MAX, where, err));
    SOMA_TRY(soma__json_int(&e->n_frames, line, "length", 0, MAX_LENGTH, where, err));
    const json_t *tasks = json_object_get(line, "tasks");
    e->task = copy(l, json_string_value(json_array_get(tasks, 0)));
    const char **others = start_others(l, e, json_array_size(tasks));
    for (int k = 0; k < e->n_others && others; k++)
        if (!(others[k] = copy(l, json_string_value(json_array_get(tasks, (size_t)k + 1))))) others = NULL;
    slots s = {.episode_index = e->index, .episode_chunk = e->index / l->chunks_size};
    SOMA_TRY(know_file(l, &p->data, l->data_path, &s, err));
    l->places[i].data = p->data.path;
    e->present = p->data.present;
    e->video_present = true; // until mark_pictures
    lerobot_video *videos = start_videos(l, i);
    if (!videos || !e->task || (e->n_others && !others)) return soma__no_memory(err, where);
    for (int f = 0; f < l->d.n_features; f++)
        if (lerobot_is_video(&l->features[f])) SOMA_TRY(place_video(l, p, &videos[f], f, &s, err));
    count_episode(l, e);
    return SOMA_OK;
}

static soma_status place_line(lerobot *l, placing *p, int64_t i, const char *text, size_t len, const char *path, soma_error *err) {
    char where[SOMA_PATH_MAX + 40];
    snprintf(where, sizeof where, "%s: record %lld", path, (long long)i + 1);
    json_t *line;
    SOMA_TRY(soma__json_parse(&line, text, len, where, err));
    soma_status status = place_v2(l, p, i, line, where, err);
    json_decref(line);
    return status;
}

static soma_status read_episodes_v2(lerobot *l, soma_error *err) {
    char path[SOMA_PATH_MAX], *text;
    size_t size, n = 0;
    SOMA_TRY(soma__path_join(path, l->d.path, "meta/episodes.jsonl", err));
    SOMA_TRY(soma__file_read(&text, &size, path, LINES_MAX, err));
    for (const char *p = text; *p; p += strspn(p, "\r\n")) { // count lines that are not empty
        n += strcspn(p, "\r\n") > 0;
        p += strcspn(p, "\r\n");
    }
    placing p = {0};
    soma_status status = n <= MAX_EPISODES ? start_episodes(l, &p, (int64_t)n, err)
                                           : soma__fail(err, SOMA_BAD_INPUT, "%s: more than %d episodes", path, MAX_EPISODES);
    const char *line = text + strspn(text, "\r\n");
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        size_t len = strcspn(line, "\r\n");
        status = place_line(l, &p, (int64_t)i, line, len, path, err);
        line += len + strspn(line + len, "\r\n");
    }
    soma__free(text);
    return status;
}

// ---- v3: meta/episodes/chunk-*/file-*.parquet, shards

typedef struct tables {
    soma_table **items;
    size_t n, room;
} tables;

// Reads the columns that are wanted and there; statistics stay unread.
static soma_status read_episode_table(lerobot *l, tables *all, const char *path, soma_error *err) {
    if (!SOMA_PUSH_ROOM(all->items, all->n, all->room)) return soma__no_memory(err, path);
    soma_table *schema;
    soma_parquet_query q = {.path = path};
    SOMA_TRY(soma__parquet_read(&schema, l->pq, &q, err));
    const char **columns = soma__calloc((size_t)schema->n_columns, sizeof *columns);
    soma_status status = columns ? SOMA_OK : soma__no_memory(err, path);
    for (int c = 0; columns && c < schema->n_columns; c++)
        if (strncmp(schema->columns[c].name, "stats/", 6)) columns[q.n_columns++] = schema->columns[c].name;
    q.columns = columns;
    q.limit = -1;
    if (status == SOMA_OK) status = soma__parquet_read(&all->items[all->n], l->pq, &q, err);
    if (status == SOMA_OK) all->n++;
    soma__free(columns);
    soma__table_free(schema);
    return status;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

// Every parquet file below `dir`, two levels deep, in the order of names.
static soma_status read_episode_tables(lerobot *l, tables *all, const char *dir, int depth, soma_error *err) {
    char **names;
    size_t n;
    SOMA_TRY(soma__dir_list(&names, &n, dir, err));
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        char path[SOMA_PATH_MAX];
        status = soma__path_join(path, dir, names[i], err);
        if (status != SOMA_OK) break;
        if (soma__dir_exists(path)) {
            if (depth < 1) status = read_episode_tables(l, all, path, depth + 1, err);
        } else if (ends_with(names[i], ".parquet")) {
            status = read_episode_table(l, all, path, err);
        }
    }
    soma__dir_list_free(names, n);
    return status;
}

// The number in row `row`, 0 to `max`.
static soma_status cell(double *out, const soma_table *t, int64_t row, const char *name, double max, soma_error *err) {
    const soma_column *c = soma__table_column(t, name);
    if (!c || c->kind != SOMA_COLUMN_NUMBER || c->list)
        return soma__fail(err, SOMA_BAD_INPUT, "meta/episodes: the column \"%s\" is missing or holds no numbers", name);
    *out = c->numbers[c->starts[row]];
    if (*out >= 0 && *out <= max) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "meta/episodes: \"%s\" of row %lld is %g", name, (long long)row, *out);
}

static soma_status place_videos_v3(lerobot *l, placing *p, lerobot_video *videos, const soma_table *t, int64_t row, soma_error *err) {
    for (int f = 0; f < l->d.n_features; f++) {
        if (!lerobot_is_video(&l->features[f])) continue;
        double chunk, file;
        char name[3][400];
        static const char *const ends[] = {"chunk_index", "file_index", "from_timestamp"};
        for (int k = 0; k < 3; k++) snprintf(name[k], sizeof name[k], "videos/%.300s/%s", l->features[f].name, ends[k]);
        if (!soma__table_column(t, name[0])) continue; // the slice of a dataset whose videos were left out
        SOMA_TRY(cell(&chunk, t, row, name[0], INT32_MAX, err));
        SOMA_TRY(cell(&file, t, row, name[1], INT32_MAX, err));
        SOMA_TRY(cell(&videos[f].start, t, row, name[2], 1e9, err));
        slots s = {.chunk_index = (int64_t)chunk, .file_index = (int64_t)file};
        SOMA_TRY(place_video(l, p, &videos[f], f, &s, err));
    }
    return SOMA_OK;
}

// Where an episode's rows should be, by the lengths of those before it in its file; the reader looks whether they are.
static soma_status place_rows(lerobot *l, placing *p, int64_t i, soma_error *err) {
    const lerobot_block *last = p->file == p->data.path ? p->block : NULL;
    int64_t first = last ? last->first + last->rows : 0, n = l->episodes[i].n_frames;
    if (!last || last->rows + n > LEROBOT_BLOCK) {
        if (p->block && !last && !p->block->first) p->block->rows = -1; // a file that was one block
        p->block = soma__arena_alloc(&l->arena, sizeof *p->block);
        if (!p->block) return soma__no_memory(err, "the episode table");
        *p->block = (lerobot_block){.first = first};
        p->file = p->data.path;
    }
    p->block->rows += n;
    l->places[i].block = p->block;
    return SOMA_OK;
}

static soma_status place_v3(lerobot *l, placing *p, int64_t i, const soma_table *t, int64_t row, soma_error *err) {
    soma_episode *e = &l->episodes[i];
    double index, length, chunk, file;
    SOMA_TRY(cell(&index, t, row, "episode_index", INT32_MAX, err));
    SOMA_TRY(cell(&length, t, row, "length", MAX_LENGTH, err));
    SOMA_TRY(cell(&chunk, t, row, "data/chunk_index", INT32_MAX, err));
    SOMA_TRY(cell(&file, t, row, "data/file_index", INT32_MAX, err));
    e->index = (int64_t)index;
    e->n_frames = (int64_t)length;
    const soma_column *tasks = soma__table_column(t, "tasks");
    bool named = tasks && tasks->kind == SOMA_COLUMN_TEXT && tasks->starts[row + 1] > tasks->starts[row];
    e->task = copy(l, named ? tasks->texts[tasks->starts[row]].data : "");
    const char **others = start_others(l, e, named ? tasks->starts[row + 1] - tasks->starts[row] : 0);
    for (int k = 0; k < e->n_others && others; k++)
        if (!(others[k] = copy(l, tasks->texts[tasks->starts[row] + (size_t)k + 1].data))) others = NULL;
    slots s = {.chunk_index = (int64_t)chunk, .file_index = (int64_t)file};
    SOMA_TRY(know_file(l, &p->data, l->data_path, &s, err));
    l->places[i].data = p->data.path;
    SOMA_TRY(place_rows(l, p, i, err));
    e->present = p->data.present;
    e->video_present = true; // until mark_pictures
    lerobot_video *videos = start_videos(l, i);
    if (!videos || !e->task || (e->n_others && !others)) return soma__no_memory(err, "the episode table");
    SOMA_TRY(place_videos_v3(l, p, videos, t, row, err));
    count_episode(l, e);
    return SOMA_OK;
}

static soma_status read_episodes_v3(lerobot *l, soma_error *err) {
    char dir[SOMA_PATH_MAX];
    tables all = {0};
    placing p = {0};
    soma_status status = soma__path_join(dir, l->d.path, "meta/episodes", err);
    if (status == SOMA_OK) status = read_episode_tables(l, &all, dir, 0, err);
    int64_t n = 0;
    for (size_t k = 0; k < all.n; k++) n += all.items[k]->n_rows;
    if (status == SOMA_OK && n > MAX_EPISODES) status = soma__fail(err, SOMA_BAD_INPUT, "%s: more than %d episodes", dir, MAX_EPISODES);
    if (status == SOMA_OK) status = start_episodes(l, &p, n, err);
    int64_t i = 0;
    for (size_t k = 0; k < all.n && status == SOMA_OK; k++)
        for (int64_t row = 0; row < all.items[k]->n_rows && status == SOMA_OK; row++) status = place_v3(l, &p, i++, all.items[k], row, err);
    if (p.block && !p.block->first) p.block->rows = -1;
    for (size_t k = 0; k < all.n; k++) soma__table_free(all.items[k]);
    soma__free(all.items);
    return status == SOMA_OK ? SOMA_OK : soma__fail_in(err, "%s", l->d.path);
}

// ---- absent files

// Absent videos that lie in another top folder than info.json says (a frequent slip when a dataset is uploaded).
static soma_status find_hint(lerobot *l, soma_error *err) {
    char **names;
    size_t n;
    SOMA_TRY(soma__dir_list(&names, &n, l->d.path, err));
    for (int a = 0; a < l->d.n_absent && !*l->d.hint; a++) {
        const char *rest = strchr(l->absent[a], '/');
        for (size_t i = 0; rest && i < n && !*l->d.hint; i++) {
            char other[SOMA_PATH_MAX];
            size_t len = (size_t)(rest - l->absent[a]);
            if ((strlen(names[i]) == len && !strncmp(names[i], l->absent[a], len)) || soma__path_join(other, names[i], rest + 1, NULL))
                continue;
            if (!exists(l, other)) continue;
            const char *hint =
                soma__arena_printf(&l->arena, "%s lies in %s/, while meta/info.json says %.*s/: rename the folder or edit info.json",
                                   rest + 1, names[i], (int)len, l->absent[a]);
            if (hint) l->d.hint = hint;
        }
    }
    soma__dir_list_free(names, n);
    return SOMA_OK;
}

// What info.json says in total against what the list of episodes says.
static soma_status compare_counts(lerobot *l, soma_error *err) {
    int64_t frames = 0;
    for (int64_t e = 0; e < l->d.n_episodes; e++) frames += l->episodes[e].n_frames;
    if (l->d.n_episodes == l->declared_episodes && frames == l->d.n_frames) return SOMA_OK;
    l->fault = soma__arena_printf(&l->arena, "%s/meta/info.json: says %lld episodes with %lld frames, meta/episodes lists %lld with %lld",
                                  l->d.path, (long long)l->declared_episodes, (long long)l->d.n_frames, (long long)l->d.n_episodes,
                                  (long long)frames);
    if (!l->fault) return soma__no_memory(err, "the faults of a dataset");
    l->d.faults = &l->fault;
    l->d.n_faults = 1;
    return SOMA_OK;
}

static soma_status open_all(lerobot *l, soma_error *err) {
    char path[SOMA_PATH_MAX];
    json_t *info;
    SOMA_TRY(soma__path_join(path, l->d.path, "meta/info.json", err));
    SOMA_TRY(soma__json_load(&info, path, err));
    soma_status status = read_info(l, info, path, err);
    json_decref(info);
    if (status == SOMA_OK) status = lerobot_read_modality(l, err);
    if (status == SOMA_OK && l->generation == 2) status = read_episodes_v2(l, err);
    if (status == SOMA_OK) status = soma__parquet_open(&l->pq, NULL, err);
    if (status == SOMA_OK && l->generation == 3) status = read_episodes_v3(l, err);
    if (status == SOMA_OK) status = compare_counts(l, err);
    if (status != SOMA_OK) return status;
    mark_pictures(l);
    if (exists(l, "meta/incomplete"))
        l->d.hint = "the recording was cut off or still goes on: what is here are the episodes that had ended";
    return l->d.n_absent && !*l->d.hint ? find_hint(l, err) : SOMA_OK;
}

soma_status lerobot_open(soma_dataset **out, const char *path, soma_error *err) {
    *out = NULL;
    lerobot *l = soma__calloc(1, sizeof *l);
    if (!l) return soma__no_memory(err, path);
    l->d.hint = "";
    l->d.format = &soma__dataset_format_lerobot;
    l->d.path = soma__arena_strdup(&l->arena, path);
    soma_status status = l->d.path ? open_all(l, err) : soma__no_memory(err, path);
    if (status != SOMA_OK) {
        lerobot_close(&l->d);
        return status;
    }
    *out = &l->d;
    return SOMA_OK;
}

void lerobot_close(soma_dataset *d) {
    lerobot *l = (lerobot *)d;
    if (!l) return;
    soma__parquet_close(l->pq);
    soma__free(l->absent);
    soma__free(l->tasks);
    soma__arena_free(&l->arena);
    soma__free(l);
}
