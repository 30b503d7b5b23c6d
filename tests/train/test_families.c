// SPDX-License-Identifier: Apache-2.0
// ACT and Diffusion Policy on a small dataset: they learn, a run that was stopped goes on to the same bits, what no gradient changes stays,
// the folder acts (a chunk begins with the present, whatever was looked at before), and LeRobot's layout of it acts alike.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "policy/export.h"
#include "train/dots.h"
#include "train/trainer.h"

static const char small_act[] =
    "{\"image_height\": 32, \"dim_model\": 16, \"n_heads\": 2, \"dim_feedforward\": 16, \"n_encoder_layers\": 1,"
    "\"n_vae_encoder_layers\": 1, \"latent_dim\": 4, \"backbone\": {\"width_1\": 8, \"width_2\": 8, \"width_3\": 8,"
    "\"width_4\": 16}}";
static const char small_diffusion[] = "{\"image_height\": 32, \"down_dims\": [16, 16], \"diffusion_step_embed_dim\": 8,"
                                      "\"spatial_softmax_num_keypoints\": 4, \"n_action_steps\": 2, \"backbone\": {\"width_1\": 16,"
                                      "\"width_2\": 16, \"width_3\": 16, \"width_4\": 16}}";

static soma_train_opts options(const char *family, const char *out) {
    soma_train_opts o = soma_train_defaults();
    char file[SOMA_OPT_TEXT];
    const char *sizes = strcmp(family, "act") ? small_diffusion : small_act;
    path(file, "small.json");
    assert_int_equal(soma__file_write(file, sizes, strlen(sizes), NULL), SOMA_OK);
    snprintf(o.family, sizeof o.family, "%s", family);
    snprintf(o.preset, sizeof o.preset, "nano");
    strcpy(o.model, file);
    path(o.data, "data");
    path(o.out, out);
    o.steps = 10;
    o.batch = 8;
    o.draws = 2;
    o.horizon = 4;
    o.eval_every = 5;
    o.save_every = 5;
    o.warmup = 2;
    o.lr = 3e-3;
    o.weight_decay = 0.1;
    o.holdout_share = 0.2;
    o.threads = 1;
    snprintf(o.dtype, sizeof o.dtype, "f32");
    return o;
}

typedef struct watch {
    double first, last;
    int64_t stop_at;
} watch;

static bool keep_loss(void *user, const soma_train_progress *p) {
    watch *w = user;
    if (p->step == 1) w->first = p->loss;
    w->last = p->loss;
    return p->step != w->stop_at;
}

static void train(const soma_train_opts *o, watch *w, soma_status wanted) {
    soma_error err = {0};
    if (soma_train(o, keep_loss, w, &err) != wanted) fail_msg("%s", err.text);
}

static soma_safetensors *weights_of(const char *name) {
    char file[SOMA_OPT_TEXT];
    soma_safetensors *st;
    soma_error err = {0};
    path(file, name);
    if (soma__safetensors_open(&st, file, &err)) fail_msg("%s", err.text);
    return st;
}

static void assert_same_weights(const char *a, const char *b) {
    soma_safetensors *x = weights_of(a), *y = weights_of(b);
    assert_int_equal(soma__safetensors_count(x), soma__safetensors_count(y));
    for (size_t i = 0; i < soma__safetensors_count(x); i++) {
        const soma_safetensor *t = soma__safetensors_at(x, i), *u = soma__safetensors_find(y, t->name);
        if (!u || memcmp(t->data, u->data, (size_t)t->n_values * soma_dtype_size(t->dtype))) fail_msg("%s differs", t->name);
    }
    soma__safetensors_close(x);
    soma__safetensors_close(y);
}

enum { MAX = 64 };

// The chunk of a fresh pilot that saw `before` (NULL: nothing) and then frame 5.
static soma_actions act(const char *name, const int *before, float out[MAX]) {
    char folder[SOMA_OPT_TEXT];
    uint8_t picture[SIDE * SIDE * 3];
    float state[2], action[2];
    soma_policy *policy;
    soma_pilot *pilot;
    soma_actions plan;
    soma_error err = {0};
    soma_policy_opts po = soma_policy_defaults();
    soma_pilot_opts o = soma_pilot_defaults();
    po.threads = 1;
    snprintf(po.dtype, sizeof po.dtype, "f32");
    o.seed = 3;
    path(folder, name);
    if (soma_policy_open(&policy, folder, &po, &err) || soma_pilot_new(&pilot, policy, &o, &err)) fail_msg("%s", err.text);
    soma_obs obs = {.state = state, .n_state = 2, .n_images = 1, .images = {{"scene", picture, SIDE, SIDE}}};
    if (before) {
        dot(0, *before, state, action, picture);
        if (soma_pilot_see(pilot, &obs, &err)) fail_msg("%s", err.text);
    }
    dot(0, 5, state, action, picture);
    if (soma_pilot_act(pilot, &obs, &plan, &err)) fail_msg("%s", err.text);
    assert_true(plan.horizon * plan.n_actions <= MAX);
    memcpy(out, plan.values, sizeof *out * (size_t)(plan.horizon * plan.n_actions));
    soma_pilot_free(pilot);
    soma_policy_close(policy);
    return plan;
}

static double apart(const float *a, const float *b, int n) {
    double d = 0;
    for (int i = 0; i < n; i++) d = fmax(d, fabs((double)a[i] - b[i]));
    return d;
}

static void learn_and_act(const char *family, int horizon) {
    char whole[32], parts[32], exported[40];
    snprintf(whole, sizeof whole, "%s", family);
    snprintf(parts, sizeof parts, "%s_parts", family);
    snprintf(exported, sizeof exported, "%s_lerobot", family);
    soma_train_opts o = options(family, whole);
    watch w = {0};
    train(&o, &w, SOMA_OK);
    print_message("%s: loss %.4f to %.4f\n", family, w.first, w.last);
    assert_true(w.last < w.first);
    o = options(family, parts);
    w.stop_at = 5;
    train(&o, &w, SOMA_CANCELLED);
    o.resume = true;
    w.stop_at = 0;
    train(&o, &w, SOMA_OK);
    assert_same_weights(whole, parts);

    char from[SOMA_OPT_TEXT], to[SOMA_OPT_TEXT];
    soma_exported r;
    soma_error err = {0};
    path(from, whole);
    path(to, exported);
    if (soma__export(&r, &(soma_export_opts){.policy = from, .out = to, .lerobot = true, .dtype = SOMA_F32, .asset = "dot"}, NULL, NULL,
                     &err))
        fail_msg("%s", err.text);
    float a[MAX], b[MAX];
    soma_actions plan = act(whole, NULL, a);
    assert_int_equal(plan.horizon, horizon);
    act(exported, NULL, b);
    if (!(apart(a, b, plan.horizon * plan.n_actions) <= 1e-5)) fail_msg("%s acts otherwise as LeRobot has it", family);
}

static void test_act(void **state) {
    learn_and_act("act", 4);
    soma_safetensors *st = weights_of("act"); // ten steps with a decay of 0.1 have passed
    const soma_safetensor *var = soma__safetensors_find(st, "backbone.bn1.running_var");
    assert_non_null(var);
    for (int64_t i = 0; i < var->n_values; i++) assert_true(((const float *)var->data)[i] == 1);
    soma__safetensors_close(st);
    soma_train_opts o = options("act", "act_threads");
    watch w = {0};
    o.threads = 2; // what is dropped follows from seed, step and place alone
    train(&o, &w, SOMA_OK);
    assert_same_weights("act", "act_threads");
}

// The graph that learns drops, the one that is looked at does not, and a config may drop nothing.
static void test_dropout(void **state) {
    for (int i = 0; i < 3; i++) {
        json_t *config = json_pack("{s:s, s:s, s:f}", "type", "act", "preset", "nano", "dropout", i == 2 ? 0.0 : 0.1);
        soma_model *model;
        soma_graph *graph;
        soma_error err = {0};
        if (soma__model_new(&model, config, "test", &err) || soma_graph_new(&graph, &err)) fail_msg("%s", err.text);
        soma_build b = soma__build_defaults(SOMA_PROGRAM_TRAIN, 2);
        b.dropout = i != 1;
        model->family->build(model, &b, graph);
        assert_int_equal(graph->error.code, SOMA_OK);
        int drops = 0, attentions = 0;
        for (size_t k = 0; k < graph->n_tensors; k++) {
            drops += graph->tensors[k]->op == SOMA_OP_DROPOUT;
            attentions += graph->tensors[k]->op == SOMA_OP_ATTENTION && graph->tensors[k]->src[7];
        }
        assert_int_equal(attentions, i ? 0 : 2 + 2 + 2);        // an encoder's layer has one, the decoder's two
        assert_int_equal(drops, i ? 0 : 3 * 2 + 3 * 2 + 4 * 1); // behind each, within the feed-forward and behind it
        soma_graph_free(graph);
        soma__model_free(model);
        json_decref(config);
    }
}

static void test_diffusion(void **state) {
    learn_and_act("diffusion", 3); // of the 4 sampled, the first is of the step before
    float alone[MAX], still[MAX], moved[MAX];
    const int n = act("diffusion", NULL, alone).horizon * 2;
    act("diffusion", (int[]){5}, still);
    act("diffusion", (int[]){1}, moved);
    assert_true(apart(alone, still, n) == 0); // where nothing was seen before, the present stands for it
    assert_true(apart(alone, moved, n) > 0);
}

// A ResNet's file of its own, under torchvision's names.
static void test_backbone(void **state) {
    char file[SOMA_OPT_TEXT];
    soma_safetensor tensors[128];
    soma_error err = {0};
    size_t n = 0;
    soma_safetensors *st = weights_of("act");
    for (size_t i = 0; i < soma__safetensors_count(st); i++) {
        const soma_safetensor *t = soma__safetensors_at(st, i);
        if (strncmp(t->name, "backbone.", 9)) continue;
        tensors[n] = *t;
        tensors[n++].name = t->name + 9;
    }
    path(file, "resnet.safetensors");
    if (soma__safetensors_write(file, tensors, n, NULL, &err)) fail_msg("%s", err.text);
    soma_train_opts o = options("act", "begun");
    strcpy(o.vlm, file);
    o.steps = 0;
    o.seed = 99;
    watch w = {0};
    train(&o, &w, SOMA_OK);
    soma_safetensors *begun = weights_of("begun");
    for (size_t i = 0; i < n; i++) {
        char name[200];
        snprintf(name, sizeof name, "backbone.%s", tensors[i].name);
        const soma_safetensor *t = soma__safetensors_find(begun, name);
        if (!t || memcmp(t->data, tensors[i].data, (size_t)t->n_values * 4)) fail_msg("%s is not the file's", name);
    }
    soma__safetensors_close(begun);
    if (soma__safetensors_write(file, tensors, n - 3, NULL, &err)) fail_msg("%s", err.text); // all that is missing in one sentence
    o = options("act", "less");
    strcpy(o.vlm, file);
    if (soma_train(&o, NULL, NULL, &err) == SOMA_OK) fail_msg("a part of a ResNet was taken");
    for (size_t i = n - 3; i < n; i++)
        if (!strstr(err.text, tensors[i].name)) fail_msg("%s is not named: %s", tensors[i].name, err.text);
    soma__safetensors_close(st);
}

static void refuses(const char *family, const char *sizes, const char *part) {
    soma_train_opts o = options(family, "refused");
    soma_error err = {0};
    assert_int_equal(soma__file_write(o.model, sizes, strlen(sizes), NULL), SOMA_OK);
    if (soma_train(&o, NULL, NULL, &err) == SOMA_OK) fail_msg("%s was taken", sizes);
    if (!strstr(err.text, part)) fail_msg("%s: %s", sizes, err.text);
}

static void test_refusals(void **state) {
    refuses("act", "{\"dim_model\": 18, \"n_heads\": 4}", "dim_model is a multiple");
    refuses("act", "{\"vision_backbone\": \"resnet50\"}", "resnet18 and resnet34");
    refuses("act", "{\"dropout\": 1}", "dropout is 1, of 0 to below 1");
    refuses("act", "{\"feedforward_activation\": \"gelu\"}", "relu is known");
    refuses("diffusion", "{\"horizon\": 7, \"n_action_steps\": 2}", "need a multiple of 2");
    refuses("diffusion", "{\"crop_shape\": [84, 84]}", "crop_shape 84 x 84 of pictures of");
    refuses("diffusion", "{\"noise_scheduler_type\": \"DPM\"}", "known are DDPM, DDIM");
    soma_train_opts o = options("act", "refused");
    soma_error err = {0};
    o.mean_steps = 2;
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
    if (!strstr(err.text, "along no flow")) fail_msg("%s", err.text);
}

// A config that says other sizes than the weights: a chunk, a backbone of another depth.
static void test_contradictions(void **state) {
    char file[SOMA_OPT_TEXT], folder[SOMA_OPT_TEXT];
    json_t *config;
    soma_policy *policy;
    soma_error err = {0};
    path(file, "act/config.json");
    path(folder, "act");
    assert_int_equal(soma__json_load(&config, file, &err), SOMA_OK);
    json_object_set_new(config, "chunk_size", json_integer(9));
    json_object_set_new(json_object_get(config, "backbone"), "blocks_2", json_integer(3));
    assert_int_equal(soma__json_save(config, file, &err), SOMA_OK);
    json_decref(config);
    if (soma_policy_open(&policy, folder, NULL, &err) == SOMA_OK) fail_msg("a chunk of 9 was found in weights for 4");
    if (!strstr(err.text, "chunk_size") || !strstr(err.text, "blocks_2")) fail_msg("%s", err.text);
    path(file, "diffusion/config.json");
    path(folder, "diffusion");
    assert_int_equal(soma__json_load(&config, file, &err), SOMA_OK);
    json_object_set_new(config, "down_dims", json_pack("[i, i, i]", 16, 16, 16));
    json_object_set_new(json_object_get(config, "backbone"), "blocks_2", json_integer(3));
    assert_int_equal(soma__json_save(config, file, &err), SOMA_OK);
    json_decref(config);
    if (soma_policy_open(&policy, folder, NULL, &err) == SOMA_OK) fail_msg("a UNet of three levels was found in weights of two");
    if (!strstr(err.text, "down_dims") || !strstr(err.text, "blocks_2")) fail_msg("%s", err.text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_act),       cmocka_unit_test(test_dropout),
                                       cmocka_unit_test(test_diffusion), cmocka_unit_test(test_backbone),
                                       cmocka_unit_test(test_refusals),  cmocka_unit_test(test_contradictions)};
    return cmocka_run_group_tests(tests, make_dots, remove_dots);
}
