// SPDX-License-Identifier: Apache-2.0
// Frames of a LeRobot dataset. Vectors come from parquet, a column of a block of episodes at a time; pictures from video files or from
// parquet. A reader keeps what it read last, so that going through episodes in order reads each file once.
#include "base/file.h"
#include "data/lerobot/lerobot.h"
#include "format/image.h"
#include "format/video.h"

#include <string.h>

enum { N_TABLES = 8, N_VIDEOS = 8, PICTURES_AT_ONCE = 64, SLACK = 1000 };

typedef struct kept_table {
    const char *file, *column; // the dataset's own strings: compared by address
    int64_t first, limit;      // rows in the file
    soma_table *table;
    uint64_t used;
} kept_table;

typedef struct kept_video {
    const char *file;
    soma_video *video;
    uint64_t used;
} kept_video;

typedef struct rows {     // of an episode
    int64_t begin, limit; // the rows of the file that are read together; limit -1: to its end
    int64_t first;        // the episode's first among them
} rows;

struct soma_dataset_reader {
    const lerobot *l;
    soma_parquet *pq;
    kept_table tables[N_TABLES];
    kept_video videos[N_VIDEOS];
    uint64_t clock;
    int64_t known_episode; // what find_rows found last
    rows known;
};

static soma_status reader_open(soma_dataset_reader **out, const soma_dataset *d, soma_error *err) {
    soma_dataset_reader *r = *out = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, "a dataset reader");
    r->l = (const lerobot *)d;
    r->known_episode = -1;
    soma_status status = soma__parquet_open(&r->pq, r->l->pq, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__free(r);
    *out = NULL;
    return status;
}

static void reader_close(soma_dataset_reader *r) {
    if (!r) return;
    for (int i = 0; i < N_TABLES; i++) soma__table_free(r->tables[i].table);
    for (int i = 0; i < N_VIDEOS; i++) soma__video_close(r->videos[i].video);
    soma__parquet_close(r->pq);
    soma__free(r);
}

// ---- parquet

// One column of a file, from row `first`, at most `limit` rows (-1: all).
// `size` values per row are usual: a file with many times what the whole dataset should have is refused before it fills the memory.
static soma_status get_column(soma_dataset_reader *r, const soma_column **out, int64_t *n_rows, const char *file, const char *column,
                              int64_t size, int64_t first, int64_t limit, soma_error *err) {
    kept_table *k = &r->tables[0];
    bool found = false;
    for (int i = 0; i < N_TABLES && !found; i++) {
        kept_table *c = &r->tables[i];
        found = c->table && c->file == file && !strcmp(c->column, column) && c->first == first && c->limit == limit;
        if (found || c->used < k->used) k = c;
    }
    if (!found) {
        char path[SOMA_PATH_MAX];
        SOMA_TRY(soma__path_join(path, r->l->d.path, file, err));
        soma__table_free(k->table);
        *k = (kept_table){.file = file, .column = column, .first = first, .limit = limit};
        soma_parquet_query q = {.path = path, .columns = &column, .n_columns = 1, .offset = first, .limit = limit};
        q.max_values = (size_t)(2 * (SOMA_MIN(r->l->d.n_frames, INT32_MAX) + SLACK) * size);
        SOMA_TRY(soma__parquet_read(&k->table, r->pq, &q, err));
    }
    k->used = ++r->clock;
    *out = &k->table->columns[0];
    *n_rows = k->table->n_rows;
    return SOMA_OK;
}

// How many rows of the file, of those that `at` says, are the episode's; they must be together.
static soma_status count_rows(soma_dataset_reader *r, rows *at, int64_t *found, int64_t episode, soma_error *err) {
    const soma_episode *e = &r->l->episodes[episode];
    const char *file = r->l->places[episode].data;
    const soma_column *c;
    int64_t n_rows;
    *found = 0;
    SOMA_TRY(get_column(r, &c, &n_rows, file, "episode_index", 1, at->begin, at->limit, err));
    if (c->kind != SOMA_COLUMN_NUMBER || c->list)
        return soma__fail(err, SOMA_BAD_INPUT, "%s/%s: \"episode_index\" holds no numbers", r->l->d.path, file);
    for (int64_t i = 0; i < n_rows; i++) {
        if (c->numbers[i] != (double)e->index) continue;
        if (!(*found)++) at->first = i;
        if (i != at->first + *found - 1)
            return soma__fail(err, SOMA_BAD_INPUT, "%s/%s: the rows of episode %lld are not together", r->l->d.path, file,
                              (long long)e->index);
    }
    return SOMA_OK;
}

// Where an episode's rows are in its file; there must be as many as the metadata says. Where they are not where its block should be, the
// whole file is searched. A block is read with the row behind it, so that an episode that goes on there is told.
static soma_status find_rows(soma_dataset_reader *r, rows *out, int64_t episode, soma_error *err) {
    const soma_episode *e = &r->l->episodes[episode];
    const char *file = r->l->places[episode].data;
    const lerobot_block *block = r->l->places[episode].block;
    int64_t found;
    *out = r->known;
    if (episode == r->known_episode) return SOMA_OK;
    *out = (rows){.limit = -1};
    if (!e->present)
        return soma__fail(err, SOMA_NOT_FOUND, "%s/%s: the file of episode %lld is absent", r->l->d.path, file, (long long)e->index);
    if (block && block->rows >= 0) *out = (rows){.begin = block->first, .limit = block->rows + 1};
    SOMA_TRY(count_rows(r, out, &found, episode, err));
    if (found != e->n_frames && out->limit >= 0) {
        *out = (rows){.limit = -1};
        SOMA_TRY(count_rows(r, out, &found, episode, err));
    }
    if (found != e->n_frames)
        return soma__fail(err, SOMA_BAD_INPUT, "%s/%s: episode %lld has %lld rows, the metadata says %lld", r->l->d.path, file,
                          (long long)e->index, (long long)found, (long long)e->n_frames);
    r->known_episode = episode;
    r->known = *out;
    return SOMA_OK;
}

soma_status lerobot_column(soma_dataset_reader *r, const soma_column **column, int64_t *first, int64_t episode, int feature,
                           soma_error *err) {
    const soma_feature *f = &r->l->features[feature];
    const char *file = r->l->places[episode].data;
    rows at;
    int64_t n_rows;
    SOMA_TRY(find_rows(r, &at, episode, err));
    SOMA_TRY(get_column(r, column, &n_rows, file, f->name, f->size, at.begin, at.limit, err));
    *first = at.first;
    if (n_rows >= at.first + r->l->episodes[episode].n_frames) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s/%s: \"%s\" ends before episode %lld does", r->l->d.path, file, f->name,
                      (long long)r->l->episodes[episode].index);
}

static soma_status read_vectors(soma_dataset_reader *r, int64_t episode, int feature, float *out, soma_error *err) {
    const int of = lerobot_whole(&r->l->d, feature);
    const soma_feature *f = &r->l->features[feature], *whole = &r->l->features[of];
    const char *file = r->l->places[episode].data;
    const soma_column *c;
    int64_t first;
    SOMA_CHECK(f->kind == SOMA_FEATURE_VECTOR, "read_vectors reads vector features");
    SOMA_TRY(lerobot_column(r, &c, &first, episode, of, err));
    if (c->kind != SOMA_COLUMN_NUMBER)
        return soma__fail(err, SOMA_BAD_INPUT, "%s/%s: \"%s\" holds no numbers", r->l->d.path, file, f->name);
    for (int64_t i = 0; i < r->l->episodes[episode].n_frames; i++) {
        size_t start = c->starts[first + i], n = c->starts[first + i + 1] - start;
        if ((int64_t)n != whole->size)
            return soma__fail(err, SOMA_BAD_INPUT, "%s/%s: \"%s\" has %zu values in episode %lld, frame %lld; meta/info.json says %lld",
                              r->l->d.path, file, whole->name, n, (long long)r->l->episodes[episode].index, (long long)i,
                              (long long)whole->size);
        for (int64_t k = 0; k < f->size; k++) out[i * f->size + k] = (float)c->numbers[start + (size_t)(f->start + k)];
    }
    return soma__dataset_check_finite(&r->l->d, file, episode, feature, out, err);
}

static bool together(const soma_dataset *d, int64_t episode, int64_t other) {
    const lerobot_episode *a = &((const lerobot *)d)->places[episode], *b = &((const lerobot *)d)->places[other];
    return a->data == b->data && a->block == b->block;
}

// ---- pictures

static soma_status read_inline(soma_dataset_reader *r, int64_t episode, int64_t frame, const soma_feature *f, uint8_t *out,
                               soma_error *err) {
    const char *file = r->l->places[episode].data;
    const soma_column *c;
    rows at;
    int64_t n_rows;
    SOMA_TRY(find_rows(r, &at, episode, err));
    int64_t row = at.begin + at.first + frame, window = row / PICTURES_AT_ONCE * PICTURES_AT_ONCE;
    SOMA_TRY(get_column(r, &c, &n_rows, file, f->name, 1, window, PICTURES_AT_ONCE, err));
    soma_text picture = {0};
    if (c->kind == SOMA_COLUMN_TEXT && !c->list && row - window < n_rows) picture = c->texts[c->starts[row - window]];
    char where[SOMA_PATH_MAX + 200];
    snprintf(where, sizeof where, "%s/%s: %.100s of row %lld", r->l->d.path, file, f->name, (long long)row);
    if (!picture.data) return soma__fail(err, SOMA_BAD_INPUT, "%s: holds no picture", where);
    return soma__image_decode(out, (int)f->shape[1], (int)f->shape[0], picture.data, picture.len, where, err);
}

static soma_status get_video(soma_dataset_reader *r, soma_video **out, const char *file, const soma_feature *f, soma_error *err) {
    kept_video *k = &r->videos[0];
    bool found = false;
    for (int i = 0; i < N_VIDEOS && !found; i++) {
        kept_video *c = &r->videos[i];
        found = c->video && c->file == file;
        if (found || c->used < k->used) k = c;
    }
    if (!found) {
        char path[SOMA_PATH_MAX];
        SOMA_TRY(soma__path_join(path, r->l->d.path, file, err));
        soma__video_close(k->video);
        *k = (kept_video){.file = file};
        SOMA_TRY(soma__video_open(&k->video, path, err));
        int width = soma__video_width(k->video), height = soma__video_height(k->video);
        if (width != f->shape[1] || height != f->shape[0]) {
            soma__video_close(k->video);
            *k = (kept_video){0};
            return soma__fail(err, SOMA_BAD_INPUT, "%s: the video is %d x %d, meta/info.json says %lld x %lld", path, width, height,
                              (long long)f->shape[1], (long long)f->shape[0]);
        }
    }
    k->used = ++r->clock;
    *out = k->video;
    return SOMA_OK;
}

static soma_status read_image(soma_dataset_reader *r, int64_t episode, int64_t frame, int feature, uint8_t *out, soma_error *err) {
    feature = lerobot_whole(&r->l->d, feature);
    const soma_feature *f = &r->l->features[feature];
    SOMA_CHECK(f->kind == SOMA_FEATURE_IMAGE, "read_image reads image features");
    SOMA_CHECK(frame >= 0 && frame < r->l->episodes[episode].n_frames, "a frame lies within its episode");
    if (!lerobot_is_video(f)) return read_inline(r, episode, frame, f, out, err);
    const lerobot_video *v = &r->l->places[episode].videos[feature];
    int64_t index = r->l->episodes[episode].index;
    if (!v->present)
        return soma__fail(err, SOMA_NOT_FOUND, "%s/%s: the video of episode %lld is absent", r->l->d.path, v->path ? v->path : f->name,
                          (long long)index);
    soma_video *video;
    SOMA_TRY(get_video(r, &video, v->path, f, err));
    // neighbouring frames are 1/fps apart, so less than half of that names one frame
    double time = v->start + (double)frame / r->l->d.fps;
    soma_status status = soma__video_read(video, time, 0.4 / r->l->d.fps, out, err);
    return status == SOMA_OK ? SOMA_OK : soma__fail_in(err, "episode %lld, frame %lld of %s", (long long)index, (long long)frame, f->name);
}

static soma_status source(char path[SOMA_PATH_MAX], double *start, const soma_dataset *d, int64_t episode, int feature, soma_error *err) {
    const lerobot *l = (const lerobot *)d;
    feature = lerobot_whole(d, feature);
    const lerobot_video *v = lerobot_is_video(&l->features[feature]) ? &l->places[episode].videos[feature] : NULL;
    *start = v ? v->start : 0;
    return soma__path_join(path, d->path, v ? v->path : l->places[episode].data, err);
}

static bool probe(const char *path) {
    char info[SOMA_PATH_MAX];
    return soma__path_join(info, path, "meta/info.json", NULL) == SOMA_OK && soma__file_exists(info);
}

const soma_dataset_format soma__dataset_format_lerobot = {
    .name = "lerobot",
    .probe = probe,
    .open = lerobot_open,
    .close = lerobot_close,
    .reader_open = reader_open,
    .reader_close = reader_close,
    .present = lerobot_present,
    .read_vectors = read_vectors,
    .together = together,
    .read_image = read_image,
    .declared_stats = lerobot_declared_stats,
    .source = source,
    .read_instructions = lerobot_read_instructions,
};
