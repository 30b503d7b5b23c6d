// SPDX-License-Identifier: Apache-2.0
// `soma stats`, also as `soma data stats`: the statistics that a robot's states and actions are normalised by, of a dataset, in the files
// that openpi, LeRobot and GR00T read.
#include "base/progress.h"
#include "cmd/cmd_stats.h"
#include "data/screen.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STATS_OPTS(X)                                                                                                      \
    X(TEXT, data, "", "folder of a dataset; may also be named without --data")                                             \
    X(TEXT, robot, "",                                                                                                     \
      "a built-in robot or a JSON file: how states and actions are converted, which actions are relative; "                \
      "empty: as they are")                                                                                                \
    X(FLAG, delta, false, "actions relative to the state they are planned at (grippers stay absolute), without --robot")   \
    X(INT, horizon, 50, "actions in a chunk, each counted once per frame that it is planned from")                         \
    X(TEXT, state_key, "", "feature with the robot's state; empty: observation.state, else state")                         \
    X(TEXT, action_key, "", "feature with the actions; empty: action, else actions")                                       \
    X(TEXT, quantiles, "exact", "exact, or openpi: as its histograms of 5,000 bins tell them (one thread)")                \
    X(TEXT, quantile, "", "which, separated by commas, such as 0.01,0.5,0.999; empty: those of the form")                  \
    X(REAL, memory, 2, "GiB that numbers may take at once; a dataset with more is read twice")                             \
    X(INT, threads, 0, "threads; 0: as many as processors; the result is the same for any number")                         \
    X(FLAG, skip_bad, false, "leave out episodes that cannot be read, instead of ending there")                            \
    X(TEXT, form, "openpi", "openpi (norm_stats.json), lerobot (meta/stats.json) or groot (experiment_cfg/metadata.json)") \
    X(TEXT, tag, "new_embodiment", "groot: the robot's embodiment tag")                                                    \
    X(TEXT, out, "norm_stats.json", "file to write")
SOMA_OPTS_DECLARE(stats_opts, STATS_OPTS)
#define OPTS_TYPE stats_opts
SOMA_OPTS_DEFINE_LOCAL(stats_opts, STATS_OPTS, stats_defaults)
#undef OPTS_TYPE

typedef struct job {
    const stats_opts *o;
    soma_dataset *data;
    soma_robot robot;
    soma_statistics_opts how;
    soma_column_stats *stats; // [n_state + n_actions]
    int64_t *episodes;
    double quantiles[SOMA_TALLY_QUANTILES];
    int64_t frames, skipped;
    int reads;
    double seconds;
    soma_progress progress;
} job;

// ---- what to take

static soma_status find_vector(int *feature, const soma_dataset *data, const char *given, const char *first, const char *second,
                               soma_error *err) {
    *feature = soma__dataset_feature(data, *given ? given : first);
    if (*feature < 0 && !*given) *feature = soma__dataset_feature(data, second);
    const soma_feature *f = *feature < 0 ? NULL : &data->features[*feature];
    if (f && f->kind == SOMA_FEATURE_VECTOR && f->size >= 1 && f->size <= SOMA_ROBOT_MAX_DIMS) return SOMA_OK;
    return soma__fail(err, SOMA_NOT_FOUND, "%s: \"%s\" is no feature of at most %d numbers", data->path, *given ? given : first,
                      SOMA_ROBOT_MAX_DIMS);
}

static soma_status read_robot(job *j, soma_error *err) {
    soma_robot *r = &j->robot;
    const soma_feature *state = &j->data->features[j->how.state_feature], *action = &j->data->features[j->how.action_feature];
    r->n_state = (int)state->size;
    r->n_actions = (int)action->size;
    if (*j->o->robot && j->o->delta)
        return soma__fail(err, SOMA_BAD_INPUT, "--delta and --robot: the robot says which actions are relative");
    if (j->o->delta && r->n_state != r->n_actions)
        return soma__fail(err, SOMA_BAD_INPUT, "--delta needs states and actions of one length; %s has %d and %d", j->data->path,
                          r->n_state, r->n_actions);
    for (int i = 0; i < r->n_actions; i++) r->delta[i] = j->o->delta && !(action->names && strstr(action->names[i], "gripper"));
    return *j->o->robot ? soma__robot_adopt(r, j->o->robot, j->data->path, err) : SOMA_OK;
}

static soma_status read_quantiles(job *j, const char *list, soma_error *err) {
    int n = 0;
    for (const char *p = list; *p;) {
        char *end;
        double q = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(q >= 0 && q <= 1) || n == SOMA_TALLY_QUANTILES)
            return soma__fail(err, SOMA_BAD_INPUT, "--quantile %s: wanted at most %d numbers from 0 to 1, separated by commas", list,
                              SOMA_TALLY_QUANTILES);
        j->quantiles[n++] = q;
        p = *end ? end + 1 : end;
    }
    j->how.quantiles = j->quantiles;
    j->how.n_quantiles = n;
    return SOMA_OK;
}

static soma_status screen(job *j, soma_error *err) {
    const int features[] = {j->how.state_feature, j->how.action_feature};
    const soma_screen how = {.skip_bad = j->o->skip_bad, .features = features, .n_features = 2, .threads = (int)j->o->threads};
    return soma__dataset_screen(&j->skipped, j->data, &how, err);
}

static soma_status list_episodes(job *j, soma_error *err) {
    const soma_dataset *d = j->data;
    j->episodes = soma__alloc(((size_t)d->n_episodes + 1) * sizeof *j->episodes);
    if (!j->episodes) return soma__no_memory(err, "the list of episodes");
    for (int64_t e = 0; e < d->n_episodes; e++) {
        if (!d->episodes[e].present || !d->episodes[e].n_frames) continue;
        j->episodes[j->how.n_episodes++] = e;
        j->frames += d->episodes[e].n_frames;
    }
    j->how.episodes = j->episodes;
    return j->how.n_episodes ? SOMA_OK : soma__fail(err, SOMA_NOT_FOUND, "%s: has no episode that can be read", d->path);
}

static bool show(void *user, int64_t done, int64_t total) {
    soma_progress *progress = user;
    progress->total = total;
    soma__progress_show(progress, done, NULL);
    return !soma__cmd_interrupted();
}

static soma_status check_options(const stats_opts *o, soma_error *err) {
    if (!*o->data) return soma__fail(err, SOMA_BAD_INPUT, "--data is missing: the folder of a dataset (soma stats DIR)");
    if (o->horizon < 1 || o->horizon > 4096)
        return soma__fail(err, SOMA_BAD_INPUT, "--horizon %" PRId64 ": 1 to 4096 actions are possible", o->horizon);
    if (strcmp(o->quantiles, "exact") && strcmp(o->quantiles, "openpi"))
        return soma__fail(err, SOMA_BAD_INPUT, "--quantiles %.40s: exact or openpi are possible", o->quantiles);
    if (!(o->memory >= 0 && o->memory <= 1 << 20)) return soma__fail(err, SOMA_BAD_INPUT, "--memory %g GiB is not possible", o->memory);
    return soma__cmd_stats_check(o->form, err);
}

static soma_status make(job *j, soma_error *err) {
    soma_statistics_opts *h = &j->how;
    const char *quantiles = soma__cmd_stats_quantiles(j->o->form);
    SOMA_TRY(check_options(j->o, err));
    SOMA_TRY(read_quantiles(j, *j->o->quantile ? j->o->quantile : quantiles, err));
    SOMA_TRY(soma__dataset_open(&j->data, j->o->data, err));
    SOMA_TRY(find_vector(&h->state_feature, j->data, j->o->state_key, "observation.state", "state", err));
    SOMA_TRY(find_vector(&h->action_feature, j->data, j->o->action_key, "action", "actions", err));
    SOMA_TRY(read_robot(j, err));
    SOMA_TRY(screen(j, err));
    SOMA_TRY(list_episodes(j, err));
    SOMA_TRY(soma__pool_new(&h->pool, (int)j->o->threads, err));
    j->stats = soma__alloc((size_t)(j->robot.n_state + j->robot.n_actions) * sizeof *j->stats);
    if (!j->stats) return soma__no_memory(err, "statistics");
    h->data = j->data;
    h->robot = &j->robot;
    h->horizon = j->o->horizon;
    h->openpi = !strcmp(j->o->quantiles, "openpi");
    h->memory = (size_t)(j->o->memory * (1 << 30));
    h->progress = show;
    h->progress_user = &j->progress;
    struct timespec from, to;
    j->progress = soma__progress_start("stats", h->n_episodes);
    clock_gettime(CLOCK_MONOTONIC, &from);
    soma_status status = soma__statistics_take(j->stats, h, &j->reads, err);
    clock_gettime(CLOCK_MONOTONIC, &to);
    soma__progress_end(&j->progress, j->progress.total, NULL);
    j->seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    return status == SOMA_OK ? soma__cmd_stats_write(j->o->out, j->o->form, j->o->tag, h, j->stats, err) : status;
}

static int run(int argc, char **argv) {
    stats_opts o = stats_defaults();
    soma_cmd cmd = {
        .usage = "DIR [--robot NAME|FILE] [options]",
        .about =
            "Takes the statistics of a dataset's states and actions: mean, deviation, limits and quantiles, over chunks of actions as\n"
            "a policy learns them, converted and relative where the robot says so. No picture is decoded. `soma data stats` is the\n"
            "same.\n\n"
            "Examples:\n"
            "  soma stats demonstrations --robot pi0_aloha --out assets/trossen/norm_stats.json\n"
            "  soma stats demonstrations --quantiles openpi\n"
            "  soma data stats demonstrations --delta --horizon 50 --quantile 0.01,0.5,0.99,0.999\n"
            "  soma data stats demonstrations --form lerobot --out demonstrations/meta/stats.json\n",
        .has_json = true,
        .has_config = true,
        .max_words = 1,
        .groups = {{&stats_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    if (cmd.n_words && *o.data) return soma__cmd_usage(&cmd, "\"%s\" and --data: one dataset at a time", cmd.words[0]);
    if (cmd.n_words && snprintf(o.data, sizeof o.data, "%s", cmd.words[0]) >= (int)sizeof o.data)
        return soma__cmd_usage(&cmd, "the dataset's name is too long");
    soma__cmd_catch_interrupt();
    soma_error err = {0};
    job j = {.o = &o};
    soma_status status = make(&j, &err);
    soma__pool_free(j.how.pool);
    soma__dataset_close(j.data);
    soma__free(j.episodes);
    soma__free(j.stats);
    if (status != SOMA_OK) return soma__cmd_fail(&cmd, &err);
    if (cmd.json)
        return soma__cmd_print_json(&cmd, json_pack("{s:s, s:s, s:I, s:I, s:I, s:i, s:f}", "file", o.out, "form", o.form, "episodes",
                                                    (json_int_t)j.how.n_episodes, "frames", (json_int_t)j.frames, "skipped",
                                                    (json_int_t)j.skipped, "reads", j.reads, "seconds", j.seconds));
    printf("%s: %" PRId64 " episodes, %" PRId64 " frames, read %s in %.2f s\n", o.out, j.how.n_episodes, j.frames,
           j.reads > 1 ? "twice" : "once", j.seconds);
    if (j.skipped) printf("%" PRId64 " damaged parts were left out\n", j.skipped);
    return SOMA_EXIT_OK;
}

const soma_verb soma__verb_stats = {"stats", "statistics of a dataset, for normalisation", run};
