// SPDX-License-Identifier: Apache-2.0
// What of a model is trained, and where its weights begin: all of them, all but those that --freeze names, or low-rank pairs beside frozen
// layers (--lora). What is trained lies in the optimiser in f32; what is not stays where the checkpoint's file is mapped.
#include "train/trainer.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

soma_build soma__trainer_build(const soma_trainer *t, int64_t n, int64_t draws) {
    soma_build b = soma__build_defaults(SOMA_PROGRAM_TRAIN, n);
    b.draws = draws;
    b.image = soma__robot_image_dtype(&t->robot);
    b.precision = strcmp(t->o.dtype, "f32") ? SOMA_PRECISION_MIXED : SOMA_PRECISION_F32;
    b.adapters = t->change.adapters;
    b.n_adapters = t->change.n_adapters;
    b.frozen = t->change.frozen;
    b.n_frozen = t->change.n_frozen;
    b.recompute = t->o.recompute;
    return b;
}

soma_status soma__trainer_graph(soma_graph **graph, const soma_trainer *t, soma_error *err) {
    SOMA_TRY(soma_graph_new(graph, err));
    soma_build b = soma__trainer_build(t, 1, 1);
    t->model->family->build(t->model, &b, *graph);
    if ((*graph)->error.code == SOMA_OK) return SOMA_OK;
    soma_status status = soma__fail(err, (*graph)->error.code, "%s", (*graph)->error.text);
    soma_graph_free(*graph);
    *graph = NULL;
    return status;
}

// ---- which pairs

typedef struct recipe {
    soma_lora_rule rules[SOMA_LORA_RULES]; // openpi
    size_t n_rules;
    const char *part; // of openpi's rules; NULL: all
    bool peft;
    regex_t targets;
} recipe;

static float scale_of(const soma_train_opts *o, int64_t rank) {
    double alpha = o->lora_alpha > 0 ? o->lora_alpha : (double)rank;
    return (float)(alpha / (o->lora_stabilised ? sqrt((double)rank) : (double)rank));
}

static soma_status consider(soma_trainer *t, const recipe *r, const char *layer, soma_error *err) {
    const soma_train_opts *o = &t->o;
    if (r->peft) {
        char full[520];
        snprintf(full, sizeof full, "model.%s", layer);
        int64_t rank = o->lora_rank ? o->lora_rank : 16;
        if (regexec(&r->targets, full, 0, NULL, 0)) return SOMA_OK;
        return soma__adapters_add(&t->change, &(soma_adapter){.form = SOMA_ADAPTER_PEFT, .rank = rank, .scale = scale_of(o, rank)}, layer,
                                  err);
    }
    for (size_t i = 0; i < r->n_rules; i++) {
        const soma_lora_rule *rule = &r->rules[i];
        if (!rule->layers || (r->part && strcmp(r->part, rule->part)) || !soma__matches(rule->layers, layer)) continue;
        int64_t rank = o->lora_rank ? o->lora_rank : rule->rank;
        soma_adapter d = {.form = rule->form, .rank = rank, .n_heads = rule->n_heads, .scale = rule->scaled ? scale_of(o, rank) : 1};
        return soma__adapters_add(&t->change, &d, layer, err);
    }
    return SOMA_OK;
}

// Linear layers are the weights that matrix products read as they are.
static soma_status add_pairs(soma_trainer *t, const recipe *r, soma_error *err) {
    soma_graph *graph;
    SOMA_TRY(soma__trainer_graph(&graph, t, err));
    soma_status status = SOMA_OK;
    for (size_t i = 0; i < graph->n_tensors && status == SOMA_OK; i++) {
        const soma_tensor *node = graph->tensors[i], *w = node->op == SOMA_OP_MATMUL ? node->src[1] : NULL;
        if (!w || w->op != SOMA_OP_LEAF || w->role != SOMA_ROLE_WEIGHT || w->n_dims != 2) continue;
        size_t len = strlen(w->name), tail = strlen(".weight");
        if (len <= tail || strcmp(w->name + len - tail, ".weight")) continue;
        char layer[512];
        snprintf(layer, sizeof layer, "%.*s", (int)(len - tail), w->name);
        status = consider(t, r, layer, err);
    }
    soma_graph_free(graph);
    if (status != SOMA_OK || t->change.n_adapters) return status;
    return soma__fail(err, SOMA_BAD_INPUT, "--lora %s: no linear layer of %s has such a name", t->o.lora, t->model->info.type);
}

static soma_status add_openpi(soma_trainer *t, const char *part, soma_error *err) {
    recipe r = {.part = part};
    if (!t->model->family->lora)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s has no recipe of openpi's; --lora peft works for every family", t->model->info.type);
    r.n_rules = t->model->family->lora(t->model, r.rules);
    SOMA_TRY(add_pairs(t, &r, err));
    for (size_t i = 0; i < r.n_rules; i++)
        if (r.rules[i].frozen && (!part || !strcmp(part, r.rules[i].part)))
            SOMA_TRY(soma__adapters_freeze(&t->change, r.rules[i].frozen, err));
    return SOMA_OK;
}

static soma_status add_peft(soma_trainer *t, soma_error *err) {
    char anchored[SOMA_OPT_TEXT + 8];
    recipe r = {.peft = true};
    if (!*t->o.lora_targets && !t->model->family->tuning.peft)
        return soma__fail(err, SOMA_BAD_INPUT, "--lora peft: LeRobot names no layers of %s; --lora-targets does", t->model->info.type);
    snprintf(anchored, sizeof anchored, "^(%s)$", *t->o.lora_targets ? t->o.lora_targets : t->model->family->tuning.peft);
    if (regcomp(&r.targets, anchored, REG_EXTENDED | REG_NOSUB))
        return soma__fail(err, SOMA_BAD_INPUT, "--lora-targets \"%.200s\" is no extended regular expression", t->o.lora_targets);
    soma_status status = add_pairs(t, &r, err);
    regfree(&r.targets);
    return status == SOMA_OK ? soma__adapters_freeze(&t->change, "*", err) : status;
}

soma_status soma__trainer_adapt(soma_trainer *t, soma_error *err) {
    const soma_train_opts *o = &t->o;
    if ((*o->lora || *o->freeze) && !*o->init)
        return soma__fail(err, SOMA_BAD_INPUT, "--lora and --freeze keep weights as they are in a checkpoint; --init names its folder");
    if (*o->init && !realpath(o->init, t->change.base)) return soma__fail(err, SOMA_NOT_FOUND, "%s: there is no such checkpoint", o->init);
    if (*o->init && soma__adapters_here(o->init))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s is an adapter; soma export makes a checkpoint of it and its base", o->init);
    if (!strncmp(o->lora, "openpi", 6) && (!o->lora[6] || o->lora[6] == '_'))
        SOMA_TRY(add_openpi(t, o->lora[6] ? o->lora + 7 : NULL, err));
    else if (!strcmp(o->lora, "peft"))
        SOMA_TRY(add_peft(t, err));
    else if (*o->lora)
        return soma__fail(err, SOMA_BAD_INPUT, "--lora \"%.32s\": openpi, openpi_language, openpi_expert or peft are possible", o->lora);
    char list[SOMA_OPT_TEXT], *rest = list;
    strcpy(list, o->freeze);
    for (char *glob; *list && (glob = strsep(&rest, ","));) {
        const bool published = !strcmp(glob, "published");
        if (published && !t->model->family->tuning.frozen)
            return soma__fail(err, SOMA_BAD_INPUT, "--freeze published: %s's recipe trains all weights", t->model->info.type);
        SOMA_TRY(soma__adapters_freeze(&t->change, published ? t->model->family->tuning.frozen : glob, err));
    }
    return SOMA_OK;
}

// ---- where weights begin

// The trained weights as the checkpoint has them; pairs begin anew. only_vlm: the vision and language weights that it has.
static soma_status read_trained(soma_trainer *t, const soma_safetensors *file, bool only_vlm, soma_error *err) {
    soma_params part = *t->params;
    part.layout.slots = soma__calloc(t->params->layout.n_slots + 1, sizeof *part.layout.slots);
    if (!part.layout.slots) return soma__no_memory(err, "the weights' table");
    part.layout.n_slots = 0;
    const soma_alias *aliases = t->model->family->aliases;
    const char *vlm = t->model->family->tuning.vlm;
    for (size_t i = 0; i < t->params->layout.n_slots; i++) {
        const char *name = t->params->layout.slots[i].name;
        const bool here = t->model->family->fits || soma__find_weight(file, name, aliases); // a ResNet is whole, or is refused
        if (only_vlm ? vlm && soma__matches(vlm, name) && here : !soma__is_pair(name))
            part.layout.slots[part.layout.n_slots++] = t->params->layout.slots[i];
    }
    soma_status status = soma__params_load_into(&part, part.memory, file, aliases, err);
    if (status == SOMA_OK && only_vlm && !part.layout.n_slots)
        status =
            soma__fail(err, SOMA_BAD_INPUT, "--vlm: %s has no vision and language weights that %s knows", t->o.vlm, t->model->info.type);
    soma__free(part.layout.slots);
    return status;
}

static soma_status read_vlm(soma_trainer *t, soma_error *err) {
    soma_safetensors *file;
    SOMA_TRY(soma__safetensors_open(&file, t->o.vlm, err));
    soma_status status = read_trained(t, file, true, err);
    soma__safetensors_close(file);
    return status;
}

static soma_status read_init(soma_trainer *t, const soma_graph *graph, soma_error *err) {
    soma_safetensors *file;
    SOMA_TRY(soma__safetensors_open(&file, t->o.init, err));
    soma_status status = read_trained(t, file, false, err);
    soma__safetensors_close(file);
    if (status != SOMA_OK || !t->change.n_frozen) return status;
    SOMA_TRY(soma__safetensors_open(&file, t->o.init, err)); // is taken over: its pages are the frozen weights
    SOMA_TRY(soma__params_open_cached(&t->still, t->device, (const soma_graph *const *)&graph, 1, SOMA_ROLE_FROZEN, file,
                                      t->model->family->aliases, NULL, err));
    t->params->layout.frozen = &t->still->layout;
    return SOMA_OK;
}

static soma_status copy_average(soma_trainer *t, soma_error *err) {
    enum { PIECE = 1 << 20 };
    const soma_device_kind *kind = t->device->kind;
    char *host = soma__alloc(PIECE), *w = soma__optimiser_array(t->optimiser, "w"), *ema = soma__optimiser_array(t->optimiser, "ema");
    if (!host) return soma__no_memory(err, "the initial weights");
    for (size_t at = 0, size = t->params->size, n; at < size && w != ema; at += n) {
        n = SOMA_MIN(size - at, PIECE);
        kind->get(t->device, host, w + at, n);
        kind->put(t->device, ema + at, host, n);
    }
    soma__free(host);
    return SOMA_OK;
}

soma_status soma__trainer_weights(soma_trainer *t, soma_error *err) {
    soma_graph *graph;
    SOMA_TRY(soma__trainer_graph(&graph, t, err));
    soma_status status = soma__params_lay_out(&t->params, t->device, (const soma_graph *const *)&graph, 1, err);
    if (status == SOMA_OK)
        status = soma__optimiser_new(&t->optimiser, t->device, &t->params->layout, t->o.accumulate > 1, t->o.ema > 0, err);
    if (status == SOMA_OK) {
        t->params->memory = soma__optimiser_array(t->optimiser, "w");
        status = soma__params_init(t->params, (uint64_t)t->o.seed, err);
    }
    if (status == SOMA_OK && *t->o.init) status = read_init(t, graph, err);
    if (status == SOMA_OK && *t->o.vlm) status = read_vlm(t, err);
    soma_graph_free(graph);
    return status == SOMA_OK ? copy_average(t, err) : status;
}

// ---- what is left of it

// The trained weights under the names that PEFT gives them.
static soma_status save_prefixed(soma_trainer *t, const char *array, const char *path, const json_t *metadata, soma_error *err) {
    soma_params named = *t->params;
    soma_arena names = {0};
    named.layout.slots = soma__calloc(t->params->layout.n_slots + 1, sizeof *named.layout.slots);
    soma_status status = named.layout.slots ? SOMA_OK : soma__no_memory(err, "the weights' table");
    for (size_t i = 0; i < t->params->layout.n_slots && status == SOMA_OK; i++) {
        named.layout.slots[i] = t->params->layout.slots[i];
        named.layout.slots[i].name = soma__arena_printf(&names, "%s%s", soma__adapters_prefix(&t->change), t->params->layout.slots[i].name);
        if (!named.layout.slots[i].name) status = soma__no_memory(err, "the weights' table");
    }
    if (status == SOMA_OK) status = soma__params_save(&named, soma__optimiser_array(t->optimiser, array), path, metadata, err);
    soma__free(named.layout.slots);
    soma__arena_free(&names);
    return status;
}

soma_status soma__trainer_publish(soma_trainer *t, const char *array, soma_error *err) {
    char path[SOMA_PATH_MAX], step[24];
    const bool part = t->still != NULL; // the rest is the checkpoint's
    SOMA_TRY(soma__path_join(path, t->o.out, part ? "adapter_model.safetensors" : "model.safetensors", err));
    if (part) SOMA_TRY(soma__adapters_save(&t->change, t->o.out, err));
    snprintf(step, sizeof step, "%lld", (long long)t->step);
    json_t *metadata = json_pack("{s:s, s:s}", "format", "pt", "step", step);
    if (!metadata) return soma__no_memory(err, "saving the weights");
    soma_status status = save_prefixed(t, array, path, metadata, err);
    json_decref(metadata);
    if (status == SOMA_OK) t->params->version++;
    return status;
}
