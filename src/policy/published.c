// SPDX-License-Identifier: Apache-2.0
// Config and tensors together make a model. The order matters for the sentences: a folder without weights is told before a config that says
// too little, and a contradiction before the many misshapen tensors that follow from it.
#include "policy/published.h"

#include <string.h>

typedef struct looking {
    const soma_safetensors *file;
    const soma_alias *aliases;
} looking;

static int shape_in_file(const void *ctx, const char *name, int64_t shape[SOMA_MAX_DIMS]) {
    const looking *l = ctx;
    const soma_safetensor *t = soma__find_weight(l->file, name, l->aliases);
    if (t) memcpy(shape, t->shape, sizeof t->shape);
    return t ? t->n_dims : -1;
}

static soma_shapes look_as(void *ctx, const soma_family *family) {
    looking *l = ctx;
    l->aliases = family->aliases;
    return (soma_shapes){shape_in_file, l};
}

static bool has_weights(const char *dir) {
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    char path[SOMA_PATH_MAX];
    bool there = false;
    for (size_t i = 0; i < SOMA_COUNT(names); i++)
        there |= soma__path_join(path, dir, names[i], NULL) == SOMA_OK && soma__file_exists(path);
    return there;
}

// A config may be absent where the weights are there: openpi's trainer writes none. Weights may be absent where a config is: an adapter's
// folder has none of its own.
soma_status soma__published_open(soma_published *c, const char *path, soma_error *err) {
    *c = (soma_published){0};
    SOMA_TRY(soma__path_join(c->path, "", path, err));
    if (soma__dir_exists(path))
        SOMA_TRY(soma__path_join(c->where, path, "config.json", err));
    else
        strcpy(c->where, c->path);
    const bool said = soma__dir_exists(path) && soma__file_exists(c->where);
    if (!said || has_weights(path)) SOMA_TRY(soma__safetensors_open(&c->weights, path, err));
    if (said)
        SOMA_TRY(soma__json_load(&c->config, c->where, err));
    else if (!(c->config = json_object()))
        return soma__no_memory(err, c->where);
    if (!json_is_object(c->config)) return soma__fail(err, SOMA_BAD_INPUT, "%s: a config is a JSON object", c->where);
    looking l = {.file = c->weights};
    return c->weights ? soma__model_recognise(c->config, look_as, &l, c->where, err) : SOMA_OK;
}

soma_status soma__published_model(soma_published *c, soma_error *err) {
    SOMA_TRY(soma__model_new(&c->model, c->config, c->where, err));
    return soma__model_weights(&c->holds, c->model, true, err);
}

soma_status soma__published_params(soma_params **params, soma_published *c, soma_device *device, const soma_graph *const *graphs,
                                   size_t n_graphs, soma_error *err) {
    soma_layout used = {0};
    *params = NULL;
    soma_status status = c->weights ? SOMA_OK : soma__safetensors_open(&c->weights, c->path, err);
    for (size_t i = 0; i < n_graphs && status == SOMA_OK; i++) status = soma__layout_add(&used, graphs[i], SOMA_ROLE_WEIGHT, err);
    if (status == SOMA_OK) status = soma__check_weights(&used, &c->holds, c->model, c->weights, c->model->family->aliases, err);
    soma__layout_free(&used);
    if (status != SOMA_OK) return status;
    soma_safetensors *file = c->weights;
    c->weights = NULL;
    return soma__params_open_cached(params, device, graphs, n_graphs, SOMA_ROLE_WEIGHT, file, c->model->family->aliases, c->cache, err);
}

void soma__published_close(soma_published *c) {
    json_decref(c->config);
    soma__safetensors_close(c->weights);
    soma__model_free(c->model);
    soma__layout_free(&c->holds);
    *c = (soma_published){0};
}
