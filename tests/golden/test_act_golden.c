// SPDX-License-Identifier: Apache-2.0
// ACT against LeRobot's code, tensor by tensor: backbone, memory, chunk, the latent's encoder, both losses, all gradients.
#include "golden/families.h"

static const family_input inputs[] = {
    {"observation.images.cam0", "image.cam0"},
    {"observation.images.cam1", "image.cam1"},
    {"observation.state", "state"},
    {"action", "actions"},
    {"action_is_pad", "action_pad"},
    {"latent_noise", "latent_noise"},
};

static json_t *config_of(const family_case *f) {
    const json_t *c = f->config, *hw = json_object_get(c, "image_hw");
    json_t *out = json_deep_copy(c);
    json_object_set_new(out, "model_type", json_string("act"));
    json_object_set_new(out, "camera_order", json_pack("[s,s]", "cam0", "cam1"));
    json_object_set(out, "image_height", json_array_get(hw, 0));
    json_object_set(out, "image_width", json_array_get(hw, 1));
    json_object_del(out, "policy");
    return out;
}

static const char *name_of(const char *golden, char out[128]) {
    if (!strncmp(golden, "ensemble.", 9)) return NULL; // the pilot's (tests/policy)
    return strcmp(golden, "infer.actions") ? golden : "actions";
}

static void hold(const char *isa) {
    family_case f;
    family_open(&f, "act_tiny");
    json_t *config = config_of(&f);
    family_make(&f, config, inputs, SOMA_COUNT(inputs));
    traced t = family_trace(&f, isa, &(soma_trace_opts){.dtype = "f32", .grads = true});
    for (size_t i = 0; i < soma__safetensors_count(f.out); i++) {
        const char *name = soma__safetensors_at(f.out, i)->name, *as = name_of(name, NULL);
        if (as) family_hold(&f, &t, name, as);
    }
    family_hold_grads(&f, &t, "model.");
    soma__trace_free(&t.trace);
    json_decref(config);
    family_close(&f);
}

static void packed(void **state) {
    family_case f;
    family_open(&f, "act_tiny");
    json_t *config = config_of(&f);
    family_make(&f, config, inputs, 3); // nothing to learn
    family_hold_packed(&f, name_of);
    json_decref(config);
    family_close(&f);
}

static void plain(void **state) { hold("plain"); }
static void fast(void **state) { hold(""); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain), cmocka_unit_test(fast), cmocka_unit_test(packed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
