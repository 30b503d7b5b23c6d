// SPDX-License-Identifier: Apache-2.0
// ACT: the config that its files share. README.md says what the model is.
#ifndef SOMA_MODEL_ACT_ACT_H
#define SOMA_MODEL_ACT_ACT_H

#include "model/family.h"
#include "model/pictures.h"
#include "nn/conv.h"

typedef struct act_config {
    soma_model model; // first
    char preset[16];
    soma_camera_name cameras[SOMA_MODEL_CAMERAS];
    soma_resnet_config backbone;
    soma_picture_norm pictures;
    int64_t width, n_heads, mlp;             // D, H, F of all three transformers
    int64_t depth, decoder_depth, vae_depth; // layers
    int64_t latent, n_action_steps;          // what of a chunk LeRobot executes before it asks again
    bool vae, pre_norm;
    double kl_weight, dropout;
    double lr_backbone; // of LeRobot's trainer alone
} act_config;

soma_status act_model_new(soma_model **model, const json_t *config, const char *where, soma_error *err);
json_t *act_config_json(const soma_model *model);
void act_build(const soma_model *model, const soma_build *build, soma_graph *graph);
soma_status act_prepare(const soma_model *model, const soma_batch *batch, soma_feed *feed, soma_error *err);
soma_status act_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err);
json_t *act_lerobot(const soma_model *model, soma_dtype dtype, bool *own); // fields of LeRobot's config.json
bool act_table(const soma_model *model, int i, soma_written_table *table, float *values);
extern const soma_family soma__family_act;
extern const soma_alias act_aliases[];
extern const soma_purpose act_purposes[];

// ---- PyTorch's transformer layers as ACT has them (transformer.c): positions are added to queries and keys in every layer. pos: [T, D] or
// [B, T, D]; D heads of D / H.
typedef struct act_layer {
    int64_t n_heads, mlp;
    bool pre_norm;
    soma_drop drop; // of probabilities, of what attention gives, within and behind the feed-forward
} act_layer;
// x [B, T, D]; keys that nobody sees have SOMA_BLOCK_NEVER in mask.k_block
soma_tensor *act_encoder_layer(const soma_scope *s, soma_tensor *x, soma_tensor *pos, soma_mask mask, const act_layer *l);
// x [B, S, D] with its positions, memory [B, T, D] with its own
soma_tensor *act_decoder_layer(const soma_scope *s, soma_tensor *x, soma_tensor *pos, soma_tensor *memory, soma_tensor *memory_pos,
                               const act_layer *l);

#endif
