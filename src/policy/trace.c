// SPDX-License-Identifier: Apache-2.0
// One run of each program with every tap open. The sampler's loop is written here as openpi's PyTorch loop runs: time is accumulated in
// f32, which moves the tenth step's actions by about 5e-5 against 1 - k/10.
#include "policy/trace.h"

#include "base/file.h"
#include "policy/params.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct run {
    const soma_trace_opts *o;
    soma_trace *out;
    soma_device *device;
    soma_model *model;
    const soma_safetensors *in;
    soma_precision precision;
    soma_arena arena;   // the batch's arrays
    soma_batch batch;   // n rows
    const float *noise; // NULL: no sampling
    bool train;         // actions and train_time are there
    soma_graph *encode, *denoise, *learn;
    soma_params *params;
    soma_layout states;
    void *state_memory;
} run;

// ---- what comes out

static soma_status take(run *r, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape, void **data, soma_error *err) {
    soma_trace *out = r->out;
    size_t n = soma_dtype_size(dtype);
    for (int i = 0; i < n_dims; i++) n *= (size_t)shape[i];
    char *copy = soma__arena_strdup(&out->arena, name);
    *data = r->o->names_only ? NULL : soma__arena_alloc(&out->arena, n + 1);
    if (!copy || (!*data && !r->o->names_only) || !SOMA_PUSH_ROOM(out->tensors, out->n_tensors, out->capacity))
        return soma__no_memory(err, "a trace");
    soma_safetensor *t = &out->tensors[out->n_tensors++];
    *t = (soma_safetensor){.name = copy, .dtype = dtype, .n_dims = n_dims, .data = *data};
    memcpy(t->shape, shape, sizeof *shape * (size_t)n_dims);
    return SOMA_OK;
}

// An output or tap of the frame's plan under another name.
static soma_status take_as(run *r, const soma_frame *f, const char *from, const char *name, soma_error *err) {
    const soma_tensor *t = soma__plan_find(f->plan, from);
    if (!t) return soma__fail(err, SOMA_NOT_FOUND, "%s: the graph has no such output", from);
    void *data;
    SOMA_TRY(take(r, name, t->dtype, t->n_dims, t->shape, &data, err));
    return data ? soma__frame_get(f, from, data, (size_t)soma__numel(t) * soma_dtype_size(t->dtype), err) : SOMA_OK;
}

// All taps whose name begins, or does not begin, with `prefix`.
static soma_status take_taps(run *r, const soma_frame *f, const char *prefix, bool begins, soma_error *err) {
    const soma_graph *g = f->plan->graph;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const soma_tensor *t = g->tensors[i];
        bool tap = t->role == SOMA_ROLE_IO && t->is_output && !t->base && strcmp(t->name, "v_t") && strcmp(t->name, "x_next");
        if (tap && !strncmp(t->name, prefix, strlen(prefix)) == begins) SOMA_TRY(take_as(r, f, t->name, t->name, err));
    }
    return SOMA_OK;
}

static soma_status take_floats(run *r, const char *name, int n_dims, const int64_t *shape, const float *values, soma_error *err) {
    void *data;
    size_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= (size_t)shape[i];
    SOMA_TRY(take(r, name, SOMA_F32, n_dims, shape, &data, err));
    if (data) memcpy(data, values, n * sizeof *values);
    return SOMA_OK;
}

// ---- what goes in

static void *room(run *r, size_t size, soma_error *err) {
    void *p = soma__arena_alloc(&r->arena, size + 1);
    if (!p) soma__no_memory(err, "a trace's inputs");
    return p;
}

static soma_status note_input(run *r, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape, soma_error *err) {
    soma_trace *out = r->out;
    char *copy = soma__arena_strdup(&out->arena, name);
    if (!copy || !SOMA_PUSH_ROOM(out->inputs, out->n_inputs, out->input_capacity)) return soma__no_memory(err, "a trace's inputs");
    soma_safetensor *t = &out->inputs[out->n_inputs++];
    *t = (soma_safetensor){.name = copy, .dtype = dtype, .n_dims = n_dims};
    memcpy(t->shape, shape, sizeof *shape * (size_t)n_dims);
    return SOMA_OK;
}

// The input `name` with this shape as f32 or, for integer dtypes, as it is told by `dtype` (I32 or U8). names_only: zeros.
static soma_status input(run *r, const void **out, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape, soma_error *err) {
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    SOMA_TRY(note_input(r, name, dtype, n_dims, shape, err));
    void *data = room(r, (size_t)n * soma_dtype_size(dtype), err);
    *out = data;
    if (!data) return SOMA_NO_MEMORY;
    if (r->o->names_only) return SOMA_OK;
    const soma_safetensor *t = soma__safetensors_find(r->in, name);
    const char *where = soma__safetensors_path(r->in);
    if (!t) return soma__fail(err, SOMA_NOT_FOUND, "%s: it has no tensor %s, which this model needs", where, name);
    char found[160], wanted[160];
    soma_safetensor asked = {.n_dims = n_dims};
    memcpy(asked.shape, shape, sizeof *shape * (size_t)n_dims);
    if (t->n_dims != n_dims || memcmp(t->shape, shape, sizeof *shape * (size_t)n_dims))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s is %s, the model wants %s", where, name, soma__safetensor_shape(found, t),
                          soma__safetensor_shape(wanted, &asked));
    if (dtype == SOMA_F32) {
        soma__to_f32(data, t->dtype, t->data, n);
        return SOMA_OK;
    }
    bool wide = t->dtype == SOMA_I64;
    if (!wide && t->dtype != SOMA_I32 && t->dtype != SOMA_U8 && t->dtype != SOMA_BOOL)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s is %s, whole numbers are needed", where, name, soma_dtype_name(t->dtype));
    for (int64_t i = 0; i < n; i++) {
        int64_t v = 0;
        size_t size = soma_dtype_size(t->dtype);
        memcpy(&v, (const char *)t->data + (size_t)i * size, size); // little-endian
        if (t->dtype == SOMA_I32) v = (int32_t)v;
        if (dtype == SOMA_U8)
            ((uint8_t *)data)[i] = v < 0 || v > 255 ? 255 : (uint8_t)v;
        else
            ((int32_t *)data)[i] = v < INT32_MIN || v > INT32_MAX ? -1 : (int32_t)v;
    }
    return SOMA_OK;
}

static soma_status read_images(run *r, soma_error *err) {
    const soma_model_info *info = &r->model->info;
    soma_batch *b = &r->batch;
    char name[128];
    snprintf(name, sizeof name, "image.%s", info->cameras[0]);
    bool floats = !r->o->names_only && soma__safetensors_find(r->in, name);
    int64_t side = info->image_size, C = info->n_cameras;
    size_t each = (size_t)(side * side) * 3 * (floats ? sizeof(float) : 1);
    b->image_dtype = floats ? SOMA_F32 : SOMA_U8;
    char *images = room(r, (size_t)(b->n * C) * each, err);
    uint8_t *mask = room(r, (size_t)(b->n * C), err);
    if (!images || !mask) return SOMA_NO_MEMORY;
    for (int64_t c = 0; c < C; c++) {
        const void *pixels, *there = NULL;
        snprintf(name, sizeof name, "%s.%s", floats ? "image" : "image_u8", info->cameras[c]);
        SOMA_TRY(
            input(r, &pixels, name, b->image_dtype, 4, floats ? (int64_t[]){b->n, 3, side, side} : (int64_t[]){b->n, side, side, 3}, err));
        snprintf(name, sizeof name, "image_mask.%s", info->cameras[c]);
        if (r->o->names_only || soma__safetensors_find(r->in, name)) SOMA_TRY(input(r, &there, name, SOMA_U8, 1, &b->n, err));
        for (int64_t i = 0; i < b->n; i++) {
            memcpy(images + (size_t)(i * C + c) * each, (const char *)pixels + (size_t)i * each, each);
            mask[i * C + c] = !there || ((const uint8_t *)there)[i];
        }
    }
    b->images = images;
    b->image_mask = mask;
    return SOMA_OK;
}

static soma_status read_inputs(run *r, soma_error *err) {
    const soma_model_info *info = &r->model->info;
    soma_batch *b = &r->batch;
    b->n = b->draws = 1;
    if (!r->o->names_only) {
        const soma_safetensor *tokens = soma__safetensors_find(r->in, "tokens");
        if (!tokens || tokens->n_dims != 2 || tokens->shape[0] < 1)
            return soma__fail(err, SOMA_NOT_FOUND, "%s: it has no tensor tokens [B, %lld]", soma__safetensors_path(r->in),
                              (long long)info->max_tokens);
        b->n = tokens->shape[0];
    }
    bool all = r->o->names_only;
    int64_t chunk[] = {b->n, info->horizon, info->action_dim}, prompt[] = {b->n, info->max_tokens}, state[] = {b->n, info->state_dim};
    SOMA_TRY(read_images(r, err));
    SOMA_TRY(input(r, (const void **)&b->tokens, "tokens", SOMA_I32, 2, prompt, err));
    SOMA_TRY(input(r, (const void **)&b->token_mask, "token_mask", SOMA_U8, 2, prompt, err));
    if (info->state_input) SOMA_TRY(input(r, (const void **)&b->state, "state", SOMA_F32, 2, state, err));
    if (all || soma__safetensors_find(r->in, "noise")) SOMA_TRY(input(r, (const void **)&r->noise, "noise", SOMA_F32, 3, chunk, err));
    r->train = all || (r->noise && soma__safetensors_find(r->in, "actions") && soma__safetensors_find(r->in, "train_time"));
    if (strcmp(r->o->dtype, "bf16") == 0) r->train = false; // gradients need f32 weights
    if (!r->train) return SOMA_OK;
    SOMA_TRY(input(r, (const void **)&b->actions, "actions", SOMA_F32, 3, chunk, err));
    b->noise = r->noise;
    return input(r, (const void **)&b->time, "train_time", SOMA_F32, 1, &b->n, err);
}

// ---- graphs and weights

static soma_status build(run *r, soma_graph **graph, soma_program program, int64_t rows, bool whole, soma_error *err) {
    SOMA_TRY(soma_graph_new(graph, err));
    (*graph)->keep_taps = true;
    soma_build b = soma__build_defaults(program, rows);
    b.image = r->batch.image_dtype;
    b.precision = r->precision;
    b.whole = whole;
    r->model->family->build(r->model, &b, *graph);
    if (program == SOMA_PROGRAM_TRAIN) {
        soma_tensor *loss = NULL;
        for (size_t i = 0; i < (*graph)->n_tensors; i++)
            if ((*graph)->tensors[i]->is_output && !strcmp((*graph)->tensors[i]->name, "loss")) loss = (*graph)->tensors[i];
        if (loss) soma_backward(loss, NULL, 0, NULL);
    }
    return (*graph)->error.code == SOMA_OK ? SOMA_OK : soma__fail(err, (*graph)->error.code, "%s", (*graph)->error.text);
}

static void drop_graphs(run *r) {
    soma__params_free(r->params);
    soma_graph_free(r->encode);
    soma_graph_free(r->denoise);
    soma_graph_free(r->learn);
    r->params = NULL;
    r->encode = r->denoise = r->learn = NULL;
}

static soma_status load(run *r, const char *folder, bool whole, soma_error *err) {
    soma_safetensors *file = NULL;
    SOMA_TRY(build(r, &r->encode, SOMA_PROGRAM_ENCODE, r->batch.n, whole, err));
    SOMA_TRY(build(r, &r->denoise, SOMA_PROGRAM_DENOISE, r->batch.n, false, err));
    if (r->train) SOMA_TRY(build(r, &r->learn, SOMA_PROGRAM_TRAIN, r->batch.n, false, err));
    const soma_graph *graphs[] = {r->encode, r->denoise, r->learn};
    SOMA_TRY(soma__params_new(&r->params, r->device, graphs, r->train ? 3 : 2, err));
    if (r->o->names_only) return SOMA_OK;
    SOMA_TRY(soma__safetensors_open(&file, folder, err));
    soma_status status = soma__params_load(r->params, file, r->model->family->aliases, err);
    soma__safetensors_close(file);
    return status;
}

// A checkpoint that was trained here has no weights for what its graphs never compute: then a trace does without it, too.
static soma_status load_whole_or_used(run *r, const char *folder, soma_error *err) {
    soma_status status = load(r, folder, true, err);
    if (status != SOMA_NOT_FOUND) return status;
    drop_graphs(r);
    return load(r, folder, false, err);
}

static soma_status put_all(soma_frame *f, const soma_feed *feed, soma_error *err) {
    for (size_t i = 0; i < feed->n_arrays; i++) {
        const soma_feed_array *a = &feed->arrays[i];
        const soma_tensor *t = soma__plan_find(f->plan, a->name);
        if (t && t->is_input) SOMA_TRY(soma__frame_put(f, a->name, a->data, a->size, err));
    }
    return SOMA_OK;
}

typedef struct runner {
    soma_plan *plan;
    soma_frame *frame;
} runner;

static void runner_close(runner *x) {
    soma__frame_free(x->frame);
    soma__plan_free(x->plan);
}

static soma_status runner_open(run *r, runner *x, soma_graph *graph, void *grads, const soma_feed *feed, soma_error *err) {
    *x = (runner){0};
    SOMA_TRY(soma__plan_new(&x->plan, graph, &r->params->layout, &r->states, r->device, err));
    SOMA_TRY(soma__frame_new(&x->frame, x->plan, r->params->memory, grads, r->state_memory, err));
    return put_all(x->frame, feed, err);
}

static void runner_run(run *r, runner *x) {
    if (!r->o->names_only) soma__frame_run(x->frame);
}

// ---- the parts of a trace

// Masks and positions under the reference's names: who is valid, where a new block begins, where each token stands.
static soma_status trace_masks(run *r, const soma_feed *feed, soma_error *err) {
    const soma_feed_array *k = soma__feed_find(feed, "prefix.k_block"), *p = soma__feed_find(feed, "prefix.position"),
                          *q = soma__feed_find(feed, "suffix.q_block");
    if (!k || !p || !q) return SOMA_OK;
    const int32_t *key = k->data, *pos = p->data, *block = q->data;
    int64_t B = r->batch.n, S = (int64_t)(k->size / 4) / B, T = (int64_t)(q->size / 4) / B;
    void *pad, *att, *ids, *suffix_pad, *suffix_att;
    SOMA_TRY(take(r, "prefix_pad_masks", SOMA_U8, 2, (int64_t[]){B, S}, &pad, err));
    SOMA_TRY(take(r, "prefix_att_masks", SOMA_U8, 2, (int64_t[]){B, S}, &att, err));
    SOMA_TRY(take(r, "prefix_position_ids", SOMA_I64, 2, (int64_t[]){B, S}, &ids, err));
    SOMA_TRY(take(r, "suffix_t1.pad_masks", SOMA_U8, 2, (int64_t[]){B, T}, &suffix_pad, err));
    SOMA_TRY(take(r, "suffix_t1.att_masks", SOMA_F32, 2, (int64_t[]){B, T}, &suffix_att, err));
    if (r->o->names_only) return SOMA_OK;
    for (int64_t i = 0; i < B * S; i++) {
        ((uint8_t *)pad)[i] = key[i] != SOMA_BLOCK_NEVER;
        ((uint8_t *)att)[i] = 0;
        ((int64_t *)ids)[i] = pos[i];
    }
    for (int64_t i = 0; i < B * T; i++) {
        ((uint8_t *)suffix_pad)[i] = 1;
        ((float *)suffix_att)[i] = (float)(block[i] - (i % T ? block[i - 1] : 0));
    }
    return SOMA_OK;
}

static soma_status trace_encode(run *r, const soma_feed *feed, soma_error *err) {
    runner x;
    soma_status status = runner_open(r, &x, r->encode, NULL, feed, err);
    if (status == SOMA_OK) {
        runner_run(r, &x);
        status = take_taps(r, x.frame, "", true, err);
    }
    runner_close(&x);
    return status == SOMA_OK ? trace_masks(r, feed, err) : status;
}

// n_steps of Euler from the noise. `steps`: the first step's taps and every step's x_t, time and v_t are kept, too.
static soma_status trace_sample(run *r, runner *x, int64_t n_steps, const char *name, bool steps, soma_error *err) {
    const soma_model_info *info = &r->model->info;
    int64_t B = r->batch.n, shape[] = {B, info->horizon, info->action_dim};
    size_t size = sizeof(float) * (size_t)(shape[0] * shape[1] * shape[2]);
    float *x_t = room(r, size, err), *times = room(r, sizeof *times * (size_t)B, err), dt = -1.0f / (float)n_steps, time = 1;
    if (!x_t || !times) return SOMA_NO_MEMORY;
    memcpy(x_t, r->noise, size);
    SOMA_TRY(soma__frame_put(x->frame, "dt", &dt, sizeof dt, err));
    for (int k = 0; time >= -dt / 2; k++, time += dt) {
        for (int64_t i = 0; i < B; i++) times[i] = time;
        SOMA_TRY(soma__frame_put(x->frame, "x_t", x_t, size, err));
        SOMA_TRY(soma__frame_put(x->frame, "time", times, sizeof *times * (size_t)B, err));
        runner_run(r, x);
        if (steps && k == 0) SOMA_TRY(take_taps(r, x->frame, "", true, err));
        char part[64];
        if (steps) {
            snprintf(part, sizeof part, "sample.step%d.x_t", k);
            SOMA_TRY(take_floats(r, part, 3, shape, x_t, err));
            snprintf(part, sizeof part, "sample.step%d.time", k);
            SOMA_TRY(take_floats(r, part, 1, &B, times, err));
            snprintf(part, sizeof part, "sample.step%d.v_t", k);
            SOMA_TRY(take_as(r, x->frame, "v_t", part, err));
        }
        SOMA_TRY(soma__frame_get(x->frame, "x_next", x_t, size, err));
    }
    return take_floats(r, name, 3, shape, x_t, err);
}

static soma_status trace_denoise(run *r, const soma_feed *feed, soma_error *err) {
    runner x;
    soma_status status = runner_open(r, &x, r->denoise, NULL, feed, err);
    if (status == SOMA_OK) status = trace_sample(r, &x, r->model->info.n_steps, "actions", true, err);
    if (status == SOMA_OK) status = trace_sample(r, &x, 4, "actions_4steps", false, err);
    runner_close(&x);
    return status;
}

// Of every weight; one that the loss does not reach (what the prefix's last layer makes of its attention) has a gradient of zeros.
static soma_status take_grads(run *r, const char *grads, const char *prefix, soma_error *err) {
    for (size_t i = 0; i < r->params->layout.n_slots; i++) {
        const soma_slot *slot = &r->params->layout.slots[i];
        char name[600];
        void *data;
        snprintf(name, sizeof name, "%s.%s", prefix, slot->name);
        SOMA_TRY(take(r, name, SOMA_F32, slot->n_dims, slot->shape, &data, err));
        if (data) r->device->kind->get(r->device, data, grads + slot->place, slot->size);
    }
    return SOMA_OK;
}

static soma_status take_norm(run *r, const char *grads, soma_error *err) {
    double square = 0;
    for (size_t i = 0; i < r->params->layout.n_slots && !r->o->names_only; i++) {
        const soma_slot *slot = &r->params->layout.slots[i];
        float *values = soma__alloc(slot->size);
        if (!values) return soma__no_memory(err, "a gradient");
        r->device->kind->get(r->device, values, grads + slot->place, slot->size);
        for (size_t k = 0; k < slot->size / sizeof *values; k++) square += (double)values[k] * (double)values[k];
        soma__free(values);
    }
    float norm = (float)sqrt(square);
    return take_floats(r, "train.grad_global_norm", 1, (int64_t[]){1}, &norm, err);
}

// The loss, its intermediates and its gradients over the whole batch ("b2") or over the first row alone ("b1": the loss and gradients).
static soma_status trace_train(run *r, soma_graph *graph, const soma_feed *feed, bool alone, soma_error *err) {
    runner x = {0};
    void *grads = NULL;
    soma_status status = r->device->kind->alloc(r->device, &grads, r->params->layout.size, err);
    if (status == SOMA_OK) status = runner_open(r, &x, graph, grads, feed, err);
    if (status == SOMA_OK) {
        runner_run(r, &x);
        status = take_as(r, x.frame, "loss", alone ? "train.b1.loss" : "train.loss", err);
    }
    if (status == SOMA_OK && !alone) status = take_taps(r, x.frame, "train.", true, err);
    if (status == SOMA_OK && !alone) status = take_norm(r, grads, err);
    if (status == SOMA_OK && r->o->grads) status = take_grads(r, grads, alone ? "b1" : "b2", err);
    runner_close(&x);
    if (grads) r->device->kind->free(r->device, grads);
    return status;
}

static soma_status trace_alone(run *r, soma_error *err) {
    soma_graph *graph = NULL;
    soma_feed feed = {0};
    soma_batch first = r->batch; // its first row is at the front of every array
    first.n = 1;
    soma_status status = build(r, &graph, SOMA_PROGRAM_TRAIN, 1, false, err);
    if (status == SOMA_OK) status = r->model->family->prepare(r->model, &first, &feed, err);
    if (status == SOMA_OK) status = trace_train(r, graph, &feed, true, err);
    soma__feed_free(&feed);
    soma_graph_free(graph);
    return status;
}

// ---- all of it

static soma_status trace_all(run *r, const char *folder, soma_error *err) {
    soma_feed feed = {0};
    SOMA_TRY(read_inputs(r, err));
    SOMA_TRY(load_whole_or_used(r, folder, err));
    SOMA_TRY(soma__layout_add(&r->states, r->encode, SOMA_ROLE_STATE, err));
    SOMA_TRY(soma__layout_add(&r->states, r->denoise, SOMA_ROLE_STATE, err));
    SOMA_TRY(r->device->kind->alloc(r->device, &r->state_memory, r->states.size, err));
    soma_status status = r->model->family->prepare(r->model, &r->batch, &feed, err);
    if (status == SOMA_OK) status = trace_encode(r, &feed, err);
    if (status == SOMA_OK && r->noise) status = trace_denoise(r, &feed, err);
    if (status == SOMA_OK && r->train) status = trace_train(r, r->learn, &feed, false, err);
    if (status == SOMA_OK && r->train) status = trace_alone(r, err);
    soma__feed_free(&feed);
    return status;
}

static soma_status choose_precision(run *r, soma_error *err) {
    const char *dtype = r->o->dtype;
    if (!strcmp(dtype, "f32"))
        r->precision = SOMA_PRECISION_F32;
    else if (!strcmp(dtype, "mixed"))
        r->precision = SOMA_PRECISION_MIXED;
    else if (!strcmp(dtype, "bf16"))
        r->precision = SOMA_PRECISION_BF16;
    else
        return soma__fail(err, SOMA_BAD_INPUT, "dtype \"%.32s\" is not known; there are f32, mixed and bf16", dtype);
    return SOMA_OK;
}

soma_status soma__trace_run(soma_trace *trace, const char *folder, const soma_safetensors *inputs, const soma_trace_opts *opts,
                            soma_device *device, soma_error *err) {
    SOMA_CHECK(opts->names_only || inputs, "a trace has inputs, unless only names are asked for");
    run r = {.o = opts, .out = trace, .device = device, .in = inputs};
    json_t *config = NULL;
    char path[SOMA_PATH_MAX];
    soma_status status = choose_precision(&r, err);
    if (status == SOMA_OK) status = soma__path_join(path, folder, "config.json", err);
    if (status == SOMA_OK) status = soma__json_load(&config, path, err);
    if (status == SOMA_OK) status = soma__model_new(&r.model, config, path, err);
    if (status == SOMA_OK) status = trace_all(&r, folder, err);
    drop_graphs(&r);
    soma__layout_free(&r.states);
    if (r.state_memory) device->kind->free(device, r.state_memory);
    soma__model_free(r.model);
    json_decref(config);
    soma__arena_free(&r.arena);
    return status;
}

const soma_safetensor *soma__trace_find(const soma_trace *trace, const char *name) {
    for (size_t i = 0; i < trace->n_tensors; i++)
        if (!strcmp(trace->tensors[i].name, name)) return &trace->tensors[i];
    return NULL;
}

void soma__trace_free(soma_trace *trace) {
    soma__free(trace->tensors);
    soma__free(trace->inputs);
    soma__arena_free(&trace->arena);
    *trace = (soma_trace){0};
}
