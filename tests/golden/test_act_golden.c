// SPDX-License-Identifier: Apache-2.0
// ACT against LeRobot's code, tensor by tensor: backbone, memory, chunk, the latent's encoder, both losses, all gradients.
#include "golden/families.h"

#include "policy/timeline.h"

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
    if (!strncmp(golden, "ensemble.", 9)) return NULL; // below
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

// LeRobot's ACTTemporalEnsembler, fed with a chunk at every step, against the way chunks are executed here.
static void ensemble(void **state) {
    family_case f;
    soma_error err = {0};
    family_open(&f, "act_tiny");
    const soma_safetensor *chunks = golden_find(f.in, "ensemble.chunks"), *want = golden_find(f.out, "ensemble.outputs");
    const int64_t T = chunks->shape[0], B = chunks->shape[1], S = chunks->shape[2], A = chunks->shape[3];
    float *got = malloc(sizeof *got * (size_t)want->n_values);
    assert_non_null(got);
    soma_chunk_opts o = soma_chunk_defaults();
    strcpy(o.chunks, "ensemble");
    o.execute = 1;
    o.ensemble_weight = json_number_value(json_object_get(f.config, "temporal_ensemble_coeff"));
    for (int64_t b = 0; b < B; b++) {
        soma_timeline *line;
        if (soma__timeline_new(&line, &o, (int)S, (int)A, 0, &err)) fail_msg("%s", err.text);
        for (int64_t t = 0; t < T; t++) {
            int executed, delay;
            assert_true(soma__timeline_wants(line, (double)t));
            soma__timeline_ask(line, (double)t, &executed, &delay);
            soma__timeline_arrive(line, (double)t, (const float *)chunks->data + (t * B + b) * S * A, (int)S);
            assert_true(soma__timeline_action(line, (double)t, got + (t * B + b) * A));
        }
        soma__timeline_free(line);
    }
    golden_hold(f.out, "ensemble.outputs", "-", SOMA_F32, got, GOLDEN_MAX, 1e-5);
    free(got);
    family_close(&f);
}

static void plain(void **state) { hold("plain"); }
static void fast(void **state) { hold(""); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain), cmocka_unit_test(fast), cmocka_unit_test(packed),
                                       cmocka_unit_test(ensemble)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
