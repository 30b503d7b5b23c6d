// SPDX-License-Identifier: Apache-2.0
// What acting saves changes no result: the same batch through the graphs that leave nothing out and through those that do.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "policy/params.h"
#include "policy/schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZES                                                                                                                             \
    "\"preset\": \"nano\", \"camera_order\": [\"base\", \"left\", \"right\"], \"action_horizon\": 6, \"action_dim\": 5, "                 \
    "\"max_token_len\": 40,"                                                                                                              \
    "\"vocab_size\": 24, \"vision\": {\"hidden_size\": 16, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": " \
    "24,"                                                                                                                                 \
    " \"patch_size\": 4, \"image_size\": 16}"
static const char *const smolvla_text = "{\"model_type\": \"%s\", " SIZES ", \"num_vlm_layers\": 3, \"scale_factor\": 2,"
                                        " \"text\": {\"width\": 32, \"mlp_dim\": 48, \"num_heads\": 4, \"num_kv_heads\": 2, \"head_dim\": "
                                        "8}, \"expert\": {\"width\": 24, \"mlp_dim\": 40}}";
static const char *const config_text =
    "{\"model_type\": \"%s\", " SIZES ","
    " \"paligemma\": {\"width\": 32, \"depth\": 3, \"mlp_dim\": 48, \"num_heads\": 4, \"num_kv_heads\": 1, \"head_dim\": 8},"
    " \"action_expert\": {\"width\": 16, \"depth\": 3, \"mlp_dim\": 24, \"num_heads\": 4, \"num_kv_heads\": 1, \"head_dim\": 8}}";

enum { B = 2, C = 3, L = 40, S = 6, A = 5, STEPS = 7, PIXELS = 16 * 16 * 3 };

static void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

static soma_model *model_of(const char *type) {
    char text[1024];
    json_t *json;
    soma_model *m;
    soma_error err = {0};
    snprintf(text, sizeof text, strcmp(type, "smolvla") ? config_text : smolvla_text, type);
    ok(soma__json_parse(&json, text, strlen(text), "tiny", &err), &err);
    ok(soma__model_new(&m, json, "tiny", &err), &err);
    json_decref(json);
    return m;
}

// ---- a batch

static uint8_t images[B * C * PIXELS], image_mask[B * C], token_mask[B * L];
static int32_t tokens[B * L];
static float state[B * A], noise[B * S * A];

static soma_batch batch_of(const uint8_t cameras[B * C], int first, int second) {
    soma_rng rng = soma__rng(3);
    const int lengths[B] = {first, second};
    for (size_t i = 0; i < sizeof images; i++) images[i] = (uint8_t)soma__rng_u64(&rng);
    memcpy(image_mask, cameras, sizeof image_mask);
    for (int row = 0; row < B; row++)
        for (int i = 0; i < L; i++) {
            token_mask[row * L + i] = i < lengths[row];
            tokens[row * L + i] = i < lengths[row] ? (int32_t)soma__rng_below(&rng, 24) : 0;
        }
    soma__rng_normals(&rng, state, B * A);
    soma__rng_normals(&rng, noise, B * S * A);
    return (soma_batch){.n = B,
                        .image_dtype = SOMA_U8,
                        .images = images,
                        .image_mask = image_mask,
                        .tokens = tokens,
                        .token_mask = token_mask,
                        .state = state};
}

// ---- both ways

typedef struct way {
    const soma_model *model;
    soma_device *device;
    soma_graph *graphs[3];
    soma_params *params;
    soma_layout states;
    void *state_memory;
    double flops; // of a whole chunk
} way;

static void build(way *w, const soma_saving *saving) {
    static const soma_program programs[] = {SOMA_PROGRAM_ENCODE, SOMA_PROGRAM_DENOISE, SOMA_PROGRAM_SCHEDULE};
    soma_error err = {0};
    const int n = saving ? 3 : 2;
    for (int i = 0; i < n; i++) {
        soma_build b = soma__build_defaults(programs[i], B);
        b.saving = saving;
        ok(soma_graph_new(&w->graphs[i], &err), &err);
        w->model->family->build(w->model, &b, w->graphs[i]);
        ok(soma__layout_add(&w->states, w->graphs[i], SOMA_ROLE_STATE, &err), &err);
    }
    ok(soma__params_new(&w->params, w->device, (const soma_graph *const *)w->graphs, (size_t)n, &err), &err);
    ok(soma__params_init(w->params, 5, &err), &err);
    for (size_t s = 0; s < w->params->layout.n_slots; s++) { // what begins at zero would hide what it is multiplied with
        const soma_slot *slot = &w->params->layout.slots[s];
        soma_rng rng = soma__rng(strlen(slot->name)), own = soma__rng_fold(&rng, slot->size);
        float *values = (float *)((char *)w->params->memory + slot->place);
        for (size_t i = 0; i < slot->size / sizeof *values; i++) values[i] += 0.3f * (float)soma__rng_normal(&own);
    }
    ok(w->device->kind->alloc(w->device, &w->state_memory, w->states.size, &err), &err);
}

static soma_frame *frame_of(way *w, int i, const soma_feed *feed) {
    soma_error err = {0};
    soma_plan *plan;
    soma_frame *frame;
    ok(soma__plan_new(&plan, w->graphs[i], &w->params->layout, &w->states, w->device, &err), &err);
    ok(soma__frame_new(&frame, plan, w->params->memory, NULL, w->state_memory, &err), &err);
    for (size_t k = 0; k < feed->n_arrays; k++)
        if (soma__plan_find(plan, feed->arrays[k].name))
            ok(soma__frame_put(frame, feed->arrays[k].name, feed->arrays[k].data, feed->arrays[k].size, &err), &err);
    return frame;
}

static void drop(soma_frame *frame) {
    soma_plan *plan = (soma_plan *)frame->plan;
    soma__frame_free(frame);
    soma__plan_free(plan);
}

static double chunk(const soma_model *model, soma_device *device, soma_batch batch, const soma_saving *saving, float x[B * S * A]) {
    soma_error err = {0};
    way w = {.model = model, .device = device};
    soma_feed feed = {0};
    float times[STEPS], dt = -1.0f / STEPS;
    soma__schedule_times(times, STEPS, SOMA_TIME_OPENPI);
    build(&w, saving);
    batch.saving = saving;
    ok(model->family->prepare(model, &batch, &feed, &err), &err);
    soma_frame *encode = frame_of(&w, 0, &feed), *denoise = frame_of(&w, 1, &feed), *schedule = saving ? frame_of(&w, 2, &feed) : NULL;
    soma__frame_run(encode);
    if (schedule) {
        ok(soma__frame_put(schedule, "time", times, sizeof times, &err), &err);
        soma__frame_run(schedule);
    }
    memcpy(x, noise, sizeof noise);
    ok(soma__frame_put(denoise, "dt", &dt, sizeof dt, &err), &err);
    for (int32_t k = 0; k < STEPS; k++) {
        const float time[B] = {times[k], times[k]};
        const int32_t step[B] = {k, k};
        ok(soma__frame_put(denoise, "x_t", x, sizeof noise, &err), &err);
        if (saving)
            ok(soma__frame_put(denoise, "step", step, sizeof step, &err), &err);
        else
            ok(soma__frame_put(denoise, "time", time, sizeof time, &err), &err);
        soma__frame_run(denoise);
        ok(soma__frame_get(denoise, "x_next", x, sizeof noise, &err), &err);
    }
    const double flops = encode->plan->flops + STEPS * denoise->plan->flops + (schedule ? schedule->plan->flops : 0);
    drop(encode);
    drop(denoise);
    if (schedule) drop(schedule);
    soma__feed_free(&feed);
    soma__params_free(w.params);
    for (int i = 0; i < 3; i++) soma_graph_free(w.graphs[i]);
    device->kind->free(device, w.state_memory);
    soma__layout_free(&w.states);
    return flops;
}

static void compare(const char *type, const char *isa, const uint8_t cameras[B * C], int first, int second) {
    soma_error err = {0};
    soma_device *device;
    float whole[B * S * A], saved[B * S * A];
    ok(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 2, .isa = isa}, &err), &err);
    soma_model *model = model_of(type);
    soma_batch batch = batch_of(cameras, first, second);
    const soma_saving saving = soma__batch_saving(&model->info, &batch, STEPS);
    const double a = chunk(model, device, batch, NULL, whole), b = chunk(model, device, batch, &saving, saved);
    double off = 0, most = 0;
    for (int i = 0; i < B * S * A; i++) {
        off = fmax(off, fabs((double)whole[i] - (double)saved[i]));
        most = fmax(most, fabs((double)whole[i]));
        assert_true(isfinite(saved[i]));
    }
    print_message("%s, %s: cameras %x, %d tokens: off by %.2g of %.2g, %.0f %% of the work\n", type, device->kind->info(device),
                  saving.cameras, (int)saving.tokens, off, most, 100 * b / a);
    if (!strcmp(isa, "plain"))
        assert_true(off == 0);
    else
        assert_true(off <=
                    (strcmp(type, "smolvla") ? 2e-6 : 4e-6) * fmax(most, 1));    // the same sums, cut elsewhere; its pictures are scaled
    assert_true(b < a || (b == a && saving.cameras == 7 && saving.tokens == L)); // SmolVLA computes nothing twice that could be left out
    soma__model_free(model);
    soma__device_close(device);
}

static void compare_all(const char *type) {
    static const uint8_t all[] = {1, 1, 1, 1, 1, 1}, some[] = {1, 0, 1, 1, 0, 0}, last[] = {0, 0, 1, 0, 0, 1}, nobody[B * C] = {0};
    const char *const isas[] = {"plain", ""};
    for (int i = 0; i < 2; i++) {
        compare(type, isas[i], all, 40, 12);
        compare(type, isas[i], some, 5, 9);
        compare(type, isas[i], last, 17, 1);
        compare(type, isas[i], nobody, 3, 30);
    }
}

static void pi0(void **state_) { compare_all("pi0"); }
static void pi05(void **state_) { compare_all("pi05"); }
static void smolvla(void **state_) { compare_all("smolvla"); }

static void savings_follow_the_masks(void **state_) {
    soma_model *m = model_of("pi0");
    const uint8_t cameras[B * C] = {1, 0, 0, 0, 0, 1};
    soma_batch b = batch_of(cameras, 16, 3);
    soma_saving s = soma__batch_saving(&m->info, &b, 10);
    assert_int_equal(s.cameras, 5);
    assert_int_equal(s.tokens, 16);
    assert_int_equal(s.steps, 10);
    b = batch_of(cameras, 17, 3);
    assert_int_equal(soma__batch_saving(&m->info, &b, 10).tokens, 32);
    b = batch_of(cameras, 39, 3);
    assert_int_equal(soma__batch_saving(&m->info, &b, 10).tokens, 40);
    b.image_mask = NULL;
    assert_int_equal(soma__batch_saving(&m->info, &b, 10).cameras, 7);
    soma__model_free(m);
}

static void times_of_both_projects(void **state_) {
    float openpi[10], lerobot[10];
    soma__schedule_times(openpi, 10, SOMA_TIME_OPENPI);
    soma__schedule_times(lerobot, 10, SOMA_TIME_LEROBOT);
    float t = 1;
    int apart = 0;
    for (int k = 0; k < 10; k++, t += -0.1f) {
        assert_true(openpi[k] == t);
        assert_true(lerobot[k] == (float)(1.0 + k * -0.1));
        apart += openpi[k] != lerobot[k];
    }
    assert_true(apart > 3);
    soma_time_rule rule;
    soma_error err = {0};
    json_t *theirs = json_pack("{s:s}", "type", "pi05"), *ours = json_pack("{s:s}", "model_type", "pi05");
    ok(soma__time_rule(&rule, "", theirs, &err), &err);
    assert_int_equal(rule, SOMA_TIME_LEROBOT);
    ok(soma__time_rule(&rule, "", ours, &err), &err);
    assert_int_equal(rule, SOMA_TIME_OPENPI);
    ok(soma__time_rule(&rule, "lerobot", ours, &err), &err);
    assert_int_equal(rule, SOMA_TIME_LEROBOT);
    assert_int_equal(soma__time_rule(&rule, "jax", ours, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "jax"));
    json_decref(theirs);
    json_decref(ours);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pi0),
        cmocka_unit_test(pi05),
        cmocka_unit_test(smolvla),
        cmocka_unit_test(savings_follow_the_masks),
        cmocka_unit_test(times_of_both_projects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
