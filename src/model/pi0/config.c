// SPDX-License-Identifier: Apache-2.0
// pi0's sizes: presets, and one table of fields that reads and writes config.json. Keys are those of published configs where these have
// one; what a foreign config says beyond the table is not looked at, but a misspelt key inside a section of sizes is refused.
#include "model/pi0/pi0.h"

#include <stdio.h>
#include <string.h>

// PaliGemma 3B with a 300M expert, as released (openpi, models/gemma.py and siglip.py: gemma_2b, gemma_300m, So400m/14)
static const pi0_config base = {
    .model.info =
        {.n_cameras = 3, .image_size = 224, .horizon = 50, .action_dim = 32, .max_tokens = 48, .vocab = 257152, .n_steps = 10, .noise = 1},
    .preset = "base",
    .cameras = {"base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"},
    .language = {.width = 2048, .depth = 18, .mlp = 16384, .n_heads = 8, .n_kv_heads = 1, .head_dim = 256},
    .expert = {.width = 1024, .depth = 18, .mlp = 4096, .n_heads = 8, .n_kv_heads = 1, .head_dim = 256},
    .vision = {.width = 1152, .depth = 27, .n_heads = 16, .mlp = 4304, .patch = 14, .image = 224},
    .vision_eps = 1e-6,
    .rms_eps = 1e-6,
    .rope_theta = 10000,
    .min_period = 4e-3,
    .max_period = 4.0,
};

// To be learned from nothing on two processor cores in minutes: the same structure, a thousandth of the size.
static const pi0_config nano = {
    .model.info =
        {.n_cameras = 2, .image_size = 64, .horizon = 30, .action_dim = 7, .max_tokens = 12, .vocab = 256, .n_steps = 10, .noise = 1},
    .preset = "nano",
    .cameras = {"scene", "wrist"},
    .language = {.width = 128, .depth = 4, .mlp = 256, .n_heads = 4, .n_kv_heads = 1, .head_dim = 32},
    .expert = {.width = 128, .depth = 4, .mlp = 256, .n_heads = 4, .n_kv_heads = 1, .head_dim = 32},
    .vision = {.width = 128, .depth = 2, .n_heads = 4, .mlp = 256, .patch = 16, .image = 64},
    .vision_eps = 1e-6,
    .rms_eps = 1e-6,
    .rope_theta = 10000,
    .min_period = 4e-3,
    .max_period = 4.0,
};

static const pi0_config *const presets[] = {&base, &nano};

// section ("" for the top), key, other spelling at the top (LeRobot's) or NULL, where it goes, limits
typedef struct int_field {
    const char *section, *key, *other;
    size_t offset;
    int64_t min, max;
} int_field;
#define INFO(member) offsetof(pi0_config, model.info.member)
#define AT(member) offsetof(pi0_config, member)
#define STACK(section, member)                                                                                            \
    {section, "width", NULL, AT(member.width), 4, 1 << 16}, {section, "depth", NULL, AT(member.depth), 1, 512},           \
        {section, "mlp_dim", NULL, AT(member.mlp), 1, 1 << 20}, {section, "num_heads", NULL, AT(member.n_heads), 1, 256}, \
        {section, "num_kv_heads", NULL, AT(member.n_kv_heads), 1, 256}, {                                                 \
        section, "head_dim", NULL, AT(member.head_dim), 2, 1024                                                           \
    }
static const int_field ints[] = {
    {"", "action_horizon", "chunk_size", INFO(horizon), 1, 4096},
    {"", "action_dim", "max_action_dim", INFO(action_dim), 1, 4096},
    {"", "state_dim", "max_state_dim", INFO(state_dim), 1, 4096},
    {"", "max_token_len", "tokenizer_max_length", INFO(max_tokens), 1, 65536},
    {"", "vocab_size", NULL, INFO(vocab), 1, 1 << 24},
    {"", "num_steps", "num_inference_steps", INFO(n_steps), 1, 1000},
    STACK("paligemma", language),
    STACK("action_expert", expert),
    {"vision", "hidden_size", NULL, AT(vision.width), 1, 1 << 16},
    {"vision", "num_hidden_layers", NULL, AT(vision.depth), 1, SOMA_VIT_MAX_DEPTH},
    {"vision", "num_attention_heads", NULL, AT(vision.n_heads), 1, 256},
    {"vision", "intermediate_size", NULL, AT(vision.mlp), 1, 1 << 20},
    {"vision", "patch_size", NULL, AT(vision.patch), 1, 512},
    {"vision", "image_size", NULL, AT(vision.image), 1, 4096},
};
static const struct {
    const char *key;
    size_t offset;
} reals[] = {
    {"vision_layer_norm_eps", AT(vision_eps)}, {"rms_norm_eps", AT(rms_eps)},       {"rope_theta", AT(rope_theta)},
    {"time_min_period", AT(min_period)},       {"time_max_period", AT(max_period)}, {"noise_scale", INFO(noise)},
};
static const char *const sections[] = {"paligemma", "action_expert", "vision"};

static int64_t *int_at(pi0_config *c, size_t offset) { return (int64_t *)((char *)c + offset); }
static double *real_at(pi0_config *c, size_t offset) { return (double *)((char *)c + offset); }

// SOMA_NOT_FOUND is no failure here: the preset's value stays.
static soma_status optional(soma_status status, soma_error *err) {
    if (status == SOMA_NOT_FOUND && err) *err = (soma_error){0};
    return status == SOMA_NOT_FOUND ? SOMA_OK : status;
}

static soma_status read_ints(pi0_config *c, const json_t *json, const char *where, soma_error *err) {
    for (size_t i = 0; i < SOMA_COUNT(ints); i++) {
        const int_field *f = &ints[i];
        const json_t *in = *f->section ? json_object_get(json, f->section) : json;
        if (!in) continue;
        const char *key = f->other && !json_object_get(in, f->key) ? f->other : f->key;
        SOMA_TRY(optional(soma__json_int(int_at(c, f->offset), in, key, f->min, f->max, where, err), err));
    }
    return SOMA_OK;
}

static soma_status refuse_unknown_sizes(const json_t *json, const char *where, soma_error *err) {
    for (size_t s = 0; s < SOMA_COUNT(sections); s++) {
        const json_t *section = json_object_get(json, sections[s]);
        if (section && !json_is_object(section))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is an object of sizes", where, sections[s]);
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)section, key, value) {
            bool known = false;
            for (size_t i = 0; i < SOMA_COUNT(ints) && !known; i++)
                known = !strcmp(ints[i].section, sections[s]) && !strcmp(ints[i].key, key);
            if (!known) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" has no size named \"%.64s\"", where, sections[s], key);
        }
    }
    return SOMA_OK;
}

static soma_status read_cameras(pi0_config *c, const json_t *json, const char *where, soma_error *err) {
    const json_t *list = json_object_get(json, "camera_order");
    if (!list) return SOMA_OK;
    size_t n = json_array_size(list);
    if (n < 1 || n > SOMA_MODEL_CAMERAS)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"camera_order\" is a list of 1 to %d names", where, SOMA_MODEL_CAMERAS);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name || !*name || strlen(name) >= sizeof c->cameras[i])
            return soma__fail(err, SOMA_BAD_INPUT, "%s: \"camera_order\": a camera's name is a text of 1 to 63 bytes", where);
        snprintf(c->cameras[i], sizeof c->cameras[i], "%s", name);
    }
    c->model.info.n_cameras = (int)n;
    return SOMA_OK;
}

static soma_status check_sizes(const pi0_config *c, const char *where, soma_error *err) {
    const soma_gemma *a = &c->language, *b = &c->expert;
    if (a->depth != b->depth || a->n_heads != b->n_heads || a->n_kv_heads != b->n_kv_heads || a->head_dim != b->head_dim)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: paligemma and action_expert must agree in depth, num_heads, num_kv_heads and head_dim",
                          where);
    if (a->n_heads % a->n_kv_heads || a->head_dim % 2)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: num_heads is a multiple of num_kv_heads, and head_dim is even", where);
    if (c->vision.image % c->vision.patch || c->vision.width % c->vision.n_heads)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: image_size is a multiple of patch_size, and hidden_size of num_attention_heads", where);
    if (b->width % 2) return soma__fail(err, SOMA_BAD_INPUT, "%s: action_expert's width is even (sines and cosines of the time)", where);
    if (!(c->vision_eps > 0) || !(c->rms_eps > 0) || !(c->rope_theta > 1) || !(c->min_period > 0) || !(c->max_period > c->min_period))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: epsilons are positive, rope_theta is above 1, time_max_period above time_min_period",
                          where);
    if (!(c->model.info.noise >= 0 && c->model.info.noise <= 10))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: noise_scale is %g; 0 to 10 makes sense", where, c->model.info.noise);
    return SOMA_OK;
}

static soma_status read_config(pi0_config *c, const json_t *json, const char *where, soma_error *err) {
    const char *type = "pi0", *preset = "base";
    SOMA_TRY(optional(soma__json_string(&type, json, json_object_get(json, "model_type") ? "model_type" : "type", where, err), err));
    SOMA_TRY(optional(soma__json_string(&preset, json, "preset", where, err), err));
    const pi0_config *start = NULL;
    for (size_t i = 0; i < SOMA_COUNT(presets); i++)
        if (!strcmp(presets[i]->preset, preset)) start = presets[i];
    if (!start) return soma__fail(err, SOMA_BAD_INPUT, "%s: pi0 has no preset \"%.64s\"; there are \"base\" and \"nano\"", where, preset);
    *c = *start;
    c->pi05 = !strcmp(type, "pi05");
    if (c->pi05 && start == &base) c->model.info.max_tokens = 200; // its prompts also tell the state
    SOMA_TRY(refuse_unknown_sizes(json, where, err));
    SOMA_TRY(read_ints(c, json, where, err));
    for (size_t i = 0; i < SOMA_COUNT(reals); i++)
        SOMA_TRY(optional(soma__json_real(real_at(c, reals[i].offset), json, reals[i].key, where, err), err));
    SOMA_TRY(read_cameras(c, json, where, err));
    if (!c->model.info.state_dim) c->model.info.state_dim = c->model.info.action_dim;
    return check_sizes(c, where, err);
}

soma_status pi0_model_new(soma_model **model, const json_t *json, const char *where, soma_error *err) {
    pi0_config *c = soma__alloc(sizeof *c);
    *model = NULL;
    if (!c) return soma__no_memory(err, "a model's config");
    soma_status status = read_config(c, json, where, err);
    if (status != SOMA_OK) {
        soma__free(c);
        return status;
    }
    soma_model_info *info = &c->model.info;
    info->type = c->pi05 ? "pi05" : "pi0";
    info->image_size = c->vision.image;
    info->state_input = !c->pi05;
    for (int i = 0; i < info->n_cameras; i++) info->cameras[i] = c->cameras[i];
    c->vision.eps = (float)c->vision_eps;
    c->language.eps = c->expert.eps = c->rms_eps;
    c->language.theta = c->expert.theta = c->rope_theta;
    c->model.family = &soma__family_pi0;
    *model = &c->model;
    return SOMA_OK;
}

json_t *pi0_config_json(const soma_model *model) {
    pi0_config *c = (pi0_config *)model;
    json_t *out = json_pack("{s:s, s:s, s:[], s:{}, s:{}, s:{}}", "model_type", model->info.type, "preset", c->preset, "camera_order",
                            sections[0], sections[1], sections[2]);
    bool ok = out != NULL;
    for (int i = 0; ok && i < model->info.n_cameras; i++)
        ok = !json_array_append_new(json_object_get(out, "camera_order"), json_string(c->cameras[i]));
    for (size_t i = 0; ok && i < SOMA_COUNT(ints); i++) {
        json_t *section = *ints[i].section ? json_object_get(out, ints[i].section) : out;
        ok = !json_object_set_new(section, ints[i].key, json_integer(*int_at(c, ints[i].offset)));
    }
    for (size_t i = 0; ok && i < SOMA_COUNT(reals); i++)
        ok = !json_object_set_new(out, reals[i].key, json_real(*real_at(c, reals[i].offset)));
    if (ok) return out;
    json_decref(out);
    return NULL;
}

// LeRobot's prefix; transformers without the vision_model level; the embedding under the tied head's name, as openpi's files have it (where
// a file has both, embed_tokens is the one that was trained).
static const soma_alias aliases[] = {
    {"^", "model."},
    {"vision_tower.vision_model.", "vision_tower."},
    {"paligemma.model.language_model.embed_tokens.", "paligemma.lm_head."},
    {NULL, NULL},
};

const soma_family soma__family_pi0 = {
    .name = "pi0",
    .types = (const char *const[]){"pi0", "pi05", NULL},
    .presets = (const char *const[]){"base", "nano", NULL},
    .aliases = aliases,
    .model_new = pi0_model_new,
    .config = pi0_config_json,
    .build = pi0_build,
    .prepare = pi0_prepare,
};
