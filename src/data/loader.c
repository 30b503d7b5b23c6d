// SPDX-License-Identifier: Apache-2.0
// What batches are made of is in memory or mapped before the first one as far as it fits: pictures that have no place (data/pictures.h) and
// states and actions that are too many (data/vectors.h) are read when they are needed, a batch's in the order of the dataset, so that
// neighbours in a file share the way from a key frame. The order is a permutation that can be computed for any place of any epoch (a
// Feistel network), so that no worker needs a shuffled list and a seek costs nothing. Workers claim batch numbers in order and fill the
// slots of a ring; the trainer takes them in order.
#include "data/loader.h"
#include "base/pool.h"
#include "base/rng.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct pick { // which sample goes into which row
    int64_t sample, row;
} pick;

typedef struct slot {
    soma_loader_batch batch; // its pointers lead to the arrays below
    float *state, *actions;
    uint8_t *pad, *images[SOMA_LOADER_CAMERAS], *image_present[SOMA_LOADER_CAMERAS];
    const char **tasks;
    int64_t *episode, *frame;
    pick *picks; // [batch]
    bool ready;
    soma_status status;
    soma_error err;
} slot;

typedef struct loader_hand { // what one thread reads with
    soma_pictures_hand pictures;
    soma_vectors_hand vectors;
} loader_hand;

typedef struct worker {
    pthread_t thread;
    bool started;
    soma_loader *loader;
    loader_hand hand;
} worker;

struct soma_loader {
    const soma_dataset *d;
    soma_loader_opts o;
    int64_t *episodes; // [o.n_episodes] positions in the dataset
    int64_t *starts;   // [o.n_episodes + 1] first sample of each
    int64_t n_samples;
    int64_t n_state, n_actions;
    soma_vectors *vectors;
    soma_pictures *pictures;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    slot *slots; // [n_slots]; batch b lives in slot b % n_slots
    int64_t n_slots;
    int64_t first;  // oldest batch that may still be in a slot
    int64_t claim;  // next one to be filled
    int64_t wanted; // next one for the consumer
    int n_filling;
    bool stop, held; // held: the consumer borrows batch wanted - 1
    double waited;
    worker *workers;
    slot given; // for soma__loader_read
    loader_hand given_hand;
};

static size_t memory_size(void) {
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (size_t)pages * (size_t)size : (size_t)4 << 30;
}

soma_loader_opts soma__loader_defaults(void) {
    return (soma_loader_opts){.state = -1,
                              .action = -1,
                              .horizon = 1,
                              .batch = 1,
                              .workers = 1,
                              .queue = 4,
                              .ranks = 1,
                              .cache_size = memory_size() / 2,
                              .vectors_size = (size_t)1 << 30};
}

// ---- which samples

static uint64_t mix(uint64_t x) { // splitmix64's finisher
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

// Place `i` of a permutation of 0 .. n-1 that `key` chooses: four Feistel rounds over the least 2^(2h) >= n, walked until below n.
static int64_t permute(uint64_t key, int64_t i, int64_t n) {
    int half = 1;
    while (half < 31 && (int64_t)1 << 2 * half < n) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1, x = (uint64_t)i;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t next = left ^ (mix(key + (round << 32 | right) * 0x9e3779b97f4a7c15u) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}

static int64_t sample_of(const soma_loader *l, int64_t batch, int64_t row) {
    int64_t place = (batch * l->o.ranks + l->o.rank) * l->o.batch + row, epoch = place / l->n_samples;
    soma_rng seed = soma__rng(l->o.seed), stream = soma__rng_fold(&seed, (uint64_t)epoch);
    return permute(soma__rng_u64(&stream), place % l->n_samples, l->n_samples);
}

// The listed episode that holds a sample.
static int64_t episode_of(const soma_loader *l, int64_t sample) {
    int64_t low = 0, high = l->o.n_episodes - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (l->starts[middle] <= sample) low = middle;
        if (l->starts[middle] > sample) high = middle - 1;
    }
    return low;
}

// ---- filling

static soma_status fill_vectors(soma_loader *l, slot *s, loader_hand *hand, const pick *p, soma_error *err) {
    const int64_t e = episode_of(l, p->sample), position = l->episodes[e], row = p->row, views = 1 + l->o.history;
    const int64_t frame = p->sample - l->starts[e], begin = frame - l->o.history, last = l->starts[e + 1] - l->starts[e] - 1;
    const size_t state_size = (size_t)l->n_state * sizeof(float), action_size = (size_t)l->n_actions * sizeof(float);
    const float *state, *action;
    SOMA_TRY(soma__vectors_get(&state, &action, l->vectors, &hand->vectors, hand->pictures.reader, e, err));
    for (int64_t v = 0; v < views; v++) // before an episode there is its first frame
        memcpy(s->state + (row * views + v) * l->n_state, state + SOMA_MAX(0, begin + v) * l->n_state, state_size);
    for (int64_t h = 0; h < l->o.horizon; h++) {
        const int64_t from = SOMA_MAX(0, SOMA_MIN(begin + h, last));
        memcpy(s->actions + (row * l->o.horizon + h) * l->n_actions, action + from * l->n_actions, action_size);
        s->pad[row * l->o.horizon + h] = begin + h < 0 || begin + h > last;
    }
    s->tasks[row] = l->d->episodes[position].task;
    s->episode[row] = position;
    s->frame[row] = frame;
    return SOMA_OK;
}

static soma_status fill_picture(soma_loader *l, slot *s, soma_pictures_hand *hand, const pick *p, int camera, soma_error *err) {
    int64_t e = episode_of(l, p->sample);
    size_t size = soma__pictures_size(l->pictures, camera);
    const int64_t views = 1 + l->o.history, frame = p->sample - l->starts[e];
    uint8_t *out = s->images[camera] + (size_t)(p->row * views) * size;
    bool present = l->d->format->present(l->d, l->episodes[e], l->o.cameras[camera]);
    s->image_present[camera][p->row] = present;
    for (int64_t v = 0; v < views && present; v++)
        SOMA_TRY(soma__pictures_get(l->pictures, hand, e, SOMA_MAX(0, frame - l->o.history + v), camera, out + (size_t)v * size, err));
    if (!present) memset(out, 0, (size_t)views * size);
    return SOMA_OK;
}

static int by_sample(const void *a, const void *b) {
    const pick *x = a, *y = b;
    return x->sample != y->sample ? (x->sample < y->sample ? -1 : 1) : x->row < y->row ? -1 : x->row > y->row;
}

// The n samples of s->picks into their rows.
static soma_status fill_rows(soma_loader *l, slot *s, loader_hand *hand, int64_t n, soma_error *err) {
    qsort(s->picks, (size_t)n, sizeof *s->picks, by_sample);
    for (int64_t i = 0; i < n; i++) SOMA_TRY(fill_vectors(l, s, hand, &s->picks[i], err));
    for (int c = 0; c < l->o.n_cameras; c++)
        for (int64_t i = 0; i < n; i++) SOMA_TRY(fill_picture(l, s, &hand->pictures, &s->picks[i], c, err));
    return SOMA_OK;
}

static void fill_slot(soma_loader *l, slot *s, loader_hand *hand, int64_t batch) {
    s->batch.index = batch;
    for (int64_t row = 0; row < l->o.batch; row++) s->picks[row] = (pick){sample_of(l, batch, row), row};
    s->status = fill_rows(l, s, hand, l->o.batch, &s->err);
}

static void *work(void *ctx) {
    worker *w = ctx;
    soma_loader *l = w->loader;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        if (l->claim >= l->first + l->n_slots) { // no slot is free
            pthread_cond_wait(&l->changed, &l->lock);
            continue;
        }
        int64_t batch = l->claim++;
        slot *s = &l->slots[batch % l->n_slots];
        s->ready = false;
        l->n_filling++;
        pthread_mutex_unlock(&l->lock);
        fill_slot(l, s, &w->hand, batch);
        pthread_mutex_lock(&l->lock);
        s->ready = true;
        l->n_filling--;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

// ---- consuming

static void release(soma_loader *l) {
    if (!l->held) return;
    l->held = false;
    l->first++;
    pthread_cond_broadcast(&l->changed);
}

soma_status soma__loader_next(soma_loader *l, const soma_loader_batch **batch, soma_error *err) {
    pthread_mutex_lock(&l->lock);
    release(l);
    slot *s = &l->slots[l->wanted % l->n_slots];
    double asked = soma__seconds();
    while (l->claim <= l->wanted || !s->ready) pthread_cond_wait(&l->changed, &l->lock);
    l->waited += soma__seconds() - asked;
    l->held = true;
    l->wanted++;
    pthread_mutex_unlock(&l->lock);
    *batch = &s->batch;
    return s->status == SOMA_OK ? SOMA_OK : soma__fail(err, s->status, "%s", s->err.text);
}

soma_status soma__loader_seek(soma_loader *l, int64_t batch, soma_error *err) {
    if (batch < 0) return soma__fail(err, SOMA_BAD_INPUT, "batch %lld cannot be the next one", (long long)batch);
    pthread_mutex_lock(&l->lock);
    l->claim = INT64_MAX; // nothing more is claimed while those under way end
    while (l->n_filling) pthread_cond_wait(&l->changed, &l->lock);
    l->held = false;
    l->first = l->claim = l->wanted = batch;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return SOMA_OK;
}

int64_t soma__loader_samples(const soma_loader *l) { return l->n_samples; }
const soma_pictures *soma__loader_pictures(const soma_loader *l) { return l->pictures; }
const soma_vectors *soma__loader_vectors(const soma_loader *l) { return l->vectors; }
double soma__loader_waited(const soma_loader *l) { return l->waited; }

// ---- opening: the plan

static soma_status check_opts(const soma_dataset *d, const soma_loader_opts *o, soma_error *err) {
    SOMA_CHECK(o->history >= 0, "a history has no frames below none");
    SOMA_CHECK(o->batch > 0 && o->horizon > 0 && o->workers > 0 && o->queue > 0,
               "batch, horizon, workers and queue of a loader are above zero");
    SOMA_CHECK(o->ranks > 0 && o->rank >= 0 && o->rank < o->ranks, "a rank is one of the loader's ranks");
    SOMA_CHECK(o->side >= 0, "pictures have a side above zero, or their own");
    SOMA_CHECK(o->n_cameras >= 0 && o->n_cameras <= SOMA_LOADER_CAMERAS, "a loader has at most SOMA_LOADER_CAMERAS cameras");
    int features[2 + SOMA_LOADER_CAMERAS] = {o->state, o->action};
    memcpy(features + 2, o->cameras, (size_t)o->n_cameras * sizeof(int));
    for (int i = 0; i < 2 + o->n_cameras; i++) {
        SOMA_CHECK(features[i] >= 0 && features[i] < d->n_features + d->n_parts, "a loader's features are positions in the dataset");
        if (d->features[features[i]].kind != (i < 2 ? SOMA_FEATURE_VECTOR : SOMA_FEATURE_IMAGE))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" holds no %s", d->path, d->features[features[i]].name,
                              i < 2 ? "numbers" : "pictures");
    }
    return SOMA_OK;
}

static soma_status plan_samples(soma_loader *l, soma_error *err) {
    const soma_dataset *d = l->d;
    l->episodes = soma__alloc(sizeof *l->episodes * (size_t)(l->o.n_episodes + 1));
    l->starts = soma__calloc((size_t)l->o.n_episodes + 1, sizeof *l->starts);
    if (!l->episodes || !l->starts) return soma__no_memory(err, "the list of samples");
    for (int64_t e = 0; e < l->o.n_episodes; e++) {
        int64_t position = l->episodes[e] = l->o.episodes[e];
        SOMA_CHECK(position >= 0 && position < d->n_episodes, "a loader's episodes are positions in the dataset");
        if (!d->episodes[position].present)
            return soma__fail(err, SOMA_NOT_FOUND, "%s: the file of episode %lld is absent", d->path,
                              (long long)d->episodes[position].index);
        l->starts[e + 1] = l->starts[e] + d->episodes[position].n_frames;
    }
    l->o.episodes = NULL; // the caller's list is not needed any more
    l->n_samples = l->starts[l->o.n_episodes];
    if (l->n_samples > 0 && l->n_samples < (int64_t)1 << 40) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: %lld frames cannot be sampled from", d->path, (long long)l->n_samples);
}

static soma_status plan_memory(soma_loader *l, soma_error *err) {
    const soma_dataset *d = l->d;
    const soma_vectors_opts vectors = {l->o.state, l->o.action, l->episodes, l->o.n_episodes, l->o.vectors_size};
    l->n_state = d->features[l->o.state].size;
    l->n_actions = d->features[l->o.action].size;
    SOMA_TRY(soma__vectors_new(&l->vectors, d, &vectors, err));
    soma_pictures_opts o = {.n_cameras = l->o.n_cameras,
                            .episodes = l->episodes,
                            .n_episodes = l->o.n_episodes,
                            .side = l->o.side,
                            .memory = l->o.cache_size,
                            .folder = l->o.folder,
                            .disk = l->o.folder_size};
    memcpy(o.cameras, l->o.cameras, sizeof o.cameras);
    soma_status status = soma__pictures_new(&l->pictures, d, &o, err);
    l->o.folder = NULL; // the caller's text is not needed any more
    return status;
}

// ---- opening: reading, one episode per item

typedef struct reading {
    soma_loader *l;
    soma_pictures_hand *hands; // [threads]
    pthread_mutex_t lock;
    int64_t done, failed_item; // frames; the first episode that failed
    soma_status status;
    soma_error err;
} reading;

static soma_status read_episode(soma_loader *l, soma_pictures_hand *hand, int64_t e, soma_error *err) {
    if (l->starts[e + 1] == l->starts[e]) return SOMA_OK;
    if (soma__vectors_fit(l->vectors)) SOMA_TRY(soma__vectors_fill(l->vectors, hand->reader, e, err));
    return soma__pictures_fill(l->pictures, hand, e, err);
}

// Ranks begin at different episodes: those that share a folder of pictures then divide the decoding.
static void read_item(void *ctx, int64_t item, int thread) {
    reading *r = ctx;
    soma_loader *l = r->l;
    int64_t e = (item + l->o.n_episodes * l->o.rank / l->o.ranks) % l->o.n_episodes;
    soma_error err = {0};
    pthread_mutex_lock(&r->lock);
    bool useless = r->status != SOMA_OK && r->failed_item < e;
    pthread_mutex_unlock(&r->lock);
    soma_status status = SOMA_OK;
    if (!useless && !r->hands[thread].reader) status = soma__pictures_hand_open(&r->hands[thread], l->pictures, &err);
    if (!useless && status == SOMA_OK) status = read_episode(l, &r->hands[thread], e, &err);
    pthread_mutex_lock(&r->lock);
    if (status != SOMA_OK && (r->status == SOMA_OK || e < r->failed_item)) {
        r->status = status;
        r->failed_item = e;
        r->err = err;
    }
    r->done += l->starts[e + 1] - l->starts[e];
    if (l->o.progress && !useless) l->o.progress(l->o.user, r->done, l->n_samples);
    pthread_mutex_unlock(&r->lock);
}

static soma_status read_all(soma_loader *l, soma_error *err) {
    soma_pool *pool;
    SOMA_TRY(soma__pool_new(&pool, 0, err));
    int n_threads = soma__pool_threads(pool);
    reading r = {.l = l, .hands = soma__calloc((size_t)n_threads, sizeof *r.hands)};
    soma_status status = r.hands ? SOMA_OK : soma__no_memory(err, "dataset readers");
    pthread_mutex_init(&r.lock, NULL);
    if (status == SOMA_OK) {
        soma__pool_run(pool, l->o.n_episodes, read_item, &r);
        for (int i = 0; i < n_threads; i++) soma__pictures_hand_close(&r.hands[i], l->pictures);
        if (r.status != SOMA_OK) status = soma__fail(err, r.status, "%s", r.err.text);
    }
    pthread_mutex_destroy(&r.lock);
    soma__free(r.hands);
    soma__pool_free(pool);
    return status;
}

// ---- opening: slots and workers

static bool make_slot(slot *s, const soma_loader *l) {
    const size_t n = (size_t)l->o.batch, horizon = (size_t)l->o.horizon, views = (size_t)(1 + l->o.history);
    s->batch.state = s->state = soma__calloc(n * views * (size_t)l->n_state, sizeof(float));
    s->batch.actions = s->actions = soma__calloc(n * horizon * (size_t)l->n_actions, sizeof(float));
    s->batch.pad = s->pad = soma__calloc(n, horizon);
    s->batch.tasks = s->tasks = soma__calloc(n, sizeof *s->tasks);
    s->batch.episode = s->episode = soma__calloc(n, sizeof *s->episode);
    s->batch.frame = s->frame = soma__calloc(n, sizeof *s->frame);
    s->picks = soma__calloc(n, sizeof *s->picks);
    bool ok = s->state && s->actions && s->pad && s->tasks && s->episode && s->frame && s->picks;
    for (int c = 0; c < l->o.n_cameras; c++) {
        s->batch.images[c] = s->images[c] = soma__calloc(n * views, soma__pictures_size(l->pictures, c));
        s->batch.image_present[c] = s->image_present[c] = soma__calloc(n, 1);
        ok = ok && s->images[c] && s->image_present[c];
    }
    return ok;
}

static void free_slot(slot *s) {
    soma__free(s->state);
    soma__free(s->actions);
    soma__free(s->pad);
    soma__free(s->tasks);
    soma__free(s->episode);
    soma__free(s->frame);
    soma__free(s->picks);
    for (int c = 0; c < SOMA_LOADER_CAMERAS; c++) {
        soma__free(s->images[c]);
        soma__free(s->image_present[c]);
    }
}

static soma_status start_workers(soma_loader *l, soma_error *err) {
    l->n_slots = l->o.queue + 1; // one is with the consumer
    l->slots = soma__calloc((size_t)l->n_slots, sizeof *l->slots);
    bool ok = l->slots != NULL;
    for (int64_t i = 0; ok && i < l->n_slots; i++) ok = make_slot(&l->slots[i], l);
    if (ok) l->workers = soma__calloc((size_t)l->o.workers, sizeof *l->workers);
    if (!l->workers) return soma__no_memory(err, "the queue of batches");
    for (int i = 0; i < l->o.workers; i++) {
        worker *w = &l->workers[i];
        w->loader = l;
        SOMA_TRY(soma__pictures_hand_open(&w->hand.pictures, l->pictures, err));
        if (pthread_create(&w->thread, NULL, work, w)) return soma__fail(err, SOMA_IO, "a loader's thread cannot be started");
        w->started = true;
    }
    return SOMA_OK;
}

static void tell_places(const soma_loader *l) {
    int64_t disk, memory, on_demand;
    soma__pictures_places(l->pictures, &disk, &memory, &on_demand);
    if (on_demand && l->o.cache_size)
        soma__log(SOMA_LOG_INFO, "%s: %lld of %lld pictures have no room in memory or folder and are decoded each time they are needed",
                  l->d->path, (long long)on_demand, (long long)(disk + memory + on_demand));
    if (!soma__vectors_fit(l->vectors))
        soma__log(SOMA_LOG_INFO, "%s: states and actions are more than %zu MiB; they are read when they are needed", l->d->path,
                  l->o.vectors_size >> 20);
}

soma_status soma__loader_open(soma_loader **out, const soma_dataset *d, const soma_loader_opts *opts, soma_error *err) {
    *out = NULL;
    SOMA_TRY(check_opts(d, opts, err));
    soma_loader *l = soma__calloc(1, sizeof *l);
    if (!l) return soma__no_memory(err, "a loader");
    l->d = d;
    l->o = *opts;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    soma_status status = plan_samples(l, err);
    if (status == SOMA_OK) status = plan_memory(l, err);
    if (status == SOMA_OK) status = read_all(l, err);
    if (status == SOMA_OK) status = start_workers(l, err);
    if (status == SOMA_OK) tell_places(l);
    if (status == SOMA_OK) *out = l;
    if (status != SOMA_OK) soma__loader_close(l);
    return status;
}

static void close_hand(const soma_loader *l, loader_hand *hand) {
    soma__pictures_hand_close(&hand->pictures, l->pictures);
    soma__vectors_hand_close(&hand->vectors);
}

void soma__loader_close(soma_loader *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; l->workers && i < l->o.workers; i++) {
        if (l->workers[i].started) pthread_join(l->workers[i].thread, NULL);
        close_hand(l, &l->workers[i].hand);
    }
    for (int64_t i = 0; l->slots && i < l->n_slots; i++) free_slot(&l->slots[i]);
    free_slot(&l->given);
    if (l->pictures) close_hand(l, &l->given_hand);
    soma__free(l->workers);
    soma__free(l->slots);
    soma__pictures_free(l->pictures);
    soma__vectors_free(l->vectors);
    soma__free(l->starts);
    soma__free(l->episodes);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    soma__free(l);
}

// ---- given samples

soma_status soma__loader_read(soma_loader *l, int64_t n, const int64_t *episodes, const int64_t *frames, const soma_loader_batch **batch,
                              soma_error *err) {
    SOMA_CHECK(n > 0 && n <= l->o.batch, "soma__loader_read reads 1 to batch samples");
    if (!l->given_hand.pictures.reader) SOMA_TRY(soma__pictures_hand_open(&l->given_hand.pictures, l->pictures, err));
    if (!l->given.state && !make_slot(&l->given, l)) {
        free_slot(&l->given);
        l->given = (slot){0};
        return soma__no_memory(err, "a batch");
    }
    l->given.batch.index = -1;
    for (int64_t row = 0; row < n; row++) {
        int64_t e = 0;
        while (e < l->o.n_episodes && l->episodes[e] != episodes[row]) e++;
        if (e == l->o.n_episodes || frames[row] < 0 || frames[row] >= l->starts[e + 1] - l->starts[e])
            return soma__fail(err, SOMA_BAD_INPUT, "%s: episode %lld, frame %lld is not among the loader's samples", l->d->path,
                              (long long)episodes[row], (long long)frames[row]);
        l->given.picks[row] = (pick){l->starts[e] + frames[row], row};
    }
    SOMA_TRY(fill_rows(l, &l->given, &l->given_hand, n, err));
    *batch = &l->given.batch;
    return SOMA_OK;
}
