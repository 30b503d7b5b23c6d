// SPDX-License-Identifier: Apache-2.0
// SmolVLA: the config that its files share. README.md says what the model is.
#ifndef SOMA_MODEL_SMOLVLA_SMOLVLA_H
#define SOMA_MODEL_SMOLVLA_SMOLVLA_H

#include "model/family.h"
#include "nn/paligemma.h"

#define SMOLVLA_VLM "vlm_with_expert.vlm.model."
#define SMOLVLA_EXPERT "vlm_with_expert.lm_expert."
#define SMOLVLA_LANGUAGE_MODEL "HuggingFaceTB/SmolVLM2-500M-Video-Instruct" // of smolvla_base, with its tokenizer

typedef struct smolvla_config {
    soma_model model; // first
    char preset[16], cameras[SOMA_MODEL_CAMERAS][64];
    soma_gemma language, expert; // widths of their own; depth, heads and head size agree
    soma_vit_config vision;      // the eps and theta of the three are set from the values below
    int64_t scale;               // pictures: scale x scale patches become a token
    int64_t self_every;          // layers 0, self_every, 2 self_every .. see the actions as well; 0: none does
    double vision_eps, rms_eps, rope_theta, min_period, max_period;
} smolvla_config;

soma_status smolvla_model_new(soma_model **model, const json_t *config, const char *where, soma_error *err);
json_t *smolvla_config_json(const soma_model *model);
void smolvla_build(const soma_model *model, const soma_build *build, soma_graph *graph);
soma_status smolvla_prepare(const soma_model *model, const soma_batch *batch, soma_feed *feed, soma_error *err);
extern const soma_family soma__family_smolvla;

// Published files: spellings, purposes, and what a file's tensors say about the model (published.c).
extern const soma_alias smolvla_aliases[];
extern const soma_purpose smolvla_purposes[];
json_t *smolvla_lerobot(const soma_model *model, soma_dtype dtype, bool *own); // soma_lerobot's fields
soma_status smolvla_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err);

// Tokens of one camera; of the prefix: cameras, prompt, state.
static inline int64_t smolvla_picture_len(const smolvla_config *c) {
    const int64_t side = c->vision.image / c->vision.patch / c->scale;
    return side * side;
}
static inline int64_t smolvla_prefix_len(const smolvla_config *c, const soma_saving *saving) {
    const soma_model_info *info = &c->model.info;
    return soma__saved_cameras(info, saving) * smolvla_picture_len(c) + soma__saved_tokens(info, saving) + 1;
}

#endif
