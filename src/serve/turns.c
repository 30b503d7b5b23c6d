// SPDX-License-Identifier: Apache-2.0
// The line of requests and the policy's thread. A client has at most one request in the line, so that first come, first served is also
// fair: whoever asks more often waits behind everyone else's next request. What cannot be answered in time is told so at once ("busy") and
// never makes others wait.
#include "serve/inside.h"

#include <math.h>

// ---- the line

// Seconds until a request that joins the line now is answered, as far as earlier turns tell. Under the mutex.
static double expected_wait(const soma_server *s) {
    double now = soma__seconds(), running = s->turn_started > 0 ? s->per_request * s->n_turn - (now - s->turn_started) : 0;
    return SOMA_MAX(running, 0) + s->per_request * (s->n_line + 1);
}

static soma_status find_place(soma_server *s, soma_error *err) {
    const soma_server_opts *o = &s->opts;
    if (s->n_line >= o->max_queue) {
        atomic_fetch_add(&s->metrics.busy_queue, 1);
        return soma__fail(err, SOMA_BUSY, "%d requests already wait for the policy; ask again later", s->n_line);
    }
    double wait = expected_wait(s);
    if (!(o->max_wait > 0) || wait <= o->max_wait) return SOMA_OK;
    atomic_fetch_add(&s->metrics.busy_wait, 1);
    return soma__fail(err, SOMA_BUSY, "the answer would take about %.3g s, and %g s are allowed; ask again later", wait, o->max_wait);
}

soma_status soma__turns_submit(soma_server *s, soma_client *c, soma_error *err) {
    pthread_mutex_lock(&s->mutex);
    soma_status status = find_place(s, err);
    if (!status) {
        c->queued = NULL;
        *s->line_end = c;
        s->line_end = &c->queued;
        s->n_line++;
        atomic_store(&s->metrics.waiting, s->n_line);
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->mutex);
    return status;
}

void soma__turns_leave(soma_server *s, soma_client *c) {
    pthread_mutex_lock(&s->mutex);
    c->queued = s->leaving;
    s->leaving = c;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
}

static void free_client(soma_server *s, soma_client *c) {
    if (c->pilot) s->policy.close(c->pilot);
    if (c->pilot && s->recording) soma__recording_end(s->recording, c->id);
    soma__live_gone(s->live, c->id);
    soma__free(c->chunk);
    soma__str_free(&c->incoming);
    soma__str_free(&c->stash);
    soma__str_free(&c->request);
    soma__str_free(&c->answer);
    soma__arena_free(&c->arena);
    soma__free(c);
    pthread_mutex_lock(&s->mutex);
    s->n_clients--;
    pthread_mutex_unlock(&s->mutex);
}

static void free_list(soma_server *s, soma_client *c) {
    for (soma_client *next; c; c = next) {
        next = c->queued;
        free_client(s, c);
    }
}

void soma__turns_free(soma_server *s) {
    free_list(s, s->line);
    free_list(s, s->leaving);
    free_list(s, s->done);
}

// ---- a turn

static soma_status check_actions(const soma_actions *a, soma_error *err) {
    for (int64_t i = 0; i < (int64_t)a->horizon * a->n_actions; i++)
        if (!isfinite(a->values[i]))
            return soma__fail(err, SOMA_BAD_INPUT, "the policy gave an action that is not a finite number, at step %lld, dimension %lld",
                              (long long)(i / a->n_actions), (long long)(i % a->n_actions));
    return SOMA_OK;
}

static soma_status check_images(const soma_server *s, const soma_obs *obs, soma_error *err) {
    for (int i = 0; i < obs->n_images; i++)
        if (SOMA_MAX(obs->images[i].width, obs->images[i].height) > s->opts.max_image)
            return soma__fail(err, SOMA_BAD_INPUT,
                              "the picture of camera \"%s\" has %d x %d pixels; this server takes at most %lld on a side",
                              obs->images[i].camera, obs->images[i].width, obs->images[i].height, (long long)s->opts.max_image);
    return SOMA_OK;
}

static soma_status prepare(soma_server *s, soma_client *c, soma_obs *obs, soma_error *err) {
    double waited = soma__seconds() - c->received;
    if (s->opts.max_wait > 0 && waited > s->opts.max_wait) { // the turns before it took longer than they were expected to
        atomic_fetch_add(&s->metrics.late, 1);
        return soma__fail(err, SOMA_BUSY, "the request has waited for %.3g s, and %g s are allowed; ask again later", waited,
                          s->opts.max_wait);
    }
    SOMA_TRY(c->protocol->observe(s, c, obs, err));
    SOMA_TRY(check_images(s, obs, err));
    if (!c->pilot) SOMA_TRY(s->policy.open(s->policy.ctx, &c->pilot, err));
    if (c->reset && s->policy.reset) s->policy.reset(c->pilot);
    if (c->reset && s->recording) soma__recording_end(s->recording, c->id);
    c->reset = c->held = false;
    return SOMA_OK;
}

// What is sent, kept and shown of one request. A stop that was pressed while the policy worked takes its actions back.
static void answer(soma_server *s, soma_client *c, const soma_obs *obs, soma_actions *actions, const soma_error *failed, double seconds) {
    c->error = *failed;
    if (atomic_load(&s->held))
        soma__hold(s, c, obs, actions, &c->error);
    else if (!c->error.code && !check_actions(actions, &c->error))
        soma__hold_sent(s, c, actions);
    if (c->error.code) return;
    soma__answer_begin(&c->answer);
    c->protocol->put_actions(s, c, actions, 1e3 * seconds);
    if (c->answer.failed) {
        soma__no_memory(&c->error, "an answer");
        return;
    }
    if (s->recording && !c->held) soma__recording_add(s->recording, c->id, obs, actions);
    soma__live_saw(s->live, &(soma_live_exchange){c->id, c->protocol->name, c->peer, obs, actions, s->policy.look, s->policy.ctx});
}

static soma_status answer_message(soma_server *s, soma_client *c, soma_error *err) {
    if (!c->pilot) SOMA_TRY(s->policy.open(s->policy.ctx, &c->pilot, err));
    soma__answer_begin(&c->answer);
    SOMA_TRY(s->policy.message(s->policy.ctx, c->pilot, c->message, &c->arena, &c->answer, err));
    return c->answer.failed ? soma__no_memory(err, "an answer") : SOMA_OK;
}

static void run_turn(soma_server *s, soma_client *const *clients, int n) {
    soma_client *ready[SOMA_SERVER_TURN];
    void *pilots[SOMA_SERVER_TURN];
    soma_obs obs[SOMA_SERVER_TURN];
    soma_actions actions[SOMA_SERVER_TURN] = {0};
    soma_error errors[SOMA_SERVER_TURN];
    double begin = soma__seconds();
    int n_ready = 0;
    for (int i = 0; i < n; i++) {
        soma_client *c = clients[i];
        c->error = (soma_error){0};
        if (s->policy.message) {
            answer_message(s, c, &c->error);
            continue;
        }
        if (prepare(s, c, &obs[n_ready], &c->error)) continue;
        errors[n_ready] = (soma_error){0};
        pilots[n_ready] = c->pilot;
        ready[n_ready++] = c;
    }
    if (!n_ready) return;
    double start = soma__seconds();
    if (!atomic_load(&s->held)) s->policy.act(s->policy.ctx, n_ready, pilots, obs, actions, errors);
    double end = soma__seconds();
    atomic_fetch_add(&s->metrics.turns, 1);
    soma__histogram_add(&s->metrics.inference, end - start);
    for (int i = 0; i < n_ready; i++) answer(s, ready[i], &obs[i], &actions[i], &errors[i], end - begin);
    pthread_mutex_lock(&s->mutex);
    double each = (end - begin) / n_ready;
    s->per_request = s->per_request > 0 ? 0.8 * s->per_request + 0.2 * each : each;
    pthread_mutex_unlock(&s->mutex);
}

// ---- the policy's thread

// The head of the line, without those that have gone, which are put among the leaving. Under the mutex.
static int take_turn(soma_server *s, soma_client **clients) {
    int n = 0, wanted = s->n_line;
    if (wanted > 1) wanted = s->policy.together ? s->policy.together(s->policy.ctx, SOMA_MIN(wanted, SOMA_SERVER_TURN)) : 1;
    wanted = SOMA_MAX(1, SOMA_MIN(wanted, SOMA_SERVER_TURN));
    while (s->line && n < wanted) {
        soma_client *c = s->line;
        s->line = c->queued;
        s->n_line--;
        if (c->gone) {
            c->queued = s->leaving;
            s->leaving = c;
        } else {
            clients[n++] = c;
        }
    }
    if (!s->line) s->line_end = &s->line;
    atomic_store(&s->metrics.waiting, s->n_line);
    s->turn_started = n ? soma__seconds() : 0;
    s->n_turn = n;
    return n;
}

static void hand_back(soma_server *s, soma_client *const *clients, int n) {
    pthread_mutex_lock(&s->mutex);
    s->turn_started = 0;
    for (int i = 0; i < n; i++) {
        soma_client **list = clients[i]->gone ? &s->leaving : &s->done;
        clients[i]->queued = *list;
        *list = clients[i];
    }
    pthread_mutex_unlock(&s->mutex);
    if (n) lws_cancel_service(s->context);
}

static bool begins(const soma_server *s) { return s->line && (!s->paused || atomic_load(&s->held)); }

void *soma__turns_run(void *server) {
    soma_server *s = server;
    for (;;) {
        soma_client *clients[SOMA_SERVER_TURN];
        pthread_mutex_lock(&s->mutex);
        while (!begins(s) && !s->leaving && !s->finish) pthread_cond_wait(&s->work, &s->mutex);
        bool finish = s->finish;
        soma_client *leaving = s->leaving;
        s->leaving = NULL;
        int n = !finish && begins(s) ? take_turn(s, clients) : 0;
        pthread_mutex_unlock(&s->mutex);
        free_list(s, leaving);
        if (finish) return NULL;
        run_turn(s, clients, n);
        hand_back(s, clients, n);
    }
}

double soma__turns_stalled(const soma_server *server) {
    soma_server *s = (soma_server *)server; // the mutex is not part of what is const
    pthread_mutex_lock(&s->mutex);
    double seconds = s->turn_started > 0 ? soma__seconds() - s->turn_started : 0;
    pthread_mutex_unlock(&s->mutex);
    return seconds > s->opts.stall_timeout ? seconds : 0;
}

bool soma__server_stalled(const soma_server *s) { return soma__turns_stalled(s) > 0; }
