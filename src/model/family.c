// SPDX-License-Identifier: Apache-2.0
// Finding a family for a config, and the arrays that a batch becomes.
#include "model/family.h"

#include "base/str.h"

#include <fnmatch.h>
#include <string.h>

soma_build soma__build_defaults(soma_program program, int64_t batch) {
    return (soma_build){.program = program, .batch = batch, .draws = 1, .image = SOMA_U8, .precision = SOMA_PRECISION_F32};
}

soma_scope_spec soma__build_scopes(const soma_build *b, const soma_precision_rule *rules, size_t n_rules) {
    return (soma_scope_spec){.rules = rules,
                             .n_rules = n_rules,
                             .adapters = b->adapters,
                             .n_adapters = b->n_adapters,
                             .frozen = b->frozen,
                             .n_frozen = b->n_frozen,
                             .recompute = b->recompute};
}

const soma_family *soma__family_find(const char *type) {
    for (const soma_family *const *f = soma__family_registry; *f; f++)
        for (const char *const *t = (*f)->types; *t; t++)
            if (!strcmp(*t, type)) return *f;
    return NULL;
}

// "model_type", or LeRobot's "type"; NULL when it says neither.
static const char *type_of(const json_t *config) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    return type ? type : json_string_value(json_object_get(config, "type"));
}

static soma_status unknown_type(const char *type, const char *where, soma_error *err) {
    soma_str known = {0};
    for (const soma_family *const *f = soma__family_registry; *f; f++)
        for (const char *const *t = (*f)->types; *t; t++) soma__str_printf(&known, "%s\"%s\"", known.len ? ", " : "", *t);
    soma_status status =
        type ? soma__fail(err, SOMA_UNSUPPORTED, "%s: model_type \"%.64s\" is not known; there are %s", where, type, known.text)
             : soma__fail(err, SOMA_BAD_INPUT, "%s: it says no \"model_type\"; add one of %s", where, known.text);
    soma__str_free(&known);
    return status;
}

soma_status soma__model_new(soma_model **model, const json_t *config, const char *where, soma_error *err) {
    *model = NULL;
    const char *type = type_of(config);
    const soma_family *family = type ? soma__family_find(type) : NULL;
    return family ? family->model_new(model, config, where, err) : unknown_type(type, where, err);
}

soma_status soma__preset_config(json_t **config, const char *family, const char *preset, const char *file, soma_error *err) {
    if (*file)
        SOMA_TRY(soma__json_load(config, file, err));
    else
        *config = json_object();
    json_object_set_new(*config, "model_type", json_string(family));
    json_object_set_new(*config, "preset", json_string(preset));
    return SOMA_OK;
}

soma_status soma__model_preset(soma_model **model, const char *family, const char *preset, const char *file, soma_error *err) {
    json_t *config;
    *model = NULL;
    SOMA_TRY(soma__preset_config(&config, family, preset, file, err));
    soma_status status = soma__model_new(model, config, *file ? file : "the model's options", err);
    json_decref(config);
    return status;
}

soma_status soma__model_recognise(json_t *config, soma_shapes (*shapes)(void *ctx, const soma_family *family), void *ctx, const char *where,
                                  soma_error *err) {
    const char *type = type_of(config);
    const soma_family *family = type ? soma__family_find(type) : NULL;
    if (type && !family) return unknown_type(type, where, err);
    for (const soma_family *const *f = soma__family_registry; *f; f++) {
        if (!(*f)->recognise || (family && *f != family)) continue;
        soma_shapes tensors = shapes(ctx, *f);
        soma_status status = (*f)->recognise(config, &tensors, where, err);
        if (status != SOMA_NOT_FOUND || family) return status;
    }
    return family ? SOMA_OK : unknown_type(NULL, where, err);
}

soma_status soma__model_weights(soma_layout *layout, const soma_model *model, bool all, soma_error *err) {
    soma_status status = SOMA_OK;
    for (int i = 0; i < 2 && status == SOMA_OK; i++) {
        soma_graph *graph;
        SOMA_TRY(soma_graph_new(&graph, err));
        soma_build b = soma__build_defaults(i ? soma__step_program(&model->info) : SOMA_PROGRAM_ENCODE, 1);
        b.whole = b.published = all;
        model->family->build(model, &b, graph);
        status = soma__layout_add(layout, graph, SOMA_ROLE_WEIGHT, err);
        soma_graph_free(graph);
    }
    return status;
}

const char *soma__model_purpose(const soma_model *model, const char *name) {
    for (const soma_purpose *p = model->family->purposes; p && p->glob; p++)
        if (!fnmatch(p->glob, name, 0)) return p->words;
    return "";
}

void soma__model_free(soma_model *model) { soma__free(model); }

// ---- savings

enum { TOKENS_AT_ONCE = 16 }; // a prompt's length is rounded up to a multiple: one robot's prompts then need one plan or two

soma_saving soma__batch_saving(const soma_model_info *info, const soma_batch *b, int64_t steps) {
    soma_saving s = {.steps = steps};
    const int64_t C = info->n_cameras, L = soma__prompt_room(info);
    int64_t longest = 1;
    for (int64_t row = 0; row < b->n; row++) {
        for (int64_t c = 0; c < C; c++)
            if (!b->image_mask || b->image_mask[row * C + c]) s.cameras |= 1u << c;
        for (int64_t i = longest; i < L; i++)
            if (b->token_mask[row * L + i]) longest = i + 1;
    }
    s.tokens = SOMA_MIN(L, (longest + TOKENS_AT_ONCE - 1) / TOKENS_AT_ONCE * TOKENS_AT_ONCE);
    return s;
}

int64_t soma__saved_cameras(const soma_model_info *info, const soma_saving *saving) {
    int64_t n = 0;
    for (int64_t c = 0; c < info->n_cameras; c++) n += soma__looked_at(saving, c);
    return n;
}

int64_t soma__saved_tokens(const soma_model_info *info, const soma_saving *saving) {
    return saving ? saving->tokens : soma__prompt_room(info);
}

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

// The pictures that are looked at, camera after camera.
static soma_status feed_pictures(soma_feed *feed, const soma_model_info *info, const soma_batch *b, soma_error *err) {
    const int64_t C = info->n_cameras, chosen = soma__saved_cameras(info, b->saving);
    const size_t each = (size_t)soma__image_pixels(info) * 3 * soma_dtype_size(b->image_dtype);
    if (chosen == C) {
        soma__feed_borrow(feed, "images", b->images, (size_t)(b->n * C) * each);
        return SOMA_OK;
    }
    if (!chosen) return SOMA_OK;
    char *out = soma__feed_own(feed, "images", (size_t)(b->n * chosen) * each);
    if (!out) return soma__no_memory(err, "a batch's pictures");
    for (int64_t i = 0; i < b->n * C; i++) {
        if (!soma__looked_at(b->saving, i % C)) continue;
        memcpy(out, (const char *)b->images + (size_t)i * each, each);
        out += each;
    }
    return SOMA_OK;
}

soma_status soma__feed_observation(soma_feed *feed, const soma_model_info *info, const soma_batch *b, soma_error *err) {
    const int64_t L = b->n_tokens ? b->n_tokens : b->token_causal ? info->max_tokens + info->answer.max : soma__prompt_room(info);
    const int64_t n = b->saving ? b->saving->tokens : L;
    for (int64_t i = 0; i < b->n * L; i++)
        if (b->token_mask[i] && (b->tokens[i] < 0 || b->tokens[i] >= info->vocab))
            return soma__fail(err, SOMA_BAD_INPUT, "token id %d at place %lld of the prompt: the model knows 0 to %lld", b->tokens[i],
                              (long long)(i % L), (long long)info->vocab - 1);
    SOMA_TRY(feed_pictures(feed, info, b, err));
    if (n == L) {
        soma__feed_borrow(feed, "tokens", b->tokens, sizeof *b->tokens * (size_t)(b->n * L));
        return SOMA_OK;
    }
    int32_t *out = soma__feed_own(feed, "tokens", sizeof *out * (size_t)(b->n * n));
    if (!out) return soma__no_memory(err, "a batch's tokens");
    for (int64_t row = 0; row < b->n; row++) memcpy(out + row * n, b->tokens + row * L, sizeof *out * (size_t)n);
    return SOMA_OK;
}

soma_status soma__feed_loss_weights(soma_feed *feed, const soma_model_info *info, const soma_batch *b, int64_t draws, bool unpadded,
                                    soma_error *err) {
    const int64_t A = info->action_dim, chunk = info->horizon * A, n = b->n * draws * chunk;
    int64_t counted = 0;
    float *w = soma__feed_own(feed, "loss_weight", sizeof *w * (size_t)n);
    if (!w) return soma__no_memory(err, "a batch's loss weights");
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = i / chunk / draws * chunk + i % chunk; // in the batch's rows, each of which is drawn for so many times
        const bool counts = (!b->action_mask || b->action_mask[at]) && !(unpadded && b->action_pad && b->action_pad[at / A]);
        w[i] = counts;
        counted += counts;
    }
    if (!counted) return soma__fail(err, SOMA_BAD_INPUT, "a training batch has no action that counts: every entry is masked");
    const float one = (float)(1.0 / (double)counted);
    for (int64_t i = 0; i < n; i++) w[i] *= one;
    return SOMA_OK;
}
