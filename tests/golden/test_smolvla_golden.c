// SPDX-License-Identifier: Apache-2.0
// SmolVLA against LeRobot's own code, tensor by tensor: every intermediate of prefix and sampler, the masks, the training loss and all
// gradients. The golden says how far the reference's f32 lies from its f64; a port may be five times as far, at least 1e-5.
#include "golden/traced.h"

#include "base/json.h"

#include <unistd.h>

#define FOLDER "../golden-families/smolvla_tiny"

// As LeRobot writes it, with what it does not tell and the tensors cannot: the size of a head.
static const char config[] =
    "{\"type\": \"smolvla\", \"chunk_size\": 6, \"n_action_steps\": 6, \"max_state_dim\": 8, \"max_action_dim\": 7, \"num_steps\": 10,"
    " \"resize_imgs_with_padding\": [64, 64], \"tokenizer_max_length\": 7, \"attention_mode\": \"cross_attn\", \"num_vlm_layers\": 4,"
    " \"num_expert_layers\": -1, \"self_attn_every_n_layers\": 2, \"expert_width_multiplier\": 0.75, \"min_period\": 0.004,"
    " \"max_period\": 4.0, \"add_image_special_tokens\": false, \"prefix_length\": -1, \"camera_order\": [\"cam0\", \"cam1\"],"
    " \"text\": {\"head_dim\": 8}, \"vision\": {\"num_attention_heads\": 4}}";

typedef struct golden {
    char folder[64]; // with config.json and the weights
    soma_safetensors *in, *out, *grads;
    json_t *deviation;
} golden;

static void setup(golden *g) {
    char path[SOMA_PATH_MAX], link[128];
    soma_error err = {0};
    *g = (golden){.in = golden_open(FOLDER "/inputs.safetensors"),
                  .out = golden_open(FOLDER "/outputs.safetensors"),
                  .grads = golden_open(FOLDER "/grads.safetensors")};
    if (soma__json_load(&g->deviation, golden_path(path, FOLDER "/f64_deviation.json"), &err)) fail_msg("%s", err.text);
    strcpy(g->folder, "/tmp/soma-smolvla-XXXXXX");
    assert_non_null(mkdtemp(g->folder));
    snprintf(link, sizeof link, "%s/model.safetensors", g->folder);
    assert_int_equal(symlink(golden_path(path, FOLDER "/model.safetensors"), link), 0);
    snprintf(link, sizeof link, "%s/config.json", g->folder);
    if (soma__file_write(link, config, strlen(config), &err)) fail_msg("%s", err.text);
}

static void teardown(golden *g) {
    soma__dir_remove(g->folder, NULL);
    soma__safetensors_close(g->in);
    soma__safetensors_close(g->out);
    soma__safetensors_close(g->grads);
    json_decref(g->deviation);
}

static double tolerance(const golden *g, const char *list, const char *name) {
    return fmax(1e-5, 5 * json_number_value(json_object_get(json_object_get(g->deviation, list), name)));
}

// ---- inputs under the names that a trace reads

typedef struct feed {
    soma_safetensor tensors[16];
    size_t n;
} feed;

static void add(feed *f, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape, const void *data) {
    f->tensors[f->n] = (soma_safetensor){.name = name, .dtype = dtype, .n_dims = n_dims, .data = data};
    memcpy(f->tensors[f->n++].shape, shape, sizeof *shape * (size_t)n_dims);
}

static void add_as(feed *f, const char *name, const soma_safetensor *t) { add(f, name, t->dtype, t->n_dims, t->shape, t->data); }

// rows [n, from] with zeros behind each: [n, to]
static float *padded(const soma_safetensor *t, int64_t n, int64_t from, int64_t to) {
    float *out = calloc((size_t)(n * to), sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) memcpy(out + i * to, (const float *)t->data + i * from, sizeof *out * (size_t)from);
    return out;
}

// noise: which of the golden's two the sampler begins with and training mixes.
static traced run(const golden *g, const char *noise, const char *isa, const soma_trace_opts *o) {
    enum { B = 2, C = 2, S = 6, A = 4, MOST = 7, PIXELS = 3 * 64 * 64 };
    const soma_safetensor *images = golden_find(g->out, "prep.images"), *masks = golden_find(g->out, "prep.masks");
    feed f = {0};
    float *picture[C] = {malloc(sizeof(float) * B * PIXELS), malloc(sizeof(float) * B * PIXELS)};
    uint8_t there[C][B], counts[B * S * MOST];
    static const char *const names[C] = {"image.cam0", "image.cam1"}, *const mask_names[C] = {"image_mask.cam0", "image_mask.cam1"};
    for (int c = 0; c < C; c++) {
        for (int b = 0; b < B; b++) {
            memcpy(picture[c] + b * PIXELS, (const float *)images->data + (b * C + c) * PIXELS, sizeof(float) * PIXELS);
            there[c][b] = ((const uint8_t *)masks->data)[b * C + c];
        }
        add(&f, names[c], SOMA_F32, 4, (int64_t[]){B, 3, 64, 64}, picture[c]);
        add(&f, mask_names[c], SOMA_U8, 1, (int64_t[]){B}, there[c]);
    }
    const uint8_t *pad = golden_find(g->in, "action_is_pad")->data;
    for (int i = 0; i < B * S * MOST; i++)
        counts[i] = i % MOST < A && !pad[i / MOST]; // the loss leaves out steps and values that are padded
    float *state = padded(golden_find(g->in, "observation.state"), B, 5, 8),
          *actions = padded(golden_find(g->in, "action"), B * S, A, MOST);
    add(&f, "state", SOMA_F32, 2, (int64_t[]){B, 8}, state);
    add(&f, "actions", SOMA_F32, 3, (int64_t[]){B, S, MOST}, actions);
    add(&f, "action_mask", SOMA_U8, 3, (int64_t[]){B, S, MOST}, counts);
    add_as(&f, "tokens", golden_find(g->in, "observation.language.tokens"));
    add_as(&f, "token_mask", golden_find(g->in, "observation.language.attention_mask"));
    add_as(&f, "noise", golden_find(g->in, noise));
    add_as(&f, "train_time", golden_find(g->in, "train_time"));
    char path[128];
    soma_error err = {0};
    soma_safetensors *in = NULL;
    snprintf(path, sizeof path, "%s/inputs", g->folder);
    if (soma__safetensors_write(path, f.tensors, f.n, NULL, &err) || soma__safetensors_open(&in, path, &err)) fail_msg("%s", err.text);
    for (int c = 0; c < C; c++) free(picture[c]);
    free(state);
    free(actions);
    traced t = traced_policy(g->folder, in, isa, o);
    soma__safetensors_close(in);
    unlink(path);
    return t;
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

static void hold(const golden *g, const traced *t, const soma_safetensors *st, const soma_safetensor *want, const char *name,
                 golden_kind kind, double allowed) {
    const soma_safetensor *got = traced_find(t, name);
    if (got->n_values && got->n_values != want->n_values) fail_msg("%s has another size than %s", name, want->name);
    golden_hold_rows(st, want, t->by, got->dtype, got->data, soma__trace_rows(&t->trace, name), kind, allowed);
    if (!isfinite(soma__safetensor_difference(got, got, NULL).max_abs)) fail_msg("%s has a value that is not finite", name);
}

// LeRobot's training looks at prefix and actions as one sequence.
static void hold_train_masks(const golden *g, const traced *t) {
    enum { B = 2, P = 16, S = 6, T = P + S };
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
    golden_hold(g->out, "train.att_2d", t->by, SOMA_U8, sees, GOLDEN_MAX, 0);
    golden_hold(g->out, "train.position_ids", t->by, SOMA_I64, ids, GOLDEN_MAX, 0);
}

// The robot's values of the chunk.
static void hold_actions(const golden *g, const traced *t, double allowed) {
    const float *got = traced_find(t, "actions")->data;
    float actions[2 * 6 * 4];
    for (int i = 0; i < 2 * 6 * 4; i++) actions[i] = got[i / 4 * 7 + i % 4];
    golden_hold(g->out, "infer.actions", t->by, SOMA_F32, actions, GOLDEN_MAX, allowed);
}

static void inference(void **state) {
    golden g;
    setup(&g);
    traced plain = run(&g, "noise", "plain", &(soma_trace_opts){.dtype = "f32"}),
           fast = run(&g, "noise", "", &(soma_trace_opts){.dtype = "f32"});
    char name[128];
    int n = 0;
    for (size_t i = 0; i < soma__safetensors_count(g.out); i++) {
        const soma_safetensor *want = soma__safetensors_at(g.out, i);
        if (strncmp(want->name, "infer.", 6) || !*trace_name(name, want->name)) continue;
        const double allowed = want->dtype == SOMA_F32 ? tolerance(&g, "outputs", want->name) : 0;
        hold(&g, &plain, g.out, want, name, GOLDEN_MAX, allowed);
        hold(&g, &fast, g.out, want, name, GOLDEN_MAX, allowed);
        n++;
    }
    assert_int_equal(n, 61); // all but the chunk and that of real-time chunking
    hold_actions(&g, &plain, tolerance(&g, "outputs", "infer.actions"));
    hold_actions(&g, &fast, tolerance(&g, "outputs", "infer.actions"));
    hold_train_masks(&g, &plain);
    const int64_t *places = golden_find(g.out, "vision_position_ids")->data;
    for (int i = 0; i < 64; i++) assert_int_equal(places[i], i); // SmolVLM numbers a square picture's patches as SigLIP does
    soma__trace_free(&plain.trace);
    soma__trace_free(&fast.trace);
    teardown(&g);
}

static void hold_training(const golden *g, const traced *t) {
    static const char *const names[] = {"train.prefix_embs", "train.suffix_embs", "train.suffix_out", "train.loss_elementwise",
                                        "train.loss"};
    for (size_t i = 0; i < SOMA_COUNT(names); i++)
        hold(g, t, g->out, golden_find(g->out, names[i]), names[i], GOLDEN_EACH, tolerance(g, "outputs", names[i]));
    const double norm = *(const float *)golden_find(g->out, "train.grad_global_norm")->data;
    double square = 0; // the reference keeps the language model's last layer, of which we also have gradients
    for (size_t i = 0; i < soma__safetensors_count(g->grads); i++) {
        const soma_safetensor *want = soma__safetensors_at(g->grads, i);
        char name[256];
        snprintf(name, sizeof name, "b2.%s", want->name + strlen("model."));
        const bool noise = soma__safetensor_difference(want, want, NULL).norm < 1e-5 * norm; // keys' biases cancel in softmax
        const soma_safetensor *got = traced_find(t, name);
        const double length = soma__safetensor_difference(got, got, NULL).norm;
        square += length * length;
        hold(g, t, g->grads, want, name, noise ? GOLDEN_MAX : GOLDEN_L2, noise ? 1e-6 * norm : tolerance(g, "grads_relL2", want->name));
    }
    const float all = (float)sqrt(square);
    golden_hold(g->out, "train.grad_global_norm", t->by, SOMA_F32, &all, GOLDEN_EACH, tolerance(g, "outputs", "train.grad_global_norm"));
}

static void training(void **state) {
    golden g;
    setup(&g);
    traced plain = run(&g, "train_noise", "plain", &(soma_trace_opts){.dtype = "f32", .grads = true}),
           fast = run(&g, "train_noise", "", &(soma_trace_opts){.dtype = "f32", .grads = true});
    hold_training(&g, &plain);
    hold_training(&g, &fast);
    soma__trace_free(&plain.trace);
    soma__trace_free(&fast.trace);
    teardown(&g);
}

// There is no bf16 golden: ours must stay within what rounding to 8 bits in each of four layers makes.
static void bf16_is_near(void **state) {
    golden g;
    setup(&g);
    traced t = run(&g, "noise", "plain", &(soma_trace_opts){.dtype = "bf16"});
    char name[128];
    static const char *const names[] = {"infer.prefix_embs", "infer.prefix_out", "infer.step0.suffix_out", "infer.step0.v_t"};
    for (size_t i = 0; i < SOMA_COUNT(names); i++)
        hold(&g, &t, g.out, golden_find(g.out, names[i]), trace_name(name, names[i]), GOLDEN_L2, 0.02);
    soma__trace_free(&t.trace);
    teardown(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(inference), cmocka_unit_test(training), cmocka_unit_test(bf16_is_near)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
