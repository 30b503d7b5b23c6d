// SPDX-License-Identifier: Apache-2.0
// Frames are judged at t = 1, 1 + stride, ... as long as a whole chunk follows; t = 0 has no action before it for the baseline.
#include "eval/openloop.h"
#include "data/screen.h"
#include "policy/policy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTS_TYPE soma_openloop_opts
SOMA_OPTS_DEFINE(soma_openloop_opts, SOMA_OPENLOOP_OPTS, soma_openloop_defaults)
#undef OPTS_TYPE

const int soma__openloop_points[SOMA_OPENLOOP_POINTS] = {1, 5, 15, 30};

enum { AT_ONCE = 8 };
#define STILL 1e-5 // a dimension whose standard deviation is below this share of its size does not move

typedef struct {
    double sum[SOMA_OPENLOOP_POINTS + 1]; // the last: the whole chunk
    int64_t n;                            // chunks
} tally;

typedef struct {
    const soma_openloop_opts *o;
    soma_openloop *result;
    soma_dataset *data;
    soma_dataset_reader *reader;
    int state, action, A, N;  // features; their sizes
    soma_feature_stats stats; // of the actions, over the other episodes
    int64_t *episodes, n_episodes;
    float **states, **actions; // [n_episodes] of [n_frames, N], [n_frames, A]
    int64_t total;             // frames to judge, for each policy
    soma_openloop_watch *watch;
    void *user;
} judge;

// ---- errors

static bool moves(const judge *j, int k) { return j->stats.std[k] > STILL * fmax(fabs(j->stats.mean[k]), 1e-3); }

// truth [H, A]; guess [H, A], or one row for all steps when step is 0
static void tally_add(const judge *j, tally *t, const float *truth, const float *guess, size_t step) {
    int H = j->result->horizon;
    for (int h = 0; h < H; h++) {
        double error = 0;
        for (int k = 0; k < j->A; k++)
            if (moves(j, k)) error += fabs((double)guess[h * step + k] - truth[(size_t)h * j->A + k]) / j->stats.std[k];
        error /= j->result->n_dims;
        t->sum[SOMA_OPENLOOP_POINTS] += error / H;
        for (int p = 0; p < SOMA_OPENLOOP_POINTS; p++)
            if (h + 1 == soma__openloop_points[p]) t->sum[p] += error;
    }
    t->n++;
}

static soma_openloop_error tally_end(const judge *j, const tally *t, const char *name) {
    soma_openloop_error e = {.chunk = t->sum[SOMA_OPENLOOP_POINTS] / (double)t->n};
    snprintf(e.name, sizeof e.name, "%s", name);
    for (int p = 0; p < SOMA_OPENLOOP_POINTS; p++)
        e.at[p] = soma__openloop_points[p] <= j->result->horizon ? t->sum[p] / (double)t->n : NAN;
    return e;
}

// ---- the dataset

static int find_feature(const soma_dataset *d, const char *asked, const char *first, const char *second) {
    if (asked[0]) return soma__dataset_feature(d, asked);
    int f = soma__dataset_feature(d, first);
    return f >= 0 ? f : soma__dataset_feature(d, second);
}

static soma_status read_list(judge *j, soma_error *err) {
    const soma_dataset *d = j->data;
    j->episodes = soma__calloc((size_t)d->n_episodes, sizeof *j->episodes);
    if (!j->episodes) return soma__no_memory(err, "the list of episodes");
    for (const char *at = j->o->episodes; *at;) {
        char *end;
        long long wanted = strtoll(at, &end, 10);
        if (end == at || (*end && *end != ','))
            return soma__fail(err, SOMA_BAD_INPUT, "--episodes %s: wanted numbers separated by commas", j->o->episodes);
        int64_t i = 0;
        while (i < d->n_episodes && d->episodes[i].index != wanted) i++;
        at = *end ? end + 1 : end;
        if (i < d->n_episodes && !d->episodes[i].present && j->o->skip_bad) continue;
        if (i == d->n_episodes || !d->episodes[i].present)
            return soma__fail(err, SOMA_NOT_FOUND, "%s: episode %lld is not there", d->path, wanted);
        for (int64_t k = 0; k < j->n_episodes; k++)
            if (j->episodes[k] == i) return soma__fail(err, SOMA_BAD_INPUT, "--episodes %s: %lld is named twice", j->o->episodes, wanted);
        j->episodes[j->n_episodes++] = i;
    }
    if (j->n_episodes) return SOMA_OK;
    if (*j->o->episodes) return soma__fail(err, SOMA_BAD_INPUT, "%s: no listed episode can be read", d->path);
    return soma__fail(err, SOMA_BAD_INPUT, "name the episodes that were kept out of training: --episodes 3,7");
}

// Numbers of all episodes, since the scale of the error comes from the others; pictures of those that are judged.
static soma_status screen(judge *j, bool pictures, soma_error *err) {
    soma_dataset *d = j->data;
    int *features = soma__alloc(((size_t)d->n_features + 2) * sizeof *features), n = 0;
    int64_t skipped, kept = 0;
    if (!features) return soma__no_memory(err, "the features of a dataset");
    for (int f = 0; pictures && f < d->n_features; f++)
        if (d->features[f].kind == SOMA_FEATURE_IMAGE) features[n++] = f;
    if (!pictures) features[n++] = j->state, features[n++] = j->action;
    const soma_screen how = {.skip_bad = j->o->skip_bad,
                             .features = features,
                             .n_features = n,
                             .episodes = pictures ? j->episodes : NULL,
                             .n_episodes = j->n_episodes};
    soma_status status = soma__dataset_screen(&skipped, d, &how, err);
    soma__free(features);
    if (status != SOMA_OK) return status;
    j->result->skipped += pictures ? skipped - d->n_faults : skipped; // what opening found counts once
    for (int64_t i = 0; pictures && i < j->n_episodes; i++)
        if (d->episodes[j->episodes[i]].present) j->episodes[kept++] = j->episodes[i];
    if (pictures) j->n_episodes = kept;
    return !pictures || kept ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "%s: no listed episode can be read", d->path);
}

// Statistics over the episodes that are there and not listed.
static soma_status read_stats(judge *j, soma_error *err) {
    const soma_dataset *d = j->data;
    int64_t *others = soma__calloc((size_t)d->n_episodes, sizeof *others), n = 0;
    if (!others) return soma__no_memory(err, "the list of episodes");
    for (int64_t i = 0; i < d->n_episodes; i++) {
        bool listed = false;
        for (int64_t k = 0; k < j->n_episodes; k++) listed |= j->episodes[k] == i;
        if (!listed && d->episodes[i].present) others[n++] = i;
    }
    soma_status status = n ? soma__dataset_stats(&j->stats, d, j->action, others, n, err)
                           : soma__fail(err, SOMA_BAD_INPUT,
                                        "%s: every episode is listed as held out; the scale of the error comes from the others", d->path);
    soma__free(others);
    if (status != SOMA_OK) return status;
    for (int k = 0; k < j->A; k++) j->result->n_dims += moves(j, k);
    j->result->n_still = j->A - j->result->n_dims;
    return j->result->n_dims ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "%s: no action dimension moves in the other episodes", d->path);
}

static soma_status read_vectors(judge *j, float ***out, int feature, soma_error *err) {
    *out = soma__calloc((size_t)j->n_episodes, sizeof **out);
    if (!*out) return soma__no_memory(err, "the held-out episodes");
    for (int64_t i = 0; i < j->n_episodes; i++) {
        int64_t episode = j->episodes[i];
        (*out)[i] = soma__calloc((size_t)j->data->episodes[episode].n_frames, (size_t)j->data->features[feature].size * sizeof(float));
        if (!(*out)[i]) return soma__no_memory(err, "the held-out episodes");
        SOMA_TRY(j->data->format->read_vectors(j->reader, episode, feature, (*out)[i], err));
    }
    return SOMA_OK;
}

static soma_status judge_open(judge *j, soma_error *err) {
    SOMA_TRY(soma__dataset_open(&j->data, j->o->data, err));
    if (j->o->stride < 1) return soma__fail(err, SOMA_BAD_INPUT, "stride is %lld; at least 1", (long long)j->o->stride);
    j->state = find_feature(j->data, j->o->state_key, "observation.state", "state");
    j->action = find_feature(j->data, j->o->action_key, "action", "actions");
    if (j->state < 0 || j->action < 0)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no %s among its features; --%s-key names it, `soma inspect` lists them", j->data->path,
                          j->state < 0 ? "state" : "action", j->state < 0 ? "state" : "action");
    j->N = (int)j->data->features[j->state].size;
    j->A = (int)j->data->features[j->action].size;
    SOMA_TRY(screen(j, false, err));
    SOMA_TRY(read_list(j, err));
    if (j->o->skip_bad) SOMA_TRY(screen(j, true, err));
    SOMA_TRY(j->data->format->reader_open(&j->reader, j->data, err));
    SOMA_TRY(read_stats(j, err));
    SOMA_TRY(read_vectors(j, &j->states, j->state, err));
    SOMA_TRY(read_vectors(j, &j->actions, j->action, err));
    j->result->fps = j->data->fps;
    j->result->episodes = j->n_episodes;
    j->result->can_hold = j->N == j->A;
    return SOMA_OK;
}

static void free_vectors(float **vectors, int64_t n) {
    for (int64_t i = 0; vectors && i < n; i++) soma__free(vectors[i]);
    soma__free(vectors);
}

static void judge_close(judge *j) {
    free_vectors(j->states, j->n_episodes);
    free_vectors(j->actions, j->n_episodes);
    soma__free(j->episodes);
    soma__feature_stats_free(&j->stats);
    if (j->reader) j->data->format->reader_close(j->reader);
    soma__dataset_close(j->data);
}

// ---- frames

// The next frame to judge after (*i, *t); begins with *i = 0, *t = 1 - stride. False at the end.
static bool next_frame(const judge *j, int64_t *i, int64_t *t) {
    for (*t += j->o->stride; *i < j->n_episodes; ++*i, *t = 1)
        if (*t + j->result->horizon <= j->data->episodes[j->episodes[*i]].n_frames) return true;
    return false;
}

static soma_status baselines(judge *j, soma_error *err) {
    soma_openloop *r = j->result;
    tally hold = {0}, last = {0}, average = {0};
    float *mean = soma__calloc((size_t)j->A, sizeof *mean);
    if (!mean) return soma__no_memory(err, "a baseline");
    for (int k = 0; k < j->A; k++) mean[k] = (float)j->stats.mean[k];
    for (int64_t i = 0, t = 1 - j->o->stride; next_frame(j, &i, &t);) {
        const float *truth = j->actions[i] + t * j->A;
        tally_add(j, &last, truth, truth - j->A, 0);
        tally_add(j, &average, truth, mean, 0);
        if (r->can_hold) tally_add(j, &hold, truth, j->states[i] + t * j->N, 0);
    }
    soma__free(mean);
    if (!last.n) return soma__fail(err, SOMA_BAD_INPUT, "%s: no listed episode is longer than %d frames", j->data->path, r->horizon);
    r->frames = j->total = last.n;
    r->last = tally_end(j, &last, "last action");
    r->average = tally_end(j, &average, "mean action");
    if (r->can_hold) r->hold = tally_end(j, &hold, "hold the state");
    return SOMA_OK;
}

// ---- a policy

typedef struct {
    judge *j;
    soma_policy *policy;
    soma_policy_info info;
    int n_cameras, features[SOMA_MAX_CAMERAS]; // those of the policy that the dataset has
    const char *cameras[SOMA_MAX_CAMERAS];
    uint8_t *pictures[AT_ONCE][SOMA_MAX_CAMERAS];
    soma_pilot *pilots[AT_ONCE];
    soma_obs obs[AT_ONCE];
    const float *truth[AT_ONCE];
    soma_actions plans[AT_ONCE];
    tally tally;
} trial;

// A camera's short name is what follows the last dot of its feature, as in training.
static void find_cameras(trial *p) {
    const soma_dataset *d = p->j->data;
    for (int c = 0; c < p->info.n_cameras; c++) {
        for (int f = 0; f < d->n_features; f++) {
            const char *dot = strrchr(d->features[f].name, '.');
            if (d->features[f].kind != SOMA_FEATURE_IMAGE || strcmp(dot ? dot + 1 : d->features[f].name, p->info.camera_names[c])) continue;
            p->cameras[p->n_cameras] = p->info.camera_names[c];
            p->features[p->n_cameras++] = f;
            break;
        }
    }
}

static soma_status trial_open(trial *p, const char *path, const soma_policy_opts *po, const soma_pilot_opts *pilot, soma_error *err) {
    const judge *j = p->j;
    SOMA_TRY(soma_policy_open(&p->policy, path, po, err));
    p->info = soma_policy_describe(p->policy);
    if (p->info.n_state != j->N || p->info.n_actions != j->A)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: for %d state and %d action values; %s has %d and %d", path, p->info.n_state,
                          p->info.n_actions, j->data->path, j->N, j->A);
    find_cameras(p);
    for (int i = 0; i < AT_ONCE; i++) {
        soma_pilot_opts o = *pilot;
        o.seed += i; // frames judged side by side get noise of their own
        SOMA_TRY(soma_pilot_new(&p->pilots[i], p->policy, &o, err));
        for (int c = 0; c < p->n_cameras; c++) {
            const soma_feature *f = &j->data->features[p->features[c]];
            p->pictures[i][c] = soma__alloc((size_t)f->size);
            if (!p->pictures[i][c]) return soma__no_memory(err, "pictures");
        }
    }
    return SOMA_OK;
}

static void trial_close(trial *p) {
    for (int i = 0; i < AT_ONCE; i++) {
        soma_pilot_free(p->pilots[i]);
        for (int c = 0; c < p->n_cameras; c++) soma__free(p->pictures[i][c]);
    }
    soma_policy_close(p->policy);
}

static soma_status observe(trial *p, int slot, int64_t i, int64_t t, soma_error *err) {
    judge *j = p->j;
    const soma_episode *e = &j->data->episodes[j->episodes[i]];
    soma_obs *obs = &p->obs[slot];
    *obs = (soma_obs){.prompt = e->task, .state = j->states[i] + t * j->N, .n_state = j->N};
    p->truth[slot] = j->actions[i] + t * j->A;
    for (int c = 0; c < p->n_cameras && e->video_present; c++) {
        const soma_feature *f = &j->data->features[p->features[c]];
        SOMA_TRY(j->data->format->read_image(j->reader, j->episodes[i], t, p->features[c], p->pictures[slot][c], err));
        obs->images[obs->n_images++] = (soma_image){p->cameras[c], p->pictures[slot][c], (int)f->shape[1], (int)f->shape[0]};
    }
    return SOMA_OK;
}

// What was seen just before, for a policy that looks back; before an episode's first frame its first, as in training.
static soma_status see_before(trial *p, int slot, int64_t i, int64_t t, soma_error *err) {
    for (int back = (int)soma__policy_model(p->policy)->info.history; back > 0; back--) {
        SOMA_TRY(observe(p, slot, i, SOMA_MAX(t - back, 0), err));
        SOMA_TRY(soma_pilot_see(p->pilots[slot], &p->obs[slot], err));
    }
    return SOMA_OK;
}

static soma_status trial_run(trial *p, int64_t done_before, soma_error *err) {
    judge *j = p->j;
    int64_t i = 0, t = 1 - j->o->stride;
    for (bool more = true; more;) {
        int n = 0;
        while (n < AT_ONCE && (more = next_frame(j, &i, &t))) {
            SOMA_TRY(see_before(p, n, i, t, err));
            SOMA_TRY(observe(p, n++, i, t, err));
        }
        if (n) SOMA_TRY(soma_policy_act_many(p->policy, n, p->pilots, p->obs, p->plans, err));
        for (int k = 0; k < n; k++) tally_add(j, &p->tally, p->truth[k], p->plans[k].values, (size_t)j->A);
        if (j->watch && !j->watch(j->user, done_before + p->tally.n, j->total)) return soma__fail(err, SOMA_CANCELLED, "stopped");
    }
    return SOMA_OK;
}

// The first policy fixes how many steps are judged, and then the baselines are computed.
static soma_status fix_horizon(judge *j, const soma_policy_info *info, const char *path, soma_error *err) {
    int *H = &j->result->horizon;
    if (*H && *H <= info->horizon) return SOMA_OK;
    if (*H || j->o->horizon > info->horizon)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: chunks of %d actions, but %d are to be judged; ask for --horizon %d", path,
                          info->horizon, SOMA_MAX(*H, (int)j->o->horizon), info->horizon);
    int second = (int)lround(j->data->fps);
    *H = j->o->horizon > 0 ? (int)j->o->horizon : SOMA_MAX(1, SOMA_MIN(second, info->horizon));
    return baselines(j, err);
}

static soma_status judge_policy(judge *j, const char *path, const soma_policy_opts *po, const soma_pilot_opts *pilot, soma_error *err) {
    soma_openloop *r = j->result;
    if (r->n_policies == SOMA_OPENLOOP_MAX) return soma__fail(err, SOMA_BAD_INPUT, "at most %d policies at a time", SOMA_OPENLOOP_MAX);
    trial *p = soma__calloc(1, sizeof *p);
    if (!p) return soma__no_memory(err, "a policy's trial");
    p->j = j;
    soma_status status = trial_open(p, path, po, pilot, err);
    if (status == SOMA_OK) status = fix_horizon(j, &p->info, path, err);
    if (status == SOMA_OK) status = trial_run(p, r->n_policies * j->total, err);
    if (status == SOMA_OK) r->policies[r->n_policies++] = tally_end(j, &p->tally, path);
    trial_close(p);
    soma__free(p);
    return status;
}

// ---- over policies

static double mean_of(const double *values, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += values[i];
    return sum / n;
}

static double spread_of(const double *values, int n) {
    double mean = mean_of(values, n), sum = 0;
    for (int i = 0; i < n; i++) sum += (values[i] - mean) * (values[i] - mean);
    return n > 1 ? sqrt(sum / (n - 1)) : NAN;
}

static void sum_up(soma_openloop *r) {
    double values[SOMA_OPENLOOP_MAX];
    int n = r->n_policies;
    strcpy(r->mean.name, "mean"), strcpy(r->spread.name, "spread");
    for (int p = -1; p < SOMA_OPENLOOP_POINTS; p++) {
        for (int i = 0; i < n; i++) values[i] = p < 0 ? r->policies[i].chunk : r->policies[i].at[p];
        *(p < 0 ? &r->mean.chunk : &r->mean.at[p]) = mean_of(values, n);
        *(p < 0 ? &r->spread.chunk : &r->spread.at[p]) = spread_of(values, n);
    }
}

soma_status soma__openloop(soma_openloop *result, const char *policies, const soma_openloop_opts *opts, const soma_policy_opts *policy_opts,
                           const soma_pilot_opts *pilot_opts, soma_openloop_watch *watch, void *user, soma_error *err) {
    SOMA_OPTS_CHECK(opts);
    memset(result, 0, sizeof *result);
    judge j = {.o = opts, .result = result, .watch = watch, .user = user};
    char list[SOMA_OPT_TEXT], *rest;
    snprintf(list, sizeof list, "%s", policies);
    soma_status status = judge_open(&j, err);
    for (char *path = strtok_r(list, ",", &rest); path && status == SOMA_OK; path = strtok_r(NULL, ",", &rest)) {
        status = judge_policy(&j, path, policy_opts, pilot_opts, err);
    }
    if (status == SOMA_OK && !result->n_policies) status = soma__fail(err, SOMA_BAD_INPUT, "name the policies: --policy DIR,DIR");
    if (status == SOMA_OK) sum_up(result);
    judge_close(&j);
    return status;
}

// ---- the result

static json_t *error_json(const soma_openloop_error *e) {
    json_t *o = json_pack("{s:f}", "chunk", e->chunk);
    for (int p = 0; o && p < SOMA_OPENLOOP_POINTS; p++) {
        char key[20];
        snprintf(key, sizeof key, "step_%d", soma__openloop_points[p]);
        if (!isnan(e->at[p])) json_object_set_new(o, key, json_real(e->at[p]));
    }
    return o;
}

json_t *soma__openloop_json(const soma_openloop *r) {
    json_t *policies = json_array(), *baselines = json_object();
    for (int i = 0; policies && i < r->n_policies; i++) {
        json_t *e = error_json(&r->policies[i]);
        if (e) json_object_set_new(e, "policy", json_string(r->policies[i].name));
        json_array_append_new(policies, e);
    }
    if (baselines && r->can_hold) json_object_set_new(baselines, "hold_state", error_json(&r->hold));
    if (baselines) json_object_set_new(baselines, "last_action", error_json(&r->last));
    if (baselines) json_object_set_new(baselines, "mean_action", error_json(&r->average));
    json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:i, s:f, s:i, s:i, s:o, s:o, s:o}", "unit", "standard deviations of the other episodes",
                          "episodes", (json_int_t)r->episodes, "frames", (json_int_t)r->frames, "skipped", (json_int_t)r->skipped,
                          "horizon", r->horizon, "fps", r->fps, "dimensions", r->n_dims, "still_dimensions", r->n_still, "policies",
                          policies, "baselines", baselines, "mean", error_json(&r->mean));
    if (o && r->n_policies > 1) json_object_set_new(o, "spread", error_json(&r->spread));
    return o;
}
