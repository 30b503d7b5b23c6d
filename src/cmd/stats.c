// SPDX-License-Identifier: Apache-2.0
// `soma stats`: the statistics that a robot's states and actions are normalised by, of a dataset, as openpi's compute_norm_stats makes
// them.
#include "cmd/cmd.h"
#include "base/progress.h"
#include "data/dataset.h"
#include "policy/robot.h"
#include "transform/running.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STATS_OPTS(X)                                                                                       \
    X(TEXT, data, "", "folder of a dataset")                                                                \
    X(TEXT, robot, "",                                                                                      \
      "a built-in robot or a JSON file: how states and actions are converted, which actions are relative; " \
      "empty: as they are")                                                                                 \
    X(INT, horizon, 50, "actions in a chunk, each counted once per frame that it is planned from")          \
    X(TEXT, state_key, "", "feature with the robot's state; empty: observation.state, else state")          \
    X(TEXT, action_key, "", "feature with the actions; empty: action, else actions")                        \
    X(TEXT, out, "norm_stats.json", "file to write")
SOMA_OPTS_DECLARE(stats_opts, STATS_OPTS)
#define OPTS_TYPE stats_opts
SOMA_OPTS_DEFINE_LOCAL(stats_opts, STATS_OPTS, stats_defaults)
#undef OPTS_TYPE

typedef struct job {
    const stats_opts *o;
    soma_dataset *data;
    int state_feature, action_feature;
    soma_robot robot;
    soma_running *state, *actions;
    int64_t episodes, frames;
} job;

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
    r->n_state = (int)j->data->features[j->state_feature].size;
    r->n_actions = (int)j->data->features[j->action_feature].size;
    return *j->o->robot ? soma__robot_adopt(r, j->o->robot, j->data->path, err) : SOMA_OK;
}

// One episode: every frame's state, and the chunk planned from it, which repeats the last action past the end.
static void add_episode(job *j, const float *states, const float *actions, int64_t n, double *state_rows, double *action_rows) {
    int N = j->robot.n_state, A = j->robot.n_actions;
    int64_t S = j->o->horizon;
    for (int64_t f = 0; f < n; f++) {
        double *state = state_rows + f * N;
        soma__robot_state(&j->robot, states + f * N, state);
        for (int64_t s = 0; s < S; s++)
            soma__robot_action(&j->robot, state, actions + SOMA_MIN(f + s, n - 1) * A, action_rows + (f * S + s) * A);
    }
    soma__running_add(j->state, state_rows, n);
    soma__running_add(j->actions, action_rows, n * S);
}

static soma_status add_episodes(job *j, soma_error *err) {
    const soma_dataset *d = j->data;
    int64_t longest = 0;
    for (int64_t e = 0; e < d->n_episodes; e++)
        if (d->episodes[e].present) longest = SOMA_MAX(longest, d->episodes[e].n_frames);
    size_t L = (size_t)longest + 1, N = (size_t)j->robot.n_state, A = (size_t)j->robot.n_actions, S = (size_t)j->o->horizon;
    float *states = soma__alloc(L * N * sizeof *states), *actions = soma__alloc(L * A * sizeof *actions);
    double *state_rows = soma__alloc(L * N * sizeof *state_rows), *action_rows = soma__alloc(L * S * A * sizeof *action_rows);
    soma_dataset_reader *reader = NULL;
    soma_progress progress = soma__progress_start("stats", d->n_episodes);
    soma_status status = states && actions && state_rows && action_rows ? SOMA_OK : soma__no_memory(err, "an episode");
    if (status == SOMA_OK) status = d->format->reader_open(&reader, d, err);
    for (int64_t e = 0; e < d->n_episodes && status == SOMA_OK; e++) {
        int64_t n = d->episodes[e].n_frames;
        if (!d->episodes[e].present || !n) continue;
        status = d->format->read_vectors(reader, e, j->state_feature, states, err);
        if (status == SOMA_OK) status = d->format->read_vectors(reader, e, j->action_feature, actions, err);
        if (status == SOMA_OK) add_episode(j, states, actions, n, state_rows, action_rows);
        j->episodes++;
        j->frames += n;
        soma__progress_show(&progress, e + 1, NULL);
        if (status == SOMA_OK && soma__cmd_interrupted()) status = soma__fail(err, SOMA_CANCELLED, "stopped; nothing was written");
    }
    soma__progress_end(&progress, d->n_episodes, NULL);
    if (reader) d->format->reader_close(reader);
    soma__free(states);
    soma__free(actions);
    soma__free(state_rows);
    soma__free(action_rows);
    return status;
}

static soma_status make(job *j, soma_error *err) {
    soma_norm norms[2];
    soma_norm_stats *stats = NULL;
    if (!*j->o->data) return soma__fail(err, SOMA_BAD_INPUT, "--data is missing: the folder of a dataset");
    if (j->o->horizon < 1 || j->o->horizon > 4096)
        return soma__fail(err, SOMA_BAD_INPUT, "--horizon %" PRId64 ": 1 to 4096 actions are possible", j->o->horizon);
    SOMA_TRY(soma__dataset_open(&j->data, j->o->data, err));
    SOMA_TRY(find_vector(&j->state_feature, j->data, j->o->state_key, "observation.state", "state", err));
    SOMA_TRY(find_vector(&j->action_feature, j->data, j->o->action_key, "action", "actions", err));
    SOMA_TRY(read_robot(j, err));
    SOMA_TRY(soma__running_new(&j->state, j->robot.n_state, err));
    SOMA_TRY(soma__running_new(&j->actions, j->robot.n_actions, err));
    SOMA_TRY(add_episodes(j, err));
    SOMA_TRY(soma__running_norm(j->state, &norms[0], "state", err));
    SOMA_TRY(soma__running_norm(j->actions, &norms[1], "actions", err));
    SOMA_TRY(soma__norm_stats_new(&stats, norms, 2, j->data->path, err));
    soma_status status = soma__norm_stats_write(stats, j->o->out, err);
    soma__norm_stats_free(stats);
    return status;
}

static int run(int argc, char **argv) {
    stats_opts o = stats_defaults();
    soma_cmd cmd = {
        .usage = "--data DIR [--robot NAME|FILE] [options]",
        .about = "Takes the statistics of a dataset's states and actions: mean, deviation and the quantiles at 1 and 99 %, over chunks of\n"
                 "actions as a policy learns them, converted and relative where the robot says so. The numbers are those of\n"
                 "openpi's compute_norm_stats, the file is its norm_stats.json.\n\n"
                 "Example:\n  soma stats --data demonstrations --robot pi0_aloha --out assets/trossen/norm_stats.json\n",
        .has_json = true,
        .has_config = true,
        .groups = {{&stats_opts_table, &o, "options"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    soma__cmd_catch_interrupt();
    soma_error err = {0};
    job j = {.o = &o};
    soma_status status = make(&j, &err);
    soma__running_free(j.state);
    soma__running_free(j.actions);
    soma__dataset_close(j.data);
    if (status != SOMA_OK) return soma__cmd_fail(&cmd, &err);
    if (cmd.json)
        return soma__cmd_print_json(
            &cmd, json_pack("{s:s, s:I, s:I}", "file", o.out, "episodes", (json_int_t)j.episodes, "frames", (json_int_t)j.frames));
    printf("%s: %" PRId64 " episodes, %" PRId64 " frames\n", o.out, j.episodes, j.frames);
    return SOMA_EXIT_OK;
}

const soma_verb soma__verb_stats = {"stats", "statistics of a dataset, for normalisation", run};
