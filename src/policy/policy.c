// SPDX-License-Identifier: Apache-2.0
// A policy: a folder's weights, the plans over them, and the robot's side. Opening does all that can fail; acting runs plans.
//
// What a call needs beside the weights (inputs, key/value states, scratch) is a runner for n observations. Runners are kept when a call is
// done and taken again by the next, so that from the second call on nothing is allocated.
#include "policy/policy.h"
#include "policy/published.h"

#include "base/file.h"
#include "policy/adapter.h"
#include "policy/written.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

typedef struct runner {
    struct runner *next;
    int n;
    soma_graph *graphs[2]; // encode, and denoise or decode
    soma_plan *plans[2];
    soma_frame *frames[2];
    soma_layout states;
    void *state_memory;
    soma_rows rows;
    soma_feed feed;
    soma_writing_work writing; // where chunks are written as tokens
    float *x;                  // [n, S, A]
} runner;

struct soma_policy {
    soma_device *device;
    soma_model *model;
    soma_robot robot;
    soma_precision precision;
    soma_params *params;
    soma_writing writing;    // where chunks are written as tokens
    soma_adapter_set change; // of an adapter's folder: its pairs, and which weights are the base's
    soma_params *base;       // those weights; NULL: the folder holds all
    soma_arena arena;
    soma_policy_info info;
    const char *camera_names[SOMA_MAX_CAMERAS], *ignored[SOMA_ROBOT_NAMES], *state_keys[SOMA_ROBOT_NAMES];
    pthread_mutex_t lock; // guards idle
    runner *idle;
};

struct soma_pilot {
    const soma_policy *policy;
    soma_pilot_opts opts;
    soma_rng rng;
    uint64_t acts;
    float *actions, *state; // [S, A], [n_state] of the observation that is being answered
};

#define OPTS_TYPE soma_policy_opts
SOMA_OPTS_DEFINE(soma_policy_opts, SOMA_POLICY_OPTS, soma_policy_defaults)
#undef OPTS_TYPE
#define OPTS_TYPE soma_pilot_opts
SOMA_OPTS_DEFINE(soma_pilot_opts, SOMA_PILOT_OPTS, soma_pilot_defaults)
#undef OPTS_TYPE

// ---- runners

static soma_status build_graphs(const soma_policy *p, int n, soma_graph *graphs[2], soma_error *err) {
    for (int i = 0; i < 2; i++) {
        SOMA_TRY(soma_graph_new(&graphs[i], err));
        soma_build b = soma__build_defaults(i ? soma__step_program(&p->model->info) : SOMA_PROGRAM_ENCODE, n);
        b.precision = p->precision;
        b.image = soma__robot_image_dtype(&p->robot);
        b.adapters = p->change.adapters;
        b.n_adapters = p->change.n_adapters;
        b.frozen = p->change.frozen;
        b.n_frozen = p->change.n_frozen;
        p->model->family->build(p->model, &b, graphs[i]);
    }
    return SOMA_OK;
}

static void runner_free(const soma_policy *p, runner *r) {
    if (!r) return;
    for (int i = 0; i < 2; i++) {
        soma__frame_free(r->frames[i]);
        soma__plan_free(r->plans[i]);
        soma_graph_free(r->graphs[i]);
    }
    if (r->state_memory) p->device->kind->free(p->device, r->state_memory);
    soma__layout_free(&r->states);
    soma__rows_free(&r->rows);
    soma__feed_free(&r->feed);
    soma__writing_work_free(&r->writing);
    soma__free(r->x);
    soma__free(r);
}

static soma_status runner_new(runner **out, const soma_policy *p, int n, soma_error *err) {
    runner *r = *out = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, "a policy's working memory");
    r->n = n;
    const soma_model_info *info = &p->model->info;
    soma_status status = build_graphs(p, n, r->graphs, err);
    for (int i = 0; i < 2 && status == SOMA_OK; i++) status = soma__layout_add(&r->states, r->graphs[i], SOMA_ROLE_STATE, err);
    if (status == SOMA_OK) status = p->device->kind->alloc(p->device, &r->state_memory, r->states.size, err);
    for (int i = 0; i < 2 && status == SOMA_OK; i++) {
        status = soma__plan_new(&r->plans[i], r->graphs[i], &p->params->layout, &r->states, p->device, err);
        if (status == SOMA_OK) status = soma__frame_new(&r->frames[i], r->plans[i], p->params->memory, NULL, r->state_memory, err);
        if (status == SOMA_OK && p->base) r->frames[i]->buffers[SOMA_ROLE_FROZEN] = p->base->memory;
    }
    if (status == SOMA_OK) status = soma__rows_new(&r->rows, &p->robot, p->model, n, err);
    if (status == SOMA_OK && info->answer.max) status = soma__writing_work_new(&r->writing, &p->writing, n, err);
    if (status == SOMA_OK && !(r->x = soma__calloc((size_t)(n * info->horizon * info->action_dim), sizeof *r->x)))
        status = soma__no_memory(err, "a policy's working memory");
    if (status == SOMA_OK) return SOMA_OK;
    runner_free(p, r);
    *out = NULL;
    return status;
}

static soma_status runner_take(runner **out, soma_policy *p, int n, soma_error *err) {
    pthread_mutex_lock(&p->lock);
    runner **at = &p->idle;
    while (*at && (*at)->n != n) at = &(*at)->next;
    runner *r = *at;
    if (r) *at = r->next;
    pthread_mutex_unlock(&p->lock);
    *out = r;
    return r ? SOMA_OK : runner_new(out, p, n, err);
}

static void runner_give(soma_policy *p, runner *r) {
    pthread_mutex_lock(&p->lock);
    r->next = p->idle;
    p->idle = r;
    pthread_mutex_unlock(&p->lock);
}

// ---- opening

// The weights of one role from a file, which is taken over.
static soma_status open_weights(soma_params **params, const soma_policy *p, soma_role role, soma_safetensors *file,
                                const soma_alias *aliases, soma_error *err) {
    soma_graph *graphs[2] = {0};
    soma_status status = build_graphs(p, 1, graphs, err);
    if (status == SOMA_OK)
        status = soma__params_open(params, p->device, (const soma_graph *const *)graphs, 2, role, file, aliases, err);
    else
        soma__safetensors_close(file);
    soma_graph_free(graphs[0]);
    soma_graph_free(graphs[1]);
    return status;
}

// An adapter's folder: what its file does not hold is read from its base.
static soma_status load_adapter(soma_policy *p, const char *dir, soma_error *err) {
    soma_graph *graphs[2] = {0};
    soma_safetensors *file, *base;
    SOMA_TRY(soma__adapters_open(&p->change, &file, dir, err));
    const soma_alias *aliases = soma__adapters_aliases(&p->change, p->model->family->aliases);
    soma_status status = aliases ? build_graphs(p, 1, graphs, err) : soma__no_memory(err, "an adapter");
    if (status == SOMA_OK) status = soma__adapters_split(&p->change, (const soma_graph *const *)graphs, 2, file, aliases, err);
    soma_graph_free(graphs[0]);
    soma_graph_free(graphs[1]);
    if (status != SOMA_OK) {
        soma__safetensors_close(file);
        return status;
    }
    SOMA_TRY(open_weights(&p->params, p, SOMA_ROLE_WEIGHT, file, aliases, err));
    SOMA_TRY(soma__safetensors_open(&base, p->change.base, err));
    SOMA_TRY(open_weights(&p->base, p, SOMA_ROLE_FROZEN, base, p->model->family->aliases, err));
    p->params->layout.frozen = &p->base->layout;
    return SOMA_OK;
}

static soma_status load_weights(soma_policy *p, soma_published *c, const char *dir, soma_error *err) {
    if (soma__adapters_here(dir)) return load_adapter(p, dir, err);
    soma_graph *graphs[2] = {0};
    soma_status status = build_graphs(p, 1, graphs, err);
    if (status == SOMA_OK) status = soma__published_params(&p->params, c, p->device, (const soma_graph *const *)graphs, 2, err);
    soma_graph_free(graphs[0]);
    soma_graph_free(graphs[1]);
    return status;
}

static soma_status describe(soma_policy *p, const json_t *config, soma_error *err) {
    const soma_robot *r = &p->robot;
    for (int i = 0; i < r->n_cameras; i++) p->camera_names[i] = r->cameras[i];
    for (int i = 0; i < r->n_ignored; i++) p->ignored[i] = r->ignored[i];
    for (int i = 0; i < r->n_state_keys; i++) p->state_keys[i] = r->state_keys[i];
    json_t *metadata =
        json_pack("{s:s, s:i, s:i, s:i, s:f, s:[]}", "model_type", p->model->info.type, "action_horizon", (int)p->model->info.horizon,
                  "action_dim", r->n_actions, "state_dim", r->n_state, "control_frequency", r->rate, "cameras");
    for (int i = 0; metadata && i < r->n_cameras; i++)
        json_array_append_new(json_object_get(metadata, "cameras"), json_string(r->cameras[i]));
    if (metadata && json_object_get(config, "metadata")) json_object_update(metadata, json_object_get(config, "metadata"));
    char *text = metadata ? json_dumps(metadata, JSON_COMPACT) : NULL;
    const char *kept = text ? soma__arena_strdup(&p->arena, text) : NULL;
    json_decref(metadata);
    free(text);
    if (!kept) return soma__no_memory(err, "a policy's metadata");
    p->info = (soma_policy_info){.family = p->model->info.type,
                                 .horizon = (int)p->model->info.horizon,
                                 .n_actions = r->n_actions,
                                 .n_state = r->n_state,
                                 .rate = r->rate,
                                 .n_cameras = r->n_cameras,
                                 .camera_names = p->camera_names,
                                 .n_ignored = r->n_ignored,
                                 .ignored = p->ignored,
                                 .n_state_keys = r->n_state_keys,
                                 .state_keys = p->state_keys,
                                 .metadata_json = kept};
    return SOMA_OK;
}

static soma_status set_precision(soma_policy *p, const char *dtype, soma_error *err) {
    if (!strcmp(dtype, "f32"))
        p->precision = SOMA_PRECISION_F32;
    else if (!strcmp(dtype, "bf16"))
        p->precision = (soma_precision){.weight = SOMA_BF16, .activation = SOMA_F32, .product = SOMA_BF16};
    else
        return soma__fail(err, SOMA_BAD_INPUT, "dtype \"%.20s\": bf16 or f32 are possible", dtype);
    return SOMA_OK;
}

soma_status soma_policy_open(soma_policy **out, const char *path, const soma_policy_opts *given, soma_error *err) {
    *out = NULL;
    soma_policy_opts o = given ? *given : soma_policy_defaults();
    SOMA_OPTS_CHECK(&o);
    soma_policy *p = soma__calloc(1, sizeof *p);
    if (!p) return soma__no_memory(err, "a policy");
    pthread_mutex_init(&p->lock, NULL);
    soma_published c = {0};
    soma_device_opts d = {.threads = (int)o.threads, .isa = o.isa};
    soma_status status = soma__published_open(&c, path, err);
    if (status == SOMA_OK) status = soma__robot_resolve(c.config, path, o.robot, err);
    if (status == SOMA_OK) status = soma__published_model(&c, err);
    p->model = c.model;
    if (status == SOMA_OK) status = soma__robot_open(&p->robot, c.config, path, o.text_tokenizer, p->model, err);
    if (status == SOMA_OK && p->model->info.answer.max)
        status = soma__writing_open(&p->writing, path, o.action_tokenizer, &p->robot, p->model, err);
    if (status == SOMA_OK) status = set_precision(p, o.dtype, err);
    if (status == SOMA_OK) status = soma__device_open(&p->device, o.device, &d, err);
    if (status == SOMA_OK) status = load_weights(p, &c, path, err);
    if (status == SOMA_OK) status = describe(p, c.config, err);
    runner *first = NULL;
    if (status == SOMA_OK) status = runner_new(&first, p, 1, err);
    if (status == SOMA_OK) runner_give(p, first);
    c.model = NULL; // the policy's now
    soma__published_close(&c);
    if (status != SOMA_OK)
        soma_policy_close(p);
    else
        *out = p;
    return status;
}

void soma_policy_close(soma_policy *p) {
    if (!p) return;
    for (runner *r = p->idle, *next; r; r = next) {
        next = r->next;
        runner_free(p, r);
    }
    soma__params_free(p->params);
    soma__params_free(p->base);
    soma__adapters_free(&p->change);
    soma__device_close(p->device);
    soma__writing_close(&p->writing);
    soma__robot_close(&p->robot);
    soma__model_free(p->model);
    soma__arena_free(&p->arena);
    pthread_mutex_destroy(&p->lock);
    soma__free(p);
}

soma_policy_info soma_policy_describe(const soma_policy *p) { return p->info; }
const soma_robot *soma__policy_robot(const soma_policy *p) { return &p->robot; }
const soma_model *soma__policy_model(const soma_policy *p) { return p->model; }
const char *soma__policy_device(const soma_policy *p) { return p->device->kind->info(p->device); }

// ---- pilots

soma_status soma_pilot_new(soma_pilot **out, const soma_policy *policy, const soma_pilot_opts *given, soma_error *err) {
    *out = NULL;
    soma_pilot_opts o = given ? *given : soma_pilot_defaults();
    SOMA_OPTS_CHECK(&o);
    if (o.steps < 0 || o.steps > 1000)
        return soma__fail(err, SOMA_BAD_INPUT, "%lld flow steps: 1 to 1000 are possible, 0 means the policy's own", (long long)o.steps);
    if (!(o.noise <= 10)) return soma__fail(err, SOMA_BAD_INPUT, "noise %g: 0 to 10 makes sense; below 0 means the policy's own", o.noise);
    if (!(o.temperature >= 0 && o.temperature <= 100))
        return soma__fail(err, SOMA_BAD_INPUT, "temperature %g: 0 to 100 are possible, 0 takes the most likely token", o.temperature);
    if (*o.constrain && strcmp(o.constrain, "grammar"))
        return soma__fail(err, SOMA_BAD_INPUT, "constrain \"%.40s\": only \"grammar\" is known", o.constrain);
    if (!o.steps) o.steps = policy->model->info.n_steps;
    if (o.noise < 0) o.noise = policy->model->info.noise;
    soma_pilot *pilot = soma__calloc(1, sizeof *pilot);
    if (!pilot) return soma__no_memory(err, "a pilot");
    *pilot = (soma_pilot){.policy = policy, .opts = o, .rng = soma__rng((uint64_t)o.seed)};
    pilot->actions = soma__calloc((size_t)(policy->info.horizon * policy->info.n_actions), sizeof *pilot->actions);
    pilot->state = soma__calloc((size_t)policy->info.n_state, sizeof *pilot->state);
    if (!pilot->actions || !pilot->state) {
        soma_pilot_free(pilot);
        return soma__no_memory(err, "a pilot");
    }
    *out = pilot;
    return SOMA_OK;
}

void soma_pilot_free(soma_pilot *pilot) {
    if (!pilot) return;
    soma__free(pilot->actions);
    soma__free(pilot->state);
    soma__free(pilot);
}

void soma_pilot_reset(soma_pilot *pilot) { (void)pilot; } // chunks are independent: there is nothing of an episode to forget

static soma_status feed_frame(soma_frame *frame, const soma_feed *feed, soma_error *err) {
    for (size_t i = 0; i < feed->n_arrays; i++) {
        const soma_feed_array *a = &feed->arrays[i];
        if (soma__plan_find(frame->plan, a->name)) SOMA_TRY(soma__frame_put(frame, a->name, a->data, a->size, err));
    }
    return SOMA_OK;
}

// Euler steps from noise at time 1 to actions at time 0; time is accumulated in float, as openpi's PyTorch loop does.
static soma_status denoise(runner *r, const soma_pilot_opts *o, soma_error *err) {
    const int64_t steps = o->steps;
    soma_frame *step = r->frames[1];
    soma__frame_run(r->frames[0]);
    size_t size = sizeof *r->x * (size_t)soma__numel(soma__plan_find(step->plan, "x_t"));
    float dt = -1.0f / (float)steps, t = 1.0f, time[r->n];
    SOMA_TRY(soma__frame_put(step, "dt", &dt, sizeof dt, err));
    for (int64_t k = 0; k < steps; k++, t += dt) {
        for (int i = 0; i < r->n; i++) time[i] = t;
        SOMA_TRY(soma__frame_put(step, "x_t", r->x, size, err));
        SOMA_TRY(soma__frame_put(step, "time", time, sizeof time, err));
        soma__frame_run(step);
        SOMA_TRY(soma__frame_get(step, "x_next", r->x, size, err));
    }
    return SOMA_OK;
}

static soma_status write_chunks(const soma_policy *p, runner *r, const soma_pilot_opts *o, soma_error *err) {
    return soma__write_chunks(&p->writing, &r->writing, o->temperature, *o->constrain, r->frames[0], r->frames[1], &r->feed, r->x, err);
}

static soma_status observe(runner *r, const soma_policy *p, soma_pilot *const *pilots, const soma_obs *obs, soma_error *err) {
    size_t chunk = (size_t)(p->model->info.horizon * p->model->info.action_dim);
    for (int i = 0; i < r->n; i++) {
        SOMA_CHECK(pilots[i]->policy == p, "a pilot acts through the policy that it was made for");
        const soma_pilot_opts *o = &pilots[i]->opts, *first = &pilots[0]->opts;
        if (p->model->info.answer.max && (o->temperature != first->temperature || strcmp(o->constrain, first->constrain)))
            return soma__fail(err, SOMA_BAD_INPUT, "pilots of one call write at the same temperature and with the same constraint");
        if (o->steps != first->steps)
            return soma__fail(err, SOMA_BAD_INPUT, "pilots of one call take the same number of flow steps; these take %lld and %lld",
                              (long long)first->steps, (long long)o->steps);
        SOMA_TRY(soma__robot_observe(&p->robot, &r->rows, i, &obs[i], err));
    }
    for (int i = 0; i < r->n; i++) { // nothing may fail from here on: the random streams advance
        soma_rng rng = soma__rng_fold(&pilots[i]->rng, pilots[i]->acts++);
        memcpy(pilots[i]->state, obs[i].state, sizeof(float) * (size_t)p->info.n_state);
        if (p->model->info.answer.max) {
            r->writing.rngs[i] = rng;
            continue;
        }
        soma__rng_normals(&rng, r->x + (size_t)i * chunk, chunk);
        for (size_t k = 0; k < chunk; k++) r->x[(size_t)i * chunk + k] *= (float)pilots[i]->opts.noise;
    }
    return SOMA_OK;
}

soma_status soma_policy_act_many(const soma_policy *policy, int n, soma_pilot *const *pilots, const soma_obs *obs, soma_actions *actions,
                                 soma_error *err) {
    SOMA_CHECK(n > 0, "a call has at least one pilot");
    soma_policy *p = (soma_policy *)policy; // the idle runners are a cache behind a lock; all else stays const
    runner *r;
    SOMA_TRY(runner_take(&r, p, n, err));
    soma_status status = observe(r, p, pilots, obs, err);
    double started = soma__seconds();
    if (status == SOMA_OK) status = p->model->family->prepare(p->model, &r->rows.batch, &r->feed, err);
    for (int i = 0; i < 2 && status == SOMA_OK; i++) status = feed_frame(r->frames[i], &r->feed, err);
    if (status == SOMA_OK)
        status = p->model->info.answer.max ? write_chunks(p, r, &pilots[0]->opts, err) : denoise(r, &pilots[0]->opts, err);
    double ms = 1e3 * (soma__seconds() - started);
    int64_t chunk = p->model->info.horizon * p->model->info.action_dim;
    for (int i = 0; i < n && status == SOMA_OK; i++) {
        soma__robot_from_model(&p->robot, p->model, pilots[i]->state, r->x + i * chunk, pilots[i]->actions);
        const soma_answer_flaw flaw = p->model->info.answer.max ? r->writing.flaws[i] : SOMA_ANSWER_FINE;
        actions[i] = (soma_actions){pilots[i]->actions, p->info.horizon, p->info.n_actions, ms, flaw ? soma__answer_flaw_text(flaw) : NULL};
    }
    runner_give(p, r);
    return status;
}

soma_status soma_pilot_act(soma_pilot *pilot, const soma_obs *obs, soma_actions *actions, soma_error *err) {
    return soma_policy_act_many(pilot->policy, 1, &pilot, obs, actions, err);
}
