// SPDX-License-Identifier: Apache-2.0
// pi0-FAST around its graph: configs of both forms, the position that openpi's loop leaves out, and that leaving out what nobody sees
// changes no bit of the logits.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "policy/params.h"

#include <stdlib.h>
#include <string.h>

enum { SIDE = 8, L = 20, G = 3, V = 40 };

static const char *const tiny =
    "{\"model_type\": \"pi0_fast\", \"camera_order\": [\"a\", \"b\"], \"max_token_len\": 20, \"vocab_size\": 40, \"max_decoding_steps\": 3,"
    " \"fast_skip_tokens\": 2,"
    " \"paligemma\": {\"width\": 8, \"depth\": 2, \"mlp_dim\": 12, \"num_heads\": 2, \"num_kv_heads\": 1, \"head_dim\": 4},"
    " \"vision\": {\"hidden_size\": 8, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 12, \"patch_size\": 4,"
    " \"image_size\": 8}}";

static soma_status make(soma_model **m, const char *text, soma_error *err) {
    json_t *json;
    if (soma__json_parse(&json, text, strlen(text), "test", err)) fail_msg("%s", err->text);
    soma_status status = soma__model_new(m, json, "test", err);
    json_decref(json);
    return status;
}

static soma_model *good(const char *text) {
    soma_model *m;
    soma_error err = {0};
    if (make(&m, text, &err)) fail_msg("%s", err.text);
    return m;
}

static void configs(void **state) {
    soma_model *m = good("{\"model_type\": \"pi0_fast\"}");
    assert_int_equal(m->info.vocab, 257152);
    assert_int_equal(m->info.answer.skip, 128);
    assert_int_equal(m->info.answer.gap, 1);
    assert_false(m->info.answer.lerobot);
    soma__model_free(m);
    m = good(
        "{\"type\": \"pi0_fast\", \"chunk_size\": 50, \"n_action_steps\": 10, \"tokenizer_max_length\": 200, \"max_decoding_steps\": 64,"
        " \"fast_skip_tokens\": 128}"); // LeRobot's spelling means its form
    assert_true(m->info.answer.lerobot);
    assert_int_equal(m->info.answer.gap, 0);
    assert_int_equal(m->info.answer.max, 64);
    assert_int_equal(m->info.horizon, 10);
    assert_int_equal(soma__prompt_room(&m->info), 201);
    json_t *json = m->family->config(m); // what is written is read as the same
    soma_model *again;
    soma_error err = {0};
    assert_int_equal(soma__model_new(&again, json, "again", &err), SOMA_OK);
    assert_true(again->info.answer.lerobot);
    assert_int_equal(soma__prompt_room(&again->info), 201);
    json_decref(json);
    soma__model_free(again);
    soma__model_free(m);
    m = good("{\"model_type\": \"pi0_fast\", \"preset\": \"nano\"}");
    assert_int_equal(m->info.answer.gap, 0); // training leaves no position out
    soma__model_free(m);
    const char *const bad[][2] = {
        {"{\"model_type\": \"pi0_fast\", \"preset\": \"huge\"}", "nano"},
        {"{\"model_type\": \"pi0_fast\", \"position_gap\": 2}", "position_gap"},
        {"{\"model_type\": \"pi0_fast\", \"lerobot_form\": 1}", "lerobot_form"},
        {"{\"model_type\": \"pi0_fast\", \"max_decoding_steps\": 0}", "max_decoding_steps"},
        {"{\"model_type\": \"pi0_fast\", \"vocab_size\": 100, \"fast_skip_tokens\": 100}", "fast_skip_tokens"},
        {"{\"model_type\": \"pi0_fast\", \"action_expert\": {}, \"paligemma\": {\"widht\": 8}}", "widht"},
        {"{\"model_type\": \"pi0_fast\", \"vision\": {\"image_size\": 225}}", "patch_size"},
    };
    for (size_t i = 0; i < SOMA_COUNT(bad); i++) {
        assert_int_equal(make(&m, bad[i][0], &err), SOMA_BAD_INPUT);
        if (!strstr(err.text, bad[i][1])) fail_msg("%s", err.text);
    }
}

typedef struct inputs {
    uint8_t images[2 * SIDE * SIDE * 3], image_mask[2], token_mask[L];
    int32_t tokens[L];
} inputs;

static soma_batch batch_of(inputs *in, int n_text) {
    for (size_t i = 0; i < sizeof in->images; i++) in->images[i] = (uint8_t)(i * 31);
    for (int i = 0; i < L; i++) {
        in->tokens[i] = i < n_text ? 3 + i : 0;
        in->token_mask[i] = i < n_text;
    }
    return (soma_batch){.n = 1,
                        .draws = 1,
                        .image_dtype = SOMA_U8,
                        .images = in->images,
                        .image_mask = in->image_mask,
                        .tokens = in->tokens,
                        .token_mask = in->token_mask};
}

// 8 tokens of pictures and 7 of text end at position 14; the first written token stands at 16, or at 15 without the gap.
static void the_gap_is_a_switch(void **state) {
    for (int gap = 0; gap < 2; gap++) {
        soma_model *m = good(tiny);
        m->info.answer.gap = gap;
        inputs in = {.image_mask = {1, 1}};
        soma_batch b = batch_of(&in, 7);
        soma_feed feed = {0};
        assert_int_equal(m->family->prepare(m, &b, &feed, NULL), SOMA_OK);
        assert_int_equal(*(const int32_t *)soma__feed_find(&feed, "last.position")->data, 14);
        assert_int_equal(*(const int32_t *)soma__feed_find(&feed, "cache.position")->data, 15 + gap);
        assert_int_equal(*(const int32_t *)soma__feed_find(&feed, "cache.row")->data, 8 + L);
        soma__feed_free(&feed);
        soma__model_free(m);
    }
}

static void an_unknown_id_is_refused(void **state) {
    soma_model *m = good(tiny);
    inputs in = {.image_mask = {1, 1}};
    soma_batch b = batch_of(&in, 7);
    soma_feed feed = {0};
    soma_error err;
    in.tokens[4] = V;
    assert_int_equal(m->family->prepare(m, &b, &feed, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "token id 40"));
    soma__feed_free(&feed);
    soma__model_free(m);
}

// The first token's logits, and those after one written token.
static void logits_of(float out[2][V], const soma_model *m, soma_batch *b, const soma_saving *saving) {
    soma_error err = {0};
    soma_device *device;
    soma_graph *graphs[2];
    soma_plan *plans[2];
    soma_frame *frames[2];
    soma_layout states = {0};
    soma_params *params;
    soma_feed feed = {0};
    void *memory;
    b->saving = saving;
    assert_int_equal(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1, .isa = "plain"}, &err), SOMA_OK);
    for (int i = 0; i < 2; i++) {
        soma_build build = soma__build_defaults(i ? SOMA_PROGRAM_DECODE : SOMA_PROGRAM_ENCODE, 1);
        build.saving = saving;
        assert_int_equal(soma_graph_new(&graphs[i], &err), SOMA_OK);
        m->family->build(m, &build, graphs[i]);
        if (soma__layout_add(&states, graphs[i], SOMA_ROLE_STATE, &err)) fail_msg("%s", err.text);
    }
    assert_int_equal(soma__params_new(&params, device, (const soma_graph *const *)graphs, 2, &err), SOMA_OK);
    assert_int_equal(soma__params_init(params, 3, &err), SOMA_OK);
    assert_int_equal(device->kind->alloc(device, &memory, states.size, &err), SOMA_OK);
    assert_int_equal(m->family->prepare(m, b, &feed, &err), SOMA_OK);
    int32_t *row = soma__feed_find(&feed, "cache.row")->own, *keys = soma__feed_find(&feed, "cache.k_block")->own, token = 9;
    keys[*row] = 0;
    for (int i = 0; i < 2; i++) {
        if (soma__plan_new(&plans[i], graphs[i], &params->layout, &states, device, &err)) fail_msg("%s", err.text);
        assert_int_equal(soma__frame_new(&frames[i], plans[i], params->memory, NULL, memory, &err), SOMA_OK);
        for (size_t k = 0; k < feed.n_arrays; k++)
            if (soma__plan_find(plans[i], feed.arrays[k].name))
                assert_int_equal(soma__frame_put(frames[i], feed.arrays[k].name, feed.arrays[k].data, feed.arrays[k].size, &err), SOMA_OK);
        if (i) assert_int_equal(soma__frame_put(frames[i], "token", &token, sizeof token, &err), SOMA_OK);
        soma__frame_run(frames[i]);
        assert_int_equal(soma__frame_get(frames[i], "logits", out[i], sizeof out[i], &err), SOMA_OK);
    }
    for (int i = 0; i < 2; i++) {
        soma__frame_free(frames[i]);
        soma__plan_free(plans[i]);
        soma_graph_free(graphs[i]);
    }
    device->kind->free(device, memory);
    soma__layout_free(&states);
    soma__params_free(params);
    soma__feed_free(&feed);
    soma__device_close(device);
}

static void what_is_left_out_changes_no_bit(void **state) {
    soma_model *m = good(tiny);
    inputs in = {.image_mask = {0, 1}}; // the first camera is absent
    soma_batch b = batch_of(&in, 7);
    const soma_saving saving = soma__batch_saving(&m->info, &b, 1);
    assert_int_equal(saving.cameras, 2);
    assert_int_equal(saving.tokens, 16);
    float whole[2][V], saved[2][V];
    logits_of(whole, m, &b, NULL);
    logits_of(saved, m, &b, &saving);
    assert_memory_equal(saved, whole, sizeof whole);
    assert_memory_not_equal(whole[0], whole[1], sizeof whole[0]);
    soma__model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs),
        cmocka_unit_test(the_gap_is_a_switch),
        cmocka_unit_test(an_unknown_id_is_refused),
        cmocka_unit_test(what_is_left_out_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
