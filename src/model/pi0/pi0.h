// SPDX-License-Identifier: Apache-2.0
// pi0 and pi0.5: the config that its three files share. README.md says what the model is.
#ifndef SOMA_MODEL_PI0_PI0_H
#define SOMA_MODEL_PI0_PI0_H

#include "model/family.h"
#include "nn/paligemma.h"

typedef struct pi0_config {
    soma_model model; // first
    bool pi05;        // time through adaptive norms, no state token
    char preset[16], cameras[SOMA_MODEL_CAMERAS][64];
    soma_gemma language, expert; // widths of their own; depth, heads and head size agree
    soma_vit_config vision;      // the eps and theta of the three are set from the values below
    double vision_eps, rms_eps, rope_theta, min_period, max_period;
} pi0_config;

enum { PI0_RULES = SOMA_PALIGEMMA_RULES + 5 };

soma_status pi0_model_new(soma_model **model, const json_t *config, const char *where, soma_error *err);
json_t *pi0_config_json(const soma_model *model);
void pi0_build(const soma_model *model, const soma_build *build, soma_graph *graph);
size_t pi0_lora(const soma_model *model, soma_lora_rule rules[SOMA_LORA_RULES]);
soma_status pi0_prepare(const soma_model *model, const soma_batch *batch, soma_feed *feed, soma_error *err);
extern const soma_family soma__family_pi0;

// Published files: spellings, purposes, and what a file's tensors say about the model (published.c).
extern const soma_alias pi0_aliases[];
extern const soma_purpose pi0_purposes[];
soma_status pi0_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err);

// One layer for both streams, s[0] the prefix and s[1] the suffix; their x become the layer's output. encode builds it with
// s[1].x == NULL or the state's token, denoise with s[0].x == NULL and `past`, training with both. Returns the keys and values that the
// last of them sees. keys_only [2]: nobody reads what this layer makes of the stream, so only its keys and values are built.
soma_kv pi0_trunk_layer(soma_stream s[2], int i, soma_kv past, const bool keys_only[2]);
// What the references keep in f32 whatever the rest runs in: norms, the patch convolution, positions, the action projections.
void pi0_precision_rules(soma_precision precision, soma_precision_rule rules[PI0_RULES]);

// ---- how long things are, with a saving or (NULL) without
int64_t pi0_n_cameras(const pi0_config *c, const soma_saving *saving);
int64_t pi0_n_tokens(const pi0_config *c, const soma_saving *saving);
int64_t pi0_prefix_len(const pi0_config *c, const soma_saving *saving); // pictures and prompt
// tokens between prefix and actions, computed once per observation: pi0's state, if anything is saved
static inline int64_t pi0_kept_len(const pi0_config *c, const soma_saving *saving) { return saving && !c->pi05 ? 1 : 0; }
static inline int64_t pi0_suffix_len(const pi0_config *c, const soma_saving *saving) {
    return c->model.info.horizon + (saving || c->pi05 ? 0 : 1);
}

#endif
