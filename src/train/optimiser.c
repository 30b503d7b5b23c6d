// SPDX-License-Identifier: Apache-2.0
// AdamW as graphs, so that any device that has the ops can train. Three plans share one block of states: add up a pass's gradient, take its
// norm, step.
#include "train/optimiser.h"

#include <math.h>
#include <string.h>

enum { ACCUMULATE, NORM, UPDATE };
enum { PIECE = 1 << 22 }; // values: sums and squares are made piece by piece, so that they need no second array

static soma_tensor *flat(soma_graph *g, const char *name, int64_t n) { return soma_state(g, name, SOMA_F32, 1, &n); }

static void build(soma_optimiser *o) {
    int64_t n = o->n;
    const char *acc = o->accumulates ? "acc" : "g";
    soma_graph *g = o->graphs[ACCUMULATE];
    for (int64_t at = 0; o->accumulates && at < n; at += PIECE) {
        soma_tensor *sum = soma_slice(flat(g, acc, n), 0, at, SOMA_MIN(PIECE, n - at));
        soma_store(soma_add(sum, soma_slice(flat(g, "g", n), 0, at, SOMA_MIN(PIECE, n - at))), sum);
    }

    g = o->graphs[NORM];
    soma_tensor *square = NULL;
    for (int64_t at = 0; at < n; at += PIECE) {
        soma_tensor *piece = soma_apply(soma_slice(flat(g, acc, n), 0, at, SOMA_MIN(PIECE, n - at)), SOMA_UNARY_SQUARE);
        square = square ? soma_add(square, soma_sum(piece, 1)) : soma_sum(piece, 1);
    }
    soma_output(square, "square");

    g = o->graphs[UPDATE];
    soma_tensor *scalars = soma_input(g, "scalars", SOMA_F32, 1, (int64_t[]){8}),
                *scale = soma_input(g, "scale", SOMA_F32, 1, (int64_t[]){1});
    soma_adamw(flat(g, "w", n), flat(g, acc, n), flat(g, "m", n), flat(g, "v", n), o->averages ? flat(g, "ema", n) : NULL, scalars, scale);
    for (int64_t at = 0; o->accumulates && at < n; at += PIECE) {
        int64_t part = SOMA_MIN(PIECE, n - at);
        soma_store(soma_constant(g, 0, 1, &part), soma_slice(flat(g, "acc", n), 0, at, part));
    }
}

size_t soma__optimiser_scratch(const soma_layout *weights, bool accumulates) {
    return SOMA_MIN(weights->size, PIECE * sizeof(float)) * (accumulates ? 3 : 1); // a piece of squares; of the sum, and of the zeros
}

soma_status soma__optimiser_new(soma_optimiser **out, soma_device *device, const soma_layout *weights, bool accumulates, bool averages,
                                soma_error *err) {
    *out = NULL;
    for (size_t i = 0; i < weights->n_slots; i++)
        if (weights->slots[i].dtype != SOMA_F32)
            return soma__fail(err, SOMA_BAD_GRAPH, "%s: weights are trained in F32, this one is %s", weights->slots[i].name,
                              soma_dtype_name(weights->slots[i].dtype));
    soma_optimiser *o = soma__calloc(1, sizeof *o);
    if (!o) return soma__no_memory(err, "the optimiser");
    *o = (soma_optimiser){.device = device,
                          .weights = weights,
                          .n = (int64_t)(weights->size / sizeof(float)),
                          .accumulates = accumulates,
                          .averages = averages};
    size_t still = 0;
    for (size_t i = 0; i < weights->n_slots; i++) still += weights->slots[i].still ? weights->slots[i].size : 0;
    soma_status status = (o->still = soma__alloc(still + 1)) ? SOMA_OK : soma__no_memory(err, "the optimiser");
    for (int i = 0; i < 3 && status == SOMA_OK; i++) status = soma_graph_new(&o->graphs[i], err);
    if (status == SOMA_OK) build(o);
    for (int i = 2; i >= 0 && status == SOMA_OK; i--) status = soma__layout_add(&o->arrays, o->graphs[i], SOMA_ROLE_STATE, err);
    if (status == SOMA_OK) status = device->kind->alloc(device, &o->memory, o->arrays.size, err);
    if (status == SOMA_OK && device->kind->reads_host) soma__memory_large(o->memory, o->arrays.size);
    for (int i = 0; i < 3 && status == SOMA_OK; i++) {
        status = soma__plan_new(&o->plans[i], o->graphs[i], NULL, &o->arrays, device, err);
        if (status == SOMA_OK) status = soma__frame_new(&o->frames[i], o->plans[i], NULL, NULL, o->memory, err);
    }
    if (status != SOMA_OK)
        soma__optimiser_free(o);
    else
        *out = o;
    return status;
}

void soma__optimiser_free(soma_optimiser *o) {
    if (!o) return;
    for (int i = 0; i < 3; i++) {
        soma__frame_free(o->frames[i]);
        soma__plan_free(o->plans[i]);
        soma_graph_free(o->graphs[i]);
    }
    if (o->memory) o->device->kind->free(o->device, o->memory);
    soma__layout_free(&o->arrays);
    soma__free(o->still);
    soma__free(o);
}

void *soma__optimiser_array(const soma_optimiser *o, const char *name) {
    if (!o->accumulates && !strcmp(name, "acc")) name = "g";
    if (!o->averages && !strcmp(name, "ema")) name = "w";
    const soma_slot *slot = soma__layout_find(&o->arrays, name);
    SOMA_CHECK(slot, "the optimiser's arrays are w, g, acc, m, v, ema");
    return (char *)o->memory + slot->place;
}

void soma__optimiser_accumulate(soma_optimiser *o) {
    if (o->accumulates) soma__frame_run(o->frames[ACCUMULATE]);
}

static void put(soma_frame *frame, const char *name, const float *data, size_t n) {
    soma_status status = soma__frame_put(frame, name, data, n * sizeof *data, NULL);
    SOMA_CHECK(status == SOMA_OK, "the optimiser's inputs have the sizes that it built");
}

// What no gradient changes, weight decay and averages do not either: as before the step.
static void keep_still(const soma_optimiser *o, bool back) {
    const soma_device_kind *kind = o->device->kind;
    char *host = o->still;
    for (size_t i = 0; i < o->weights->n_slots; i++) {
        const soma_slot *slot = &o->weights->slots[i];
        char *w = soma__optimiser_array(o, "w"), *ema = soma__optimiser_array(o, "ema");
        if (!slot->still) continue;
        if (!back)
            kind->get(o->device, host, w + slot->place, slot->size);
        else {
            kind->put(o->device, w + slot->place, host, slot->size);
            kind->put(o->device, ema + slot->place, host, slot->size);
        }
        host += slot->size;
    }
}

double soma__optimiser_update(soma_optimiser *o, const soma_adamw_step *s) {
    float square = 0;
    soma__frame_run(o->frames[NORM]);
    soma_status status = soma__frame_get(o->frames[NORM], "square", &square, sizeof square, NULL);
    SOMA_CHECK(status == SOMA_OK, "the optimiser's norm is one number");
    double norm = sqrt((double)square) * s->grad_scale;
    double scale = s->grad_scale * (s->clip > 0 && norm > s->clip ? s->clip / norm : 1); // openpi: shrunk only above the limit, no epsilon
    const float scalars[8] = {(float)s->lr,
                              (float)s->beta1,
                              (float)s->beta2,
                              (float)s->eps,
                              (float)s->weight_decay,
                              (float)(1 / (1 - pow(s->beta1, (double)s->step))),
                              (float)(1 / (1 - pow(s->beta2, (double)s->step))),
                              (float)s->ema};
    put(o->frames[UPDATE], "scalars", scalars, 8);
    put(o->frames[UPDATE], "scale", &(float){(float)scale}, 1);
    keep_still(o, false);
    soma__frame_run(o->frames[UPDATE]);
    keep_still(o, true);
    return norm;
}

double soma__lr_at(int64_t step, int64_t steps, int64_t warmup, double peak, double end) {
    if (step < warmup) {
        double start = peak / (double)(warmup + 1);
        return start + (peak - start) * (double)step / (double)warmup;
    }
    double share = steps > warmup ? (double)(step - warmup) / (double)(steps - warmup) : 1;
    return end + (peak - end) * 0.5 * (1 + cos(3.141592653589793 * SOMA_MIN(share, 1.0)));
}
