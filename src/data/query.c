// SPDX-License-Identifier: Apache-2.0
// Fills DuckDB's tables through the dataset interface, an episode at a time, so that a question does not care for the format.
#include "data/query.h"
#include "base/arena.h"

#include <string.h>

enum { MAX_COLUMNS = 400, FIXED = 2 };

typedef struct filling {
    const soma_dataset *d;
    soma_dataset_reader *reader;
    soma_parquet *pq;
    int features[MAX_COLUMNS], n_features;
    soma_parquet_field fields[MAX_COLUMNS + FIXED];
    soma_arena arena; // of one episode
} filling;

static soma_status fill_episodes(filling *f, soma_error *err) {
    size_t n = (size_t)f->d->n_episodes;
    int64_t *index = soma__arena_alloc(&f->arena, n * sizeof *index + 1), *frames = soma__arena_alloc(&f->arena, n * sizeof *frames + 1);
    int64_t *present = soma__arena_alloc(&f->arena, n * sizeof *present + 1);
    const char **tasks = soma__arena_alloc(&f->arena, n * sizeof *tasks + 1);
    if (!index || !frames || !present || !tasks) return soma__no_memory(err, "the table of episodes");
    for (size_t e = 0; e < n; e++) {
        index[e] = f->d->episodes[e].index;
        frames[e] = f->d->episodes[e].n_frames;
        present[e] = f->d->episodes[e].present;
        tasks[e] = f->d->episodes[e].task;
    }
    const soma_parquet_field fields[] = {{.name = "episode", .type = SOMA_PARQUET_I64, .values = index},
                                         {.name = "frames", .type = SOMA_PARQUET_I64, .values = frames},
                                         {.name = "task", .type = SOMA_PARQUET_TEXT, .values = tasks},
                                         {.name = "present", .type = SOMA_PARQUET_I64, .values = present}};
    soma_status status = soma__parquet_append(f->pq, "episodes", fields, SOMA_COUNT(fields), (int64_t)n, err);
    soma__arena_free(&f->arena);
    return status;
}

static void choose(filling *f, const char *question) {
    bool all = strchr(question, '*') != NULL;
    for (int i = 0; i < f->d->n_features + f->d->n_parts && f->n_features < MAX_COLUMNS; i++) {
        const soma_feature *feature = &f->d->features[i];
        bool taken = !strcmp(feature->name, "episode") || !strcmp(feature->name, "frame"); // ours have these names
        bool named = strstr(question, feature->name) || (all && i < f->d->n_features);
        if (feature->kind == SOMA_FEATURE_VECTOR && !taken && named) f->features[f->n_features++] = i;
    }
}

static soma_status fill_episode(filling *f, int64_t e, int64_t n, soma_error *err) {
    int64_t *index = soma__arena_alloc(&f->arena, (size_t)n * sizeof *index + 1),
            *frame = soma__arena_alloc(&f->arena, (size_t)n * sizeof *frame + 1);
    if (!index || !frame) return soma__no_memory(err, "the table of frames");
    for (int64_t t = 0; t < n; t++) {
        index[t] = f->d->episodes[e].index;
        frame[t] = t;
    }
    f->fields[0] = (soma_parquet_field){.name = "episode", .type = SOMA_PARQUET_I64, .values = index};
    f->fields[1] = (soma_parquet_field){.name = "frame", .type = SOMA_PARQUET_I64, .values = frame};
    for (int i = 0; i < f->n_features; i++) {
        const soma_feature *feature = &f->d->features[f->features[i]];
        float *values = soma__arena_alloc(&f->arena, (size_t)(n * feature->size) * sizeof *values + 1);
        if (!values) return soma__no_memory(err, "the table of frames");
        if (n) SOMA_TRY(f->d->format->read_vectors(f->reader, e, f->features[i], values, err));
        f->fields[FIXED + i] = (soma_parquet_field){
            .name = feature->name, .type = SOMA_PARQUET_F32, .n_dims = feature->size > 1, .shape = {feature->size, 1, 1}, .values = values};
    }
    return soma__parquet_append(f->pq, "frames", f->fields, FIXED + f->n_features, n, err);
}

static soma_status fill(filling *f, const char *question, soma_error *err) {
    SOMA_TRY(soma__parquet_open(&f->pq, NULL, err));
    SOMA_TRY(fill_episodes(f, err));
    if (!strstr(question, "frames")) return SOMA_OK;
    choose(f, question);
    SOMA_TRY(f->d->format->reader_open(&f->reader, f->d, err));
    bool any = false;
    for (int64_t e = 0; e < f->d->n_episodes; e++) {
        if (!f->d->episodes[e].present) continue;
        any = true;
        SOMA_TRY(fill_episode(f, e, f->d->episodes[e].n_frames, err));
        soma__arena_free(&f->arena);
    }
    return any ? SOMA_OK : soma__fail(err, SOMA_NOT_FOUND, "%s: none of its episodes are there", f->d->path);
}

soma_status soma__dataset_query(soma_table **rows, const soma_dataset *d, const char *question, bool as_text, soma_error *err) {
    *rows = NULL;
    filling *f = soma__calloc(1, sizeof *f);
    if (!f) return soma__no_memory(err, "a query");
    f->d = d;
    soma_status status = fill(f, question, err);
    if (status == SOMA_OK) status = soma__parquet_select(rows, f->pq, question, as_text, err);
    if (f->reader) d->format->reader_close(f->reader);
    soma__parquet_close(f->pq);
    soma__arena_free(&f->arena);
    soma__free(f);
    return status;
}
