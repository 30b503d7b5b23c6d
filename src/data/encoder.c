// SPDX-License-Identifier: Apache-2.0
// A ring of pictures under one mutex. The thread encodes the oldest while the producer fills the next; the first failure stays.
#include "data/encoder.h"

#include <pthread.h>
#include <string.h>

struct soma_encoder {
    soma_video_writer *video;
    size_t size; // bytes of a picture
    int room;
    uint8_t *pictures; // [room, size]
    uint64_t histogram[3 * 256];
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int64_t put, done; // pictures so far
    bool stop;
    soma_status status;
    soma_error error;
};

static void count(uint64_t *histogram, const uint8_t *rgb, size_t size) {
    for (size_t p = 0; p < size; p += 3)
        for (size_t k = 0; k < 3; k++) histogram[k * 256 + rgb[p + k]]++;
}

static void *run(void *arg) {
    soma_encoder *e = arg;
    pthread_mutex_lock(&e->mutex);
    for (;;) {
        while (e->done == e->put && !e->stop) pthread_cond_wait(&e->changed, &e->mutex);
        if (e->stop) break;
        const uint8_t *rgb = e->pictures + (size_t)(e->done % e->room) * e->size;
        const bool failed = e->status != SOMA_OK;
        pthread_mutex_unlock(&e->mutex);
        soma_error err = {0};
        soma_status status = SOMA_OK;
        if (!failed) count(e->histogram, rgb, e->size);
        if (!failed) status = soma__video_writer_frame(e->video, rgb, &err);
        pthread_mutex_lock(&e->mutex);
        if (status != SOMA_OK) {
            e->status = status;
            e->error = err;
        }
        e->done++;
        pthread_cond_broadcast(&e->changed);
    }
    pthread_mutex_unlock(&e->mutex);
    return NULL;
}

static soma_status start(soma_encoder *e, const char *path, const soma_video_spec *spec, soma_error *err) {
    SOMA_TRY(soma__video_writer_open(&e->video, path, spec, err));
    e->size = (size_t)spec->width * (size_t)spec->height * 3;
    e->pictures = soma__alloc((size_t)e->room * e->size);
    if (!e->pictures) return soma__no_memory(err, "the pictures that wait to be encoded");
    e->has_thread = !pthread_create(&e->thread, NULL, run, e);
    return e->has_thread ? SOMA_OK : soma__fail(err, SOMA_IO, "%s: the encoder's thread cannot be started", path);
}

soma_status soma__encoder_open(soma_encoder **out, const char *path, const soma_video_spec *spec, int room, soma_error *err) {
    SOMA_CHECK(room > 0, "an encoder has room for a picture");
    soma_encoder *e = *out = soma__calloc(1, sizeof *e);
    if (!e) return soma__no_memory(err, path);
    e->room = room;
    pthread_mutex_init(&e->mutex, NULL);
    pthread_cond_init(&e->changed, NULL);
    soma_status status = start(e, path, spec, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__encoder_close(e);
    *out = NULL;
    return status;
}

bool soma__encoder_has_room(soma_encoder *e) {
    pthread_mutex_lock(&e->mutex);
    const bool room = e->put < e->done + e->room;
    pthread_mutex_unlock(&e->mutex);
    return room;
}

static soma_status told(const soma_encoder *e, soma_error *err) {
    return e->status == SOMA_OK ? SOMA_OK : soma__fail(err, e->status, "%s", e->error.text);
}

soma_status soma__encoder_put(soma_encoder *e, const uint8_t *rgb, soma_error *err) {
    pthread_mutex_lock(&e->mutex);
    while (e->put >= e->done + e->room) pthread_cond_wait(&e->changed, &e->mutex);
    soma_status status = told(e, err);
    uint8_t *to = e->pictures + (size_t)(e->put % e->room) * e->size; // the thread is not there yet
    pthread_mutex_unlock(&e->mutex);
    if (status != SOMA_OK) return status;
    memcpy(to, rgb, e->size);
    pthread_mutex_lock(&e->mutex);
    e->put++;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->mutex);
    return SOMA_OK;
}

soma_status soma__encoder_drain(soma_encoder *e, uint64_t *histogram, soma_error *err) {
    pthread_mutex_lock(&e->mutex);
    while (e->done < e->put) pthread_cond_wait(&e->changed, &e->mutex);
    soma_status status = told(e, err);
    pthread_mutex_unlock(&e->mutex);
    for (size_t i = 0; i < SOMA_COUNT(e->histogram); i++) histogram[i] += e->histogram[i];
    memset(e->histogram, 0, sizeof e->histogram);
    return status;
}

soma_status soma__encoder_commit(soma_encoder *e, soma_error *err) { return soma__video_writer_commit(e->video, err); }

void soma__encoder_close(soma_encoder *e) {
    if (!e) return;
    pthread_mutex_lock(&e->mutex);
    e->stop = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->mutex);
    if (e->has_thread) pthread_join(e->thread, NULL);
    soma__video_writer_close(e->video);
    soma__free(e->pictures);
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->mutex);
    soma__free(e);
}
