// SPDX-License-Identifier: Apache-2.0
// SmolVLA as LeRobot publishes it: how its files spell the weights, what each is for, and what the tensors say about the model. LeRobot's
// config names the language model and the share of it that is used; all sizes but the number of heads can be read off the weights, and
// heads of SmolVLM's language models have 64 values.
#include "model/paligemma.h"
#include "model/recognise.h"
#include "model/smolvla/smolvla.h"

#include <math.h>

#define VISION SMOLVLA_VLM "vision_model."
#define TEXT SMOLVLA_VLM "text_model."

// LeRobot's prefix; SmolVLM2's own files, which hold the language model alone.
const soma_alias smolvla_aliases[] = {{"^", "model.", false}, {"^vlm_with_expert.vlm.", "", false}, {NULL, NULL, false}};

const soma_purpose smolvla_purposes[] = {
    {"*vision_model*.patch_embedding.*", "vision: patches to tokens"},
    {"*vision_model*.position_embedding.*", "vision: where a patch lies"},
    {"*vision_model.post_layernorm.*", "vision: last norm"},
    {"*vision_model*.layer_norm1.*", "vision: norm before attention"},
    {"*vision_model*.layer_norm2.*", "vision: norm before the MLP"},
    {"*vision_model*.q_proj.*", "vision: queries"},
    {"*vision_model*.k_proj.*", "vision: keys"},
    {"*vision_model*.v_proj.*", "vision: values"},
    {"*vision_model*.out_proj.*", "vision: attention's result"},
    {"*vision_model*.fc1.*", "vision: MLP, up"},
    {"*vision_model*.fc2.*", "vision: MLP, down"},
    {"*connector.*", "neighbouring patches to a token of the language model"},
    {"*text_model.embed_tokens.*", "prompt ids to tokens"},
    {"*vlm.lm_head.*", "not read: the policy writes no text"},
    SOMA_PURPOSES_GEMMA("*text_model*", "prefix"),
    SOMA_PURPOSES_GEMMA("*lm_expert*", "actions"),
    {"action_in_proj.*", "noisy actions to tokens"},
    {"action_out_proj.*", "tokens to the flow's velocity"},
    {"state_proj.*", "the robot's state to a token of the prefix"},
    {"action_time_mlp_in.*", "action and time together, first layer"},
    {"action_time_mlp_out.*", "action and time together, second layer"},
    {NULL, NULL},
};

// ---- what tensors say

static const soma_size_row sizes[] = {
    {"", "action_dim", "max_action_dim", "action_in_proj.weight", 1},
    {"", "state_dim", "max_state_dim", "state_proj.weight", 1},
    {"", "vocab_size", NULL, TEXT "embed_tokens.weight", 0},
    {"", "num_vlm_layers", NULL, TEXT "layers.%d.self_attn.k_proj.weight", SOMA_SIZE_COUNT},
    {"text", "width", NULL, TEXT "embed_tokens.weight", 1},
    {"text", "mlp_dim", NULL, TEXT "layers.0.mlp.gate_proj.weight", 0},
    {"expert", "width", NULL, "action_in_proj.weight", 0},
    {"expert", "mlp_dim", NULL, SMOLVLA_EXPERT "layers.0.mlp.gate_proj.weight", 0},
    {"vision", "hidden_size", NULL, VISION "post_layernorm.weight", 0},
    {"vision", "intermediate_size", NULL, VISION "encoder.layers.0.mlp.fc1.weight", 0},
    {"vision", "patch_size", NULL, VISION "embeddings.patch_embedding.weight", 2},
    {"vision", "num_hidden_layers", NULL, VISION "encoder.layers.%d.self_attn.k_proj.weight", SOMA_SIZE_COUNT},
};

static int64_t dim(const soma_finding *f, const char *name, int which) { // 0: absent
    int64_t shape[SOMA_MAX_DIMS];
    return f->tensors->shape(f->tensors->ctx, name, shape) > which ? shape[which] : 0;
}

static int64_t said(const soma_finding *f, const char *section, const char *key, int64_t otherwise) {
    const json_t *value = json_object_get(*section ? json_object_get(f->config, section) : f->config, key);
    return json_is_integer(value) ? (int64_t)json_integer_value(value) : otherwise;
}

// Heads are not in any shape: those of SmolVLM's stacks have 64 values, SigLIP's largest tower 16 heads of 72.
static void find_heads(soma_finding *f) {
    static const char q[] = TEXT "layers.0.self_attn.q_proj.weight", k[] = TEXT "layers.0.self_attn.k_proj.weight";
    const bool whole = json_object_get(f->config, "preset") != NULL; // a config of soma's own tells what differs from the preset
    const int64_t each = said(f, "text", "head_dim", whole ? 0 : 64), width = dim(f, VISION "post_layernorm.weight", 0);
    if (each > 0 && dim(f, q, 0)) soma__finding_says(f, "text", "num_heads", NULL, dim(f, q, 0) / each, q);
    if (each > 0 && dim(f, k, 0)) soma__finding_says(f, "text", "num_kv_heads", NULL, dim(f, k, 0) / each, k);
    if (!whole && width && !said(f, "vision", "num_attention_heads", 0))
        soma__finding_says(f, "vision", "num_attention_heads", NULL, width == 1152 ? 16 : SOMA_MAX(width / 64, 1), VISION);
}

// A picture's side: LeRobot's config tells it, and the tower's table of positions does.
static void find_picture(soma_finding *f) {
    static const char places[] = VISION "embeddings.position_embedding.weight",
                      joined[] = SMOLVLA_VLM "connector.modality_projection.proj.weight";
    const json_t *sides = json_object_get(f->config, "resize_imgs_with_padding");
    const int64_t patch = dim(f, VISION "embeddings.patch_embedding.weight", 2), n = dim(f, places, 0),
                  width = dim(f, VISION "post_layernorm.weight", 0);
    for (size_t i = 0; i < json_array_size(sides); i++)
        soma__finding_says(f, "vision", "image_size", NULL, json_integer_value(json_array_get(sides, i)), "resize_imgs_with_padding");
    if (patch && n) soma__finding_says(f, "vision", "image_size", NULL, (int64_t)llround(sqrt((double)n)) * patch, places);
    if (width && dim(f, joined, 1))
        soma__finding_says(f, "", "scale_factor", NULL, (int64_t)llround(sqrt((double)(dim(f, joined, 1) / width))), joined);
}

soma_status smolvla_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err) {
    soma_finding f = {.config = config, .tensors = tensors};
    static const char mark[] = SMOLVLA_EXPERT "norm.weight";
    if (!soma__finding_has(&f, mark) && !json_object_get(config, "model_type") && !json_object_get(config, "type"))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no %s: not a SmolVLA", where, mark);
    if (soma__finding_has(&f, mark)) soma__finding_type(&f, "smolvla", mark);
    if (json_object_get(config, "resize_imgs_with_padding") && !json_is_array(json_object_get(config, "resize_imgs_with_padding")))
        return soma__fail(err, SOMA_UNSUPPORTED,
                          "%s: \"resize_imgs_with_padding\" gives the two sides of a picture; without it SmolVLA "
                          "takes pictures of any size, which this soma does not",
                          where);
    if (said(&f, "", "num_vlm_layers", 1) < 1) json_object_del(config, "num_vlm_layers"); // LeRobot's word for all of them
    soma__finding_sizes(&f, sizes, SOMA_COUNT(sizes));
    find_picture(&f);
    find_heads(&f);
    return soma__finding_end(&f, where, err);
}

// ---- as LeRobot writes it

// It knows a language model by name; one of other sizes would be a folder that it builds the network from.
json_t *smolvla_lerobot(const soma_model *model, soma_dtype dtype, bool *own) {
    static const char *const sections[] = {"text", "expert", "vision", "camera_order", "vocab_size", "scale_factor", "rms_norm_eps"};
    const smolvla_config *c = (const smolvla_config *)model;
    json_t *config = smolvla_config_json(model);
    json_t *out = json_pack(
        "{s:[I, I], s:I, s:s, s:b, s:b, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:b, s:b, s:b, s:i, s:s}", "resize_imgs_with_padding",
        (json_int_t)c->vision.image, (json_int_t)c->vision.image, "num_steps", (json_int_t)model->info.n_steps, "vlm_model_name",
        SMOLVLA_LANGUAGE_MODEL, "load_vlm_weights", 0, "add_image_special_tokens", 0, "attention_mode",
        c->self_every == 1 ? "self_attn" : "cross_attn", "num_expert_layers", (json_int_t)-1, "num_vlm_layers",
        (json_int_t)c->language.depth, "self_attn_every_n_layers", (json_int_t)c->self_every, "expert_width_multiplier",
        (double)c->expert.width / (double)c->language.width, "min_period", c->min_period, "max_period", c->max_period,
        "freeze_vision_encoder", 1, "train_expert_only", 1, "train_state_proj", 1, "prefix_length", -1, "pad_language_to", "longest");
    *own = c->language.width != 960 || c->language.n_heads != 15 || c->vision.width != 768 || c->vision.depth != 12 ||
           model->info.vocab != 49280 || c->vision.image != 512;
    bool failed = !config || !out;
    for (size_t i = 0; *own && !failed && i < SOMA_COUNT(sections); i++)
        failed = json_object_set(out, sections[i], json_object_get(config, sections[i])) != 0;
    json_decref(config);
    if (!failed) return out;
    json_decref(out);
    return NULL;
}
