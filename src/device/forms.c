// SPDX-License-Identifier: Apache-2.0
// Who reads a weight decides in which form the device keeps it: all readers of all graphs are collected and shown to the device.
#include "device/device.h"

#include <stdlib.h>

typedef struct use {
    const soma_slot *slot;
    const soma_tensor *reader;
} use;

typedef struct uses {
    use *items;
    size_t n, room;
} uses;

static int by_slot(const void *a, const void *b) {
    const use *x = a, *y = b;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

static soma_status collect(uses *u, const soma_layout *layout, const soma_graph *g, soma_role role, soma_error *err) {
    const soma_slot **slots = soma__calloc(g->n_tensors + 1, sizeof *slots); // of leaves, by id
    if (!slots) return soma__no_memory(err, "choosing the weights' forms");
    bool ok = true;
    for (size_t i = 0; ok && i < g->n_tensors; i++) {
        const soma_tensor *t = g->tensors[i];
        if (t->op == SOMA_OP_LEAF && t->role == role) slots[i] = soma__layout_find(layout, t->name);
        for (int s = 0; ok && s < SOMA_MAX_SRC && t->op != SOMA_OP_VIEW; s++) {
            const soma_slot *slot = t->src[s] ? slots[soma__owner(t->src[s])->id] : NULL;
            if (!slot) continue;
            ok = SOMA_PUSH_ROOM(u->items, u->n, u->room);
            if (ok) u->items[u->n++] = (use){slot, t};
        }
    }
    soma__free(slots);
    return ok ? SOMA_OK : soma__no_memory(err, "choosing the weights' forms");
}

soma_status soma__choose_forms(soma_device *device, soma_layout *layout, const soma_graph *const *graphs, size_t n_graphs, soma_role role,
                               soma_error *err) {
    if (!device->kind->choose_form) return SOMA_OK;
    uses u = {0};
    soma_status status = SOMA_OK;
    for (size_t g = 0; status == SOMA_OK && g < n_graphs; g++) status = collect(&u, layout, graphs[g], role, err);
    const soma_tensor **readers = status == SOMA_OK ? soma__calloc(u.n + 1, sizeof *readers) : NULL;
    if (status == SOMA_OK && !readers) status = soma__no_memory(err, "choosing the weights' forms");
    if (status == SOMA_OK && u.n) qsort(u.items, u.n, sizeof *u.items, by_slot);
    for (size_t i = 0, n; status == SOMA_OK && i < u.n; i += n) {
        for (n = 0; i + n < u.n && u.items[i + n].slot == u.items[i].slot; n++) readers[n] = u.items[i + n].reader;
        device->kind->choose_form(device, &layout->slots[u.items[i].slot - layout->slots], readers, n);
    }
    soma__free(readers);
    soma__free(u.items);
    return status;
}
