// SPDX-License-Identifier: Apache-2.0
// Every spelling of a key and every pixel layout gives the same observation; what does not fit is refused by name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "serve/observe.h"

#include <math.h>
#include <string.h>

enum { HIGH = 2, WIDE = 4, N = HIGH * WIDE * 3 };

static const char *const cameras[] = {"scene", "wrist"};
static const soma_policy_info info = {.n_state = 3, .n_cameras = 2, .camera_names = cameras};

static uint8_t hwc[N], chw[N]; // the same picture twice
static float floats[N];        // chw / 255
static soma_arena arena;
static soma_str message;
static soma_obs obs;
static soma_error err;

static int setup(void **state) {
    for (int i = 0; i < N / 3; i++)
        for (int c = 0; c < 3; c++) {
            hwc[i * 3 + c] = chw[c * (N / 3) + i] = (uint8_t)(i * 30 + c);
            floats[c * (N / 3) + i] = ((float)(i * 30 + c) + 0.5f) / 255;
        }
    return 0;
}

static int clean(void **state) {
    soma__str_free(&message);
    soma__arena_free(&arena);
    err = (soma_error){0};
    return 0;
}

static void put_hwc(const char *key) {
    soma__msg_put_str(&message, key);
    soma__msg_put_ndarray(&message, "|u1", 3, (int64_t[]){HIGH, WIDE, 3}, hwc, N);
}

static void put_state(const char *key, int n) {
    static const double values[] = {1, 2, 3, 4};
    soma__msg_put_str(&message, key);
    soma__msg_put_ndarray(&message, "<f8", 1, (int64_t[]){n}, values, (size_t)n * sizeof *values);
}

static soma_status observe(void) {
    const soma_msg *m;
    assert_int_equal(soma__msg_parse(&m, &arena, message.text, message.len, true, &err), SOMA_OK);
    return soma__observe(&obs, &info, m, &arena, &err);
}

static void is_right(int n_images) {
    if (observe()) fail_msg("%s", err.text);
    assert_int_equal(obs.n_images, n_images);
    for (int i = 0; i < n_images; i++) {
        assert_int_equal(obs.images[i].width, WIDE);
        assert_int_equal(obs.images[i].height, HIGH);
        assert_memory_equal(obs.images[i].pixels, hwc, N);
    }
    assert_int_equal(obs.n_state, 3);
    for (int i = 0; i < 3; i++) assert_true(obs.state[i] == i + 1);
    clean(NULL);
}

static void refused(const char *words) {
    assert_int_equal(observe(), SOMA_BAD_INPUT);
    if (!strstr(err.text, words)) fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    clean(NULL);
}

static void test_keys(void **state) {
    static const char *const keys[][3] = {{"observation/scene", "observation/wrist", "observation/state"},
                                          {"observation/images/scene", "observation/images/wrist", "state"},
                                          {"observation.images.scene", "observation.images.wrist", "observation.state"}};
    for (size_t i = 0; i < SOMA_COUNT(keys); i++) {
        soma__msg_put_map(&message, 3);
        put_hwc(keys[i][1]);
        put_hwc(keys[i][0]);
        put_state(keys[i][2], 3);
        is_right(2);
        assert_string_equal(obs.images[0].camera, "scene"); // the policy's order
    }
    soma__msg_put_map(&message, 3);
    soma__msg_put_str(&message, "images");
    soma__msg_put_map(&message, 2);
    put_hwc("scene");
    put_hwc("wrist");
    put_state("state", 3);
    soma__msg_put_str(&message, "prompt");
    soma__msg_put_str(&message, "f\xc3\xbcge");
    assert_int_equal(observe(), SOMA_OK);
    assert_string_equal(obs.prompt, "f\xc3\xbcge");
    is_right(2);
}

static void put_layout(const char *dtype, int64_t a, int64_t b, int64_t c, const void *data, size_t size) {
    soma__msg_put_map(&message, 2);
    soma__msg_put_str(&message, "observation/scene");
    soma__msg_put_ndarray(&message, dtype, 3, (int64_t[]){a, b, c}, data, size);
    put_state("state", 3);
}

static void test_layouts(void **state) {
    put_layout("|u1", HIGH, WIDE, 3, hwc, N);
    is_right(1); // the other camera is left to be masked
    put_layout("|u1", 3, HIGH, WIDE, chw, N);
    is_right(1);
    put_layout("<f4", 3, HIGH, WIDE, floats, sizeof floats);
    is_right(1);
    put_layout("<f4", HIGH, WIDE, 4, floats, HIGH * WIDE * 4 * 3);
    clean(NULL);
    put_layout("|u1", HIGH, 3, WIDE, hwc, N);
    refused("\"observation/scene\": wanted an ndarray [h, w, 3] or [3, h, w] of |u1 or floats, found an ndarray |u1 [2, 3, 4]");
    put_layout("|u1", HIGH, WIDE, 1, hwc, HIGH * WIDE); // grey, and grey without its last dimension, and with transparency
    refused("\"observation/scene\": wanted an ndarray [h, w, 3] or [3, h, w] of |u1 or floats, found an ndarray |u1 [2, 4, 1]");
    soma__msg_put_map(&message, 2);
    soma__msg_put_str(&message, "observation/scene");
    soma__msg_put_ndarray(&message, "|u1", 2, (int64_t[]){HIGH, WIDE}, hwc, HIGH * WIDE);
    put_state("state", 3);
    refused("found an ndarray |u1 [2, 4]");
    put_layout("|u1", 1, WIDE, 4, hwc, 4 * WIDE);
    refused("found an ndarray |u1 [1, 4, 4]");
    put_layout("<u2", 1, WIDE, 3, hwc, N);
    refused("found an ndarray <u2 [1, 4, 3]");
    put_layout("|u1", 0, WIDE, 3, hwc, 0);
    refused("found an ndarray |u1 [0, 4, 3]");
    floats[5] = 2;
    put_layout("<f4", 3, HIGH, WIDE, floats, sizeof floats);
    refused("\"observation/scene\": pixels given as floats lie in 0..1, found 2");
    floats[5] = NAN;
    put_layout("<f4", 3, HIGH, WIDE, floats, sizeof floats);
    refused("found nan");
}

static void test_cameras(void **state) {
    soma__msg_put_map(&message, 3);
    put_hwc("observation/scene");
    put_hwc("observation/wrst");
    put_state("state", 3);
    refused("no picture for camera \"wrist\" but one under \"observation/wrst\"");
    soma__msg_put_map(&message, 4); // more pictures than the policy looks at
    put_hwc("observation/scene");
    put_hwc("observation/wrist");
    put_hwc("observation/third");
    put_state("state", 3);
    is_right(2);
    soma__msg_put_map(&message, 1);
    put_state("state", 3);
    refused("the observation has no picture");
    soma__msg_put_map(&message, 2);
    soma__msg_put_str(&message, "images");
    soma__msg_put_map(&message, 1);
    put_hwc("cam_high");
    put_state("state", 3);
    refused("but one under \"images/cam_high\"");
}

static void test_state(void **state) {
    soma__msg_put_map(&message, 2);
    put_hwc("observation/scene");
    put_state("observation/state", 4);
    refused("\"observation/state\": wanted 3 numbers, found an ndarray <f8 [4]");
    soma__msg_put_map(&message, 1);
    put_hwc("observation/scene");
    refused("no state; wanted \"observation/state\" with 3 numbers");
    soma__msg_put_map(&message, 2);
    put_hwc("observation/scene");
    soma__msg_put_str(&message, "state");
    soma__msg_put_str(&message, "abc");
    refused("\"state\": wanted 3 numbers, found a str of 3 bytes");
    soma__msg_put_map(&message, 2);
    put_hwc("observation/scene");
    soma__msg_put_str(&message, "state");
    soma__msg_put_array(&message, 3);
    soma__msg_put_int(&message, 1);
    soma__msg_put_real(&message, 2);
    soma__msg_put_real(&message, 3);
    is_right(1); // a plain list
    soma__msg_put_map(&message, 2);
    put_hwc("observation/scene");
    soma__msg_put_str(&message, "state");
    soma__msg_put_array(&message, 3);
    for (int i = 0; i < 3; i++) soma__msg_put_real(&message, i == 1 ? NAN : 0);
    refused("\"state\" [1] is not a finite number");
}

static void test_prompt(void **state) {
    for (int i = 0; i < 3; i++) {
        soma__msg_put_map(&message, 3);
        put_hwc("observation/scene");
        put_state("state", 3);
        soma__msg_put_str(&message, "prompt");
        if (i == 0) soma__msg_put_str(&message, "\xff\xfe");
        if (i == 1) soma__msg_put_int(&message, 3);
        if (i == 2) soma__msg_put(&message, &(soma_msg){.kind = SOMA_MSG_STR, .n = 3, .bytes = "a\0b"});
        refused(i == 1 ? "\"prompt\": wanted a str of at most 8192 bytes, found an integer" : "\"prompt\" is not UTF-8 text");
    }
}

// How far a client has come with the chunk before, and how far it will.
static void test_steps(void **state) {
    const double wrong[] = {-1, 0.5, NAN, 1e9};
    for (int i = -1; i < (int)SOMA_COUNT(wrong); i++) {
        soma__msg_put_map(&message, 4);
        put_hwc("observation/scene");
        put_state("state", 3);
        soma__msg_put_str(&message, "executed");
        soma__msg_put_int(&message, 7);
        soma__msg_put_str(&message, "delay");
        soma__msg_put_real(&message, i < 0 ? 2 : wrong[i]);
        if (i >= 0) {
            refused("\"delay\": wanted a whole number of control steps");
            continue;
        }
        is_right(1);
        assert_true(obs.executed == 7 && obs.delay == 2);
    }
}

static void test_too_many_keys(void **state) {
    soma__msg_put_map(&message, 300);
    for (int i = 0; i < 300; i++) put_hwc("observation/third");
    refused("at most 256 keys");
    soma__msg_put_int(&message, 3);
    refused("an observation is a map, found an integer");
}

// openpi's LIBERO client, byte for byte
static void test_golden(void **state) {
    static const char path[] = SOMA_SOURCE_DIR "/../shared/golden/wire/libero_obs.msgpack";
    static const char *const libero[] = {"image", "wrist_image"};
    const soma_policy_info p = {.n_state = 8, .n_cameras = 2, .camera_names = libero};
    if (!soma__file_exists(path)) {
        print_message("skipped: %s is absent\n", path);
        skip();
    }
    char *bytes;
    size_t size;
    const soma_msg *m;
    assert_int_equal(soma__file_read(&bytes, &size, path, 1 << 24, &err), SOMA_OK);
    assert_int_equal(soma__msg_parse(&m, &arena, bytes, size, true, &err), SOMA_OK);
    if (soma__observe(&obs, &p, m, &arena, &err)) fail_msg("%s", err.text);
    assert_int_equal(obs.n_images, 2);
    assert_int_equal(obs.images[1].width, 224);
    double sum = 0;
    for (int i = 0; i < 224 * 224 * 3; i++) sum += obs.images[0].pixels[i];
    assert_true(sum == 19207212.0); // wire.json
    assert_true(fabsf(obs.state[0] + 1.664196f) < 1e-6f);
    soma__free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys, setup, clean),    cmocka_unit_test_setup_teardown(test_layouts, setup, clean),
        cmocka_unit_test_setup_teardown(test_cameras, setup, clean), cmocka_unit_test_setup_teardown(test_state, setup, clean),
        cmocka_unit_test_setup_teardown(test_prompt, setup, clean),  cmocka_unit_test_setup_teardown(test_too_many_keys, setup, clean),
        cmocka_unit_test_setup_teardown(test_golden, setup, clean),  cmocka_unit_test_setup_teardown(test_steps, setup, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
