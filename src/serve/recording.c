// SPDX-License-Identifier: Apache-2.0
// Exchanges come in through a list under a mutex; the recording's thread sorts them by client and writes an episode when it ends.
#include "serve/recording.h"

#include "base/file.h"
#include "data/writer.h"
#include "transform/resize.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { EPISODE_SIZE = 128 << 20, MOST_SIZE = 1 << 30, SHARD_EPISODES = 8, NAME = 16 };

// One exchange; arrays and pictures lie behind it in the same piece of memory. Without a state it ends the client's episode.
typedef struct frame {
    struct frame *next;
    int64_t client;
    size_t size;
    const float *state, *action;
    const char *prompt;
    int n_images;
    soma_image images[SOMA_MAX_CAMERAS];
} frame;

typedef struct episode {
    struct episode *next;
    int64_t client;
    frame *first, **end;
    size_t size;
} episode;

struct soma_recording {
    const soma_policy_info *info;
    soma_metrics *metrics;
    const soma_events *events;
    char path[SOMA_PATH_MAX];
    double fps;
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t mutex;
    pthread_cond_t work;
    frame *list, **list_end;
    size_t size; // of all frames, wherever they are
    bool stop, behind;

    // the recording's thread
    soma_dataset_writer *writer;
    bool failed;
    episode *episodes;
    int width, height;
    uint8_t *pictures; // [n_cameras, height, width, 3]
    soma_resizer *resizer;
    int resized_width, resized_height;
};

// ---- coming in

static frame *new_frame(const soma_policy_info *info, int64_t client, const soma_obs *obs, const soma_actions *actions) {
    const char *prompt = obs->prompt ? obs->prompt : "";
    size_t n_state = (size_t)info->n_state, n_actions = (size_t)info->n_actions, n_prompt = strlen(prompt) + 1;
    size_t size = sizeof(frame) + (n_state + n_actions) * sizeof(float) + n_prompt;
    for (int i = 0; i < obs->n_images; i++) size += (size_t)obs->images[i].width * (size_t)obs->images[i].height * 3;
    frame *f = soma__alloc(size);
    if (!f) return NULL;
    *f = (frame){.client = client, .size = size, .n_images = obs->n_images};
    float *numbers = (float *)(f + 1);
    memcpy(numbers, obs->state, n_state * sizeof *numbers);
    memcpy(numbers + n_state, actions->values, n_actions * sizeof *numbers);
    f->state = numbers;
    f->action = numbers + n_state;
    char *at = (char *)(numbers + n_state + n_actions);
    f->prompt = memcpy(at, prompt, n_prompt);
    at += n_prompt;
    for (int i = 0; i < obs->n_images; i++) {
        size_t bytes = (size_t)obs->images[i].width * (size_t)obs->images[i].height * 3;
        f->images[i] = obs->images[i];
        f->images[i].pixels = memcpy(at, obs->images[i].pixels, bytes);
        at += bytes;
    }
    return f;
}

static void push(soma_recording *r, frame *f) {
    pthread_mutex_lock(&r->mutex);
    bool room = f && r->size + f->size <= MOST_SIZE, tell = !room && !r->behind;
    r->behind = !room;
    if (room) {
        r->size += f->size;
        *r->list_end = f;
        r->list_end = &f->next;
        pthread_cond_signal(&r->work);
    }
    pthread_mutex_unlock(&r->mutex);
    if (room) return;
    soma__free(f);
    atomic_fetch_add(&r->metrics->unrecorded, 1);
    if (tell) soma__event(r->events, SOMA_LOG_WARN, "behind", NULL, "the recording is behind; exchanges are left out of it");
}

void soma__recording_add(soma_recording *r, int64_t client, const soma_obs *obs, const soma_actions *actions) {
    push(r, new_frame(r->info, client, obs, actions));
}

void soma__recording_end(soma_recording *r, int64_t client) {
    frame *f = soma__calloc(1, sizeof *f);
    if (f) *f = (frame){.client = client, .size = sizeof *f};
    push(r, f);
}

// ---- the recording's thread

static void free_frame(soma_recording *r, frame *f) {
    pthread_mutex_lock(&r->mutex);
    r->size -= f->size;
    pthread_mutex_unlock(&r->mutex);
    soma__free(f);
}

static soma_status open_writer(soma_recording *r, const frame *first, soma_error *err) {
    char names[2][SOMA_MAX_CAMERAS * 64][NAME];
    const char *lists[2][SOMA_MAX_CAMERAS * 64];
    const soma_policy_info *i = r->info;
    const int n[2] = {i->n_state, i->n_actions};
    if (SOMA_MAX(n[0], n[1]) > (int)SOMA_COUNT(names[0]))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: more than %zu numbers", r->path, SOMA_COUNT(names[0]));
    for (int k = 0; k < 2; k++)
        for (int d = 0; d < n[k]; d++) {
            snprintf(names[k][d], NAME, k ? "action_%d" : "state_%d", d);
            lists[k][d] = names[k][d];
        }
    r->width = first->n_images ? SOMA_MAX(first->images[0].width & ~1, 2) : 2;
    r->height = first->n_images ? SOMA_MAX(first->images[0].height & ~1, 2) : 2;
    r->pictures = soma__alloc((size_t)i->n_cameras * (size_t)r->width * (size_t)r->height * 3 + 1);
    if (!r->pictures) return soma__no_memory(err, "the recording's pictures");
    soma_dataset_spec spec = {.robot_type = i->family,
                              .fps = r->fps,
                              .n_state = i->n_state,
                              .n_actions = i->n_actions,
                              .n_cameras = i->n_cameras,
                              .state_names = lists[0],
                              .action_names = lists[1],
                              .camera_names = i->camera_names,
                              .image_width = r->width,
                              .image_height = r->height,
                              .shard_episodes = SHARD_EPISODES};
    char meta[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(meta, r->path, "meta/info.json", err));
    if (soma__file_exists(meta)) return soma__dataset_writer_resume(&r->writer, r->path, &spec, err);
    return soma__dataset_writer_open(&r->writer, r->path, &spec, err);
}

static soma_status fit(soma_recording *r, const soma_image *image, uint8_t *out, soma_error *err) {
    if (image->width == r->width && image->height == r->height) {
        memcpy(out, image->pixels, (size_t)r->width * (size_t)r->height * 3);
        return SOMA_OK;
    }
    if (!r->resizer || r->resized_width != image->width || r->resized_height != image->height) {
        soma__resizer_free(r->resizer);
        r->resizer = NULL;
        SOMA_TRY(soma__resizer_new(&r->resizer, SOMA_RESIZE_PIL, image->width, image->height, r->width, r->height, err));
        r->resized_width = image->width;
        r->resized_height = image->height;
    }
    soma__resizer_u8(r->resizer, image->pixels, out);
    return SOMA_OK;
}

static soma_status write_frame(soma_recording *r, const frame *f, soma_error *err) {
    const uint8_t *pictures[SOMA_MAX_CAMERAS];
    size_t size = (size_t)r->width * (size_t)r->height * 3;
    for (int c = 0; c < r->info->n_cameras; c++) {
        uint8_t *out = r->pictures + (size_t)c * size;
        const soma_image *image = NULL;
        for (int i = 0; i < f->n_images; i++)
            if (!strcmp(f->images[i].camera, r->info->camera_names[c])) image = &f->images[i];
        if (image)
            SOMA_TRY(fit(r, image, out, err));
        else
            memset(out, 0, size); // a camera that was absent
        pictures[c] = out;
    }
    return soma__dataset_writer_frame(r->writer, f->state, f->action, pictures, err);
}

static soma_status write_episode(soma_recording *r, const episode *e, int64_t *n, soma_error *err) {
    if (!r->writer) SOMA_TRY(open_writer(r, e->first, err));
    for (const frame *f = e->first; f; f = f->next, ++*n) SOMA_TRY(write_frame(r, f, err));
    return soma__dataset_writer_episode(r->writer, e->first->prompt, err);
}

// Writes what there is of an episode, and takes it from the list.
static void end_episode(soma_recording *r, episode **at) {
    episode *e = *at;
    soma_error err = {0};
    int64_t n = 0;
    bool written = e->first && !r->failed && write_episode(r, e, &n, &err) == SOMA_OK;
    if (e->first && !written && !r->failed) {
        r->failed = true;
        soma__event(r->events, SOMA_LOG_ERROR, "recording_failed", NULL, "the recording ends: %s", err.text);
    }
    for (frame *f = e->first, *next; f; f = next) {
        next = f->next;
        atomic_fetch_add(written ? &r->metrics->recorded : &r->metrics->unrecorded, 1);
        free_frame(r, f);
    }
    *at = e->next;
    soma__free(e);
}

static episode **find(soma_recording *r, int64_t client) {
    episode **at = &r->episodes;
    while (*at && (*at)->client != client) at = &(*at)->next;
    return at;
}

static void take(soma_recording *r, frame *f) {
    f->next = NULL;
    episode **at = find(r, f->client);
    if (*at && (!f->state || (*at)->size > EPISODE_SIZE || strcmp((*at)->first->prompt, f->prompt))) {
        end_episode(r, at);
        at = find(r, f->client);
    }
    episode *e = *at;
    if (f->state && !e && (e = soma__calloc(1, sizeof *e))) {
        *e = (episode){.client = f->client};
        e->end = &e->first;
        *at = e;
    }
    if (!f->state || !e) {
        if (f->state) atomic_fetch_add(&r->metrics->unrecorded, 1);
        free_frame(r, f);
        return;
    }
    *e->end = f;
    e->end = &f->next;
    e->size += f->size;
}

static void *run(void *arg) {
    soma_recording *r = arg;
    for (bool stop = false; !stop;) {
        pthread_mutex_lock(&r->mutex);
        while (!r->list && !r->stop) pthread_cond_wait(&r->work, &r->mutex);
        frame *list = r->list;
        r->list = NULL;
        r->list_end = &r->list;
        stop = r->stop;
        pthread_mutex_unlock(&r->mutex);
        for (frame *next; list; list = next) {
            next = list->next;
            take(r, list);
        }
    }
    while (r->episodes) end_episode(r, &r->episodes);
    soma_error err = {0};
    if (r->writer && !r->failed && soma__dataset_writer_finish(r->writer, &err))
        soma__event(r->events, SOMA_LOG_ERROR, "recording_failed", NULL, "the recording could not be finished: %s", err.text);
    return NULL;
}

// ---- opening and closing

static soma_status start(soma_recording *r, soma_error *err) {
    if (r->info->n_state < 1) return soma__fail(err, SOMA_UNSUPPORTED, "record: a policy without a state cannot be recorded");
    SOMA_TRY(soma__dir_make(r->path, err));
    r->has_thread = !pthread_create(&r->thread, NULL, run, r);
    return r->has_thread ? SOMA_OK : soma__fail(err, SOMA_IO, "the recording's thread cannot start");
}

soma_status soma__recording_open(soma_recording **recording, const char *path, const soma_policy_info *info, double fps,
                                 soma_metrics *metrics, const soma_events *events, soma_error *err) {
    soma_recording *r = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, "a recording");
    *r = (soma_recording){.info = info, .metrics = metrics, .events = events, .fps = fps};
    snprintf(r->path, sizeof r->path, "%s", path);
    r->list_end = &r->list;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->work, NULL);
    soma_status status = start(r, err);
    if (status)
        soma__recording_close(r);
    else
        *recording = r;
    return status;
}

void soma__recording_close(soma_recording *r) {
    if (!r) return;
    if (r->has_thread) {
        pthread_mutex_lock(&r->mutex);
        r->stop = true;
        pthread_cond_signal(&r->work);
        pthread_mutex_unlock(&r->mutex);
        pthread_join(r->thread, NULL);
    }
    soma__dataset_writer_close(r->writer);
    soma__resizer_free(r->resizer);
    soma__free(r->pictures);
    pthread_cond_destroy(&r->work);
    pthread_mutex_destroy(&r->mutex);
    soma__free(r);
}
