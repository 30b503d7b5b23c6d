// SPDX-License-Identifier: Apache-2.0
// openpi's LoRA recipe (models/gemma.py: gemma_2b_lora, gemma_300m_lora): pairs beside the attention's einsums, scaled by alpha / rank, and
// beside the feed-forward, not scaled. A stack with pairs is frozen whole, its embedding and norms with it; pictures, projector and the
// action layers are trained.
#include "model/pi0/pi0.h"

#define LANGUAGE "paligemma_with_expert.paligemma.model.language_model."
#define EXPERT "paligemma_with_expert.gemma_expert.model."

static size_t stack(soma_lora_rule *rules, const char *part, const char *const layers[4], const char *frozen, int64_t rank,
                    const soma_gemma *c) {
    const soma_lora_rule all[] = {
        {part, layers[0], NULL, SOMA_ADAPTER_OPENPI_TO_HEADS, rank, c->n_heads, true},    // queries
        {part, layers[1], NULL, SOMA_ADAPTER_OPENPI_TO_HEADS, rank, c->n_kv_heads, true}, // keys, values
        {part, layers[2], NULL, SOMA_ADAPTER_OPENPI_FROM_HEADS, rank, c->n_heads, true},  // the attention's output
        {part, layers[3], frozen, SOMA_ADAPTER_OPENPI, rank, 0, false},                   // gate, up, down
    };
    for (size_t i = 0; i < SOMA_COUNT(all); i++) rules[i] = all[i];
    return SOMA_COUNT(all);
}

size_t pi0_lora(const soma_model *model, soma_lora_rule rules[SOMA_LORA_RULES]) {
    static const char *const language[] = {LANGUAGE "layers.*.q_proj", LANGUAGE "layers.*.[kv]_proj", LANGUAGE "layers.*.o_proj",
                                           LANGUAGE "layers.*.mlp.*_proj"},
                             *const expert[] = {EXPERT "layers.*.q_proj", EXPERT "layers.*.[kv]_proj", EXPERT "layers.*.o_proj",
                                                EXPERT "layers.*.mlp.*_proj"};
    const pi0_config *c = (const pi0_config *)model;
    size_t n = stack(rules, "language", language, LANGUAGE "*", 16, &c->language);
    return n + stack(rules + n, "expert", expert, EXPERT "*", 32, &c->expert);
}
