// SPDX-License-Identifier: Apache-2.0
// What a run resumes from: weights, moments, average and counters in one safetensors file, written beside its name and renamed. A run that
// was killed at any moment finds either the state of one save or that of the next.
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const arrays[] = {"w", "m", "v", "ema"}; // the last where an average is kept
static size_t n_arrays(const soma_trainer *t) { return SOMA_COUNT(arrays) - !t->optimiser->averages; }

static soma_status state_path(char path[SOMA_PATH_MAX], const soma_trainer *t, soma_error *err) {
    return soma__path_join(path, t->o.out, "training_state.safetensors", err);
}

static void set_real(json_t *object, const char *key, double value) {
    char text[40];
    snprintf(text, sizeof text, "%.17g", value);
    json_object_set_new(object, key, json_string(text));
}

static soma_status get_values(void *user, size_t tensor, int64_t at, int64_t n, void *out, soma_error *err) {
    const soma_trainer *t = user;
    const float *from = soma__optimiser_array(t->optimiser, arrays[tensor]);
    t->device->kind->get(t->device, out, from + at, (size_t)n * sizeof *from);
    return SOMA_OK;
}

soma_status soma__trainer_save(soma_trainer *t, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(state_path(path, t, err));
    json_t *metadata = json_object();
    if (!metadata) return soma__no_memory(err, "saving the training state");
    soma_safetensor tensors[SOMA_COUNT(arrays)];
    for (size_t i = 0; i < n_arrays(t); i++)
        tensors[i] = (soma_safetensor){.name = arrays[i], .dtype = SOMA_F32, .n_dims = 1, .shape = {t->optimiser->n}};
    set_real(metadata, "step", (double)t->step);
    set_real(metadata, "best", t->best);
    set_real(metadata, "seed", (double)t->o.seed);
    soma_status status = soma__safetensors_write_made(path, tensors, n_arrays(t), metadata, get_values, t, err);
    json_decref(metadata);
    return status;
}

static soma_status read_number(double *out, const soma_safetensors *file, const char *key, soma_error *err) {
    const char *text = soma__safetensors_metadata(file, key);
    char *end = NULL;
    if (text) *out = strtod(text, &end);
    if (text && end != text && !*end) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: the metadata has no number \"%s\"", soma__safetensors_path(file), key);
}

soma_status soma__trainer_resume(soma_trainer *t, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(state_path(path, t, err));
    if (!soma__file_exists(path)) return soma__metrics_cut(t->o.out, 0, err); // cut off before the first save: begin again
    soma_safetensors *file;
    SOMA_TRY(soma__safetensors_open(&file, path, err));
    double step, best, seed;
    soma_status status = read_number(&step, file, "step", err);
    if (status == SOMA_OK) status = read_number(&best, file, "best", err);
    if (status == SOMA_OK) status = read_number(&seed, file, "seed", err);
    if (status == SOMA_OK && (int64_t)seed != t->o.seed)
        status = soma__fail(err, SOMA_BAD_INPUT, "%s: saved by a run with seed %.0f, this one has %lld", path, seed, (long long)t->o.seed);
    for (size_t i = 0; i < n_arrays(t) && status == SOMA_OK; i++) {
        const soma_safetensor *s = soma__safetensors_find(file, arrays[i]);
        if (!s || s->dtype != SOMA_F32 || s->n_values != t->optimiser->n)
            status = soma__fail(err, SOMA_BAD_INPUT,
                                "%s: \"%s\" is not the %lld values of this model: the sizes have changed since it was saved", path,
                                arrays[i], (long long)t->optimiser->n);
        else
            t->device->kind->put(t->device, soma__optimiser_array(t->optimiser, arrays[i]), s->data, t->params->layout.size);
    }
    soma__safetensors_close(file);
    if (status != SOMA_OK) return status;
    t->step = (int64_t)step;
    t->best = best;
    return soma__metrics_cut(t->o.out, t->step, err);
}
