// SPDX-License-Identifier: Apache-2.0
// Diffusion Policy: the config that its files share. README.md says what the model is.
#ifndef SOMA_MODEL_DIFFUSION_DIFFUSION_H
#define SOMA_MODEL_DIFFUSION_DIFFUSION_H

#include "model/family.h"
#include "model/pictures.h"
#include "nn/unet.h"

typedef enum diffusion_betas { DIFFUSION_COSINE, DIFFUSION_LINEAR, DIFFUSION_SCALED } diffusion_betas; // how much noise each step has
typedef enum diffusion_sampler { DIFFUSION_DDPM, DIFFUSION_DDIM } diffusion_sampler;

typedef struct diffusion_config {
    soma_model model; // first
    char preset[16];
    soma_camera_name cameras[SOMA_MODEL_CAMERAS];
    soma_resnet_config backbone;
    soma_picture_norm pictures;
    soma_crop crop; // height and width 0: the whole picture
    soma_unet_config unet;
    int64_t key_points, n_action_steps; // n_action_steps: what of a chunk LeRobot executes before it asks again
    int64_t train_steps;                // of the diffusion that is learned
    bool own_encoders;                  // each camera has an encoder of its own
    bool predicts_actions;              // prediction_type "sample"; else "epsilon": the noise
    bool clip, mask_padding;
    double clip_range, beta_start, beta_end;
    diffusion_betas betas;
    diffusion_sampler sampler;
} diffusion_config;

soma_status diffusion_model_new(soma_model **model, const json_t *config, const char *where, soma_error *err);
json_t *diffusion_config_json(const soma_model *model);
void diffusion_build(const soma_model *model, const soma_build *build, soma_graph *graph);
soma_status diffusion_prepare(const soma_model *model, const soma_batch *batch, soma_feed *feed, soma_error *err);
soma_status diffusion_recognise(json_t *config, const soma_shapes *tensors, const char *where, soma_error *err);
json_t *diffusion_lerobot(const soma_model *model, soma_dtype dtype, bool *own); // fields of LeRobot's config.json
bool diffusion_table(const soma_model *model, int i, soma_written_table *table, float *values);
extern const soma_family soma__family_diffusion;
extern const soma_purpose diffusion_purposes[];

// Sides of what the ResNet sees.
static inline int64_t diffusion_height(const diffusion_config *c) { return c->crop.height ? c->crop.height : c->model.info.image_size; }
static inline int64_t diffusion_width(const diffusion_config *c) {
    return c->crop.height ? c->crop.width : soma__image_width(&c->model.info);
}

// Places of the ResNet's map, row-major; where place i lies, from -1 to 1.
static inline int64_t diffusion_places(const diffusion_config *c) {
    return soma_resnet_side(diffusion_height(c)) * soma_resnet_side(diffusion_width(c));
}
void diffusion_place(const diffusion_config *c, int64_t i, float *x, float *y);

// ---- the diffusion's schedule (schedule.c), as diffusers computes it, in f32
// alphas [train_steps]: how much of the actions is left at each step (alphas_cumprod).
void diffusion_alphas(float *alphas, const diffusion_config *c);
// One step of a sampler of n steps ("leading" spacing): with m what the net says of x_t,
//     x_0 = clip(of_x x_t + of_m m),   x_next = next_0 x_0 + next_x x_t + next_m m + next_noise noise
typedef struct diffusion_step {
    float t, of_x, of_m, next_0, next_x, next_m, next_noise, unused;
} diffusion_step;
void diffusion_steps(diffusion_step *steps, int64_t n, const diffusion_config *c, const float *alphas);

#endif
