// SPDX-License-Identifier: Apache-2.0
// ACT as LeRobot publishes it: how files spell the weights, what each is for, and what the tensors say about the model.
#include "model/act/act.h"
#include "model/recognise.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// LeRobot's prefix; torchvision's files of a ResNet alone (soma train --vlm).
const soma_alias act_aliases[] = {{"^", "model.", false}, {"^backbone.", "", false}, {NULL, NULL, false}};

const soma_purpose act_purposes[] = {
    {"backbone.*running_*", "pictures: a statistic of ImageNet, never trained"},
    {"backbone.*", "pictures: ResNet"},
    {"encoder_img_feat_input_proj.*", "pictures' maps to tokens"},
    {"encoder_robot_state_input_proj.*", "the state to a token"},
    {"encoder_latent_input_proj.*", "the latent to a token"},
    {"encoder_1d_feature_pos_embed.*", "places of latent and state"},
    {"encoder.*", "memory: transformer encoder"},
    {"decoder_pos_embed.*", "queries: one for each action"},
    {"decoder.*", "chunk: transformer decoder"},
    {"action_head.*", "queries to actions"},
    {"vae_encoder*", "training alone: the latent of a chunk"},
    {NULL, NULL},
};

static const soma_size_row sizes[] = {
    {"", "state_dim", NULL, "encoder_robot_state_input_proj.weight", 1},
    {"", "action_dim", NULL, "action_head.weight", 0},
    {"", "dim_model", NULL, "action_head.weight", 1},
    {"", "chunk_size", NULL, "decoder_pos_embed.weight", 0},
    {"", "dim_feedforward", NULL, "encoder.layers.0.linear1.weight", 0},
    {"", "latent_dim", NULL, "encoder_latent_input_proj.weight", 1},
    {"", "n_encoder_layers", NULL, "encoder.layers.%d.linear1.weight", SOMA_SIZE_COUNT},
    {"", "n_decoder_layers", NULL, "decoder.layers.%d.linear1.weight", SOMA_SIZE_COUNT},
    {"backbone", "width_1", NULL, "backbone.conv1.weight", 0},
    {"backbone", "width_2", NULL, "backbone.layer2.0.conv1.weight", 0},
    {"backbone", "width_3", NULL, "backbone.layer3.0.conv1.weight", 0},
    {"backbone", "width_4", NULL, "backbone.layer4.0.conv1.weight", 0},
    {"backbone", "blocks_1", NULL, "backbone.layer1.%d.conv1.weight", SOMA_SIZE_COUNT},
    {"backbone", "blocks_2", NULL, "backbone.layer2.%d.conv1.weight", SOMA_SIZE_COUNT},
    {"backbone", "blocks_3", NULL, "backbone.layer3.%d.conv1.weight", SOMA_SIZE_COUNT},
    {"backbone", "blocks_4", NULL, "backbone.layer4.%d.conv1.weight", SOMA_SIZE_COUNT},
};

soma_status act_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err) {
    soma_finding f = {.config = config, .tensors = tensors};
    const bool ours = soma__finding_has(&f, "encoder_latent_input_proj.weight") && soma__finding_has(&f, "action_head.weight");
    if (!ours && !json_object_get(config, "model_type") && !json_object_get(config, "type"))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no encoder_latent_input_proj.weight: not an ACT", where);
    if (ours) soma__finding_type(&f, "act", "encoder_latent_input_proj.weight");
    if (soma__finding_has(&f, "backbone.layer1.0.conv3.weight"))
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: its backbone has bottleneck blocks; ResNet-18 and ResNet-34 are known", where);
    soma__finding_sizes(&f, sizes, SOMA_COUNT(sizes));
    if (soma__finding_has(&f, "vae_encoder_cls_embed.weight"))
        soma__finding_sizes(&f, &(soma_size_row){"", "n_vae_encoder_layers", NULL, "vae_encoder.layers.%d.linear1.weight", SOMA_SIZE_COUNT},
                            1);
    return soma__finding_end(&f, where, err);
}

// As configuration_act.py has them; its trainer's defaults for what only it knows.
json_t *act_lerobot(const soma_model *model, soma_dtype dtype, bool *own) {
    const act_config *c = (const act_config *)model;
    const char *backbone = soma__backbone_name(&c->backbone, own);
    (void)dtype;
    json_t *out =
        json_pack("{s:I, s:I, s:s, s:n, s:b, s:b, s:I, s:I, s:I, s:s, s:I, s:I, s:b, s:I, s:I, s:n, s:f, s:f, s:f}", "chunk_size",
                  (json_int_t)model->info.horizon, "n_action_steps", (json_int_t)c->n_action_steps, "vision_backbone", backbone,
                  "pretrained_backbone_weights", "replace_final_stride_with_dilation", 0, "pre_norm", c->pre_norm, "dim_model",
                  (json_int_t)c->width, "n_heads", (json_int_t)c->n_heads, "dim_feedforward", (json_int_t)c->mlp, "feedforward_activation",
                  "relu", "n_encoder_layers", (json_int_t)c->depth, "n_decoder_layers", (json_int_t)c->decoder_depth, "use_vae", c->vae,
                  "latent_dim", (json_int_t)c->latent, "n_vae_encoder_layers", (json_int_t)c->vae_depth, "temporal_ensemble_coeff",
                  "dropout", c->dropout, "kl_weight", c->kl_weight, "optimizer_lr_backbone", c->lr_backbone);
    return out;
}

// The places of what the chunk's encoder sees, which its graph works out itself.
bool act_table(const soma_model *model, int i, soma_written_table *t, float *values) {
    const act_config *c = (const act_config *)model;
    const int64_t T = c->model.info.horizon + 2, D = c->width;
    if (i || !c->vae) return false;
    *t = (soma_written_table){.n_dims = 3, .shape = {1, T, D}};
    snprintf(t->name, sizeof t->name, "model.vae_encoder_pos_enc");
    for (int64_t k = 0; values && k < T * D; k++) {
        const double angle = (double)(k / D) / pow(10000, (double)(k % D / 2 * 2) / (double)D);
        values[k] = (float)(k % D % 2 ? cos(angle) : sin(angle));
    }
    return true;
}
