// SPDX-License-Identifier: Apache-2.0
// pi0-FAST's sizes: presets, and the table of fields that reads and writes config.json. A config of LeRobot's own (it has a "type") means
// LeRobot's form; any other means openpi's, unless it says "lerobot_form".
#include "model/paligemma.h"
#include "model/pi0_fast/pi0_fast.h"

#include <string.h>

// PaliGemma 3B as released (openpi, models/pi0_fast.py: gemma_2b, So400m/14; 250 tokens of prompt and answer, 256 steps of decoding)
static const pi0_fast_config base = {
    .model.info = {.n_cameras = 3, .image_size = 224, .horizon = 32, .action_dim = 32, .max_tokens = 250, .vocab = 257152, .n_steps = 1},
    .model.info.answer = {.max = 256, .skip = 128, .gap = 1},
    .tied = true,
    .preset = "base",
    .cameras = {"base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"},
    .language = {.width = 2048, .depth = 18, .mlp = 16384, .n_heads = 8, .n_kv_heads = 1, .head_dim = 256},
    .vision = {.width = 1152, .depth = 27, .n_heads = 16, .mlp = 4304, .patch = 14, .image = 224},
    .vision_eps = 1e-6,
    .rms_eps = 1e-6,
    .rope_theta = 10000,
};

// pi0's nano without the expert. Words below, codes at the end: 2048 ids hold a vocabulary of words and 1024 codes. No position is left
// out, because training leaves none out.
static const pi0_fast_config nano = {
    .model.info = {.n_cameras = 2, .image_size = 64, .horizon = 30, .action_dim = 7, .max_tokens = 48, .vocab = 2048, .n_steps = 1},
    .model.info.answer = {.max = 128},
    .tied = true,
    .preset = "nano",
    .cameras = {"scene", "wrist"},
    .language = {.width = 128, .depth = 4, .mlp = 256, .n_heads = 4, .n_kv_heads = 1, .head_dim = 32},
    .vision = {.width = 128, .depth = 2, .n_heads = 4, .mlp = 256, .patch = 16, .image = 64},
    .vision_eps = 1e-6,
    .rms_eps = 1e-6,
    .rope_theta = 10000,
};

static const pi0_fast_config *const presets[] = {&base, &nano};

#define INT(key, other, member, min, max) \
    { "", key, other, SOMA_FIELD_INT, offsetof(pi0_fast_config, member), min, max }
#define OTHER(kind, key, member) \
    { "", key, NULL, SOMA_FIELD_##kind, offsetof(pi0_fast_config, member), 0, 0 }
static const soma_field fields[] = {
    INT("action_horizon", "n_action_steps", model.info.horizon, 1, 4096), // LeRobot decodes n_action_steps, whatever chunk_size says
    INT("action_dim", "max_action_dim", model.info.action_dim, 1, 4096),
    INT("state_dim", "max_state_dim", model.info.state_dim, 1, 4096),
    INT("max_token_len", "tokenizer_max_length", model.info.max_tokens, 1, 65536),
    INT("vocab_size", NULL, model.info.vocab, 1, 1 << 24),
    INT("max_decoding_steps", NULL, model.info.answer.max, 1, 65536),
    INT("fast_skip_tokens", NULL, model.info.answer.skip, 0, 65536),
    INT("position_gap", NULL, model.info.answer.gap, 0, 1),
    OTHER(BOOL, "lerobot_form", model.info.answer.lerobot),
    OTHER(BOOL, "tie_word_embeddings", tied),
    SOMA_FIELDS_GEMMA("paligemma", pi0_fast_config, language),
    SOMA_FIELDS_VISION("vision", pi0_fast_config, vision),
    OTHER(REAL, "vision_layer_norm_eps", vision_eps),
    OTHER(REAL, "rms_norm_eps", rms_eps),
    OTHER(REAL, "rope_theta", rope_theta),
};

static soma_status check_sizes(const pi0_fast_config *c, const char *where, soma_error *err) {
    SOMA_TRY(soma__check_gemma(&c->language, where, err));
    SOMA_TRY(soma__check_vision(&c->vision, where, err));
    if (!(c->vision_eps > 0) || !(c->rms_eps > 0) || !(c->rope_theta > 1))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: epsilons are positive, and rope_theta is above 1", where);
    if (c->model.info.answer.skip >= c->model.info.vocab)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: fast_skip_tokens %lld leaves nothing of a vocabulary of %lld", where,
                          (long long)c->model.info.answer.skip, (long long)c->model.info.vocab);
    return SOMA_OK;
}

static soma_status read_config(void *config, json_t *json, const char *where, soma_error *err) {
    pi0_fast_config *c = config;
    size_t preset;
    SOMA_TRY(soma__preset_read(&preset, &soma__family_pi0_fast, json, where, err));
    *c = *presets[preset];
    if (!json_object_get(json, "model_type")) { // LeRobot's: 200 tokens and the BOS that stands behind them, no position left out
        c->model.info.answer.lerobot = true;
        c->model.info.answer.gap = 0;
        c->model.info.max_tokens = 200;
        c->model.info.horizon = 50;
    }
    SOMA_TRY(soma__fields_read(c, fields, SOMA_COUNT(fields), json, where, err));
    SOMA_TRY(soma__cameras_read(c->cameras, &c->model.info, json, where, err));
    if (!c->model.info.state_dim) c->model.info.state_dim = c->model.info.action_dim;
    SOMA_TRY(check_sizes(c, where, err));
    c->model.info.type = "pi0_fast";
    c->model.info.image_size = c->vision.image;
    c->model.info.form = c->model.info.answer.lerobot ? SOMA_PROMPT_LEROBOT_FAST : SOMA_PROMPT_FAST;
    c->vision.eps = (float)c->vision_eps;
    c->language.eps = c->rms_eps;
    c->language.theta = c->rope_theta;
    c->model.family = &soma__family_pi0_fast;
    return SOMA_OK;
}

soma_status pi0_fast_model_new(soma_model **model, const json_t *json, const char *where, soma_error *err) {
    return soma__config_new(model, sizeof(pi0_fast_config), read_config, json, where, err);
}

json_t *pi0_fast_config_json(const soma_model *model) {
    return soma__config_json(model, ((const pi0_fast_config *)model)->preset, fields, SOMA_COUNT(fields));
}

const soma_family soma__family_pi0_fast = {
    .name = "pi0_fast",
    .types = (const char *const[]){"pi0_fast", NULL},
    .presets = (const char *const[]){"base", "nano", NULL},
    .aliases = pi0_fast_aliases,
    .purposes = pi0_fast_purposes,
    .recognise = pi0_fast_recognise,
    .model_new = pi0_fast_model_new,
    .config = pi0_fast_config_json,
    .build = pi0_fast_build,
    .prepare = pi0_fast_prepare,
    .lora = pi0_fast_lora,
    .tuning = {.vlm = SOMA_PALIGEMMA_VLM, .peft = SOMA_PALIGEMMA_PEFT},
    .lerobot = {.tokenizer = SOMA_PALIGEMMA_TOKENIZER, .fields = soma__paligemma_lerobot},
};
