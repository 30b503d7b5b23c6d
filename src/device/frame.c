// SPDX-License-Identifier: Apache-2.0
// A plan meets its device, and a frame is the memory of one runner of it: inputs are put, the plan runs, outputs are got; nothing is
// allocated in between.
#include "device/device.h"

static soma_status check_device(const soma_plan *plan, soma_error *err) {
    for (size_t i = 0; i < plan->n_steps; i++) {
        const soma_step *step = &plan->steps[i];
        const soma_tensor *first = step->nodes[0], *last = step->nodes[step->n_nodes - 1];
        const soma_tensor *t = plan->device->kind->has(plan->device, first) ? last : first;
        char shape[96];
        if (!plan->device->kind->has(plan->device, t))
            return soma__fail(err, SOMA_UNSUPPORTED, "device %s has no %s for %s %s", plan->device->kind->name, soma__op_name(t->op),
                              soma_dtype_name(t->dtype), soma__shape_text(shape, t));
    }
    return SOMA_OK;
}

soma_status soma__plan_new(soma_plan **out, soma_graph *graph, const soma_layout *weights, const soma_layout *states, soma_device *device,
                           soma_error *err) {
    *out = NULL;
    soma_plan *plan = soma__calloc(1, sizeof *plan);
    if (!plan) return soma__no_memory(err, "a plan");
    soma_status status = soma__plan_make(plan, graph, weights, states, err);
    plan->device = device;
    if (status == SOMA_OK) status = check_device(plan, err);
    if (status == SOMA_OK) status = device->kind->prepare(device, plan, err);
    if (status != SOMA_OK)
        soma__plan_free(plan);
    else
        *out = plan;
    return status;
}

void soma__plan_free(soma_plan *plan) {
    if (!plan) return;
    if (plan->device_data) plan->device->kind->release(plan->device, plan);
    soma__free(plan->steps);
    soma__free(plan);
}

soma_status soma__frame_new(soma_frame **out, const soma_plan *plan, void *weights, void *grads, void *states, soma_error *err) {
    soma_frame *f = *out = soma__calloc(1, sizeof *f);
    if (!f) return soma__no_memory(err, "a plan's memory");
    *f = (soma_frame){.plan = plan, .buffers = {[SOMA_ROLE_WEIGHT] = weights, [SOMA_ROLE_GRAD] = grads, [SOMA_ROLE_STATE] = states}};
    const soma_role own[] = {SOMA_ROLE_SCRATCH, SOMA_ROLE_IO};
    for (size_t i = 0; i < SOMA_COUNT(own); i++) {
        soma_status status = plan->device->kind->alloc(plan->device, &f->buffers[own[i]], plan->size[own[i]], err);
        if (status == SOMA_OK) continue;
        soma__frame_free(f);
        *out = NULL;
        return status;
    }
    return SOMA_OK;
}

void soma__frame_free(soma_frame *f) {
    if (!f) return;
    soma_device *device = f->plan->device;
    device->kind->free(device, f->buffers[SOMA_ROLE_SCRATCH]);
    device->kind->free(device, f->buffers[SOMA_ROLE_IO]);
    soma__free(f);
}

static soma_status find(char **data, const soma_frame *f, const char *name, size_t size, soma_error *err) {
    const soma_tensor *t = soma__plan_find(f->plan, name);
    if (!t) return soma__fail(err, SOMA_NOT_FOUND, "%s: the graph has no input or output of this name", name);
    size_t wanted = (size_t)soma__numel(t) * soma_dtype_size(t->dtype);
    char shape[96];
    if (size != wanted)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %zu bytes given, %s %s has %zu", name, size, soma_dtype_name(t->dtype),
                          soma__shape_text(shape, t), wanted);
    *data = (char *)f->buffers[SOMA_ROLE_IO] + t->place;
    return SOMA_OK;
}

soma_status soma__frame_put(soma_frame *f, const char *name, const void *data, size_t size, soma_error *err) {
    char *to;
    SOMA_TRY(find(&to, f, name, size, err));
    f->plan->device->kind->put(f->plan->device, to, data, size);
    return SOMA_OK;
}

soma_status soma__frame_get(const soma_frame *f, const char *name, void *data, size_t size, soma_error *err) {
    char *from;
    SOMA_TRY(find(&from, f, name, size, err));
    f->plan->device->kind->get(f->plan->device, data, from, size);
    return SOMA_OK;
}

void soma__frame_run(soma_frame *f) { f->plan->device->kind->run(f->plan->device, f->plan, f->buffers); }
