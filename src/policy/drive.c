// SPDX-License-Identifier: Apache-2.0
// Real time: the caller's thread sends actions, a thread of the drive's own asks for chunks, and the clock says which row is due. Between
// the two stands one request at a time, a copy of the observation, handed over under a lock; the timeline belongs to the caller's thread.
#include "policy/drive.h"

#include "base/base.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef enum { IDLE, ASKED, ANSWERED } stage;

struct soma_drive {
    soma_drive_source source;
    soma_timeline *line;
    int n_actions, horizon;
    double rate, start; // Hz; when the episode began, 0: not yet
    float *action;
    bool open; // one chunk after the other: the robot waits
    // the request
    soma_obs obs; // points into the arrays below
    float *state;
    char *prompt;
    uint8_t *pixels[SOMA_MAX_CAMERAS];
    char *cameras[SOMA_MAX_CAMERAS];
    size_t room[SOMA_MAX_CAMERAS + 2]; // bytes of pixels, then of state and prompt
    // shared
    pthread_mutex_t lock;
    pthread_cond_t turned;
    pthread_t thread;
    bool has_thread, end;
    stage stage;
    soma_status status;
    soma_actions answer;
    soma_error error;
};

static void *run(void *arg) {
    soma_drive *d = arg;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        while (d->stage != ASKED && !d->end) pthread_cond_wait(&d->turned, &d->lock);
        if (d->end) break;
        pthread_mutex_unlock(&d->lock);
        soma_error error = {0};
        soma_actions answer = {0};
        const soma_status status = d->source.act(d->source.ctx, &d->obs, &answer, &error);
        pthread_mutex_lock(&d->lock);
        d->status = status;
        d->answer = answer;
        d->error = error;
        d->stage = ANSWERED;
        pthread_cond_broadcast(&d->turned);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

// ---- the observation's copy; grown on first use

static bool keep(void **to, size_t *room, const void *from, size_t size) {
    if (size > *room) {
        soma__free(*to);
        *to = soma__alloc(size);
        *room = *to ? size : 0;
    }
    if (!*to && size) return false;
    if (size) memcpy(*to, from, size);
    return true;
}

static soma_status copy_obs(soma_drive *d, const soma_obs *obs, soma_error *err) {
    const char *prompt = obs->prompt ? obs->prompt : "";
    const size_t state = sizeof *obs->state * (size_t)SOMA_MAX(obs->n_state, 0);
    bool kept = keep((void **)&d->state, &d->room[SOMA_MAX_CAMERAS], obs->state, state) &&
                keep((void **)&d->prompt, &d->room[SOMA_MAX_CAMERAS + 1], prompt, strlen(prompt) + 1);
    d->obs = *obs;
    for (int i = 0; i < obs->n_images && kept; i++) {
        const soma_image *image = &obs->images[i];
        kept = keep((void **)&d->pixels[i], &d->room[i], image->pixels, (size_t)image->width * (size_t)image->height * 3);
        soma__free(d->cameras[i]);
        d->cameras[i] = soma__strdup(image->camera);
        kept = kept && d->cameras[i];
        d->obs.images[i].pixels = d->pixels[i];
        d->obs.images[i].camera = d->cameras[i];
    }
    if (!kept) return soma__no_memory(err, "an observation");
    d->obs.state = obs->n_state ? d->state : NULL;
    d->obs.prompt = obs->prompt ? d->prompt : NULL;
    return SOMA_OK;
}

// ---- open and close

soma_status soma__drive_new(soma_drive **out, const soma_drive_source *source, const soma_chunk_opts *opts, int horizon, int n_actions,
                            double rate, soma_error *err) {
    *out = NULL;
    if (!(rate > 0)) return soma__fail(err, SOMA_BAD_INPUT, "a drive needs to know how many actions a second a chunk is for");
    soma_drive *d = soma__calloc(1, sizeof *d);
    if (!d) return soma__no_memory(err, "a drive");
    *d = (soma_drive){.source = *source, .n_actions = n_actions, .horizon = horizon, .rate = rate};
    d->open = !strcmp(opts ? opts->chunks : soma_chunk_defaults().chunks, "open");
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->turned, NULL);
    soma_status status = soma__timeline_new(&d->line, opts, horizon, n_actions, 0, err);
    if (status == SOMA_OK && !(d->action = soma__calloc((size_t)n_actions, sizeof *d->action))) status = soma__no_memory(err, "a drive");
    if (status == SOMA_OK && !(d->has_thread = !pthread_create(&d->thread, NULL, run, d)))
        status = soma__fail(err, SOMA_IO, "a drive's thread cannot start");
    if (status == SOMA_OK)
        *out = d;
    else
        soma_drive_free(d);
    return status;
}

static soma_status pilot_act(void *ctx, const soma_obs *obs, soma_actions *actions, soma_error *err) {
    return soma_pilot_act(ctx, obs, actions, err);
}

static void pilot_reset(void *ctx) { soma_pilot_reset(ctx); }

static soma_status pilot_see(void *ctx, const soma_obs *obs, soma_error *err) { return soma_pilot_see(ctx, obs, err); }

soma_status soma_drive_new(soma_drive **drive, soma_pilot *pilot, const soma_chunk_opts *opts, double rate, soma_error *err) {
    const soma_policy_info info = soma_policy_describe(soma_pilot_policy(pilot));
    const soma_drive_source source = {pilot, pilot_act, pilot_reset, pilot_see};
    return soma__drive_new(drive, &source, opts, info.horizon, info.n_actions, rate > 0 ? rate : info.rate, err);
}

void soma_drive_free(soma_drive *d) {
    if (!d) return;
    pthread_mutex_lock(&d->lock);
    d->end = true;
    pthread_cond_broadcast(&d->turned);
    pthread_mutex_unlock(&d->lock);
    if (d->has_thread) pthread_join(d->thread, NULL);
    for (int i = 0; i < SOMA_MAX_CAMERAS; i++) {
        soma__free(d->pixels[i]);
        soma__free(d->cameras[i]);
    }
    soma__free(d->state);
    soma__free(d->prompt);
    soma__free(d->action);
    soma__timeline_free(d->line);
    pthread_cond_destroy(&d->turned);
    pthread_mutex_destroy(&d->lock);
    soma__free(d);
}

static stage stage_of(soma_drive *d, bool wait) {
    pthread_mutex_lock(&d->lock);
    while (wait && d->stage == ASKED) pthread_cond_wait(&d->turned, &d->lock);
    const stage is = d->stage;
    pthread_mutex_unlock(&d->lock);
    return is;
}

static void turn_to(soma_drive *d, stage to) {
    pthread_mutex_lock(&d->lock);
    d->stage = to;
    pthread_cond_broadcast(&d->turned);
    pthread_mutex_unlock(&d->lock);
}

void soma_drive_reset(soma_drive *d) {
    stage_of(d, true); // a call that runs is let end
    turn_to(d, IDLE);
    if (d->source.reset) d->source.reset(d->source.ctx);
    soma__timeline_reset(d->line);
    d->start = 0;
}

// ---- a step

// The episode's clock stands until its first chunk is there.
static double now(const soma_drive *d) { return d->start > 0 ? (soma__seconds() - d->start) * d->rate : 0; }

static soma_status ask(soma_drive *d, const soma_obs *obs, soma_error *err) {
    SOMA_TRY(copy_obs(d, obs, err));
    soma__timeline_ask(d->line, now(d), &d->obs.executed, &d->obs.delay);
    turn_to(d, ASKED);
    return SOMA_OK;
}

// The chunk that has come, if one has.
static soma_status take(soma_drive *d, bool wait, soma_error *err) {
    if (stage_of(d, wait) != ANSWERED) return SOMA_OK;
    turn_to(d, IDLE); // the thread touches nothing between answering and being asked
    if (d->status == SOMA_OK && (d->answer.n_actions != d->n_actions || d->answer.horizon < 1))
        d->status = soma__fail(&d->error, SOMA_BAD_INPUT, "a chunk of %d actions of %d values came; %d values are wanted",
                               d->answer.horizon, d->answer.n_actions, d->n_actions);
    if (d->status != SOMA_OK) {
        soma__timeline_lost(d->line);
        if (err) *err = d->error;
        return d->status;
    }
    soma__timeline_arrive(d->line, now(d), d->answer.values, SOMA_MIN(d->answer.horizon, d->horizon));
    return SOMA_OK;
}

soma_status soma_drive_step(soma_drive *d, const soma_obs *obs, const float **action, soma_error *err) {
    *action = d->action;
    const bool first = !(d->start > 0);
    const double began = soma__seconds();
    SOMA_TRY(take(d, false, err));
    const bool idle = stage_of(d, false) == IDLE, asks = idle && soma__timeline_wants(d->line, now(d));
    if (asks)
        SOMA_TRY(ask(d, obs, err));
    else if (idle && d->source.see)
        SOMA_TRY(d->source.see(d->source.ctx, obs, err));
    if (asks && (first || d->open)) SOMA_TRY(take(d, true, err));
    if (first) {
        d->start = soma__seconds();
        soma__timeline_expect(d->line, (d->start - began) * d->rate);
    }
    soma__timeline_action(d->line, now(d), d->action);
    return SOMA_OK;
}

soma_chunk_report soma_drive_read(const soma_drive *d) {
    soma_chunk_report report = soma__timeline_read(d->line);
    report.step_ms = 1e3 / d->rate;
    return report;
}
