// SPDX-License-Identifier: Apache-2.0
// pi0 and pi0.5 as others publish them: how their files spell the weights, what each is for, and what the tensors say about the model. A
// checkpoint of openpi's trainer has no config at all, and one of its converter does not say whether it is pi0.5: then the tensors do.
#include "model/paligemma.h"
#include "model/pi0/pi0.h"

#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define VISION "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
#define LANGUAGE "paligemma_with_expert.paligemma.model.language_model."
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

typedef struct finding {
    json_t *config;
    const soma_shapes *tensors;
    soma_str wrong; // contradictions, all of them
} finding;

static int shape_of(const finding *f, const char *name, int64_t shape[SOMA_MAX_DIMS]) {
    return f->tensors->shape(f->tensors->ctx, name, shape);
}

// The config's object `section`, made where it is absent; "": the config itself.
static json_t *section_of(const finding *f, const char *section) {
    if (!*section) return f->config;
    json_t *object = json_object_get(f->config, section);
    if (!object) json_object_set_new(f->config, section, object = json_object());
    return object;
}

// `name` is what tells it, for the sentence.
static void says(finding *f, const char *section, const char *key, const char *other, int64_t value, const char *name) {
    json_t *object = section_of(f, section);
    if (!json_is_object(object)) return; // told when the config is read
    const char *said = other && !json_object_get(object, key) ? other : key;
    const json_t *old = json_object_get(object, said);
    if (!old)
        json_object_set_new(object, key, json_integer(value));
    else if (json_is_integer(old) && (int64_t)json_integer_value(old) != value)
        soma__str_printf(&f->wrong, "%s\"%s%s%s\" is %lld, but %s says %lld", f->wrong.len ? "; " : "", section, *section ? "." : "", said,
                         (long long)json_integer_value(old), name, (long long)value);
}

// section, key, LeRobot's key or NULL, which dimension of which tensor it is
static const struct {
    const char *section, *key, *other, *name;
    int dim;
} sizes[] = {
    {"", "action_dim", "max_action_dim", "action_in_proj.weight", 1},
    {"", "state_dim", "max_state_dim", "state_proj.weight", 1},
    {"", "vocab_size", NULL, LANGUAGE "embed_tokens.weight", 0},
    {"paligemma", "width", NULL, LANGUAGE "embed_tokens.weight", 1},
    {"paligemma", "mlp_dim", NULL, LANGUAGE "layers.0.mlp.gate_proj.weight", 0},
    {"action_expert", "width", NULL, "action_in_proj.weight", 0},
    {"action_expert", "mlp_dim", NULL, EXPERT "layers.0.mlp.gate_proj.weight", 0},
    {"vision", "hidden_size", NULL, VISION "post_layernorm.weight", 0},
    {"vision", "intermediate_size", NULL, VISION "encoder.layers.0.mlp.fc1.weight", 0},
    {"vision", "patch_size", NULL, VISION "embeddings.patch_embedding.weight", 2},
};
// depth is how many of them there are
static const struct {
    const char *section, *key, *format;
} depths[] = {
    {"paligemma", "depth", LANGUAGE "layers.%d.self_attn.k_proj.weight"},
    {"action_expert", "depth", EXPERT "layers.%d.self_attn.k_proj.weight"},
    {"vision", "num_hidden_layers", VISION "encoder.layers.%d.self_attn.k_proj.weight"},
};

static void find_sizes(finding *f) {
    int64_t shape[SOMA_MAX_DIMS];
    for (size_t i = 0; i < SOMA_COUNT(sizes); i++)
        if (shape_of(f, sizes[i].name, shape) > sizes[i].dim)
            says(f, sizes[i].section, sizes[i].key, sizes[i].other, shape[sizes[i].dim], sizes[i].name);
    for (size_t i = 0; i < SOMA_COUNT(depths); i++) {
        char name[160];
        int n = 0;
        do snprintf(name, sizeof name, depths[i].format, n);
        while (shape_of(f, name, shape) >= 0 && ++n < 512);
        if (n) says(f, depths[i].section, depths[i].key, NULL, n, "the number of layers");
    }
    int64_t patches[SOMA_MAX_DIMS];
    if (shape_of(f, VISION "embeddings.position_embedding.weight", patches) == 2 &&
        shape_of(f, VISION "embeddings.patch_embedding.weight", shape) == 4) {
        int64_t side = (int64_t)llround(sqrt((double)patches[0]));
        says(f, "vision", "image_size", NULL, side * shape[2], VISION "embeddings.position_embedding.weight");
    }
}

// openpi's names for sizes (models/gemma.py); "_lora" behind them changes none.
static const struct {
    const char *name;
    int64_t width, depth, mlp, n_heads, n_kv_heads, head_dim;
} variants[] = {{"gemma_2b", 2048, 18, 16384, 8, 1, 256}, {"gemma_300m", 1024, 18, 4096, 8, 1, 256}, {"dummy", 64, 4, 128, 8, 1, 16}};

static void use_variant(finding *f, const char *key, const char *section) {
    const char *name = json_string_value(json_object_get(f->config, key));
    for (size_t i = 0; name && i < SOMA_COUNT(variants); i++) {
        const size_t len = strlen(variants[i].name);
        if (strncmp(name, variants[i].name, len) || (name[len] && strcmp(name + len, "_lora"))) continue;
        says(f, section, "width", NULL, variants[i].width, key);
        says(f, section, "depth", NULL, variants[i].depth, key);
        says(f, section, "mlp_dim", NULL, variants[i].mlp, key);
        says(f, section, "num_heads", NULL, variants[i].n_heads, key);
        says(f, section, "num_kv_heads", NULL, variants[i].n_kv_heads, key);
        says(f, section, "head_dim", NULL, variants[i].head_dim, key);
    }
}

static void find_type(finding *f, bool pi05, const char *by) {
    const char *found = pi05 ? "pi05" : "pi0";
    const char *key = json_object_get(f->config, "model_type") ? "model_type" : "type";
    const char *said = json_string_value(json_object_get(f->config, key));
    if (!said)
        json_object_set_new(f->config, "model_type", json_string(found));
    else if (strcmp(said, found))
        soma__str_printf(&f->wrong, "%s\"%s\" is \"%s\", but %s is there: these tensors are %s's", f->wrong.len ? "; " : "", key, said, by,
                         found);
}

soma_status pi0_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err) {
    finding f = {.config = config, .tensors = tensors};
    int64_t shape[SOMA_MAX_DIMS];
    const bool actions = shape_of(&f, "action_in_proj.weight", shape) == 2;
    if (!actions && !json_object_get(config, "model_type") && !json_object_get(config, "type"))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no action_in_proj.weight: not a pi0", where);
    use_variant(&f, "paligemma_variant", "paligemma");
    use_variant(&f, "action_expert_variant", "action_expert");
    static const char adaptive[] = EXPERT "norm.dense.weight", plain[] = EXPERT "norm.weight";
    if (shape_of(&f, adaptive, shape) >= 0)
        find_type(&f, true, adaptive);
    else if (shape_of(&f, plain, shape) >= 0)
        find_type(&f, false, plain);
    find_sizes(&f);
    soma_status status = f.wrong.failed ? soma__no_memory(err, "a checkpoint's sizes") : SOMA_OK;
    if (status == SOMA_OK && f.wrong.len) status = soma__fail(err, SOMA_BAD_INPUT, "%s contradicts the tensors: %s", where, f.wrong.text);
    soma__str_free(&f.wrong);
    return status;
}
