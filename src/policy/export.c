// SPDX-License-Identifier: Apache-2.0
// The weights of an exported checkpoint: every tensor that a published file of the model has, from the adapter where it was trained whole,
// else from the base, with its pair folded in where there is one. One tensor is in memory at a time.
#include "policy/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct merging {
    const soma_export_opts *o;
    soma_exported *result;
    soma_published side; // config, model and, unless it is an adapter's folder, the weights
    soma_robot robot;
    soma_adapter_set change;
    soma_safetensors *adapter, *base; // adapter NULL: there is none
    const soma_alias *spellings;      // in the adapter's file
    soma_arena names;
    soma_safetensor *tensors; // the weights, then LeRobot's tables
    soma_export_watch *watch;
    void *user;
    // the tensor that is being written
    size_t now;
    float *values;
    int64_t done, total;
} merging;

// ---- one tensor

static const soma_adapter *pair_of(const merging *m, const char *weight) {
    const size_t tail = strlen(".weight"), len = strlen(weight);
    if (len <= tail || strcmp(weight + len - tail, ".weight")) return NULL;
    for (size_t i = 0; i < m->change.n_adapters; i++) {
        const char *layer = m->change.adapters[i].glob;
        if (strlen(layer) == len - tail && !strncmp(layer, weight, len - tail)) return &m->change.adapters[i];
    }
    return NULL;
}

static soma_status read_factor(float **values, const merging *m, const soma_adapter *d, const char *which, int64_t n, soma_error *err) {
    char name[600];
    snprintf(name, sizeof name, "%s.%s", d->glob, which);
    const soma_safetensor *t = soma__find_weight(m->adapter, name, m->spellings);
    if (!t) return soma__fail(err, SOMA_NOT_FOUND, "%s: no %s", soma__safetensors_path(m->adapter), name);
    char shape[160];
    if (t->n_values != n)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s is %s, and the layer takes %lld values there", soma__safetensors_path(m->adapter),
                          name, soma__safetensor_shape(shape, t), (long long)n);
    *values = soma__alloc(sizeof **values * (size_t)n);
    if (!*values) return soma__no_memory(err, "an adapter's factor");
    soma__to_f32(*values, t->dtype, t->data, n);
    return SOMA_OK;
}

static soma_status fold(merging *m, const soma_slot *slot, const soma_adapter *d, soma_error *err) {
    const bool peft = d->form == SOMA_ADAPTER_PEFT, to = d->form == SOMA_ADAPTER_OPENPI_TO_HEADS,
               from = d->form == SOMA_ADAPTER_OPENPI_FROM_HEADS;
    const int64_t out = slot->shape[0], in = slot->shape[1];
    if ((to && (d->n_heads < 1 || out % d->n_heads)) || (from && (d->n_heads < 1 || in % d->n_heads)))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %lld heads do not divide the layer", d->glob, (long long)d->n_heads);
    float *a = NULL, *b = NULL;
    soma_status status = read_factor(&a, m, d, peft ? "lora_A.weight" : "lora_a", in * d->rank * (to ? d->n_heads : 1), err);
    if (status == SOMA_OK) status = read_factor(&b, m, d, peft ? "lora_B.weight" : "lora_b", out * d->rank * (from ? d->n_heads : 1), err);
    if (status == SOMA_OK) soma__adapter_fold(m->values, d, a, b, in, out);
    m->result->n_folded += status == SOMA_OK;
    soma__free(a);
    soma__free(b);
    return status;
}

static bool has_shape(const soma_slot *slot, const soma_safetensor *t) {
    return t->n_dims == slot->n_dims && !memcmp(t->shape, slot->shape, sizeof *t->shape * (size_t)t->n_dims);
}

static soma_status take_table(merging *m, size_t tensor, soma_error *err) {
    soma_written_table table;
    soma__free(m->values);
    m->values = soma__calloc((size_t)m->tensors[tensor].n_values, sizeof *m->values);
    if (!m->values) return soma__no_memory(err, "a table");
    m->now = tensor;
    m->side.model->family->lerobot.table(m->side.model, (int)(tensor - m->side.holds.n_slots), &table, m->values);
    return SOMA_OK;
}

static soma_status take(merging *m, size_t tensor, soma_error *err) {
    if (tensor >= m->side.holds.n_slots) return take_table(m, tensor, err);
    const soma_slot *slot = &m->side.holds.slots[tensor];
    const int64_t n = (int64_t)(slot->size / sizeof(float)); // the table says F32 throughout
    const soma_safetensor *t = m->adapter ? soma__find_weight(m->adapter, slot->name, m->spellings) : NULL;
    const soma_safetensors *file = t ? m->adapter : m->base;
    if (!t) t = soma__find_weight(m->base, slot->name, m->side.model->family->aliases);
    char found[160];
    if (t && !has_shape(slot, t))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s is %s, which is not this model's shape", soma__safetensors_path(file), slot->name,
                          soma__safetensor_shape(found, t));
    soma__free(m->values);
    m->values = soma__calloc((size_t)n, sizeof *m->values);
    if (!m->values) return soma__no_memory(err, slot->name);
    m->now = tensor;
    if (!t) {
        m->result->n_absent++;
        return SOMA_OK;
    }
    soma__to_f32(m->values, t->dtype, t->data, n);
    soma__safetensors_forget(file, t->data, (size_t)n * soma_dtype_size(t->dtype));
    const soma_adapter *d = pair_of(m, slot->name);
    if (!d) return SOMA_OK;
    if (slot->n_dims != 2) return soma__fail(err, SOMA_BAD_INPUT, "%s has a pair and is no matrix", slot->name);
    return fold(m, slot, d, err);
}

static soma_status make(void *user, size_t tensor, int64_t at, int64_t n, void *out, soma_error *err) {
    merging *m = user;
    if (m->now != tensor || !m->values) SOMA_TRY(take(m, tensor, err));
    if (m->o->dtype == SOMA_F32)
        memcpy(out, m->values + at, sizeof(float) * (size_t)n);
    else
        for (int64_t i = 0; i < n; i++) ((uint16_t *)out)[i] = soma__to_bf16(m->values[at + i]);
    m->done += n;
    if (m->watch && !m->watch(m->user, m->done, m->total)) return soma__fail(err, SOMA_CANCELLED, "stopped; %s is not whole", m->o->out);
    return SOMA_OK;
}

// ---- all of them

// A weight that the model computes with must be in one of the files.
static soma_status check_complete(const merging *m, soma_error *err) {
    soma_layout used = {0}, left = {0};
    soma_status status = soma__model_weights(&used, m->side.model, false, err);
    left = used;
    left.slots = soma__calloc(used.n_slots + 1, sizeof *left.slots);
    left.n_slots = 0;
    if (!left.slots && status == SOMA_OK) status = soma__no_memory(err, "the weights' table");
    for (size_t i = 0; i < used.n_slots && status == SOMA_OK; i++)
        if (!m->adapter || !soma__find_weight(m->adapter, used.slots[i].name, m->spellings)) left.slots[left.n_slots++] = used.slots[i];
    if (status == SOMA_OK) status = soma__check_weights(&left, NULL, NULL, m->base, m->side.model->family->aliases, err);
    soma__free(left.slots);
    soma__layout_free(&used);
    return status;
}

// Behind the weights; returns how many there are, -1: memory is out. tensors NULL: they are only counted.
static int add_tables(merging *m, soma_safetensor *tensors) {
    const soma_family *family = m->side.model->family;
    soma_written_table t;
    int n = 0;
    for (; m->o->lerobot && family->lerobot.table && family->lerobot.table(m->side.model, n, &t, NULL); n++) {
        if (!tensors) continue;
        tensors[n] =
            (soma_safetensor){.name = soma__arena_strdup(&m->names, t.name), .dtype = m->o->dtype, .n_dims = t.n_dims, .n_values = 1};
        memcpy(tensors[n].shape, t.shape, sizeof t.shape);
        for (int d = 0; d < t.n_dims; d++) tensors[n].n_values *= t.shape[d];
        m->total += tensors[n].n_values;
        if (!tensors[n].name) return -1;
    }
    return n;
}

static soma_status write_weights(merging *m, soma_error *err) {
    const soma_layout *all = &m->side.holds;
    const size_t n_all = all->n_slots + (size_t)add_tables(m, NULL);
    char path[SOMA_PATH_MAX], room[512];
    SOMA_TRY(check_complete(m, err));
    SOMA_TRY(soma__path_join(path, m->o->out, "model.safetensors", err));
    m->tensors = soma__calloc(n_all + 1, sizeof *m->tensors);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    soma_status status = m->tensors && metadata ? SOMA_OK : soma__no_memory(err, "a checkpoint's table");
    for (size_t i = 0; i < all->n_slots && status == SOMA_OK; i++) {
        const soma_slot *slot = &all->slots[i];
        const char *openpi = soma__openpi_name(room, slot->name, m->side.model->family->aliases);
        const char *name =
            soma__arena_printf(&m->names, "%s%s", m->o->lerobot && !m->side.model->family->lerobot.bare ? "model." : "", openpi);
        if (!name) status = soma__no_memory(err, "a checkpoint's table");
        if (strcmp(openpi, slot->name) && !m->o->lerobot) json_object_set_new(metadata, slot->name, json_string(openpi)); // the tied name
        m->tensors[i] = (soma_safetensor){.name = name, .dtype = m->o->dtype, .n_dims = slot->n_dims};
        memcpy(m->tensors[i].shape, slot->shape, sizeof slot->shape);
        m->total += (int64_t)(slot->size / sizeof(float));
    }
    if (status == SOMA_OK && add_tables(m, m->tensors + all->n_slots) < 0) status = soma__no_memory(err, "a checkpoint's table");
    if (status == SOMA_OK) status = soma__safetensors_write_made(path, m->tensors, n_all, metadata, make, m, err);
    m->result->n_tensors = n_all;
    m->result->n_values = m->total;
    json_decref(metadata);
    return status;
}

static soma_status open_all(merging *m, soma_error *err) {
    const soma_export_opts *o = m->o;
    const char *side = o->adapter ? o->adapter : o->policy;
    if (o->adapter && !realpath(o->policy, m->change.base))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: there is no such policy", o->policy);
    if (o->adapter && !soma__adapters_here(o->adapter))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no adapter_config.json here", o->adapter);
    SOMA_TRY(soma__published_open(&m->side, side, err));
    SOMA_TRY(soma__robot_resolve(m->side.config, side, "", err));
    SOMA_TRY(soma__published_model(&m->side, err));
    const json_t *robot = json_object_get(m->side.config, "robot");
    if (!robot) return soma__fail(err, SOMA_BAD_INPUT, "%s: it does not say which robot it is for", m->side.where);
    SOMA_TRY(soma__robot_read(&m->robot, robot, m->side.model, m->side.where, err));
    SOMA_TRY(soma__robot_stats(&m->robot.stats, robot, side, false, err));
    soma_robot *r = &m->robot; // no vocabulary is needed here: its file is copied
    if (r->stats && r->n_state) SOMA_TRY(soma__norm_find(&r->state, r->stats, "state", r->state_rule, r->n_state, err));
    if (r->stats) SOMA_TRY(soma__norm_find(&r->actions, r->stats, "actions", r->action_rule, r->n_actions, err));
    if (!soma__adapters_here(side)) return soma__safetensors_open(&m->base, side, err);
    SOMA_TRY(soma__adapters_open(&m->change, &m->adapter, side, err));
    m->spellings = soma__adapters_aliases(&m->change, m->side.model->family->aliases);
    if (!m->spellings) return soma__no_memory(err, "an adapter");
    return soma__safetensors_open(&m->base, m->change.base, err);
}

soma_status soma__export(soma_exported *result, const soma_export_opts *o, soma_export_watch *watch, void *user, soma_error *err) {
    *result = (soma_exported){0};
    if (soma__dir_exists(o->out) || soma__file_exists(o->out))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: it is there already; remove it or name another folder", o->out);
    merging m = {.o = o, .result = result, .watch = watch, .user = user};
    soma_status status = open_all(&m, err);
    if (status == SOMA_OK) status = soma__dir_make(o->out, err);
    if (status == SOMA_OK) status = soma__export_sides(o, m.side.model, &m.robot, o->adapter ? o->adapter : o->policy, err);
    if (status == SOMA_OK) status = write_weights(&m, err);
    soma__published_close(&m.side);
    soma__robot_close(&m.robot);
    soma__adapters_free(&m.change);
    soma__safetensors_close(m.adapter);
    soma__safetensors_close(m.base);
    soma__arena_free(&m.names);
    soma__free(m.tensors);
    soma__free(m.values);
    return status;
}
