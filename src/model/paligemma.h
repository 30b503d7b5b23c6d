// SPDX-License-Identifier: Apache-2.0
// What the families that stand on PaliGemma share as published policies: what its tensors are for (rows for `purposes`, which soma inspect
// prints), and LeRobot's fields.
#ifndef SOMA_MODEL_PALIGEMMA_H
#define SOMA_MODEL_PALIGEMMA_H

#include "model/family.h"

#define SOMA_PALIGEMMA_TOKENIZER "google/paligemma-3b-pt-224"
#define SOMA_FAST_FOLDER "fast" // the action tokenizer of an exported pi0-FAST lies beside it
#define SOMA_PALIGEMMA_VLM "paligemma_with_expert.paligemma.*"
// LeRobot's default, over names that begin with "model." (modeling_pi0.py); it misses pi0.5's time_mlp_*, as the original does.
#define SOMA_PALIGEMMA_PEFT                            \
    ".*\\.gemma_expert\\..*\\.self_attn\\.(q|v)_proj|" \
    "model\\.(state_proj|action_in_proj|action_out_proj|action_time_mlp_in|action_time_mlp_out)"

json_t *soma__paligemma_lerobot(const soma_model *model, soma_dtype dtype, bool *own); // soma_lerobot's fields

#define SOMA_PURPOSES_PALIGEMMA                                                                                                          \
    {"*vision_tower*.patch_embedding.*", "vision: 14 x 14 pixels to a token"},                                                           \
        {"*vision_tower*.position_embedding.*", "vision: where a patch lies"}, {"*vision_tower*.post_layernorm.*", "vision: last norm"}, \
        {"*vision_tower*.layer_norm1.*", "vision: norm before attention"},                                                               \
        {"*vision_tower*.layer_norm2.*", "vision: norm before the MLP"}, {"*vision_tower*.q_proj.*", "vision: queries"},                 \
        {"*vision_tower*.k_proj.*", "vision: keys"}, {"*vision_tower*.v_proj.*", "vision: values"},                                      \
        {"*vision_tower*.out_proj.*", "vision: attention's result"}, {"*vision_tower*.fc1.*", "vision: MLP, up"},                        \
        {"*vision_tower*.fc2.*", "vision: MLP, down"}, {"*multi_modal_projector.*", "pictures' tokens into the language model"}, {       \
        "*language_model.embed_tokens.*", "prompt ids to tokens"                                                                         \
    }

// The parts of one Gemma stack under `glob`; `who` begins the words.
#define SOMA_PURPOSES_GEMMA(glob, who)                                                                                                  \
    {glob ".q_proj.*", who ": queries"}, {glob ".k_proj.*", who ": keys"}, {glob ".v_proj.*", who ": values"},                          \
        {glob ".o_proj.*", who ": attention's result"}, {glob ".gate_proj.*", who ": MLP, gate"}, {glob ".up_proj.*", who ": MLP, up"}, \
        {glob ".down_proj.*", who ": MLP, down"},                                                                                       \
        {glob ".input_layernorm.dense.*", who ": time to scale, shift and gate before attention"},                                      \
        {glob ".post_attention_layernorm.dense.*", who ": time to scale, shift and gate before the MLP"},                               \
        {glob ".norm.dense.*", who ": time to scale and shift of the last norm"},                                                       \
        {glob ".input_layernorm.weight", who ": norm before attention"},                                                                \
        {glob ".post_attention_layernorm.weight", who ": norm before the MLP"}, {                                                       \
        glob ".norm.weight", who ": last norm"                                                                                          \
    }

#endif
