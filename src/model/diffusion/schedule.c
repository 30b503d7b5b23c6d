// SPDX-License-Identifier: Apache-2.0
// DDPM's and DDIM's steps as coefficients (Ho et al. 2020, Song et al. 2021). The sums are f32, as diffusers' are: 1 - beta loses digits at
// the last steps of the cosine schedule (beta 0.999), and what is lost is part of what a checkpoint was trained with.
#include "model/diffusion/diffusion.h"

#include <math.h>

static double bar(double t) { return pow(cos((t + 0.008) / 1.008 * 3.141592653589793 / 2), 2); }

static float beta(const diffusion_config *c, int64_t i) {
    const double n = (double)c->train_steps, at = n > 1 ? (double)i / (n - 1) : 0;
    if (c->betas == DIFFUSION_COSINE) return (float)fmin(1 - bar((double)(i + 1) / n) / bar((double)i / n), 0.999);
    if (c->betas == DIFFUSION_LINEAR) return (float)(c->beta_start + (c->beta_end - c->beta_start) * at);
    const float root = (float)(sqrt(c->beta_start) + (sqrt(c->beta_end) - sqrt(c->beta_start)) * at);
    return root * root;
}

void diffusion_alphas(float *alphas, const diffusion_config *c) {
    double product = 1; // PyTorch's cumprod multiplies in f64 and rounds each
    for (int64_t i = 0; i < c->train_steps; i++) alphas[i] = (float)(product *= (double)(1 - beta(c, i)));
}

static void ddpm(diffusion_step *s, float alpha, float before) {
    const float rest = 1 - alpha, rest_before = 1 - before, kept = alpha / before, added = 1 - kept;
    s->next_0 = sqrtf(before) * added / rest;
    s->next_x = sqrtf(kept) * rest_before / rest;
    if (s->t > 0) s->next_noise = sqrtf(fmaxf(rest_before / rest * added, 1e-20f));
}

// eta 0: no noise; the direction to x_t is the net's noise, not that of the clipped x_0.
static void ddim(diffusion_step *s, float alpha, float before, bool actions) {
    const float away = sqrtf(1 - before);
    s->next_0 = sqrtf(before);
    s->next_x = actions ? away / sqrtf(1 - alpha) : 0;
    s->next_m = actions ? -away * sqrtf(alpha) / sqrtf(1 - alpha) : away;
}

void diffusion_steps(diffusion_step *steps, int64_t n, const diffusion_config *c, const float *alphas) {
    const int64_t ratio = c->train_steps / n;
    for (int64_t k = 0; k < n; k++) {
        const int64_t t = (n - 1 - k) * ratio, earlier = t - ratio;
        const float alpha = alphas[t], before = earlier < 0 ? 1 : alphas[earlier];
        diffusion_step *s = &steps[k];
        *s = (diffusion_step){.t = (float)t, .of_x = 1 / sqrtf(alpha), .of_m = -sqrtf(1 - alpha) / sqrtf(alpha)};
        if (c->predicts_actions) s->of_x = 0, s->of_m = 1;
        if (c->sampler == DIFFUSION_DDPM)
            ddpm(s, alpha, before);
        else
            ddim(s, alpha, before, c->predicts_actions);
    }
}
