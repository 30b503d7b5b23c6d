// SPDX-License-Identifier: Apache-2.0
// pi0's sizes: presets, and the table of fields that reads and writes config.json.
#include "model/fields.h"
#include "model/paligemma.h"
#include "model/pi0/pi0.h"

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

// A policy of 0.1 billion weights for one robot's own demonstrations, from nothing: pictures as large as base's through a ViT-S/16, a
// language model of 12 heads that keeps to the prompts of its data. What a training step is measured with (soma bench train).
static const pi0_config small = {
    .model.info =
        {.n_cameras = 2, .image_size = 224, .horizon = 50, .action_dim = 14, .max_tokens = 48, .vocab = 4096, .n_steps = 10, .noise = 1},
    .preset = "small",
    .cameras = {"scene", "wrist"},
    .language = {.width = 768, .depth = 10, .mlp = 2048, .n_heads = 12, .n_kv_heads = 1, .head_dim = 64},
    .expert = {.width = 512, .depth = 10, .mlp = 1024, .n_heads = 12, .n_kv_heads = 1, .head_dim = 64},
    .vision = {.width = 384, .depth = 12, .n_heads = 6, .mlp = 1536, .patch = 16, .image = 224},
    .vision_eps = 1e-6,
    .rms_eps = 1e-6,
    .rope_theta = 10000,
    .min_period = 4e-3,
    .max_period = 4.0,
};

static const pi0_config *const presets[] = {&base, &small, &nano};

#define INT(key, other, member, min, max) \
    { "", key, other, SOMA_FIELD_INT, offsetof(pi0_config, member), min, max }
#define REAL(key, member) \
    { "", key, NULL, SOMA_FIELD_REAL, offsetof(pi0_config, member), 0, 0 }
static const soma_field fields[] = {
    INT("action_horizon", "chunk_size", model.info.horizon, 1, 4096),
    INT("action_dim", "max_action_dim", model.info.action_dim, 1, 4096),
    INT("state_dim", "max_state_dim", model.info.state_dim, 1, 4096),
    INT("max_token_len", "tokenizer_max_length", model.info.max_tokens, 1, 65536),
    INT("vocab_size", NULL, model.info.vocab, 1, 1 << 24),
    INT("num_steps", "num_inference_steps", model.info.n_steps, 1, 1000),
    SOMA_FIELDS_GEMMA("paligemma", pi0_config, language),
    SOMA_FIELDS_GEMMA("action_expert", pi0_config, expert),
    SOMA_FIELDS_VISION("vision", pi0_config, vision),
    INT("rtc_training_max_delay", NULL, model.info.given_max, 0, 4096),
    REAL("vision_layer_norm_eps", vision_eps),
    REAL("rms_norm_eps", rms_eps),
    REAL("rope_theta", rope_theta),
    REAL("time_min_period", min_period),
    REAL("time_max_period", max_period),
    REAL("noise_scale", model.info.noise),
};

static soma_status check_sizes(const pi0_config *c, const char *where, soma_error *err) {
    const soma_gemma *a = &c->language, *b = &c->expert;
    if (a->depth != b->depth || a->n_heads != b->n_heads || a->n_kv_heads != b->n_kv_heads || a->head_dim != b->head_dim)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: paligemma and action_expert must agree in depth, num_heads, num_kv_heads and head_dim",
                          where);
    SOMA_TRY(soma__check_gemma(a, where, err));
    SOMA_TRY(soma__check_vision(&c->vision, where, err));
    if (b->width % 2) return soma__fail(err, SOMA_BAD_INPUT, "%s: action_expert's width is even (sines and cosines of the time)", where);
    if (!(c->vision_eps > 0) || !(c->rms_eps > 0) || !(c->rope_theta > 1) || !(c->min_period > 0) || !(c->max_period > c->min_period))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: epsilons are positive, rope_theta is above 1, time_max_period above time_min_period",
                          where);
    if (c->model.info.given_max && (!c->pi05 || c->model.info.given_max >= c->model.info.horizon))
        return soma__fail(err, SOMA_BAD_INPUT,
                          "%s: rtc_training_max_delay is %lld; pi05 alone learns to continue a chunk, and of less than its horizon", where,
                          (long long)c->model.info.given_max);
    if (!(c->model.info.noise >= 0 && c->model.info.noise <= 10))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: noise_scale is %g; 0 to 10 makes sense", where, c->model.info.noise);
    return SOMA_OK;
}

static soma_status read_config(void *config, json_t *json, const char *where, soma_error *err) {
    pi0_config *c = config;
    const char *type = "pi0";
    size_t preset;
    SOMA_TRY(soma__optional(soma__json_string(&type, json, json_object_get(json, "model_type") ? "model_type" : "type", where, err), err));
    SOMA_TRY(soma__preset_read(&preset, &soma__family_pi0, json, where, err));
    *c = *presets[preset];
    c->pi05 = !strcmp(type, "pi05");
    if (c->pi05 && presets[preset] == &base) c->model.info.max_tokens = 200; // its prompts also tell the state
    SOMA_TRY(soma__fields_read(c, fields, SOMA_COUNT(fields), json, where, err));
    SOMA_TRY(soma__cameras_read(c->cameras, &c->model.info, json, where, err));
    if (!c->model.info.state_dim) c->model.info.state_dim = c->model.info.action_dim;
    SOMA_TRY(check_sizes(c, where, err));
    soma_model_info *info = &c->model.info;
    info->type = c->pi05 ? "pi05" : "pi0";
    info->image_size = c->vision.image;
    info->state_input = !c->pi05;
    info->form = c->pi05 ? SOMA_PROMPT_PI05 : SOMA_PROMPT_PI0;
    c->vision.eps = (float)c->vision_eps;
    c->language.eps = c->expert.eps = c->rms_eps;
    c->language.theta = c->expert.theta = c->rope_theta;
    c->model.family = &soma__family_pi0;
    return SOMA_OK;
}

soma_status pi0_model_new(soma_model **model, const json_t *json, const char *where, soma_error *err) {
    return soma__config_new(model, sizeof(pi0_config), read_config, json, where, err);
}

json_t *pi0_config_json(const soma_model *model) {
    return soma__config_json(model, ((const pi0_config *)model)->preset, fields, SOMA_COUNT(fields));
}

const soma_family soma__family_pi0 = {
    .name = "pi0",
    .types = (const char *const[]){"pi0", "pi05", NULL},
    .presets = (const char *const[]){"base", "small", "nano", NULL},
    .aliases = pi0_aliases,
    .purposes = pi0_purposes,
    .recognise = pi0_recognise,
    .model_new = pi0_model_new,
    .config = pi0_config_json,
    .build = pi0_build,
    .prepare = pi0_prepare,
    .lora = pi0_lora,
    .tuning = {.vlm = SOMA_PALIGEMMA_VLM, .peft = SOMA_PALIGEMMA_PEFT},
    .lerobot = {.tokenizer = SOMA_PALIGEMMA_TOKENIZER, .new_line = "pi0_new_line_processor", .fields = soma__paligemma_lerobot},
};
