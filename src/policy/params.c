// SPDX-License-Identifier: Apache-2.0
// Weights move between files and the device in pieces of a fixed size, so that loading a large checkpoint needs no second copy of it.
#include "policy/packed_cache.h"

#include "base/hash.h"
#include "base/pool.h"
#include "base/rng.h"

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
    soma__safetensors_close(p->packed);
    soma__layout_free(&p->layout);
    soma__free(p);
}

uint16_t soma__to_bf16(float x) { // to nearest, ties to even; a NaN stays one
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
        for (int64_t i = 0; i < n; i++) bf16[i] = soma__to_bf16(values[i]);
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
        for (int64_t at = 0, n; at < soma__slot_count(slot); at += n) {
            n = SOMA_MIN(PIECE, soma__slot_count(slot) - at);
            initial_values(slot, seed, at, n, values);
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

const char *soma__openpi_name(char out[512], const char *name, const soma_alias *aliases) {
    char next[512];
    snprintf(out, 512, "%s", name);
    for (const soma_alias *a = aliases; a && a->name; a++)
        if (a->openpi && respell(next, out, a)) memcpy(out, next, sizeof next);
    return out;
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

// ---- faults

// Names that differ in a layer's number are listed once, with a star and how many there are.
typedef struct fault {
    char *pattern;
    size_t n;
} fault;
typedef struct fault_list {
    fault *items;
    size_t n, room;
} fault_list;

static bool add_fault(fault_list *list, const char *name, const char *detail) {
    char pattern[700];
    const char *layer = strstr(name, ".layers."), *number = layer ? layer + strlen(".layers.") : name + strlen(name);
    snprintf(pattern, sizeof pattern, "%.*s%s%s%s", (int)(number - name), name, layer ? "*" : "", number + strspn(number, "0123456789"),
             detail);
    for (size_t i = 0; i < list->n; i++)
        if (!strcmp(list->items[i].pattern, pattern)) {
            list->items[i].n++;
            return true;
        }
    if (!SOMA_PUSH_ROOM(list->items, list->n, list->room)) return false;
    list->items[list->n] = (fault){soma__strdup(pattern), 1};
    return list->items[list->n++].pattern;
}

// Writes the list and releases it.
static void write_faults(soma_str *out, fault_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        if (list->items[i].pattern) soma__str_printf(out, "%s%s", i ? "; " : "", list->items[i].pattern);
        if (list->items[i].n > 1) soma__str_printf(out, " (%zu layers)", list->items[i].n);
        soma__free(list->items[i].pattern);
    }
    soma__free(list->items);
}

// Marks every tensor that `name` may mean, not only the one that is read.
static void mark_spellings(const soma_safetensors *file, const char *name, const soma_alias *a, bool *known) {
    char other[512];
    if (!a || !a->name) {
        const soma_safetensor *t = soma__safetensors_find(file, name);
        if (t) known[t - soma__safetensors_at(file, 0)] = true;
        return;
    }
    mark_spellings(file, name, a + 1, known);
    if (respell(other, name, a)) mark_spellings(file, other, a + 1, known);
}

static bool is_table(const soma_model *model, const char *name) {
    soma_written_table t;
    for (int i = 0; model->family->lerobot.table && model->family->lerobot.table(model, i, &t, NULL); i++)
        if (!strcmp(name, t.name)) return true;
    return false;
}

static bool find_extra(fault_list *extra, size_t *n, const soma_layout *published, const soma_model *model, const soma_safetensors *file) {
    const soma_alias *aliases = model->family->aliases;
    const size_t n_tensors = soma__safetensors_count(file);
    bool *known = soma__calloc(n_tensors + 1, sizeof *known), ok = known != NULL;
    for (size_t s = 0; ok && n_tensors && s < published->n_slots; s++) mark_spellings(file, published->slots[s].name, aliases, known);
    for (size_t i = 0; ok && i < n_tensors; i++) {
        if (known[i] || is_table(model, soma__safetensors_at(file, i)->name)) continue;
        ok = add_fault(extra, soma__safetensors_at(file, i)->name, "");
        (*n)++;
    }
    soma__free(known);
    return ok;
}

soma_status soma__find_faults(soma_faults *f, const soma_layout *used, const soma_layout *published, const soma_model *model,
                              const soma_safetensors *file, const soma_alias *aliases, soma_error *err) {
    fault_list missing = {0}, misshapen = {0}, extra = {0};
    bool ok = true;
    for (size_t s = 0; ok && s < used->n_slots; s++) {
        const soma_slot *slot = &used->slots[s];
        const soma_safetensor *t = soma__find_weight(file, slot->name, aliases);
        soma_safetensor asked = {.n_dims = slot->n_dims};
        char found[160], wanted[160], detail[360];
        if (t && same_shape(slot, t)) continue;
        memcpy(asked.shape, slot->shape, sizeof asked.shape);
        if (t) {
            snprintf(detail, sizeof detail, " is %s, not %s", soma__safetensor_shape(found, t), soma__safetensor_shape(wanted, &asked));
            ok = add_fault(&misshapen, slot->name, detail);
            f->n_misshapen++;
        } else {
            snprintf(detail, sizeof detail, " %s", soma__safetensor_shape(wanted, &asked));
            ok = add_fault(&missing, slot->name, detail);
            f->n_missing++;
        }
    }
    if (ok && model) ok = find_extra(&extra, &f->n_extra, published, model, file);
    write_faults(&f->missing, &missing);
    write_faults(&f->misshapen, &misshapen);
    write_faults(&f->extra, &extra);
    ok = ok && !f->missing.failed && !f->misshapen.failed && !f->extra.failed;
    return ok ? SOMA_OK : soma__no_memory(err, "comparing a checkpoint with its model");
}

void soma__faults_free(soma_faults *f) {
    soma__str_free(&f->missing);
    soma__str_free(&f->misshapen);
    soma__str_free(&f->extra);
    *f = (soma_faults){0};
}

soma_status soma__check_weights(const soma_layout *used, const soma_layout *published, const soma_model *model,
                                const soma_safetensors *file, const soma_alias *aliases, soma_error *err) {
    soma_faults f = {0};
    soma_status status = soma__find_faults(&f, used, published, model, file, aliases, err);
    if (status == SOMA_OK && f.n_missing + f.n_misshapen + f.n_extra) { // what does not fit into a sentence is cut; the counts are whole
        soma_str text = {0};
        const char *where = soma__safetensors_path(file);
        soma__str_printf(&text, "%s: of %zu weights %zu are missing and %zu have another shape", where, used->n_slots, f.n_missing,
                         f.n_misshapen);
        if (f.n_extra) soma__str_printf(&text, ", and %zu tensors belong to no weight", f.n_extra);
        soma__str_add(&text, " (soma inspect lists all)");
        if (f.n_missing) soma__str_printf(&text, ". Missing: %s", f.missing.text);
        if (f.n_misshapen) soma__str_printf(&text, ". Other shape: %s", f.misshapen.text);
        if (f.n_extra) soma__str_printf(&text, ". Not known: %s", f.extra.text);
        status = soma__fail(err, f.n_missing ? SOMA_NOT_FOUND : SOMA_BAD_INPUT, "%s", text.text ? text.text : where);
        soma__str_free(&text);
    }
    soma__faults_free(&f);
    return status;
}

// Reads a weight into `memory`; what was read is not kept in memory a second time.
static void read_weight(const soma_params *p, const soma_slot *slot, char *memory, const soma_safetensors *file, const soma_safetensor *t,
                        float *values, uint16_t *bf16) {
    const int64_t size = (int64_t)soma_dtype_size(t->dtype);
    for (int64_t at = 0, n; at < soma__slot_count(slot); at += n) {
        n = SOMA_MIN(PIECE, soma__slot_count(slot) - at);
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

// The same into the form that the device chose for it. What the device cannot read in place is converted first.
static soma_status pack_weight(const soma_params *p, const soma_slot *slot, char *memory, const soma_safetensors *file,
                               const soma_safetensor *t, soma_error *err) {
    const soma_device_kind *kind = p->device->kind;
    if ((t->dtype == SOMA_F32 || t->dtype == SOMA_BF16) && soma__safetensor_aligned(t))
        kind->pack(p->device, slot, memory + slot->place, t->data, t->dtype);
    else {
        float *values = soma__alloc((size_t)t->n_values * sizeof *values);
        if (!values) return soma__no_memory(err, "reading weights");
        soma__to_f32(values, t->dtype, t->data, t->n_values);
        kind->pack(p->device, slot, memory + slot->place, values, SOMA_F32);
        soma__free(values);
    }
    soma__safetensors_forget(file, t->data, (size_t)t->n_values * soma_dtype_size(t->dtype));
    return SOMA_OK;
}

bool soma__params_borrows(const soma_params *p, const soma_slot *slot) {
    return p->file && (slot->place < 0 || slot->place >= (int64_t)SOMA_MAX(p->size, 1));
}

static soma_status read_weights(const soma_params *p, void *memory, const soma_safetensors *file, const soma_alias *aliases,
                                soma_error *err) {
    float *values = soma__alloc(PIECE * sizeof *values);
    uint16_t *bf16 = soma__alloc(PIECE * sizeof *bf16);
    soma_status status = values && bf16 ? SOMA_OK : soma__no_memory(err, "reading weights");
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++) {
        const soma_slot *slot = &p->layout.slots[s];
        if (soma__params_borrows(p, slot)) continue;
        const soma_safetensor *t = soma__find_weight(file, slot->name, aliases);
        if (slot->form)
            status = pack_weight(p, slot, memory, file, t, err);
        else
            read_weight(p, slot, memory, file, t, values, bf16);
    }
    soma__free(values);
    soma__free(bf16);
    return status;
}

soma_status soma__params_load_into(const soma_params *p, void *memory, const soma_safetensors *file, const soma_alias *aliases,
                                   soma_error *err) {
    SOMA_TRY(soma__check_weights(&p->layout, NULL, NULL, file, aliases, err));
    return read_weights(p, memory, file, aliases, err);
}

soma_status soma__params_load(soma_params *p, const soma_safetensors *file, const soma_alias *aliases, soma_error *err) {
    SOMA_TRY(soma__params_load_into(p, p->memory, file, aliases, err));
    p->version++;
    return SOMA_OK;
}

// What need not be copied keeps its place in a file; the rest is laid out anew without gaps.
static soma_status place_weights(soma_params *p, const soma_alias *aliases, const char *cache, soma_error *err) {
    const soma_device_kind *kind = p->device->kind;
    const void **from = soma__calloc(p->layout.n_slots + 1, sizeof *from); // borrowed data, or NULL
    bool *borrowed = soma__calloc(p->layout.n_slots + 1, sizeof *borrowed);
    soma_status status = from && borrowed ? SOMA_OK : soma__no_memory(err, "the weights' table");
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++) {
        const soma_slot *slot = &p->layout.slots[s];
        const soma_safetensor *t = soma__find_weight(p->file, slot->name, aliases);
        borrowed[s] = kind->reads_host && !slot->form && t->dtype == slot->dtype && slot->size && soma__safetensor_aligned(t);
        if (borrowed[s]) from[s] = t->data;
    }
    if (status == SOMA_OK && *cache && kind->reads_host) p->packed = soma__packed_open(cache, p, borrowed);
    p->size = 0;
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++) {
        soma_slot *slot = &p->layout.slots[s];
        if (!from[s] && p->packed) {
            from[s] = soma__safetensors_find(p->packed, slot->name)->data;
            soma__memory_want(from[s], slot->size);
        }
        if (from[s]) continue;
        slot->place = (int64_t)p->size;
        p->size += (slot->size + 63) & ~(size_t)63;
    }
    if (status == SOMA_OK) status = kind->alloc(p->device, &p->memory, p->size, err);
    if (status == SOMA_OK && kind->reads_host) soma__memory_large(p->memory, p->size);
    for (size_t s = 0; status == SOMA_OK && s < p->layout.n_slots; s++)
        if (from[s]) p->layout.slots[s].place = (int64_t)((intptr_t)from[s] - (intptr_t)p->memory);
    p->layout.size = p->size;
    soma__free(from);
    soma__free(borrowed);
    return status;
}

soma_status soma__params_open(soma_params **out, soma_device *device, const soma_graph *const *graphs, size_t n_graphs, soma_role role,
                              soma_safetensors *file, const soma_alias *aliases, soma_error *err) {
    return soma__params_open_cached(out, device, graphs, n_graphs, role, file, aliases, "", err);
}

soma_status soma__params_open_cached(soma_params **out, soma_device *device, const soma_graph *const *graphs, size_t n_graphs,
                                     soma_role role, soma_safetensors *file, const soma_alias *aliases, const char *cache,
                                     soma_error *err) {
    soma_status status = lay_out(out, device, graphs, n_graphs, role, err);
    soma_params *p = *out;
    if (p)
        p->file = file;
    else
        soma__safetensors_close(file);
    if (status == SOMA_OK) status = soma__check_weights(&p->layout, NULL, NULL, file, aliases, err);
    if (status == SOMA_OK && cache) status = soma__choose_forms(device, &p->layout, graphs, n_graphs, role, err);
    if (!cache) cache = "";
    if (status == SOMA_OK) status = place_weights(p, aliases, cache, err);
    if (status == SOMA_OK) status = read_weights(p, p->memory, file, aliases, err);
    if (status == SOMA_OK && device->kind->reads_host) soma__memory_large(p->memory, p->size); // what is not yet: when the system has time
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
        for (int64_t i = 0; i < n; i++) ((uint16_t *)r->out)[from + i] = soma__to_bf16(values[i]);
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

soma_status soma__params_write_random(const soma_layout *layout, const soma_alias *aliases, uint64_t seed, soma_dtype dtype,
                                      const char *path, soma_params_progress *progress, void *user, soma_error *err) {
    SOMA_CHECK(dtype == SOMA_F32 || dtype == SOMA_BF16, "random weights are F32 or BF16");
    random_file r = {.layout = layout, .seed = seed, .dtype = dtype, .progress = progress, .user = user};
    soma_safetensor *tensors = soma__calloc(layout->n_slots + 1, sizeof *tensors);
    soma_arena names = {0};
    json_t *metadata = json_object(); // as openpi's files: what a name that was left out is the same as
    soma_status status = tensors && metadata ? soma__pool_new(&r.pool, 0, err) : soma__no_memory(err, "a checkpoint's table");
    for (size_t s = 0; status == SOMA_OK && s < layout->n_slots; s++) {
        const soma_slot *slot = &layout->slots[s];
        char room[512];
        const char *name = soma__arena_strdup(&names, soma__openpi_name(room, slot->name, aliases));
        if (!name || (strcmp(name, slot->name) && json_object_set_new(metadata, slot->name, json_string(name))))
            status = soma__no_memory(err, "a checkpoint's table");
        tensors[s] = (soma_safetensor){.name = name, .dtype = dtype, .n_dims = slot->n_dims};
        memcpy(tensors[s].shape, slot->shape, sizeof slot->shape);
        r.total += soma__slot_count(slot);
    }
    if (status == SOMA_OK)
        status = soma__safetensors_write_made(path, tensors, layout->n_slots, json_object_size(metadata) ? metadata : NULL, make_random, &r,
                                              err);
    soma__pool_free(r.pool);
    soma__arena_free(&names);
    json_decref(metadata);
    soma__free(tensors);
    return status;
}
