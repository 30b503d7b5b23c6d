// SPDX-License-Identifier: Apache-2.0
// The line of requests and the policy's thread. A client has at most one request in the line, so that first come, first served is also
// fair: whoever asks more often waits behind everyone else's next request. What cannot be answered in time is told so at once ("busy") and
// never makes others wait.
#include "serve/inside.h"

#include <math.h>

// ---- how long it takes

// What a turn costs: seconds, where the policy has measured them, and the pace is how long one of them takes at present; elsewhere
// requests, and the pace is the seconds of one.
static double cost(const soma_server *s, int waiting, double left, int *first) {
    *first = 1;
    const double seconds = s->policy.cost && waiting ? s->policy.cost(s->policy.ctx, waiting, left, first) : 0;
    return seconds > 0 ? seconds : waiting;
}

void soma__turns_begin(soma_server *s) {
    int first;
    s->pace = s->policy.cost && s->policy.cost(s->policy.ctx, 1, INFINITY, &first) > 0 ? 1 : 0;
}

// The turn that ends took so many seconds. Under the mutex.
static void learn(soma_server *s, double seconds) {
    double pace = seconds / s->turn_cost;
    if (s->pace > 0) pace = fmin(pace, 3 * s->pace); // a machine that stood still once tells little of the next turn
    if (s->pace > 0) s->spread += 0.25 * (fabs(pace - s->pace) - s->spread);
    s->pace = s->pace > 0 ? 0.8 * s->pace + 0.2 * pace : pace;
}

// Seconds per cost that a turn seldom exceeds: a mean and some mean deviations, as TCP waits for an answer (RFC 6298; with its four more is
// refused where a machine's times vary much, and little less is late).
static double careful_pace(const soma_server *s) { return s->pace + 2 * s->spread; }

// A request was refused, and no turn runs that would tell whether it still takes so long: the next one is more likely to be tried.
static void doubt(soma_server *s) {
    s->pace *= 0.9;
    s->spread *= 0.9;
}

// Seconds until a request that joins the line now is answered, as far as earlier turns tell. Under the mutex.
static double expected_wait(const soma_server *s) {
    int first;
    double running = s->turn_started > 0 ? s->pace * s->turn_cost - (soma__seconds() - s->turn_started) : 0;
    return SOMA_MAX(running, 0) + s->pace * cost(s, s->n_line + 1, INFINITY, &first);
}

// ---- the line

static void put(soma_client **list, soma_client *c) {
    c->queued = *list;
    *list = c;
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
    if (!s->line && !(s->turn_started > 0)) doubt(s);
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
    put(&s->leaving, c);
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
    SOMA_TRY(c->protocol->observe(s, c, obs, err));
    SOMA_TRY(check_images(s, obs, err));
    if (!c->pilot) SOMA_TRY(s->policy.open(s->policy.ctx, &c->pilot, err));
    if (c->reset && s->policy.reset) s->policy.reset(c->pilot);
    if (c->reset && s->recording) soma__recording_end(s->recording, c->id);
    c->reset = c->held = false;
    return SOMA_OK;
}

// How far a chunk changes the action of the moment at which it takes over, the largest of all dimensions: what policy/timeline.c measures
// where the robot is, for clients that tell how far they have come. Below 0: there is nothing to compare.
static double seam(const soma_client *c, const soma_obs *obs, const soma_actions *a) {
    const int64_t is = obs->delay, was = (int64_t)obs->executed + obs->delay;
    if (!obs->executed || was >= c->chunk_rows || is >= a->horizon) return -1;
    double most = 0;
    for (int i = 0; i < a->n_actions; i++)
        most = fmax(most, fabs((double)a->values[is * a->n_actions + i] - (double)c->chunk[was * a->n_actions + i]));
    return most;
}

static void note_chunk(soma_server *s, soma_client *c, const soma_obs *obs, const soma_actions *a) {
    c->seam = seam(c, obs, a);
    if (c->seam >= 0) soma__summary_add(&s->metrics.seams, c->seam);
    if (obs->executed) soma__summary_add(&s->metrics.delays, obs->delay);
    soma__hold_sent(s, c, a);
}

// What is sent, kept and shown of one request. A stop that was pressed while the policy worked takes its actions back.
static void answer(soma_server *s, soma_client *c, const soma_obs *obs, soma_actions *actions, const soma_error *failed, double seconds) {
    c->error = *failed;
    if (atomic_load(&s->held))
        soma__hold(s, c, obs, actions, &c->error);
    else if (!c->error.code && !check_actions(actions, &c->error))
        note_chunk(s, c, obs, actions);
    if (c->error.code) return;
    soma__answer_begin(&c->answer);
    c->protocol->put_actions(s, c, actions, 1e3 * seconds);
    if (c->answer.failed) {
        soma__no_memory(&c->error, "an answer");
        return;
    }
    if (s->recording && !c->held) soma__recording_add(s->recording, c->id, obs, actions);
    soma__live_saw(s->live, &(soma_live_exchange){c->id, c->protocol->name, c->peer, obs, actions, c->held ? -1 : c->seam, s->policy.look,
                                                  s->policy.ctx});
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
    const bool held = atomic_load(&s->held);
    if (!held) s->policy.act(s->policy.ctx, n_ready, pilots, obs, actions, errors);
    double end = soma__seconds();
    atomic_fetch_add(&s->metrics.turns, 1);
    soma__histogram_add(&s->metrics.inference, end - start);
    for (int i = 0; i < n_ready; i++) answer(s, ready[i], &obs[i], &actions[i], &errors[i], end - begin);
    pthread_mutex_lock(&s->mutex);
    if (!held && n_ready == n) learn(s, soma__seconds() - begin);
    pthread_mutex_unlock(&s->mutex);
}

// ---- the policy's thread

// The head of the line leaves it, for a turn or for one of the lists. Under the mutex.
static soma_client *pop(soma_server *s) {
    soma_client *c = s->line;
    s->line = c->queued;
    s->n_line--;
    if (!s->line) s->line_end = &s->line;
    return c;
}

// Seconds until the head of the line must be answered.
static double time_left(const soma_server *s) {
    return s->opts.max_wait > 0 ? s->opts.max_wait - (soma__seconds() - s->line->received) : INFINITY;
}

// Those that cannot be answered in time any more, because turns before them took longer than expected, are told so at once: an answer that
// comes too late would make those behind them late as well. Whether there were any. Under the mutex.
static bool refuse_late(soma_server *s) {
    bool any = false;
    int first;
    const double one = atomic_load(&s->held) ? 0 : cost(s, 1, INFINITY, &first);
    while (s->line) {
        const double left = time_left(s), needs = one * (s->n_line > 1 ? careful_pace(s) : s->pace); // nobody behind it: it may be tried
        if (left >= needs && !s->line->gone) break;
        soma_client *c = pop(s);
        put(c->gone ? &s->leaving : &s->done, c);
        if (c->gone) continue;
        any = true;
        atomic_fetch_add(&s->metrics.late, 1);
        c->error = (soma_error){0};
        soma__fail(&c->error, SOMA_BUSY,
                   "the request has waited for %.3g s, the policy takes about %.3g s, and %g s are allowed; ask again later",
                   s->opts.max_wait - left, s->pace * one, s->opts.max_wait);
    }
    if (any && !s->line) doubt(s);
    return any;
}

// Those that go together, from the head of the line. Under the mutex.
static int take_turn(soma_server *s, soma_client **clients) {
    int n = 0, wanted = 1;
    if (s->n_line > 1) cost(s, s->n_line, time_left(s) / careful_pace(s), &wanted);
    for (wanted = SOMA_MIN(wanted, SOMA_SERVER_TURN); s->line && n < wanted;) {
        soma_client *c = pop(s);
        if (c->gone)
            put(&s->leaving, c);
        else
            clients[n++] = c;
    }
    s->turn_started = n ? soma__seconds() : 0;
    s->turn_cost = cost(s, n, INFINITY, &wanted);
    return n;
}

static void hand_back(soma_server *s, soma_client *const *clients, int n) {
    pthread_mutex_lock(&s->mutex);
    s->turn_started = 0;
    for (int i = 0; i < n; i++) {
        put(clients[i]->gone ? &s->leaving : &s->done, clients[i]);
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
        const bool refused = !finish && begins(s) && refuse_late(s);
        int n = !finish && begins(s) ? take_turn(s, clients) : 0;
        atomic_store(&s->metrics.waiting, s->n_line);
        pthread_mutex_unlock(&s->mutex);
        if (refused) lws_cancel_service(s->context);
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
