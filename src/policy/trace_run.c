// SPDX-License-Identifier: Apache-2.0
// Reading a trace's inputs, loading its weights, running its graphs, and keeping what comes out.
#include "policy/trace_run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- what comes out

soma_status soma__trace_take(soma_trace_run *r, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape, void **data,
                             soma_error *err) {
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
soma_status soma__trace_take_as(soma_trace_run *r, const soma_frame *f, const char *from, const char *name, soma_error *err) {
    const soma_tensor *t = soma__plan_find(f->plan, from);
    if (!t) return soma__fail(err, SOMA_NOT_FOUND, "%s: the graph has no such output", from);
    void *data;
    SOMA_TRY(soma__trace_take(r, name, t->dtype, t->n_dims, t->shape, &data, err));
    return data ? soma__frame_get(f, from, data, (size_t)soma__numel(t) * soma_dtype_size(t->dtype), err) : SOMA_OK;
}

// All taps whose name begins, or does not begin, with `prefix`.
soma_status soma__trace_take_taps(soma_trace_run *r, const soma_frame *f, const char *prefix, bool begins, soma_error *err) {
    const soma_graph *g = f->plan->graph;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const soma_tensor *t = g->tensors[i];
        bool tap = t->role == SOMA_ROLE_IO && t->is_output && !t->base && strcmp(t->name, "v_t") && strcmp(t->name, "x_next") &&
                   strcmp(t->name, "logits");
        if (tap && !strncmp(t->name, prefix, strlen(prefix)) == begins) SOMA_TRY(soma__trace_take_as(r, f, t->name, t->name, err));
    }
    return SOMA_OK;
}

soma_status soma__trace_take_floats(soma_trace_run *r, const char *name, int n_dims, const int64_t *shape, const float *values,
                                    soma_error *err) {
    void *data;
    size_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= (size_t)shape[i];
    SOMA_TRY(soma__trace_take(r, name, SOMA_F32, n_dims, shape, &data, err));
    if (data) memcpy(data, values, n * sizeof *values);
    return SOMA_OK;
}

// ---- what goes in

void *soma__trace_room(soma_trace_run *r, size_t size, soma_error *err) {
    void *p = soma__arena_alloc(&r->arena, size + 1);
    if (!p) soma__no_memory(err, "a trace's inputs");
    return p;
}

static soma_status note_input(soma_trace_run *r, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape, soma_error *err) {
    soma_trace *out = r->out;
    char *copy = soma__arena_strdup(&out->arena, name);
    if (!copy || !SOMA_PUSH_ROOM(out->inputs, out->n_inputs, out->input_capacity)) return soma__no_memory(err, "a trace's inputs");
    soma_safetensor *t = &out->inputs[out->n_inputs++];
    *t = (soma_safetensor){.name = copy, .dtype = dtype, .n_dims = n_dims};
    memcpy(t->shape, shape, sizeof *shape * (size_t)n_dims);
    return SOMA_OK;
}

// The input `name` with this shape as f32 or, for integer dtypes, as it is told by `dtype` (I32 or U8). names_only: zeros.
soma_status soma__trace_input(soma_trace_run *r, const void **out, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape,
                              soma_error *err) {
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    SOMA_TRY(note_input(r, name, dtype, n_dims, shape, err));
    void *data = soma__trace_room(r, (size_t)n * soma_dtype_size(dtype), err);
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

soma_status soma__trace_read_images(soma_trace_run *r, soma_error *err) {
    const soma_model_info *info = &r->model->info;
    soma_batch *b = &r->batch;
    char name[128];
    snprintf(name, sizeof name, "image.%s", info->cameras[0]);
    bool floats = !r->o->names_only && soma__safetensors_find(r->in, name);
    const int64_t H = info->image_size, W = soma__image_width(info), C = info->n_cameras, views = 1 + info->history;
    const bool history = info->history > 0;
    const size_t each = (size_t)soma__image_pixels(info) * 3 * (floats ? sizeof(float) : 1);
    b->image_dtype = floats ? SOMA_F32 : SOMA_U8;
    char *images = soma__trace_room(r, (size_t)(b->n * views * C) * each, err);
    uint8_t *mask = soma__trace_room(r, (size_t)(b->n * C), err);
    if (!images || !mask) return SOMA_NO_MEMORY;
    for (int64_t c = 0; c < C; c++) {
        const void *pixels, *there = NULL;
        snprintf(name, sizeof name, "%s.%s", floats ? "image" : "image_u8", info->cameras[c]);
        const int64_t shape[] = {b->n, views, floats ? 3 : H, floats ? H : W, floats ? W : 3}, one[] = {b->n, shape[2], shape[3], shape[4]};
        SOMA_TRY(soma__trace_input(r, &pixels, name, b->image_dtype, history ? 5 : 4, history ? shape : one, err));
        snprintf(name, sizeof name, "image_mask.%s", info->cameras[c]);
        if (r->o->names_only || soma__safetensors_find(r->in, name)) SOMA_TRY(soma__trace_input(r, &there, name, SOMA_U8, 1, &b->n, err));
        for (int64_t i = 0; i < b->n; i++) {
            for (int64_t v = i * views; v < (i + 1) * views; v++)
                memcpy(images + (size_t)(v * C + c) * each, (const char *)pixels + (size_t)v * each, each);
            mask[i * C + c] = !there || ((const uint8_t *)there)[i];
        }
    }
    b->images = images;
    b->image_mask = mask;
    return SOMA_OK;
}

// ---- graphs and weights

soma_status soma__trace_build(soma_trace_run *r, soma_graph **graph, soma_program program, int64_t rows, bool whole, soma_error *err) {
    SOMA_TRY(soma_graph_new(graph, err));
    (*graph)->keep_taps = true;
    soma_build b = soma__build_defaults(program, rows);
    b.image = r->batch.image_dtype;
    b.precision = r->precision;
    b.whole = whole;
    b.n_tokens = program == SOMA_PROGRAM_TRAIN ? r->lesson.n_tokens : r->batch.n_tokens;
    r->model->family->build(r->model, &b, *graph);
    if (program == SOMA_PROGRAM_TRAIN) {
        soma_tensor *loss = NULL;
        for (size_t i = 0; i < (*graph)->n_tensors; i++)
            if ((*graph)->tensors[i]->is_output && !strcmp((*graph)->tensors[i]->name, "loss")) loss = (*graph)->tensors[i];
        if (loss) soma_backward(loss, NULL, 0, NULL);
    }
    return (*graph)->error.code == SOMA_OK ? SOMA_OK : soma__fail(err, (*graph)->error.code, "%s", (*graph)->error.text);
}

void soma__trace_drop_graphs(soma_trace_run *r) {
    soma__params_free(r->params);
    soma_graph_free(r->encode);
    soma_graph_free(r->step);
    soma_graph_free(r->learn);
    r->params = NULL;
    r->encode = r->step = r->learn = NULL;
}

static soma_status load(soma_trace_run *r, const char *folder, bool whole, soma_error *err) {
    soma_safetensors *file = NULL;
    SOMA_TRY(soma__trace_build(r, &r->encode, SOMA_PROGRAM_ENCODE, r->batch.n, whole, err));
    SOMA_TRY(soma__trace_build(r, &r->step, soma__step_program(&r->model->info), r->batch.n, false, err));
    if (r->train) SOMA_TRY(soma__trace_build(r, &r->learn, SOMA_PROGRAM_TRAIN, r->batch.n, false, err));
    const soma_graph *graphs[] = {r->encode, r->step, r->learn};
    const soma_alias *aliases = r->model->family->aliases;
    if (!r->o->names_only) SOMA_TRY(soma__safetensors_open(&file, folder, err));
    if (!r->o->names_only && !r->train) // gradients lie as the weights do, in one piece: then all are copied
        return soma__params_open(&r->params, r->device, graphs, 2, SOMA_ROLE_WEIGHT, file, aliases, err);
    soma_status status = soma__params_new(&r->params, r->device, graphs, r->train ? 3 : 2, err);
    if (status == SOMA_OK && file) status = soma__params_load(r->params, file, aliases, err);
    soma__safetensors_close(file);
    return status;
}

// A checkpoint that was trained here has no weights for what its graphs never compute: then a trace does without it, too.
soma_status soma__trace_load(soma_trace_run *r, const char *folder, soma_error *err) {
    soma_status status = load(r, folder, true, err);
    if (status != SOMA_NOT_FOUND) return status;
    soma__trace_drop_graphs(r);
    return load(r, folder, false, err);
}

soma_status soma__trace_states(soma_trace_run *r, soma_error *err) {
    SOMA_TRY(soma__layout_add(&r->states, r->encode, SOMA_ROLE_STATE, err));
    SOMA_TRY(soma__layout_add(&r->states, r->step, SOMA_ROLE_STATE, err));
    return r->device->kind->alloc(r->device, &r->state_memory, r->states.size, err);
}

// What a family drew for itself is taken from the inputs where they have it.
static soma_status replace(soma_trace_run *r, const soma_feed_array *a, const void **data, soma_error *err) {
    const soma_safetensor *t = !a->own || r->o->names_only ? NULL : soma__safetensors_find(r->in, a->name);
    *data = a->data;
    if (!t || (size_t)t->n_values * sizeof(float) != a->size) return SOMA_OK;
    float *values = soma__trace_room(r, a->size, err);
    if (!values) return SOMA_NO_MEMORY;
    soma__to_f32(values, t->dtype, t->data, t->n_values);
    *data = values;
    return SOMA_OK;
}

static soma_status put_all(soma_trace_run *r, soma_frame *f, const soma_feed *feed, soma_error *err) {
    for (size_t i = 0; i < feed->n_arrays; i++) {
        const soma_feed_array *a = &feed->arrays[i];
        const soma_tensor *t = soma__plan_find(f->plan, a->name);
        const void *data = a->data;
        if (!t || !t->is_input) continue;
        if (t->dtype == SOMA_F32) SOMA_TRY(replace(r, a, &data, err));
        SOMA_TRY(soma__frame_put(f, a->name, data, a->size, err));
    }
    return SOMA_OK;
}

void soma__trace_close(soma_trace_runner *x) {
    soma__frame_free(x->frame);
    soma__plan_free(x->plan);
}

soma_status soma__trace_open(soma_trace_run *r, soma_trace_runner *x, soma_graph *graph, void *grads, const soma_feed *feed,
                             soma_error *err) {
    *x = (soma_trace_runner){0};
    SOMA_TRY(soma__plan_new(&x->plan, graph, &r->params->layout, &r->states, r->device, err));
    SOMA_TRY(soma__frame_new(&x->frame, x->plan, r->params->memory, grads, r->state_memory, err));
    return put_all(r, x->frame, feed, err);
}

void soma__trace_run_plan(soma_trace_run *r, soma_trace_runner *x) {
    if (!r->o->names_only) soma__frame_run(x->frame);
}

// ---- gradients

// Of every weight; one that the loss does not reach (what the prefix's last layer makes of its attention) has a gradient of zeros.
soma_status soma__trace_take_grads(soma_trace_run *r, const char *grads, const char *prefix, soma_error *err) {
    for (size_t i = 0; i < r->params->layout.n_slots; i++) {
        const soma_slot *slot = &r->params->layout.slots[i];
        char name[600];
        void *data;
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", slot->name);
        SOMA_TRY(soma__trace_take(r, name, SOMA_F32, slot->n_dims, slot->shape, &data, err));
        if (data) r->device->kind->get(r->device, data, grads + slot->place, slot->size);
    }
    return SOMA_OK;
}

soma_status soma__trace_take_norm(soma_trace_run *r, const char *grads, soma_error *err) {
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
    return soma__trace_take_floats(r, "train.grad_global_norm", 1, (int64_t[]){1}, &norm, err);
}
