// SPDX-License-Identifier: Apache-2.0
// From options to a run that is ready for its first step: dataset, split, model, statistics, vocabulary, weights, plans.
#include "data/screen.h"
#include "train/statistics.h"
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTS_TYPE soma_train_opts
SOMA_OPTS_DEFINE(soma_train_opts, SOMA_TRAIN_OPTS, soma_train_defaults)
#undef OPTS_TYPE

// ---- the dataset's features

static soma_status find_feature(int *out, const soma_trainer *t, const char *given, const char *const *usual, const char *what,
                                soma_error *err) {
    if (*given)
        *out = soma__dataset_feature(t->data, given);
    else
        for (*out = -1; *out < 0 && *usual; usual++) *out = soma__dataset_feature(t->data, *usual);
    if (*out < 0)
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no feature \"%s\" to take the %s from; --%s-key names another", t->data->path,
                          *given ? given : usual[-1], what, what);
    const soma_feature *f = &t->data->features[*out];
    if (f->kind == SOMA_FEATURE_VECTOR && f->size >= 1 && f->size <= SOMA_ROBOT_MAX_DIMS) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: %s is no vector of at most %d numbers", t->data->path, f->name, SOMA_ROBOT_MAX_DIMS);
}

// A camera's short name: what follows the last dot of "observation.images.scene".
static const char *short_name(const char *feature) {
    const char *dot = strrchr(feature, '.');
    return dot ? dot + 1 : feature;
}

static soma_status add_camera(soma_trainer *t, int feature, soma_error *err) {
    soma_robot *r = &t->robot;
    const char *name = short_name(t->data->features[feature].name);
    if (r->n_cameras == SOMA_MAX_CAMERAS || strlen(name) >= sizeof r->cameras[0])
        return soma__fail(err, SOMA_BAD_INPUT, "%s: at most %d cameras with names below 64 bytes", t->data->path, SOMA_MAX_CAMERAS);
    strcpy(r->cameras[r->n_cameras], name);
    r->slots[r->n_cameras] = r->n_cameras;
    t->camera_features[r->n_cameras++] = feature;
    return SOMA_OK;
}

static soma_status find_cameras(soma_trainer *t, soma_error *err) {
    if (!*t->o.cameras) {
        for (int i = 0; i < t->data->n_features && t->robot.n_cameras < SOMA_MAX_CAMERAS; i++)
            if (t->data->features[i].kind == SOMA_FEATURE_IMAGE && soma__dataset_has(t->data, i)) SOMA_TRY(add_camera(t, i, err));
        return SOMA_OK;
    }
    char list[SOMA_OPT_TEXT], *rest = list;
    strcpy(list, t->o.cameras);
    if (!strcmp(list, "none")) return SOMA_OK;
    for (char *name; (name = strsep(&rest, ","));) {
        int f = soma__dataset_feature(t->data, name);
        if (f < 0 || t->data->features[f].kind != SOMA_FEATURE_IMAGE)
            return soma__fail(err, SOMA_NOT_FOUND, "%s: no camera feature \"%s\"", t->data->path, name);
        SOMA_TRY(add_camera(t, f, err));
    }
    return SOMA_OK;
}

// ---- several datasets

// Item `place` of a list with commas between; false when there are fewer.
static bool list_item(char out[SOMA_OPT_TEXT], const char *list, int place) {
    for (; place && *list; place--) {
        list += strcspn(list, ",");
        list += *list == ',';
        if (!*list) return false;
    }
    snprintf(out, SOMA_OPT_TEXT, "%.*s", (int)strcspn(list, ","), list);
    return !place;
}

static soma_status prepare_data(soma_trainer *t, bool run, soma_error *err);

// Cameras of the first dataset's names take its places, others what is free; what has no place is left out.
static void settle_slots(soma_trainer *s, const soma_trainer *t) {
    soma_robot *r = &s->robot;
    const int places = (int)t->model->info.n_cameras;
    bool taken[SOMA_MAX_CAMERAS] = {0};
    int slot[SOMA_MAX_CAMERAS], kept = 0;
    for (int c = 0; c < r->n_cameras; c++) {
        slot[c] = -1;
        for (int k = 0; k < t->robot.n_cameras; k++)
            if (!strcmp(r->cameras[c], t->robot.cameras[k])) taken[slot[c] = t->robot.slots[k]] = true;
    }
    for (int c = 0; c < r->n_cameras; c++)
        for (int k = 0; k < places && slot[c] < 0; k++)
            if (!taken[k]) taken[slot[c] = k] = true;
    for (int c = 0; c < r->n_cameras; c++) {
        if (slot[c] < 0) continue;
        memmove(r->cameras[kept], r->cameras[c], sizeof r->cameras[0]);
        s->camera_features[kept] = s->camera_features[c];
        r->slots[kept++] = slot[c];
    }
    r->n_cameras = kept;
}

static soma_status open_others(soma_trainer *t, bool run, soma_error *err) {
    char name[SOMA_OPT_TEXT];
    int n = 1;
    for (const char *p = t->o.data; *p; p++) n += *p == ',';
    if (n > SOMA_MIXTURE_MOST) return soma__fail(err, SOMA_BAD_INPUT, "--data: at most %d datasets", SOMA_MIXTURE_MOST);
    if (n > 1 && !(t->others = soma__calloc((size_t)n - 1, sizeof *t->others))) return soma__no_memory(err, "the datasets");
    for (int k = 1; k < n; k++) {
        soma_trainer *s = &t->others[t->n_others++];
        *s = (soma_trainer){.o = t->o, .changes = t->changes, .place = k, .watch = t->watch};
        if (!list_item(name, t->o.data, k)) return soma__fail(err, SOMA_BAD_INPUT, "--data %s: ends with a comma", t->o.data);
        SOMA_TRY(prepare_data(s, run, err));
    }
    t->robot.cameras_optional |= n > 1; // what one robot has another may lack
    return SOMA_OK;
}

// What is borrowed from the first goes back before the rest is closed.
static void close_others(soma_trainer *t) {
    for (int k = 0; k < t->n_others; k++) {
        t->others[k].model = NULL;
        t->others[k].robot.text = NULL;
        soma__trainer_close(&t->others[k]);
    }
    soma__free(t->others);
}

static soma_status read_weights(double *weights, const soma_trainer *t, soma_error *err) {
    char item[SOMA_OPT_TEXT], *end;
    double sum = 0;
    for (int k = 0; k <= t->n_others; k++) {
        const soma_trainer *s = k ? &t->others[k - 1] : t;
        weights[k] = 0;
        for (int64_t e = 0; e < s->n_training; e++) weights[k] += (double)s->data->episodes[s->training[e]].n_frames;
        if (*t->o.weights && list_item(item, t->o.weights, k) &&
            (weights[k] = strtod(item, &end), end == item || *end || !(weights[k] >= 0)))
            return soma__fail(err, SOMA_BAD_INPUT, "--weights %s: wanted numbers from 0 on, separated by commas", t->o.weights);
        if (*t->o.weights && !list_item(item, t->o.weights, k))
            return soma__fail(err, SOMA_BAD_INPUT, "--weights %s: there are %d datasets", t->o.weights, t->n_others + 1);
        sum += weights[k];
    }
    return sum > 0 && isfinite(sum) ? SOMA_OK : soma__fail(err, SOMA_BAD_INPUT, "--weights %s: are all zero, or endless", t->o.weights);
}

// ---- damage

static bool show_screening(void *user, int64_t done, int64_t total) {
    const soma_train_watch *w = user;
    w->show(w->user, "look at all episodes", done, total);
    return true;
}

static soma_status screen(soma_trainer *t, soma_error *err) {
    int features[2 + SOMA_MAX_CAMERAS] = {t->state_feature, t->action_feature};
    int64_t skipped;
    memcpy(features + 2, t->camera_features, sizeof(int) * (size_t)t->robot.n_cameras);
    const soma_screen how = {.skip_bad = t->o.skip_bad,
                             .features = features,
                             .n_features = 2 + t->robot.n_cameras,
                             .threads = (int)t->o.threads,
                             .progress = t->watch.show ? show_screening : NULL,
                             .user = &t->watch};
    SOMA_TRY(soma__dataset_screen(&skipped, t->data, &how, err));
    if (skipped) soma__log(SOMA_LOG_WARN, "%s: %lld damaged parts are left out", t->data->path, (long long)skipped);
    return SOMA_OK;
}

// ---- the split

static bool listed(const char *list, int64_t episode) {
    for (const char *p = list; *p;) {
        char *end;
        long long n = strtoll(p, &end, 10);
        if (end != p && n == episode) return true;
        p = *end ? end + 1 : end;
    }
    return false;
}

// Held out: the episodes named, or every k-th of those that are there, so that the choice does not depend on the seed.
static soma_status split(soma_trainer *t, soma_error *err) {
    const soma_dataset *d = t->data;
    t->training = soma__calloc((size_t)d->n_episodes + 1, sizeof *t->training);
    t->heldout = soma__calloc((size_t)d->n_episodes + 1, sizeof *t->heldout);
    if (!t->training || !t->heldout) return soma__no_memory(err, "the list of episodes");
    int64_t k = t->o.holdout_share > 0 ? (int64_t)llround(1 / t->o.holdout_share) : INT64_MAX, seen = 0;
    for (int64_t e = 0; e < d->n_episodes; e++) {
        if (!d->episodes[e].present || !d->episodes[e].n_frames) continue;
        bool held = *t->o.holdout ? listed(t->o.holdout, e) : seen % k == k - 1;
        seen++;
        t->robot.cameras_optional |= !d->episodes[e].video_present;
        if (held)
            t->heldout[t->n_heldout++] = e;
        else
            t->training[t->n_training++] = e;
    }
    if (t->n_training) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: no episode left to train on (%lld present, %lld held out)", d->path,
                      (long long)d->episodes_present, (long long)t->n_heldout);
}

// ---- the model, its sizes from the preset, the data, and --model, in this order

static bool mean_only(const soma_train_opts *o) { return o->steps && o->mean_steps >= o->steps; }

static void set_unless(json_t *config, const char *key, json_t *value) {
    if (json_object_get(config, key))
        json_decref(value);
    else
        json_object_set_new(config, key, value);
}

// A checkpoint's config, completed by its tensors and its robot's sizes.
static soma_status init_config(json_t **config, const soma_train_opts *o, soma_error *err) {
    if (*o->model) return soma__fail(err, SOMA_BAD_INPUT, "--model and --init: the sizes are those of the checkpoint");
    soma_published c;
    soma_status status = soma__published_open(&c, o->init, err);
    if (status == SOMA_OK) status = soma__robot_resolve(c.config, o->init, "", err);
    if (status == SOMA_OK) *config = json_incref(c.config);
    soma__published_close(&c);
    return status;
}

static soma_status new_config(json_t **config, const soma_trainer *t, soma_error *err) {
    const soma_robot *r = &t->robot;
    SOMA_TRY(soma__preset_config(config, t->o.family, t->o.preset, t->o.model, err));
    const soma_family *family = soma__family_find(t->o.family);
    const bool fits = family && family->fits, base = !strcmp(t->o.preset, "base");
    if (base && !fits) return SOMA_OK; // a net of other sizes has the robot's, unless --model gives others
    if (base && r->n_cameras) {
        const soma_feature *camera = &t->data->features[t->camera_features[0]];
        set_unless(*config, "image_height", json_integer(camera->shape[0]));
        set_unless(*config, "image_width", json_integer(camera->shape[1]));
    }
    int n_actions = r->n_actions, n_state = SOMA_MAX(r->n_state, 1);
    for (int k = 0; k < t->n_others; k++) {
        n_actions = SOMA_MAX(n_actions, t->others[k].robot.n_actions);
        n_state = SOMA_MAX(n_state, t->others[k].robot.n_state);
    }
    set_unless(*config, "action_dim", json_integer(n_actions));
    set_unless(*config, "state_dim", json_integer(n_state));
    json_t *cameras = json_array();
    for (int i = 0; i < r->n_cameras; i++) json_array_append_new(cameras, json_string(r->cameras[i]));
    if (!r->n_cameras) json_array_append_new(cameras, json_string("none"));
    set_unless(*config, "camera_order", cameras);
    return SOMA_OK;
}

// Pictures and prompts reach a checkpoint as they did before.
static soma_status keep_habits(soma_robot *robot, const json_t *config, const soma_model *model, const char *where, soma_error *err) {
    const json_t *object = json_object_get(config, "robot");
    soma_robot own = {0};
    if (!object) return SOMA_OK;
    SOMA_TRY(soma__robot_read(&own, object, model, where, err));
    robot->form = own.form;
    robot->resize = own.resize;
    soma__robot_close(&own);
    return SOMA_OK;
}

// A mean chunk is served as it is trained: from no noise, in one step. Whoever goes on from such a checkpoint with the flow samples it.
static void set_sampler(json_t *config, const soma_train_opts *o) {
    const json_t *noise = json_object_get(config, "noise_scale");
    if (mean_only(o)) {
        json_object_set_new(config, "num_steps", json_integer(1));
        json_object_set_new(config, "noise_scale", json_real(0));
    } else if (o->steps && json_is_number(noise) && json_number_value(noise) == 0) {
        json_object_del(config, "num_steps");
        json_object_del(config, "noise_scale");
    }
}

static soma_status make_model(soma_trainer *t, soma_error *err) {
    json_t *config = NULL;
    const char *where = *t->o.init ? t->o.init : *t->o.model ? t->o.model : "the model's options";
    SOMA_TRY(*t->o.init ? init_config(&config, &t->o, err) : new_config(&config, t, err));
    set_sampler(config, &t->o);
    if (t->o.horizon) json_object_set_new(config, "action_horizon", json_integer(t->o.horizon));
    soma_status status = soma__model_new(&t->model, config, where, err);
    if (status == SOMA_OK && t->o.mean_steps && t->model->info.no_flow)
        status = soma__fail(err, SOMA_BAD_INPUT, "%s learns along no flow: there is no mean chunk for --mean-steps", t->model->info.type);
    if (status == SOMA_OK && t->o.mean_steps && t->model->info.answer.max)
        status =
            soma__fail(err, SOMA_BAD_INPUT, "%s writes its chunks as tokens: there is no mean chunk for --mean-steps", t->model->info.type);
    if (status == SOMA_OK) t->robot.resize = t->model->info.resize;
    if (status == SOMA_OK && *t->o.init) status = keep_habits(&t->robot, config, t->model, where, err);
    json_decref(config);
    if (status != SOMA_OK) return status;
    t->robot.n_cameras = SOMA_MIN(t->robot.n_cameras, t->model->info.n_cameras);
    return SOMA_OK;
}

// ---- statistics over the training episodes

#define STATISTICS_MEMORY ((size_t)2 << 30)

static soma_status take_statistics(soma_trainer *t, soma_error *err) {
    static const double quantiles[] = {0.01, 0.99};
    bool relative = false;
    int width = t->robot.n_state + t->robot.n_actions;
    for (int i = 0; i < t->robot.n_actions; i++) relative = relative || t->robot.delta[i];
    soma_statistics_opts o = {.data = t->data,
                              .state_feature = t->state_feature,
                              .action_feature = t->action_feature,
                              .robot = &t->robot,
                              .episodes = t->training,
                              .n_episodes = t->n_training,
                              .horizon = relative ? t->model->info.horizon : 1, // only differences depend on the place in the chunk
                              .memory = STATISTICS_MEMORY,
                              .n_quantiles = SOMA_COUNT(quantiles),
                              .quantiles = quantiles};
    soma_column_stats *stats = soma__alloc((size_t)width * sizeof *stats);
    soma_status status = stats ? soma__pool_new(&o.pool, (int)t->o.threads, err) : soma__no_memory(err, "the statistics");
    if (status == SOMA_OK) status = soma__statistics_take(stats, &o, NULL, err);
    if (status == SOMA_OK) status = soma__statistics_norm(&t->robot.stats, stats, &o, err);
    soma__pool_free(o.pool);
    soma__free(stats);
    return status;
}

static soma_status make_robot(soma_trainer *t, soma_error *err) {
    soma_robot *r = &t->robot;
    const char *const state_keys[] = {"observation.state", "state", NULL}, *const action_keys[] = {"action", "actions", NULL};
    SOMA_TRY(find_feature(&t->state_feature, t, t->o.state_key, state_keys, "state", err));
    SOMA_TRY(find_feature(&t->action_feature, t, t->o.action_key, action_keys, "action", err));
    r->n_state = (int)t->data->features[t->state_feature].size;
    r->n_actions = (int)t->data->features[t->action_feature].size;
    r->rate = t->data->fps;
    if (t->o.delta && r->n_state != r->n_actions)
        return soma__fail(err, SOMA_BAD_INPUT, "--delta needs states and actions of one length; %s has %d and %d", t->data->path,
                          r->n_state, r->n_actions);
    const char *const *names = t->data->features[t->action_feature].names;
    for (int i = 0; i < r->n_actions; i++) r->delta[i] = t->o.delta && !(names && strstr(names[i], "gripper"));
    char robot[SOMA_OPT_TEXT];
    if (!list_item(robot, t->o.robot, strchr(t->o.robot, ',') ? t->place : 0))
        return soma__fail(err, SOMA_BAD_INPUT, "--robot %s: names no robot for %s", t->o.robot, t->data->path);
    if (*t->o.robot && t->o.delta) return soma__fail(err, SOMA_BAD_INPUT, "--delta and --robot: the robot says which actions are relative");
    if (*robot) SOMA_TRY(soma__robot_adopt(r, robot, t->data->path, err));
    const soma_family *family = soma__family_find(t->o.family);
    const bool asked = strcmp(t->o.normalise, soma_train_defaults().normalise) != 0;
    SOMA_TRY(soma__norm_rule_parse(&r->state_rule, !asked && family && family->normalise ? family->normalise : t->o.normalise, err));
    r->action_rule = r->state_rule;
    return find_cameras(t, err);
}

// Where the vocabulary comes from; NULL: from the prompts of the data.
static const char *given_vocabulary(const soma_trainer *t) {
    const char *given = *t->o.text_tokenizer ? t->o.text_tokenizer : *t->o.init ? t->o.init : t->o.vlm;
    return *given && strcmp(given, "words") ? given : NULL;
}

static soma_status make_vocabulary(soma_trainer *t, soma_error *err) {
    if (!t->model->info.max_tokens) return SOMA_OK; // it reads no text
    const char *given = given_vocabulary(t);
    if (given) return soma__text_open(&t->robot.text, given, err);
    size_t n = 0, room = 0;
    for (int k = 0; k <= t->n_others; k++) {
        const soma_trainer *source = k ? &t->others[k - 1] : t;
        for (int64_t i = 0; i < source->n_training; i++) room += 1 + (size_t)source->data->episodes[source->training[i]].n_others;
    }
    const char **prompts = soma__calloc(room, sizeof *prompts);
    if (!prompts) return soma__no_memory(err, "the vocabulary");
    for (int k = 0; k <= t->n_others; k++) {
        const soma_trainer *source = k ? &t->others[k - 1] : t;
        for (int64_t i = 0; i < source->n_training; i++) {
            const soma_episode *e = &source->data->episodes[source->training[i]];
            prompts[n++] = e->task;
            for (int o = 0; o < e->n_others && t->changes.any_prompt; o++) prompts[n++] = e->others[o];
        }
    }
    soma_status status = soma__text_from_prompts(&t->robot.text, prompts, n, err);
    soma__free(prompts);
    return status;
}

static soma_status write_vocabulary(const soma_trainer *t, soma_error *err) {
    char path[SOMA_PATH_MAX];
    const char *given = given_vocabulary(t);
    if (!t->robot.text) return SOMA_OK;
    if (given) return soma__text_copy(given, t->o.out, err);
    SOMA_TRY(soma__path_join(path, t->o.out, "vocab.json", err));
    return soma__text_save(t->robot.text, path, err);
}

static soma_status write_folder(soma_trainer *t, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(soma__dir_make(t->o.out, err));
    json_t *config = t->model->family->config(t->model), *robot = soma__robot_json(&t->robot),
           *train = soma__opts_to_json(&soma_train_opts_table, &t->o);
    if (config && robot) json_object_set(config, "robot", robot);
    if (train) json_object_del(train, "resume");
    soma_status status = config && robot && train ? SOMA_OK : soma__no_memory(err, "the config");
    if (status == SOMA_OK) status = soma__path_join(path, t->o.out, "config.json", err);
    if (status == SOMA_OK) status = soma__json_save(config, path, err);
    if (status == SOMA_OK) status = soma__path_join(path, t->o.out, "train_config.json", err);
    if (status == SOMA_OK) status = soma__json_save(train, path, err);
    if (status == SOMA_OK) status = soma__path_join(path, t->o.out, "norm_stats.json", err);
    if (status == SOMA_OK) status = soma__norm_stats_write(t->robot.stats, path, err);
    for (int k = 0; k < t->n_others && status == SOMA_OK; k++) { // for a robot's file that is to act like this dataset's
        char name[40];
        snprintf(name, sizeof name, "norm_stats_%d.json", k + 2);
        status = soma__path_join(path, t->o.out, name, err);
        if (status == SOMA_OK) status = soma__norm_stats_write(t->others[k].robot.stats, path, err);
    }
    if (status == SOMA_OK) status = write_vocabulary(t, err);
    if (status == SOMA_OK && t->writing.fast) status = soma__path_join(path, t->o.out, "fast", err);
    if (status == SOMA_OK && t->writing.fast) status = soma__fast_save(t->writing.fast, path, err);
    json_decref(config);
    json_decref(robot);
    json_decref(train);
    return status;
}

// ---- the loader and the order of it all

// Pictures that are larger than the model's are kept as the model sees them, where that is what the robot's filter makes of them anyway:
// more of them fit, and the trainer's thread has less to do.
int soma__trainer_picture_side(const soma_trainer *t) {
    if (soma__image_width(&t->model->info) != t->model->info.image_size) return 0;
    int64_t side = t->model->info.image_size, largest = 0;
    for (int c = 0; c < t->robot.n_cameras; c++) largest = SOMA_MAX(largest, t->data->features[t->camera_features[c]].size / 3);
    return t->robot.resize == SOMA_RESIZE_PIL && largest > side * side ? (int)side : 0;
}

static void show_reading(void *user, int64_t done, int64_t total) {
    const soma_train_watch *w = user;
    w->show(w->user, "read data", done, total);
}

// One of n_sources datasets that share the memory and together give `batch` rows at a time.
static soma_status make_loader(soma_loader **loader, soma_trainer *t, const int64_t *episodes, int64_t n, int64_t batch, uint64_t seed,
                               int n_sources, soma_error *err) {
    soma_loader_opts o = soma__loader_defaults();
    o.state = t->state_feature;
    o.action = t->action_feature;
    o.n_cameras = t->robot.n_cameras;
    memcpy(o.cameras, t->camera_features, sizeof(int) * (size_t)t->robot.n_cameras);
    o.episodes = episodes;
    o.n_episodes = n;
    o.horizon = t->model->info.horizon;
    o.history = t->model->info.history;
    o.batch = batch;
    o.workers = (int)t->o.workers;
    o.side = soma__trainer_picture_side(t);
    if (t->o.cache > 0) o.cache_size = (size_t)(t->o.cache * (1 << 30));
    o.cache_size /= (size_t)n_sources;
    o.vectors_size /= (size_t)n_sources;
    if (n_sources > 1) o.queue = 2;
    o.folder = t->o.cache_folder;
    o.folder_size = (size_t)(t->o.cache_disk * (1 << 30));
    o.seed = seed;
    o.user = &t->watch;
    if (t->watch.show) o.progress = show_reading;
    return soma__loader_open(loader, t->data, &o, err);
}

static soma_status check_options(const soma_train_opts *o, soma_error *err) {
    if (!*o->data) return soma__fail(err, SOMA_BAD_INPUT, "--data names the folder of a dataset");
    if (!*o->out) return soma__fail(err, SOMA_BAD_INPUT, "--out names the folder that the policy goes to");
    if (o->steps < 0 || o->batch < 1 || o->draws < 1 || o->accumulate < 1 || o->batch % o->accumulate)
        return soma__fail(err, SOMA_BAD_INPUT, "steps >= 0, batch >= 1, draws >= 1, and batch a multiple of accumulate are needed");
    if (o->warmup < 0 || o->mean_steps < 0 || o->eval_every < 1 || o->save_every < 1 || o->holdout_share < 0 || o->holdout_share > 0.5)
        return soma__fail(err, SOMA_BAD_INPUT,
                          "warmup >= 0, mean_steps >= 0, eval_every >= 1, save_every >= 1 and a holdout_share of 0 to 0.5 are needed");
    if (!(o->cache >= 0 && o->cache <= 1 << 20)) return soma__fail(err, SOMA_BAD_INPUT, "a cache of %g GiB is not possible", o->cache);
    if (!(o->cache_disk >= 0 && o->cache_disk <= 1 << 20))
        return soma__fail(err, SOMA_BAD_INPUT, "a cache_disk of %g GiB is not possible", o->cache_disk);
    if (strcmp(o->dtype, "bf16") && strcmp(o->dtype, "f32"))
        return soma__fail(err, SOMA_BAD_INPUT, "dtype \"%.20s\": bf16 or f32 are possible", o->dtype);
    if (strcmp(o->keep, "best") && strcmp(o->keep, "last"))
        return soma__fail(err, SOMA_BAD_INPUT, "keep \"%.20s\": best or last are possible", o->keep);
    if (*o->init && *o->vlm)
        return soma__fail(err, SOMA_BAD_INPUT, "--init has all weights of a checkpoint, --vlm a part of them: one of the two");
    return SOMA_OK;
}

static soma_status prepare_data(soma_trainer *t, bool run, soma_error *err) {
    char name[SOMA_OPT_TEXT];
    list_item(name, t->o.data, t->place);
    SOMA_TRY(soma__dataset_open(&t->data, name, err));
    SOMA_TRY(make_robot(t, err));
    if (run || !t->o.skip_bad) SOMA_TRY(screen(t, err));
    SOMA_TRY(split(t, err));
    return run && t->changes.any_prompt ? soma__dataset_read_instructions(t->data, t->training, t->n_training, err) : SOMA_OK;
}

soma_status soma__trainer_prepare(soma_trainer *t, const soma_train_opts *opts, bool run, const soma_train_watch *watch, soma_error *err) {
    SOMA_OPTS_CHECK(opts);
    *t = (soma_trainer){.o = *opts, .best = INFINITY};
    if (watch) t->watch = *watch;
    soma_status status = check_options(&t->o, err);
    if (status == SOMA_OK) status = soma__changes_parse(&t->changes, &t->o, err);
    if (status == SOMA_OK) status = prepare_data(t, run, err);
    if (status == SOMA_OK) status = open_others(t, run, err);
    t->robot.cameras_optional |= t->changes.drop_camera > 0;
    if (status == SOMA_OK) status = make_model(t, err);
    if (status == SOMA_OK) status = soma__changes_check(&t->changes, &t->robot, t->model, err);
    if (status == SOMA_OK) status = soma__trainer_adapt(t, err);
    if (status != SOMA_OK) soma__trainer_close(t);
    return status;
}

// A further dataset's robot sees the model as the first one's does.
static soma_status join(soma_trainer *s, const soma_trainer *t, soma_error *err) {
    s->model = t->model;
    s->robot.text = t->robot.text;
    s->robot.resize = t->robot.resize;
    s->robot.form = t->robot.form;
    s->robot.cameras_optional = true;
    settle_slots(s, t);
    SOMA_TRY(take_statistics(s, err));
    return soma__robot_check(&s->robot, s->model, s->data->path, err);
}

// The rows of training, or of the held-out episodes.
static soma_status make_mixture(soma_mixture *m, soma_trainer *t, bool heldout, int64_t batch, soma_error *err) {
    double weights[SOMA_MIXTURE_MOST];
    SOMA_TRY(read_weights(weights, t, err));
    *m = (soma_mixture){.n = 1 + t->n_others, .seed = heldout ? 1 : (uint64_t)t->o.seed, .batch = batch};
    for (int k = 0; k < m->n; k++) {
        soma_trainer *s = k ? &t->others[k - 1] : t;
        int64_t n = heldout ? s->n_heldout : s->n_training;
        if (n) SOMA_TRY(make_loader(&m->loaders[k], s, heldout ? s->heldout : s->training, n, batch, m->seed + (uint64_t)k, m->n, err));
    }
    soma__mixture_weigh(m, weights);
    return SOMA_OK;
}

static bool any_heldout(const soma_trainer *t) {
    bool any = t->n_heldout > 0;
    for (int k = 0; k < t->n_others; k++) any = any || t->others[k].n_heldout > 0;
    return any;
}

soma_status soma__trainer_open(soma_trainer *t, const soma_train_opts *opts, const soma_train_watch *watch, soma_error *err) {
    SOMA_TRY(soma__trainer_prepare(t, opts, true, watch, err));
    soma_device_opts d = {.threads = (int)t->o.threads, .isa = t->o.isa};
    soma_status status = take_statistics(t, err);
    if (status == SOMA_OK) status = make_vocabulary(t, err);
    if (status == SOMA_OK) status = soma__robot_check(&t->robot, t->model, t->data->path, err);
    for (int k = 0; k < t->n_others && status == SOMA_OK; k++) status = join(&t->others[k], t, err);
    if (status == SOMA_OK && t->model->info.answer.max)
        status = soma__writing_open(&t->writing, *t->o.init ? t->o.init : t->o.out, t->o.action_tokenizer, &t->robot, t->model, err);
    if (status == SOMA_OK) status = write_folder(t, err);
    if (status == SOMA_OK) status = soma__device_open(&t->device, "cpu", &d, err);
    if (status == SOMA_OK) status = soma__trainer_weights(t, err);
    int64_t n = t->o.batch / t->o.accumulate;
    if (status == SOMA_OK && t->o.steps) {
        status = soma__pass_new(&t->pass, t, n, t->o.draws, true, err);
        t->mean_pass.mean = true;
        if (status == SOMA_OK && t->o.mean_steps) status = soma__pass_new(&t->mean_pass, t, n, 1, true, err);
        if (status == SOMA_OK) status = make_mixture(&t->rows, t, false, n, err);
        if (status == SOMA_OK && any_heldout(t)) status = soma__pass_new(&t->look, t, n, t->o.draws, false, err);
        if (status == SOMA_OK && any_heldout(t)) status = make_mixture(&t->looks, t, true, n, err);
    }
    if (status == SOMA_OK && t->o.resume) status = soma__trainer_resume(t, err);
    if (status != SOMA_OK) soma__trainer_close(t);
    return status;
}

void soma__trainer_close(soma_trainer *t) {
    soma__mixture_close(&t->rows);
    soma__mixture_close(&t->looks);
    close_others(t);
    soma__pass_free(&t->pass);
    soma__pass_free(&t->look);
    soma__pass_free(&t->mean_pass);
    soma__optimiser_free(t->optimiser);
    soma__params_free(t->params);
    soma__params_free(t->still);
    soma__adapters_free(&t->change);
    soma__device_close(t->device);
    soma__writing_close(&t->writing);
    soma__robot_close(&t->robot);
    soma__model_free(t->model);
    soma__dataset_close(t->data);
    soma__free(t->training);
    soma__free(t->heldout);
    *t = (soma_trainer){0};
}
