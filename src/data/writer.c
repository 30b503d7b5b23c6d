// SPDX-License-Identifier: Apache-2.0
// Collects frames into episodes and episodes into shards. An episode's pictures wait in memory until it ends, since it may be dropped; then
// they are encoded, a thread per camera, so that writing a shard costs little at once. A live recording encodes them at once, since an
// episode there is a file of its own and is dropped with it. Order on the disk: videos, numbers, tasks, episode table, totals. The
// episode table is what makes a shard count.
#include "data/writer_files.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { SHARD_EPISODES = 32, GOP = 2, CRF = 20, WAITING = 4, SIDE_MAX = 16384 };
static const char preset[] = "veryfast";

size_t soma__writer_picture_size(const soma_dataset_writer *w, int camera) {
    const int *size = w->spec.image_sizes[camera];
    return (size_t)size[0] * (size_t)size[1] * 3;
}

static size_t frame_size(const soma_dataset_writer *w) {
    size_t size = 0;
    for (int c = 0; c < w->spec.n_cameras; c++) size += soma__writer_picture_size(w, c);
    return size;
}

// ---- opening

static const char *const *copy_names(soma_arena *arena, const char *const *names, int n) {
    const char **out = soma__arena_alloc(arena, sizeof *out * (size_t)(n + 1));
    for (int i = 0; out && i < n; i++)
        if (!(out[i] = soma__arena_strdup(arena, names[i]))) return NULL;
    return out;
}

static soma_status check_spec(const char *path, const soma_dataset_spec *s, soma_error *err) {
    if (!(s->fps > 0) || s->n_state < 1 || s->n_actions < 1 || s->n_cameras < 0)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: a dataset needs a rate, a state and actions, not %g Hz, %d, %d", path, s->fps,
                          s->n_state, s->n_actions);
    for (int c = 0; c < s->n_cameras; c++) {
        const int width = s->image_sizes ? s->image_sizes[c][0] : s->image_width;
        const int height = s->image_sizes ? s->image_sizes[c][1] : s->image_height;
        if (width < 2 || height < 2 || width > SIDE_MAX || height > SIDE_MAX || width % 2 || height % 2)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: pictures of %d x %d; H.264 needs an even size", path, width, height);
        if (!s->camera_names[c][0] || strpbrk(s->camera_names[c], "/{}") || strstr(s->camera_names[c], ".."))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" cannot be a camera's name, since it names a folder", path,
                              s->camera_names[c]);
    }
    return SOMA_OK;
}

bool soma__dataset_writer_makes(const char *name) {
    static const char *const own[] = {"action", "observation.state", "timestamp", "frame_index", "episode_index", "index", "task_index"};
    for (size_t i = 0; i < SOMA_COUNT(own); i++)
        if (!strcmp(name, own[i])) return true;
    return !strncmp(name, "observation.images.", 19);
}

static soma_status check_extras(const char *path, const soma_dataset_spec *s, soma_error *err) {
    for (int i = 0; i < s->n_extras; i++) {
        const soma_dataset_extra *x = &s->extras[i];
        bool taken = soma__dataset_writer_makes(x->name), possible = x->n_dims >= 1 && x->n_dims <= 3;
        for (int k = 0; k < i; k++) taken = taken || !strcmp(x->name, s->extras[k].name);
        for (int d = 0; possible && d < x->n_dims; d++) possible = x->shape[d] >= 1 && x->shape[d] <= 1 << 24;
        if (taken) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is the name of another feature", path, x->name);
        if (!possible || soma__extra_size(x) > 1 << 24)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" has no shape of one to three dimensions", path, x->name);
    }
    return SOMA_OK;
}

static const soma_dataset_extra *copy_extras(soma_arena *arena, const soma_dataset_spec *s) {
    soma_dataset_extra *out = soma__arena_alloc(arena, sizeof *out * (size_t)(s->n_extras + 1));
    for (int i = 0; out && i < s->n_extras; i++) {
        const soma_dataset_extra *x = &s->extras[i];
        out[i] = *x;
        out[i].name = soma__arena_strdup(arena, x->name);
        out[i].dtype = soma__arena_strdup(arena, x->dtype);
        if (x->names) out[i].names = copy_names(arena, x->names, (int)x->shape[x->n_dims - 1]);
        if (!out[i].name || !out[i].dtype || (x->names && !out[i].names)) return NULL;
    }
    return out;
}

static soma_status start(soma_dataset_writer **out, const char *path, const soma_dataset_spec *spec, soma_error *err) {
    *out = NULL;
    SOMA_TRY(check_spec(path, spec, err));
    SOMA_TRY(check_extras(path, spec, err));
    soma_dataset_writer *w = *out = soma__calloc(1, sizeof *w);
    if (!w) return soma__no_memory(err, path);
    soma_dataset_spec *s = &w->spec;
    *s = *spec;
    if (!s->shard_episodes) s->shard_episodes = SHARD_EPISODES;
    if (s->live) s->shard_episodes = 1;
    int(*sizes)[2] = soma__arena_alloc(&w->arena, sizeof *sizes * (size_t)(s->n_cameras + 1));
    for (int c = 0; sizes && c < s->n_cameras; c++)
        for (int i = 0; i < 2; i++) sizes[c][i] = spec->image_sizes ? spec->image_sizes[c][i] : i ? spec->image_height : spec->image_width;
    s->image_sizes = (const int(*)[2])sizes;
    w->path = soma__arena_strdup(&w->arena, path);
    s->robot_type = soma__arena_strdup(&w->arena, spec->robot_type ? spec->robot_type : "");
    s->state_names = copy_names(&w->arena, spec->state_names, s->n_state);
    s->action_names = copy_names(&w->arena, spec->action_names, s->n_actions);
    s->camera_names = copy_names(&w->arena, spec->camera_names, s->n_cameras);
    s->extras = copy_extras(&w->arena, spec);
    for (int i = 0; i < s->n_extras; i++) w->extra_size += soma__extra_size(&spec->extras[i]);
    w->videos = soma__arena_alloc(&w->arena, sizeof *w->videos * (size_t)(s->n_cameras + 1));
    bool ok = sizes && w->path && s->robot_type && s->state_names && s->action_names && s->camera_names && s->extras && w->videos;
    if (ok) w->features = soma__writer_features(s);
    return w->features ? soma__parquet_open(&w->pq, NULL, err) : soma__no_memory(err, path);
}

static soma_status in_folder(char out[SOMA_PATH_MAX], const soma_dataset_writer *w, const char *name, soma_error *err) {
    return soma__path_join(out, w->path, name, err);
}

static soma_status create(soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX];
    char **names;
    size_t n = 0;
    if (soma__dir_exists(w->path)) {
        SOMA_TRY(soma__dir_list(&names, &n, w->path, err));
        soma__dir_list_free(names, n);
    }
    if (n) return soma__fail(err, SOMA_BAD_INPUT, "%s: is not empty; name a new folder, or resume the recording in it", w->path);
    SOMA_TRY(in_folder(path, w, "meta/episodes", err));
    SOMA_TRY(soma__dir_make(path, err));
    SOMA_TRY(in_folder(path, w, "meta/incomplete", err));
    static const char note[] = "This recording has not been finished: the episodes that are listed can be used.\n";
    SOMA_TRY(soma__file_write(path, note, sizeof note - 1, err));
    return soma__writer_info(w, err);
}

static soma_status opened(soma_dataset_writer **out, soma_status status) {
    if (status == SOMA_OK) return SOMA_OK;
    soma__dataset_writer_close(*out);
    *out = NULL;
    return status;
}

soma_status soma__dataset_writer_open(soma_dataset_writer **out, const char *path, const soma_dataset_spec *spec, soma_error *err) {
    soma_status status = start(out, path, spec, err);
    return opened(out, status == SOMA_OK ? create(*out, err) : status);
}

// ---- resuming

static soma_status add_task(soma_dataset_writer *w, const char *task, int64_t *index, soma_error *err) {
    for (size_t i = 0; i < w->n_tasks; i++)
        if (!strcmp(w->tasks[i], task)) {
            *index = (int64_t)i;
            return SOMA_OK;
        }
    if (!SOMA_PUSH_ROOM(w->tasks, w->n_tasks, w->tasks_room) || !(w->tasks[w->n_tasks] = soma__strdup(task)))
        return soma__no_memory(err, "the list of tasks");
    *index = (int64_t)w->n_tasks++;
    return SOMA_OK;
}

static soma_status resume_tasks(soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX];
    const char *column = "__index_level_0__";
    soma_table *t;
    SOMA_TRY(in_folder(path, w, "meta/tasks.parquet", err));
    if (!soma__file_exists(path)) return SOMA_OK;
    soma_parquet_query q = {.path = path, .columns = &column, .n_columns = 1, .limit = -1};
    SOMA_TRY(soma__parquet_read(&t, w->pq, &q, err));
    soma_status status = SOMA_OK;
    for (int64_t i = 0; i < t->n_rows && status == SOMA_OK; i++) {
        int64_t index;
        bool text = t->columns[0].kind == SOMA_COLUMN_TEXT && t->columns[0].texts[i].data;
        status = text ? add_task(w, t->columns[0].texts[i].data, &index, err)
                      : soma__fail(err, SOMA_BAD_INPUT, "%s: a task is not a text", path);
    }
    soma__table_free(t);
    return status;
}

// Counts one shard that is complete.
static soma_status resume_shard(soma_dataset_writer *w, const char *path, soma_error *err) {
    const char *column = "length";
    soma_table *t;
    soma_parquet_query q = {.path = path, .columns = &column, .n_columns = 1, .limit = -1};
    SOMA_TRY(soma__parquet_read(&t, w->pq, &q, err));
    w->n_episodes += t->n_rows;
    for (int64_t i = 0; i < t->n_rows; i++) w->n_frames += (int64_t)t->columns[0].numbers[i];
    soma__table_free(t);
    for (int c = -1; c < w->spec.n_cameras; c++) {
        char file[SOMA_PATH_MAX];
        SOMA_TRY(soma__writer_path(file, w, c < 0 ? "data" : "videos", c, c < 0 ? "parquet" : "mp4", w->n_shards, err));
        if (!soma__file_exists(file)) return soma__fail(err, SOMA_NOT_FOUND, "%s: is absent, though %s lists its episodes", file, path);
    }
    w->n_shards++;
    return SOMA_OK;
}

static bool is_partial(const char *name) { return strstr(name, ".part-") != NULL; }

static soma_status remove_partial(const char *dir, soma_error *err) {
    char **names;
    size_t n;
    SOMA_TRY(soma__dir_list(&names, &n, dir, err));
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < n && status == SOMA_OK; i++) {
        char path[SOMA_PATH_MAX];
        status = soma__path_join(path, dir, names[i], err);
        if (status == SOMA_OK && soma__dir_exists(path)) {
            status = remove_partial(path, err);
        } else if (status == SOMA_OK && is_partial(names[i])) {
            unlink(path);
        }
    }
    soma__dir_list_free(names, n);
    return status;
}

static soma_status check_features(const soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX];
    json_t *info;
    SOMA_TRY(in_folder(path, w, "meta/info.json", err));
    SOMA_TRY(soma__json_load(&info, path, err));
    double fps = json_number_value(json_object_get(info, "fps"));
    bool same = fps == w->spec.fps && json_equal(json_object_get(info, "features"), w->features);
    json_decref(info);
    return same ? SOMA_OK
                : soma__fail(err, SOMA_BAD_INPUT, "%s: the recording has other features or another rate; it cannot be resumed", path);
}

static soma_status resume(soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(check_features(w, err));
    SOMA_TRY(remove_partial(w->path, err));
    SOMA_TRY(resume_tasks(w, err));
    for (;;) {
        SOMA_TRY(soma__writer_path(path, w, "meta/episodes", -1, "parquet", w->n_shards, err));
        if (!soma__file_exists(path)) break;
        SOMA_TRY(resume_shard(w, path, err));
    }
    for (int c = -1; c < w->spec.n_cameras; c++) { // files of a shard that was not listed any more
        SOMA_TRY(soma__writer_path(path, w, c < 0 ? "data" : "videos", c, c < 0 ? "parquet" : "mp4", w->n_shards, err));
        unlink(path);
    }
    SOMA_TRY(in_folder(path, w, "meta/incomplete", err));
    SOMA_TRY(soma__file_write(path, "resumed\n", 8, err));
    return soma__writer_info(w, err);
}

soma_status soma__dataset_writer_resume(soma_dataset_writer **out, const char *path, const soma_dataset_spec *spec, soma_error *err) {
    soma_status status = start(out, path, spec, err);
    return opened(out, status == SOMA_OK ? resume(*out, err) : status);
}

int64_t soma__dataset_writer_episodes(const soma_dataset_writer *w) { return w->n_episodes + (int64_t)w->n_open; }

int64_t soma__dataset_writer_frames(const soma_dataset_writer *w) { return w->n_frames; }

// ---- frames

static soma_status failed_before(const soma_dataset_writer *w, soma_error *err) {
    return soma__fail(err, SOMA_IO, "%s: writing failed before; close the recording and resume it", w->path);
}

static soma_status check_finite(const soma_dataset_writer *w, const char *what, const float *values, int n, soma_error *err) {
    for (int i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: %s[%d] of frame %zu is not finite", w->path, what, i, w->episode_frames);
    return SOMA_OK;
}

static soma_status start_videos(soma_dataset_writer *w, soma_error *err) {
    for (int c = 0; c < w->spec.n_cameras; c++) {
        char path[SOMA_PATH_MAX], dir[SOMA_PATH_MAX];
        const int *size = w->spec.image_sizes[c];
        const soma_video_spec v = {.width = size[0], .height = size[1], .fps = w->spec.fps, .gop = GOP, .crf = CRF, .preset = preset};
        SOMA_TRY(soma__writer_path(path, w, "videos", c, "mp4", w->n_shards, err));
        snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(path, '/') - path), path);
        SOMA_TRY(soma__dir_make(dir, err));
        SOMA_TRY(soma__encoder_open(&w->videos[c], path, &v, w->spec.live ? w->spec.live : WAITING, err));
    }
    return SOMA_OK;
}

static void stop_videos(soma_dataset_writer *w) {
    for (int c = 0; c < w->spec.n_cameras; c++) {
        soma__encoder_close(w->videos[c]);
        w->videos[c] = NULL;
    }
}

bool soma__dataset_writer_has_room(const soma_dataset_writer *w) {
    for (int c = 0; c < w->spec.n_cameras; c++)
        if (w->spec.live && w->videos[c] && !soma__encoder_has_room(w->videos[c])) return false;
    return true;
}

static soma_status keep_pictures(soma_dataset_writer *w, const uint8_t *const *images, soma_error *err) {
    const size_t size = frame_size(w);
    if (!size) return SOMA_OK; // no cameras
    if (!soma__grow((void **)&w->images, &w->images_room, (w->episode_frames + 1) * size, 1))
        return soma__no_memory(err, "the pictures of an episode");
    uint8_t *to = w->images + w->episode_frames * size;
    for (int c = 0; c < w->spec.n_cameras; c++) {
        memcpy(to, images[c], soma__writer_picture_size(w, c));
        to += soma__writer_picture_size(w, c);
    }
    return SOMA_OK;
}

static soma_status film(soma_dataset_writer *w, const uint8_t *const *images, soma_error *err) {
    soma_status status = w->episode_frames ? SOMA_OK : start_videos(w, err);
    for (int c = 0; c < w->spec.n_cameras && status == SOMA_OK; c++) status = soma__encoder_put(w->videos[c], images[c], err);
    w->failed = status != SOMA_OK; // some cameras may have the frame, others not
    return status;
}

soma_status soma__dataset_writer_frame(soma_dataset_writer *w, const float *state, const float *action, const uint8_t *const *images,
                                       soma_error *err) {
    if (w->failed) return failed_before(w, err);
    SOMA_TRY(check_finite(w, "state", state, w->spec.n_state, err));
    SOMA_TRY(check_finite(w, "action", action, w->spec.n_actions, err));
    size_t row = w->shard_frames + w->episode_frames, n_state = (size_t)w->spec.n_state, n_actions = (size_t)w->spec.n_actions;
    if (!soma__grow((void **)&w->states, &w->states_room, (row + 1) * n_state, sizeof *w->states) ||
        !soma__grow((void **)&w->actions, &w->actions_room, (row + 1) * n_actions, sizeof *w->actions) ||
        !soma__grow((void **)&w->extras, &w->extras_room, (row + 1) * w->extra_size, sizeof *w->extras))
        return soma__no_memory(err, "the frames of an episode");
    SOMA_TRY((w->spec.live ? film : keep_pictures)(w, images, err));
    memcpy(w->states + row * n_state, state, n_state * sizeof *state);
    memcpy(w->actions + row * n_actions, action, n_actions * sizeof *action);
    if (w->extra_size) memset(w->extras + row * w->extra_size, 0, w->extra_size * sizeof *w->extras);
    w->episode_frames++;
    return SOMA_OK;
}

soma_status soma__dataset_writer_extras(soma_dataset_writer *w, const float *values, soma_error *err) {
    SOMA_CHECK(w->failed || w->episode_frames, "extras are of a frame that was added");
    if (w->failed) return failed_before(w, err);
    SOMA_TRY(check_finite(w, "a feature beside state and action", values, (int)w->extra_size, err));
    size_t row = w->shard_frames + w->episode_frames - 1;
    if (w->extra_size) memcpy(w->extras + row * w->extra_size, values, w->extra_size * sizeof *values);
    return SOMA_OK;
}

void soma__dataset_writer_drop(soma_dataset_writer *w) {
    w->episode_frames = 0;
    if (w->spec.live) stop_videos(w);
}

// ---- episodes and shards

// Frame by frame over all cameras, so that their threads work side by side.
static soma_status encode(soma_dataset_writer *w, uint64_t *histograms, soma_error *err) {
    const uint8_t *rgb = w->images;
    for (size_t i = 0; i < w->episode_frames && !w->spec.live; i++)
        for (int c = 0; c < w->spec.n_cameras; c++) {
            SOMA_TRY(soma__encoder_put(w->videos[c], rgb, err));
            rgb += soma__writer_picture_size(w, c);
        }
    for (int c = 0; c < w->spec.n_cameras; c++) SOMA_TRY(soma__encoder_drain(w->videos[c], histograms + (size_t)c * 3 * 256, err));
    return SOMA_OK;
}

static void clear_shard(soma_dataset_writer *w) {
    stop_videos(w);
    for (size_t i = 0; i < w->n_open; i++) soma__free(w->episodes[i].histograms);
    w->n_open = w->shard_frames = w->episode_frames = 0;
}

static soma_status write_shard(soma_dataset_writer *w, soma_error *err) {
    if (!w->n_open) return SOMA_OK;
    for (int c = 0; c < w->spec.n_cameras; c++) SOMA_TRY(soma__encoder_commit(w->videos[c], err));
    SOMA_TRY(soma__writer_data(w, err));
    SOMA_TRY(soma__writer_tasks(w, err));
    SOMA_TRY(soma__writer_episodes(w, err));
    w->n_shards++;
    w->n_episodes += (int64_t)w->n_open;
    w->n_frames += (int64_t)w->shard_frames;
    clear_shard(w);
    return soma__writer_info(w, err);
}

static soma_status end_episode(soma_dataset_writer *w, const char *task, soma_error *err) {
    shard_episode e = {.length = (int64_t)w->episode_frames};
    SOMA_TRY(add_task(w, task ? task : "", &e.task, err));
    if (!w->n_open && !w->spec.live) SOMA_TRY(start_videos(w, err));
    if (!SOMA_PUSH_ROOM(w->episodes, w->n_open, w->episodes_room)) return soma__no_memory(err, "the episode table");
    e.histograms = soma__calloc((size_t)w->spec.n_cameras * 3 * 256, sizeof *e.histograms);
    if (!e.histograms) return soma__no_memory(err, "the statistics of pictures");
    w->episodes[w->n_open++] = e;
    SOMA_TRY(encode(w, e.histograms, err));
    w->shard_frames += w->episode_frames;
    w->episode_frames = 0;
    return w->n_open >= (size_t)w->spec.shard_episodes ? write_shard(w, err) : SOMA_OK;
}

soma_status soma__dataset_writer_episode(soma_dataset_writer *w, const char *task, soma_error *err) {
    if (w->failed) return failed_before(w, err);
    if (!w->episode_frames) return soma__fail(err, SOMA_BAD_INPUT, "%s: an episode without frames is not written", w->path);
    soma_status status = end_episode(w, task, err);
    w->failed = status != SOMA_OK;
    return status;
}

static soma_status finish(soma_dataset_writer *w, soma_error *err) {
    char path[SOMA_PATH_MAX];
    soma__dataset_writer_drop(w);
    SOMA_TRY(write_shard(w, err));
    SOMA_TRY(soma__writer_info(w, err));
    SOMA_TRY(soma__writer_stats(w, err));
    SOMA_TRY(in_folder(path, w, "meta/incomplete", err));
    return unlink(path) ? soma__fail(err, SOMA_IO, "%s: cannot be removed", path) : SOMA_OK;
}

soma_status soma__dataset_writer_finish(soma_dataset_writer *w, soma_error *err) {
    if (w->failed) return failed_before(w, err);
    soma_status status = finish(w, err);
    w->failed = true; // a finished recording takes no more frames; resume opens it again
    return status;
}

void soma__dataset_writer_close(soma_dataset_writer *w) {
    if (!w) return;
    if (w->videos) clear_shard(w);
    for (size_t i = 0; i < w->n_tasks; i++) soma__free(w->tasks[i]);
    soma__free(w->tasks);
    soma__free(w->episodes);
    soma__free(w->states);
    soma__free(w->actions);
    soma__free(w->extras);
    soma__free(w->images);
    soma__parquet_close(w->pq);
    json_decref(w->features);
    soma__arena_free(&w->arena);
    soma__free(w);
}
