// SPDX-License-Identifier: Apache-2.0
// SmolVLA's sizes: presets, and the table of fields that reads and writes config.json. LeRobot's config names the language model instead of
// telling its sizes; those are the preset's or, where there are weights, theirs (published.c).
#include "model/fields.h"
#include "model/smolvla/smolvla.h"

#include <string.h>

// smolvla_base: SmolVLM2-500M-Video-Instruct, 16 of its 32 layers, and an expert of three quarters of the width
static const smolvla_config base = {
    .model.info =
        {.n_cameras = 3, .image_size = 512, .horizon = 50, .action_dim = 32, .max_tokens = 48, .vocab = 49280, .n_steps = 10, .noise = 1},
    .preset = "base",
    .cameras = {"image", "image2", "image3"},
    .language = {.width = 960, .depth = 16, .mlp = 2560, .n_heads = 15, .n_kv_heads = 5, .head_dim = 64},
    .expert = {.width = 720, .mlp = 2048},
    .vision = {.width = 768, .depth = 12, .n_heads = 12, .mlp = 3072, .patch = 16, .image = 512},
    .scale = 4,
    .self_every = 2,
    .vision_eps = 1e-6,
    .rms_eps = 1e-5,
    .rope_theta = 10000,
    .min_period = 4e-3,
    .max_period = 4.0,
};

// To be learned from nothing on two processor cores in minutes: the same structure, a thousandth of the size.
static const smolvla_config nano = {
    .model.info =
        {.n_cameras = 2, .image_size = 64, .horizon = 30, .action_dim = 7, .max_tokens = 12, .vocab = 256, .n_steps = 10, .noise = 1},
    .preset = "nano",
    .cameras = {"scene", "wrist"},
    .language = {.width = 128, .depth = 4, .mlp = 256, .n_heads = 4, .n_kv_heads = 2, .head_dim = 32},
    .expert = {.width = 96, .mlp = 256},
    .vision = {.width = 128, .depth = 2, .n_heads = 4, .mlp = 256, .patch = 8, .image = 64},
    .scale = 2,
    .self_every = 2,
    .vision_eps = 1e-6,
    .rms_eps = 1e-5,
    .rope_theta = 10000,
    .min_period = 4e-3,
    .max_period = 4.0,
};

static const smolvla_config *const presets[] = {&base, &nano};

#define INT(section, key, other, member, min, max) \
    { section, key, other, SOMA_FIELD_INT, offsetof(smolvla_config, member), min, max }
#define REAL(key, other, member) \
    { "", key, other, SOMA_FIELD_REAL, offsetof(smolvla_config, member), 0, 0 }
static const soma_field fields[] = {
    INT("", "action_horizon", "chunk_size", model.info.horizon, 1, 4096),
    INT("", "action_dim", "max_action_dim", model.info.action_dim, 1, 4096),
    INT("", "state_dim", "max_state_dim", model.info.state_dim, 1, 4096),
    INT("", "max_token_len", "tokenizer_max_length", model.info.max_tokens, 1, 65536),
    INT("", "vocab_size", NULL, model.info.vocab, 1, 1 << 24),
    INT("", "num_steps", NULL, model.info.n_steps, 1, 1000),
    INT("", "num_vlm_layers", NULL, language.depth, 1, 512),
    INT("", "self_attn_every_n_layers", NULL, self_every, -1, 512),
    INT("", "scale_factor", NULL, scale, 1, 64),
    INT("text", "width", NULL, language.width, 4, 1 << 16),
    INT("text", "mlp_dim", NULL, language.mlp, 1, 1 << 20),
    INT("text", "num_heads", NULL, language.n_heads, 1, 256),
    INT("text", "num_kv_heads", NULL, language.n_kv_heads, 1, 256),
    INT("text", "head_dim", NULL, language.head_dim, 2, 1024),
    INT("expert", "width", NULL, expert.width, 4, 1 << 16),
    INT("expert", "mlp_dim", NULL, expert.mlp, 1, 1 << 20),
    SOMA_FIELDS_VISION("vision", smolvla_config, vision),
    REAL("vision_layer_norm_eps", NULL, vision_eps),
    REAL("rms_norm_eps", NULL, rms_eps),
    REAL("rope_theta", NULL, rope_theta),
    REAL("time_min_period", "min_period", min_period),
    REAL("time_max_period", "max_period", max_period),
    REAL("noise_scale", NULL, model.info.noise),
};

// What a config of LeRobot's can ask for and is not built here.
static soma_status refuse_others(const smolvla_config *c, const json_t *json, const char *where, soma_error *err) {
    static const char *const flags[] = {"add_image_special_tokens", "adapt_to_pi_aloha", "use_delta_joint_actions_aloha"};
    for (size_t i = 0; i < SOMA_COUNT(flags); i++)
        if (json_is_true(json_object_get(json, flags[i])))
            return soma__fail(err, SOMA_UNSUPPORTED,
                              "%s: \"%s\" is true, which this soma does not compute; no released SmolVLA has it. A robot's conversions of "
                              "joints are told with --robot (such as aloha)",
                              where, flags[i]);
    const json_int_t experts = json_integer_value(json_object_get(json, "num_expert_layers"));
    if (experts > 0 && experts != c->language.depth)
        return soma__fail(err, SOMA_UNSUPPORTED,
                          "%s: \"num_expert_layers\" is %lld; an expert of the language model's %lld layers is known", where,
                          (long long)experts, (long long)c->language.depth);
    return SOMA_OK;
}

static soma_status check_sizes(const smolvla_config *c, const char *where, soma_error *err) {
    const int64_t side = c->vision.image / c->vision.patch;
    SOMA_TRY(soma__check_gemma(&c->language, where, err));
    SOMA_TRY(soma__check_vision(&c->vision, where, err));
    if (side % c->scale)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: scale_factor %lld divides the %lld patches of a picture's side", where,
                          (long long)c->scale, (long long)side);
    if (c->expert.width % 2) return soma__fail(err, SOMA_BAD_INPUT, "%s: expert.width is even (sines and cosines of the time)", where);
    if (!(c->vision_eps > 0) || !(c->rms_eps > 0) || !(c->rope_theta > 1) || !(c->min_period > 0) || !(c->max_period > c->min_period))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: epsilons are positive, rope_theta is above 1, time_max_period above time_min_period",
                          where);
    if (!(c->model.info.noise >= 0 && c->model.info.noise <= 10))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: noise_scale is %g; 0 to 10 makes sense", where, c->model.info.noise);
    return SOMA_OK;
}

static soma_status read_config(void *config, json_t *json, const char *where, soma_error *err) {
    smolvla_config *c = config;
    size_t preset;
    const char *mode = "cross_attn";
    SOMA_TRY(soma__optional(soma__json_string(&mode, json, "attention_mode", where, err), err));
    SOMA_TRY(soma__preset_read(&preset, &soma__family_smolvla, json, where, err));
    *c = *presets[preset];
    SOMA_TRY(soma__fields_read(c, fields, SOMA_COUNT(fields), json, where, err));
    SOMA_TRY(soma__cameras_read(c->cameras, &c->model.info, json, where, err));
    if (!strstr(mode, "cross")) c->self_every = 1; // as LeRobot reads the word: no layer looks at the prefix alone
    c->self_every = SOMA_MAX(c->self_every, 0);
    if (!c->model.info.state_dim) c->model.info.state_dim = c->model.info.action_dim;
    SOMA_TRY(refuse_others(c, json, where, err));
    SOMA_TRY(check_sizes(c, where, err));
    soma_model_info *info = &c->model.info;
    info->type = "smolvla";
    info->image_size = c->vision.image;
    info->state_input = true;
    info->form = SOMA_PROMPT_SMOLVLA;
    info->resize = SOMA_RESIZE_SMOLVLA;
    info->tokenizer = "tokenizer.json of " SMOLVLA_LANGUAGE_MODEL;
    c->language.eps = c->rms_eps;
    c->language.theta = c->rope_theta;
    c->language.llama = true;
    const int64_t width = c->expert.width, mlp = c->expert.mlp;
    c->expert = c->language; // depth, heads and formulas are the language model's
    c->expert.width = width;
    c->expert.mlp = mlp;
    c->vision.eps = (float)c->vision_eps;
    c->model.family = &soma__family_smolvla;
    return SOMA_OK;
}

soma_status smolvla_model_new(soma_model **model, const json_t *json, const char *where, soma_error *err) {
    return soma__config_new(model, sizeof(smolvla_config), read_config, json, where, err);
}

json_t *smolvla_config_json(const soma_model *model) {
    return soma__config_json(model, ((const smolvla_config *)model)->preset, fields, SOMA_COUNT(fields));
}

const soma_family soma__family_smolvla = {
    .name = "smolvla",
    .types = (const char *const[]){"smolvla", NULL},
    .presets = (const char *const[]){"base", "nano", NULL},
    .normalise = "lerobot_mean_std",
    .aliases = smolvla_aliases,
    .purposes = smolvla_purposes,
    .recognise = smolvla_recognise,
    .model_new = smolvla_model_new,
    .config = smolvla_config_json,
    .build = smolvla_build,
    .prepare = smolvla_prepare,
    .tuning = {.vlm = "vlm_with_expert.vlm.*",
               .frozen = "vlm_with_expert.vlm.*",
               .peft = "model\\.vlm_with_expert\\.lm_expert\\..*\\.(q|v)_proj|"
                       "model\\.(state_proj|action_in_proj|action_out_proj|action_time_mlp_in|action_time_mlp_out)"},
    .lerobot = {.tokenizer = SMOLVLA_LANGUAGE_MODEL, .new_line = "smolvla_new_line_processor", .fields = smolvla_lerobot},
};
