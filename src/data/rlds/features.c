// SPDX-License-Identifier: Apache-2.0
// features.json of TensorFlow Datasets, as far as robots use it: a dictionary with `steps` (a dataset of dictionaries) and what belongs to
// the episode as a whole. The leaves below `steps` become features, named by their path: observation/state is "observation.state".
#include "data/rlds/rlds.h"

#include <string.h>

enum { MAX_FEATURES = 1000, MAX_DEPTH = 8 };

// {featuresDict: {features: {...}}}, the form of a dictionary; NULL where `entry` is none.
static const json_t *members(const json_t *entry) { return json_object_get(json_object_get(entry, "featuresDict"), "features"); }

static int64_t dimension(const json_t *value) { // numbers are written as texts, since they are 64-bit
    if (json_is_integer(value)) return (int64_t)json_integer_value(value);
    const char *text = json_string_value(value);
    long long number = 0;
    return text && sscanf(text, "%lld", &number) == 1 ? number : 0;
}

// -1: known only from the data. A shape that cannot be gives false.
static bool read_shape(soma_feature *f, const json_t *shape) {
    const json_t *list = json_object_get(shape, "dimensions");
    f->n_dims = (int)SOMA_MIN(json_array_size(list), SOMA_MAX_DIMS + 1);
    if (f->n_dims > SOMA_MAX_DIMS) return false;
    f->size = 1;
    for (int i = 0; i < f->n_dims; i++) {
        f->shape[i] = dimension(json_array_get(list, (size_t)i));
        if (f->shape[i] == 0 || f->shape[i] < -1 || f->shape[i] > INT32_MAX) return false;
        if (f->shape[i] > 0 && (__builtin_mul_overflow(f->size, f->shape[i], &f->size) || f->size > INT32_MAX)) return false;
    }
    if (!f->n_dims) f->shape[f->n_dims++] = 1; // a scalar is a vector of one, as in LeRobot
    return true;
}

static bool is_numeric(const char *dtype) {
    return !strncmp(dtype, "float", 5) || !strncmp(dtype, "int", 3) || !strncmp(dtype, "uint", 4) || !strcmp(dtype, "bool");
}

// The kind of a leaf. Tensors with an encoding of their own, of unknown size or of texts are present and not read.
static soma_status settle(soma_feature *f, const json_t *entry, const char *where, const char *key, soma_error *err) {
    const json_t *tensor = json_object_get(entry, "tensor"), *image = json_object_get(entry, "image");
    const json_t *body = tensor ? tensor : image;
    const char *dtype = json_string_value(json_object_get(body, "dtype")), *encoding = json_string_value(json_object_get(body, "encoding"));
    f->kind = SOMA_FEATURE_OTHER;
    f->dtype = json_object_get(entry, "text") ? "string" : image ? "image" : json_object_get(entry, "classLabel") ? "int64" : "other";
    f->n_dims = 1;
    f->shape[0] = f->size = 1;
    if (json_object_get(entry, "classLabel")) f->kind = SOMA_FEATURE_VECTOR;
    if (!body) return SOMA_OK;
    if (!read_shape(f, json_object_get(body, "shape")))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: feature \"%s\" has an impossible shape", where, key);
    bool known = true;
    for (int i = 0; i < f->n_dims; i++) known = known && f->shape[i] > 0;
    if (image) {
        bool colour = f->n_dims == 3 && f->shape[2] == 3 && (!dtype || !strcmp(dtype, "uint8"));
        if (colour && f->shape[0] <= 16384 && f->shape[1] <= 16384) f->kind = SOMA_FEATURE_IMAGE;
        return SOMA_OK;
    }
    if (dtype) f->dtype = dtype;
    if (known && dtype && is_numeric(dtype) && (!encoding || !strcmp(encoding, "none"))) f->kind = SOMA_FEATURE_VECTOR;
    return SOMA_OK;
}

static soma_status add_leaf(rlds *l, const char *key, const char *name, const json_t *entry, const char *where, soma_error *err) {
    soma_feature *f = &l->features[l->d.n_features];
    SOMA_TRY(settle(f, entry, where, key, err));
    char *dotted = soma__arena_strdup(&l->arena, name);
    f->name = dotted;
    f->dtype = soma__arena_strdup(&l->arena, f->dtype);
    l->keys[l->d.n_features] = soma__arena_strdup(&l->arena, key);
    if (!f->name || !f->dtype || !l->keys[l->d.n_features]) return soma__no_memory(err, where);
    for (; *dotted; dotted++)
        if (*dotted == '/') *dotted = '.';
    l->d.n_features++;
    return SOMA_OK;
}

static soma_status walk(rlds *l, const char *prefix, const json_t *dictionary, int depth, const char *where, soma_error *err) {
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)dictionary, name, entry) {
        char key[600];
        if (depth > MAX_DEPTH || snprintf(key, sizeof key, "%s/%s", prefix, name) >= (int)sizeof key)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: feature \"%.100s\" lies too deep", where, name);
        if (members(entry)) {
            SOMA_TRY(walk(l, key, members(entry), depth + 1, where, err));
            continue;
        }
        if (l->d.n_features == MAX_FEATURES) return soma__fail(err, SOMA_BAD_INPUT, "%s: more than %d features", where, MAX_FEATURES);
        SOMA_TRY(add_leaf(l, key, strchr(key, '/') + 1, entry, where, err));
    }
    return SOMA_OK;
}

// The text feature that holds the instruction: datasets agree on its last name at most.
static const char *find_task(const rlds *l) {
    static const char *const names[] = {"language_instruction", "natural_language_instruction", "instruction", "language", "task"};
    for (size_t n = 0; n < SOMA_COUNT(names); n++)
        for (int f = 0; f < l->d.n_features; f++)
            if (!strcmp(l->features[f].dtype, "string") && !strcmp(strrchr(l->keys[f], '/') + 1, names[n])) return l->keys[f];
    return NULL;
}

static soma_status read_tree(rlds *l, const json_t *tree, const char *where, soma_error *err) {
    const json_t *steps = json_object_get(json_object_get(json_object_get(members(tree), "steps"), "sequence"), "feature");
    if (!members(steps))
        return soma__fail(err, SOMA_UNSUPPORTED,
                          "%s: has no dataset of \"steps\" in the form that TensorFlow Datasets 4.5 and later write; no RLDS episodes",
                          where);
    SOMA_TRY(walk(l, "steps", members(steps), 1, where, err));
    l->task = find_task(l);
    return SOMA_OK;
}

soma_status rlds_read_features(rlds *l, soma_error *err) {
    char path[SOMA_PATH_MAX];
    json_t *tree;
    l->features = soma__arena_alloc(&l->arena, MAX_FEATURES * sizeof *l->features);
    l->keys = soma__arena_alloc(&l->arena, MAX_FEATURES * sizeof *l->keys);
    if (!l->features || !l->keys) return soma__no_memory(err, l->d.path);
    l->d.features = l->features;
    SOMA_TRY(soma__path_join(path, l->d.path, "features.json", err));
    SOMA_TRY(soma__json_load(&tree, path, err));
    soma_status status = read_tree(l, tree, path, err);
    json_decref(tree);
    return status;
}
