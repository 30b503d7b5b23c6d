// SPDX-License-Identifier: Apache-2.0
// A policy that learns to write its chunks as tokens: the loss falls, and what is left is a folder whose policy writes whole answers near
// the demonstrated actions, in both forms, with FAST's files beside it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "policy/export.h"
#include "train/dots.h"
#include "train/trainer.h"

enum { BINS = 16, HORIZON = 2 };

static soma_train_opts options(const char *out, const char *model) {
    soma_train_opts o = soma_train_defaults();
    strcpy(o.family, "pi0_fast");
    strcpy(o.normalise, "openpi_quantile");
    path(o.data, "data");
    path(o.model, model);
    path(o.out, out);
    path(o.action_tokenizer, "bins");
    o.steps = 250;
    o.batch = 16;
    o.horizon = HORIZON;
    o.eval_every = 250;
    o.save_every = 1000;
    o.warmup = 10;
    o.lr = 4e-3;
    o.lr_end = 4e-4;
    o.holdout_share = 0;
    o.threads = 2;
    o.ema = 0;
    strcpy(o.keep, "last");
    return o;
}

static int make_all(void **state) {
    char dir[SOMA_OPT_TEXT];
    soma_fast *bins;
    if (make_dots(state) || soma__fast_bins(&bins, BINS, NULL)) return 1;
    path(dir, "bins");
    bool failed = soma__fast_save(bins, dir, NULL) != SOMA_OK;
    soma__fast_close(bins);
    const char *forms[] = {"false", "true", "false"}, *names[] = {"openpi.json", "lerobot.json", "flow.json"};
    for (int i = 0; i < 3 && !failed; i++) {
        char text[1024];
        snprintf(text, sizeof text,
                 "{\"lerobot_form\": %s, \"vocab_size\": 64, \"max_token_len\": 24, \"max_decoding_steps\": 10,"
                 "\"paligemma\": {\"width\": 32, \"depth\": 2, \"mlp_dim\": 64, \"num_heads\": 2, \"num_kv_heads\": 1, \"head_dim\": 16},"
                 "\"vision\": {\"hidden_size\": 32, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 32,"
                 "\"patch_size\": 8, \"image_size\": 32}%s}",
                 forms[i],
                 i == 2 ? ",\"action_expert\": {\"width\": 32, \"depth\": 2, \"mlp_dim\": 32, \"num_heads\": 2, \"num_kv_heads\": 1, "
                          "\"head_dim\": 16}"
                        : "");
        path(dir, names[i]);
        failed = soma__file_write(dir, text, strlen(text), NULL) != SOMA_OK;
    }
    return failed;
}

typedef struct {
    double first, last;
} watch;

static bool keep_loss(void *user, const soma_train_progress *p) {
    watch *w = user;
    if (p->step == 1) w->first = p->loss;
    w->last = p->loss;
    return true;
}

// The dot's place tells the next actions: a trained policy writes them as well as its bins tell them apart.
static void fly(const char *out) {
    char dir[SOMA_OPT_TEXT];
    soma_error err = {0};
    soma_policy *p;
    soma_pilot *pilot;
    soma_policy_opts po = soma_policy_defaults();
    path(dir, out);
    if (soma_policy_open(&p, dir, &po, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma_pilot_new(&pilot, p, NULL, NULL), SOMA_OK);
    double off = 0, still = 0;
    int whole = 0;
    for (int f = 0; f < 16; f++) {
        static uint8_t picture[SIDE * SIDE * 3];
        memset(picture, 40, sizeof picture);
        float x = sinf(0.3f * (float)f), y = cosf(0.2f * (float)f), state[] = {x, y};
        int px = 16 + (int)(10 * x), py = 16 + (int)(10 * y);
        for (int i = -3; i < 3; i++)
            for (int j = -3; j < 3; j++) picture[((py + i) * SIDE + px + j) * 3] = 250;
        soma_obs obs = {.prompt = "chase the dot", .state = state, .n_state = 2, .n_images = 1, .images = {{"scene", picture, SIDE, SIDE}}};
        soma_actions a;
        if (soma_pilot_act(pilot, &obs, &a, &err)) fail_msg("%s", err.text);
        whole += !a.flaw;
        off += fabs((double)(a.values[0] - x) - 0.1) + fabs((double)(a.values[1] - y) + 0.1);
        still += fabs((double)x + 0.1) + fabs((double)y - 0.1);
    }
    print_message("%s: %d of 16 answers are whole; mean error %.3f, of the dataset's middle %.3f\n", out, whole, off / 32, still / 32);
    assert_true(whole >= 15);
    assert_true(off < 0.5 * still);
    soma_pilot_free(pilot);
    soma_policy_close(p);
}

static void learn(const char *out, const char *model) {
    soma_train_opts o = options(out, model);
    soma_error err = {0};
    watch w = {0};
    if (soma_train(&o, keep_loss, &w, &err)) fail_msg("%s", err.text);
    print_message("%s: cross-entropy %.3f to %.3f nats\n", out, w.first, w.last);
    assert_true(w.first > 2.5 && w.first < 8); // about log 64 to begin with
    assert_true(w.last < 0.5 * w.first);
    fly(out);
}

static void openpis_form(void **state) { learn("openpi", "openpi.json"); }
static void lerobots_form(void **state) { learn("lerobot", "lerobot.json"); }

static soma_status export(const char *policy, const char *out, bool lerobot, soma_error *err) {
    char from[SOMA_OPT_TEXT], to[SOMA_OPT_TEXT];
    soma_exported r;
    path(from, policy);
    path(to, out);
    soma_export_opts o = {.policy = from, .out = to, .lerobot = lerobot, .dtype = SOMA_F32, .asset = "dot"};
    return soma__export(&r, &o, NULL, NULL, err);
}

// The action tokenizer goes along; what LeRobot cannot read is told.
static void an_exported_policy_writes(void **state) {
    soma_error err = {0};
    if (export("lerobot", "for_lerobot", true, &err)) fail_msg("%s", err.text);
    fly("for_lerobot");
    if (export("openpi", "for_soma", false, &err)) fail_msg("%s", err.text);
    fly("for_soma");
    assert_int_equal(export("openpi", "refused", true, &err), SOMA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "lerobot_form"));
}

// pi0 starts from what pi0-FAST sees with, its expert anew; other sizes are told by name.
static void a_vlm_goes_on(void **state) {
    soma_train_opts o = options("flow", "flow.json");
    soma_error err = {0};
    soma_safetensors *from, *to;
    char dir[SOMA_OPT_TEXT];
    strcpy(o.family, "pi0");
    path(o.vlm, "openpi");
    o.steps = 0;
    if (soma_train(&o, NULL, NULL, &err)) fail_msg("%s", err.text);
    path(dir, "openpi");
    assert_int_equal(soma__safetensors_open(&from, dir, NULL), SOMA_OK);
    path(dir, "flow");
    assert_int_equal(soma__safetensors_open(&to, dir, NULL), SOMA_OK);
    int shared = 0;
    for (size_t i = 0; i < soma__safetensors_count(from); i++) {
        const soma_safetensor *a = soma__safetensors_at(from, i), *b = soma__safetensors_find(to, a->name);
        if (!b) continue; // pi0 reads nothing behind its prefix's last keys and values
        assert_true(a->dtype == b->dtype && a->n_values == b->n_values);
        assert_memory_equal(a->data, b->data, (size_t)a->n_values * soma_dtype_size(a->dtype));
        shared++;
    }
    assert_true(shared > 20 && soma__safetensors_count(to) > (size_t)shared);
    soma__safetensors_close(from);
    soma__safetensors_close(to);
    o = options("other", "model.json");
    strcpy(o.family, "pi0");
    path(o.vlm, "openpi");
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "embed_tokens"));
}

static void a_tokenizer_is_needed(void **state) {
    soma_train_opts o = options("none", "openpi.json");
    soma_error err = {0};
    *o.action_tokenizer = 0;
    assert_int_equal(soma_train(&o, NULL, NULL, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "--action-tokenizer"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openpis_form),  cmocka_unit_test(lerobots_form),         cmocka_unit_test(an_exported_policy_writes),
        cmocka_unit_test(a_vlm_goes_on), cmocka_unit_test(a_tokenizer_is_needed),
    };
    return cmocka_run_group_tests(tests, make_all, remove_dots);
}
