// SPDX-License-Identifier: Apache-2.0
// What PaliGemma's tensors are for: rows for the `purposes` of families that stand on it (soma inspect prints them).
#ifndef SOMA_MODEL_PALIGEMMA_H
#define SOMA_MODEL_PALIGEMMA_H

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
