// SPDX-License-Identifier: Apache-2.0
// Rounds over seats. Simulating and drawing go through the pool, one seat an item; the driver is called once per round from our thread.
#include "eval/rollout.h"
#include "base/pool.h"

#include <string.h>

#define OPTS_TYPE soma_rollout_opts
SOMA_OPTS_DEFINE(soma_rollout_opts, SOMA_ROLLOUT_OPTS, soma_rollout_defaults)
#undef OPTS_TYPE

enum { MAX_SEATS = 64 };

typedef struct {
    soma_seat seat; // what the driver sees
    soma_env *env;
    soma_rollout *episode; // NULL: empty
    soma_timeline *line;
    float *action;     // [n_actions]
    int arrival, seen; // control steps: at which the chunk under way is there, -1: none is; of the last picture in the film
    soma_status status;
    soma_error error;
} place;

typedef struct {
    soma_rollouts *result;
    const soma_task *task;
    const soma_rollout_opts *opts;
    const soma_driver *driver;
    soma_pool *pool;
    place *places;
    int n_places;
    int64_t begun, successes;
    size_t picture; // bytes of all cameras
    double act_seconds, model_ms;
    place *active[MAX_SEATS];
    soma_seat *seats[MAX_SEATS];
    int n_active;
} loop;

// ---- films

static void film_free(soma_film *f) {
    if (!f) return;
    soma__free(f->pictures);
    soma__free(f->states);
    soma__free(f->actions);
    soma__free(f->plans);
    soma__free(f->plan_step);
    soma__free(f);
}

static soma_status film_new(const loop *l, soma_film **out, soma_error *err) {
    const soma_task *t = l->task;
    size_t steps = (size_t)t->max_steps;
    soma_film *f = *out = soma__calloc(1, sizeof *f);
    if (!f) return soma__no_memory(err, "a film");
    f->pictures = soma__calloc(steps + 1, l->picture);
    f->states = soma__calloc(steps + 1, t->n_state * sizeof(float));
    f->actions = soma__calloc(steps, t->n_actions * sizeof(float));
    f->plan_step = soma__calloc(steps, sizeof(int));
    return f->pictures && f->states && f->actions && f->plan_step ? SOMA_OK : soma__no_memory(err, "a film");
}

static soma_status film_plan(const loop *l, soma_film *f, const soma_actions *plan, soma_error *err) {
    size_t size = (size_t)plan->horizon * plan->n_actions * sizeof(float);
    if (!f->plans) {
        f->horizon = plan->horizon;
        f->plans = soma__calloc((size_t)l->task->max_steps, size);
        if (!f->plans) return soma__no_memory(err, "a film");
    }
    if (plan->horizon != f->horizon) return SOMA_OK; // a server may change its mind; the video then misses this one
    memcpy(f->plans + (size_t)f->n_plans * plan->horizon * plan->n_actions, plan->values, size);
    f->plan_step[f->n_plans++] = f->n_steps;
    return SOMA_OK;
}

static void film_look(const loop *l, soma_film *f, const soma_env_obs *obs) {
    size_t one = l->picture / (size_t)l->task->n_cameras;
    for (int c = 0; c < l->task->n_cameras; c++) memcpy(f->pictures + (size_t)f->n_steps * l->picture + c * one, obs->images[c], one);
    memcpy(f->states + (size_t)f->n_steps * l->task->n_state, obs->state, l->task->n_state * sizeof(float));
}

// ---- a seat, on a thread of the pool

static soma_status keep_pictures(const loop *l, uint8_t **out, const soma_env_obs *obs, soma_error *err) {
    size_t one = l->picture / (size_t)l->task->n_cameras;
    *out = soma__alloc(l->picture);
    if (!*out) return soma__no_memory(err, "pictures");
    for (int c = 0; c < l->task->n_cameras; c++) memcpy(*out + c * one, obs->images[c], one);
    return SOMA_OK;
}

// Draws what the driver will see. A blind driver's seat is drawn at its first moment only.
// What is seen now, for who drives and for the film.
static soma_status observe(const loop *l, place *p, soma_error *err) {
    soma_rollout *e = p->episode;
    soma_env_obs obs;
    SOMA_TRY(l->task->observe(p->env, &obs, err));
    if (!e->first) SOMA_TRY(keep_pictures(l, &e->first, &obs, err));
    if (e->film) film_look(l, e->film, &obs);
    p->seen = e->outcome.steps;
    p->seat.obs = (soma_obs){.prompt = e->prompt, .state = obs.state, .n_state = l->task->n_state, .n_images = l->task->n_cameras};
    for (int c = 0; c < l->task->n_cameras; c++)
        p->seat.obs.images[c] = (soma_image){l->task->camera_names[c], obs.images[c], (int)l->opts->image, (int)l->opts->image};
    return SOMA_OK;
}

static soma_status look(const loop *l, place *p, soma_error *err) {
    const soma_rollout *e = p->episode;
    int executed, delay;
    soma__timeline_ask(p->line, e->outcome.steps, &executed, &delay);
    p->arrival = e->outcome.steps ? e->outcome.steps + (int)l->opts->delay : 0;
    if (l->driver->blind && e->first && !e->film) return SOMA_OK;
    SOMA_TRY(observe(l, p, err));
    p->seat.obs.executed = executed;
    p->seat.obs.delay = delay;
    return SOMA_OK;
}

static void look_item(void *ctx, int64_t item, int thread) {
    (void)thread;
    const loop *l = ctx;
    place *p = l->active[item];
    p->status = look(l, p, &p->error);
}

static soma_status move(const loop *l, place *p, soma_error *err) {
    const soma_actions *plan = &p->seat.plan;
    soma_rollout *e = p->episode;
    const size_t n = (size_t)l->task->n_actions;
    while (!e->outcome.done) {
        const int now = e->outcome.steps;
        if (p->arrival >= 0 && now >= p->arrival) {
            soma__timeline_arrive(p->line, now, plan->values, SOMA_MIN(plan->horizon, l->task->max_steps));
            p->arrival = -1;
        }
        if (soma__timeline_wants(p->line, now)) return SOMA_OK;
        if ((e->film || l->driver->see) && p->seen != now) {
            SOMA_TRY(observe(l, p, err));
            if (l->driver->see) SOMA_TRY(l->driver->see(l->driver->ctx, &p->seat, err));
        }
        soma__timeline_action(p->line, now, p->action);
        SOMA_TRY(l->task->step(p->env, p->action, err));
        if (e->film) memcpy(e->film->actions + (size_t)e->film->n_steps++ * n, p->action, n * sizeof *p->action);
        e->outcome = l->task->outcome(p->env);
    }
    soma_env_obs obs;
    SOMA_TRY(l->task->observe(p->env, &obs, err));
    if (e->film) film_look(l, e->film, &obs);
    return keep_pictures(l, &e->last, &obs, err);
}

static void move_item(void *ctx, int64_t item, int thread) {
    (void)thread;
    const loop *l = ctx;
    place *p = l->active[item];
    p->status = move(l, p, &p->error);
}

// Runs one of the two for all active seats and returns the first seat's error, if any.
static soma_status for_all(loop *l, soma_pool_fn *fn, soma_error *err) {
    soma__pool_run(l->pool, l->n_active, fn, l);
    for (int i = 0; i < l->n_active; i++) {
        const place *p = l->active[i];
        if (p->status == SOMA_OK) continue;
        if (err) *err = p->error;
        return soma__fail_in(err, "seed %llu", (unsigned long long)p->episode->seed);
    }
    return SOMA_OK;
}

// ---- rounds

static soma_status begin(loop *l, place *p, soma_error *err) {
    int64_t index = l->begun++;
    soma_rollout *e = &l->result->episodes[index];
    e->seed = (uint64_t)(l->opts->first_seed + index);
    p->episode = e;
    p->arrival = -1;
    soma__timeline_reset(p->line);
    SOMA_TRY(l->task->reset(p->env, &(soma_env_reset){.seed = e->seed, .wrong_prompt = l->opts->wrong_prompt}, err));
    soma_env_obs obs;
    SOMA_TRY(l->task->observe(p->env, &obs, err)); // for the prompt, which only an observation tells
    memcpy(e->prompt, obs.prompt, strlen(obs.prompt) + 1);
    if (index < l->opts->films) SOMA_TRY(film_new(l, &e->film, err));
    return l->driver->begin ? l->driver->begin(l->driver->ctx, p->seat.index, err) : SOMA_OK;
}

static soma_status ask(loop *l, soma_error *err) {
    double start = soma__seconds();
    SOMA_TRY(l->driver->act(l->driver->ctx, l->seats, l->n_active, err));
    l->act_seconds += soma__seconds() - start;
    l->result->acts += l->n_active;
    for (int i = 0; i < l->n_active; i++) {
        const soma_actions *plan = &l->seats[i]->plan;
        l->model_ms += plan->model_ms;
        SOMA_CHECK(plan->n_actions == l->task->n_actions && plan->horizon >= 1, "a driver's plan fits the task");
        if (l->active[i]->episode->film) SOMA_TRY(film_plan(l, l->active[i]->episode->film, plan, err));
    }
    return SOMA_OK;
}

static soma_status one_round(loop *l, soma_error *err) {
    l->n_active = 0;
    for (int i = 0; i < l->n_places; i++) {
        place *p = &l->places[i];
        if (!p->episode && l->begun < l->opts->seeds) SOMA_TRY(begin(l, p, err));
        if (!p->episode) continue;
        l->seats[l->n_active] = &p->seat;
        l->active[l->n_active++] = p;
    }
    SOMA_TRY(for_all(l, look_item, err));
    SOMA_TRY(ask(l, err));
    SOMA_TRY(for_all(l, move_item, err));
    for (int i = 0; i < l->n_active; i++) {
        place *p = l->active[i];
        if (!p->episode->outcome.done) continue;
        l->result->n++;
        l->successes += p->episode->outcome.success;
        p->episode = NULL;
    }
    return SOMA_OK;
}

// Counts what is over. After a stop some episodes are not, and leave gaps that are closed here.
static void sum_up(loop *l) {
    soma_rollouts *r = l->result;
    for (int i = 0; i < l->n_places; i++) soma__chunk_report_add(&r->chunks, soma__timeline_read(l->places[i].line));
    int64_t n = 0, success = 0, prompted = 0, acted = 0, steps = 0;
    for (int64_t i = 0; i < l->begun; i++) {
        soma_rollout e = r->episodes[i];
        if (!e.outcome.done) continue;
        r->episodes[i] = r->episodes[n];
        r->episodes[n++] = e;
        success += e.outcome.success;
        prompted += e.outcome.prompted;
        acted += e.outcome.acted;
        if (e.outcome.success) steps += e.outcome.steps;
    }
    r->n = n;
    r->success = soma__rate(success, n);
    r->prompted = soma__rate(prompted, n);
    r->acted = soma__rate(acted, n);
    r->mean_steps = success ? (double)steps / (double)success : 0;
    r->act_ms = r->acts ? 1e3 * l->act_seconds / (double)r->acts : 0;
    r->model_ms = r->acts ? l->model_ms / (double)r->acts : 0;
}

// ---- set up and clear away

soma_status soma__rollout_task(soma_task *task, const soma_rollout_opts *o, soma_error *err) {
    SOMA_OPTS_CHECK(o);
    const soma_task *found = soma__task_find(o->task);
    if (!soma__task_registry[0]) return soma__fail(err, SOMA_UNSUPPORTED, "this build has no simulator: it was made without MuJoCo");
    if (!found) return soma__fail(err, SOMA_NOT_FOUND, "no task is named \"%s\"; touch_color is the first to try", o->task);
    if (o->seeds < 1 || o->seeds > 1000000) return soma__fail(err, SOMA_BAD_INPUT, "seeds is %lld; 1 to 1000000", (long long)o->seeds);
    if (o->first_seed < 0) return soma__fail(err, SOMA_BAD_INPUT, "first-seed is %lld; at least 0", (long long)o->first_seed);
    if (o->delay < 0 || o->delay > 1000)
        return soma__fail(err, SOMA_BAD_INPUT, "delay is %lld control steps; 0 to 1000", (long long)o->delay);
    if (o->seats < 1 || o->seats > MAX_SEATS)
        return soma__fail(err, SOMA_BAD_INPUT, "seats is %lld; 1 to %d", (long long)o->seats, MAX_SEATS);
    if (!(o->rate >= 0)) return soma__fail(err, SOMA_BAD_INPUT, "rate is %g Hz; 0 is the task's own", o->rate);
    *task = soma__task_at(found, o->rate);
    return SOMA_OK;
}

static soma_status loop_open(loop *l, soma_error *err) {
    const soma_rollout_opts *o = l->opts;
    SOMA_TRY(soma__pool_new(&l->pool, (int)o->threads, err));
    l->picture = (size_t)o->image * (size_t)o->image * 3 * (size_t)l->task->n_cameras;
    l->n_places = (int)SOMA_MIN(o->seats, o->seeds);
    SOMA_CHECK(l->driver->seats >= l->n_places, "a driver is made for as many seats as are driven");
    l->places = soma__calloc((size_t)l->n_places, sizeof *l->places);
    l->result->episodes = soma__calloc((size_t)o->seeds, sizeof *l->result->episodes);
    if (!l->places || !l->result->episodes) return soma__no_memory(err, "the episodes");
    soma_env_opts eo = {.image_width = (int)o->image, .image_height = (int)o->image, .jitter = o->jitter, .rate = o->rate};
    for (int i = 0; i < l->n_places; i++) {
        SOMA_TRY(l->task->open(&l->places[i].env, &eo, err));
        l->places[i].seat = (soma_seat){.index = i, .env = l->places[i].env};
        SOMA_TRY(
            soma__timeline_new(&l->places[i].line, &l->result->chunk_opts, l->task->max_steps, l->task->n_actions, (double)o->delay, err));
        l->places[i].action = soma__calloc((size_t)l->task->n_actions, sizeof *l->places[i].action);
        if (!l->places[i].action) return soma__no_memory(err, "an action");
    }
    return SOMA_OK;
}

static void loop_close(loop *l) {
    for (int i = 0; l->places && i < l->n_places; i++) {
        l->task->close(l->places[i].env);
        soma__timeline_free(l->places[i].line);
        soma__free(l->places[i].action);
    }
    soma__free(l->places);
    soma__pool_free(l->pool);
}

soma_status soma__rollouts_run(soma_rollouts *r, const soma_driver *driver, const soma_rollout_opts *opts, const soma_chunk_opts *chunks,
                               soma_rollout_watch *watch, void *user, soma_error *err) {
    *r = (soma_rollouts){.opts = *opts, .chunk_opts = chunks ? *chunks : soma_chunk_defaults()};
    double start = soma__seconds();
    SOMA_TRY(soma__rollout_task(&r->task, opts, err));
    loop l = {.result = r, .task = &r->task, .opts = &r->opts, .driver = driver};
    soma_status status = loop_open(&l, err);
    while (status == SOMA_OK && r->n < opts->seeds && !r->stopped) {
        status = one_round(&l, err);
        r->stopped = status == SOMA_OK && watch && !watch(user, r->n, l.successes);
    }
    if (status == SOMA_OK) sum_up(&l);
    loop_close(&l);
    r->seconds = soma__seconds() - start;
    if (status != SOMA_OK) soma__rollouts_free(r);
    return status;
}

void soma__rollouts_free(soma_rollouts *r) {
    for (int64_t i = 0; r->episodes && i < r->opts.seeds; i++) {
        soma__free(r->episodes[i].first);
        soma__free(r->episodes[i].last);
        film_free(r->episodes[i].film);
    }
    soma__free(r->episodes);
    *r = (soma_rollouts){0};
}

json_t *soma__rollouts_json(const soma_rollouts *r) {
    json_t *list = json_array();
    for (int64_t i = 0; list && i < r->n; i++) {
        const soma_rollout *e = &r->episodes[i];
        json_array_append_new(list, json_pack("{s:I, s:b, s:b, s:b, s:i, s:s}", "seed", (json_int_t)e->seed, "success", e->outcome.success,
                                              "prompted", e->outcome.prompted, "acted", e->outcome.acted, "steps", e->outcome.steps,
                                              "prompt", e->prompt));
    }
    json_t *seam = json_pack("{s:I, s:f, s:f}", "n", (json_int_t)r->chunks.seams, "mean", r->chunks.seam_mean, "max", r->chunks.seam_max);
    return json_pack("{s:s, s:s, s:f, s:I, s:s, s:I, s:I, s:o, s:I, s:o, s:o, s:o, s:f, s:I, s:f, s:f, s:f, s:b, s:o}", "task",
                     r->task.name, "mode", r->opts.wrong_prompt ? "wrong prompt" : "normal", "rate", r->task.rate, "first_seed",
                     (json_int_t)r->opts.first_seed, "chunks", r->chunk_opts.chunks, "execute", (json_int_t)r->chunk_opts.execute, "delay",
                     (json_int_t)r->opts.delay, "seam", seam, "held", (json_int_t)r->chunks.held, "success", soma__rate_json(r->success),
                     "prompted", soma__rate_json(r->prompted), "acted", soma__rate_json(r->acted), "mean_steps", r->mean_steps, "acts",
                     (json_int_t)r->acts, "act_ms", r->act_ms, "model_ms", r->model_ms, "seconds", r->seconds, "stopped", r->stopped,
                     "episodes", list);
}
