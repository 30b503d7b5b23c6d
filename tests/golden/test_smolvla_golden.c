// SPDX-License-Identifier: Apache-2.0
// SmolVLA against LeRobot's own code, tensor by tensor: every intermediate of prefix and sampler, the masks, the training loss and all
// gradients; and the chunk that continues another one.
#include "golden/families.h"

#include "policy/published.h"
#include "policy/rtc.h"

// As LeRobot writes it, with what it does not tell and the tensors cannot: the size of a head.
static const char config[] =
    "{\"type\": \"smolvla\", \"chunk_size\": 6, \"n_action_steps\": 6, \"max_state_dim\": 8, \"max_action_dim\": 7, \"num_steps\": 10,"
    " \"resize_imgs_with_padding\": [64, 64], \"tokenizer_max_length\": 7, \"attention_mode\": \"cross_attn\", \"num_vlm_layers\": 4,"
    " \"num_expert_layers\": -1, \"self_attn_every_n_layers\": 2, \"expert_width_multiplier\": 0.75, \"min_period\": 0.004,"
    " \"max_period\": 4.0, \"add_image_special_tokens\": false, \"prefix_length\": -1, \"camera_order\": [\"cam0\", \"cam1\"],"
    " \"text\": {\"head_dim\": 8}, \"vision\": {\"num_attention_heads\": 4}}";

// ---- one observation of two rows, and what is learned from it

enum { B = 2, C = 2, S = 6, A = 4, STATE = 5, MOST = 7, MOST_STATE = 8, L = 7, SIDE = 64, PIXELS = 3 * SIDE * SIDE };

typedef struct sample {
    float picture[C][B][PIXELS], state[B][MOST_STATE], actions[B][S][MOST];
    uint8_t there[C][B], counts[B][S][MOST];
} sample;

// The robot's values, with zeros up to the model's.
static void fill(sample *s, const family_case *f) {
    const float *pictures = golden_find(f->out, "prep.images")->data, *state = golden_find(f->in, "observation.state")->data,
                *actions = golden_find(f->in, "action")->data;
    const uint8_t *masks = golden_find(f->out, "prep.masks")->data, *pad = golden_find(f->in, "action_is_pad")->data;
    memset(s, 0, sizeof *s);
    for (int b = 0; b < B; b++) {
        for (int c = 0; c < C; c++) {
            memcpy(s->picture[c][b], pictures + (b * C + c) * PIXELS, sizeof s->picture[c][b]);
            s->there[c][b] = masks[b * C + c];
        }
        memcpy(s->state[b], state + b * STATE, sizeof(float) * STATE);
        for (int i = 0; i < S; i++) {
            memcpy(s->actions[b][i], actions + (b * S + i) * A, sizeof(float) * A);
            for (int k = 0; k < A; k++) s->counts[b][i][k] = !pad[b * S + i]; // padded steps and values are no part of the loss
        }
    }
}

static void setup(family_case *f, sample *s) {
    static const struct {
        const char *golden, *name;
    } same[] = {{"observation.language.tokens", "tokens"},
                {"observation.language.attention_mask", "token_mask"},
                {"noise", "noise"},
                {"train_noise", "train_noise"},
                {"train_time", "train_time"}};
    soma_error err = {0};
    json_t *json = NULL;
    family_open(f, "smolvla_tiny");
    if (soma__json_parse(&json, config, strlen(config), "the config", &err)) fail_msg("%s", err.text);
    family_make(f, json, NULL, 0);
    json_decref(json);
    fill(s, f);
    soma_safetensor tensors[] = {{.name = "image.cam0", .dtype = SOMA_F32, .n_dims = 4, .shape = {B, 3, SIDE, SIDE}, .data = s->picture[0]},
                                 {.name = "image.cam1", .dtype = SOMA_F32, .n_dims = 4, .shape = {B, 3, SIDE, SIDE}, .data = s->picture[1]},
                                 {.name = "image_mask.cam0", .dtype = SOMA_U8, .n_dims = 1, .shape = {B}, .data = s->there[0]},
                                 {.name = "image_mask.cam1", .dtype = SOMA_U8, .n_dims = 1, .shape = {B}, .data = s->there[1]},
                                 {.name = "state", .dtype = SOMA_F32, .n_dims = 2, .shape = {B, MOST_STATE}, .data = s->state},
                                 {.name = "actions", .dtype = SOMA_F32, .n_dims = 3, .shape = {B, S, MOST}, .data = s->actions},
                                 {.name = "action_mask", .dtype = SOMA_U8, .n_dims = 3, .shape = {B, S, MOST}, .data = s->counts},
                                 {0},
                                 {0},
                                 {0},
                                 {0},
                                 {0}};
    const size_t own = SOMA_COUNT(tensors) - SOMA_COUNT(same);
    for (size_t i = 0; i < SOMA_COUNT(same); i++) {
        tensors[own + i] = *golden_find(f->in, same[i].golden);
        tensors[own + i].name = same[i].name;
    }
    if (soma__safetensors_write(f->inputs, tensors, SOMA_COUNT(tensors), NULL, &err)) fail_msg("%s", err.text);
}

// ---- what is compared

// The trace's name of what the golden calls `name`; "": no tensor of a trace.
static const char *trace_name(char out[128], const char *name) {
    static const struct {
        const char *theirs, *ours;
    } names[] = {{"infer.cam0.vision_model.encoder.layers.", "vit.cam0.layer_out."},
                 {"infer.cam0.vision_model.", "vit.cam0."},
                 {"infer.cam0.connector", "image_embs.cam0"},
                 {"infer.prefix_out", "prefix.final_norm"},
                 {"infer.step0.suffix_out", "suffix_t1.final_norm"},
                 {"infer.step0.suffix_", "suffix_t1."},
                 {"infer.step0.expert.", "suffix_t1.expert."},
                 {"infer.step0.position_ids", "suffix_t1.position_ids"},
                 {"infer.step0.att_2d", "suffix_t1.att_2d"},
                 {"infer.step", "sample.step"},
                 {"infer.prefix_", "prefix_"},
                 {"train.", "train."}};
    *out = 0;
    for (size_t i = 0; i < SOMA_COUNT(names) && !*out; i++)
        if (!strncmp(name, names[i].theirs, strlen(names[i].theirs)))
            snprintf(out, 128, "%s%s", names[i].ours, name + strlen(names[i].theirs));
    return out;
}

// LeRobot's training looks at prefix and actions as one sequence.
static void hold_train_masks(const family_case *f, const traced *t) {
    enum { P = 16, T = P + S };
    const uint8_t *of_prefix = traced_find(t, "prefix_att_2d")->data, *of_actions = traced_find(t, "suffix_t1.att_2d")->data;
    const int64_t *prefix = traced_find(t, "prefix_position_ids")->data, *actions = traced_find(t, "suffix_t1.position_ids")->data;
    uint8_t sees[B * T * T] = {0};
    int64_t ids[B * T];
    for (int b = 0; b < B; b++)
        for (int i = 0; i < T; i++) {
            ids[b * T + i] = i < P ? prefix[b * P + i] : actions[b * S + i - P];
            for (int j = 0; j < T; j++)
                sees[(b * T + i) * T + j] = i >= P ? of_actions[(b * S + i - P) * T + j] : j < P && of_prefix[(b * P + i) * P + j];
        }
    golden_hold(f->out, "train.att_2d", t->by, SOMA_U8, sees, GOLDEN_MAX, 0);
    golden_hold(f->out, "train.position_ids", t->by, SOMA_I64, ids, GOLDEN_MAX, 0);
}

// The robot's values of a chunk x [B, S, MOST].
static void hold_actions(const family_case *f, const char *name, const char *by, const float *x) {
    float actions[B * S * A];
    for (int i = 0; i < B * S * A; i++) actions[i] = x[i / A * MOST + i % A];
    golden_hold(f->out, name, by, SOMA_F32, actions, GOLDEN_MAX, family_tolerance(f, name));
}

static void hold_all(const family_case *f, const traced *t) {
    char name[128];
    int n = 0;
    for (size_t i = 0; i < soma__safetensors_count(f->out); i++) {
        const soma_safetensor *want = soma__safetensors_at(f->out, i);
        const bool composed = !strcmp(want->name, "train.att_2d") || !strcmp(want->name, "train.position_ids");
        if (!*trace_name(name, want->name) || composed || !strcmp(want->name, "train.grad_global_norm")) continue;
        family_hold(f, t, want->name, name);
        n++;
    }
    assert_int_equal(n, 66); // all but what was fed, the two chunks, and what is composed here
    hold_actions(f, "infer.actions", t->by, traced_find(t, "actions")->data);
    hold_train_masks(f, t);
}

static void hold_grads(const family_case *f, const traced *t) {
    family_hold_grads(f, t, "model.");
    double square = 0; // the reference keeps the language model's last layer, of which we have gradients, too
    for (size_t i = 0; i < soma__safetensors_count(f->grads); i++) {
        char name[256];
        snprintf(name, sizeof name, "b2.%s", soma__safetensors_at(f->grads, i)->name + strlen("model."));
        const soma_safetensor *got = traced_find(t, name);
        const double length = soma__safetensor_difference(got, got, NULL).norm;
        square += length * length;
    }
    const float all = (float)sqrt(square);
    golden_hold(f->out, "train.grad_global_norm", t->by, SOMA_F32, &all, GOLDEN_EACH, family_tolerance(f, "train.grad_global_norm"));
}

static sample s;

static void every_tensor(void **state) {
    family_case f;
    setup(&f, &s);
    const int64_t *places = golden_find(f.out, "vision_position_ids")->data;
    for (int i = 0; i < 64; i++) assert_int_equal(places[i], i); // SmolVLM numbers a square picture's patches as SigLIP does
    static const char *const isas[] = {"plain", ""};
    for (int i = 0; i < 2; i++) {
        traced t = family_trace(&f, isas[i], &(soma_trace_opts){.dtype = "f32", .grads = true});
        hold_all(&f, &t);
        hold_grads(&f, &t);
        soma__trace_free(&t.trace);
    }
    family_close(&f);
}

// There is no bf16 golden: ours must stay within what rounding to 8 bits in each of four layers makes.
static void bf16_is_near(void **state) {
    family_case f;
    char name[128];
    static const char *const names[] = {"infer.prefix_embs", "infer.prefix_out", "infer.step0.suffix_out", "infer.step0.v_t"};
    setup(&f, &s);
    traced t = family_trace(&f, "plain", &(soma_trace_opts){.dtype = "bf16"});
    for (size_t i = 0; i < SOMA_COUNT(names); i++) {
        const soma_safetensor *got = traced_find(&t, trace_name(name, names[i]));
        golden_hold_rows(f.out, golden_find(f.out, names[i]), t.by, got->dtype, got->data, soma__trace_rows(&t.trace, name), GOLDEN_L2,
                         0.02);
    }
    soma__trace_free(&t.trace);
    family_close(&f);
}

// ---- real-time chunking: a chunk that continues the one before

static void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

// Delay 2, and guidance that fades to the end of what is left of the old chunk, as LeRobot's processor does unless told otherwise.
static void fill_rtc(soma_rtc *rtc, const family_case *f) {
    const float *old = golden_find(f->in, "rtc.prev_chunk")->data; // [B, S - 1, A]
    rtc->mode = SOMA_RTC_GUIDED;
    for (int b = 0; b < B; b++) {
        rtc->delay[b] = 2;
        rtc->most[b] = 10;
        memset(rtc->target + b * S * MOST, 0, sizeof(float) * S * MOST);
        for (int i = 0; i < S - 1; i++) memcpy(rtc->target + (b * S + i) * MOST, old + (b * (S - 1) + i) * A, sizeof(float) * A);
        soma__rtc_weights(rtc->weight + b * S, S, SOMA_RTC_LINEAR, 2, S - 1);
    }
}

static void a_chunk_continues(void **state) {
    family_case f;
    soma_error err = {0};
    soma_published c = {0};
    soma_device *device;
    soma_params *params;
    soma_plan_set *set;
    soma_graph *graphs[SOMA_SET_PLANS] = {0};
    soma_feed feed = {0};
    soma_rtc rtc;
    int n;
    float x[B * S * MOST];
    int32_t tokens[B * L];
    setup(&f, &s);
    const int64_t *ids = golden_find(f.in, "observation.language.tokens")->data;
    for (int i = 0; i < B * L; i++) tokens[i] = (int32_t)ids[i];
    memcpy(x, golden_find(f.in, "noise")->data, sizeof x);
    ok(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 2}, &err), &err);
    ok(soma__published_open(&c, f.folder, &err), &err);
    ok(soma__published_model(&c, &err), &err);
    const soma_saving whole = soma__saving_whole(&c.model->info);
    soma_build like = soma__build_defaults(SOMA_PROGRAM_ENCODE, B);
    like.image = SOMA_F32;
    ok(soma__set_graphs(graphs, &n, c.model, &like, &whole, &err), &err);
    ok(soma__published_params(&params, &c, device, (const soma_graph *const *)graphs, (size_t)n, &err), &err);
    ok(soma__plan_set_new(&set, device, c.model, &like, &whole, params, NULL, &err), &err);
    const soma_batch batch = {.n = B,
                              .saving = &whole,
                              .image_dtype = SOMA_F32,
                              .images = golden_find(f.out, "prep.images")->data,
                              .image_mask = golden_find(f.out, "prep.masks")->data,
                              .tokens = tokens,
                              .token_mask = golden_find(f.in, "observation.language.attention_mask")->data,
                              .state = s.state[0]};
    ok(c.model->family->prepare(c.model, &batch, &feed, &err), &err);
    ok(soma__plan_set_feed(set, &feed, &err), &err);
    ok(soma__rtc_new(&rtc, B, S, MOST, &err), &err);
    fill_rtc(&rtc, &f);
    ok(soma__rtc_denoise(&rtc, set, SOMA_TIME_LEROBOT, x, &err), &err);
    hold_actions(&f, "infer.actions_rtc_LINEAR_d2", "fast", x);
    soma__rtc_free(&rtc);
    soma__feed_free(&feed);
    soma__plan_set_free(set);
    soma__params_free(params);
    for (int i = 0; i < SOMA_SET_PLANS; i++) soma_graph_free(graphs[i]);
    soma__published_close(&c);
    soma__device_close(device);
    family_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_tensor), cmocka_unit_test(bf16_is_near), cmocka_unit_test(a_chunk_continues)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
