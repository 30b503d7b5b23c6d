// SPDX-License-Identifier: Apache-2.0
// ACT's sizes: presets, and the table of fields that reads and writes config.json with LeRobot's keys.
#include "model/act/act.h"
#include "model/fields.h"

#include <string.h>

// As LeRobot trains it on ALOHA (configuration_act.py): ResNet-18, four layers of encoder, one of decoder.
static const act_config base = {
    .model.info = {.n_cameras = 1, .image_size = 480, .image_width = 640, .horizon = 100, .action_dim = 14, .state_dim = 14, .n_steps = 1},
    .preset = "base",
    .cameras = {"top"},
    .backbone = {.widths = {64, 128, 256, 512}, .blocks = {2, 2, 2, 2}, .eps = 1e-5f},
    .pictures = {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}},
    .width = 512,
    .n_heads = 8,
    .mlp = 3200,
    .depth = 4,
    .decoder_depth = 1,
    .vae_depth = 4,
    .latent = 32,
    .n_action_steps = 100,
    .vae = true,
    .kl_weight = 10,
    .dropout = 0.1,
    .lr_backbone = 1e-5,
};

// To be learned from nothing on two processor cores in minutes.
static const act_config nano = {
    .model.info = {.n_cameras = 2, .image_size = 64, .horizon = 30, .action_dim = 7, .state_dim = 7, .n_steps = 1},
    .preset = "nano",
    .cameras = {"scene", "wrist"},
    .backbone = {.widths = {16, 32, 64, 128}, .blocks = {1, 1, 1, 1}, .eps = 1e-5f},
    .pictures = {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}},
    .width = 128,
    .n_heads = 4,
    .mlp = 256,
    .depth = 2,
    .decoder_depth = 1,
    .vae_depth = 2,
    .latent = 16,
    .n_action_steps = 30,
    .vae = true,
    .kl_weight = 10,
    .dropout = 0.1,
    .lr_backbone = 1e-5,
};

static const act_config *const presets[] = {&base, &nano};

#define INT(key, other, member, min, max) \
    { "", key, other, SOMA_FIELD_INT, offsetof(act_config, member), min, max }
#define OF(kind, key, member) \
    { "", key, NULL, kind, offsetof(act_config, member), 0, 0 }
static const soma_field fields[] = {
    INT("chunk_size", "action_horizon", model.info.horizon, 1, 4096),
    INT("action_dim", NULL, model.info.action_dim, 1, 4096),
    INT("state_dim", NULL, model.info.state_dim, 1, 4096),
    INT("image_height", NULL, model.info.image_size, 32, 4096),
    INT("image_width", NULL, model.info.image_width, 0, 4096),
    INT("dim_model", NULL, width, 8, 1 << 16),
    INT("n_heads", NULL, n_heads, 1, 256),
    INT("dim_feedforward", NULL, mlp, 1, 1 << 20),
    INT("n_encoder_layers", NULL, depth, 1, 64),
    INT("n_decoder_layers", NULL, decoder_depth, 1, 64),
    INT("n_vae_encoder_layers", NULL, vae_depth, 1, 64),
    INT("latent_dim", NULL, latent, 1, 4096),
    INT("n_action_steps", NULL, n_action_steps, 1, 4096),
    OF(SOMA_FIELD_BOOL, "use_vae", vae),
    OF(SOMA_FIELD_BOOL, "pre_norm", pre_norm),
    OF(SOMA_FIELD_REAL, "kl_weight", kl_weight),
    OF(SOMA_FIELD_REAL, "dropout", dropout),
    OF(SOMA_FIELD_REAL, "optimizer_lr_backbone", lr_backbone),
    SOMA_FIELDS_RESNET(act_config, backbone),
};

// Words of LeRobot's config that decide what is computed and have one value here.
static soma_status check_words(const json_t *json, const char *where, soma_error *err) {
    const json_t *activation = json_object_get(json, "feedforward_activation"), *steps = json_object_get(json, "n_obs_steps");
    if (json_is_string(activation) && strcmp(json_string_value(activation), "relu"))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: feedforward_activation \"%.20s\"; relu is known", where,
                          json_string_value(activation));
    if (json_is_true(json_object_get(json, "replace_final_stride_with_dilation")))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: replace_final_stride_with_dilation is not known", where);
    if (json_is_integer(steps) && json_integer_value(steps) != 1)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: n_obs_steps is %lld; ACT looks at one observation", where,
                          (long long)json_integer_value(steps));
    return SOMA_OK;
}

static soma_status check_sizes(const act_config *c, const char *where, soma_error *err) {
    if (c->width % c->n_heads || c->width % 4 || c->width < 8)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: dim_model is a multiple of n_heads and of 4 (sines and cosines of rows and columns)",
                          where);
    if (!(c->dropout >= 0 && c->dropout < 1))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: dropout is %g, of 0 to below 1", where, c->dropout);
    if (c->n_action_steps > c->model.info.horizon)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: n_action_steps is %lld, of a chunk of %lld", where, (long long)c->n_action_steps,
                          (long long)c->model.info.horizon);
    if (c->model.info.n_cameras > SOMA_MAX_SRC - 1)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: %d cameras; at most %d are possible", where, c->model.info.n_cameras,
                          SOMA_MAX_SRC - 1);
    return SOMA_OK;
}

static soma_status read_config(void *config, json_t *json, const char *where, soma_error *err) {
    act_config *c = config;
    soma_model_info *info = &c->model.info;
    size_t preset;
    SOMA_TRY(soma__preset_read(&preset, &soma__family_act, json, where, err));
    *c = *presets[preset];
    if (json_object_get(json, "image_height")) info->image_width = 0;
    SOMA_TRY(soma__features_sizes(json, where, err));
    SOMA_TRY(soma__backbone_read(&c->backbone, json, where, err));
    SOMA_TRY(soma__fields_read(c, fields, SOMA_COUNT(fields), json, where, err));
    SOMA_TRY(soma__cameras_read(c->cameras, info, json, where, err));
    SOMA_TRY(soma__pictures_read(&c->pictures, json, where, err));
    if (!json_object_get(json, "n_action_steps")) c->n_action_steps = SOMA_MIN(c->n_action_steps, info->horizon);
    SOMA_TRY(check_words(json, where, err));
    info->type = "act";
    info->no_flow = true;
    info->state_input = true;
    c->model.family = &soma__family_act;
    return check_sizes(c, where, err);
}

soma_status act_model_new(soma_model **model, const json_t *json, const char *where, soma_error *err) {
    return soma__config_new(model, sizeof(act_config), read_config, json, where, err);
}

json_t *act_config_json(const soma_model *model) {
    const act_config *c = (const act_config *)model;
    json_t *out = soma__config_json(model, c->preset, fields, SOMA_COUNT(fields));
    if (out && soma__pictures_write(&c->pictures, out)) return out;
    json_decref(out);
    return NULL;
}

const soma_family soma__family_act = {
    .name = "act",
    .types = (const char *const[]){"act", NULL},
    .presets = (const char *const[]){"base", "nano", NULL},
    .normalise = "lerobot_mean_std",
    .fits = true,
    .aliases = act_aliases,
    .purposes = act_purposes,
    .recognise = act_recognise,
    .model_new = act_model_new,
    .config = act_config_json,
    .build = act_build,
    .prepare = act_prepare,
    .tuning = {.vlm = "backbone.*"}, // of ImageNet
    .lerobot = {.fields = act_lerobot, .table = act_table},
};
