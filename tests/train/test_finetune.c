// SPDX-License-Identifier: Apache-2.0
// Fine-tuning a small checkpoint: low-rank pairs of both kinds and frozen parts train, leave an adapter's folder that opens and acts,
// change nothing of the base, and give the same bits for any number of threads, with recomputation, and after a stop.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/tuned.h"

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double losses[64], norms[64];

static bool keep_losses(void *user, const soma_train_progress *p) {
    losses[p->step] = p->loss;
    norms[p->step] = p->grad_norm;
    const int64_t *stop = user;
    return !stop || p->step != *stop;
}

static void train(const soma_train_opts *o, int64_t *stop, soma_status wanted) {
    soma_error err = {0};
    if (soma_train(o, keep_losses, stop, &err) != wanted) fail_msg("%s", err.text);
}

static uint64_t file_size(const char *a, const char *name, char **data) {
    char full[SOMA_PATH_MAX * 2];
    size_t size;
    soma_error err;
    snprintf(full, sizeof full, "%s/%s/%s", root, a, name);
    if (soma__file_read(data, &size, full, 1 << 30, &err)) fail_msg("%s", err.text);
    return size;
}

static void assert_same_file(const char *a, const char *b, const char *name) {
    char *da, *db;
    size_t na = file_size(a, name, &da), nb = file_size(b, name, &db);
    if (na != nb || memcmp(da, db, na)) fail_msg("%s of %s and %s are not the same bytes", name, a, b);
    soma__free(da);
    soma__free(db);
}

// The names in an adapter's file.
static bool holds(const char *name, const char *tensor) {
    char full[SOMA_OPT_TEXT + 64], dir[SOMA_OPT_TEXT];
    path(dir, name);
    snprintf(full, sizeof full, "%s/adapter_model.safetensors", dir);
    soma_safetensors *file;
    soma_error err;
    if (soma__safetensors_open(&file, full, &err)) fail_msg("%s", err.text);
    bool found = soma__safetensors_find(file, tensor) != NULL;
    soma__safetensors_close(file);
    return found;
}

#define EXPERT "paligemma_with_expert.gemma_expert.model.layers.1."
#define LANGUAGE "paligemma_with_expert.paligemma.model.language_model."

static void test_openpi(void **state) {
    soma_train_opts o = options("openpi");
    strcpy(o.lora, "openpi");
    train(&o, NULL, SOMA_OK);
    assert_true(holds("openpi", EXPERT "self_attn.q_proj.lora_a"));
    assert_true(holds("openpi", LANGUAGE "layers.0.mlp.down_proj.lora_b"));
    assert_true(holds("openpi", "state_proj.weight")); // trained whole, as pictures and projector are
    assert_true(holds("openpi", "paligemma_with_expert.paligemma.model.multi_modal_projector.linear.bias"));
    assert_false(holds("openpi", EXPERT "self_attn.q_proj.weight"));
    assert_false(holds("openpi", LANGUAGE "embed_tokens.weight"));
    float base[8], tuned[8];
    act("base", base);
    act("openpi", tuned);
    if (!(distance(base, tuned) > 1e-4)) fail_msg("the adapter changes nothing");
}

static void test_openpi_parts(void **state) {
    soma_train_opts o = options("part");
    strcpy(o.lora, "openpi_language");
    o.lora_rank = 2;
    o.lora_stabilised = true;
    train(&o, NULL, SOMA_OK);
    assert_false(holds("part", EXPERT "self_attn.q_proj.lora_a"));
    assert_true(holds("part", EXPERT "self_attn.q_proj.weight")); // the expert is trained whole then
    assert_true(holds("part", LANGUAGE "layers.0.self_attn.k_proj.lora_a"));
}

static void test_peft(void **state) {
    soma_train_opts o = options("peft");
    strcpy(o.lora, "peft");
    o.lora_rank = 3;
    o.lora_alpha = 6;
    o.steps = 0; // the pairs as they begin: the second factor is zero
    train(&o, NULL, SOMA_OK);
    float base[8], tuned[8];
    act("base", base);
    act("peft", tuned);
    assert_true(distance(base, tuned) == 0);
    o.steps = 6;
    train(&o, NULL, SOMA_OK);
    act("peft", tuned);
    assert_true(distance(base, tuned) > 1e-5);
    assert_true(holds("peft", "base_model.model.model." EXPERT "self_attn.v_proj.lora_A.weight"));
    assert_true(holds("peft", "base_model.model.model.action_out_proj.lora_B.weight"));
    assert_false(holds("peft", "base_model.model.model." EXPERT "self_attn.k_proj.lora_A.weight"));
    assert_false(holds("peft", "base_model.model.model.action_out_proj.bias"));
}

static void test_frozen(void **state) {
    soma_train_opts o = options("frozen");
    strcpy(o.freeze, "paligemma_with_expert.paligemma.*,state_proj.*");
    train(&o, NULL, SOMA_OK);
    assert_true(holds("frozen", EXPERT "self_attn.q_proj.weight"));
    assert_false(holds("frozen", "state_proj.bias"));
    float tuned[8];
    act("frozen", tuned);
}

static void test_start_is_the_checkpoint(void **state) {
    soma_train_opts o = options("start");
    o.steps = 0;
    train(&o, NULL, SOMA_OK);
    float base[8], start[8];
    act("base", base);
    act("start", start);
    assert_true(distance(base, start) == 0);
}

// What backward products read of a frozen weight is the weight: in whatever form the fast kernels keep it, the gradient is the plain ones'.
static void test_gradient_through_frozen(void **state) {
    static const struct {
        const char *dtype;
        double within; // of the plain kernels' norm; in bf16 the order of a sum moves single roundings
    } kinds[] = {{"f32", 1e-5}, {"bf16", 2e-3}};
    for (int k = 0; k < 2; k++) {
        double norm[2];
        for (int fast = 0; fast < 2; fast++) {
            soma_train_opts o = options(fast ? "gradient.fast" : "gradient.plain");
            strcpy(o.lora, "openpi");
            strcpy(o.dtype, kinds[k].dtype);
            strcpy(o.isa, fast ? "" : "plain");
            o.steps = 1;
            train(&o, NULL, SOMA_OK);
            norm[fast] = norms[1];
        }
        printf("%-4s gradient norm %.9g by plain kernels, %.9g by the best\n", kinds[k].dtype, norm[0], norm[1]);
        assert_true(norm[0] > 0);
        if (!(fabs(norm[1] - norm[0]) <= kinds[k].within * norm[0])) fail_msg("another gradient");
    }
}

static void test_bits(void **state) {
    soma_train_opts o = options("bits1");
    strcpy(o.lora, "openpi");
    strcpy(o.dtype, "bf16"); // the frozen weights are bf16 then
    train(&o, NULL, SOMA_OK);
    path(o.out, "bits3");
    o.threads = o.workers = 3;
    o.recompute = true; // nor does recomputation change a bit
    train(&o, NULL, SOMA_OK);
    assert_same_file("bits1", "bits3", "adapter_model.safetensors");
    assert_same_file("bits1", "bits3", "training_state.safetensors");
    path(o.out, "bits_stopped");
    int64_t stop = 5;
    train(&o, &stop, SOMA_CANCELLED);
    o.resume = true;
    train(&o, NULL, SOMA_OK);
    assert_same_file("bits1", "bits_stopped", "adapter_model.safetensors");
    assert_same_file("bits1", "bits_stopped", "training_state.safetensors");
}

// ---- the plan

static size_t in_use(void) {
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

// Bytes that opening a run takes, against what was said before; a run allocates nothing afterwards but its batches.
static void assert_plan(soma_train_opts o, const char *what) {
    soma_error err = {0};
    soma_train_need need;
    soma_trainer t;
    if (soma_train_plan(&need, &o, &err)) fail_msg("%s", err.text);
    size_t before = in_use();
    if (soma__trainer_open(&t, &o, NULL, &err)) fail_msg("%s", err.text);
    double measured = (double)(in_use() - before), told = (double)(need.total + need.data);
    if (t.still) told -= (double)need.frozen - (double)t.still->size; // what stays in the file is no allocation
    printf("%-22s told %8.2f MB, measured %8.2f MB, %+.1f %%; %.2f GFLOP in a step\n", what, told / 1e6, measured / 1e6,
           100 * (told / measured - 1), need.gflop_per_step);
    // the dataset's readers and tables, which have no model's size, take up to 4 MB more
    if (!(told > 0.98 * measured - 4e6 && told < 1.02 * measured)) fail_msg("%s: %.0f bytes told, %.0f measured", what, told, measured);
    assert_true(fabs(need.gflop_per_step - t.pass.plan->flops * (double)o.accumulate / 1e9) < 1e-9);
    assert_true(need.seconds_per_step > 0);
    soma__trainer_close(&t);
}

static void test_plan(void **state) {
    if (!in_use()) skip(); // the sanitizers' allocators do not count
    const char *sizes =
        "{\"paligemma\": {\"width\": 256, \"depth\": 4, \"mlp_dim\": 1024, \"num_heads\": 4, \"num_kv_heads\": 1, \"head_dim\": 32},"
        "\"action_expert\": {\"width\": 128, \"depth\": 4, \"mlp_dim\": 512, \"num_heads\": 4, \"num_kv_heads\": 1, \"head_dim\": 32},"
        "\"vision\": {\"hidden_size\": 128, \"num_hidden_layers\": 4, \"num_attention_heads\": 2, \"intermediate_size\": 256,"
        "\"patch_size\": 4, \"image_size\": 32}}";
    soma_error err;
    soma_train_opts o = options("wide");
    path(o.model, "wide.json");
    if (soma__file_write(o.model, sizes, strlen(sizes), &err)) fail_msg("%s", err.text);
    o.init[0] = 0;
    o.steps = 0;
    train(&o, NULL, SOMA_OK);
    o.steps = 3;
    assert_plan(o, "everything");
    o.ema = 0.9;
    o.accumulate = 2;
    assert_plan(o, "average, two passes");
    o = options("wide_tuned");
    path(o.init, "wide");
    o.recompute = true;
    assert_plan(o, "recomputation");
    strcpy(o.lora, "openpi");
    assert_plan(o, "openpi's pairs");
    strcpy(o.dtype, "bf16"); // the base is f32: its frozen weights are converted
    assert_plan(o, "openpi's pairs, bf16");
    strcpy(o.lora, "peft");
    assert_plan(o, "PEFT's pairs, bf16");
}

static void test_bad_input(void **state) {
    soma_error err;
    soma_train_opts o = options("bad");
    strcpy(o.lora, "openai");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "openpi_language"));
    o = options("bad");
    o.init[0] = 0;
    strcpy(o.freeze, "*");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "--init"));
    o = options("bad");
    strcpy(o.lora, "peft");
    strcpy(o.lora_targets, "((");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
    strcpy(o.lora_targets, "nowhere");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "no linear layer"));
    o = options("bad");
    path(o.init, "nowhere");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start_is_the_checkpoint),
        cmocka_unit_test(test_openpi),
        cmocka_unit_test(test_openpi_parts),
        cmocka_unit_test(test_peft),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_gradient_through_frozen),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, make_base, remove_dots);
}
