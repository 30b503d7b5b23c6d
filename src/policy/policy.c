// SPDX-License-Identifier: Apache-2.0
// A policy: a folder's weights, the plans over them, and the robot's side. Opening does all that can fail; acting runs plans.
//
// What a call needs beside the weights (inputs, key/value states, scratch) is a runner for n observations. Runners are kept when a call is
// done and taken again by the next, and each keeps the plans of the last few sets of cameras and lengths of prompt that it has seen: once
// these are known, nothing is allocated.
#include "policy/policy.h"
#include "policy/history.h"
#include "policy/plan_set.h"
#include "policy/published.h"

#include "base/file.h"
#include "policy/adapter.h"
#include "policy/packed_cache.h"
#include "policy/rtc.h"
#include "policy/written.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

enum { RUNNER_SETS = 4 };
#define KEPT_SIZE ((size_t)1 << 30) // from here on packed weights are kept without being asked: below, packing takes less than a second

typedef struct runner {
    struct runner *next;
    int n;
    soma_plan_set *sets; // the last one used in front; at most RUNNER_SETS
    soma_rows rows;
    soma_feed feed;
    soma_writing_work writing; // where chunks are written as tokens
    soma_rtc rtc;              // where they are denoised
    float *x;                  // [n, S, A]
    float *step_noise;         // [steps, n, S, A], of models that ask for it
    int64_t noise_steps;       // that it has room for
} runner;

struct soma_policy {
    soma_device *device;
    soma_model *model;
    soma_robot robot;
    soma_precision precision;
    bool gradient;       // plans have what real-time chunking's gradient needs
    bool flow;           // chunks come of a flow's velocity
    soma_time_rule time; // of the project that the checkpoint is from
    soma_params *params;
    soma_writing writing;    // where chunks are written as tokens
    soma_adapter_set change; // of an adapter's folder: its pairs, and which weights are the base's
    soma_params *base;       // those weights; NULL: the folder holds all
    soma_arena arena;
    soma_policy_info info;
    const char *camera_names[SOMA_MAX_CAMERAS], *ignored[SOMA_ROBOT_NAMES], *state_keys[SOMA_ROBOT_NAMES];
    char cache[SOMA_PATH_MAX]; // where closing keeps the packed weights for the next start; "": nowhere
    pthread_mutex_t lock;      // guards idle
    runner *idle;
};

struct soma_pilot {
    const soma_policy *policy;
    soma_pilot_opts opts;
    soma_time_rule time;
    soma_rng rng;
    uint64_t acts;
    float *actions, *state; // [S, A], [n_state] of the observation that is being answered
    soma_rtc_mode rtc;
    soma_rtc_schedule schedule;
    float *last; // [S, A] of the model: the chunk before, from `state`
    bool has_last;
    soma_history history; // of models that look back
};

#define OPTS_TYPE soma_policy_opts
SOMA_OPTS_DEFINE(soma_policy_opts, SOMA_POLICY_OPTS, soma_policy_defaults)
#undef OPTS_TYPE
#define OPTS_TYPE soma_pilot_opts
SOMA_OPTS_DEFINE(soma_pilot_opts, SOMA_PILOT_OPTS, soma_pilot_defaults)
#undef OPTS_TYPE

// ---- runners

// What all graphs of a policy share.
static soma_build build_like(const soma_policy *p, int n) {
    soma_build b = soma__build_defaults(SOMA_PROGRAM_ENCODE, n);
    b.precision = p->precision;
    b.image = soma__robot_image_dtype(&p->robot);
    b.adapters = p->change.adapters;
    b.n_adapters = p->change.n_adapters;
    b.frozen = p->change.frozen;
    b.n_frozen = p->change.n_frozen;
    b.pull = p->gradient;
    return b;
}

static soma_status build_graphs(const soma_policy *p, soma_graph *graphs[SOMA_SET_PLANS], int *n, soma_error *err) {
    const soma_build like = build_like(p, 1);
    const soma_saving whole = soma__saving_whole(&p->model->info);
    return soma__set_graphs(graphs, n, p->model, &like, &whole, err);
}

static void drop_graphs(soma_graph *graphs[SOMA_SET_PLANS]) {
    for (int i = 0; i < SOMA_SET_PLANS; i++) soma_graph_free(graphs[i]);
}

static void runner_free(runner *r) {
    if (!r) return;
    for (soma_plan_set *s = r->sets, *next; s; s = next) {
        next = s->next;
        soma__plan_set_free(s);
    }
    soma__rows_free(&r->rows);
    soma__feed_free(&r->feed);
    soma__writing_work_free(&r->writing);
    soma__rtc_free(&r->rtc);
    soma__free(r->x);
    soma__free(r->step_noise);
    soma__free(r);
}

static bool same_saving(const soma_saving *a, const soma_saving *b) {
    return a->cameras == b->cameras && a->tokens == b->tokens && a->steps == b->steps;
}

// The plans for a saving, moved to the front of the list; made where there are none, in the place of those that were not used longest.
static soma_status runner_plans(runner *r, const soma_policy *p, const soma_saving *saving, soma_error *err) {
    soma_plan_set **at = &r->sets, *s;
    for (int i = 1; *at && !same_saving(&(*at)->saving, saving); i++) {
        if (i == RUNNER_SETS) {
            soma__plan_set_free(*at);
            *at = NULL;
        } else
            at = &(*at)->next;
    }
    if ((s = *at)) {
        *at = s->next;
    } else {
        const soma_build like = build_like(p, r->n);
        SOMA_TRY(soma__plan_set_new(&s, p->device, p->model, &like, saving, p->params, p->base, err));
    }
    s->next = r->sets;
    r->sets = s;
    return SOMA_OK;
}

static soma_status runner_new(runner **out, const soma_policy *p, int n, soma_error *err) {
    runner *r = *out = soma__calloc(1, sizeof *r);
    if (!r) return soma__no_memory(err, "a policy's working memory");
    r->n = n;
    const soma_model_info *info = &p->model->info;
    const soma_saving whole = soma__saving_whole(info);
    soma_status status = runner_plans(r, p, &whole, err);
    if (status == SOMA_OK) status = soma__rows_new(&r->rows, &p->robot, p->model, n, err);
    if (status == SOMA_OK && info->answer.max) status = soma__writing_work_new(&r->writing, &p->writing, n, err);
    if (status == SOMA_OK && !info->answer.max) status = soma__rtc_new(&r->rtc, n, info->horizon, info->action_dim, err);
    if (status == SOMA_OK && !(r->x = soma__calloc((size_t)(n * info->horizon * info->action_dim), sizeof *r->x)))
        status = soma__no_memory(err, "a policy's working memory");
    if (status == SOMA_OK) return SOMA_OK;
    runner_free(r);
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
    soma_graph *graphs[SOMA_SET_PLANS] = {0};
    int n;
    soma_status status = build_graphs(p, graphs, &n, err);
    if (status == SOMA_OK)
        status = soma__params_open(params, p->device, (const soma_graph *const *)graphs, (size_t)n, role, file, aliases, err);
    else
        soma__safetensors_close(file);
    drop_graphs(graphs);
    return status;
}

// An adapter's folder: what its file does not hold is read from its base.
static soma_status load_adapter(soma_policy *p, const char *dir, soma_error *err) {
    soma_graph *graphs[SOMA_SET_PLANS] = {0};
    soma_safetensors *file, *base;
    int n = 0;
    SOMA_TRY(soma__adapters_open(&p->change, &file, dir, err));
    const soma_alias *aliases = soma__adapters_aliases(&p->change, p->model->family->aliases);
    soma_status status = aliases ? build_graphs(p, graphs, &n, err) : soma__no_memory(err, "an adapter");
    if (status == SOMA_OK) status = soma__adapters_split(&p->change, (const soma_graph *const *)graphs, (size_t)n, file, aliases, err);
    drop_graphs(graphs);
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
    soma_graph *graphs[SOMA_SET_PLANS] = {0};
    int n;
    soma_status status = build_graphs(p, graphs, &n, err);
    if (status == SOMA_OK) status = soma__published_params(&p->params, c, p->device, (const soma_graph *const *)graphs, (size_t)n, err);
    drop_graphs(graphs);
    return status;
}

static soma_status describe(soma_policy *p, const json_t *config, soma_error *err) {
    const soma_robot *r = &p->robot;
    for (int i = 0; i < r->n_cameras; i++) p->camera_names[i] = r->cameras[i];
    for (int i = 0; i < r->n_ignored; i++) p->ignored[i] = r->ignored[i];
    for (int i = 0; i < r->n_state_keys; i++) p->state_keys[i] = r->state_keys[i];
    json_t *metadata = json_pack("{s:s, s:i, s:i, s:i, s:f, s:[]}", "model_type", p->model->info.type, "action_horizon",
                                 (int)(p->model->info.horizon - p->model->info.history), "action_dim", r->n_actions, "state_dim",
                                 r->n_state, "control_frequency", r->rate, "cameras");
    for (int i = 0; metadata && i < r->n_cameras; i++)
        json_array_append_new(json_object_get(metadata, "cameras"), json_string(r->cameras[i]));
    if (metadata && json_object_get(config, "metadata")) json_object_update(metadata, json_object_get(config, "metadata"));
    char *text = metadata ? json_dumps(metadata, JSON_COMPACT) : NULL;
    const char *kept = text ? soma__arena_strdup(&p->arena, text) : NULL;
    json_decref(metadata);
    free(text);
    if (!kept) return soma__no_memory(err, "a policy's metadata");
    p->info = (soma_policy_info){.family = p->model->info.type,
                                 .horizon = (int)(p->model->info.horizon - p->model->info.history),
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

soma_status soma__policy_precision(soma_precision *precision, const char *dtype, soma_error *err) {
    static const struct {
        const char *name;
        soma_dtype product;
        soma_quant quant;
    } kinds[] = {{"f32", SOMA_F32, SOMA_QUANT_NONE},
                 {"bf16", SOMA_BF16, SOMA_QUANT_NONE},
                 {"int8", SOMA_BF16, SOMA_QUANT_I8},
                 {"int8w", SOMA_BF16, SOMA_QUANT_I8W},
                 {"int4w", SOMA_BF16, SOMA_QUANT_I4W}};
    for (size_t i = 0; i < SOMA_COUNT(kinds); i++)
        if (!strcmp(dtype, kinds[i].name)) {
            *precision = (soma_precision){kinds[i].product, SOMA_F32, kinds[i].product, kinds[i].quant};
            return SOMA_OK;
        }
    return soma__fail(err, SOMA_BAD_INPUT, "dtype \"%.20s\": f32, bf16, int8, int8w and int4w are possible", dtype);
}

static soma_status check_gradient(soma_policy *p, const char *path, soma_error *err) {
    p->gradient = true;
    if (p->model->info.answer.max)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s writes its chunks as tokens: there is no flow to take a gradient of", path);
    if (p->precision.quant)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: quantised products have no gradient; --dtype bf16 or f32 with --gradient", path);
    return SOMA_OK;
}

// Keeps what was packed for the next start; when the policy is closed, so that neither the first chunk nor a robot's acts wait for a disk.
static void keep_packed(const soma_policy *p) {
    soma_error err = {0};
    if (soma__packed_write(p->params, p->cache, &err) == SOMA_OK)
        soma__log(SOMA_LOG_INFO, "%s: packed weights, which the next start maps", p->cache);
    else
        soma__log(SOMA_LOG_WARN, "packed weights are not kept: %s", err.text);
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
    if (status == SOMA_OK) status = soma__time_rule(&p->time, "", c.config, err);
    if (status == SOMA_OK) status = soma__policy_precision(&p->precision, o.dtype, err);
    if (status == SOMA_OK && o.gradient) status = check_gradient(p, path, err);
    if (status == SOMA_OK) status = soma__device_open(&p->device, o.device, &d, err);
    if (status == SOMA_OK && !o.no_cache) status = soma__packed_path(c.cache, path, o.cache, p->device, o.dtype, err);
    if (status == SOMA_OK) status = load_weights(p, &c, path, err);
    if (status == SOMA_OK) status = describe(p, c.config, err);
    runner *first = NULL;
    if (status == SOMA_OK) status = runner_new(&first, p, 1, err);
    if (status == SOMA_OK) p->flow = soma__plan_find(first->sets->plans[1], "v_t");
    if (status == SOMA_OK) runner_give(p, first);
    if (status == SOMA_OK && !p->base && !p->params->packed && (*o.cache || p->params->size >= KEPT_SIZE))
        snprintf(p->cache, sizeof p->cache, "%s", c.cache);
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
    if (*p->cache) keep_packed(p);
    for (runner *r = p->idle, *next; r; r = next) {
        next = r->next;
        runner_free(r);
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

soma_status soma__policy_verify(size_t *n_weights, const char *path, const soma_policy_opts *given, soma_error *err) {
    soma_policy *p;
    soma_policy_opts o = *given;
    char cache[SOMA_PATH_MAX];
    o.no_cache = true;
    SOMA_TRY(soma_policy_open(&p, path, &o, err));
    soma_status status = soma__packed_path(cache, path, o.cache, p->device, o.dtype, err);
    if (status == SOMA_OK && !*cache) status = soma__fail(err, SOMA_UNSUPPORTED, "%s: nothing is packed on this machine", path);
    if (status == SOMA_OK) status = soma__packed_verify(p->params, cache, n_weights, err);
    soma_policy_close(p);
    return status;
}

soma_policy_info soma_policy_describe(const soma_policy *p) { return p->info; }
const soma_robot *soma__policy_robot(const soma_policy *p) { return &p->robot; }
const soma_model *soma__policy_model(const soma_policy *p) { return p->model; }
const char *soma__policy_device(const soma_policy *p) { return p->device->kind->info(p->device); }

// ---- pilots

static soma_status check_rtc(soma_rtc_mode *mode, soma_rtc_schedule *schedule, const soma_policy *p, const soma_pilot_opts *o,
                             soma_error *err) {
    SOMA_TRY(soma__rtc_mode(mode, o->rtc, err));
    SOMA_TRY(soma__rtc_schedule(schedule, o->rtc_schedule, err));
    if (!(o->rtc_weight >= 0)) return soma__fail(err, SOMA_BAD_INPUT, "rtc-weight %g: at least 0", o->rtc_weight);
    if (o->rtc_horizon < 0) return soma__fail(err, SOMA_BAD_INPUT, "rtc-horizon %lld: at least 0", (long long)o->rtc_horizon);
    if (*mode && !p->flow)
        return soma__fail(err, SOMA_UNSUPPORTED, "rtc: %s has no flow that could be drawn towards the chunk before", p->info.family);
    if (*mode && p->model->info.no_flow)
        return soma__fail(err, SOMA_UNSUPPORTED, "rtc: %s samples along no flow; real-time chunking needs one", p->info.family);
    if (*mode == SOMA_RTC_GRADIENT && !p->gradient)
        return soma__fail(err, SOMA_BAD_INPUT, "rtc gradient: the policy is to be opened with the option gradient");
    if (*mode == SOMA_RTC_TRAINED && !p->model->info.given_max)
        return soma__fail(err, SOMA_BAD_INPUT,
                          "rtc trained: this policy has not learned to continue a chunk; guided and gradient need no learning");
    return SOMA_OK;
}

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
    soma_rtc_mode rtc;
    soma_rtc_schedule schedule;
    SOMA_TRY(check_rtc(&rtc, &schedule, policy, &o, err));
    if (!o.steps) o.steps = policy->model->info.n_steps;
    if (o.noise < 0) o.noise = policy->model->info.noise;
    soma_time_rule time = policy->time;
    if (*o.time) SOMA_TRY(soma__time_rule(&time, o.time, NULL, err));
    soma_pilot *pilot = soma__calloc(1, sizeof *pilot);
    if (!pilot) return soma__no_memory(err, "a pilot");
    *pilot = (soma_pilot){.policy = policy, .opts = o, .time = time, .rng = soma__rng((uint64_t)o.seed), .rtc = rtc, .schedule = schedule};
    const soma_model_info *info = &policy->model->info;
    if (rtc) pilot->last = soma__calloc((size_t)(info->horizon * info->action_dim), sizeof *pilot->last);
    pilot->actions = soma__calloc((size_t)(info->horizon * policy->info.n_actions), sizeof *pilot->actions);
    pilot->state = soma__calloc((size_t)policy->info.n_state, sizeof *pilot->state);
    if (!pilot->actions || !pilot->state || (rtc && !pilot->last)) {
        soma_pilot_free(pilot);
        return soma__no_memory(err, "a pilot");
    }
    soma_status status = soma__history_new(&pilot->history, &policy->robot, policy->model, err);
    if (status != SOMA_OK)
        soma_pilot_free(pilot);
    else
        *out = pilot;
    return status;
}

void soma_pilot_free(soma_pilot *pilot) {
    if (!pilot) return;
    soma__free(pilot->actions);
    soma__free(pilot->state);
    soma__free(pilot->last);
    soma__history_free(&pilot->history);
    soma__free(pilot);
}

const soma_policy *soma_pilot_policy(const soma_pilot *pilot) { return pilot->policy; }

void soma_pilot_reset(soma_pilot *pilot) {
    pilot->has_last = false;
    soma__history_forget(&pilot->history);
}

soma_status soma_pilot_see(soma_pilot *pilot, const soma_obs *obs, soma_error *err) {
    if (pilot->history.views <= 1) return SOMA_OK;
    SOMA_TRY(soma__history_see(&pilot->history, &pilot->policy->robot, obs, err));
    pilot->history.seen = true;
    return SOMA_OK;
}

// The plans for what was observed, with their inputs.
static soma_status feed_plans(const soma_policy *p, runner *r, int64_t steps, soma_error *err) {
    soma_batch *b = &r->rows.batch;
    const soma_saving saving = soma__batch_saving(&p->model->info, b, steps);
    SOMA_TRY(runner_plans(r, p, &saving, err));
    b->saving = &saving;
    soma_status status = p->model->family->prepare(p->model, b, &r->feed, err);
    b->saving = NULL;
    return status == SOMA_OK ? soma__plan_set_feed(r->sets, &r->feed, err) : status;
}

static soma_status denoise(const soma_policy *p, runner *r, const soma_pilot *pilot, soma_error *err) {
    soma_status status = feed_plans(p, r, pilot->opts.steps, err);
    return status == SOMA_OK ? soma__rtc_denoise(&r->rtc, r->sets, pilot->time, r->x, err) : status;
}

static soma_status write_chunks(const soma_policy *p, runner *r, const soma_pilot_opts *o, soma_error *err) {
    SOMA_TRY(feed_plans(p, r, o->steps, err));
    return soma__write_chunks(&p->writing, &r->writing, o->temperature, *o->constrain, r->sets->frames[0], r->sets->frames[1], &r->feed,
                              r->x, err);
}

// What of the pilot's chunk before lies ahead of this observation becomes the row's target. Where actions are relative to the state, they
// are so to the present one from here on.
static void continue_chunk(runner *r, const soma_policy *p, const soma_pilot *pilot, int64_t i, const soma_obs *obs) {
    const int64_t S = r->rtc.S, A = r->rtc.A, left = S - obs->executed;
    r->rtc.mode = pilot->rtc;
    r->rtc.delay[i] = -1;
    if (!pilot->rtc || !pilot->has_last || !obs->executed || left <= 0) return;
    float *target = r->rtc.target + i * S * A;
    memcpy(target, pilot->last + (S - left) * A, sizeof *target * (size_t)(left * A));
    memset(target + left * A, 0, sizeof *target * (size_t)((S - left) * A));
    soma__robot_anchor(&p->robot, p->model, pilot->state, obs->state, target, left);
    const int64_t horizon = pilot->opts.rtc_horizon ? SOMA_MIN(pilot->opts.rtc_horizon, left) : left;
    const int64_t most = pilot->rtc == SOMA_RTC_TRAINED ? SOMA_MIN(left, p->model->info.given_max) : left;
    r->rtc.delay[i] = SOMA_MIN(obs->delay, most);
    r->rtc.most[i] = (float)pilot->opts.rtc_weight;
    soma__rtc_weights(r->rtc.weight + i * S, S, pilot->schedule, obs->delay, horizon);
}

// The observation as row i. A history that ended some steps ago, when the last chunk was made, is none.
static soma_status observe_row(runner *r, const soma_policy *p, soma_pilot *pilot, int i, const soma_obs *obs, soma_error *err) {
    soma_history *h = &pilot->history;
    if (h->views <= 1) return soma__robot_observe(&p->robot, &r->rows, i, obs, err);
    if (!h->seen && obs->executed != 1) soma__history_forget(h);
    SOMA_TRY(soma__history_see(h, &p->robot, obs, err));
    h->seen = false;
    soma__history_put(h, &r->rows, i);
    return SOMA_OK;
}

static soma_status need_step_noise(runner *r, const soma_policy *p, int64_t steps, soma_error *err) {
    const int64_t chunk = p->model->info.horizon * p->model->info.action_dim;
    if (!p->model->info.step_noise || r->noise_steps >= steps) return SOMA_OK;
    soma__free(r->step_noise);
    r->noise_steps = 0;
    r->step_noise = soma__calloc((size_t)(steps * r->n * chunk), sizeof *r->step_noise);
    if (!r->step_noise) return soma__no_memory(err, "a sampler's noise");
    r->noise_steps = steps;
    r->rows.batch.step_noise = r->step_noise;
    return SOMA_OK;
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
        if (pilots[i]->time != pilots[0]->time)
            return soma__fail(err, SOMA_BAD_INPUT, "pilots of one call take the flow's times of the same project");
        if (pilots[i]->rtc != pilots[0]->rtc)
            return soma__fail(err, SOMA_BAD_INPUT, "pilots of one call continue their chunks in the same way");
        if (obs[i].executed < 0 || obs[i].delay < 0)
            return soma__fail(err, SOMA_BAD_INPUT, "an observation after %d steps with a delay of %d: both are at least 0", obs[i].executed,
                              obs[i].delay);
        SOMA_TRY(observe_row(r, p, pilots[i], i, &obs[i], err));
    }
    SOMA_TRY(need_step_noise(r, p, pilots[0]->opts.steps, err));
    for (int i = 0; i < r->n; i++) { // nothing may fail from here on: the random streams advance
        soma_rng rng = soma__rng_fold(&pilots[i]->rng, pilots[i]->acts++);
        if (!p->model->info.answer.max) continue_chunk(r, p, pilots[i], i, &obs[i]);
        memcpy(pilots[i]->state, obs[i].state, sizeof(float) * (size_t)p->info.n_state);
        if (p->model->info.answer.max) {
            r->writing.rngs[i] = rng;
            continue;
        }
        soma__rng_normals(&rng, r->x + (size_t)i * chunk, chunk);
        for (size_t k = 0; k < chunk; k++) r->x[(size_t)i * chunk + k] *= (float)pilots[i]->opts.noise;
        for (int64_t k = 0; p->model->info.step_noise && k < pilots[i]->opts.steps; k++)
            soma__rng_normals(&rng, r->step_noise + (size_t)(k * r->n + i) * chunk, chunk);
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
    if (status == SOMA_OK) status = p->model->info.answer.max ? write_chunks(p, r, &pilots[0]->opts, err) : denoise(p, r, pilots[0], err);
    double ms = 1e3 * (soma__seconds() - started);
    int64_t chunk = p->model->info.horizon * p->model->info.action_dim;
    for (int i = 0; i < n && status == SOMA_OK; i++) {
        soma__robot_from_model(&p->robot, p->model, pilots[i]->state, r->x + i * chunk, pilots[i]->actions);
        if (pilots[i]->rtc) {
            memcpy(pilots[i]->last, r->x + i * chunk, sizeof *r->x * (size_t)chunk);
            pilots[i]->has_last = true;
        }
        const soma_answer_flaw flaw = p->model->info.answer.max ? r->writing.flaws[i] : SOMA_ANSWER_FINE;
        const float *first = pilots[i]->actions + p->model->info.history * p->info.n_actions; // of the present
        actions[i] = (soma_actions){first, p->info.horizon, p->info.n_actions, ms, flaw ? soma__answer_flaw_text(flaw) : NULL};
    }
    runner_give(p, r);
    return status;
}

soma_status soma_pilot_act(soma_pilot *pilot, const soma_obs *obs, soma_actions *actions, soma_error *err) {
    return soma_policy_act_many(pilot->policy, 1, &pilot, obs, actions, err);
}
