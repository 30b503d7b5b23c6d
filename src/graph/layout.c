// SPDX-License-Identifier: Apache-2.0
// Named memory that plans share: weights and states, each at a 64-byte boundary, in the order in which graphs first name them.
#include "graph/plan.h"

#include <string.h>

const soma_slot *soma__layout_find(const soma_layout *layout, const char *name) {
    for (size_t i = 0; i < layout->n_slots; i++)
        if (!strcmp(layout->slots[i].name, name)) return &layout->slots[i];
    return NULL;
}

int64_t soma__slot_count(const soma_slot *slot) {
    int64_t n = 1;
    for (int i = 0; i < slot->n_dims; i++) n *= slot->shape[i];
    return n;
}

static soma_status add_leaf(soma_layout *layout, const soma_tensor *t, soma_error *err) {
    const soma_slot *known = soma__layout_find(layout, t->name);
    if (known) {
        bool same =
            known->dtype == t->dtype && known->n_dims == t->n_dims && !memcmp(known->shape, t->shape, sizeof(int64_t) * (size_t)t->n_dims);
        return same ? SOMA_OK : soma__fail(err, SOMA_BAD_GRAPH, "%s has one shape or dtype in one graph and another in the next", t->name);
    }
    char *name = soma__arena_strdup(&layout->arena, t->name);
    if (!name || !SOMA_PUSH_ROOM(layout->slots, layout->n_slots, layout->capacity)) return soma__no_memory(err, "the table of weights");
    soma_slot *slot = &layout->slots[layout->n_slots++];
    *slot = (soma_slot){
        .name = name, .dtype = t->dtype, .n_dims = t->n_dims, .place = (int64_t)layout->size, .init = t->init, .still = t->still};
    memcpy(slot->shape, t->shape, sizeof slot->shape);
    slot->size = (size_t)soma__slot_count(slot) * soma_dtype_size(t->dtype);
    layout->size += (slot->size + 63) & ~(size_t)63;
    return SOMA_OK;
}

soma_status soma__layout_add(soma_layout *layout, const soma_graph *graph, soma_role role, soma_error *err) {
    if (graph->error.code != SOMA_OK) return soma__fail(err, graph->error.code, "%s", graph->error.text);
    for (size_t i = 0; i < graph->n_tensors; i++) {
        const soma_tensor *t = graph->tensors[i];
        if (t->op == SOMA_OP_LEAF && t->role == role) SOMA_TRY(add_leaf(layout, t, err));
    }
    return SOMA_OK;
}

void soma__layout_free(soma_layout *layout) {
    soma__arena_free(&layout->arena);
    soma__free(layout->slots);
    *layout = (soma_layout){0};
}
