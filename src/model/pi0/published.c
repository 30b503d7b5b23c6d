// SPDX-License-Identifier: Apache-2.0
// pi0 and pi0.5 as others publish them: how their files spell the weights, what each is for, and what the tensors say about the model. A
// checkpoint of openpi's trainer has no config at all, and one of its converter does not say whether it is pi0.5: then the tensors do.
#include "model/paligemma.h"
#include "model/pi0/pi0.h"
#include "model/recognise.h"

#define VISION SOMA_PALIGEMMA_VISION
#define LANGUAGE SOMA_PALIGEMMA_LANGUAGE
#define EXPERT "paligemma_with_expert.gemma_expert.model."

// LeRobot's two names for the time layers; its prefix; transformers without the vision_model level; the embedding under the tied head's
// name, as openpi's files have it (where a file has both, embed_tokens is the one that was trained).
const soma_alias pi0_aliases[] = {
    {"^time_mlp_", "action_time_mlp_", false},
    {"^action_time_mlp_", "time_mlp_", false},
    {"^", "model.", false},
    {"vision_tower.vision_model.", "vision_tower.", false},
    {"paligemma.model.language_model.embed_tokens.", "paligemma.lm_head.", true},
    {NULL, NULL, false},
};

const soma_purpose pi0_purposes[] = {
    SOMA_PURPOSES_PALIGEMMA,
    SOMA_PURPOSES_GEMMA("*language_model*", "prefix"),
    {"*gemma_expert.lm_head.*", "not read: the expert writes no text"},
    SOMA_PURPOSES_GEMMA("*gemma_expert.model*", "actions"),
    {"action_in_proj.*", "noisy actions to tokens"},
    {"action_out_proj.*", "tokens to the flow's velocity"},
    {"state_proj.*", "the robot's state to a token"},
    {"action_time_mlp_in.*", "action and time together, first layer"},
    {"action_time_mlp_out.*", "action and time together, second layer"},
    {"time_mlp_in.*", "time to the norms' condition, first layer"},
    {"time_mlp_out.*", "time to the norms' condition, second layer"},
    {NULL, NULL},
};

// ---- what tensors say

static const soma_size_row sizes[] = {
    {"", "action_dim", "max_action_dim", "action_in_proj.weight", 1},
    {"", "state_dim", "max_state_dim", "state_proj.weight", 1},
    {"", "vocab_size", NULL, LANGUAGE "embed_tokens.weight", 0},
    {"paligemma", "width", NULL, LANGUAGE "embed_tokens.weight", 1},
    {"action_expert", "width", NULL, "action_in_proj.weight", 0},
    {"action_expert", "mlp_dim", NULL, EXPERT "layers.0.mlp.gate_proj.weight", 0},
    {"action_expert", "depth", NULL, EXPERT "layers.%d.self_attn.k_proj.weight", SOMA_SIZE_COUNT},
};

soma_status pi0_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err) {
    soma_finding f = {.config = config, .tensors = tensors};
    const bool own = soma__finding_has(&f, "action_in_proj.weight") && soma__finding_has(&f, EXPERT "layers.0.self_attn.q_proj.weight");
    if (!own && !json_object_get(config, "model_type") && !json_object_get(config, "type"))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no action_in_proj.weight, or no expert: not a pi0", where);
    soma__finding_variant(&f, "paligemma_variant", "paligemma");
    soma__finding_variant(&f, "action_expert_variant", "action_expert");
    static const char adaptive[] = EXPERT "norm.dense.weight", plain[] = EXPERT "norm.weight";
    if (soma__finding_has(&f, adaptive))
        soma__finding_type(&f, "pi05", adaptive);
    else if (soma__finding_has(&f, plain))
        soma__finding_type(&f, "pi0", plain);
    soma__finding_sizes(&f, sizes, SOMA_COUNT(sizes));
    soma__finding_paligemma(&f);
    return soma__finding_end(&f, where, err);
}
