// SPDX-License-Identifier: Apache-2.0
// Diffusion Policy as LeRobot publishes it: what each tensor is for, and what the tensors say about the model.
#include "model/diffusion/diffusion.h"
#include "model/recognise.h"

#include <stdio.h>
#include <string.h>

#define UNET "diffusion.unet."

const soma_purpose diffusion_purposes[] = {
    {"diffusion.rgb_encoder*.backbone.*", "pictures: ResNet"},
    {"diffusion.rgb_encoder*.pool.nets.*", "pictures' maps to key points"},
    {"diffusion.rgb_encoder*.out.*", "key points' places to the condition"},
    {UNET "diffusion_step_encoder.*", "which step of the diffusion"},
    {"*.cond_encoder.*", "actions: the condition's scale and shift"},
    {UNET "down_modules.*", "actions: on the way down"},
    {UNET "mid_modules.*", "actions: in the middle"},
    {UNET "up_modules.*", "actions: on the way up"},
    {UNET "final_conv.*", "actions: the noise that is in them"},
    {NULL, NULL},
};

#define BACKBONE(e)                                                                                                                       \
    {"backbone", "width_1", NULL, e "backbone.0.weight", 0}, {"backbone", "width_2", NULL, e "backbone.5.0.conv1.weight", 0},             \
        {"backbone", "width_3", NULL, e "backbone.6.0.conv1.weight", 0}, {"backbone", "width_4", NULL, e "backbone.7.0.conv1.weight", 0}, \
        {"backbone", "blocks_1", NULL, e "backbone.4.%d.conv1.weight", SOMA_SIZE_COUNT},                                                  \
        {"backbone", "blocks_2", NULL, e "backbone.5.%d.conv1.weight", SOMA_SIZE_COUNT},                                                  \
        {"backbone", "blocks_3", NULL, e "backbone.6.%d.conv1.weight", SOMA_SIZE_COUNT},                                                  \
        {"backbone", "blocks_4", NULL, e "backbone.7.%d.conv1.weight", SOMA_SIZE_COUNT}, {                                                \
        "", "spatial_softmax_num_keypoints", NULL, e "pool.nets.weight", 0                                                                \
    }

static const soma_size_row together[] = {BACKBONE("diffusion.rgb_encoder.")}, each[] = {BACKBONE("diffusion.rgb_encoder.0.")};
static const soma_size_row sizes[] = {
    {"", "action_dim", NULL, UNET "final_conv.1.weight", 0},
    {"", "kernel_size", NULL, UNET "down_modules.0.0.conv1.block.0.weight", 2},
    {"", "diffusion_step_embed_dim", NULL, UNET "diffusion_step_encoder.3.weight", 0},
};

static void find_widths(soma_finding *f) { // the list "down_dims"
    json_t *list = json_array();
    char name[96];
    int64_t shape[SOMA_MAX_DIMS];
    for (int i = 0; i < SOMA_UNET_LEVELS; i++) {
        snprintf(name, sizeof name, UNET "down_modules.%d.0.conv1.block.0.weight", i);
        if (f->tensors->shape(f->tensors->ctx, name, shape) < 0) break;
        json_array_append_new(list, json_integer(shape[0]));
    }
    const json_t *said = json_object_get(f->config, "down_dims");
    if (!said)
        json_object_set(f->config, "down_dims", list);
    else if (!json_equal(said, list))
        soma__str_printf(&f->wrong, "%sdown_dims is not what " UNET "down_modules.*.0.conv1.block.0.weight say", f->wrong.len ? "; " : "");
    json_decref(list);
}

soma_status diffusion_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err) {
    soma_finding f = {.config = config, .tensors = tensors};
    const bool ours = soma__finding_has(&f, UNET "final_conv.1.weight"),
               apart = soma__finding_has(&f, "diffusion.rgb_encoder.0.out.weight");
    if (!ours && !json_object_get(config, "model_type") && !json_object_get(config, "type"))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no " UNET "final_conv.1.weight: not a Diffusion Policy", where);
    if (!ours) return SOMA_OK;
    soma__finding_type(&f, "diffusion", UNET "final_conv.1.weight");
    soma__finding_sizes(&f, sizes, SOMA_COUNT(sizes));
    soma__finding_sizes(&f, apart ? each : together, SOMA_COUNT(together));
    if (!json_object_get(config, "use_separate_rgb_encoder_per_camera"))
        json_object_set_new(config, "use_separate_rgb_encoder_per_camera", json_boolean(apart));
    find_widths(&f);
    return soma__finding_end(&f, where, err);
}

// As configuration_diffusion.py has them.
json_t *diffusion_lerobot(const soma_model *model, soma_dtype dtype, bool *own) {
    static const char *const drop[] = {"model_type",   "preset",      "camera_order", "action_dim", "state_dim",
                                       "image_height", "image_width", "image_mean",   "image_std",  "backbone"};
    const diffusion_config *c = (const diffusion_config *)model;
    const char *backbone = soma__backbone_name(&c->backbone, own);
    json_t *out = model->family->config(model); // LeRobot's keys, but for a few of our own
    (void)dtype;
    for (size_t i = 0; out && i < SOMA_COUNT(drop); i++) json_object_del(out, drop[i]);
    if (!out || json_object_set_new(out, "vision_backbone", json_string(backbone)) ||
        json_object_set_new(out, "pretrained_backbone_weights", json_null()) || json_object_set_new(out, "use_group_norm", json_true())) {
        json_decref(out);
        return NULL;
    }
    return out;
}

// The grids of the key points, one for each encoder.
bool diffusion_table(const soma_model *model, int i, soma_written_table *t, float *values) {
    const diffusion_config *c = (const diffusion_config *)model;
    const int64_t n = diffusion_places(c);
    if (i >= (c->own_encoders ? model->info.n_cameras : 1)) return false;
    *t = (soma_written_table){.n_dims = 2, .shape = {n, 2}};
    if (c->own_encoders)
        snprintf(t->name, sizeof t->name, "diffusion.rgb_encoder.%d.pool.pos_grid", i);
    else
        snprintf(t->name, sizeof t->name, "diffusion.rgb_encoder.pool.pos_grid");
    for (int64_t k = 0; values && k < n; k++) diffusion_place(c, k, &values[2 * k], &values[2 * k + 1]);
    return true;
}
