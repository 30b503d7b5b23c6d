// SPDX-License-Identifier: Apache-2.0
// Finding a family for a config, and the arrays that a batch becomes.
#include "model/family.h"

#include "base/str.h"

#include <string.h>

soma_build soma__build_defaults(soma_program program, int64_t batch) {
    return (soma_build){.program = program, .batch = batch, .draws = 1, .image = SOMA_U8, .precision = SOMA_PRECISION_F32};
}

static const soma_family *find_family(const char *type) {
    for (const soma_family *const *f = soma__family_registry; *f; f++)
        for (const char *const *t = (*f)->types; *t; t++)
            if (!strcmp(*t, type)) return *f;
    return NULL;
}

soma_status soma__model_new(soma_model **model, const json_t *config, const char *where, soma_error *err) {
    *model = NULL;
    const char *type = NULL;
    soma_status status = soma__json_string(&type, config, "model_type", where, NULL);
    if (status == SOMA_NOT_FOUND) status = soma__json_string(&type, config, "type", where, NULL);
    const soma_family *family = status == SOMA_OK ? find_family(type) : NULL;
    if (family) return family->model_new(model, config, where, err);

    soma_str known = {0};
    for (const soma_family *const *f = soma__family_registry; *f; f++)
        for (const char *const *t = (*f)->types; *t; t++) soma__str_printf(&known, "%s\"%s\"", known.len ? ", " : "", *t);
    status = type ? soma__fail(err, SOMA_UNSUPPORTED, "%s: model_type \"%.64s\" is not known; there are %s", where, type, known.text)
                  : soma__fail(err, SOMA_BAD_INPUT, "%s: it says no \"model_type\"; add one of %s", where, known.text);
    soma__str_free(&known);
    return status;
}

void soma__model_free(soma_model *model) { soma__free(model); }

// ---- feeds

void soma__feed_free(soma_feed *feed) {
    for (size_t i = 0; i < feed->n_arrays; i++) soma__free(feed->arrays[i].own);
    *feed = (soma_feed){0};
}

const soma_feed_array *soma__feed_find(const soma_feed *feed, const char *name) {
    for (size_t i = 0; i < feed->n_arrays; i++)
        if (!strcmp(feed->arrays[i].name, name)) return &feed->arrays[i];
    return NULL;
}

static soma_feed_array *array_of(soma_feed *feed, const char *name) {
    soma_feed_array *known = (soma_feed_array *)soma__feed_find(feed, name);
    if (known) return known;
    SOMA_CHECK(feed->n_arrays < SOMA_FEED_ARRAYS, "a model has at most 24 inputs");
    feed->arrays[feed->n_arrays].name = name;
    return &feed->arrays[feed->n_arrays++];
}

void soma__feed_borrow(soma_feed *feed, const char *name, const void *data, size_t size) {
    soma_feed_array *a = array_of(feed, name);
    a->data = data;
    a->size = size;
}

void *soma__feed_own(soma_feed *feed, const char *name, size_t size) {
    soma_feed_array *a = array_of(feed, name);
    if (size > a->room) {
        soma__free(a->own);
        a->own = soma__alloc(size);
        a->room = a->own ? size : 0;
    }
    a->data = a->own;
    a->size = size;
    return a->own;
}
