// SPDX-License-Identifier: Apache-2.0
// The files of a LeRobot v3.0 dataset, as its own writer lays them out (checked against datasets that it wrote): names, column names and
// types, info.json's keys, the statistics per episode and of the whole.
#include "data/writer_files.h"
#include "data/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1000, FIELDS_MAX = 4000, STAT_PICTURES = 2000 };

// A text index as pandas keeps it: LeRobot looks tasks up by it.
static const char pandas_tasks[] =
    "{\"index_columns\": [\"__index_level_0__\"], \"column_indexes\": [{\"name\": null, \"field_name\": null, \"pandas_type\": "
    "\"unicode\", "
    "\"numpy_type\": \"object\", \"metadata\": {\"encoding\": \"UTF-8\"}}], \"columns\": [{\"name\": \"task_index\", \"field_name\": "
    "\"task_index\", \"pandas_type\": \"int64\", \"numpy_type\": \"int64\", \"metadata\": null}, {\"name\": null, \"field_name\": "
    "\"__index_level_0__\", \"pandas_type\": \"unicode\", \"numpy_type\": \"object\", \"metadata\": null}], \"attributes\": {}, "
    "\"creator\": {\"library\": \"soma\", \"version\": \"" SOMA_VERSION "\"}, \"pandas_version\": \"2.3.3\"}";

static void camera_key(char out[300], const soma_dataset_spec *s, int camera) {
    snprintf(out, 300, "observation.images.%.250s", s->camera_names[camera]);
}

soma_status soma__writer_path(char out[SOMA_PATH_MAX], const soma_dataset_writer *w, const char *folder, int camera, const char *ending,
                              int64_t shard, soma_error *err) {
    char key[300] = "", name[600];
    if (camera >= 0) camera_key(key, &w->spec, camera);
    snprintf(name, sizeof name, "%s/%s%schunk-%03lld/file-%03lld.%s", folder, key, *key ? "/" : "", (long long)(shard / CHUNK),
             (long long)(shard % CHUNK), ending);
    return soma__path_join(out, w->path, name, err);
}

// The path of a shard's file, its folder made.
static soma_status new_path(char out[SOMA_PATH_MAX], const soma_dataset_writer *w, const char *folder, soma_error *err) {
    char dir[SOMA_PATH_MAX];
    SOMA_TRY(soma__writer_path(out, w, folder, -1, "parquet", w->n_shards, err));
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(out, '/') - out), out);
    return soma__dir_make(dir, err);
}

// ---- info.json

static json_t *number(double value) { return value == floor(value) ? json_integer((json_int_t)value) : json_real(value); }

static json_t *vector_feature(const char *dtype, int n, const char *const *names) {
    json_t *list = names ? json_array() : json_null();
    for (int i = 0; names && i < n; i++) json_array_append_new(list, json_string(names[i]));
    return json_pack("{s:s, s:[i], s:o}", "dtype", dtype, "shape", n, "names", list);
}

static json_t *camera_feature(const soma_dataset_spec *s, int camera) {
    const int width = s->image_sizes[camera][0], height = s->image_sizes[camera][1];
    return json_pack("{s:s, s:[i, i, i], s:[s, s, s], s:{s:i, s:i, s:s, s:s, s:b, s:o, s:i, s:b}}", "dtype", "video", "shape", height,
                     width, 3, "names", "height", "width", "channels", "info", "video.height", height, "video.width", width, "video.codec",
                     "h264", "video.pix_fmt", "yuv420p", "video.is_depth_map", 0, "video.fps", number(s->fps), "video.channels", 3,
                     "has_audio", 0);
}

static json_t *extra_feature(const soma_dataset_extra *x) {
    json_t *shape = json_array(), *names = x->names ? json_array() : json_null();
    for (int d = 0; d < x->n_dims; d++) json_array_append_new(shape, json_integer((json_int_t)x->shape[d]));
    for (int64_t i = 0; x->names && i < x->shape[x->n_dims - 1]; i++) json_array_append_new(names, json_string(x->names[i]));
    return json_pack("{s:s, s:o, s:o}", "dtype", x->dtype, "shape", shape, "names", names);
}

json_t *soma__writer_features(const soma_dataset_spec *s) {
    static const char *const scalars[] = {"timestamp", "frame_index", "episode_index", "index", "task_index"};
    json_t *all = json_object();
    bool ok = all && !json_object_set_new(all, "action", vector_feature("float32", s->n_actions, s->action_names)) &&
              !json_object_set_new(all, "observation.state", vector_feature("float32", s->n_state, s->state_names));
    for (int c = 0; ok && c < s->n_cameras; c++) {
        char key[300];
        camera_key(key, s, c);
        ok = !json_object_get(all, key) && !json_object_set_new(all, key, camera_feature(s, c));
    }
    for (int i = 0; ok && i < s->n_extras; i++) ok = !json_object_set_new(all, s->extras[i].name, extra_feature(&s->extras[i]));
    for (size_t i = 0; ok && i < SOMA_COUNT(scalars); i++)
        ok = !json_object_set_new(all, scalars[i], vector_feature(i ? "int64" : "float32", 1, NULL));
    if (ok) return all;
    json_decref(all);
    return NULL;
}

soma_status soma__writer_info(const soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX], split[40];
    SOMA_TRY(soma__path_join(path, w->path, "meta/info.json", err));
    snprintf(split, sizeof split, "0:%lld", (long long)w->n_episodes);
    json_t *info =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:i, s:i, s:i, s:o, s:{s:s}, s:s, s:s, s:O}", "codebase_version", "v3.0", "robot_type",
                  w->spec.robot_type, "total_episodes", (json_int_t)w->n_episodes, "total_frames", (json_int_t)w->n_frames, "total_tasks",
                  (json_int_t)w->n_tasks, "chunks_size", CHUNK, "data_files_size_in_mb", 100, "video_files_size_in_mb", 200, "fps",
                  number(w->spec.fps), "splits", "train", split, "data_path", "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
                  "video_path", "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4", "features", w->features);
    if (!info) return soma__no_memory(err, path);
    soma_status status = soma__json_save(info, path, err);
    json_decref(info);
    return status;
}

soma_status soma__writer_tasks(const soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(path, w->path, "meta/tasks.parquet", err));
    int64_t *index = soma__alloc(sizeof *index * (w->n_tasks + 1));
    if (!index) return soma__no_memory(err, path);
    for (size_t i = 0; i < w->n_tasks; i++) index[i] = (int64_t)i;
    soma_parquet_field fields[] = {
        {.name = "task_index", .type = SOMA_PARQUET_I64, .values = index},
        {.name = "__index_level_0__", .type = SOMA_PARQUET_TEXT, .values = w->tasks},
    };
    soma_status status = soma__parquet_write(w->pq, path, fields, 2, (int64_t)w->n_tasks, "pandas", pandas_tasks, err);
    soma__free(index);
    return status;
}

// ---- data/

// The column of an extra: its values put together, in its type. A shape of [1] is a plain number.
static soma_status extra_column(soma_parquet_field *field, soma_arena *arena, const soma_dataset_writer *w, int extra, size_t offset,
                                soma_error *err) {
    const soma_dataset_extra *x = &w->spec.extras[extra];
    bool number = x->n_dims == 1 && x->shape[0] == 1, whole = !strcmp(x->dtype, "int64"), flag = !strcmp(x->dtype, "bool");
    size_t size = soma__extra_size(x), n = w->shard_frames;
    int64_t *integers = whole ? soma__arena_alloc(arena, n * size * sizeof *integers + 1) : NULL;
    bool *flags = flag ? soma__arena_alloc(arena, n * size * sizeof *flags + 1) : NULL;
    float *reals = whole || flag ? NULL : soma__arena_alloc(arena, n * size * sizeof *reals + 1);
    if (!integers && !flags && !reals) return soma__no_memory(err, x->name);
    for (size_t row = 0; row < n; row++)
        for (size_t k = 0; k < size; k++) {
            float value = w->extras[row * w->extra_size + offset + k];
            if (whole) integers[row * size + k] = (int64_t)value;
            if (flag) flags[row * size + k] = value != 0;
            if (reals) reals[row * size + k] = value;
        }
    *field = (soma_parquet_field){.name = x->name,
                                  .type = whole  ? SOMA_PARQUET_I64
                                          : flag ? SOMA_PARQUET_BOOL
                                                 : SOMA_PARQUET_F32,
                                  .n_dims = number ? 0 : x->n_dims,
                                  .values = whole  ? (const void *)integers
                                            : flag ? (const void *)flags
                                                   : (const void *)reals};
    memcpy(field->shape, x->shape, sizeof field->shape);
    return SOMA_OK;
}

soma_status soma__writer_data(const soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(new_path(path, w, "data", err));
    size_t n = w->shard_frames;
    int64_t *numbers = soma__alloc(4 * n * sizeof *numbers);
    float *time = soma__alloc(n * sizeof *time);
    soma_status status = numbers && time ? SOMA_OK : soma__no_memory(err, path);
    if (status == SOMA_OK) {
        int64_t *frame = numbers, *episode = numbers + n, *index = numbers + 2 * n, *task = numbers + 3 * n;
        size_t row = 0;
        for (size_t e = 0; e < w->n_open; e++)
            for (int64_t i = 0; i < w->episodes[e].length; i++, row++) {
                frame[row] = i;
                episode[row] = w->n_episodes + (int64_t)e;
                index[row] = w->n_frames + (int64_t)row;
                task[row] = w->episodes[e].task;
                time[row] = (float)((double)i / w->spec.fps);
            }
        const soma_parquet_field own[] = {
            {.name = "action", .type = SOMA_PARQUET_F32, .n_dims = 1, .shape = {w->spec.n_actions}, .values = w->actions},
            {.name = "observation.state", .type = SOMA_PARQUET_F32, .n_dims = 1, .shape = {w->spec.n_state}, .values = w->states},
            {.name = "timestamp", .type = SOMA_PARQUET_F32, .values = time},
            {.name = "frame_index", .type = SOMA_PARQUET_I64, .values = frame},
            {.name = "episode_index", .type = SOMA_PARQUET_I64, .values = episode},
            {.name = "index", .type = SOMA_PARQUET_I64, .values = index},
            {.name = "task_index", .type = SOMA_PARQUET_I64, .values = task},
        };
        int n_fields = SOMA_COUNT(own);
        soma_arena arena = {0};
        soma_parquet_field *fields = soma__arena_alloc(&arena, sizeof own + (size_t)w->spec.n_extras * sizeof *fields);
        if (fields) memcpy(fields, own, sizeof own);
        if (!fields) status = soma__no_memory(err, path);
        for (size_t i = 0, offset = 0; i < (size_t)w->spec.n_extras && status == SOMA_OK; i++) {
            status = extra_column(&fields[n_fields++], &arena, w, (int)i, offset, err);
            offset += soma__extra_size(&w->spec.extras[i]);
        }
        if (status == SOMA_OK) status = soma__parquet_write(w->pq, path, fields, n_fields, (int64_t)n, NULL, NULL, err);
        soma__arena_free(&arena);
    }
    soma__free(numbers);
    soma__free(time);
    return status;
}

// ---- meta/episodes/

typedef struct episode_table {
    soma_arena arena;
    soma_parquet_field *fields;
    int n_fields;
    size_t n_rows;
    bool failed;
} episode_table;

// A new column; the values are to be filled in.
static void *add_field(episode_table *t, const char *name, soma_parquet_type type, int n_dims, int64_t extent) {
    int64_t n = n_dims ? extent : 1;
    void *values = soma__arena_alloc(&t->arena, t->n_rows * (size_t)n * 8 + 8);
    const char *copy = soma__arena_strdup(&t->arena, name);
    t->failed = t->failed || !values || !copy || t->n_fields >= FIELDS_MAX;
    if (t->failed) return NULL;
    t->fields[t->n_fields++] = (soma_parquet_field){copy, type, n_dims, {extent, 1, 1}, values};
    return values;
}

static void add_number(episode_table *t, const char *name, int64_t same) {
    int64_t *v = add_field(t, name, SOMA_PARQUET_I64, 0, 0);
    for (size_t i = 0; v && i < t->n_rows; i++) v[i] = same;
}

static void add_places(episode_table *t, const soma_dataset_writer *w) {
    int64_t *index = add_field(t, "episode_index", SOMA_PARQUET_I64, 0, 0);
    const char **tasks = add_field(t, "tasks", SOMA_PARQUET_TEXT, 1, 1);
    int64_t *length = add_field(t, "length", SOMA_PARQUET_I64, 0, 0);
    add_number(t, "data/chunk_index", w->n_shards / CHUNK);
    add_number(t, "data/file_index", w->n_shards % CHUNK);
    int64_t *from = add_field(t, "dataset_from_index", SOMA_PARQUET_I64, 0, 0);
    int64_t *to = add_field(t, "dataset_to_index", SOMA_PARQUET_I64, 0, 0);
    if (t->failed) return;
    int64_t at = w->n_frames;
    for (size_t e = 0; e < t->n_rows; e++) {
        index[e] = w->n_episodes + (int64_t)e;
        tasks[e] = w->tasks[w->episodes[e].task];
        length[e] = w->episodes[e].length;
        from[e] = at;
        to[e] = at += length[e];
    }
}

static void add_video(episode_table *t, const soma_dataset_writer *w, int camera) {
    char key[300], name[400];
    camera_key(key, &w->spec, camera);
    snprintf(name, sizeof name, "videos/%s/chunk_index", key);
    add_number(t, name, w->n_shards / CHUNK);
    snprintf(name, sizeof name, "videos/%s/file_index", key);
    add_number(t, name, w->n_shards % CHUNK);
    snprintf(name, sizeof name, "videos/%s/from_timestamp", key);
    double *from = add_field(t, name, SOMA_PARQUET_F64, 0, 0);
    snprintf(name, sizeof name, "videos/%s/to_timestamp", key);
    double *to = add_field(t, name, SOMA_PARQUET_F64, 0, 0);
    int64_t at = 0;
    for (size_t e = 0; !t->failed && e < t->n_rows; e++) {
        from[e] = (double)at / w->spec.fps;
        at += w->episodes[e].length;
        to[e] = (double)at / w->spec.fps;
    }
}

// Columns stats/<key>/<statistic> and stats/<key>/count; false in `failed` when memory is out. values[s] is [n_rows, size].
static void add_stats(episode_table *t, const char *key, int64_t size, int n_dims, double *values[SOMA_STAT_COUNT], int64_t **count) {
    char name[400];
    for (int s = 0; s < SOMA_STAT_COUNT; s++) {
        snprintf(name, sizeof name, "stats/%s/%s", key, soma__stat_names[s]);
        values[s] = add_field(t, name, SOMA_PARQUET_F64, n_dims, size);
    }
    snprintf(name, sizeof name, "stats/%s/count", key);
    *count = add_field(t, name, SOMA_PARQUET_I64, 1, 1);
}

// values: `size` numbers of each frame, `step` apart.
static void add_vector_stats(episode_table *t, const soma_dataset_writer *w, const char *key, const float *values, int size, size_t step) {
    double *out[SOMA_STAT_COUNT];
    int64_t *count;
    add_stats(t, key, size, 1, out, &count);
    float *column = soma__arena_alloc(&t->arena, w->shard_frames * sizeof *column + 1);
    t->failed = t->failed || !column;
    for (size_t e = 0; !t->failed && e < t->n_rows; e++) {
        size_t n = (size_t)w->episodes[e].length;
        for (int k = 0; k < size; k++) {
            double stats[SOMA_STAT_COUNT];
            for (size_t i = 0; i < n; i++) column[i] = values[i * step + (size_t)k];
            soma__stats_of(stats, column, n);
            for (int s = 0; s < SOMA_STAT_COUNT; s++) out[s][e * (size_t)size + (size_t)k] = stats[s];
        }
        count[e] = (int64_t)n;
        values += n * step;
    }
}

static void add_picture_stats(episode_table *t, const soma_dataset_writer *w, int camera) {
    char key[300];
    double *out[SOMA_STAT_COUNT];
    int64_t *count;
    camera_key(key, &w->spec, camera);
    add_stats(t, key, 3, 3, out, &count);
    for (size_t e = 0; !t->failed && e < t->n_rows; e++) {
        for (size_t k = 0; k < 3; k++) {
            double stats[SOMA_STAT_COUNT];
            soma__stats_of_bytes(stats, w->episodes[e].histograms + ((size_t)camera * 3 + k) * 256);
            for (int s = 0; s < SOMA_STAT_COUNT; s++) out[s][e * 3 + k] = stats[s];
        }
        count[e] = w->episodes[e].length;
    }
}

soma_status soma__writer_episodes(const soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(new_path(path, w, "meta/episodes", err));
    episode_table t = {.n_rows = w->n_open};
    t.fields = soma__arena_alloc(&t.arena, FIELDS_MAX * sizeof *t.fields);
    t.failed = !t.fields;
    add_places(&t, w);
    for (int c = 0; c < w->spec.n_cameras; c++) add_video(&t, w, c);
    add_vector_stats(&t, w, "action", w->actions, w->spec.n_actions, (size_t)w->spec.n_actions);
    add_vector_stats(&t, w, "observation.state", w->states, w->spec.n_state, (size_t)w->spec.n_state);
    for (size_t i = 0, offset = 0; i < (size_t)w->spec.n_extras; offset += soma__extra_size(&w->spec.extras[i++]))
        add_vector_stats(&t, w, w->spec.extras[i].name, w->extras + offset, (int)soma__extra_size(&w->spec.extras[i]), w->extra_size);
    for (int c = 0; c < w->spec.n_cameras; c++) add_picture_stats(&t, w, c);
    add_number(&t, "meta/episodes/chunk_index", w->n_shards / CHUNK);
    add_number(&t, "meta/episodes/file_index", w->n_shards % CHUNK);
    soma_status status =
        t.failed ? soma__no_memory(err, path) : soma__parquet_write(w->pq, path, t.fields, t.n_fields, (int64_t)t.n_rows, NULL, NULL, err);
    soma__arena_free(&t.arena);
    return status;
}

// ---- stats.json

// One statistic of all dimensions: [n], or [n][1][1] for the channels of pictures.
static json_t *json_values(const double *values, int64_t n, bool nested) {
    json_t *list = json_array();
    for (int64_t k = 0; k < n; k++) {
        json_t *v = json_real(values[k]);
        json_array_append_new(list, nested ? json_pack("[[o]]", v) : v);
    }
    return list;
}

// values[s]: [n]
static void put_stats(json_t *all, const char *name, const double *const values[SOMA_STAT_COUNT], int64_t n, bool nested, int64_t count) {
    json_t *entry = json_object();
    for (int s = 0; s < SOMA_STAT_COUNT; s++) json_object_set_new(entry, soma__stat_names[s], json_values(values[s], n, nested));
    json_object_set_new(entry, "count", json_pack("[I]", (json_int_t)count));
    json_object_set_new(all, name, entry);
}

static soma_status vector_stats(json_t *all, const soma_dataset *d, int feature, soma_error *err) {
    soma_feature_stats stats;
    double **arrays[SOMA_STAT_COUNT];
    const double *values[SOMA_STAT_COUNT];
    SOMA_TRY(soma__dataset_stats(&stats, d, feature, NULL, 0, err));
    soma__stats_arrays(arrays, &stats);
    for (int s = 0; s < SOMA_STAT_COUNT; s++) values[s] = *arrays[s];
    put_stats(all, d->features[feature].name, values, d->features[feature].size, false, stats.count);
    soma__feature_stats_free(&stats);
    return SOMA_OK;
}

// Pictures are sampled evenly over the whole recording: their statistics move little and decoding all takes long.
static soma_status picture_stats(json_t *all, const soma_dataset *d, soma_dataset_reader *reader, int feature, soma_error *err) {
    const soma_feature *f = &d->features[feature];
    uint64_t *histogram = soma__calloc(3 * 256, sizeof *histogram);
    uint8_t *rgb = soma__alloc((size_t)f->size);
    soma_status status = histogram && rgb ? SOMA_OK : soma__no_memory(err, "statistics");
    int64_t step = d->frames_present / STAT_PICTURES + 1, seen = 0, at = 0;
    for (int64_t e = 0; e < d->n_episodes; e++)
        for (int64_t i = 0; i < d->episodes[e].n_frames && status == SOMA_OK; i++) {
            if (at++ % step) continue;
            status = d->format->read_image(reader, e, i, feature, rgb, err);
            for (int64_t p = 0; p < f->size && status == SOMA_OK; p++) histogram[p % 3 * 256 + rgb[p]]++;
            seen++;
        }
    double stats[SOMA_STAT_COUNT][3], channel[SOMA_STAT_COUNT];
    const double *values[SOMA_STAT_COUNT];
    for (size_t k = 0; k < 3 && status == SOMA_OK; k++) {
        soma__stats_of_bytes(channel, histogram + k * 256);
        for (int s = 0; s < SOMA_STAT_COUNT; s++) stats[s][k] = channel[s];
    }
    for (int s = 0; s < SOMA_STAT_COUNT; s++) values[s] = stats[s];
    if (status == SOMA_OK) put_stats(all, f->name, values, 3, true, seen);
    soma__free(histogram);
    soma__free(rgb);
    return status;
}

soma_status soma__writer_stats(const soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX];
    soma_dataset *d = NULL;
    soma_dataset_reader *reader = NULL;
    json_t *all = json_object();
    soma_status status = soma__path_join(path, w->path, "meta/stats.json", err);
    if (status == SOMA_OK) status = soma__dataset_open(&d, w->path, err);
    if (status == SOMA_OK) status = d->format->reader_open(&reader, d, err);
    for (int f = 0; status == SOMA_OK && d->frames_present && f < d->n_features; f++) {
        if (d->features[f].kind == SOMA_FEATURE_VECTOR) status = vector_stats(all, d, f, err);
        if (d->features[f].kind == SOMA_FEATURE_IMAGE) status = picture_stats(all, d, reader, f, err);
    }
    if (status == SOMA_OK) status = soma__json_save(all, path, err);
    if (reader) d->format->reader_close(reader);
    soma__dataset_close(d);
    json_decref(all);
    return status;
}
