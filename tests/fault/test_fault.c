// SPDX-License-Identifier: Apache-2.0
// Each operation is run again and again, and each time another of its allocations (then of its file reads) fails, until none is left to
// fail. Every failure must come back as an error with a sentence; what was half made is released (the address sanitizer sees to that), and
// the operation succeeds afterwards.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "data/loader.h"
#include "toy_dataset.h"
#include "policy/policy.h"
#include "text/prompt.h"
#include "transform/normalise.h"
#include "transform/resize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char root[] = "/tmp/soma_fault_XXXXXX";

static const char *in_root(const char *name) {
    static char paths[4][SOMA_PATH_MAX];
    static int next;
    char *path = paths[next++ % 4];
    assert_int_equal(soma__path_join(path, root, name, NULL), SOMA_OK);
    return path;
}

// The whole of some piece of work, from nothing to nothing; what it leaves on the disk it overwrites the next time.
typedef soma_status operation(soma_error *err);

// `stride`: 1 for every allocation; more where a run takes long.
static void each_allocation(const char *name, int stride, operation *run) {
    int64_t n = 0, most = 1000000;
    for (; n < most; n += stride) {
        soma_error err = {0};
        uint64_t before = soma__alloc_count();
        soma__alloc_fail_after(n);
        soma_status status = run(&err);
        soma__alloc_fail_after(-1);
        bool fired = soma__alloc_count() - before > (uint64_t)n;
        if (!fired && status != SOMA_OK) fail_msg("%s fails where nothing was made to: %s", name, err.text);
        if (!fired) break;
        if (status == SOMA_OK) fail_msg("%s: allocation %lld failed and nobody said so", name, (long long)n);
        if (status != SOMA_NO_MEMORY || err.code != status || !err.text[0])
            fail_msg("%s: allocation %lld: %s: \"%s\"", name, (long long)n, soma_status_word(status), err.text);
    }
    assert_true(n > 0 && n < most);
    print_message("%s: every %d. of some %lld allocations failed once\n", name, stride, (long long)n);
}

static void each_read(const char *name, operation *run) {
    int64_t n = 0, most = 1000;
    for (; n < most; n++) {
        soma_error err = {0};
        soma__file_fail_after(n);
        soma_status status = run(&err);
        soma__file_fail_after(-1);
        if (status == SOMA_OK) break;
        if (status != SOMA_IO || !strstr(err.text, root))
            fail_msg("%s: read %lld: %s: \"%s\"", name, (long long)n, soma_status_word(status), err.text);
    }
    assert_true(n > 0 && n < most);
    print_message("%s: each of %lld reads failed once\n", name, (long long)n);
}

// ---- words, statistics, tensors, pictures

static soma_status vocabulary(soma_error *err) {
    static const char *const prompts[] = {"touch the red cube", "touch the blue cube"};
    static const double state[] = {0, 1};
    soma_text *made = NULL, *read = NULL;
    int32_t ids[40];
    uint8_t mask[40];
    size_t needed;
    soma_str s = {0};
    soma_status status = soma__text_from_prompts(&made, prompts, 2, err);
    if (status == SOMA_OK) status = soma__text_save(made, in_root("vocab.json"), err);
    if (status == SOMA_OK) status = soma__text_open(&read, root, err);
    if (status == SOMA_OK) status = soma__prompt_encode(read, SOMA_PROMPT_PI05, prompts[0], state, 2, ids, mask, 40, &needed, err);
    if (status == SOMA_OK) status = soma__text_decode(read, ids, needed, &s, err);
    soma__str_free(&s);
    soma__text_close(made);
    soma__text_close(read);
    return status;
}

static soma_status statistics(soma_error *err) {
    static const double mean[] = {1, 2}, std[] = {1, 3};
    static const soma_norm norms[] = {{.key = "state", .size = 2, .mean = mean, .std = std},
                                      {.key = "actions", .size = 2, .mean = mean, .std = std, .q01 = mean, .q99 = std}};
    soma_norm_stats *made = NULL, *read = NULL;
    soma_status status = soma__norm_stats_new(&made, norms, 1, "here", err);
    soma__norm_stats_free(made);
    made = NULL;
    if (status == SOMA_OK) status = soma__norm_stats_new(&made, norms, 1, "here", err);
    if (status == SOMA_OK) status = soma__norm_stats_write(made, in_root("norm_stats.json"), err);
    if (status == SOMA_OK) status = soma__norm_stats_read(&read, in_root("norm_stats.json"), err);
    soma__norm_stats_free(made);
    soma__norm_stats_free(read);
    return status;
}

static soma_status tensors(soma_error *err) {
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    const soma_safetensor list[] = {{.name = "a", .dtype = SOMA_F32, .n_dims = 2, .shape = {2, 3}, .data = values},
                                    {.name = "b", .dtype = SOMA_U8, .n_dims = 1, .shape = {24}, .data = values}};
    soma_safetensors *st = NULL;
    soma_status status = soma__safetensors_write(in_root("t.safetensors"), list, 2, NULL, err);
    if (status == SOMA_OK) status = soma__safetensors_open(&st, in_root("t.safetensors"), err);
    soma__safetensors_close(st);
    return status;
}

static soma_status pictures(soma_error *err) {
    static uint8_t in[40 * 30 * 3];
    static float out[16 * 16 * 3];
    for (int rule = SOMA_RESIZE_PIL; rule <= SOMA_RESIZE_LEROBOT; rule++) {
        soma_resizer *r;
        SOMA_TRY(soma__resizer_new(&r, (soma_resize_rule)rule, 40, 30, 16, 16, err));
        soma__resizer_f32(r, in, out);
        soma__resizer_free(r);
    }
    return SOMA_OK;
}

static void test_small(void **state) {
    each_allocation("vocabulary", 1, vocabulary);
    each_read("vocabulary", vocabulary);
    each_allocation("statistics", 1, statistics);
    each_read("statistics", statistics);
    each_allocation("tensors", 1, tensors);
    each_read("tensors", tensors);
    each_allocation("pictures", 1, pictures);
}

// ---- a dataset

enum { SIDE = 16, FRAMES = 4 };

static int n_frames(int episode) { return FRAMES; }
static const char *task(int episode) { return "touch the red cube"; }
static void frame_of(int episode, int f, float *pose, float *action, uint8_t *picture) {
    pose[0] = (float)f, pose[1] = 1;
    action[0] = -(float)f;
    memset(picture, 40 * f, SIDE * SIDE * 3);
}

static soma_status write_dataset(soma_error *err) {
    static const char *const names[] = {"a", "b"};
    const toy_dataset toy = {2, 1, SIDE, 20, names, 1, 0, n_frames, task, frame_of};
    if (soma__dir_exists(in_root("demos"))) SOMA_TRY(soma__dir_remove(in_root("demos"), err));
    return write_toy_dataset(&toy, in_root("demos"), err);
}

static soma_status read_dataset(soma_error *err) {
    soma_dataset *d = NULL;
    soma_dataset_reader *r = NULL;
    float pose[FRAMES * 2];
    uint8_t image[SIDE * SIDE * 3];
    soma_status status = soma__dataset_open(&d, in_root("demos"), err);
    if (status == SOMA_OK) status = d->format->reader_open(&r, d, err);
    if (status == SOMA_OK) status = d->format->read_vectors(r, 0, soma__dataset_feature(d, "observation.state"), pose, err);
    if (status == SOMA_OK) status = d->format->read_image(r, 0, 2, soma__dataset_feature(d, "observation.images.scene"), image, err);
    if (d && r) d->format->reader_close(r);
    soma__dataset_close(d);
    return status;
}

static soma_status load_batches(soma_error *err) {
    static const int64_t episodes[] = {0};
    soma_dataset *d = NULL;
    soma_loader *loader = NULL;
    const soma_loader_batch *batch;
    soma_status status = soma__dataset_open(&d, in_root("demos"), err);
    if (status == SOMA_OK) {
        soma_loader_opts o = soma__loader_defaults();
        o.state = soma__dataset_feature(d, "observation.state");
        o.action = soma__dataset_feature(d, "action");
        o.n_cameras = 1;
        o.cameras[0] = soma__dataset_feature(d, "observation.images.scene");
        o.episodes = episodes;
        o.n_episodes = 1;
        o.horizon = 2;
        o.batch = 2;
        status = soma__loader_open(&loader, d, &o, err);
    }
    if (status == SOMA_OK) status = soma__loader_next(loader, &batch, err);
    soma__loader_close(loader);
    soma__dataset_close(d);
    return status;
}

static void test_dataset(void **state) {
    soma_error err = {0};
    each_allocation("writing a dataset", 23, write_dataset);
    if (write_dataset(&err)) fail_msg("%s", err.text);
    each_allocation("reading a dataset", 5, read_dataset);
    each_read("reading a dataset", read_dataset);
    each_allocation("loading batches", 7, load_batches);
    each_read("loading batches", load_batches);
}

// ---- a policy, of a size that opens in a blink

#define POLICY(type, stacks)                                                                                                              \
    "{\"model_type\": \"" type                                                                                                            \
    "\", \"preset\": \"nano\", \"action_dim\": 2, \"state_dim\": 2, \"action_horizon\": 3, \"max_token_len\": 8, "                        \
    "\"camera_order\": [\"scene\"], " stacks ", \"vision\": {\"hidden_size\": 16, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, " \
    "\"intermediate_size\": 16, \"patch_size\": 8, \"image_size\": 16}, \"robot\": {\"n_state\": 2, \"n_actions\": 2, \"rate\": 20, "     \
    "\"normalise\": \"openpi_zscore\", \"cameras\": [\"scene\"], \"delta\": [false, false]}}"
static const char pi0[] = POLICY(
    "pi0", "\"paligemma\": {\"width\": 16, \"depth\": 2, \"mlp_dim\": 16, \"num_heads\": 2, \"num_kv_heads\": 1, \"head_dim\": 8}, "
           "\"action_expert\": {\"width\": 16, \"depth\": 2, \"mlp_dim\": 16, \"num_heads\": 2, \"num_kv_heads\": 1, \"head_dim\": 8}"),
                  smolvla[] = POLICY("smolvla", "\"num_vlm_layers\": 2, \"text\": {\"width\": 16, \"mlp_dim\": 16, \"num_heads\": 2, "
                                                "\"num_kv_heads\": 1, \"head_dim\": 8}, \"expert\": {\"width\": 16, \"mlp_dim\": 16}");
static const char norm_stats[] =
    "{\"norm_stats\": {\"state\": {\"mean\": [0, 0], \"std\": [1, 1]}, \"actions\": {\"mean\": [0, 0], \"std\": [1, 1]}}}";

static soma_status make_policy(const char *config, soma_error *err) {
    static const char *const prompts[] = {"touch the red cube"};
    soma_text *text;
    json_t *json;
    soma_model *model;
    soma_device *device;
    soma_graph *graphs[2];
    soma_params *params;
    SOMA_TRY(soma__dir_make(in_root("policy"), err));
    SOMA_TRY(soma__file_write(in_root("policy/config.json"), config, strlen(config), err));
    SOMA_TRY(soma__file_write(in_root("policy/norm_stats.json"), norm_stats, sizeof norm_stats - 1, err));
    SOMA_TRY(soma__text_from_prompts(&text, prompts, 1, err));
    SOMA_TRY(soma__text_save(text, in_root("policy/vocab.json"), err));
    soma__text_close(text);
    SOMA_TRY(soma__json_parse(&json, config, strlen(config), "config", err));
    SOMA_TRY(soma__model_new(&model, json, "config", err));
    SOMA_TRY(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1}, err));
    for (int i = 0; i < 2; i++) {
        SOMA_TRY(soma_graph_new(&graphs[i], err));
        soma_build build = soma__build_defaults(i ? SOMA_PROGRAM_DENOISE : SOMA_PROGRAM_ENCODE, 1);
        model->family->build(model, &build, graphs[i]);
    }
    SOMA_TRY(soma__params_new(&params, device, (const soma_graph *const *)graphs, 2, err));
    SOMA_TRY(soma__params_init(params, 1, err));
    SOMA_TRY(soma__params_save(params, NULL, in_root("policy/model.safetensors"), NULL, err));
    soma__params_free(params);
    soma_graph_free(graphs[0]);
    soma_graph_free(graphs[1]);
    soma__device_close(device);
    soma__model_free(model);
    json_decref(json);
    return SOMA_OK;
}

static soma_status act(soma_error *err) {
    static uint8_t pixels[20 * 12 * 3];
    static const float pose[] = {0.5f, -0.5f};
    const soma_obs obs = {
        .prompt = "touch the red cube", .state = pose, .n_state = 2, .n_images = 1, .images = {{"scene", pixels, 20, 12}}};
    soma_policy *policy = NULL;
    soma_pilot *pilot = NULL;
    soma_actions actions;
    soma_policy_opts po = soma_policy_defaults();
    soma_pilot_opts o = soma_pilot_defaults();
    po.threads = 1;
    o.steps = 2;
    soma_status status = soma_policy_open(&policy, in_root("policy"), &po, err);
    if (status == SOMA_OK) status = soma_pilot_new(&pilot, policy, &o, err);
    if (status == SOMA_OK) status = soma_pilot_act(pilot, &obs, &actions, err);
    if (status == SOMA_OK) assert_true(isfinite(actions.values[0]));
    soma_pilot_free(pilot);
    soma_policy_close(policy);
    return status;
}

static void act_without(const char *config, const char *what) {
    soma_error err = {0};
    if (make_policy(config, &err)) fail_msg("%s", err.text);
    if (act(&err)) fail_msg("%s", err.text);
    each_allocation(what, 1, act);
    each_read(what, act);
}

static void test_pi0(void **state) { act_without(pi0, "opening a policy and acting"); }
static void test_smolvla(void **state) { act_without(smolvla, "opening a SmolVLA and acting"); }

static int setup(void **state) { return mkdtemp(root) == NULL; }
static int teardown(void **state) { return soma__dir_remove(root, NULL); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_small), cmocka_unit_test(test_dataset), cmocka_unit_test(test_pi0),
                                       cmocka_unit_test(test_smolvla)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
