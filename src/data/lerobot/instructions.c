// SPDX-License-Identifier: Apache-2.0
// What an episode's frames say that it is about: GR00T's annotation.* columns hold places in the list of tasks, or words. The list of
// episodes names all of these together, "valid" among the instructions; only the column tells which is which.
#include "base/file.h"
#include "data/lerobot/lerobot.h"
#include "format/modality.h"

#include <string.h>

enum { MOST = 1000, LINES_MAX = 1 << 30 };

// ---- the list of tasks

static soma_status add_task(lerobot *l, double index, const char *text, soma_error *err) {
    if (!SOMA_PUSH_ROOM(l->tasks, l->n_tasks, l->tasks_room)) return soma__no_memory(err, "the list of tasks");
    const char *kept = soma__arena_strdup(&l->arena, text ? text : "");
    if (!kept) return soma__no_memory(err, "the list of tasks");
    l->tasks[l->n_tasks++] = (lerobot_task){index, kept};
    return SOMA_OK;
}

static soma_status read_tasks_v2(lerobot *l, const char *path, soma_error *err) {
    char *text;
    size_t size;
    SOMA_TRY(soma__file_read(&text, &size, path, LINES_MAX, err));
    soma_status status = SOMA_OK;
    for (const char *line = text + strspn(text, "\r\n"); *line && status == SOMA_OK; line += strspn(line, "\r\n")) {
        const size_t len = strcspn(line, "\r\n");
        json_t *task;
        status = soma__json_parse(&task, line, len, path, err);
        if (status != SOMA_OK) break;
        status = add_task(l, json_number_value(json_object_get(task, "task_index")), json_string_value(json_object_get(task, "task")), err);
        json_decref(task);
        line += len;
    }
    soma__free(text);
    return status;
}

// The texts are the table's index, whose name depends on the version of pandas that wrote it.
static soma_status read_tasks_v3(lerobot *l, const char *path, soma_error *err) {
    const soma_parquet_query q = {.path = path, .limit = -1};
    soma_table *table;
    SOMA_TRY(soma__parquet_read(&table, l->pq, &q, err));
    const soma_column *index = soma__table_column(table, "task_index"), *texts = NULL;
    for (int c = 0; c < table->n_columns; c++)
        if (table->columns[c].kind == SOMA_COLUMN_TEXT && !table->columns[c].list) texts = &table->columns[c];
    soma_status status = SOMA_OK;
    if (!texts || !index || index->kind != SOMA_COLUMN_NUMBER || index->list)
        status = soma__fail(err, SOMA_BAD_INPUT, "%s: has no column of texts beside \"task_index\"", path);
    for (int64_t i = 0; i < table->n_rows && status == SOMA_OK; i++)
        status = add_task(l, index->numbers[index->starts[i]], texts->texts[texts->starts[i]].data, err);
    soma__table_free(table);
    return status;
}

static soma_status read_tasks(lerobot *l, soma_error *err) {
    char path[SOMA_PATH_MAX];
    if (l->n_tasks) return SOMA_OK;
    SOMA_TRY(soma__path_join(path, l->d.path, l->generation == 2 ? "meta/tasks.jsonl" : "meta/tasks.parquet", err));
    return l->generation == 2 ? read_tasks_v2(l, path, err) : read_tasks_v3(l, path, err);
}

// ---- an episode

typedef struct texts {
    const char *items[MOST];
    int n;
} texts;

static bool instructs(const soma_feature *f) {
    return soma__modality_instructs(f->name) && (lerobot_is_text(f) || (f->kind == SOMA_FEATURE_VECTOR && f->size == 1));
}

static soma_status add_text(lerobot *l, texts *t, const char *text, soma_error *err) {
    if (!text || !*text || t->n == MOST || (t->n && !strcmp(t->items[t->n - 1], text))) return SOMA_OK;
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->items[i], text)) return SOMA_OK;
    if (!(t->items[t->n++] = soma__arena_strdup(&l->arena, text))) return soma__no_memory(err, "the instructions");
    return SOMA_OK;
}

static soma_status add_frames(lerobot *l, texts *t, const soma_column *c, int64_t first, int64_t n, soma_error *err) {
    double last = -1;
    for (int64_t i = first; i < first + n; i++) {
        if (c->starts[i + 1] == c->starts[i] || c->kind == SOMA_COLUMN_OTHER) continue;
        if (c->kind == SOMA_COLUMN_TEXT) SOMA_TRY(add_text(l, t, c->texts[c->starts[i]].data, err));
        if (c->kind == SOMA_COLUMN_TEXT || c->numbers[c->starts[i]] == last) continue;
        last = c->numbers[c->starts[i]];
        for (size_t k = 0; k < l->n_tasks; k++)
            if (l->tasks[k].index == last) SOMA_TRY(add_text(l, t, l->tasks[k].text, err));
    }
    return SOMA_OK;
}

// The task stays the list's own where a frame names it, too.
static soma_status settle(lerobot *l, soma_episode *e, const texts *t, soma_error *err) {
    bool named = false;
    int n = 0;
    const char **others = soma__arena_alloc(&l->arena, sizeof *others * (size_t)t->n);
    if (!others) return soma__no_memory(err, "the instructions");
    for (int i = 0; i < t->n; i++) named = named || !strcmp(t->items[i], e->task);
    if (!named) e->task = t->items[0];
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->items[i], e->task)) others[n++] = t->items[i];
    e->others = others;
    e->n_others = n;
    return SOMA_OK;
}

soma_status lerobot_read_instructions(soma_dataset *d, soma_dataset_reader *r, int64_t episode, soma_error *err) {
    lerobot *l = (lerobot *)d;
    bool any = false;
    for (int f = 0; f < d->n_features + d->n_parts; f++) any = any || instructs(&d->features[f]);
    if (!any || !d->episodes[episode].present) return SOMA_OK;
    SOMA_TRY(read_tasks(l, err));
    texts *t = soma__calloc(1, sizeof *t);
    soma_status status = t ? SOMA_OK : soma__no_memory(err, "the instructions");
    for (int f = 0; f < d->n_features + d->n_parts && status == SOMA_OK; f++) {
        const soma_column *column;
        int64_t first;
        if (!instructs(&d->features[f])) continue;
        status = lerobot_column(r, &column, &first, episode, lerobot_whole(d, f), err);
        if (status == SOMA_OK) status = add_frames(l, t, column, first, d->episodes[episode].n_frames, err);
    }
    if (status == SOMA_OK && t->n) status = settle(l, &l->episodes[episode], t, err);
    soma__free(t);
    return status;
}
