// SPDX-License-Identifier: Apache-2.0
// pi0-FAST as others publish it: how their files spell the weights, what each is for, what the tensors say about the model, and openpi's
// LoRA recipe.
#include "model/paligemma.h"
#include "model/pi0_fast/pi0_fast.h"
#include "model/recognise.h"

#define LANGUAGE SOMA_PALIGEMMA_LANGUAGE

// LeRobot's prefix; transformers without the vision_model level; the tied head under the table's name.
const soma_alias pi0_fast_aliases[] = {
    {"^", "model.", false},
    {"vision_tower.vision_model.", "vision_tower.", false},
    {"paligemma.lm_head.", "paligemma.model.language_model.embed_tokens.", false},
    {NULL, NULL, false},
};

const soma_purpose pi0_fast_purposes[] = {
    SOMA_PURPOSES_PALIGEMMA,
    {"*paligemma.lm_head.*", "tokens' meanings: ids in, and which id comes next"},
    SOMA_PURPOSES_GEMMA("*language_model*", "text"),
    {NULL, NULL},
};

static const soma_size_row sizes[] = {
    {"", "vocab_size", NULL, PI0_FAST_HEAD ".weight", 0},
    {"paligemma", "width", NULL, PI0_FAST_HEAD ".weight", 1},
};

// A table beside the head means that a fine-tuning took them apart (LeRobot trains them as two).
soma_status pi0_fast_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err) {
    soma_finding f = {.config = config, .tensors = tensors};
    bool typed = json_object_get(config, "model_type") || json_object_get(config, "type");
    bool ours = soma__finding_has(&f, PI0_FAST_HEAD ".weight") && soma__finding_has(&f, LANGUAGE "norm.weight");
    if (!typed && (!ours || soma__finding_has(&f, "action_in_proj.weight")))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: not a language model alone: not a pi0_fast", where);
    if (!typed) soma__finding_type(&f, "pi0_fast", PI0_FAST_HEAD ".weight");
    soma__finding_variant(&f, "paligemma_variant", "paligemma");
    soma__finding_sizes(&f, sizes, SOMA_COUNT(sizes));
    soma__finding_paligemma(&f);
    if (soma__finding_has(&f, LANGUAGE "embed_tokens.weight") && !json_object_get(config, "tie_word_embeddings"))
        json_object_set_new(config, "tie_word_embeddings", json_false());
    return soma__finding_end(&f, where, err);
}

// openpi's recipe (models/gemma.py: gemma_2b_lora): pairs beside the attention's einsums, scaled, and the feed-forward, not scaled; the
// language model is frozen whole, its table too, pictures and projector are trained.
size_t pi0_fast_lora(const soma_model *model, soma_lora_rule rules[SOMA_LORA_RULES]) {
    const soma_gemma *c = &((const pi0_fast_config *)model)->language;
    const soma_lora_rule all[] = {
        {"language", LANGUAGE "layers.*.q_proj", NULL, SOMA_ADAPTER_OPENPI_TO_HEADS, 16, c->n_heads, true},
        {"language", LANGUAGE "layers.*.[kv]_proj", NULL, SOMA_ADAPTER_OPENPI_TO_HEADS, 16, c->n_kv_heads, true},
        {"language", LANGUAGE "layers.*.o_proj", NULL, SOMA_ADAPTER_OPENPI_FROM_HEADS, 16, c->n_heads, true},
        {"language", LANGUAGE "layers.*.mlp.*_proj", LANGUAGE "*", SOMA_ADAPTER_OPENPI, 16, 0, false},
        {"language", NULL, PI0_FAST_HEAD ".*", SOMA_ADAPTER_OPENPI, 0, 0, false},
    };
    for (size_t i = 0; i < SOMA_COUNT(all); i++) rules[i] = all[i];
    return SOMA_COUNT(all);
}
