// SPDX-License-Identifier: Apache-2.0
// A policy that writes its chunk as tokens, opened from a folder and flown on random weights: what a random policy writes is malformed and
// told so, a constrained one keeps to the format, batches write what single calls write, and seeds decide what is drawn.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "policy/policy.h"
#include "policy/written.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 8, S = 2, A = 3 };
static char dir[] = "/tmp/soma_test_written_XXXXXX";
static uint8_t picture[2][SIDE * SIDE * 3];
static const float place[] = {0.25f, -0.5f};

// Bins as the action tokenizer: S A codes make a chunk.
static const char *const config_text =
    "{\"model_type\": \"pi0_fast\", \"preset\": \"nano\", \"lerobot_form\": %s, \"camera_order\": [\"scene\"], \"action_horizon\": 2,"
    " \"action_dim\": 4, \"max_token_len\": 24, \"vocab_size\": 64, \"max_decoding_steps\": 12, \"fast_skip_tokens\": 3,"
    " \"paligemma\": {\"width\": 16, \"depth\": 2, \"mlp_dim\": 24, \"num_heads\": 2, \"num_kv_heads\": 1, \"head_dim\": 8},"
    " \"vision\": {\"hidden_size\": 8, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 12, \"patch_size\": 4,"
    " \"image_size\": 8},"
    " \"robot\": {\"n_state\": 2, \"n_actions\": 3, \"cameras\": [\"scene\"], \"normalise\": \"identity\"}}";

static void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

// tied: the config does not say, the tensors do
static void write_weights(const json_t *config, bool tied) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_model *model;
    soma_layout layout = {0};
    json_t *said = json_copy((json_t *)config);
    json_object_set_new(said, "tie_word_embeddings", json_boolean(tied));
    ok(soma__model_new(&model, said, "config", &err), &err);
    ok(soma__model_weights(&layout, model, true, &err), &err);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ok(soma__params_write_random(&layout, NULL, 5, SOMA_F32, path, NULL, NULL, &err), &err);
    soma__layout_free(&layout);
    soma__model_free(model);
    json_decref(said);
}

static void write_folder(const char *lerobot) {
    char text[2048], path[SOMA_PATH_MAX];
    soma_error err = {0};
    json_t *config;
    soma_text *words;
    soma_fast *bins;
    const char *prompts[] = {"touch the red cube", "push it"};
    snprintf(text, sizeof text, config_text, lerobot);
    ok(soma__json_parse(&config, text, strlen(text), "config", &err), &err);
    snprintf(path, sizeof path, "%s/config.json", dir);
    ok(soma__json_save(config, path, &err), &err);
    write_weights(config, true);
    ok(soma__text_from_prompts(&words, prompts, 2, &err), &err);
    snprintf(path, sizeof path, "%s/vocab.json", dir);
    ok(soma__text_save(words, path, &err), &err);
    ok(soma__fast_bins(&bins, 16, &err), &err);
    snprintf(path, sizeof path, "%s/fast", dir);
    ok(soma__fast_save(bins, path, &err), &err);
    soma__fast_close(bins);
    soma__text_close(words);
    json_decref(config);
}

static int make_folder(void **state) {
    if (!mkdtemp(dir)) return 1;
    for (size_t i = 0; i < sizeof picture; i++) picture[i / sizeof *picture][i % sizeof *picture] = (uint8_t)(i * 37 % 251);
    write_folder("false");
    return 0;
}
static int remove_folder(void **state) { return soma__dir_remove(dir, NULL) != SOMA_OK; }

static soma_policy *open_policy(void) {
    soma_policy *p;
    soma_error err;
    soma_policy_opts o = soma_policy_defaults();
    strcpy(o.dtype, "f32");
    strcpy(o.isa, "plain");
    o.threads = 1;
    if (soma_policy_open(&p, dir, &o, &err)) fail_msg("%s", err.text);
    return p;
}

static soma_pilot *new_pilot(const soma_policy *p, int64_t seed, double temperature, const char *constrain) {
    soma_pilot *pilot;
    soma_error err;
    soma_pilot_opts o = soma_pilot_defaults();
    o.seed = seed;
    o.temperature = temperature;
    strcpy(o.constrain, constrain);
    if (soma_pilot_new(&pilot, p, &o, &err)) fail_msg("%s", err.text);
    return pilot;
}

static soma_obs observation(const char *prompt, int which) {
    return (soma_obs){.prompt = prompt, .state = place, .n_state = 2, .n_images = 1, .images = {{"scene", picture[which], SIDE, SIDE}}};
}

static soma_actions act(soma_pilot *pilot, const char *prompt, float out[S * A]) {
    soma_obs obs = observation(prompt, 0);
    soma_actions a;
    soma_error err;
    if (soma_pilot_act(pilot, &obs, &a, &err)) fail_msg("%s", err.text);
    assert_int_equal(a.horizon, S);
    assert_int_equal(a.n_actions, A);
    memcpy(out, a.values, S * A * sizeof *out);
    return a;
}

// A random policy knows no format: it is told, and the chunk is zeros.
static void what_is_malformed_is_told(void **state) {
    soma_policy *p = open_policy();
    soma_pilot *pilot = new_pilot(p, 1, 0, "");
    float out[S * A], zeros[S * A] = {0};
    soma_actions a = act(pilot, "touch the red cube", out);
    assert_non_null(a.flaw);
    assert_non_null(strstr(a.flaw, "Action"));
    assert_memory_equal(out, zeros, sizeof zeros);
    soma_pilot_free(pilot);
    soma_policy_close(p);
}

// It never is without its head; codes that make no chunk are told.
static void a_constrained_answer_has_the_format(void **state) {
    soma_policy *p = open_policy();
    for (int seed = 0; seed < 20; seed++) {
        soma_pilot *pilot = new_pilot(p, seed, 1.5, "grammar");
        float out[S * A];
        soma_actions a = act(pilot, "touch the red cube", out);
        if (a.flaw) assert_true(strstr(a.flaw, "codes") || strstr(a.flaw, "|"));
        soma_pilot_free(pilot);
    }
    soma_policy_close(p);
}

// Prompts of different lengths side by side: positions, masks and cache rows are each row's own.
static void a_batch_writes_what_single_calls_write(void **state) {
    soma_policy *p = open_policy();
    const char *prompts[] = {"touch the red cube", "push it", "touch touch touch the the red"};
    float alone[3][S * A];
    soma_pilot *pilots[3];
    soma_obs obs[3];
    soma_actions actions[3];
    soma_error err;
    bool differ = false;
    for (int i = 0; i < 3; i++) {
        soma_pilot *pilot = new_pilot(p, i, 1, "grammar");
        act(pilot, prompts[i], alone[i]);
        soma_pilot_free(pilot);
        pilots[i] = new_pilot(p, i, 1, "grammar");
        obs[i] = observation(prompts[i], 0);
        differ |= memcmp(alone[i], alone[0], sizeof alone[0]) != 0;
    }
    assert_true(differ);
    ok(soma_policy_act_many(p, 3, pilots, obs, actions, &err), &err);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < S * A; k++) assert_float_equal(actions[i].values[k], alone[i][k], 1e-6);
        soma_pilot_free(pilots[i]);
    }
    soma_policy_close(p);
}

// In LeRobot's form, where any codes make a chunk.
static void seeds_decide_what_is_drawn(void **state) {
    write_folder("true");
    soma_policy *p = open_policy();
    float out[6][S * A];
    const int64_t seeds[] = {3, 3, 4, 5, 6, 7};
    bool differ = false;
    for (int i = 0; i < 6; i++) {
        soma_pilot *pilot = new_pilot(p, seeds[i], 2, "grammar");
        act(pilot, "push it", out[i]);
        soma_pilot_free(pilot);
        differ |= memcmp(out[i], out[0], sizeof out[0]) != 0;
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_true(differ);
    soma_policy_close(p);
    write_folder("false");
}

static void a_warm_call_allocates_nothing(void **state) {
    soma_policy *p = open_policy();
    soma_pilot *pilot = new_pilot(p, 1, 0, "grammar");
    float out[S * A];
    act(pilot, "push it", out);
    uint64_t before = soma__alloc_count();
    act(pilot, "push it", out);
    // the prompt's text holds the state and is made anew
    print_message("%llu allocations in a warm call\n", (unsigned long long)(soma__alloc_count() - before));
    assert_true(soma__alloc_count() - before < 8);
    soma_pilot_free(pilot);
    soma_policy_close(p);
}

static void lerobots_form_flies_too(void **state) {
    write_folder("true");
    soma_policy *p = open_policy();
    soma_pilot *pilot = new_pilot(p, 1, 0, "grammar");
    float out[S * A];
    soma_actions a = act(pilot, "push it", out);
    assert_true(!a.flaw || !strstr(a.flaw, "Action")); // relaxed: cut or padded to a chunk
    soma_pilot_free(pilot);
    soma_policy_close(p);
    write_folder("false");
}

static void what_is_wrong_is_refused(void **state) {
    soma_policy *p = open_policy();
    soma_pilot *pilot;
    soma_error err;
    soma_pilot_opts o = soma_pilot_defaults();
    o.temperature = NAN;
    assert_int_equal(soma_pilot_new(&pilot, p, &o, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "temperature"));
    o = soma_pilot_defaults();
    strcpy(o.constrain, "gramar");
    assert_int_equal(soma_pilot_new(&pilot, p, &o, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "grammar"));
    soma_pilot *two[] = {new_pilot(p, 0, 0, ""), new_pilot(p, 0, 1, "")};
    soma_obs obs[] = {observation("push it", 0), observation("push it", 0)};
    soma_actions actions[2];
    assert_int_equal(soma_policy_act_many(p, 2, two, obs, actions, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "temperature"));
    soma_pilot_free(two[0]);
    soma_pilot_free(two[1]);
    soma_policy_close(p);
    char fast[SOMA_PATH_MAX];
    snprintf(fast, sizeof fast, "%s/fast", dir);
    ok(soma__dir_remove(fast, &err), &err);
    assert_int_equal(soma_policy_open(&p, dir, NULL, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "--action-tokenizer"));
    write_folder("false");
}

// A table beside the head, and a config that contradicts the tensors.
static void tensors_tell_the_rest(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    json_t *config;
    snprintf(path, sizeof path, "%s/config.json", dir);
    ok(soma__json_load(&config, path, &err), &err);
    for (int tied = 0; tied < 2; tied++) {
        write_weights(config, tied);
        soma_policy *p = open_policy();
        json_t *known = soma__policy_model(p)->family->config(soma__policy_model(p));
        assert_int_equal(json_is_true(json_object_get(known, "tie_word_embeddings")), tied);
        json_decref(known);
        soma_policy_close(p);
    }
    soma_policy *p;
    json_object_set_new(json_object_get(config, "paligemma"), "depth", json_integer(3));
    ok(soma__json_save(config, path, &err), &err);
    assert_int_equal(soma_policy_open(&p, dir, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "paligemma.depth"));
    json_decref(config);
    write_folder("false");
}

// ---- one choice

static void choices(void **state) {
    const float logits[] = {0.5f, 3, -1, 3, 2};
    soma_decode d = {.vocab = 5};
    assert_int_equal(soma__decode_choose(&d, logits, NULL, 0, NULL), 1); // of equals the smallest
    d.temperature = 1;
    double all = 0, p[5];
    int count[5] = {0};
    enum { N = 20000 };
    for (int i = 0; i < 5; i++) all += exp(logits[i]);
    for (int i = 0; i < 5; i++) p[i] = exp(logits[i]) / all;
    soma_rng rng = soma__rng(11);
    for (int i = 0; i < N; i++) count[soma__decode_choose(&d, logits, NULL, 0, &rng)]++;
    for (int i = 0; i < 5; i++) assert_true(fabs(count[i] / (double)N - p[i]) < 5 * sqrt(p[i] / N)); // five standard deviations
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_malformed_is_told),
        cmocka_unit_test(a_constrained_answer_has_the_format),
        cmocka_unit_test(a_batch_writes_what_single_calls_write),
        cmocka_unit_test(seeds_decide_what_is_drawn),
        cmocka_unit_test(a_warm_call_allocates_nothing),
        cmocka_unit_test(lerobots_form_flies_too),
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(tensors_tell_the_rest),
        cmocka_unit_test(choices),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
