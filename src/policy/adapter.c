// SPDX-License-Identifier: Apache-2.0
// Adapter folders, read and written, and pairs folded into the weights that they stand beside.
#include "policy/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char config_name[] = "adapter_config.json", weights_name[] = "adapter_model.safetensors",
                  peft_prefix[] = "base_model.model.model.", a_suffix[] = ".lora_A.weight";
static const char *const forms[] = {[SOMA_ADAPTER_PEFT] = "peft",
                                    [SOMA_ADAPTER_OPENPI] = "plain",
                                    [SOMA_ADAPTER_OPENPI_TO_HEADS] = "to_heads",
                                    [SOMA_ADAPTER_OPENPI_FROM_HEADS] = "from_heads"};

void soma__adapters_free(soma_adapter_set *set) {
    soma__arena_free(&set->arena);
    soma__free(set->adapters);
    soma__free(set->frozen);
    *set = (soma_adapter_set){0};
}

soma_status soma__adapters_add(soma_adapter_set *set, const soma_adapter *adapter, const char *layer, soma_error *err) {
    char *name = soma__arena_strdup(&set->arena, layer);
    if (!name || !SOMA_PUSH_ROOM(set->adapters, set->n_adapters, set->adapters_capacity)) return soma__no_memory(err, "the adapters");
    set->adapters[set->n_adapters] = *adapter;
    set->adapters[set->n_adapters++].glob = name;
    return SOMA_OK;
}

soma_status soma__adapters_freeze(soma_adapter_set *set, const char *glob, soma_error *err) {
    char *name = soma__arena_strdup(&set->arena, glob);
    if (!name || !SOMA_PUSH_ROOM(set->frozen, set->n_frozen, set->frozen_capacity)) return soma__no_memory(err, "the frozen weights");
    set->frozen[set->n_frozen++] = name;
    return SOMA_OK;
}

bool soma__adapters_here(const char *dir) {
    char path[SOMA_PATH_MAX];
    return soma__path_join(path, dir, config_name, NULL) == SOMA_OK && soma__file_exists(path);
}

const char *soma__adapters_prefix(const soma_adapter_set *set) {
    return set->n_adapters && set->adapters[0].form == SOMA_ADAPTER_PEFT ? peft_prefix : "";
}

const soma_alias *soma__adapters_aliases(soma_adapter_set *set, const soma_alias *family) {
    size_t n = 0;
    while (family && family[n].name) n++;
    soma_alias *all = soma__arena_alloc(&set->arena, (n + 2) * sizeof *all);
    if (!all) return NULL;
    if (n) memcpy(all, family, n * sizeof *all);
    all[n] = (soma_alias){"^", "base_model.model.", false};
    all[n + 1] = (soma_alias){NULL, NULL, false};
    return all;
}

// ---- reading

static soma_status read_layers(soma_adapter_set *set, const json_t *list, const char *where, soma_error *err) {
    if (!json_is_array(list)) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"layers\" is a list", where);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *name, *form;
        soma_adapter d = {.n_heads = 0};
        double scale;
        SOMA_TRY(soma__json_string(&name, item, "name", where, err));
        SOMA_TRY(soma__json_string(&form, item, "form", where, err));
        SOMA_TRY(soma__json_int(&d.rank, item, "rank", 1, 1 << 16, where, err));
        SOMA_TRY(soma__json_int(&d.n_heads, item, "n_heads", 0, 1 << 16, where, err));
        SOMA_TRY(soma__json_real(&scale, item, "scale", where, err));
        int f = 0;
        while (f < (int)SOMA_COUNT(forms) && strcmp(forms[f], form)) f++;
        if (f == (int)SOMA_COUNT(forms)) return soma__fail(err, SOMA_BAD_INPUT, "%s: %s: no form \"%.32s\"", where, name, form);
        d.form = (soma_adapter_form)f;
        d.scale = (float)scale;
        SOMA_TRY(soma__adapters_add(set, &d, name, err));
    }
    return SOMA_OK;
}

static bool empty(const json_t *config, const char *key) {
    const json_t *v = json_object_get(config, key);
    return !v || json_is_null(v) || json_is_false(v) || (json_is_object(v) && !json_object_size(v));
}

// PEFT says which layers by a pattern; the file's own names say it better.
static soma_status read_peft(soma_adapter_set *set, const json_t *config, const soma_safetensors *file, const char *where,
                             soma_error *err) {
    static const char *const refused[] = {"alpha_pattern", "rank_pattern", "use_dora", "fan_in_fan_out", "lora_bias", "layer_replication"};
    for (size_t i = 0; i < SOMA_COUNT(refused); i++)
        if (!empty(config, refused[i]))
            return soma__fail(err, SOMA_UNSUPPORTED, "%s: \"%s\" is set, and such adapters are not read", where, refused[i]);
    double alpha;
    SOMA_TRY(soma__json_real(&alpha, config, "lora_alpha", where, err));
    bool stabilised = json_is_true(json_object_get(config, "use_rslora"));
    for (size_t i = 0; i < soma__safetensors_count(file); i++) {
        const soma_safetensor *t = soma__safetensors_at(file, i);
        size_t len = strlen(t->name), tail = sizeof a_suffix - 1;
        if (len <= tail || strcmp(t->name + len - tail, a_suffix)) continue;
        if (t->n_dims != 2 || t->shape[0] < 1) return soma__fail(err, SOMA_BAD_INPUT, "%s: %s is no [rank, in]", where, t->name);
        char layer[512];
        const char *from = t->name; // without PEFT's and LeRobot's prefixes
        if (!strncmp(from, "base_model.model.", 17)) from += 17;
        if (!strncmp(from, "model.", 6)) from += 6;
        if (strlen(from) <= tail) return soma__fail(err, SOMA_BAD_INPUT, "%s: %s names no layer", where, t->name);
        snprintf(layer, sizeof layer, "%.*s", (int)(strlen(from) - tail), from);
        double r = (double)t->shape[0];
        soma_adapter d = {.form = SOMA_ADAPTER_PEFT, .rank = t->shape[0], .scale = (float)(alpha / (stabilised ? sqrt(r) : r))};
        SOMA_TRY(soma__adapters_add(set, &d, layer, err));
    }
    if (set->n_adapters) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: no tensor named *%s", soma__safetensors_path(file), a_suffix);
}

soma_status soma__adapters_parse(soma_adapter_set *set, const json_t *config, const soma_safetensors *file, const char *where,
                                 soma_error *err) {
    const json_t *layers = json_object_get(config, "layers");
    return layers ? read_layers(set, layers, where, err) : read_peft(set, config, file, where, err);
}

static soma_status find_base(soma_adapter_set *set, const json_t *config, const char *dir, const char *where, soma_error *err) {
    const char *base;
    SOMA_TRY(soma__json_string(&base, config, "base_model_name_or_path", where, err));
    if (*base != '/') {
        SOMA_TRY(soma__path_join(set->base, dir, base, err));
        if (soma__dir_exists(set->base)) return SOMA_OK;
    }
    if (strlen(base) < sizeof set->base && soma__dir_exists(base)) {
        strcpy(set->base, base);
        return SOMA_OK;
    }
    return soma__fail(err, SOMA_NOT_FOUND,
                      "%s: the base checkpoint \"%.200s\" is not here; put its folder into \"base_model_name_or_path\"", where, base);
}

soma_status soma__adapters_open(soma_adapter_set *set, soma_safetensors **file, const char *dir, soma_error *err) {
    char path[SOMA_PATH_MAX], weights[SOMA_PATH_MAX];
    json_t *config = NULL;
    *file = NULL;
    SOMA_TRY(soma__path_join(path, dir, config_name, err));
    SOMA_TRY(soma__path_join(weights, dir, weights_name, err));
    SOMA_TRY(soma__json_load(&config, path, err));
    soma_status status = soma__safetensors_open(file, weights, err);
    if (status == SOMA_OK) status = find_base(set, config, dir, path, err);
    if (status == SOMA_OK) status = soma__adapters_parse(set, config, *file, path, err);
    json_decref(config);
    if (status == SOMA_OK) return SOMA_OK;
    soma__safetensors_close(*file);
    *file = NULL;
    return status;
}

soma_status soma__adapters_split(soma_adapter_set *set, const soma_graph *const *graphs, size_t n_graphs, const soma_safetensors *file,
                                 const soma_alias *aliases, soma_error *err) {
    size_t n_pairs = 0;
    for (size_t g = 0; g < n_graphs; g++) {
        if (graphs[g]->error.code != SOMA_OK) return soma__fail(err, graphs[g]->error.code, "%s", graphs[g]->error.text);
        for (size_t i = 0; i < graphs[g]->n_tensors; i++) {
            const soma_tensor *t = graphs[g]->tensors[i];
            if (t->op != SOMA_OP_LEAF || t->role != SOMA_ROLE_WEIGHT) continue;
            n_pairs += soma__is_pair(t->name);
            if (!soma__find_weight(file, t->name, aliases) && !soma__is_pair(t->name)) SOMA_TRY(soma__adapters_freeze(set, t->name, err));
        }
    }
    if (n_pairs || !set->n_adapters) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: none of its %zu layers is in this model; the first is %s", soma__safetensors_path(file),
                      set->n_adapters, set->adapters[0].glob);
}

bool soma__is_pair(const char *name) {
    return strstr(name, ".lora_A.") || strstr(name, ".lora_B.") || strstr(name, ".lora_a") || strstr(name, ".lora_b");
}

// ---- writing

static json_t *peft_config(const soma_adapter_set *set) {
    const soma_adapter *d = &set->adapters[0];
    json_t *names = json_array();
    for (size_t i = 0; i < set->n_adapters; i++) json_array_append_new(names, json_string(set->adapters[i].glob));
    return json_pack("{s:s, s:s, s:i, s:f, s:b, s:s, s:o, s:b, s:n, s:f, s:b}", "peft_type", "LORA", "base_model_name_or_path", set->base,
                     "r", (int)d->rank, "lora_alpha", (double)d->scale * (double)d->rank, "use_rslora", 0, "bias", "none", "target_modules",
                     names, "inference_mode", 1, "task_type", "lora_dropout", 0.0, "fan_in_fan_out", 0);
}

static json_t *openpi_config(const soma_adapter_set *set) {
    json_t *layers = json_array();
    for (size_t i = 0; i < set->n_adapters; i++) {
        const soma_adapter *d = &set->adapters[i];
        json_array_append_new(layers, json_pack("{s:s, s:s, s:i, s:i, s:f}", "name", d->glob, "form", forms[d->form], "rank", (int)d->rank,
                                                "n_heads", (int)d->n_heads, "scale", (double)d->scale));
    }
    return json_pack("{s:s, s:s, s:o}", "peft_type", "OPENPI", "base_model_name_or_path", set->base, "layers", layers);
}

soma_status soma__adapters_save(const soma_adapter_set *set, const char *dir, soma_error *err) {
    char path[SOMA_PATH_MAX];
    SOMA_TRY(soma__path_join(path, dir, config_name, err));
    json_t *config = *soma__adapters_prefix(set) ? peft_config(set) : openpi_config(set);
    if (!config) return soma__no_memory(err, config_name);
    soma_status status = soma__json_save(config, path, err);
    json_decref(config);
    return status;
}

// ---- folding

// One head's product: w [out, in] with rows from `row` on and columns from `column` on; a [in, r], b [r, out], of which b may be a sum.
static void add_product(float *w, int64_t in_all, int64_t row, int64_t column, const float *a, const double *b, int64_t in, int64_t out,
                        int64_t r, float scale) {
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t k = 0; k < r; k++) sum += (double)a[i * r + k] * b[k * out + o];
            float *at = &w[(row + o) * in_all + column + i];
            *at = (float)(*at + (double)scale * sum);
        }
}

void soma__adapter_fold(float *w, const soma_adapter *d, const float *a, const float *b, int64_t in, int64_t out) {
    const int64_t r = d->rank, H = SOMA_MAX(d->n_heads, 1), K = out / H;
    if (d->form == SOMA_ADAPTER_PEFT) {
        for (int64_t o = 0; o < out; o++)
            for (int64_t i = 0; i < in; i++) {
                double sum = 0;
                for (int64_t k = 0; k < r; k++) sum += (double)a[k * in + i] * b[o * r + k];
                w[o * in + i] = (float)(w[o * in + i] + (double)d->scale * sum);
            }
        return;
    }
    // 64 columns of b at a time, in double
    double part[64 * 64];
    const bool to = d->form == SOMA_ADAPTER_OPENPI_TO_HEADS, from = d->form == SOMA_ADAPTER_OPENPI_FROM_HEADS;
    const int64_t step = SOMA_MAX(1, (int64_t)SOMA_COUNT(part) / r), wide = to ? K : out;
    SOMA_CHECK(r <= (int64_t)SOMA_COUNT(part), "an adapter's rank is at most 4096");
    for (int64_t h = 0; h < (to ? H : 1); h++)
        for (int64_t c = 0; c < wide; c += step) {
            const int64_t n = SOMA_MIN(step, wide - c);
            for (int64_t k = 0; k < r; k++)
                for (int64_t j = 0; j < n; j++) {
                    double sum = 0;
                    for (int64_t g = 0; g < (from ? H : 1); g++) sum += b[((to ? h : g) * r + k) * wide + c + j];
                    part[k * n + j] = sum;
                }
            add_product(w, in, (to ? h * K : 0) + c, 0, a + (to ? h * in * r : 0), part, in, n, r, d->scale);
        }
}
