// SPDX-License-Identifier: Apache-2.0
// How demonstrations are made. Labels are the expert's clean actions, but what is executed is disturbed: a policy that has only seen the
// expert's own path does not know the way back to it (Laskey et al. 2017, "DART"). Episodes in which the expert fails are dropped.
//
// And many episodes begin elsewhere. From home, where the arm has got to tells where it is going: a policy that is shown nothing else
// learns to go on as it began instead of looking (seen: it drove past the table's edge with a low error on held-out demonstrations).
//
// Attempts are made in rounds, in parallel, each in memory; the writer takes the successful ones in the order of their seeds.
#include "eval/record.h"
#include "base/pool.h"
#include "base/rng.h"
#include "data/writer.h"
#include "env/task.h"

#include <math.h>
#include <string.h>

#define OPTS_TYPE soma_record_opts
SOMA_OPTS_DEFINE(soma_record_opts, SOMA_RECORD_OPTS, soma_record_defaults)
#undef OPTS_TYPE

enum { PER_THREAD = 8, MAX_VALUES = 32, MAX_TASKS = 8, NOISE_STREAM = 1000 };

#define NOISE_TIME 0.4      // seconds in which the disturbance forgets itself
#define PUSH_SHARE 0.3      // of the episodes get one push besides
#define PUSH_SIZE 3.0       // times `noise` and less: up to 4 cm at the hand
#define PUSH_SECONDS 0.5    // how long it lasts
#define SCATTER_SECONDS 1.0 // to get there; not recorded
#define SCATTER_AHEAD 2.5   // at most so far into the other scene's demonstration
#define HOPELESS 20         // attempts without a success before recording gives up

typedef struct {
    uint64_t seed;
    int task; // number in the recorder's list
    bool success;
    int n_frames;
    char prompt[SOMA_ENV_PROMPT_MAX];
    float *states, *actions; // [max_steps, n_state], [max_steps, n_actions]
    uint8_t *images;         // [max_steps, n_cameras, image, image, 3]
    soma_status status;
    soma_error error;
} attempt;

typedef struct {
    const soma_record_opts *opts;
    soma_task tasks[MAX_TASKS]; // at this rate; taken in turn
    int n_tasks, max_steps;     // the longest episode of any
    soma_pool *pool;
    soma_env **envs;   // [n_threads, n_tasks], opened when first needed
    attempt *attempts; // one round
    int n_threads, n_attempts;
    size_t picture; // bytes
    soma_dataset_writer *writer;
    soma_record_result result;
    uint64_t next_seed;
} recorder;

// ---- the disturbance

// A smooth random offset of the joint targets (Ornstein-Uhlenbeck, its size drawn per episode) and now and then a push to one side.
typedef struct {
    soma_rng rng;
    double size, dt, push_start, push_end; // radians, seconds
    double offset[MAX_VALUES], push[MAX_VALUES];
    bool still[MAX_VALUES]; // not disturbed
} disturbance;

static disturbance disturbance_new(const soma_record_opts *o, const soma_task *task, uint64_t seed) {
    soma_rng seeded = soma__rng(seed);
    disturbance d = {.rng = soma__rng_fold(&seeded, NOISE_STREAM), .dt = 1 / task->rate};
    d.size = o->noise * soma__rng_uniform(&d.rng);
    bool pushed = soma__rng_uniform(&d.rng) < PUSH_SHARE;
    d.push_start = pushed ? soma__rng_range(&d.rng, -PUSH_SECONDS / 2, 1.0) : INFINITY; // a third of them begin before the episode
    d.push_end = d.push_start + PUSH_SECONDS;
    for (int i = 0; i < task->n_actions; i++) {
        d.still[i] = !strcmp(task->action_names[i], "gripper"); // a grip that wavers drops things and teaches nothing
        d.offset[i] = d.size * soma__rng_normal(&d.rng);
        d.push[i] = PUSH_SIZE * o->noise * soma__rng_range(&d.rng, -1, 1);
    }
    return d;
}

static void disturb(disturbance *d, int step, int n, float *action) {
    double now = step * d->dt, keep = exp(-d->dt / NOISE_TIME), fresh = d->size * sqrt(1 - keep * keep);
    bool pushed = now >= d->push_start && now < d->push_end;
    for (int i = 0; i < n; i++) {
        d->offset[i] = keep * d->offset[i] + fresh * soma__rng_normal(&d->rng);
        if (!d->still[i]) action[i] += (float)(d->offset[i] + (pushed ? d->push[i] : 0));
    }
}

// ---- one attempt, on a thread of the pool

static soma_status open_env(soma_env **env, recorder *r, int thread, int task, soma_error *err) {
    soma_env **kept = &r->envs[thread * r->n_tasks + task];
    soma_env_opts o = {
        .image_width = (int)r->opts->image, .image_height = (int)r->opts->image, .jitter = r->opts->jitter, .rate = r->opts->rate};
    if (!*kept) SOMA_TRY(r->tasks[task].open(kept, &o, err));
    *env = *kept;
    return SOMA_OK;
}

// Where the expert's arm is at a random moment of another scene: a pose that a policy may come to, and that tells nothing about this one.
static soma_status pose_elsewhere(const soma_task *t, soma_env *env, soma_rng *rng, float *pose, soma_error *err) {
    SOMA_TRY(t->reset(env, &(soma_env_reset){.seed = soma__rng_below(rng, SOMA_EVAL_SEEDS)}, err));
    int steps = 1 + (int)soma__rng_below(rng, (uint64_t)(SCATTER_AHEAD * t->rate));
    for (int i = 0; i < steps && !t->outcome(env).done; i++) {
        t->expert(env, pose);
        SOMA_TRY(t->step(env, pose, err));
    }
    return SOMA_OK;
}

// Brings the arm from home to `pose`, evenly and then holding still for a moment.
static soma_status go_to(const soma_task *t, soma_env *env, const disturbance *d, const float *pose, soma_error *err) {
    int steps = (int)(SCATTER_SECONDS * t->rate);
    soma_env_obs obs;
    SOMA_TRY(t->observe(env, &obs, err));
    float home[MAX_VALUES], action[MAX_VALUES];
    memcpy(home, obs.state, t->n_state * sizeof *home);
    for (int i = 0; i < steps && !t->outcome(env).done; i++) {
        float share = fminf(1, 1.3f * (float)(i + 1) / (float)steps);
        t->expert(env, action);
        for (int k = 0; k < t->n_actions; k++)
            if (!d->still[k]) action[k] = home[k] + share * (pose[k] - home[k]);
        SOMA_TRY(t->step(env, action, err));
    }
    return SOMA_OK;
}

// The start of an episode: at home or elsewhere.
static soma_status begin(recorder *r, soma_env *env, const attempt *a, disturbance *d, soma_error *err) {
    const soma_task *t = &r->tasks[a->task];
    float pose[MAX_VALUES];
    bool elsewhere = soma__rng_uniform(&d->rng) < r->opts->scatter && t->n_state == t->n_actions;
    if (elsewhere) SOMA_TRY(pose_elsewhere(t, env, &d->rng, pose, err));
    SOMA_TRY(t->reset(env, &(soma_env_reset){.seed = a->seed}, err));
    return elsewhere ? go_to(t, env, d, pose, err) : SOMA_OK;
}

static soma_status play(recorder *r, soma_env *env, attempt *a, soma_error *err) {
    const soma_task *t = &r->tasks[a->task];
    disturbance d = disturbance_new(r->opts, t, a->seed);
    SOMA_TRY(begin(r, env, a, &d, err));
    a->n_frames = 0;
    a->success = false;
    soma_env_outcome outcome = t->outcome(env);
    if (outcome.done) return SOMA_OK; // ran into something on the way
    do {
        size_t i = (size_t)a->n_frames++;
        soma_env_obs obs;
        SOMA_TRY(t->observe(env, &obs, err));
        memcpy(a->states + i * t->n_state, obs.state, t->n_state * sizeof(float));
        for (size_t c = 0; c < (size_t)t->n_cameras; c++) {
            memcpy(a->images + (i * t->n_cameras + c) * r->picture, obs.images[c], r->picture);
        }
        float action[MAX_VALUES];
        t->expert(env, action);
        memcpy(a->actions + i * t->n_actions, action, t->n_actions * sizeof(float));
        disturb(&d, (int)i, t->n_actions, action);
        SOMA_TRY(t->step(env, action, err));
        memcpy(a->prompt, obs.prompt, strlen(obs.prompt) + 1);
        outcome = t->outcome(env);
    } while (!outcome.done && a->n_frames < t->max_steps);
    a->success = outcome.success;
    return SOMA_OK;
}

static void attempt_run(void *ctx, int64_t item, int thread) {
    recorder *r = ctx;
    attempt *a = &r->attempts[item];
    soma_env *env;
    a->status = open_env(&env, r, thread, a->task, &a->error);
    if (a->status == SOMA_OK) a->status = play(r, env, a, &a->error);
}

// ---- rounds

static soma_status write_episode(recorder *r, const attempt *a, soma_error *err) {
    const soma_task *t = &r->tasks[a->task];
    for (size_t i = 0; i < (size_t)a->n_frames; i++) {
        const uint8_t *images[SOMA_ENV_MAX_CAMERAS];
        for (size_t c = 0; c < (size_t)t->n_cameras; c++) images[c] = a->images + (i * t->n_cameras + c) * r->picture;
        SOMA_TRY(soma__dataset_writer_frame(r->writer, a->states + i * t->n_state, a->actions + i * t->n_actions, images, err));
    }
    SOMA_TRY(soma__dataset_writer_episode(r->writer, a->prompt, err));
    r->result.episodes++;
    r->result.frames += a->n_frames;
    return SOMA_OK;
}

// The writer's turn: successful attempts in the order of their seeds. What a round made beyond the last episode wanted is left out.
static soma_status keep_round(recorder *r, soma_record_watch *watch, void *user, soma_error *err) {
    for (int i = 0; i < r->n_attempts && r->result.episodes < r->opts->episodes && !r->result.stopped; i++) {
        attempt *a = &r->attempts[i];
        if (a->status != SOMA_OK) {
            if (err) *err = a->error;
            return a->status;
        }
        if (a->success)
            SOMA_TRY(write_episode(r, a, err));
        else if (++r->result.dropped >= HOPELESS && !r->result.episodes)
            return soma__fail(err, SOMA_BAD_INPUT, "the expert of %s failed in its first %d attempts; record with less noise than %g",
                              r->tasks[a->task].name, HOPELESS, r->opts->noise);
        r->result.stopped = watch && !watch(user, &r->result);
    }
    return SOMA_OK;
}

static soma_status record_rounds(recorder *r, soma_record_watch *watch, void *user, soma_error *err) {
    while (r->result.episodes < r->opts->episodes && !r->result.stopped) {
        if (r->next_seed + (uint64_t)r->n_attempts > SOMA_EVAL_SEEDS) {
            return soma__fail(err, SOMA_BAD_INPUT, "seeds from %d on are for evaluation and were reached after %lld episodes",
                              SOMA_EVAL_SEEDS, (long long)r->result.episodes);
        }
        for (int i = 0; i < r->n_attempts; i++) {
            r->attempts[i].task = (int)(r->next_seed % (uint64_t)r->n_tasks);
            r->attempts[i].seed = r->next_seed++;
        }
        soma__pool_run(r->pool, r->n_attempts, attempt_run, r);
        SOMA_TRY(keep_round(r, watch, user, err));
    }
    return SOMA_OK;
}

// ---- set up and clear away

static bool alike(const soma_task *a, const soma_task *b) {
    bool same = !strcmp(a->robot, b->robot) && a->rate == b->rate && a->n_state == b->n_state && a->n_actions == b->n_actions &&
                a->n_cameras == b->n_cameras;
    for (int i = 0; same && i < a->n_cameras; i++) same = !strcmp(a->camera_names[i], b->camera_names[i]);
    return same;
}

static soma_status find_tasks(recorder *r, soma_error *err) {
    if (!soma__task_registry[0]) return soma__fail(err, SOMA_UNSUPPORTED, "this build has no simulator: it was made without MuJoCo");
    char list[SOMA_OPT_TEXT], *rest = list;
    strcpy(list, r->opts->task);
    for (char *name; (name = strsep(&rest, ","));) {
        const soma_task *t = soma__task_find(name);
        if (!t) return soma__fail(err, SOMA_NOT_FOUND, "no task is named \"%s\"; touch_color is the first to try", name);
        if (r->n_tasks == MAX_TASKS) return soma__fail(err, SOMA_BAD_INPUT, "at most %d tasks in one dataset", MAX_TASKS);
        SOMA_CHECK(t->n_actions <= MAX_VALUES && t->n_state <= MAX_VALUES, "a task has more values than the recorder has room for");
        soma_task *at = &r->tasks[r->n_tasks++];
        *at = soma__task_at(t, r->opts->rate);
        r->max_steps = SOMA_MAX(r->max_steps, at->max_steps);
        if (!alike(at, &r->tasks[0]))
            return soma__fail(err, SOMA_BAD_INPUT, "%s and %s differ in robot, rate or cameras: one dataset cannot hold both",
                              r->tasks[0].name, name);
    }
    return SOMA_OK;
}

static soma_status check_opts(const soma_record_opts *o, soma_error *err) {
    SOMA_OPTS_CHECK(o);
    if (!o->out[0]) return soma__fail(err, SOMA_BAD_INPUT, "name the folder of the new dataset: --out DIR");
    if (o->episodes < 1) return soma__fail(err, SOMA_BAD_INPUT, "episodes is %lld; at least one is needed", (long long)o->episodes);
    if (o->seed < 0 || o->seed >= SOMA_EVAL_SEEDS) {
        return soma__fail(err, SOMA_BAD_INPUT, "seed is %lld; recording takes seeds from 0 to %d, those above are for evaluation",
                          (long long)o->seed, SOMA_EVAL_SEEDS - 1);
    }
    if (!(o->scatter >= 0 && o->scatter <= 1)) return soma__fail(err, SOMA_BAD_INPUT, "scatter is %g; a share is 0 to 1", o->scatter);
    if (!(o->noise >= 0 && o->noise <= 1)) return soma__fail(err, SOMA_BAD_INPUT, "noise is %g rad; 0 to 1 makes sense", o->noise);
    if (!(o->rate >= 0)) return soma__fail(err, SOMA_BAD_INPUT, "rate is %g Hz; 0 is the task's own", o->rate);
    if (o->image % 2) return soma__fail(err, SOMA_BAD_INPUT, "pictures of %lld pixels; video wants an even number", (long long)o->image);
    return SOMA_OK;
}

static soma_status recorder_open(recorder *r, soma_error *err) {
    const soma_task *t = &r->tasks[0];
    SOMA_TRY(soma__pool_new(&r->pool, (int)r->opts->threads, err));
    r->n_threads = soma__pool_threads(r->pool);
    // never more attempts in the air than episodes wanted: a recording of one episode plays one
    r->n_attempts = (int)SOMA_MIN((int64_t)r->n_threads * PER_THREAD, r->opts->episodes);
    r->picture = (size_t)r->opts->image * (size_t)r->opts->image * 3;
    r->envs = soma__calloc((size_t)(r->n_threads * r->n_tasks), sizeof *r->envs);
    r->attempts = soma__calloc((size_t)r->n_attempts, sizeof *r->attempts);
    if (!r->envs || !r->attempts) return soma__no_memory(err, "the recorder");
    for (int i = 0; i < r->n_attempts; i++) {
        attempt *a = &r->attempts[i];
        a->states = soma__calloc((size_t)r->max_steps, t->n_state * sizeof(float));
        a->actions = soma__calloc((size_t)r->max_steps, t->n_actions * sizeof(float));
        a->images = soma__calloc((size_t)r->max_steps * t->n_cameras, r->picture);
        if (!a->states || !a->actions || !a->images) return soma__no_memory(err, "an episode of demonstrations");
    }
    soma_dataset_spec spec = {.robot_type = t->robot,
                              .fps = t->rate,
                              .n_state = t->n_state,
                              .n_actions = t->n_actions,
                              .n_cameras = t->n_cameras,
                              .state_names = t->state_names,
                              .action_names = t->action_names,
                              .camera_names = t->camera_names,
                              .image_width = (int)r->opts->image,
                              .image_height = (int)r->opts->image};
    soma_env *first;
    SOMA_TRY(open_env(&first, r, 0, 0, err)); // a wrong picture size or a missing OpenGL is told before the folder is made
    return soma__dataset_writer_open(&r->writer, r->opts->out, &spec, err);
}

static void recorder_close(recorder *r) {
    soma__dataset_writer_close(r->writer);
    for (int i = 0; r->attempts && i < r->n_attempts; i++) {
        soma__free(r->attempts[i].states);
        soma__free(r->attempts[i].actions);
        soma__free(r->attempts[i].images);
    }
    soma__free(r->attempts);
    for (int i = 0; r->envs && i < r->n_threads * r->n_tasks; i++) r->tasks[i % r->n_tasks].close(r->envs[i]);
    soma__free(r->envs);
    soma__pool_free(r->pool);
}

soma_status soma__record(soma_record_result *result, const soma_record_opts *opts, soma_record_watch *watch, void *user, soma_error *err) {
    *result = (soma_record_result){0};
    double start = soma__seconds();
    recorder r = {.opts = opts, .next_seed = (uint64_t)opts->seed};
    SOMA_TRY(check_opts(opts, err));
    SOMA_TRY(find_tasks(&r, err));
    soma_status status = recorder_open(&r, err);
    if (status == SOMA_OK) status = record_rounds(&r, watch, user, err);
    if (status == SOMA_OK) status = soma__dataset_writer_finish(r.writer, err);
    recorder_close(&r);
    *result = r.result;
    result->seconds = soma__seconds() - start;
    return status;
}
