// SPDX-License-Identifier: Apache-2.0
// Two ways: exact (data/exact.h), and openpi's running histograms, whose numbers released policies were normalised with.
#include "train/statistics.h"
#include "transform/running.h"

static soma_status read_raw(const soma_statistics_opts *o, soma_dataset_reader *reader, int64_t episode, float *states, float *actions,
                            soma_error *err) {
    SOMA_TRY(o->data->format->read_vectors(reader, episode, o->state_feature, states, err));
    return o->data->format->read_vectors(reader, episode, o->action_feature, actions, err);
}

// ---- exact

static soma_status read_converted(void *user, soma_dataset_reader *reader, int64_t episode, float *out, soma_error *err) {
    const soma_statistics_opts *o = user;
    int64_t n = o->data->episodes[episode].n_frames;
    float *actions = out + n * o->robot->n_state;
    SOMA_TRY(read_raw(o, reader, episode, out, actions, err));
    soma__robot_convert(o->robot, out, actions, n);
    return SOMA_OK;
}

static soma_status take_exact(soma_column_stats *stats, const soma_statistics_opts *o, int *reads, soma_error *err) {
    int N = o->robot->n_state, A = o->robot->n_actions;
    soma_exact_column *columns = soma__alloc((size_t)(N + A) * sizeof *columns);
    if (!columns) return soma__no_memory(err, "statistics");
    for (int i = 0; i < N; i++) columns[i] = (soma_exact_column){i, -1, 1};
    for (int i = 0; i < A; i++) columns[N + i] = (soma_exact_column){N + i, i < N && o->robot->delta[i] ? i : -1, o->horizon};
    soma_exact x = {.dataset = o->data,
                    .episodes = o->episodes,
                    .n_episodes = o->n_episodes,
                    .pool = o->pool,
                    .memory = o->memory,
                    .row = N + A,
                    .split = N,
                    .read = read_converted,
                    .user = (void *)(uintptr_t)o,
                    .progress = o->progress,
                    .progress_user = o->progress_user,
                    .n_columns = N + A,
                    .n_quantiles = o->n_quantiles,
                    .columns = columns,
                    .quantiles = o->quantiles};
    soma_status status = soma__exact_take(stats, &x, reads, err);
    soma__free(columns);
    return status;
}

// ---- openpi's

typedef struct running {
    const soma_statistics_opts *o;
    soma_running *state, *actions;
    float *states, *values;           // an episode as it is read
    double *state_rows, *action_rows; // and as it is counted: [n, N], [n, horizon, A]
} running;

static void add_episode(running *r, int64_t n) {
    const soma_robot *robot = r->o->robot;
    int N = robot->n_state, A = robot->n_actions;
    int64_t S = r->o->horizon;
    for (int64_t f = 0; f < n; f++) {
        double *state = r->state_rows + f * N;
        soma__robot_state(robot, r->states + f * N, state);
        for (int64_t s = 0; s < S; s++)
            soma__robot_action(robot, state, r->values + SOMA_MIN(f + s, n - 1) * A, r->action_rows + (f * S + s) * A);
    }
    soma__running_add(r->state, r->state_rows, n);
    soma__running_add(r->actions, r->action_rows, n * S);
}

static soma_status add_episodes(running *r, soma_error *err) {
    const soma_statistics_opts *o = r->o;
    soma_dataset_reader *reader;
    SOMA_TRY(o->data->format->reader_open(&reader, o->data, err));
    soma_status status = SOMA_OK;
    for (int64_t i = 0; i < o->n_episodes && status == SOMA_OK; i++) {
        int64_t n = o->data->episodes[o->episodes[i]].n_frames;
        if (n) status = read_raw(o, reader, o->episodes[i], r->states, r->values, err);
        if (n && status == SOMA_OK) add_episode(r, n);
        if (status == SOMA_OK && o->progress && !o->progress(o->progress_user, i + 1, o->n_episodes))
            status = soma__fail(err, SOMA_CANCELLED, "stopped");
    }
    o->data->format->reader_close(reader);
    return status;
}

static soma_status put_running(soma_column_stats *stats, const soma_running *r, const soma_statistics_opts *o, int width, const char *key,
                               soma_error *err) {
    soma_norm norm;
    SOMA_TRY(soma__running_norm((soma_running *)(uintptr_t)r, &norm, key, err));
    for (int i = 0; i < width; i++) {
        stats[i] = (soma_column_stats){(double)soma__running_count(r), norm.mean[i], norm.std[i], norm.min[i], norm.max[i], {0}};
        for (int q = 0; q < o->n_quantiles; q++) stats[i].quantiles[q] = soma__running_quantile(r, i, o->quantiles[q]);
    }
    return SOMA_OK;
}

static soma_status take_running(soma_column_stats *stats, const soma_statistics_opts *o, soma_error *err) {
    size_t longest = 0, N = (size_t)o->robot->n_state, A = (size_t)o->robot->n_actions, S = (size_t)o->horizon;
    for (int64_t i = 0; i < o->n_episodes; i++) longest = SOMA_MAX(longest, (size_t)o->data->episodes[o->episodes[i]].n_frames);
    running r = {.o = o};
    r.states = soma__alloc((longest * N + 1) * sizeof *r.states);
    r.values = soma__alloc((longest * A + 1) * sizeof *r.values);
    r.state_rows = soma__alloc((longest * N + 1) * sizeof *r.state_rows);
    r.action_rows = soma__alloc((longest * S * A + 1) * sizeof *r.action_rows);
    soma_status status = r.states && r.values && r.state_rows && r.action_rows ? SOMA_OK : soma__no_memory(err, "an episode");
    if (status == SOMA_OK) status = soma__running_new(&r.state, (int)N, err);
    if (status == SOMA_OK) status = soma__running_new(&r.actions, (int)A, err);
    if (status == SOMA_OK) status = add_episodes(&r, err);
    if (status == SOMA_OK) status = put_running(stats, r.state, o, (int)N, "state", err);
    if (status == SOMA_OK) status = put_running(stats + N, r.actions, o, (int)A, "actions", err);
    soma__running_free(r.state);
    soma__running_free(r.actions);
    soma__free(r.states);
    soma__free(r.values);
    soma__free(r.state_rows);
    soma__free(r.action_rows);
    return status;
}

soma_status soma__statistics_take(soma_column_stats *stats, const soma_statistics_opts *o, int *reads, soma_error *err) {
    if (!o->openpi) return take_exact(stats, o, reads, err);
    if (reads) *reads = 1;
    return take_running(stats, o, err);
}

// ---- as policies read them

soma_status soma__statistics_norm(soma_norm_stats **out, const soma_column_stats *stats, const soma_statistics_opts *o, soma_error *err) {
    enum { LISTS = 6, MOST = SOMA_ROBOT_MAX_DIMS };
    SOMA_CHECK(o->n_quantiles >= 2 && o->quantiles[0] == 0.01 && o->quantiles[1] == 0.99, "a policy's statistics have q01 and q99");
    double(*lists)[LISTS][MOST] = soma__alloc(2 * sizeof *lists);
    const int sizes[] = {o->robot->n_state, o->robot->n_actions};
    const char *const keys[] = {"state", "actions"};
    soma_norm norms[2];
    if (!lists) return soma__no_memory(err, "statistics");
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < sizes[k]; i++) {
            const soma_column_stats *s = &stats[(k ? sizes[0] : 0) + i];
            const double values[LISTS] = {s->mean, s->std, s->quantiles[0], s->quantiles[1], s->min, s->max};
            for (int l = 0; l < LISTS; l++) lists[k][l][i] = values[l];
        }
        norms[k] = (soma_norm){keys[k], sizes[k], lists[k][0], lists[k][1], lists[k][2], lists[k][3], lists[k][4], lists[k][5], NULL, NULL};
    }
    soma_status status = soma__norm_stats_new(out, norms, 2, o->data->path, err);
    soma__free(lists);
    return status;
}
