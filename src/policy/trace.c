// SPDX-License-Identifier: Apache-2.0
// One run of each program with every tap open, for families that denoise. The sampler's loop is written here as openpi's PyTorch loop runs:
// time is accumulated in f32, which moves the tenth step's actions by about 5e-5 against 1 - k/10. Families that write their chunk as
// tokens: trace_written.c.
#include "policy/policy.h"
#include "policy/published.h"
#include "policy/trace_run.h"

#include "base/file.h"

#include <stdio.h>
#include <string.h>

static soma_status read_inputs(soma_trace_run *r, soma_error *err) {
    soma_model_info *info = &r->model->info;
    soma_batch *b = &r->batch;
    b->n = b->draws = 1;
    if (!r->o->names_only) {
        const bool prompted = info->max_tokens > 0;
        const soma_safetensor *t = soma__safetensors_find(r->in, prompted ? "tokens" : "state");
        if (!t || t->n_dims < 2 || t->shape[0] < 1 || t->shape[1] < 1)
            return soma__fail(err, SOMA_NOT_FOUND, "%s: it has no tensor %s", soma__safetensors_path(r->in),
                              prompted ? "tokens [B, L]" : "state [B, ..]");
        b->n = t->shape[0];
        if (prompted) info->max_tokens = t->shape[1]; // no weight depends on it
    }
    bool all = r->o->names_only;
    int64_t chunk[] = {b->n, info->horizon, info->action_dim}, prompt[] = {b->n, info->max_tokens},
            state[] = {b->n, 1 + info->history, info->state_dim}, one_state[] = {b->n, info->state_dim},
            steps[] = {info->n_steps, b->n, info->horizon, info->action_dim};
    SOMA_TRY(soma__trace_read_images(r, err));
    if (info->max_tokens) {
        SOMA_TRY(soma__trace_input(r, (const void **)&b->tokens, "tokens", SOMA_I32, 2, prompt, err));
        SOMA_TRY(soma__trace_input(r, (const void **)&b->token_mask, "token_mask", SOMA_U8, 2, prompt, err));
    }
    if (info->state_input)
        SOMA_TRY(soma__trace_input(r, (const void **)&b->state, "state", SOMA_F32, info->history ? 3 : 2, info->history ? state : one_state,
                                   err));
    const bool noisy = all ? info->noise != 0 : soma__safetensors_find(r->in, "noise") != NULL;
    if (!noisy && info->noise == 0) { // it begins from nothing
        float *zeros = soma__trace_room(r, sizeof *zeros * (size_t)(chunk[0] * chunk[1] * chunk[2]), err);
        if (!zeros) return SOMA_NO_MEMORY;
        memset(zeros, 0, sizeof *zeros * (size_t)(chunk[0] * chunk[1] * chunk[2]));
        r->noise = zeros;
    } else if (noisy)
        SOMA_TRY(soma__trace_input(r, (const void **)&r->noise, "noise", SOMA_F32, 3, chunk, err));
    if (info->step_noise && r->noise) SOMA_TRY(soma__trace_input(r, (const void **)&b->step_noise, "step_noise", SOMA_F32, 4, steps, err));
    const bool timed = !info->no_flow; // others draw what they need
    r->train = all || (r->noise && soma__safetensors_find(r->in, "actions") && (!timed || soma__safetensors_find(r->in, "train_time")));
    if (r->precision.weight != SOMA_F32) r->train = false; // gradients need f32 weights
    if (!r->train) return SOMA_OK;
    SOMA_TRY(soma__trace_input(r, (const void **)&b->actions, "actions", SOMA_F32, 3, chunk, err));
    b->noise = r->noise;
    if (!all && soma__safetensors_find(r->in, "train_noise"))
        SOMA_TRY(soma__trace_input(r, (const void **)&b->noise, "train_noise", SOMA_F32, 3, chunk, err));
    if (all || soma__safetensors_find(r->in, "action_mask"))
        SOMA_TRY(soma__trace_input(r, (const void **)&b->action_mask, "action_mask", SOMA_U8, 3, chunk, err));
    if (all) b->action_mask = NULL; // nothing is read: everything counts
    if (!all && soma__safetensors_find(r->in, "action_pad"))
        SOMA_TRY(soma__trace_input(r, (const void **)&b->action_pad, "action_pad", SOMA_U8, 2, chunk, err));
    if (!timed) return SOMA_OK;
    return soma__trace_input(r, (const void **)&b->time, "train_time", SOMA_F32, 1, &b->n, err);
}

// ---- the parts of a trace

// Who is there [B, S], where a new block begins [B, S] and who sees whom [B, T, S + T] of queries q [B, T] and keys k [B, S + T], the last
// T of which are the queries' own.
static void read_masks(uint8_t *pad, uint8_t *begins, uint8_t *sees, const int32_t *q, const int32_t *k, int64_t B, int64_t T,
                       int64_t keys) {
    for (int64_t i = 0; i < B * T; i++) {
        const int32_t *row = k + i / T * keys;
        pad[i] = row[keys - T + i % T] != SOMA_BLOCK_NEVER;
        begins[i] = i % T ? q[i] != q[i - 1] : q[i] != 0;
        for (int64_t j = 0; j < keys; j++) sees[i * keys + j] = pad[i] && row[j] <= q[i];
    }
}

// One stream's, and its positions, under the reference's names.
static soma_status trace_stream(soma_trace_run *r, const soma_feed *feed, const char *stream, const char *prefix, soma_error *err) {
    char name[3][64];
    void *pad, *begins, *ids, *sees;
    snprintf(name[0], sizeof name[0], "%s.q_block", stream);
    snprintf(name[1], sizeof name[1], "%s.k_block", stream);
    snprintf(name[2], sizeof name[2], "%s.position", stream);
    const soma_feed_array *q = soma__feed_find(feed, name[0]), *k = soma__feed_find(feed, name[1]), *pos = soma__feed_find(feed, name[2]);
    if (!q || !k || !pos) return SOMA_OK;
    const int64_t B = r->batch.n, T = (int64_t)(q->size / sizeof(int32_t)) / B, keys = (int64_t)(k->size / sizeof(int32_t)) / B;
    snprintf(name[0], sizeof name[0], "%spad_masks", prefix);
    SOMA_TRY(soma__trace_take(r, name[0], SOMA_U8, 2, (int64_t[]){B, T}, &pad, err));
    snprintf(name[0], sizeof name[0], "%satt_masks", prefix);
    SOMA_TRY(soma__trace_take(r, name[0], SOMA_U8, 2, (int64_t[]){B, T}, &begins, err));
    snprintf(name[0], sizeof name[0], "%sposition_ids", prefix);
    SOMA_TRY(soma__trace_take(r, name[0], SOMA_I64, 2, (int64_t[]){B, T}, &ids, err));
    snprintf(name[0], sizeof name[0], "%satt_2d", prefix);
    SOMA_TRY(soma__trace_take(r, name[0], SOMA_U8, 3, (int64_t[]){B, T, keys}, &sees, err));
    if (r->o->names_only) return SOMA_OK;
    read_masks(pad, begins, sees, q->data, k->data, B, T, keys);
    for (int64_t i = 0; i < B * T; i++) ((int64_t *)ids)[i] = ((const int32_t *)pos->data)[i];
    return SOMA_OK;
}

static soma_status trace_masks(soma_trace_run *r, const soma_feed *feed, soma_error *err) {
    SOMA_TRY(trace_stream(r, feed, "prefix", "prefix_", err));
    return trace_stream(r, feed, "suffix", "suffix_t1.", err);
}

static soma_status trace_encode(soma_trace_run *r, const soma_feed *feed, soma_error *err) {
    soma_trace_runner x;
    soma_status status = soma__trace_open(r, &x, r->encode, NULL, feed, err);
    if (status == SOMA_OK) {
        soma__trace_run_plan(r, &x);
        status = soma__trace_take_taps(r, x.frame, "", true, err);
    }
    soma__trace_close(&x);
    return status == SOMA_OK ? trace_masks(r, feed, err) : status;
}

// An input that not every family's step has.
static soma_status put_where(soma_frame *f, const char *name, const void *data, size_t size, soma_error *err) {
    return soma__plan_find(f->plan, name) ? soma__frame_put(f, name, data, size, err) : SOMA_OK;
}

// n_steps of Euler from the noise. `steps`: the first step's taps and every step's x_t, time and v_t are kept, too.
static soma_status trace_sample(soma_trace_run *r, soma_trace_runner *x, int64_t n_steps, const char *name, bool steps, soma_error *err) {
    const soma_model_info *info = &r->model->info;
    int64_t B = r->batch.n, shape[] = {B, info->horizon, info->action_dim};
    size_t size = sizeof(float) * (size_t)(shape[0] * shape[1] * shape[2]);
    float *x_t = soma__trace_room(r, size, err), *times = soma__trace_room(r, sizeof *times * (size_t)B, err), dt = -1.0f / (float)n_steps,
          *schedule = soma__trace_room(r, sizeof *schedule * (size_t)n_steps, err);
    int32_t *which = soma__trace_room(r, sizeof *which * (size_t)B, err);
    if (!x_t || !times || !schedule || !which) return SOMA_NO_MEMORY;
    soma__schedule_times(schedule, n_steps, r->time);
    memcpy(x_t, r->noise, size);
    SOMA_TRY(put_where(x->frame, "dt", &dt, sizeof dt, err));
    for (int k = 0; k < n_steps; k++) {
        for (int64_t i = 0; i < B; i++) {
            times[i] = schedule[k];
            which[i] = k;
        }
        SOMA_TRY(soma__frame_put(x->frame, "x_t", x_t, size, err));
        SOMA_TRY(put_where(x->frame, "time", times, sizeof *times * (size_t)B, err));
        SOMA_TRY(put_where(x->frame, "step", which, sizeof *which * (size_t)B, err));
        soma__trace_run_plan(r, x);
        if (steps && k == 0) SOMA_TRY(soma__trace_take_taps(r, x->frame, "", true, err));
        char part[64];
        if (steps) {
            snprintf(part, sizeof part, "sample.step%d.x_t", k);
            SOMA_TRY(soma__trace_take_floats(r, part, 3, shape, x_t, err));
            snprintf(part, sizeof part, "sample.step%d.time", k);
            SOMA_TRY(soma__trace_take_floats(r, part, 1, &B, times, err));
            snprintf(part, sizeof part, "sample.step%d.v_t", k);
            if (soma__plan_find(x->frame->plan, "v_t")) SOMA_TRY(soma__trace_take_as(r, x->frame, "v_t", part, err));
        }
        SOMA_TRY(soma__frame_get(x->frame, "x_next", x_t, size, err));
    }
    return soma__trace_take_floats(r, name, 3, shape, x_t, err);
}

static soma_status trace_denoise(soma_trace_run *r, const soma_feed *feed, soma_error *err) {
    soma_trace_runner x;
    soma_status status = soma__trace_open(r, &x, r->step, NULL, feed, err);
    if (status == SOMA_OK) status = trace_sample(r, &x, r->model->info.n_steps, "actions", true, err);
    const bool flow = status == SOMA_OK && soma__plan_find(x.plan, "dt"); // any number of steps is possible
    if (flow) status = trace_sample(r, &x, 4, "actions_4steps", false, err);
    soma__trace_close(&x);
    return status;
}

// The loss, its intermediates and its gradients over the whole batch ("b2") or over the first row alone ("b1": the loss and gradients).
static soma_status trace_train(soma_trace_run *r, soma_graph *graph, const soma_feed *feed, bool alone, soma_error *err) {
    soma_trace_runner x = {0};
    void *grads = NULL;
    soma_status status = r->device->kind->alloc(r->device, &grads, r->params->layout.size, err);
    if (status == SOMA_OK) status = soma__trace_open(r, &x, graph, grads, feed, err);
    if (status == SOMA_OK) {
        soma__trace_run_plan(r, &x);
        status = soma__trace_take_as(r, x.frame, "loss", alone ? "train.b1.loss" : "train.loss", err);
    }
    if (status == SOMA_OK && !alone) status = soma__trace_take_taps(r, x.frame, "train.", true, err);
    if (status == SOMA_OK && !alone) status = soma__trace_take_norm(r, grads, err);
    if (status == SOMA_OK && r->o->grads) status = soma__trace_take_grads(r, grads, alone ? "b1" : "b2", err);
    soma__trace_close(&x);
    if (grads) r->device->kind->free(r->device, grads);
    return status;
}

static soma_status trace_alone(soma_trace_run *r, soma_error *err) {
    soma_graph *graph = NULL;
    soma_feed feed = {0};
    soma_batch first = r->batch; // its first row is at the front of every array
    first.n = 1;
    soma_status status = soma__trace_build(r, &graph, SOMA_PROGRAM_TRAIN, 1, false, err);
    if (status == SOMA_OK) status = r->model->family->prepare(r->model, &first, &feed, err);
    if (status == SOMA_OK) status = trace_train(r, graph, &feed, true, err);
    soma__feed_free(&feed);
    soma_graph_free(graph);
    return status;
}

// ---- all of it

static soma_status trace_flow(soma_trace_run *r, soma_error *err) {
    soma_feed feed = {0};
    soma_status status = r->model->family->prepare(r->model, &r->batch, &feed, err);
    if (status == SOMA_OK) status = trace_encode(r, &feed, err);
    if (status == SOMA_OK && r->noise) status = trace_denoise(r, &feed, err);
    if (status == SOMA_OK && r->train) status = trace_train(r, r->learn, &feed, false, err);
    if (status == SOMA_OK && r->train) status = trace_alone(r, err);
    soma__feed_free(&feed);
    return status;
}

static soma_status trace_all(soma_trace_run *r, const char *folder, soma_error *err) {
    bool written = r->model->info.answer.max > 0;
    SOMA_TRY(written ? soma__trace_written_inputs(r, err) : read_inputs(r, err));
    SOMA_TRY(soma__trace_load(r, folder, err));
    SOMA_TRY(soma__trace_states(r, err));
    return written ? soma__trace_written(r, err) : trace_flow(r, err);
}

static soma_status choose_precision(soma_trace_run *r, soma_error *err) {
    const char *dtype = r->o->dtype;
    if (!strcmp(dtype, "f32"))
        r->precision = SOMA_PRECISION_F32;
    else if (!strcmp(dtype, "mixed"))
        r->precision = SOMA_PRECISION_MIXED;
    else if (!strcmp(dtype, "bf16"))
        r->precision = SOMA_PRECISION_BF16;
    else if (soma__policy_precision(&r->precision, dtype, NULL) != SOMA_OK) // as acting computes
        return soma__fail(err, SOMA_BAD_INPUT, "dtype \"%.32s\" is not known; there are f32, mixed, bf16, int8, int8w and int4w", dtype);
    return SOMA_OK;
}

soma_status soma__trace_run(soma_trace *trace, const char *folder, const soma_safetensors *inputs, const soma_trace_opts *opts,
                            soma_device *device, soma_error *err) {
    SOMA_CHECK(opts->names_only || inputs, "a trace has inputs, unless only names are asked for");
    soma_trace_run r = {.o = opts, .out = trace, .device = device, .in = inputs};
    soma_published c = {0};
    soma_status status = choose_precision(&r, err);
    if (status == SOMA_OK) status = soma__published_open(&c, folder, err);
    if (status == SOMA_OK) status = soma__robot_resolve(c.config, folder, "", err); // LeRobot's says which cameras a model has
    if (status == SOMA_OK) status = soma__time_rule(&r.time, opts->time ? opts->time : "", c.config, err);
    if (status == SOMA_OK) status = soma__published_model(&c, err);
    r.model = c.model;
    if (status == SOMA_OK) status = trace_all(&r, folder, err);
    soma__trace_drop_graphs(&r);
    soma__layout_free(&r.states);
    if (r.state_memory) device->kind->free(device, r.state_memory);
    soma__published_close(&c);
    soma__arena_free(&r.arena);
    return status;
}

const soma_safetensor *soma__trace_find(const soma_trace *trace, const char *name) {
    for (size_t i = 0; i < trace->n_tensors; i++)
        if (!strcmp(trace->tensors[i].name, name)) return &trace->tensors[i];
    return NULL;
}

const soma_safetensor *soma__trace_rows(const soma_trace *trace, const char *name) {
    static const struct {
        const char *begins, *mask;
    } rows[] = {
        {"prefix.", "prefix_pad_masks"},       {"prefix_embs", "prefix_pad_masks"},         {"prefix_kv.", "prefix_pad_masks"},
        {"train.prefix.", "prefix_pad_masks"}, {"train.layer_out.", "train.pad_masks"},     {"train.final_norm", "train.pad_masks"},
        {"train.logits", "train.logit_masks"}, {"train.logp_target", "train.target_masks"}, {"train.token_logp", "train.target_masks"}};
    for (size_t i = 0; i < SOMA_COUNT(rows); i++)
        if (!strncmp(name, rows[i].begins, strlen(rows[i].begins))) return soma__trace_find(trace, rows[i].mask);
    return NULL;
}

void soma__trace_free(soma_trace *trace) {
    soma__free(trace->tensors);
    soma__free(trace->inputs);
    soma__arena_free(&trace->arena);
    *trace = (soma_trace){0};
}
