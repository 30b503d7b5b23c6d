// SPDX-License-Identifier: Apache-2.0
// A LeRobot v3.0 dataset of any number of episodes, of which the metadata is whole and the numbers are there for the first files only: what
// `soma bench data` opens, and a smaller one a test. Frame i of the whole has state and action values i + k / 16.
#ifndef SOMA_BENCH_LARGE_SET_H
#define SOMA_BENCH_LARGE_SET_H

#include "base/file.h"
#include "base/json.h"
#include "format/parquet.h"

#include <stdio.h>

typedef struct large_set {
    int64_t episodes, frames; // of each episode
    int64_t per_file;         // episodes of a data file and of an episode table
    int64_t n_written;        // data files that are there
    int width;                // of the state and of the action
    bool reversed;            // a table lists its last episode first, while the files keep their order
} large_set;

enum { LARGE_STATS = 9 };

static soma_status large_path(char out[SOMA_PATH_MAX], const char *dir, const char *folder, int64_t file, soma_error *err) {
    char name[200];
    snprintf(name, sizeof name, "%s/chunk-%03lld", folder, (long long)(file / 1000));
    SOMA_TRY(soma__path_join(out, dir, name, err));
    SOMA_TRY(soma__dir_make(out, err));
    snprintf(name, sizeof name, "%s/chunk-%03lld/file-%03lld.parquet", folder, (long long)(file / 1000), (long long)(file % 1000));
    return soma__path_join(out, dir, name, err);
}

static soma_status large_info(const large_set *s, const char *dir, soma_error *err) {
    char path[SOMA_PATH_MAX];
    json_t *features = json_object();
    static const char *const vectors[] = {"action", "observation.state"}, *const scalars[] = {"frame_index", "episode_index", "index"};
    for (int i = 0; i < 2; i++)
        json_object_set_new(features, vectors[i], json_pack("{s:s, s:[i], s:n}", "dtype", "float32", "shape", s->width, "names"));
    for (int i = 0; i < 3; i++) json_object_set_new(features, scalars[i], json_pack("{s:s, s:[i]}", "dtype", "int64", "shape", 1));
    json_object_set_new(
        features, "observation.images.scene",
        json_pack("{s:s, s:[i,i,i], s:[s,s,s]}", "dtype", "video", "shape", 480, 640, 3, "names", "height", "width", "channels"));
    json_t *info = json_pack("{s:s, s:s, s:i, s:I, s:I, s:s, s:s, s:o}", "codebase_version", "v3.0", "robot_type", "made", "fps", 30,
                             "total_episodes", (json_int_t)s->episodes, "total_frames", (json_int_t)(s->episodes * s->frames), "data_path",
                             "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path",
                             "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4", "features", features);
    soma_status status = soma__path_join(path, dir, "meta/info.json", err);
    if (status == SOMA_OK) status = info ? soma__json_save(info, path, err) : soma__no_memory(err, path);
    json_decref(info);
    return status;
}

// The rows of one table of episodes, with statistics, which are the larger part of a real one.
static soma_status large_episodes(const large_set *s, soma_parquet *pq, const char *dir, int64_t file, soma_error *err) {
    static const char *const stats[LARGE_STATS] = {"min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99"};
    enum { NUMBERS = 9 };
    int64_t first = file * s->per_file, n = SOMA_MIN(s->per_file, s->episodes - first);
    char path[SOMA_PATH_MAX], names[LARGE_STATS * 2][60];
    int64_t *v = soma__calloc((size_t)(n * NUMBERS), sizeof *v);
    const char **tasks = soma__calloc((size_t)n, sizeof *tasks);
    double *time = soma__calloc((size_t)(2 * n), sizeof *time), *lists = soma__calloc((size_t)(n * s->width), sizeof *lists);
    soma_status status = v && tasks && time && lists ? large_path(path, dir, "meta/episodes", file, err) : soma__no_memory(err, dir);
    for (int64_t i = 0; i < n && status == SOMA_OK; i++) {
        static const char *const words[] = {"pick up the red cube", "open the drawer", "fold the towel"};
        const int64_t e = first + (s->reversed ? n - 1 - i : i),
                      row[NUMBERS] = {e,           s->frames, file / 1000, file % 1000, e * s->frames, (e + 1) * s->frames, file / 1000,
                                      file % 1000, 0};
        for (int k = 0; k < NUMBERS; k++) v[k * n + i] = row[k];
        tasks[i] = words[e % 3];
        time[i] = (double)(i * s->frames) / 30;
        time[n + i] = (double)((i + 1) * s->frames) / 30;
    }
    static const char *const columns[] = {"episode_index",
                                          "length",
                                          "data/chunk_index",
                                          "data/file_index",
                                          "dataset_from_index",
                                          "dataset_to_index",
                                          "videos/observation.images.scene/chunk_index",
                                          "videos/observation.images.scene/file_index"};
    soma_parquet_field fields[8 + 3 + 2 * LARGE_STATS];
    int c = 0;
    for (; c < 8; c++) fields[c] = (soma_parquet_field){.name = columns[c], .type = SOMA_PARQUET_I64, .values = v + c * n};
    fields[c++] = (soma_parquet_field){.name = "tasks", .type = SOMA_PARQUET_TEXT, .n_dims = 1, .shape = {1}, .values = tasks};
    fields[c++] = (soma_parquet_field){.name = "videos/observation.images.scene/from_timestamp", .type = SOMA_PARQUET_F64, .values = time};
    fields[c++] =
        (soma_parquet_field){.name = "videos/observation.images.scene/to_timestamp", .type = SOMA_PARQUET_F64, .values = time + n};
    for (int k = 0; k < 2 * LARGE_STATS; k++) {
        snprintf(names[k], sizeof names[k], "stats/%s/%s", k % 2 ? "action" : "observation.state", stats[k / 2]);
        fields[c++] = (soma_parquet_field){.name = names[k], .type = SOMA_PARQUET_F64, .n_dims = 1, .shape = {s->width}, .values = lists};
    }
    if (status == SOMA_OK) status = soma__parquet_write(pq, path, fields, c, n, NULL, NULL, err);
    soma__free(v);
    soma__free(tasks);
    soma__free(time);
    soma__free(lists);
    return status;
}

static soma_status large_data(const large_set *s, soma_parquet *pq, const char *dir, int64_t file, soma_error *err) {
    int64_t first = file * s->per_file, rows = SOMA_MIN(s->per_file, s->episodes - first) * s->frames;
    char path[SOMA_PATH_MAX];
    int64_t *v = soma__calloc((size_t)(3 * rows), sizeof *v);
    float *x = soma__calloc((size_t)(rows * s->width), sizeof *x);
    soma_status status = v && x ? large_path(path, dir, "data", file, err) : soma__no_memory(err, dir);
    for (int64_t i = 0; i < rows && status == SOMA_OK; i++) {
        v[i] = i % s->frames;
        v[rows + i] = first + i / s->frames;
        v[2 * rows + i] = first * s->frames + i;
        for (int k = 0; k < s->width; k++) x[i * s->width + k] = (float)(first * s->frames + i) + (float)k / 16;
    }
    const soma_parquet_field fields[] = {
        {.name = "action", .type = SOMA_PARQUET_F32, .n_dims = 1, .shape = {s->width}, .values = x},
        {.name = "observation.state", .type = SOMA_PARQUET_F32, .n_dims = 1, .shape = {s->width}, .values = x},
        {.name = "frame_index", .type = SOMA_PARQUET_I64, .values = v},
        {.name = "episode_index", .type = SOMA_PARQUET_I64, .values = v + rows},
        {.name = "index", .type = SOMA_PARQUET_I64, .values = v + 2 * rows},
    };
    if (status == SOMA_OK) status = soma__parquet_write(pq, path, fields, SOMA_COUNT(fields), rows, NULL, NULL, err);
    soma__free(v);
    soma__free(x);
    return status;
}

static soma_status write_large_set(const large_set *s, const char *dir, soma_error *err) {
    soma_parquet *pq;
    char path[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(path, dir, "meta", err));
    SOMA_TRY(soma__dir_make(path, err));
    SOMA_TRY(soma__parquet_open(&pq, NULL, err));
    int64_t files = (s->episodes + s->per_file - 1) / s->per_file;
    soma_status status = large_info(s, dir, err);
    for (int64_t f = 0; f < files && status == SOMA_OK; f++) status = large_episodes(s, pq, dir, f, err);
    for (int64_t f = 0; f < s->n_written && f < files && status == SOMA_OK; f++) status = large_data(s, pq, dir, f, err);
    soma__parquet_close(pq);
    return status;
}

#endif
