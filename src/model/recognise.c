// SPDX-License-Identifier: Apache-2.0
// Sizes out of tensors.
#include "model/recognise.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int shape_of(const soma_finding *f, const char *name, int64_t shape[SOMA_MAX_DIMS]) {
    return f->tensors->shape(f->tensors->ctx, name, shape);
}

bool soma__finding_has(const soma_finding *f, const char *tensor) {
    int64_t shape[SOMA_MAX_DIMS];
    return shape_of(f, tensor, shape) >= 0;
}

// The config's object `section`, made where it is absent; "": the config itself.
static json_t *section_of(const soma_finding *f, const char *section) {
    if (!*section) return f->config;
    json_t *object = json_object_get(f->config, section);
    if (!object) json_object_set_new(f->config, section, object = json_object());
    return object;
}

void soma__finding_says(soma_finding *f, const char *section, const char *key, const char *other, int64_t value, const char *by) {
    json_t *object = section_of(f, section);
    if (!json_is_object(object)) return; // told when the config is read
    const char *said = other && !json_object_get(object, key) ? other : key;
    const json_t *old = json_object_get(object, said);
    if (!old)
        json_object_set_new(object, key, json_integer(value));
    else if (json_is_integer(old) && (int64_t)json_integer_value(old) != value)
        soma__str_printf(&f->wrong, "%s\"%s%s%s\" is %lld, but %s says %lld", f->wrong.len ? "; " : "", section, *section ? "." : "", said,
                         (long long)json_integer_value(old), by, (long long)value);
}

void soma__finding_type(soma_finding *f, const char *type, const char *by) {
    const char *key = json_object_get(f->config, "model_type") ? "model_type" : "type";
    const char *said = json_string_value(json_object_get(f->config, key));
    if (!said)
        json_object_set_new(f->config, "model_type", json_string(type));
    else if (strcmp(said, type))
        soma__str_printf(&f->wrong, "%s\"%s\" is \"%s\", but %s is there: these tensors are %s's", f->wrong.len ? "; " : "", key, said, by,
                         type);
}

static void find_count(soma_finding *f, const soma_size_row *row) {
    char name[160];
    int n = 0;
    do snprintf(name, sizeof name, row->name, n);
    while (soma__finding_has(f, name) && ++n < 512);
    if (n) soma__finding_says(f, row->section, row->key, row->other, n, "the number of layers");
}

void soma__finding_sizes(soma_finding *f, const soma_size_row *rows, size_t n) {
    int64_t shape[SOMA_MAX_DIMS];
    for (size_t i = 0; i < n; i++) {
        const soma_size_row *r = &rows[i];
        if (r->dim == SOMA_SIZE_COUNT)
            find_count(f, r);
        else if (shape_of(f, r->name, shape) > r->dim)
            soma__finding_says(f, r->section, r->key, r->other, shape[r->dim], r->name);
    }
}

void soma__finding_paligemma(soma_finding *f) {
    static const soma_size_row rows[] = {
        {"paligemma", "mlp_dim", NULL, SOMA_PALIGEMMA_LANGUAGE "layers.0.mlp.gate_proj.weight", 0},
        {"vision", "hidden_size", NULL, SOMA_PALIGEMMA_VISION "post_layernorm.weight", 0},
        {"vision", "intermediate_size", NULL, SOMA_PALIGEMMA_VISION "encoder.layers.0.mlp.fc1.weight", 0},
        {"vision", "patch_size", NULL, SOMA_PALIGEMMA_VISION "embeddings.patch_embedding.weight", 2},
        {"paligemma", "depth", NULL, SOMA_PALIGEMMA_LANGUAGE "layers.%d.self_attn.k_proj.weight", SOMA_SIZE_COUNT},
        {"vision", "num_hidden_layers", NULL, SOMA_PALIGEMMA_VISION "encoder.layers.%d.self_attn.k_proj.weight", SOMA_SIZE_COUNT},
    };
    static const char places[] = SOMA_PALIGEMMA_VISION "embeddings.position_embedding.weight";
    int64_t patches[SOMA_MAX_DIMS], shape[SOMA_MAX_DIMS];
    soma__finding_sizes(f, rows, SOMA_COUNT(rows));
    if (shape_of(f, places, patches) == 2 && shape_of(f, SOMA_PALIGEMMA_VISION "embeddings.patch_embedding.weight", shape) == 4)
        soma__finding_says(f, "vision", "image_size", NULL, (int64_t)llround(sqrt((double)patches[0])) * shape[2], places);
}

static const struct {
    const char *name;
    int64_t width, depth, mlp, n_heads, n_kv_heads, head_dim;
} variants[] = {{"gemma_2b", 2048, 18, 16384, 8, 1, 256}, {"gemma_300m", 1024, 18, 4096, 8, 1, 256}, {"dummy", 64, 4, 128, 8, 1, 16}};

const char *soma__variant_of(const json_t *config, const char *section) {
    const json_t *c = json_object_get(config, section);
    for (size_t i = 0; i < SOMA_COUNT(variants); i++)
        if (json_integer_value(json_object_get(c, "width")) == variants[i].width &&
            json_integer_value(json_object_get(c, "depth")) == variants[i].depth &&
            json_integer_value(json_object_get(c, "mlp_dim")) == variants[i].mlp)
            return variants[i].name;
    return NULL;
}

void soma__finding_variant(soma_finding *f, const char *key, const char *section) {
    const char *name = json_string_value(json_object_get(f->config, key));
    for (size_t i = 0; name && i < SOMA_COUNT(variants); i++) {
        const size_t len = strlen(variants[i].name);
        if (strncmp(name, variants[i].name, len) || (name[len] && strcmp(name + len, "_lora"))) continue;
        soma__finding_says(f, section, "width", NULL, variants[i].width, key);
        soma__finding_says(f, section, "depth", NULL, variants[i].depth, key);
        soma__finding_says(f, section, "mlp_dim", NULL, variants[i].mlp, key);
        soma__finding_says(f, section, "num_heads", NULL, variants[i].n_heads, key);
        soma__finding_says(f, section, "num_kv_heads", NULL, variants[i].n_kv_heads, key);
        soma__finding_says(f, section, "head_dim", NULL, variants[i].head_dim, key);
    }
}

soma_status soma__finding_end(soma_finding *f, const char *where, soma_error *err) {
    soma_status status = f->wrong.failed ? soma__no_memory(err, "a checkpoint's sizes") : SOMA_OK;
    if (status == SOMA_OK && f->wrong.len) status = soma__fail(err, SOMA_BAD_INPUT, "%s contradicts the tensors: %s", where, f->wrong.text);
    soma__str_free(&f->wrong);
    return status;
}
