// SPDX-License-Identifier: Apache-2.0
// pi0, and SmolVLA where it denoises alike, around their graphs: configs, masks and positions, draws that share a prefix, weights from and
// to files.
#include "model/configs.h"

#include "base/file.h"
#include "base/rng.h"
#include "policy/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Two cameras of 4 patches, 3 words, chunks of 2 actions: small enough to write its masks down.
#define TINY                                                                                                                              \
    "\"preset\": \"nano\", \"action_horizon\": 2, \"action_dim\": 3, \"state_dim\": 5, \"max_token_len\": 3, \"vocab_size\": 11,"         \
    "\"paligemma\": {\"width\": 16, \"depth\": 2, \"mlp_dim\": 24, \"num_heads\": 2, \"head_dim\": 8},"                                   \
    "\"action_expert\": {\"width\": 12, \"depth\": 2, \"mlp_dim\": 20, \"num_heads\": 2, \"head_dim\": 8},"                               \
    "\"vision\": {\"hidden_size\": 16, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 24, \"patch_size\": " \
    "4, "                                                                                                                                 \
    "\"image_size\": 8}"
#define TINY_SMOLVLA                                                                                                                      \
    "{\"model_type\": \"smolvla\", \"preset\": \"nano\", \"action_horizon\": 2, \"action_dim\": 3, \"state_dim\": 5, \"max_token_len\": " \
    "3,"                                                                                                                                  \
    "\"vocab_size\": 11, \"num_vlm_layers\": 3, \"text\": {\"width\": 16, \"mlp_dim\": 24, \"num_heads\": 2, \"num_kv_heads\": 1,"        \
    " \"head_dim\": 8}, \"expert\": {\"width\": 12, \"mlp_dim\": 20}, \"vision\": {\"hidden_size\": 16, \"num_hidden_layers\": 1,"        \
    " \"num_attention_heads\": 2, \"intermediate_size\": 24, \"patch_size\": 4, \"image_size\": 8}}"
static const char *const tiny_pi0 = "{\"model_type\": \"pi0\", " TINY "}", *const tiny_pi05 = "{\"model_type\": \"pi05\", " TINY "}";

// ---- configs

static void presets(void **state) {
    soma_model *m = good("{\"model_type\": \"pi0\"}");
    assert_string_equal(m->family->name, "pi0");
    assert_int_equal(m->info.horizon, 50);
    assert_int_equal(m->info.max_tokens, 48);
    assert_int_equal(m->info.state_dim, 32);
    assert_true(m->info.state_input);
    soma__model_free(m);
    m = good("{\"type\": \"pi05\", \"chunk_size\": 10}"); // LeRobot's spelling
    assert_int_equal(m->info.max_tokens, 200);
    assert_int_equal(m->info.horizon, 10);
    assert_false(m->info.state_input);
    soma__model_free(m);
    m = good("{\"model_type\": \"pi0\", \"preset\": \"nano\", \"camera_order\": [\"top\"], \"vision\": {\"num_hidden_layers\": 5}}");
    assert_int_equal(m->info.n_cameras, 1);
    assert_string_equal(m->info.cameras[0], "top");
    soma__model_free(m);
}

static void config_survives_a_round_trip(void **state) {
    soma_model *m = good(tiny_pi05);
    json_t *config = m->family->config(m);
    assert_int_equal(json_integer_value(json_object_get(config, "state_dim")), 5);
    json_decref(config);
    hold_round_trip(m);
    soma__model_free(m);
}

// "small" is told as 90 to 110 million weights that are trained, with two pictures as large as base's.
static void small_is_a_tenth_of_a_billion(void **state) {
    soma_model *m = good("{\"model_type\": \"pi0\", \"preset\": \"small\"}");
    soma_layout layout = {0};
    soma_error err = {0};
    int64_t values = 0;
    ok(soma__model_weights(&layout, m, false, &err), &err);
    for (size_t i = 0; i < layout.n_slots; i++) values += soma__slot_count(&layout.slots[i]);
    assert_in_range(values, 90000000, 110000000);
    assert_int_equal(m->info.n_cameras, 2);
    assert_int_equal(m->info.image_size, 224);
    soma__layout_free(&layout);
    soma__model_free(m);
}

static void wrong_configs_are_told(void **state) {
    static const wrong_config wrong[] = {
        {"{}", "model_type"},
        {"{\"model_type\": \"pi7\"}", "\"pi05\""},
        {"{\"model_type\": \"pi0\", \"preset\": \"huge\"}", "nano"},
        {"{\"model_type\": \"pi0\", \"action_horizon\": 0}", "action_horizon"},
        {"{\"model_type\": \"pi0\", \"action_horizon\": \"ten\"}", "action_horizon"},
        {"{\"model_type\": \"pi0\", \"paligemma\": {\"widht\": 8}}", "widht"},
        {"{\"model_type\": \"pi0\", \"paligemma\": 8}", "paligemma"},
        {"{\"model_type\": \"pi0\", \"paligemma\": {\"depth\": 3}}", "depth"},
        {"{\"model_type\": \"pi0\", \"vision\": {\"image_size\": 225}}", "patch_size"},
        {"{\"model_type\": \"pi0\", \"camera_order\": []}", "camera_order"},
        {"{\"model_type\": \"pi0\", \"camera_order\": [7]}", "camera_order"},
        {"{\"model_type\": \"pi0\", \"rms_norm_eps\": 0}", "psilon"},
    };
    hold_wrong(wrong, SOMA_COUNT(wrong));
}

// ---- masks and positions

static void masks_and_positions(void **state) {
    soma_model *m = good(tiny_pi0);
    soma_feed feed = {0};
    soma_error err = {0};
    static const uint8_t pixels[2 * 8 * 8 * 3], image_mask[] = {0, 1}, token_mask[] = {1, 1, 0};
    static const int32_t tokens[] = {1, 2, 0};
    static const float robot[5];
    soma_batch b = {.n = 1,
                    .image_dtype = SOMA_U8,
                    .images = pixels,
                    .image_mask = image_mask,
                    .tokens = tokens,
                    .token_mask = token_mask,
                    .state = robot};
    ok(m->family->prepare(m, &b, &feed, &err), &err);
    enum { X = SOMA_BLOCK_NEVER };
    hold_i32(&feed, "prefix.k_block", (int32_t[]){X, X, X, X, 0, 0, 0, 0, 0, 0, X}, 11);
    hold_i32(&feed, "prefix.q_block", (int32_t[11]){0}, 11);
    hold_i32(&feed, "prefix.position", (int32_t[]){-1, -1, -1, -1, 0, 1, 2, 3, 4, 5, 5}, 11); // what is masked costs no position
    hold_i32(&feed, "suffix.position", (int32_t[]){6, 7, 8}, 3);
    hold_i32(&feed, "suffix.q_block", (int32_t[]){1, 2, 2}, 3); // the state does not see the actions
    hold_i32(&feed, "suffix.k_block", (int32_t[]){X, X, X, X, 0, 0, 0, 0, 0, 0, X, 1, 2, 2}, 14);
    uint64_t before = soma__alloc_count();
    ok(m->family->prepare(m, &b, &feed, &err), &err);
    assert_int_equal(soma__alloc_count(), before);
    static const int32_t foreign[] = {1, 11, 0};
    b.tokens = foreign;
    assert_int_equal(m->family->prepare(m, &b, &feed, &err), SOMA_BAD_INPUT);
    if (!strstr(err.text, "11")) fail_msg("%s", err.text);
    soma__feed_free(&feed);
    soma__model_free(m);
}

// ---- running a training graph

typedef struct trial {
    soma_device *device;
    soma_graph *graph;
    soma_params *params;
    soma_plan *plan;
    soma_frame *frame;
    soma_feed feed;
    void *grads;
} trial;

enum { B = 3, R = 2, S = 2, A = 3, L = 3, PIXELS = 2 * 8 * 8 * 3 };

static trial start(const soma_model *m, int64_t rows, int64_t draws) {
    trial t = {0};
    soma_error err = {0};
    soma_build build = soma__build_defaults(SOMA_PROGRAM_TRAIN, rows);
    build.draws = draws;
    ok(soma__device_open(&t.device, "cpu", &(soma_device_opts){.threads = 2}, &err), &err);
    ok(soma_graph_new(&t.graph, &err), &err);
    m->family->build(m, &build, t.graph);
    for (size_t i = 0; i < t.graph->n_tensors; i++)
        if (t.graph->tensors[i]->is_output) {
            soma_backward(t.graph->tensors[i], NULL, 0, NULL);
            break;
        }
    ok(soma__params_new(&t.params, t.device, (const soma_graph *const[]){t.graph}, 1, &err), &err);
    ok(soma__params_init(t.params, 5, &err), &err);
    ok(t.device->kind->alloc(t.device, &t.grads, t.params->layout.size, &err), &err);
    ok(soma__plan_new(&t.plan, t.graph, &t.params->layout, NULL, t.device, &err), &err);
    ok(soma__frame_new(&t.frame, t.plan, t.params->memory, t.grads, NULL, &err), &err);
    return t;
}

static float loss_of(trial *t, const soma_model *m, const soma_batch *b) {
    soma_error err = {0};
    float loss;
    ok(m->family->prepare(m, b, &t->feed, &err), &err);
    for (size_t i = 0; i < t->feed.n_arrays; i++)
        ok(soma__frame_put(t->frame, t->feed.arrays[i].name, t->feed.arrays[i].data, t->feed.arrays[i].size, &err), &err);
    soma__frame_run(t->frame);
    ok(soma__frame_get(t->frame, "loss", &loss, sizeof loss, &err), &err);
    return loss;
}

static void stop(trial *t) {
    soma__feed_free(&t->feed);
    soma__frame_free(t->frame);
    soma__plan_free(t->plan);
    t->device->kind->free(t->device, t->grads);
    soma__params_free(t->params);
    soma_graph_free(t->graph);
    soma__device_close(t->device);
}

typedef struct sample {
    uint8_t pixels[B * PIXELS], image_mask[B * 2], token_mask[B * L], action_mask[B * S * A];
    int32_t tokens[B * L];
    float state[B * 5], actions[B * S * A], noise[B * R * S * A], time[B * R];
} sample;

static soma_batch random_batch(sample *s) {
    soma_rng rng = soma__rng(11);
    for (size_t i = 0; i < SOMA_COUNT(s->pixels); i++) s->pixels[i] = (uint8_t)soma__rng_below(&rng, 256);
    for (size_t i = 0; i < B * L; i++) s->tokens[i] = (int32_t)soma__rng_below(&rng, 11);
    memset(s->image_mask, 1, sizeof s->image_mask);
    memset(s->token_mask, 1, sizeof s->token_mask);
    s->image_mask[1] = s->token_mask[2] = s->token_mask[8] = 0;
    for (size_t i = 0; i < B * S * A; i++) s->action_mask[i] = i % 3 != 2; // the third dimension is padding
    soma__rng_normals(&rng, s->state, SOMA_COUNT(s->state));
    soma__rng_normals(&rng, s->actions, SOMA_COUNT(s->actions));
    soma__rng_normals(&rng, s->noise, SOMA_COUNT(s->noise));
    for (size_t i = 0; i < B * R; i++) s->time[i] = (float)soma__rng_range(&rng, 0.01, 1);
    return (soma_batch){.n = B,
                        .image_dtype = SOMA_U8,
                        .images = s->pixels,
                        .image_mask = s->image_mask,
                        .tokens = s->tokens,
                        .token_mask = s->token_mask,
                        .state = s->state,
                        .draws = R,
                        .actions = s->actions,
                        .noise = s->noise,
                        .time = s->time,
                        .action_mask = s->action_mask};
}

// Two draws that share a prefix give the mean of two passes with one draw each: the loss and every gradient.
static void draws_share_a_prefix(const char *config) {
    soma_model *m = good(config);
    sample s;
    soma_batch both = random_batch(&s), one = both;
    trial t = start(m, B, R), u = start(m, B, 1);
    float together = loss_of(&t, m, &both), apart = 0;
    size_t n = u.params->layout.size / sizeof(float);
    float *grads = calloc(n, sizeof *grads), noise[B * S * A], time[B];
    assert_non_null(grads);
    one.draws = 1;
    one.noise = noise;
    one.time = time;
    for (int r = 0; r < R; r++) {
        for (int i = 0; i < B; i++) {
            memcpy(noise + i * S * A, s.noise + (i * R + r) * S * A, sizeof *noise * S * A);
            time[i] = s.time[i * R + r];
        }
        apart += loss_of(&u, m, &one) / R;
        for (size_t i = 0; i < n; i++) grads[i] += ((const float *)u.grads)[i] / R;
    }
    assert_true(together > 0.1f);
    assert_float_equal(together, apart, 1e-5f * apart);
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)grads[i] - (double)((const float *)t.grads)[i];
        off += d * d;
        all += (double)grads[i] * (double)grads[i];
    }
    assert_true(all > 0 && sqrt(off / all) < 1e-5);
    free(grads);
    stop(&t);
    stop(&u);
    soma__model_free(m);
}

static void pi0_draws(void **state) { draws_share_a_prefix(tiny_pi0); }
static void pi05_draws(void **state) { draws_share_a_prefix(tiny_pi05); }
static void smolvla_draws(void **state) { draws_share_a_prefix(TINY_SMOLVLA); }

// What is masked does not matter: other values in masked pictures, padded words and masked actions change no bit of the loss.
static void masked_inputs(const char *config) {
    soma_model *m = good(config);
    sample s;
    soma_batch b = random_batch(&s);
    trial t = start(m, B, R);
    float loss = loss_of(&t, m, &b);
    memset(s.pixels + PIXELS / 2, 7, PIXELS / 2); // row 0, camera 1
    s.tokens[2] = s.tokens[8] = 10;
    assert_true(loss == loss_of(&t, m, &b));
    s.tokens[1] = (s.tokens[1] + 1) % 11;
    assert_true(loss != loss_of(&t, m, &b));
    memset(s.action_mask, 0, sizeof s.action_mask);
    soma_error err = {0};
    assert_int_equal(m->family->prepare(m, &b, &t.feed, &err), SOMA_BAD_INPUT);
    stop(&t);
    soma__model_free(m);
}

static void masked_inputs_do_not_matter(void **state) {
    masked_inputs(tiny_pi0);
    masked_inputs(TINY_SMOLVLA);
}

// ---- weights

static void same_seed_same_weights(void **state) {
    soma_model *m = good(tiny_pi0);
    soma_error err = {0};
    trial t = start(m, 1, 1), u = start(m, 2, 1);
    assert_int_equal(t.params->layout.size, u.params->layout.size);
    assert_memory_equal(t.params->memory, u.params->memory, t.params->layout.size);
    const soma_slot *slot = soma__layout_find(&t.params->layout, "paligemma_with_expert.gemma_expert.model.layers.1.mlp.up_proj.weight");
    assert_non_null(slot);
    const float *w = (const float *)((char *)t.params->memory + slot->place);
    double square = 0;
    for (int i = 0; i < 20 * 12; i++) square += (double)w[i] * (double)w[i];
    assert_float_equal(square / (20 * 12), 1.0 / 12, 0.3 / 12); // std 1/sqrt(fan in)
    ok(soma__params_init(u.params, 6, &err), &err);
    assert_memory_not_equal(t.params->memory, u.params->memory, t.params->layout.size);
    stop(&t);
    stop(&u);
    soma__model_free(m);
}

// Rewrites a checkpoint with each name changed by `rename`.
typedef void rename_fn(char out[600], const char *name);
static void rewrite(const char *from, const char *to, rename_fn *rename) {
    soma_safetensors *st = NULL;
    soma_error err = {0};
    ok(soma__safetensors_open(&st, from, &err), &err);
    size_t n = soma__safetensors_count(st);
    soma_safetensor *all = calloc(n, sizeof *all);
    char(*names)[600] = calloc(n, sizeof *names);
    assert_true(all && names);
    for (size_t i = 0; i < n; i++) {
        all[i] = *soma__safetensors_at(st, i);
        rename(names[i], all[i].name);
        all[i].name = names[i];
    }
    ok(soma__safetensors_write(to, all, n, NULL, &err), &err);
    soma__safetensors_close(st);
    free(all);
    free(names);
}

static void as_lerobot(char out[600], const char *name) {
    const char *level = strstr(name, "vision_model.");
    if (level)
        snprintf(out, 600, "model.%.*s%s", (int)(level - name), name, level + 13);
    else
        snprintf(out, 600, "model.%s", name);
}
static void as_openpi(char out[600], const char *name) {
    const char *table = strstr(name, "model.language_model.embed_tokens.");
    if (table)
        snprintf(out, 600, "%.*slm_head.weight", (int)(table - name), name);
    else
        snprintf(out, 600, "%s", name);
}
static void as_nobody(char out[600], const char *name) {
    snprintf(out, 600, "%s%s", name, strstr(name, "state_proj") || strstr(name, "fc1.bias") ? ".lost" : "");
}

static void published_spellings_are_read(void **state) {
    soma_model *m = good(tiny_pi0);
    soma_error err = {0};
    char dir[] = "/tmp/soma_params_XXXXXX", ours[64], theirs[64];
    assert_non_null(mkdtemp(dir));
    snprintf(ours, sizeof ours, "%s/a.safetensors", dir);
    snprintf(theirs, sizeof theirs, "%s/b.safetensors", dir);
    trial t = start(m, 1, 1);
    char *kept = malloc(t.params->layout.size);
    assert_non_null(kept);
    memcpy(kept, t.params->memory, t.params->layout.size);
    ok(soma__params_save(t.params, NULL, ours, NULL, &err), &err);
    rename_fn *const spellings[] = {as_lerobot, as_openpi};
    for (size_t i = 0; i < SOMA_COUNT(spellings); i++) {
        soma_safetensors *st = NULL;
        rewrite(ours, theirs, spellings[i]);
        memset(t.params->memory, 0, t.params->layout.size);
        ok(soma__safetensors_open(&st, theirs, &err), &err);
        uint64_t version = t.params->version;
        ok(soma__params_load(t.params, st, m->family->aliases, &err), &err);
        assert_true(t.params->version > version);
        assert_memory_equal(t.params->memory, kept, t.params->layout.size);
        soma__safetensors_close(st);
    }
    // what is missing is told in one sentence, and nothing was changed
    soma_safetensors *st = NULL;
    rewrite(ours, theirs, as_nobody);
    ok(soma__safetensors_open(&st, theirs, &err), &err);
    assert_int_equal(soma__params_load(t.params, st, m->family->aliases, &err), SOMA_NOT_FOUND);
    if (!strstr(err.text, "3 are missing") || !strstr(err.text, "state_proj.weight") || !strstr(err.text, "fc1.bias") ||
        !strstr(err.text, "b.safetensors"))
        fail_msg("%s", err.text);
    assert_memory_equal(t.params->memory, kept, t.params->layout.size);
    soma__safetensors_close(st);
    free(kept);
    stop(&t);
    soma__model_free(m);
    soma__dir_remove(dir, NULL);
}

// A checkpoint in bf16 fills f32 weights exactly; f32 fills bf16 weights to the nearest.
static void dtypes_are_converted(void **state) {
    soma_model *m = good(tiny_pi0);
    soma_error err = {0};
    char dir[] = "/tmp/soma_params_XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.safetensors", dir);
    trial t = start(m, 1, 1);
    ok(soma__params_save(t.params, NULL, path, NULL, &err), &err);
    soma_graph *graph;
    soma_params *half;
    soma_safetensors *st = NULL;
    soma_build build = soma__build_defaults(SOMA_PROGRAM_ENCODE, 1);
    build.precision = SOMA_PRECISION_BF16;
    ok(soma_graph_new(&graph, &err), &err);
    m->family->build(m, &build, graph);
    ok(soma__params_new(&half, t.device, (const soma_graph *const[]){graph}, 1, &err), &err);
    ok(soma__safetensors_open(&st, path, &err), &err);
    ok(soma__params_load(half, st, m->family->aliases, &err), &err);
    size_t n_half = 0;
    for (size_t s = 0; s < half->layout.n_slots; s++) {
        const soma_slot *slot = &half->layout.slots[s], *whole = soma__layout_find(&t.params->layout, slot->name);
        const char *a = (const char *)half->memory + slot->place, *b = (const char *)t.params->memory + whole->place;
        bool stays = strstr(slot->name, "layernorm") || strstr(slot->name, ".embeddings.");
        assert_int_equal(slot->dtype, stays ? SOMA_F32 : SOMA_BF16); // the precision table
        if (slot->dtype == SOMA_F32) {
            assert_memory_equal(a, b, slot->size);
            continue;
        }
        n_half++;
        for (size_t i = 0; i < slot->size / 2; i++) {
            float x, y = ((const float *)b)[i];
            uint32_t u = (uint32_t)((const uint16_t *)a)[i] << 16;
            memcpy(&x, &u, sizeof x);
            assert_true(fabsf(x - y) <= fabsf(y) / 256); // half of bf16's last bit
        }
    }
    assert_true(n_half > 10);
    soma__safetensors_close(st);
    soma__params_free(half);
    soma_graph_free(graph);
    stop(&t);
    soma__model_free(m);
    soma__dir_remove(dir, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets),
        cmocka_unit_test(config_survives_a_round_trip),
        cmocka_unit_test(small_is_a_tenth_of_a_billion),
        cmocka_unit_test(wrong_configs_are_told),
        cmocka_unit_test(masks_and_positions),
        cmocka_unit_test(pi0_draws),
        cmocka_unit_test(pi05_draws),
        cmocka_unit_test(smolvla_draws),
        cmocka_unit_test(masked_inputs_do_not_matter),
        cmocka_unit_test(same_seed_same_weights),
        cmocka_unit_test(published_spellings_are_read),
        cmocka_unit_test(dtypes_are_converted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
