// SPDX-License-Identifier: Apache-2.0
// Keys, reading, writing and checking of packed weights. A file that is not ours, damaged or out of date is passed over: it costs a
// packing.
#include "policy/packed_cache.h"

#include "base/hash.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char key_name[] = "soma_packed";

// What a weight takes in the file, so that the next begins at a cache line as in memory.
static int64_t room(const soma_slot *slot) { return (int64_t)((slot->size + 63) & ~(size_t)63); }

soma_status soma__packed_path(char path[SOMA_PATH_MAX], const char *checkpoint, const char *dir, const soma_device *device,
                              const char *dtype, soma_error *err) {
    const char *forms = device->kind->forms ? device->kind->forms(device) : NULL;
    char name[160];
    path[0] = 0;
    if (!forms || (!*dir && !soma__dir_exists(checkpoint))) return SOMA_OK;
    if (!*dir) {
        snprintf(name, sizeof name, "packed-%s-%.20s.safetensors", forms, dtype);
        return soma__path_join(path, checkpoint, name, err);
    }
    char *whole = realpath(checkpoint, NULL);
    if (!whole) return soma__fail(err, SOMA_NOT_FOUND, "%s: cannot be found", checkpoint);
    snprintf(name, sizeof name, "packed-%016llx-%s-%.20s.safetensors",
             (unsigned long long)soma__hash(SOMA_HASH_START, whole, strlen(whole)), forms, dtype);
    free(whole);
    SOMA_TRY(soma__dir_make(dir, err));
    return soma__path_join(path, dir, name, err);
}

void soma__packed_key(char key[SOMA_PACKED_KEY], const soma_params *p) {
    const soma_device_kind *kind = p->device->kind;
    uint64_t hash = soma__safetensors_identity(p->file);
    for (size_t i = 0; i < p->layout.n_slots; i++) {
        const soma_slot *slot = &p->layout.slots[i];
        const uint64_t form[] = {(uint64_t)slot->form, (uint64_t)slot->dtype, (uint64_t)slot->size};
        hash = soma__hash(soma__hash(hash, slot->name, strlen(slot->name) + 1), form, sizeof form);
    }
    snprintf(key, SOMA_PACKED_KEY, "%.40s-%016llx", kind->forms ? kind->forms(p->device) : "", (unsigned long long)hash);
}

soma_safetensors *soma__packed_open(const char *path, const soma_params *p, const bool *borrowed) {
    soma_safetensors *file;
    char key[SOMA_PACKED_KEY];
    if (!soma__file_exists(path) || soma__safetensors_open(&file, path, NULL)) return NULL;
    const char *found = soma__safetensors_metadata(file, key_name);
    soma__packed_key(key, p);
    bool fits = found && !strcmp(found, key);
    for (size_t i = 0; fits && i < p->layout.n_slots; i++) {
        const soma_safetensor *t = borrowed[i] ? NULL : soma__safetensors_find(file, p->layout.slots[i].name);
        fits = borrowed[i] || (t && t->dtype == SOMA_U8 && t->n_values == room(&p->layout.slots[i]) && (uintptr_t)t->data % 64 == 0);
    }
    if (fits) return file;
    soma__safetensors_close(file);
    return NULL;
}

// ---- writing

typedef struct writing {
    const soma_params *params;
    const soma_slot **slots;
} writing;

static soma_status get_bytes(void *user, size_t tensor, int64_t at, int64_t n, void *out, soma_error *err) {
    const writing *w = user;
    w->params->device->kind->get(w->params->device, out, (const char *)w->params->memory + w->slots[tensor]->place + at, (size_t)n);
    return SOMA_OK;
}

// Temporary files of this name whose process is gone.
static void remove_leftovers(const char *path) {
    char dir[SOMA_PATH_MAX], whole[SOMA_PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    const char *name = slash ? path + (slash - dir) + 1 : path;
    if (slash) slash[slash == dir] = 0;
    char **names;
    size_t n, len = strlen(name);
    if (soma__dir_list(&names, &n, slash ? dir : ".", NULL)) return;
    for (size_t i = 0; i < n; i++) {
        long process;
        if (strncmp(names[i], name, len) || sscanf(names[i] + len, ".part-%ld", &process) != 1) continue;
        if (!kill((pid_t)process, 0) || errno != ESRCH) continue;
        if (!soma__path_join(whole, slash ? dir : ".", names[i], NULL)) remove(whole);
    }
    soma__dir_list_free(names, n);
}

soma_status soma__packed_write(const soma_params *p, const char *path, soma_error *err) {
    char key[SOMA_PACKED_KEY];
    writing w = {p, soma__calloc(p->layout.n_slots + 1, sizeof *w.slots)};
    soma_safetensor *tensors = soma__calloc(p->layout.n_slots + 1, sizeof *tensors);
    soma__packed_key(key, p);
    json_t *metadata = json_pack("{s:s}", key_name, key);
    soma_status status = w.slots && tensors && metadata ? SOMA_OK : soma__no_memory(err, "packed weights");
    size_t n = 0;
    remove_leftovers(path);
    for (size_t i = 0; status == SOMA_OK && i < p->layout.n_slots; i++) {
        const soma_slot *slot = &p->layout.slots[i];
        if (soma__params_borrows(p, slot)) continue;
        tensors[n] = (soma_safetensor){.name = slot->name, .dtype = SOMA_U8, .n_dims = 1, .shape = {room(slot)}};
        w.slots[n++] = slot;
    }
    if (status == SOMA_OK) status = soma__safetensors_write_made(path, tensors, n, metadata, get_bytes, &w, err);
    json_decref(metadata);
    soma__free(tensors);
    soma__free(w.slots);
    return status;
}

soma_status soma__packed_verify(const soma_params *fresh, const char *path, size_t *n_weights, soma_error *err) {
    soma_safetensors *file;
    char key[SOMA_PACKED_KEY];
    *n_weights = 0;
    SOMA_TRY(soma__safetensors_open(&file, path, err));
    const char *found = soma__safetensors_metadata(file, key_name);
    soma__packed_key(key, fresh);
    soma_status status = SOMA_OK;
    if (!found || strcmp(found, key))
        status = soma__fail(err, SOMA_BAD_INPUT, "%s: packed from another checkpoint, or for another machine: it is not used", path);
    for (size_t i = 0; status == SOMA_OK && i < fresh->layout.n_slots; i++) {
        const soma_slot *slot = &fresh->layout.slots[i];
        if (soma__params_borrows(fresh, slot)) continue;
        const soma_safetensor *t = soma__safetensors_find(file, slot->name);
        if (!t || t->dtype != SOMA_U8 || t->n_values != room(slot) ||
            memcmp(t->data, (const char *)fresh->memory + slot->place, slot->size))
            status = soma__fail(err, SOMA_BAD_INPUT, "%s: %s is not what the checkpoint gives; remove the file", path, slot->name);
        else
            soma__safetensors_forget(file, t->data, slot->size);
        ++*n_weights;
    }
    soma__safetensors_close(file);
    return status;
}
