// SPDX-License-Identifier: Apache-2.0
// A policy folder as `soma train` leaves it, opened and flown: same seed same actions, batches like single calls, no allocation once warm,
// and a sentence for each observation and each folder that is wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/dots.h"
#include "train/trainer.h"

static char policy_dir[SOMA_PATH_MAX];
static uint8_t picture[SIDE * SIDE * 3];
static const float place[] = {0.25f, -0.5f};

static int make_policy(void **state) {
    if (make_dots(state)) return 1;
    for (size_t i = 0; i < sizeof picture; i++) picture[i] = (uint8_t)(i * 7);
    soma_train_opts o = soma_train_defaults();
    path(o.data, "data");
    path(o.model, "model.json");
    json_t *sizes; // room for prompts of several lengths
    if (soma__json_load(&sizes, o.model, NULL) || json_object_set_new(sizes, "max_token_len", json_integer(40)) ||
        soma__json_save(sizes, o.model, NULL))
        return 1;
    json_decref(sizes);
    path(o.out, "policy");
    path(policy_dir, "policy");
    o.steps = 4;
    o.batch = 4;
    o.horizon = 4;
    o.threads = 1;
    return soma_train(&o, NULL, NULL, NULL) != SOMA_OK;
}

static soma_policy *open_cached(const char *dtype, int threads, const char *cache) {
    soma_policy *p;
    soma_error err;
    soma_policy_opts o = soma_policy_defaults();
    strcpy(o.dtype, dtype);
    strcpy(o.cache, cache);
    o.threads = threads;
    if (soma_policy_open(&p, policy_dir, &o, &err)) fail_msg("%s", err.text);
    return p;
}

static soma_policy *open_policy(const char *dtype, int threads) { return open_cached(dtype, threads, ""); }

static soma_pilot *new_pilot(const soma_policy *p, int64_t seed) {
    soma_pilot *pilot;
    soma_pilot_opts o = soma_pilot_defaults();
    o.seed = seed;
    assert_int_equal(soma_pilot_new(&pilot, p, &o, NULL), SOMA_OK);
    return pilot;
}

static soma_obs observation(void) {
    return (soma_obs){.prompt = "chase the dot", .state = place, .n_state = 2, .n_images = 1, .images = {{"scene", picture, SIDE, SIDE}}};
}

static void act(soma_pilot *pilot, float out[8]) {
    soma_obs obs = observation();
    soma_actions a;
    soma_error err;
    if (soma_pilot_act(pilot, &obs, &a, &err)) fail_msg("%s", err.text);
    assert_int_equal(a.horizon, 4);
    assert_int_equal(a.n_actions, 2);
    memcpy(out, a.values, 8 * sizeof *out);
}

static void test_same_seed_same_actions(void **state) {
    float out[4][8];
    const int64_t seeds[] = {7, 7, 8, 7};
    for (int i = 0; i < 4; i++) {
        soma_policy *p = open_policy("bf16", 1 + i % 3);
        soma_pilot *pilot = new_pilot(p, seeds[i]);
        act(pilot, out[i]);
        soma_pilot_free(pilot);
        soma_policy_close(p);
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]); // 1 and 2 threads
    assert_memory_equal(out[0], out[3], sizeof out[0]);
    assert_memory_not_equal(out[0], out[2], sizeof out[0]);
}

static void test_no_noise_is_the_same_for_every_seed(void **state) {
    soma_policy *p = open_policy("bf16", 1);
    float out[3][8];
    for (int i = 0; i < 3; i++) { // two seeds without noise, one with
        soma_pilot *pilot;
        soma_pilot_opts o = soma_pilot_defaults();
        o.seed = i;
        if (i < 2) o.noise = 0;
        assert_int_equal(soma_pilot_new(&pilot, p, &o, NULL), SOMA_OK);
        act(pilot, out[i]);
        soma_pilot_free(pilot);
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_memory_not_equal(out[0], out[2], sizeof out[0]);
    soma_pilot *none;
    soma_pilot_opts o = soma_pilot_defaults();
    soma_error err;
    o.noise = NAN;
    assert_int_equal(soma_pilot_new(&none, p, &o, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "noise"));
    soma_policy_close(p);
}

static void test_batch_is_like_single_calls(void **state) {
    soma_policy *p = open_policy("f32", 2);
    float alone[3][8];
    for (int i = 0; i < 3; i++) {
        soma_pilot *pilot = new_pilot(p, i);
        act(pilot, alone[i]);
        soma_pilot_free(pilot);
    }
    soma_pilot *pilots[3];
    soma_obs obs[3];
    soma_actions actions[3];
    for (int i = 0; i < 3; i++) {
        pilots[i] = new_pilot(p, i);
        obs[i] = observation();
    }
    assert_int_equal(soma_policy_act_many(p, 3, pilots, obs, actions, NULL), SOMA_OK);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 8; k++) assert_float_equal(actions[i].values[k], alone[i][k], 1e-4);
        soma_pilot_free(pilots[i]);
    }
    soma_policy_close(p);
}

// Whatever else is in the batch, and however many: prompts of other lengths, other pictures, other seeds.
static void test_a_row_has_the_bits_it_has_alone(void **state) {
    static const char *const prompts[] = {"dot", "chase the dot", "chase the dot chase the dot chase the dot chase the dot chase the dot"};
    static const char *const kinds[][2] = {{"f32", "plain"}, {"f32", ""}, {"bf16", ""}, {"int8", ""}};
    enum { MOST = 8 };
    float states[MOST][2], alone[MOST][8];
    static uint8_t pictures[MOST][SIDE * SIDE * 3];
    soma_obs obs[MOST];
    for (int i = 0; i < MOST; i++) {
        for (size_t k = 0; k < sizeof pictures[i]; k++) pictures[i][k] = (uint8_t)(k * (size_t)(i + 3));
        states[i][0] = 0.1f * (float)i, states[i][1] = -0.2f * (float)i;
        obs[i] = observation();
        obs[i].prompt = prompts[i % 3];
        obs[i].state = states[i];
        obs[i].images[0].pixels = pictures[i];
    }
    for (size_t k = 0; k < SOMA_COUNT(kinds); k++) {
        soma_policy *p;
        soma_error err;
        soma_policy_opts o = soma_policy_defaults();
        strcpy(o.dtype, kinds[k][0]);
        strcpy(o.isa, kinds[k][1]);
        o.threads = 2;
        if (soma_policy_open(&p, policy_dir, &o, &err)) fail_msg("%s", err.text);
        for (int n = 1; n <= MOST; n++) {
            soma_pilot *pilots[MOST];
            soma_actions actions[MOST];
            for (int i = 0; i < n; i++) pilots[i] = new_pilot(p, i);
            if (soma_policy_act_many(p, n, pilots, obs, actions, &err)) fail_msg("%s", err.text);
            for (int i = 0; i < n; i++) {
                soma_pilot *one = new_pilot(p, i);
                if (n == i + 1) {
                    soma_actions a;
                    assert_int_equal(soma_pilot_act(one, &obs[i], &a, NULL), SOMA_OK);
                    memcpy(alone[i], a.values, sizeof alone[i]);
                }
                soma_pilot_free(one);
                for (int j = 0; j < 8; j++)
                    if (actions[i].values[j] != alone[i][j])
                        fail_msg("%s %s: row %d of %d is %.9g in place of %.9g", kinds[k][0], kinds[k][1], i, n,
                                 (double)actions[i].values[j], (double)alone[i][j]);
            }
            for (int i = 0; i < n; i++) soma_pilot_free(pilots[i]);
        }
        soma_policy_close(p);
    }
}

static void test_acting_does_not_allocate(void **state) {
    soma_policy *p = open_policy("bf16", 2);
    soma_pilot *pilot = new_pilot(p, 0);
    float out[8];
    act(pilot, out);
    uint64_t before = soma__alloc_count();
    act(pilot, out);
    assert_int_equal(soma__alloc_count(), before);
    soma_pilot_free(pilot);
    soma_policy_close(p);
}

// Another length of prompt takes plans of its own, and coming back finds the first ones.
static void test_a_prompt_seen_before_does_not_allocate(void **state) {
    soma_policy *p = open_policy("bf16", 1);
    soma_pilot *pilot = new_pilot(p, 0);
    soma_obs obs = observation();
    soma_actions a;
    const char *const prompts[] = {"chase the dot",
                                   "chase the dot chase the dot chase the dot chase the dot chase the dot chase the dot chase the dot"};
    uint64_t before = 0;
    for (int i = 0; i < 6; i++) { // the prompt's own text is kept anew when it changes: four allocations in the last four acts at most
        if (i == 2) before = soma__alloc_count();
        obs.prompt = prompts[i & 1];
        assert_int_equal(soma_pilot_act(pilot, &obs, &a, NULL), SOMA_OK);
    }
    assert_true(soma__alloc_count() - before < 100); // a plan takes thousands
    soma_pilot_free(pilot);
    soma_policy_close(p);
}

static void test_time_rules(void **state) {
    soma_policy *p = open_policy("f32", 1);
    soma_pilot_opts o = soma_pilot_defaults();
    soma_pilot *pilots[3];
    soma_obs obs[] = {observation(), observation()};
    soma_actions a[3];
    soma_error err;
    const char *const rules[] = {"", "openpi", "lerobot"};
    for (int i = 0; i < 3; i++) {
        strcpy(o.time, rules[i]);
        assert_int_equal(soma_pilot_new(&pilots[i], p, &o, NULL), SOMA_OK);
        assert_int_equal(soma_pilot_act(pilots[i], &obs[0], &a[i], NULL), SOMA_OK);
    }
    assert_memory_equal(a[0].values, a[1].values, 8 * sizeof(float)); // soma's own checkpoints go by openpi's
    assert_memory_not_equal(a[0].values, a[2].values, 8 * sizeof(float));
    for (int k = 0; k < 8; k++) assert_float_equal(a[0].values[k], a[2].values[k], 1e-3);
    assert_int_equal(soma_policy_act_many(p, 2, pilots + 1, obs, a, &err), SOMA_BAD_INPUT);
    strcpy(o.time, "jax");
    soma_pilot *none;
    assert_int_equal(soma_pilot_new(&none, p, &o, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "jax"));
    for (int i = 0; i < 3; i++) soma_pilot_free(pilots[i]);
    soma_policy_close(p);
}

static void test_wrong_observations(void **state) {
    soma_policy *p = open_policy("bf16", 1);
    soma_pilot *pilot = new_pilot(p, 0), *twin = new_pilot(p, 0);
    soma_actions a;
    soma_error err;
    soma_obs obs = observation();
    obs.n_state = 3;
    assert_int_equal(soma_pilot_act(pilot, &obs, &a, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "3 values given, this policy takes 2"));
    obs = observation();
    const float nan[] = {0, NAN};
    obs.state = nan;
    assert_int_equal(soma_pilot_act(pilot, &obs, &a, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "state[1]"));
    obs = observation();
    obs.images[0].camera = "ceiling";
    assert_int_equal(soma_pilot_act(pilot, &obs, &a, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "ceiling"));
    assert_non_null(strstr(err.text, "scene"));
    obs = observation();
    obs.n_images = 0;
    assert_int_equal(soma_pilot_act(pilot, &obs, &a, &err), SOMA_BAD_INPUT);
    float out[8], same[8];
    act(pilot, out); // refusals changed nothing
    act(twin, same);
    assert_memory_equal(out, same, sizeof out);
    soma_pilot_free(pilot);
    soma_pilot_free(twin);
    soma_policy_close(p);
}

static void refuse(const char *name, const char *content, const char *wanted) {
    char file[SOMA_PATH_MAX + 64], *kept;
    size_t size;
    snprintf(file, sizeof file, "%s/%s", policy_dir, name);
    assert_int_equal(soma__file_read(&kept, &size, file, 1 << 30, NULL), SOMA_OK);
    size_t len = content ? strlen(content) : size / 2; // NULL: the file's first half
    assert_int_equal(soma__file_write(file, content ? content : kept, len, NULL), SOMA_OK);
    soma_policy *p;
    soma_error err;
    assert_int_not_equal(soma_policy_open(&p, policy_dir, NULL, &err), SOMA_OK);
    if (!strstr(err.text, wanted)) fail_msg("\"%s\" does not name %s", err.text, wanted);
    assert_null(p);
    assert_int_equal(soma__file_write(file, kept, size, NULL), SOMA_OK);
    soma__free(kept);
}

// What a closed policy kept is what the next one acts with, to the bit; a policy that was not asked keeps nothing of this size.
static void test_kept_weights_act_alike(void **state) {
    char cache[SOMA_PATH_MAX];
    char **names;
    size_t n = 0, kept;
    path(cache, "cache");
    const char *dtypes[] = {"f32", "bf16", "int8", "int4w"};
    for (size_t d = 0; d < SOMA_COUNT(dtypes); d++) {
        float out[3][8];
        for (int i = 0; i < 3; i++) {
            soma_policy *p = open_cached(dtypes[d], 1, i ? cache : "");
            soma_pilot *pilot = new_pilot(p, 7);
            act(pilot, out[i]);
            soma_pilot_free(pilot);
            soma_policy_close(p);
            assert_memory_equal(out[i], out[0], sizeof out[0]);
            if (i) {
                assert_int_equal(soma__dir_list(&names, &kept, cache, NULL), SOMA_OK);
                soma__dir_list_free(names, kept);
                assert_true(kept == n + 1 || kept == 0); // the plain instruction set packs nothing
            } else
                assert_true(d || !soma__dir_exists(cache));
        }
        n += kept > 0;
    }
    size_t n_weights;
    soma_error err;
    soma_policy_opts o = soma_policy_defaults();
    strcpy(o.cache, cache);
    if (kept && soma__policy_verify(&n_weights, policy_dir, &o, &err)) fail_msg("%s", err.text);
}

static void test_wrong_folders(void **state) {
    refuse("model.safetensors", NULL, "model.safetensors");
    refuse("config.json", "{\"model_type\": \"pi7\"}", "pi7");
    refuse("config.json", "{\"model_type\": \"pi0\", \"preset\": \"nano\"}", "robot");
    refuse("norm_stats.json", "{\"norm_stats\": {}}", "norm_stats.json");
    refuse("vocab.json", "[", "vocab.json");
    soma_policy *p;
    soma_error err;
    assert_int_equal(soma_policy_open(&p, "nowhere", NULL, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "nowhere"));
}

static void test_every_allocation_may_fail(void **state) {
    for (int64_t n = 0;; n++) {
        soma_policy *p = NULL;
        soma_error err = {0};
        soma_policy_opts o = soma_policy_defaults();
        o.threads = 1;
        soma__alloc_fail_after(n);
        soma_status status = soma_policy_open(&p, policy_dir, &o, &err);
        soma__alloc_fail_after(-1);
        soma_policy_close(p);
        if (status == SOMA_OK) break;
        assert_true(*err.text);
        assert_true(n < 100000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_actions),
        cmocka_unit_test(test_no_noise_is_the_same_for_every_seed),
        cmocka_unit_test(test_batch_is_like_single_calls),
        cmocka_unit_test(test_a_row_has_the_bits_it_has_alone),
        cmocka_unit_test(test_acting_does_not_allocate),
        cmocka_unit_test(test_a_prompt_seen_before_does_not_allocate),
        cmocka_unit_test(test_time_rules),
        cmocka_unit_test(test_wrong_observations),
        cmocka_unit_test(test_kept_weights_act_alike),
        cmocka_unit_test(test_wrong_folders),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_policy, remove_dots);
}
