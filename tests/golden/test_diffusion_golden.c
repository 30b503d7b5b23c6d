// SPDX-License-Identifier: Apache-2.0
// Diffusion Policy against LeRobot's code and diffusers' schedulers, tensor by tensor: encoder, UNet, every step of the sampler, the loss,
// all gradients.
#include "golden/families.h"

static const family_input inputs[] = {
    {"observation.images.cam0", "image.cam0"},
    {"observation.images.cam1", "image.cam1"},
    {"observation.state", "state"},
    {"action", "actions"},
    {"action_is_pad", "action_pad"},
    {"noise", "noise"},
    {"step_noise", "step_noise"},
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

static void plain(void **state) { hold("plain"); }
static void fast(void **state) { hold(""); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain), cmocka_unit_test(fast)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
