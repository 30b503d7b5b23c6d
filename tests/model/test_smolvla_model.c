// SPDX-License-Identifier: Apache-2.0
// SmolVLA around its graph: configs of soma's and LeRobot's making, what a file's tensors say about the sizes, masks and positions, and
// what stands in a released checkpoint.
#include "model/configs.h"

#include <stdlib.h>

static int64_t values_in(const soma_layout *layout, const char *but) {
    int64_t n = 0;
    for (size_t i = 0; i < layout->n_slots; i++)
        if (!but || strncmp(layout->slots[i].name, but, strlen(but))) n += soma__slot_count(&layout->slots[i]);
    return n;
}

// LeRobot's training log says "num_learnable_params=99880992 (100M)" and "num_total_params=450046176 (450M)".
static void base_has_the_published_size(void **state) {
    soma_model *m = good("{\"type\": \"smolvla\", \"chunk_size\": 50, \"resize_imgs_with_padding\": [512, 512], \"num_expert_layers\": 0}");
    soma_layout layout = {0};
    soma_error err = {0};
    assert_int_equal(m->info.horizon, 50);
    assert_int_equal(m->info.image_size, 512);
    assert_true(m->info.state_input);
    ok(soma__model_weights(&layout, m, true, &err), &err);
    assert_int_equal(values_in(&layout, NULL), 450046176);
    assert_int_equal(values_in(&layout, "vlm_with_expert.vlm."), 99880992);
    soma__layout_free(&layout);
    soma__model_free(m);
}

static void config_survives_a_round_trip(void **state) {
    soma_model *m = good("{\"model_type\": \"smolvla\", \"preset\": \"nano\", \"state_dim\": 5, \"self_attn_every_n_layers\": 3}");
    hold_round_trip(m);
    soma__model_free(m);
}

static void wrong_configs_are_told(void **state) {
    static const wrong_config wrong[] = {
        {"{\"type\": \"smolvla\", \"preset\": \"huge\"}", "nano"},
        {"{\"type\": \"smolvla\", \"chunk_size\": 0}", "chunk_size"},
        {"{\"type\": \"smolvla\", \"text\": {\"depth\": 3}}", "depth"},
        {"{\"type\": \"smolvla\", \"text\": {\"num_heads\": 4}}", "num_kv_heads"},
        {"{\"type\": \"smolvla\", \"scale_factor\": 5}", "scale_factor"},
        {"{\"type\": \"smolvla\", \"expert\": {\"width\": 721}}", "even"},
        {"{\"type\": \"smolvla\", \"num_expert_layers\": 8}", "num_expert_layers"},
        {"{\"type\": \"smolvla\", \"add_image_special_tokens\": true}", "add_image_special_tokens"},
        {"{\"type\": \"smolvla\", \"adapt_to_pi_aloha\": true}", "--robot"},
        {"{\"type\": \"smolvla\", \"rms_norm_eps\": 0}", "psilon"},
    };
    hold_wrong(wrong, SOMA_COUNT(wrong));
}

// ---- what tensors say

static int shape_in_layout(const void *ctx, const char *name, int64_t shape[SOMA_MAX_DIMS]) {
    const soma_slot *slot = soma__layout_find(ctx, name);
    if (slot) memcpy(shape, slot->shape, sizeof slot->shape);
    return slot ? slot->n_dims : -1;
}

static soma_shapes as_layout(void *ctx, const soma_family *family) { return (soma_shapes){shape_in_layout, ctx}; }

static soma_status recognise(json_t *config, const char *published, soma_error *err) {
    soma_model *m = good(published);
    soma_layout layout = {0};
    ok(soma__model_weights(&layout, m, true, err), err);
    soma_status status = soma__model_recognise(config, as_layout, &layout, "the config", err);
    soma__layout_free(&layout);
    soma__model_free(m);
    return status;
}

static const char smaller[] =
    "{\"type\": \"smolvla\", \"num_vlm_layers\": 6, \"vocab_size\": 300, \"chunk_size\": 7, \"max_action_dim\": 9,"
    " \"text\": {\"width\": 576, \"mlp_dim\": 1536, \"num_heads\": 9, \"num_kv_heads\": 3},"
    " \"expert\": {\"width\": 432, \"mlp_dim\": 1280}, \"vision\": {\"num_hidden_layers\": 2}}";

// LeRobot's config names the language model; its sizes are read off the weights.
static void sizes_come_from_the_tensors(void **state) {
    json_t *config = parse("{\"type\": \"smolvla\", \"chunk_size\": 7, \"resize_imgs_with_padding\": [512, 512], \"num_vlm_layers\": -1,"
                           " \"expert_width_multiplier\": 0.75}");
    soma_error err = {0};
    soma_model *found = NULL, *meant = good(smaller);
    ok(recognise(config, smaller, &err), &err);
    ok(soma__model_new(&found, config, "the config", &err), &err);
    json_t *a = found->family->config(found), *b = meant->family->config(meant);
    char *is = json_dumps(a, JSON_COMPACT), *should = json_dumps(b, JSON_COMPACT);
    assert_string_equal(is, should);
    free(is);
    free(should);
    json_decref(a);
    json_decref(b);
    json_decref(config);
    soma__model_free(found);
    soma__model_free(meant);
    json_t *nothing = json_object();
    ok(recognise(nothing, smaller, &err), &err); // a file without a config
    assert_string_equal(json_string_value(json_object_get(nothing, "model_type")), "smolvla");
    json_decref(nothing);
}

static void contradictions_are_told_together(void **state) {
    json_t *config =
        parse("{\"type\": \"smolvla\", \"num_vlm_layers\": 16, \"max_action_dim\": 32, \"resize_imgs_with_padding\": [224, 224]}");
    soma_error err = {0};
    assert_int_equal(recognise(config, smaller, &err), SOMA_BAD_INPUT);
    static const char *const words[] = {"\"num_vlm_layers\" is 16", "says 6", "max_action_dim", "image_size", "224"};
    for (size_t i = 0; i < SOMA_COUNT(words); i++)
        if (!strstr(err.text, words[i])) fail_msg("no %s: %s", words[i], err.text);
    json_decref(config);
    config = parse("{\"type\": \"smolvla\", \"resize_imgs_with_padding\": null}");
    assert_int_equal(recognise(config, smaller, &err), SOMA_UNSUPPORTED);
    json_decref(config);
    config = parse("{\"type\": \"pi0\"}");
    soma_status status = recognise(config, smaller, &err); // pi0 does not know these
    assert_true(status == SOMA_OK || status == SOMA_BAD_INPUT);
    json_decref(config);
}

// ---- masks and positions

// Two cameras of one token, three words, the state, two actions.
static void masks_and_positions(void **state) {
    soma_model *m =
        good("{\"model_type\": \"smolvla\", \"preset\": \"nano\", \"action_horizon\": 2, \"action_dim\": 3, \"max_token_len\": 3,"
             " \"vision\": {\"image_size\": 16}}");
    soma_feed feed = {0};
    soma_error err = {0};
    static const uint8_t pixels[2 * 16 * 16 * 3], image_mask[] = {0, 1}, token_mask[] = {1, 1, 0};
    static const int32_t tokens[] = {1, 2, 0};
    static const float robot[3];
    soma_batch b = {.n = 1,
                    .image_dtype = SOMA_U8,
                    .images = pixels,
                    .image_mask = image_mask,
                    .tokens = tokens,
                    .token_mask = token_mask,
                    .state = robot};
    ok(m->family->prepare(m, &b, &feed, &err), &err);
    enum { X = SOMA_BLOCK_NEVER };
    hold_i32(&feed, "prefix.k_block", (int32_t[]){X, 0, 0, 0, X, 1}, 6);
    hold_i32(&feed, "prefix.q_block", (int32_t[]){0, 0, 0, 0, 0, 1}, 6); // what stands before the state does not see it
    hold_i32(&feed, "prefix.position", (int32_t[]){-1, 0, 1, 2, 2, 3}, 6);
    hold_i32(&feed, "suffix.position", (int32_t[]){4, 5}, 2);
    hold_i32(&feed, "suffix.q_block", (int32_t[]){2, 3}, 2); // an action sees those before it, not those behind it
    hold_i32(&feed, "suffix.k_block", (int32_t[]){X, 0, 0, 0, X, 1, 2, 3}, 8);
    hold_i32(&feed, "across.position", (int32_t[]){0, 1}, 2);
    hold_i32(&feed, "across.k_block", (int32_t[]){X, 0, 0, 0, X, 1}, 6);
    uint64_t before = soma__alloc_count();
    ok(m->family->prepare(m, &b, &feed, &err), &err);
    assert_int_equal(soma__alloc_count(), before);
    soma__feed_free(&feed);
    soma__model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(base_has_the_published_size),      cmocka_unit_test(config_survives_a_round_trip),
                                       cmocka_unit_test(wrong_configs_are_told),           cmocka_unit_test(sizes_come_from_the_tensors),
                                       cmocka_unit_test(contradictions_are_told_together), cmocka_unit_test(masks_and_positions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
