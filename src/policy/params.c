// SPDX-License-Identifier: Apache-2.0
// Weights move between files and the device in pieces of a fixed size, so that loading a large checkpoint needs no second copy of it.
#include "policy/params.h"

#include "base/hash.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

enum { PIECE = 1 << 16 }; // values converted at a time

static soma_status lay_out(soma_params **out, soma_device *device, const soma_graph *const *graphs, size_t n_graphs, soma_role role,
                           soma_error *err) {
    soma_params *p = *out = soma__calloc(1, sizeof *p);
    if (!p) return soma__no_memory(err, "the weights' table");
    p->device = device;
    for (size_t i = 0; i < n_graphs; i++) SOMA_TRY(soma__layout_add(&p->layout, graphs[i], role, err));
    p->size = p->layout.size;
    return SOMA_OK;
}

soma_status soma__params_lay_out(soma_params **out, soma_device *device, const soma_graph *const *graphs, size_t n_graphs,
                                 soma_error *err) {
    soma_status status = lay_out(out, device, graphs, n_graphs, SOMA_ROLE_WEIGHT, err);
    if (status == SOMA_OK) {
        (*out)->lent = true;
        return SOMA_OK;
    }
    soma__params_free(*out);
    *out = NULL;
    return status;
}

soma_status soma__params_new(soma_params **out, soma_device *device, const soma_graph *const *graphs, size_t n_graphs, soma_error *err) {
    soma_status status = lay_out(out, device, graphs, n_graphs, SOMA_ROLE_WEIGHT, err);
    if (status == SOMA_OK) status = device->kind->alloc(device, &(*out)->memory, (*out)->size, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__params_free(*out);
    *out = NULL;
    return status;
}

void soma__params_free(soma_params *p) {
    if (!p) return;
    if (p->memory && !p->lent) p->device->kind->free(p->device, p->memory);
    soma__safetensors_close(p->file);
    soma__layout_free(&p->layout);
    soma__free(p);
}

static int64_t count(const soma_slot *slot) { return (int64_t)(slot->size / soma_dtype_size(slot->dtype)); }

static uint16_t to_bf16(float x) { // to nearest, ties to even; a NaN stays one
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

// Puts n f32 values as the slot's values from `at` on. bf16: room for PIECE of them.
static void put_piece(const soma_params *p, const soma_slot *slot, char *memory, int64_t at, const float *values, uint16_t *bf16,
                      int64_t n) {
    const soma_device_kind *kind = p->device->kind;
    char *to = memory + slot->place + at * (int64_t)soma_dtype_size(slot->dtype);
    if (slot->dtype == SOMA_BF16) {
        for (int64_t i = 0; i < n; i++) bf16[i] = to_bf16(values[i]);
        kind->put(p->device, to, bf16, (size_t)n * sizeof *bf16);
    } else
        kind->put(p->device, to, values, (size_t)n * sizeof *values);
}

// Values [at, at + n) of a weight's initialiser. A value's place in its stream is its place in the weight, so that pieces may be made in
// any order; a normal one takes two draws.
static void initial_values(const soma_slot *slot, uint64_t seed, int64_t at, int64_t n, float *values) {
    const soma_rng all = soma__rng(seed);
    soma_rng rng = soma__rng_fold(&all, soma__hash(SOMA_HASH_START, slot->name, strlen(slot->name)));
    rng.counter = 2 * (uint64_t)at;
    for (int64_t i = 0; i < n; i++)
        values[i] = slot->init.kind == SOMA_INIT_NORMAL ? slot->init.std * (float)soma__rng_normal(&rng) : slot->init.kind == SOMA_INIT_ONE;
}

soma_status soma__params_init(soma_params *p, uint64_t seed, soma_error *err) {
    float *values = soma__alloc(PIECE * sizeof *values);
    uint16_t *bf16 = soma__alloc(PIECE * sizeof *bf16);
    soma_status status = values && bf16 ? SOMA_OK : soma__no_memory(err, "initialising weights");
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++) {
        const soma_slot *slot = &p->layout.slots[s];
        for (int64_t at = 0, n; at < count(slot); at += n) {
            n = SOMA_MIN(PIECE, count(slot) - at);
            initial_values(slot, seed, at, n, values);
            put_piece(p, slot, p->memory, at, values, bf16, n);
        }
    }
    soma__free(values);
    soma__free(bf16);
    p->version++;
    return status;
}

// ---- a file of random values

typedef struct random_file {
    const soma_layout *layout;
    uint64_t seed;
    soma_dtype dtype;
    soma_pool *pool;
    soma_params_progress *progress;
    void *user;
    int64_t done, total; // values
    // of the piece that is being made
    const soma_slot *slot;
    int64_t at, n;
    void *out;
} random_file;

enum { RANDOM_ITEM = 1 << 13 }; // values made by one item

static void random_item(void *ctx, int64_t item, int thread) {
    const random_file *r = ctx;
    const int64_t from = item * RANDOM_ITEM, n = SOMA_MIN(RANDOM_ITEM, r->n - from);
    float values[RANDOM_ITEM];
    initial_values(r->slot, r->seed, r->at + from, n, values);
    if (r->dtype == SOMA_F32)
        memcpy((float *)r->out + from, values, sizeof *values * (size_t)n);
    else
        for (int64_t i = 0; i < n; i++) ((uint16_t *)r->out)[from + i] = to_bf16(values[i]);
}

static soma_status make_random(void *user, size_t tensor, int64_t at, int64_t n, void *out, soma_error *err) {
    random_file *r = user;
    r->slot = &r->layout->slots[tensor];
    r->at = at;
    r->n = n;
    r->out = out;
    soma__pool_run(r->pool, (n + RANDOM_ITEM - 1) / RANDOM_ITEM, random_item, r);
    r->done += n;
    if (r->progress && !r->progress(r->user, r->done, r->total))
        return soma__fail(err, SOMA_CANCELLED, "stopped after %lld of %lld values", (long long)r->done, (long long)r->total);
    return SOMA_OK;
}

soma_status soma__params_write_random(const soma_layout *layout, uint64_t seed, soma_dtype dtype, const char *path, const json_t *metadata,
                                      soma_params_progress *progress, void *user, soma_error *err) {
    SOMA_CHECK(dtype == SOMA_F32 || dtype == SOMA_BF16, "random weights are F32 or BF16");
    random_file r = {.layout = layout, .seed = seed, .dtype = dtype, .progress = progress, .user = user};
    soma_safetensor *tensors = soma__calloc(layout->n_slots + 1, sizeof *tensors);
    soma_status status = tensors ? soma__pool_new(&r.pool, 0, err) : soma__no_memory(err, "a checkpoint's table");
    for (size_t s = 0; status == SOMA_OK && s < layout->n_slots; s++) {
        const soma_slot *slot = &layout->slots[s];
        tensors[s] = (soma_safetensor){.name = slot->name, .dtype = dtype, .n_dims = slot->n_dims};
        memcpy(tensors[s].shape, slot->shape, sizeof slot->shape);
        r.total += count(slot);
    }
    if (status == SOMA_OK) status = soma__safetensors_write_made(path, tensors, layout->n_slots, metadata, make_random, &r, err);
    soma__pool_free(r.pool);
    soma__free(tensors);
    return status;
}

// ---- names in published files

// Writes `name` with one spelling replaced into out; false when the alias does not occur in it or the result is too long.
static bool respell(char out[512], const char *name, const soma_alias *a) {
    bool front = a->name[0] == '^';
    const char *from = a->name + front, *hit = strstr(name, from);
    if (!hit || (front && hit != name)) return false;
    int len = snprintf(out, 512, "%.*s%s%s", (int)(hit - name), name, a->other, hit + strlen(from));
    return len > 0 && len < 512;
}

// Every subset of the aliases; the graph's own name first.
static const soma_safetensor *find_from(const soma_safetensors *file, const char *name, const soma_alias *a) {
    if (!a || !a->name) return soma__safetensors_find(file, name);
    char other[512];
    const soma_safetensor *t = find_from(file, name, a + 1);
    return t || !respell(other, name, a) ? t : find_from(file, other, a + 1);
}

const soma_safetensor *soma__find_weight(const soma_safetensors *file, const char *name, const soma_alias *aliases) {
    return find_from(file, name, aliases);
}

static bool same_shape(const soma_slot *slot, const soma_safetensor *t) {
    return slot->n_dims == t->n_dims && !memcmp(slot->shape, t->shape, sizeof *t->shape * (size_t)t->n_dims);
}

static soma_status check_file(const soma_params *p, const soma_safetensors *file, const soma_alias *aliases, soma_error *err) {
    soma_str bad = {0};
    size_t n_missing = 0, n_shapes = 0;
    for (size_t s = 0; s < p->layout.n_slots; s++) {
        const soma_slot *slot = &p->layout.slots[s];
        const soma_safetensor *t = soma__find_weight(file, slot->name, aliases);
        if (t && same_shape(slot, t)) continue;
        char found[160], wanted[160];
        soma_safetensor asked = {.n_dims = slot->n_dims};
        memcpy(asked.shape, slot->shape, sizeof asked.shape);
        soma__str_printf(&bad, "%s%s", bad.len ? "; " : "", slot->name);
        if (t) soma__str_printf(&bad, " is %s, not %s", soma__safetensor_shape(found, t), soma__safetensor_shape(wanted, &asked));
        n_missing += !t;
        n_shapes += t != NULL;
    }
    soma_status status = SOMA_OK;
    if (n_missing + n_shapes) // the list is cut to the error's room; the counts are whole
        status = soma__fail(err, n_missing ? SOMA_NOT_FOUND : SOMA_BAD_INPUT,
                            "%s: of %zu weights %zu are missing and %zu have another shape: %s", soma__safetensors_path(file),
                            p->layout.n_slots, n_missing, n_shapes, bad.text ? bad.text : "");
    soma__str_free(&bad);
    return status;
}

// Reads a weight into `memory`; what was read is not kept in memory a second time.
static void read_weight(const soma_params *p, const soma_slot *slot, char *memory, const soma_safetensors *file, const soma_safetensor *t,
                        float *values, uint16_t *bf16) {
    const int64_t size = (int64_t)soma_dtype_size(t->dtype);
    for (int64_t at = 0, n; at < count(slot); at += n) {
        n = SOMA_MIN(PIECE, count(slot) - at);
        const char *from = (const char *)t->data + at * size;
        if (t->dtype == slot->dtype)
            p->device->kind->put(p->device, memory + slot->place + at * size, from, (size_t)(n * size));
        else {
            soma__to_f32(values, t->dtype, from, n);
            put_piece(p, slot, memory, at, values, bf16, n);
        }
        soma__safetensors_forget(file, from, (size_t)(n * size));
    }
}

// Is the weight where the file is mapped? Its place then lies outside of the buffer.
static bool is_borrowed(const soma_params *p, const soma_slot *slot) {
    return p->file && (slot->place < 0 || slot->place >= (int64_t)SOMA_MAX(p->size, 1));
}

static soma_status read_weights(const soma_params *p, void *memory, const soma_safetensors *file, const soma_alias *aliases,
                                soma_error *err) {
    float *values = soma__alloc(PIECE * sizeof *values);
    uint16_t *bf16 = soma__alloc(PIECE * sizeof *bf16);
    soma_status status = values && bf16 ? SOMA_OK : soma__no_memory(err, "reading weights");
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++) {
        const soma_slot *slot = &p->layout.slots[s];
        if (!is_borrowed(p, slot)) read_weight(p, slot, memory, file, soma__find_weight(file, slot->name, aliases), values, bf16);
    }
    soma__free(values);
    soma__free(bf16);
    return status;
}

soma_status soma__params_load_into(const soma_params *p, void *memory, const soma_safetensors *file, const soma_alias *aliases,
                                   soma_error *err) {
    SOMA_TRY(check_file(p, file, aliases, err));
    return read_weights(p, memory, file, aliases, err);
}

soma_status soma__params_load(soma_params *p, const soma_safetensors *file, const soma_alias *aliases, soma_error *err) {
    SOMA_TRY(soma__params_load_into(p, p->memory, file, aliases, err));
    p->version++;
    return SOMA_OK;
}

// What need not be copied keeps its place in the file; the rest is laid out anew without gaps.
static soma_status place_weights(soma_params *p, const soma_alias *aliases, soma_error *err) {
    const soma_device_kind *kind = p->device->kind;
    const void **from = soma__calloc(p->layout.n_slots + 1, sizeof *from); // borrowed data, or NULL
    if (!from) return soma__no_memory(err, "the weights' table");
    p->size = 0;
    for (size_t s = 0; s < p->layout.n_slots; s++) {
        soma_slot *slot = &p->layout.slots[s];
        const soma_safetensor *t = soma__find_weight(p->file, slot->name, aliases);
        if (kind->reads_host && t->dtype == slot->dtype && slot->size && soma__safetensor_aligned(t)) {
            from[s] = t->data;
            continue;
        }
        slot->place = (int64_t)p->size;
        p->size += (slot->size + 63) & ~(size_t)63;
    }
    soma_status status = kind->alloc(p->device, &p->memory, p->size, err);
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++)
        if (from[s]) p->layout.slots[s].place = (int64_t)((intptr_t)from[s] - (intptr_t)p->memory);
    p->layout.size = p->size;
    soma__free(from);
    return status;
}

soma_status soma__params_open(soma_params **out, soma_device *device, const soma_graph *const *graphs, size_t n_graphs, soma_role role,
                              soma_safetensors *file, const soma_alias *aliases, soma_error *err) {
    soma_status status = lay_out(out, device, graphs, n_graphs, role, err);
    soma_params *p = *out;
    if (p)
        p->file = file;
    else
        soma__safetensors_close(file);
    if (status == SOMA_OK) status = check_file(p, file, aliases, err);
    if (status == SOMA_OK) status = place_weights(p, aliases, err);
    if (status == SOMA_OK) status = read_weights(p, p->memory, file, aliases, err);
    if (status == SOMA_OK) {
        p->version++;
        return SOMA_OK;
    }
    soma__params_free(p);
    *out = NULL;
    return status;
}

typedef struct saving {
    const soma_params *params;
    const char *memory;
} saving;

static soma_status get_values(void *user, size_t tensor, int64_t at, int64_t n, void *out, soma_error *err) {
    const saving *s = user;
    const soma_slot *slot = &s->params->layout.slots[tensor];
    const int64_t size = (int64_t)soma_dtype_size(slot->dtype);
    s->params->device->kind->get(s->params->device, out, s->memory + slot->place + at * size, (size_t)(n * size));
    return SOMA_OK;
}

soma_status soma__params_save(const soma_params *p, const void *memory, const char *path, const json_t *metadata, soma_error *err) {
    saving s = {p, memory ? memory : p->memory};
    soma_safetensor *tensors = soma__calloc(p->layout.n_slots + 1, sizeof *tensors);
    if (!tensors) return soma__no_memory(err, "writing weights");
    for (size_t i = 0; i < p->layout.n_slots; i++) {
        const soma_slot *slot = &p->layout.slots[i];
        tensors[i] = (soma_safetensor){.name = slot->name, .dtype = slot->dtype, .n_dims = slot->n_dims};
        memcpy(tensors[i].shape, slot->shape, sizeof slot->shape);
    }
    soma_status status = soma__safetensors_write_made(path, tensors, p->layout.n_slots, metadata, get_values, &s, err);
    soma__free(tensors);
    return status;
}
