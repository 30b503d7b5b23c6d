// SPDX-License-Identifier: Apache-2.0
// Diffusion Policy's sizes: presets, and the table of fields that reads and writes config.json with LeRobot's keys.
#include "model/diffusion/diffusion.h"
#include "model/fields.h"

#include <string.h>

#define DIFFUSION                                                                                                       \
    .train_steps = 100, .clip = true, .clip_range = 1, .beta_start = 1e-4, .beta_end = 0.02, .betas = DIFFUSION_COSINE, \
    .pictures = {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}}

// As LeRobot trains it on PushT (configuration_diffusion.py): two observations, 16 actions of which 8 are executed.
static const diffusion_config base = {
    .model.info =
        {.n_cameras = 1, .image_size = 96, .history = 1, .horizon = 16, .action_dim = 2, .state_dim = 2, .n_steps = 100, .noise = 1},
    .preset = "base",
    .cameras = {"image"},
    .backbone = {.widths = {64, 128, 256, 512}, .blocks = {2, 2, 2, 2}, .group = 16, .numbered = true, .eps = 1e-5f},
    .crop = {84, 84, true},
    .unet = {.widths = {512, 1024, 2048}, .levels = 3, .kernel = 5, .groups = 8, .step_width = 128, .scale = true},
    .key_points = 32,
    .n_action_steps = 8,
    DIFFUSION,
};

// To be learned from nothing on two processor cores in minutes; sampled in ten steps.
static const diffusion_config nano = {
    .model
        .info = {.n_cameras = 2, .image_size = 64, .history = 1, .horizon = 16, .action_dim = 7, .state_dim = 7, .n_steps = 10, .noise = 1},
    .preset = "nano",
    .cameras = {"scene", "wrist"},
    .backbone = {.widths = {16, 32, 64, 128}, .blocks = {1, 1, 1, 1}, .group = 16, .numbered = true, .eps = 1e-5f},
    .unet = {.widths = {64, 128}, .levels = 2, .kernel = 5, .groups = 8, .step_width = 64, .scale = true},
    .key_points = 32,
    .n_action_steps = 8,
    .sampler = DIFFUSION_DDIM,
    DIFFUSION,
};

static const diffusion_config *const presets[] = {&base, &nano};

#define INT(key, other, member, min, max) \
    { "", key, other, SOMA_FIELD_INT, offsetof(diffusion_config, member), min, max }
#define OF(kind, key, member) \
    { "", key, NULL, kind, offsetof(diffusion_config, member), 0, 0 }
static const soma_field fields[] = {
    INT("horizon", "action_horizon", model.info.horizon, 1, 4096),
    INT("action_dim", NULL, model.info.action_dim, 1, 4096),
    INT("state_dim", NULL, model.info.state_dim, 1, 4096),
    INT("image_height", NULL, model.info.image_size, 32, 4096),
    INT("image_width", NULL, model.info.image_width, 0, 4096),
    INT("n_action_steps", NULL, n_action_steps, 1, 4096),
    INT("kernel_size", NULL, unet.kernel, 1, 63),
    INT("n_groups", NULL, unet.groups, 1, 4096),
    INT("diffusion_step_embed_dim", NULL, unet.step_width, 4, 1 << 14),
    INT("spatial_softmax_num_keypoints", NULL, key_points, 1, 4096),
    INT("num_train_timesteps", NULL, train_steps, 1, 1000),
    INT("num_inference_steps", NULL, model.info.n_steps, 1, 1000),
    OF(SOMA_FIELD_BOOL, "use_film_scale_modulation", unet.scale),
    OF(SOMA_FIELD_BOOL, "use_separate_rgb_encoder_per_camera", own_encoders),
    OF(SOMA_FIELD_BOOL, "crop_is_random", crop.drawn),
    OF(SOMA_FIELD_BOOL, "clip_sample", clip),
    OF(SOMA_FIELD_BOOL, "do_mask_loss_for_padding", mask_padding),
    OF(SOMA_FIELD_REAL, "clip_sample_range", clip_range),
    OF(SOMA_FIELD_REAL, "beta_start", beta_start),
    OF(SOMA_FIELD_REAL, "beta_end", beta_end),
    SOMA_FIELDS_RESNET(diffusion_config, backbone),
};

// ---- what a table of numbers cannot say

static const struct {
    const char *key, *words[3]; // in the order of the enums
} choices[] = {{"beta_schedule", {"squaredcos_cap_v2", "linear", "scaled_linear"}},
               {"noise_scheduler_type", {"DDPM", "DDIM", NULL}},
               {"prediction_type", {"epsilon", "sample", NULL}}};

static soma_status read_choice(int *out, size_t which, const json_t *json, const char *where, soma_error *err) {
    const char *said = json_string_value(json_object_get(json, choices[which].key)), *third = choices[which].words[2];
    if (!said) return SOMA_OK;
    for (int i = 0; i < 3 && choices[which].words[i]; i++)
        if (!strcmp(said, choices[which].words[i])) {
            *out = i;
            return SOMA_OK;
        }
    return soma__fail(err, SOMA_UNSUPPORTED, "%s: %s \"%.32s\"; known are %s, %s%s%s", where, choices[which].key, said,
                      choices[which].words[0], choices[which].words[1], third ? " and " : "", third ? third : "");
}

static soma_status read_choices(diffusion_config *c, const json_t *json, const char *where, soma_error *err) {
    int betas = c->betas, sampler = c->sampler, actions = c->predicts_actions;
    SOMA_TRY(read_choice(&betas, 0, json, where, err));
    SOMA_TRY(read_choice(&sampler, 1, json, where, err));
    SOMA_TRY(read_choice(&actions, 2, json, where, err));
    c->betas = (diffusion_betas)betas;
    c->sampler = (diffusion_sampler)sampler;
    c->predicts_actions = actions;
    return SOMA_OK;
}

// A list of *n whole numbers; null and absent: kept.
static soma_status read_list(int64_t *out, int64_t *n, int64_t room, const json_t *json, const char *key, const char *where,
                             soma_error *err) {
    const json_t *list = json_object_get(json, key);
    if (!list || json_is_null(list)) return SOMA_OK;
    bool ok = json_is_array(list) && json_array_size(list) >= 1 && json_array_size(list) <= (size_t)room;
    for (size_t i = 0; ok && i < json_array_size(list); i++) {
        out[i] = json_integer_value(json_array_get(list, i));
        ok = out[i] >= 1 && out[i] <= 1 << 14;
    }
    if (!ok) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is a list of 1 to %d whole numbers", where, key, (int)room);
    *n = (int64_t)json_array_size(list);
    return SOMA_OK;
}

static soma_status read_crop(diffusion_config *c, const json_t *json, const char *where, soma_error *err) {
    const json_t *resize = json_object_get(json, "resize_shape"), *ratio = json_object_get(json, "crop_ratio");
    int64_t sides[2] = {c->crop.height, c->crop.width}, n = 2;
    if (json_object_get(json, "crop_shape")) sides[0] = sides[1] = 0;
    SOMA_TRY(read_list(sides, &n, 2, json, "crop_shape", where, err));
    if (n != 2) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"crop_shape\" is height and width", where);
    if (json_is_array(resize))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: resize_shape is not known; give the robot pictures of that size and leave it out",
                          where);
    if (!sides[0] && json_is_number(ratio) && json_number_value(ratio) != 1)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: crop_ratio is %g without a crop_shape", where, json_number_value(ratio));
    c->crop.height = sides[0];
    c->crop.width = sides[1];
    return SOMA_OK;
}

static soma_status check_pictures(const diffusion_config *c, const char *where, soma_error *err) {
    const soma_model_info *info = &c->model.info;
    for (int i = 0; i < SOMA_RESNET_STAGES; i++)
        if (c->backbone.widths[i] % 16)
            return soma__fail(err, SOMA_BAD_INPUT, "%s: the backbone's widths are multiples of 16 (channels of a norm's group)", where);
    if (c->crop.height > info->image_size || c->crop.width > soma__image_width(info))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: crop_shape %lld x %lld of pictures of %lld x %lld", where, (long long)c->crop.height,
                          (long long)c->crop.width, (long long)info->image_size, (long long)soma__image_width(info));
    if (diffusion_height(c) >= 32 && diffusion_width(c) >= 32) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: pictures, or what is cut out of them, have sides of at least 32", where);
}

static soma_status check_sizes(const diffusion_config *c, const char *where, soma_error *err) {
    const soma_model_info *info = &c->model.info;
    for (int i = 0; i < c->unet.levels; i++)
        if (c->unet.widths[i] % c->unet.groups || c->unet.widths[i] % 2 || (!i && c->unet.widths[0] % 8))
            return soma__fail(err, SOMA_BAD_INPUT,
                              "%s: down_dims are even multiples of n_groups, the first also of 8 (the last norm's groups)", where);
    if (info->horizon % (1 << (c->unet.levels - 1)))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: horizon %lld: %d levels of a UNet need a multiple of %d", where,
                          (long long)info->horizon, (int)c->unet.levels, 1 << (c->unet.levels - 1));
    if (info->history + c->n_action_steps > info->horizon)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: n_obs_steps - 1 + n_action_steps is %lld, of a horizon of %lld", where,
                          (long long)(info->history + c->n_action_steps), (long long)info->horizon);
    if (c->unet.kernel % 2 == 0 || c->unet.step_width % 2)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: kernel_size is odd, diffusion_step_embed_dim even", where);
    if (info->n_steps > c->train_steps || !(c->clip_range > 0))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: num_inference_steps is at most num_train_timesteps, clip_sample_range above 0", where);
    return check_pictures(c, where, err);
}

// Keys that decide what the table reads.
static soma_status read_words(diffusion_config *c, json_t *json, const char *where, soma_error *err) {
    SOMA_TRY(soma__backbone_read(&c->backbone, json, where, err));
    if (json_is_false(json_object_get(json, "use_group_norm")))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: use_group_norm false: batch norms that learn are not known", where);
    if (json_is_null(json_object_get(json, "num_inference_steps"))) { // LeRobot's word for all
        json_object_del(json, "num_inference_steps");
        c->model.info.n_steps = 0;
    }
    return SOMA_OK;
}

static soma_status read_config(void *config, json_t *json, const char *where, soma_error *err) {
    diffusion_config *c = config;
    soma_model_info *info = &c->model.info;
    size_t preset;
    SOMA_TRY(soma__preset_read(&preset, &soma__family_diffusion, json, where, err));
    *c = *presets[preset];
    if (json_object_get(json, "image_height")) info->image_width = 0;
    SOMA_TRY(soma__features_sizes(json, where, err));
    SOMA_TRY(read_words(c, json, where, err));
    SOMA_TRY(soma__fields_read(c, fields, SOMA_COUNT(fields), json, where, err));
    if (!info->n_steps) info->n_steps = c->train_steps;
    int64_t observed = info->history + 1;
    SOMA_TRY(soma__optional(soma__json_int(&observed, json, "n_obs_steps", 1, 16, where, err), err));
    info->history = observed - 1;
    SOMA_TRY(read_list(c->unet.widths, &c->unet.levels, SOMA_UNET_LEVELS, json, "down_dims", where, err));
    SOMA_TRY(read_choices(c, json, where, err));
    SOMA_TRY(read_crop(c, json, where, err));
    SOMA_TRY(soma__cameras_read(c->cameras, info, json, where, err));
    SOMA_TRY(soma__pictures_read(&c->pictures, json, where, err));
    const int64_t ahead = info->horizon - info->history;
    if (!json_object_get(json, "n_action_steps")) c->n_action_steps = SOMA_MAX(1, SOMA_MIN(c->n_action_steps, ahead));
    info->type = "diffusion";
    info->no_flow = true;
    info->state_input = true;
    info->step_noise = c->sampler == DIFFUSION_DDPM;
    c->model.family = &soma__family_diffusion;
    return check_sizes(c, where, err);
}

soma_status diffusion_model_new(soma_model **model, const json_t *json, const char *where, soma_error *err) {
    return soma__config_new(model, sizeof(diffusion_config), read_config, json, where, err);
}

static bool write_rest(const diffusion_config *c, json_t *out) {
    json_t *widths = json_array(), *crop = json_null();
    bool ok = true;
    for (int i = 0; ok && i < c->unet.levels; i++) ok = !json_array_append_new(widths, json_integer(c->unet.widths[i]));
    ok = !json_object_set_new(out, "down_dims", widths) && ok;
    if (c->crop.height) crop = json_pack("[I,I]", (json_int_t)c->crop.height, (json_int_t)c->crop.width);
    ok = !json_object_set_new(out, "crop_shape", crop) && ok;
    const int chosen[] = {(int)c->betas, (int)c->sampler, c->predicts_actions};
    for (size_t i = 0; i < SOMA_COUNT(choices); i++)
        ok = ok && !json_object_set_new(out, choices[i].key, json_string(choices[i].words[chosen[i]]));
    return ok && !json_object_set_new(out, "n_obs_steps", json_integer(c->model.info.history + 1));
}

json_t *diffusion_config_json(const soma_model *model) {
    const diffusion_config *c = (const diffusion_config *)model;
    json_t *out = soma__config_json(model, c->preset, fields, SOMA_COUNT(fields));
    if (out && soma__pictures_write(&c->pictures, out) && write_rest(c, out)) return out;
    json_decref(out);
    return NULL;
}

const soma_family soma__family_diffusion = {
    .name = "diffusion",
    .types = (const char *const[]){"diffusion", NULL},
    .presets = (const char *const[]){"base", "nano", NULL},
    .normalise = "lerobot_min_max", // what is sampled is clipped to -1..1
    .fits = true,
    .purposes = diffusion_purposes,
    .recognise = diffusion_recognise,
    .model_new = diffusion_model_new,
    .config = diffusion_config_json,
    .build = diffusion_build,
    .prepare = diffusion_prepare,
    .lerobot = {.bare = true, .fields = diffusion_lerobot, .table = diffusion_table},
};
