// SPDX-License-Identifier: Apache-2.0
// Diffusion Policy against LeRobot's code and diffusers' schedulers, tensor by tensor: encoder, UNet, every step of the sampler, the loss,
// all gradients.
#include "golden/families.h"

#include "model/diffusion/diffusion.h"

static const family_input inputs[] = {
    {"observation.images.cam0", "image.cam0"},
    {"observation.images.cam1", "image.cam1"},
    {"observation.state", "state"},
    {"noise", "noise"},
    {"step_noise", "step_noise"}, // from here on for learning
    {"action", "actions"},
    {"action_is_pad", "action_pad"},
    {"train_noise", "train_noise"},
    {"train_timesteps", "timestep"},
};

static json_t *config_of(const family_case *f) {
    const json_t *c = f->config, *hw = json_object_get(c, "image_hw"), *resnet = json_object_get(c, "resnet");
    json_t *out = json_deep_copy(c), *backbone = json_object();
    json_object_set_new(out, "model_type", json_string("diffusion"));
    json_object_set_new(out, "camera_order", json_pack("[s,s]", "cam0", "cam1"));
    json_object_set(out, "image_height", json_array_get(hw, 0));
    json_object_set(out, "image_width", json_array_get(hw, 1));
    for (size_t i = 0; i < 4; i++) {
        char key[16];
        snprintf(key, sizeof key, "width_%zu", i + 1);
        json_object_set(backbone, key, json_array_get(json_object_get(resnet, "stage_widths"), i));
        snprintf(key, sizeof key, "blocks_%zu", i + 1);
        json_object_set(backbone, key, json_array_get(json_object_get(resnet, "stage_blocks"), i));
    }
    json_object_set_new(out, "backbone", backbone);
    json_object_del(out, "policy");
    return out;
}

// The golden's names of what every family's trace names alike; NULL: it is told in another way.
static const char *name_of(const char *golden, char out[128]) {
    int k;
    char rest[64];
    if (sscanf(golden, "infer.step%d.%60s", &k, rest) == 2) {
        if (!strcmp(rest, "t")) return NULL;
        snprintf(out, 128, "sample.step%d.%s", k, strcmp(rest, "x_t") ? "v_t" : "x_t");
        return out;
    }
    if (!strcmp(golden, "infer.actions")) return NULL; // a part of the next
    return strcmp(golden, "infer.sample_full_horizon") ? golden : "actions";
}

// What is executed: from the present observation on.
static void hold_actions(const family_case *f, const traced *t) {
    const soma_safetensor *want = golden_find(f->out, "infer.actions"), *got = traced_find(t, "actions");
    const int64_t first = json_integer_value(json_object_get(f->config, "n_obs_steps")) - 1, B = want->shape[0],
                  row = want->shape[1] * want->shape[2];
    float *part = malloc(sizeof *part * (size_t)want->n_values);
    assert_non_null(part);
    for (int64_t i = 0; i < B; i++)
        memcpy(part + i * row, (const float *)got->data + (i * got->shape[1] + first) * got->shape[2], sizeof *part * (size_t)row);
    golden_hold(f->out, "infer.actions", t->by, SOMA_F32, part, GOLDEN_MAX, family_tolerance(f, "infer.actions"));
    free(part);
}

static void hold(const char *isa) {
    family_case f;
    char name[128];
    family_open(&f, "diffusion_tiny");
    json_t *config = config_of(&f);
    family_make(&f, config, inputs, SOMA_COUNT(inputs));
    traced t = family_trace(&f, isa, &(soma_trace_opts){.dtype = "f32", .grads = true});
    for (size_t i = 0; i < soma__safetensors_count(f.out); i++) {
        const char *golden = soma__safetensors_at(f.out, i)->name, *as = name_of(golden, name);
        if (as) family_hold(&f, &t, golden, as);
    }
    hold_actions(&f, &t);
    family_hold_grads(&f, &t, "");
    soma__trace_free(&t.trace);
    json_decref(config);
    family_close(&f);
}

static void packed(void **state) {
    family_case f;
    family_open(&f, "diffusion_tiny");
    json_t *config = config_of(&f);
    family_make(&f, config, inputs, 5); // nothing to learn
    family_hold_packed(&f, name_of);
    json_decref(config);
    family_close(&f);
}

// ---- diffusers' schedulers: one step each at the first, the middle and the last of a sampler's places, for every setting that LeRobot has

typedef struct setting {
    const char *sampler, *betas, *predicts;
    int clip, n;
} setting;

// How much is left at each step, the noised x at two of them, and which steps a sampler takes.
static void hold_schedule(const soma_safetensors *st, const setting *s, const char *name, const float alphas[100],
                          const diffusion_step *steps) {
    char tensor[200];
    float noised[36];
    const float *x = golden_find(st, "x")->data, *noise = golden_find(st, "model_output")->data;
    snprintf(tensor, sizeof tensor, "%s.%s.alphas_cumprod", s->sampler, s->betas);
    golden_hold(st, tensor, "-", SOMA_F32, alphas, GOLDEN_MAX, 1e-6);
    snprintf(tensor, sizeof tensor, "%s.%s.add_noise_t37", s->sampler, s->betas);
    for (int i = 0; i < 36; i++) {
        const float alpha = alphas[i < 18 ? 37 : 3];
        noised[i] = sqrtf(alpha) * x[i] + sqrtf(1 - alpha) * noise[i];
    }
    golden_hold(st, tensor, "-", SOMA_F32, noised, GOLDEN_MAX, 1e-6);
    snprintf(tensor, sizeof tensor, "%s.timesteps", name);
    const soma_safetensor *want = golden_find(st, tensor);
    bool same = want->n_values == s->n;
    for (int k = 0; same && k < s->n; k++) same = (float)((const int64_t *)want->data)[k] == steps[k].t;
    golden_same(FAMILIES "diffusion_tiny/schedulers.safetensors", tensor, same);
}

static void hold_setting(soma_safetensors *st, const setting *s) {
    static const char *const betas[] = {"squaredcos_cap_v2", "linear", "scaled_linear"};
    char name[160], tensor[200];
    diffusion_config c = {.train_steps = 100, .clip = s->clip, .clip_range = 1, .beta_start = 1e-4, .beta_end = 0.02};
    while (strcmp(betas[c.betas], s->betas)) c.betas++;
    c.sampler = strcmp(s->sampler, "DDPM") ? DIFFUSION_DDIM : DIFFUSION_DDPM;
    c.predicts_actions = !strcmp(s->predicts, "sample");
    snprintf(name, sizeof name, "%s.%s.%s.clip%d.n%d", s->sampler, s->betas, s->predicts, s->clip, s->n);
    snprintf(tensor, sizeof tensor, "%s.prev_sample", name);
    const soma_safetensor *want = soma__safetensors_find(st, tensor);
    if (!want) return; // not every number of steps is there for both
    float alphas[100], got[3 * 36];
    diffusion_step steps[100];
    const float *x = golden_find(st, "x")->data, *m = golden_find(st, "model_output")->data,
                *noise = golden_find(st, "variance_noise")->data;
    const int64_t each = golden_find(st, "x")->n_values;
    assert_true(each == 36 && want->n_values == 3 * each);
    diffusion_alphas(alphas, &c);
    diffusion_steps(steps, s->n, &c, alphas);
    hold_schedule(st, s, name, alphas, steps);
    for (int k = 0; k < 3; k++) {
        const diffusion_step *p = &steps[k == 0 ? 0 : k == 1 ? s->n / 2 : s->n - 1];
        for (int64_t i = 0; i < each; i++) {
            float x_0 = p->of_x * x[i] + p->of_m * m[i];
            if (c.clip) x_0 = fminf(1, fmaxf(-1, x_0));
            got[k * each + i] = p->next_0 * x_0 + p->next_x * x[i] + p->next_m * m[i] + p->next_noise * noise[i];
        }
    }
    golden_hold(st, tensor, "-", SOMA_F32, got, GOLDEN_EACH, 1e-5);
}

static void schedulers(void **state) {
    static const char *const samplers[] = {"DDPM", "DDIM"}, *const betas[] = {"squaredcos_cap_v2", "linear", "scaled_linear"},
                             *const predicts[] = {"epsilon", "sample"};
    static const int counts[] = {10, 16, 100};
    soma_safetensors *st = family_file("diffusion_tiny", "schedulers.safetensors");
    for (int i = 0; i < 2 * 3 * 2 * 2 * 3; i++)
        hold_setting(st, &(setting){samplers[i % 2], betas[i / 2 % 3], predicts[i / 6 % 2], i / 12 % 2, counts[i / 24]});
    soma__safetensors_close(st);
}

static void plain(void **state) { hold("plain"); }
static void fast(void **state) { hold(""); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain), cmocka_unit_test(fast), cmocka_unit_test(packed),
                                       cmocka_unit_test(schedulers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
