// SPDX-License-Identifier: Apache-2.0
// pi0-FAST: the config that its files share. README.md says what the model is.
#ifndef SOMA_MODEL_PI0_FAST_PI0_FAST_H
#define SOMA_MODEL_PI0_FAST_PI0_FAST_H

#include "model/fields.h"

typedef struct pi0_fast_config {
    soma_model model; // first
    bool tied;        // the head is the table of embeddings
    char preset[16];
    soma_camera_name cameras[SOMA_MODEL_CAMERAS];
    soma_gemma language;
    soma_vit_config vision; // the eps and theta of the two are set from the values below
    double vision_eps, rms_eps, rope_theta;
} pi0_fast_config;

soma_status pi0_fast_model_new(soma_model **model, const json_t *config, const char *where, soma_error *err);
json_t *pi0_fast_config_json(const soma_model *model);
void pi0_fast_build(const soma_model *model, const soma_build *build, soma_graph *graph);
soma_status pi0_fast_prepare(const soma_model *model, const soma_batch *batch, soma_feed *feed, soma_error *err);
size_t pi0_fast_lora(const soma_model *model, soma_lora_rule rules[SOMA_LORA_RULES]);
soma_status pi0_fast_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err);
extern const soma_alias pi0_fast_aliases[];
extern const soma_purpose pi0_fast_purposes[];
extern const soma_family soma__family_pi0_fast;

// The head, which is also the table of embeddings unless a fine-tuning took them apart.
#define PI0_FAST_HEAD "paligemma_with_expert.paligemma.lm_head"

// ---- how long things are, with a saving or (NULL) without
static inline int64_t pi0_fast_pictures(const pi0_fast_config *c, const soma_saving *saving) {
    int64_t side = c->vision.image / c->vision.patch;
    return soma__saved_cameras(&c->model.info, saving) * side * side;
}
// L; given: by a build or a batch, 0: open
static inline int64_t pi0_fast_tokens(const pi0_fast_config *c, int64_t given, const soma_saving *saving, bool train) {
    const soma_model_info *info = &c->model.info;
    return given ? given : train ? info->max_tokens + info->answer.max : soma__saved_tokens(info, saving);
}

#endif
