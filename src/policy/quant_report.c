// SPDX-License-Identifier: Apache-2.0
// The policy is opened once for each dtype and given the same observation and noise; what the f32 run computed is kept and compared with.
// Outliers are made in a copy of the weights' file in memory.
#include "policy/quant_report.h"

#include "base/hash.h"
#include "base/rng.h"
#include "policy/adapter.h"
#include "policy/plan_set.h"
#include "policy/policy.h"
#include "policy/published.h"
#include "policy/robot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OUTLIER = 30, SIDE = 64 }; // how many times larger; pixels of a made-up picture
static const size_t weights_max = (size_t)64 << 30;

typedef struct work {
    const soma_quant_opts *o;
    soma_quant_report *out;
    soma_device *device; // borrowed
    soma_published c;
    soma_robot robot;
    soma_rows rows;
    soma_feed feed;
    soma_time_rule time;
    char *bytes; // of the weights' file, with outliers; NULL: none
    size_t size;
    soma_saving saving;
    float *kept[2]; // of the f32 run: keys and values of all layers; velocities, the chunk, or logits
    size_t n_kept[2], room[2];
} work;

// ---- outliers

static void enlarge(work *w, soma_safetensor *t, const soma_rng *all) {
    const int64_t N = t->shape[0], K = t->n_values / N, n = SOMA_MAX(1, (int64_t)((double)N * w->o->outliers + 0.5));
    soma_rng rng = soma__rng_fold(all, soma__hash(SOMA_HASH_START, t->name, strlen(t->name)));
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = (int64_t)soma__rng_below(&rng, (uint64_t)N);
        for (int64_t k = row * K; k < (row + 1) * K; k++) {
            float x;
            soma__to_f32(&x, t->dtype, (const char *)t->data + (size_t)k * soma_dtype_size(t->dtype), 1);
            x *= OUTLIER;
            const uint16_t half = soma__to_bf16(x);
            if (t->dtype == SOMA_F32) memcpy((char *)t->data + k * 4, &x, sizeof x);
            if (t->dtype == SOMA_BF16) memcpy((char *)t->data + k * 2, &half, sizeof half);
        }
    }
    w->out->n_channels += n;
}

static soma_status make_outliers(work *w, const char *path, soma_error *err) {
    char file[SOMA_PATH_MAX];
    soma_safetensors *st = NULL;
    const soma_rng all = soma__rng((uint64_t)w->o->seed);
    SOMA_TRY(soma__path_join(file, path, "model.safetensors", err));
    if (!soma__file_exists(file))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: outliers are made in one file, and this is not there", file);
    SOMA_TRY(soma__file_read(&w->bytes, &w->size, file, weights_max, err));
    SOMA_TRY(soma__safetensors_open_bytes(&st, w->bytes, w->size, file, err));
    for (size_t i = 0; i < soma__safetensors_count(st); i++) { // the layers' matrices, which are what is quantised
        soma_safetensor t = *soma__safetensors_at(st, i);
        if (t.n_dims == 2 && strstr(t.name, ".layers.") && !strstr(t.name, "layernorm") && (t.dtype == SOMA_F32 || t.dtype == SOMA_BF16))
            enlarge(w, &t, &all);
    }
    soma__safetensors_close(st);
    return SOMA_OK;
}

// ---- the observation

// Pictures of soft colours, a state of about one, a few words.
static soma_status make_up(work *w, soma_obs *obs, soma_error *err) {
    const soma_robot *r = &w->robot;
    soma_rng rng = soma__rng((uint64_t)w->o->seed);
    float *state = soma__arena_alloc(&w->out->arena, (size_t)r->n_state * sizeof *state);
    uint8_t *pixels = soma__arena_alloc(&w->out->arena, (size_t)r->n_cameras * SIDE * SIDE * 3);
    if (!state || !pixels) return soma__no_memory(err, "an observation");
    soma__rng_normals(&rng, state, (size_t)r->n_state);
    *obs = (soma_obs){.prompt = "pick up the red cube", .state = state, .n_state = r->n_state, .n_images = r->n_cameras};
    for (int c = 0; c < r->n_cameras; c++) {
        double phase[6];
        uint8_t *p = pixels + (size_t)c * SIDE * SIDE * 3;
        for (int i = 0; i < 6; i++) phase[i] = 6.3 * soma__rng_normal(&rng);
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++)
                for (int i = 0; i < 3; i++)
                    p[(y * SIDE + x) * 3 + i] = (uint8_t)(127.5 + 100 * sin(0.15 * x + phase[i]) * cos(0.11 * y + phase[3 + i]));
        obs->images[c] = (soma_image){r->cameras[c], p, SIDE, SIDE};
    }
    return SOMA_OK;
}

// ---- one run

// n more values of the f32 run are kept; any other run's are compared with those kept at the same place.
static soma_status compare(work *w, int which, size_t *at, const float *values, size_t n, double sums[2], bool keep, soma_error *err) {
    if (keep) {
        if (!soma__grow((void **)&w->kept[which], &w->room[which], w->n_kept[which] + n, sizeof *values))
            return soma__no_memory(err, "what was computed in f32");
        memcpy(w->kept[which] + w->n_kept[which], values, n * sizeof *values);
        w->n_kept[which] += n;
    }
    const float *want = w->kept[which] + *at;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)values[i] - (double)want[i];
        sums[0] += d * d;
        sums[1] += (double)want[i] * (double)want[i];
    }
    *at += n;
    return SOMA_OK;
}

static double relative(const double sums[2]) { return sqrt(sums[1] > 0 ? sums[0] / sums[1] : sums[0]); }

static soma_status compare_states(work *w, const soma_plan_set *s, soma_quant_row *row, bool keep, soma_error *err) {
    double sums[2][2] = {{0}};
    size_t at = 0;
    soma_status status = SOMA_OK;
    w->out->layers = 0;
    for (size_t i = 0; status == SOMA_OK && i < s->states.n_slots; i++) {
        const soma_slot *slot = &s->states.slots[i];
        int layer;
        char kind;
        if (sscanf(slot->name, "kv.%d.%c", &layer, &kind) != 2 || slot->dtype != SOMA_F32) continue;
        float *values = soma__alloc(slot->size);
        if (!values) return soma__no_memory(err, "keys and values");
        s->device->kind->get(s->device, values, (const char *)s->state_memory + slot->place, slot->size);
        status = compare(w, 0, &at, values, slot->size / sizeof *values, sums[kind == 'v'], keep, err);
        w->out->layers += kind == 'v';
        soma__free(values);
    }
    row->keys = relative(sums[0]);
    row->values = relative(sums[1]);
    return status;
}

static soma_status compare_output(work *w, const soma_frame *f, const char *name, size_t *at, double *error, bool keep, soma_error *err) {
    const size_t n = (size_t)soma__numel(soma__plan_find(f->plan, name));
    double sums[2] = {0};
    float *values = soma__alloc(n * sizeof *values);
    if (!values) return soma__no_memory(err, "what was computed");
    soma_status status = soma__frame_get(f, name, values, n * sizeof *values, err);
    if (status == SOMA_OK) status = compare(w, 1, at, values, n, sums, keep, err);
    *error = relative(sums);
    soma__free(values);
    return status;
}

static soma_status flow(work *w, soma_plan_set *s, soma_quant_row *row, bool keep, soma_error *err) {
    const soma_model_info *info = &w->c.model->info;
    const size_t n = (size_t)(info->horizon * info->action_dim);
    size_t at = 0;
    float *x = soma__alloc(n * sizeof *x);
    if (!x) return soma__no_memory(err, "a chunk");
    soma_rng rng = soma__rng((uint64_t)w->o->seed + 1);
    soma__rng_normals(&rng, x, n);
    for (size_t i = 0; i < n; i++) x[i] *= (float)info->noise;
    soma_status status = soma__plan_set_begin(s, w->time, err);
    if (status == SOMA_OK) status = compare_states(w, s, row, keep, err);
    for (int64_t k = 0; status == SOMA_OK && k < w->saving.steps; k++) {
        status = soma__plan_set_step(s, k, x, err);
        if (status == SOMA_OK) status = compare_output(w, s->frames[1], "v_t", &at, &row->velocity[k], keep, err);
    }
    if (status == SOMA_OK) status = compare_output(w, s->frames[1], "x_next", &at, &row->chunk, keep, err);
    soma__free(x);
    return status;
}

static soma_status written(work *w, soma_plan_set *s, soma_quant_row *row, bool keep, soma_error *err) {
    size_t at = 0;
    soma__frame_run(s->frames[0]);
    SOMA_TRY(compare_states(w, s, row, keep, err));
    return compare_output(w, s->frames[0], "logits", &at, &row->logits, keep, err);
}

static soma_status run_dtype(work *w, soma_quant_row *row, bool keep, soma_error *err) {
    soma_graph *graphs[SOMA_SET_PLANS] = {0};
    soma_params *params = NULL;
    soma_plan_set *set = NULL;
    soma_build like = soma__build_defaults(SOMA_PROGRAM_ENCODE, 1);
    int n = 0;
    like.image = soma__robot_image_dtype(&w->robot);
    SOMA_TRY(soma__policy_precision(&like.precision, row->dtype, err));
    if (w->bytes && !w->c.weights) SOMA_TRY(soma__safetensors_open_bytes(&w->c.weights, w->bytes, w->size, w->c.path, err));
    soma_status status = soma__set_graphs(graphs, &n, w->c.model, &like, &w->saving, err);
    if (status == SOMA_OK) status = soma__published_params(&params, &w->c, w->device, (const soma_graph *const *)graphs, (size_t)n, err);
    for (int i = 0; i < SOMA_SET_PLANS; i++) soma_graph_free(graphs[i]);
    for (size_t i = 0; status == SOMA_OK && i < params->layout.n_slots; i++) row->size += params->layout.slots[i].size;
    if (status == SOMA_OK) status = soma__plan_set_new(&set, w->device, w->c.model, &like, &w->saving, params, NULL, err);
    if (status == SOMA_OK) status = soma__plan_set_feed(set, &w->feed, err);
    if (status == SOMA_OK)
        status = w->saving.steps && !w->c.model->info.answer.max ? flow(w, set, row, keep, err) : written(w, set, row, keep, err);
    soma__plan_set_free(set);
    soma__params_free(params);
    return status;
}

// ---- all of them

static soma_status prepare(work *w, const char *path, soma_error *err) {
    soma_obs obs;
    if (soma__adapters_here(path))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: an adapter's folder; soma export makes one checkpoint of it and its base", path);
    SOMA_TRY(soma__published_open(&w->c, path, err));
    SOMA_TRY(soma__robot_resolve(w->c.config, path, "", err));
    SOMA_TRY(soma__published_model(&w->c, err));
    SOMA_TRY(soma__robot_open(&w->robot, w->c.config, path, "", w->c.model, err));
    SOMA_TRY(soma__time_rule(&w->time, "", w->c.config, err));
    if (w->o->outliers > 0) {
        SOMA_TRY(make_outliers(w, path, err));
        soma__safetensors_close(w->c.weights);
        w->c.weights = NULL;
    }
    if (!w->o->obs) SOMA_TRY(make_up(w, &obs, err));
    SOMA_TRY(soma__rows_new(&w->rows, &w->robot, w->c.model, 1, err));
    SOMA_TRY(soma__robot_observe(&w->robot, &w->rows, 0, w->o->obs ? w->o->obs : &obs, err));
    soma_batch *b = &w->rows.batch;
    w->saving = soma__batch_saving(&w->c.model->info, b, w->c.model->info.n_steps);
    b->saving = &w->saving;
    return w->c.model->family->prepare(w->c.model, b, &w->feed, err);
}

soma_status soma__quant_report(soma_quant_report *out, const char *path, const soma_quant_opts *opts, soma_device *device,
                               soma_error *err) {
    static const char *const dtypes[SOMA_QUANT_DTYPES] = {"f32", "bf16", "int8", "int8w", "int4w"};
    *out = (soma_quant_report){0};
    work w = {.o = opts, .out = out, .device = device};
    soma_status status = prepare(&w, path, err);
    if (status == SOMA_OK && !w.c.model->info.answer.max) out->steps = w.saving.steps;
    for (int i = 0; status == SOMA_OK && i < SOMA_QUANT_DTYPES; i++) {
        soma_quant_row *row = &out->rows[i];
        row->dtype = dtypes[i];
        row->velocity = soma__arena_alloc(&out->arena, (size_t)(out->steps + 1) * sizeof *row->velocity);
        status = row->velocity ? run_dtype(&w, row, i == 0, err) : soma__no_memory(err, "a report");
    }
    for (int i = 0; i < 2; i++) soma__free(w.kept[i]);
    soma__feed_free(&w.feed);
    soma__rows_free(&w.rows);
    soma__robot_close(&w.robot);
    soma__published_close(&w.c);
    soma__free(w.bytes);
    if (status != SOMA_OK) soma__quant_report_free(out);
    return status;
}

void soma__quant_report_free(soma_quant_report *r) {
    soma__arena_free(&r->arena);
    *r = (soma_quant_report){0};
}
