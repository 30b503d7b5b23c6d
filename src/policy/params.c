// SPDX-License-Identifier: Apache-2.0
// Weights move between files and the device in pieces of a fixed size, so that loading a large checkpoint needs no second copy of it.
#include "policy/params.h"

#include "base/hash.h"
#include "base/rng.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

enum { PIECE = 1 << 16 }; // values converted at a time

soma_status soma__params_new(soma_params **out, soma_device *device, const soma_graph *const *graphs, size_t n_graphs, soma_error *err) {
    soma_params *p = *out = soma__calloc(1, sizeof *p);
    if (!p) return soma__no_memory(err, "the weights' table");
    p->device = device;
    soma_status status = SOMA_OK;
    for (size_t i = 0; status == SOMA_OK && i < n_graphs; i++) status = soma__layout_add(&p->layout, graphs[i], SOMA_ROLE_WEIGHT, err);
    if (status == SOMA_OK) status = device->kind->alloc(device, &p->memory, p->layout.size, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__params_free(p);
    *out = NULL;
    return status;
}

void soma__params_free(soma_params *p) {
    if (!p) return;
    if (p->memory) p->device->kind->free(p->device, p->memory);
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

soma_status soma__params_init(soma_params *p, uint64_t seed, soma_error *err) {
    float *values = soma__alloc(PIECE * sizeof *values);
    uint16_t *bf16 = soma__alloc(PIECE * sizeof *bf16);
    soma_status status = values && bf16 ? SOMA_OK : soma__no_memory(err, "initialising weights");
    soma_rng all = soma__rng(seed);
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++) {
        const soma_slot *slot = &p->layout.slots[s];
        soma_rng rng = soma__rng_fold(&all, soma__hash(SOMA_HASH_START, slot->name, strlen(slot->name)));
        for (int64_t at = 0, n; at < count(slot); at += n) {
            n = SOMA_MIN(PIECE, count(slot) - at);
            for (int64_t i = 0; i < n; i++)
                values[i] =
                    slot->init.kind == SOMA_INIT_NORMAL ? slot->init.std * (float)soma__rng_normal(&rng) : slot->init.kind == SOMA_INIT_ONE;
            put_piece(p, slot, p->memory, at, values, bf16, n);
        }
    }
    soma__free(values);
    soma__free(bf16);
    p->version++;
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

soma_status soma__params_load_into(const soma_params *p, void *memory, const soma_safetensors *file, const soma_alias *aliases,
                                   soma_error *err) {
    SOMA_TRY(check_file(p, file, aliases, err));
    float *values = soma__alloc(PIECE * sizeof *values);
    uint16_t *bf16 = soma__alloc(PIECE * sizeof *bf16);
    soma_status status = values && bf16 ? SOMA_OK : soma__no_memory(err, "reading weights");
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++) {
        const soma_slot *slot = &p->layout.slots[s];
        const soma_safetensor *t = soma__find_weight(file, slot->name, aliases);
        if (t->dtype == slot->dtype) {
            p->device->kind->put(p->device, (char *)memory + slot->place, t->data, slot->size);
            continue;
        }
        for (int64_t at = 0, n; at < count(slot); at += n) {
            n = SOMA_MIN(PIECE, count(slot) - at);
            soma__to_f32(values, t->dtype, (const char *)t->data + at * (int64_t)soma_dtype_size(t->dtype), n);
            put_piece(p, slot, memory, at, values, bf16, n);
        }
    }
    soma__free(values);
    soma__free(bf16);
    return status;
}

soma_status soma__params_load(soma_params *p, const soma_safetensors *file, const soma_alias *aliases, soma_error *err) {
    SOMA_TRY(soma__params_load_into(p, p->memory, file, aliases, err));
    p->version++;
    return SOMA_OK;
}

soma_status soma__params_save(const soma_params *p, const void *memory, const char *path, const json_t *metadata, soma_error *err) {
    char *host = soma__alloc(p->layout.size + 1);
    soma_safetensor *tensors = soma__calloc(p->layout.n_slots + 1, sizeof *tensors);
    soma_status status = host && tensors ? SOMA_OK : soma__no_memory(err, "writing weights");
    if (status == SOMA_OK) p->device->kind->get(p->device, host, memory ? memory : p->memory, p->layout.size);
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++) {
        const soma_slot *slot = &p->layout.slots[s];
        tensors[s] = (soma_safetensor){.name = slot->name, .dtype = slot->dtype, .n_dims = slot->n_dims, .data = host + slot->place};
        memcpy(tensors[s].shape, slot->shape, sizeof slot->shape);
    }
    if (status == SOMA_OK) status = soma__safetensors_write(path, tensors, p->layout.n_slots, metadata, err);
    soma__free(tensors);
    soma__free(host);
    return status;
}
