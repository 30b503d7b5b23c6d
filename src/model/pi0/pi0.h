// SPDX-License-Identifier: Apache-2.0
// pi0 and pi0.5: the config that its three files share. README.md says what the model is.
#ifndef SOMA_MODEL_PI0_PI0_H
#define SOMA_MODEL_PI0_PI0_H

#include "model/family.h"

// One stream of the trunk. The two streams have widths of their own; depth, heads and head size agree.
typedef struct pi0_stack {
    int64_t width, depth, mlp, n_heads, n_kv_heads, head_dim;
} pi0_stack;

typedef struct pi0_config {
    soma_model model; // first
    bool pi05;        // time through adaptive norms, no state token
    char preset[16], cameras[SOMA_MODEL_CAMERAS][64];
    pi0_stack language, expert;
    soma_vit_config vision; // its eps is set from vision_eps
    double vision_eps, rms_eps, rope_theta, min_period, max_period;
} pi0_config;

soma_status pi0_model_new(soma_model **model, const json_t *config, const char *where, soma_error *err);
json_t *pi0_config_json(const soma_model *model);
void pi0_build(const soma_model *model, const soma_build *build, soma_graph *graph);
soma_status pi0_prepare(const soma_model *model, const soma_batch *batch, soma_feed *feed, soma_error *err);
extern const soma_family soma__family_pi0;

// tokens of the prefix (pictures, prompt) and of the suffix (state in pi0, actions)
static inline int64_t pi0_prefix_len(const pi0_config *c) {
    int64_t side = c->vision.image / c->vision.patch;
    return c->model.info.n_cameras * side * side + c->model.info.max_tokens;
}
static inline int64_t pi0_suffix_len(const pi0_config *c) { return c->model.info.horizon + (c->pi05 ? 0 : 1); }

#endif
