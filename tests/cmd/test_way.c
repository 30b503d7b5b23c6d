// SPDX-License-Identifier: Apache-2.0
// The program's verbs one after the other, in small: record, inspect, train, act, eval. Each reads what the one before wrote.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/str.h"
#include "format/msgpack.h"
#include "format/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { SIDE = 32 };

static char dir[] = "/tmp/soma-way-XXXXXX";
static char said[1 << 20];
static bool recorded; // else the machine gives no offscreen OpenGL, and there is nothing to go on with

// "@" in the arguments stands for the folder of this test. Standard error is kept only where it is asked for.
static int soma(bool errors, const char *arguments) {
    soma_str command = {0};
    soma__str_add(&command, SOMA_BINARY " ");
    for (; *arguments; arguments++) {
        if (*arguments == '@')
            soma__str_add(&command, dir);
        else
            soma__str_add_bytes(&command, arguments, 1);
    }
    soma__str_add(&command, errors ? " 2>&1" : " 2>/dev/null");
    FILE *f = popen(command.text, "r");
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = 0;
    int status = pclose(f);
    soma__str_free(&command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static json_t *json_said(void) {
    json_t *value;
    soma_error err;
    if (soma__json_parse(&value, said, strlen(said), "output", &err)) fail_msg("%s: %.200s", err.text, said);
    return value;
}

static int64_t integer(const json_t *object, const char *key) { return json_integer_value(json_object_get(object, key)); }
static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

static void record_and_inspect(void **state) {
    if (soma(true, "record --episodes 3 --image 32 --out @/data --json")) {
        print_message("%s", said);
        skip();
    }
    assert_int_equal(soma(false, "inspect @/data --json"), 0);
    json_t *info = json_said();
    assert_int_equal(integer(info, "episodes"), 3);
    assert_int_equal(integer(info, "episodes_present"), 3);
    assert_string_equal(json_string_value(json_object_get(info, "version")), "v3.0");
    json_decref(info);
    assert_int_equal(soma(false, "inspect @/data"), 0);
    assert_non_null(strstr(said, "observation.images.wrist"));
    assert_int_equal(soma(true, "record --episodes 1 --out @/data"), 1); // never over existing data
    recorded = true;
}

static void train_and_inspect(void **state) {
    if (!recorded) skip();
    if (soma(true, "train --data @/data --out @/policy --steps 2 --batch 4 --holdout 0")) fail_msg("%s", said);
    assert_int_equal(soma(false, "inspect @/policy --json"), 0);
    json_t *info = json_said();
    assert_true(integer(info, "parameters") > 1000 && json_object_get(info, "config"));
    assert_true(json_array_size(json_object_get(info, "tensors")) > 10);
    json_decref(info);
    assert_int_equal(soma(false, "inspect @/policy/model.safetensors"), 0);
    assert_non_null(strstr(said, "action_in_proj.weight"));
}

// One observation in three forms gives one chunk.
static void act_reads_three_forms(void **state) {
    if (!recorded) skip();
    static float joints[7] = {0, -0.9f, 0.9f, 0, 1.4f, 0, 0.021f};
    static uint8_t scene[SIDE * SIDE * 3], wrist[SIDE * SIDE * 3];
    for (size_t i = 0; i < sizeof scene; i++) scene[i] = (uint8_t)(i * 7), wrist[i] = (uint8_t)(i * 11);
    char path[200];
    soma_safetensor tensors[] = {{.name = "state", .dtype = SOMA_F32, .n_dims = 1, .shape = {7}, .data = joints},
                                 {.name = "image.scene", .dtype = SOMA_U8, .n_dims = 3, .shape = {SIDE, SIDE, 3}, .data = scene},
                                 {.name = "image.wrist", .dtype = SOMA_U8, .n_dims = 3, .shape = {SIDE, SIDE, 3}, .data = wrist}};
    json_t *metadata = json_pack("{s:s}", "prompt", "touch the red cube");
    snprintf(path, sizeof path, "%s/obs.safetensors", dir);
    assert_int_equal(soma__safetensors_write(path, tensors, 3, metadata, NULL), SOMA_OK);
    json_decref(metadata);
    soma_str message = {0};
    soma__msg_put_map(&message, 4);
    soma__msg_put_str(&message, "observation/scene");
    soma__msg_put_ndarray(&message, "|u1", 3, (int64_t[]){SIDE, SIDE, 3}, scene, sizeof scene);
    soma__msg_put_str(&message, "observation/wrist");
    soma__msg_put_ndarray(&message, "|u1", 3, (int64_t[]){SIDE, SIDE, 3}, wrist, sizeof wrist);
    soma__msg_put_str(&message, "observation/state");
    soma__msg_put_ndarray(&message, "<f4", 1, (int64_t[]){7}, joints, sizeof joints);
    soma__msg_put_str(&message, "prompt");
    soma__msg_put_str(&message, "touch the red cube");
    snprintf(path, sizeof path, "%s/obs.msgpack", dir);
    assert_int_equal(soma__file_write(path, message.text, message.len, NULL), SOMA_OK);
    soma__str_free(&message);

    if (soma(true, "act --policy @/policy --obs @/obs.safetensors")) fail_msg("%s", said);
    assert_int_equal(soma(false, "act --policy @/policy --obs @/obs.safetensors --json"), 0);
    json_t *a = json_said();
    assert_int_equal(soma(false, "act --policy @/policy --obs @/obs.msgpack --json"), 0);
    json_t *b = json_said();
    assert_int_equal(integer(a, "n_actions"), 7);
    assert_int_equal(json_array_size(json_object_get(a, "actions")), integer(a, "horizon"));
    assert_true(json_equal(json_object_get(a, "actions"), json_object_get(b, "actions")));
    json_decref(b);
    assert_int_equal(soma(false, "act --policy @/policy --obs @/data --episode 1 --frame 3 --json"), 0);
    b = json_said();
    assert_non_null(strstr(json_string_value(json_object_get(b, "prompt")), "touch the "));
    assert_false(json_equal(json_object_get(a, "actions"), json_object_get(b, "actions")));
    json_decref(a);
    json_decref(b);
    assert_int_equal(soma(true, "act --policy @/policy --obs @/data --episode 1 --frame 3000"), 1);
    assert_non_null(strstr(said, "has frames 0 to "));
    assert_int_equal(soma(true, "act --policy @/policy --obs @/obs.png"), 1);
    assert_int_equal(soma(true, "act --policy @/policy"), 2);
}

static void eval_in_both_ways(void **state) {
    if (!recorded) skip();
    if (soma(true, "eval --policy @/policy --seeds 2 --image 32 --execute 50 --out @/r.json --report @/r.html --video @/r.mp4 --films 1"))
        fail_msg("%s", said);
    assert_int_equal(soma(false, "eval --policy expert --seeds 6 --image 32 --json"), 0);
    json_t *r = json_said();
    const json_t *success = json_object_get(r, "success");
    assert_true(integer(success, "n") == 6 && real(success, "rate") >= 0.8 && real(success, "low") < real(success, "high"));
    assert_int_equal(json_array_size(json_object_get(r, "episodes")), 6);
    assert_int_equal(integer(json_array_get(json_object_get(r, "episodes"), 0), "seed"), 1000000);
    json_decref(r);
    assert_int_equal(soma(false, "eval --policy @/policy --data @/data --episodes 0 --horizon 5 --json"), 0);
    r = json_said();
    assert_true(isfinite(real(json_object_get(r, "mean"), "chunk")) && integer(r, "horizon") == 5);
    json_decref(r);
    static const char *const files[] = {"r.json", "r.html", "r.mp4"};
    for (size_t i = 0; i < SOMA_COUNT(files); i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        assert_true(soma__file_exists(path));
    }
}

static void wrong_calls_say_what_to_do(void **state) {
    assert_int_equal(soma(true, "inspect @/nowhere"), 1);
    assert_non_null(strstr(said, "no such file"));
    assert_int_equal(soma(true, "inspect @"), 1);
    assert_non_null(strstr(said, "neither a dataset"));
    assert_int_equal(soma(true, "eval"), 2);
    assert_int_equal(soma(true, "eval --policy @/nowhere --seeds 1"), 1);
    assert_non_null(strstr(said, "nowhere"));
    assert_int_equal(soma(true, "record --episodes 3"), 1);
    assert_non_null(strstr(said, "--out"));
}

static int set_up(void **state) { return mkdtemp(dir) ? 0 : -1; }
static int tear_down(void **state) { return soma__dir_remove(dir, NULL); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_and_inspect), cmocka_unit_test(train_and_inspect),          cmocka_unit_test(act_reads_three_forms),
        cmocka_unit_test(eval_in_both_ways),  cmocka_unit_test(wrong_calls_say_what_to_do),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
