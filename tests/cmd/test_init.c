// SPDX-License-Identifier: Apache-2.0
// Random checkpoints by the program: same seed same bytes, a policy that acts at once, tensors with their purposes, and nothing left behind
// when it is stopped.
#include "cmd/program.h"

#include "base/file.h"
#include "base/json.h"
#include "format/safetensors.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/soma-init-XXXXXX";

static int make_dir(void **state) { return !mkdtemp(dir); }
static int remove_dir(void **state) { return soma__dir_remove(dir, NULL) != SOMA_OK; }

// %1$s in the arguments stands for the test's folder.
static int soma(const char *arguments) {
    char line[1000], with[1200];
    snprintf(line, sizeof line, arguments, dir);
    snprintf(with, sizeof with, "%s 2>%s/errors", line, dir);
    return run_soma(NULL, with);
}

static json_t *json_said(void) {
    json_t *value;
    soma_error err = {0};
    if (soma__json_parse(&value, said, strlen(said), "output", &err)) fail_msg("%s: %.200s", err.text, said);
    return value;
}

static char *file_in(const char *folder, size_t *size) {
    char path[200], *data;
    snprintf(path, sizeof path, "%s/%s/model.safetensors", dir, folder);
    assert_int_equal(soma__file_read(&data, size, path, 1 << 26, NULL), SOMA_OK);
    return data;
}

static void same_seed_same_bytes(void **state) {
    assert_int_equal(soma("init --preset nano --seed 7 --out %1$s/a"), 0);
    assert_int_equal(soma("init --preset nano --seed 7 --out %1$s/b --json"), 0);
    json_t *told = json_said();
    assert_int_equal(soma("init --preset nano --seed 8 --out %1$s/c"), 0);
    size_t n[3];
    char *data[] = {file_in("a", &n[0]), file_in("b", &n[1]), file_in("c", &n[2])};
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(data[0], data[1], n[0]);
    assert_int_equal(n[0], n[2]);
    assert_memory_not_equal(data[0], data[2], n[0]);
    assert_true((size_t)json_integer_value(json_object_get(told, "size")) < n[0]);
    for (int i = 0; i < 3; i++) soma__free(data[i]);
    json_decref(told);
    assert_int_equal(soma("init --preset nano --out %1$s/a"), 1); // what is there stays
    assert_int_equal(soma("init --preset nano --dtype f64 --out %1$s/d"), 2);
    assert_int_equal(soma("init --preset huge --out %1$s/d"), 1);
    assert_int_equal(soma("init"), 2);
}

static void every_tensor_has_a_purpose(void **state) {
    const char *const families[] = {"pi0", "pi05"};
    const size_t counts[] = {125, 132}; // of nano: base has 777 and 812
    for (int i = 0; i < 2; i++) {
        char line[200];
        snprintf(line, sizeof line, "init --family %s --preset nano --out %%1$s/%s", families[i], families[i]);
        assert_int_equal(soma(line), 0);
        snprintf(line, sizeof line, "inspect %%1$s/%s --json", families[i]);
        assert_int_equal(soma(line), 0);
        json_t *told = json_said(), *tensors = json_object_get(told, "tensors"), *t;
        size_t k;
        assert_int_equal(json_array_size(tensors), counts[i]);
        json_array_foreach(tensors, k, t) {
            const char *purpose = json_string_value(json_object_get(t, "purpose"));
            if (!purpose || !*purpose) fail_msg("%s: no purpose", json_string_value(json_object_get(t, "name")));
        }
        assert_null(json_object_get(told, "missing"));
        assert_null(json_object_get(told, "extra"));
        assert_null(json_object_get(told, "not_recognised"));
        json_decref(told);
    }
}

static void it_acts_at_once(void **state) {
    static const float zeros[7] = {0};
    static uint8_t picture[64 * 64 * 3];
    const soma_safetensor t[] = {
        {.name = "state", .dtype = SOMA_F32, .n_dims = 1, .shape = {7}, .data = zeros},
        {.name = "image.scene", .dtype = SOMA_U8, .n_dims = 3, .shape = {64, 64, 3}, .data = picture},
    };
    char path[200];
    snprintf(path, sizeof path, "%s/obs.safetensors", dir);
    assert_int_equal(soma__safetensors_write(path, t, 2, NULL, NULL), SOMA_OK);
    const char *const families[] = {"pi0", "pi05"};
    for (int i = 0; i < 2; i++) {
        char line[200];
        snprintf(line, sizeof line, "act --policy %%1$s/%s --obs %%1$s/obs.safetensors --prompt \"pick up the red cube\" --json",
                 families[i]);
        assert_int_equal(soma(line), 0);
        json_t *told = json_said();
        assert_int_equal(json_array_size(json_object_get(told, "actions")), 30);
        json_decref(told);
    }
}

static void stopped_it_leaves_nothing(void **state) {
    char out[200];
    snprintf(out, sizeof out, "%s/base", dir);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        if (!freopen("/dev/null", "w", stderr)) _exit(126);
        execl(SOMA_BINARY, "soma", "init", "--preset", "base", "--out", out, (char *)NULL);
        _exit(127);
    }
    char **names;
    size_t n;
    bool begun = false;
    for (int i = 0; i < 200 && !begun; i++) { // until it writes
        usleep(20000);
        assert_int_equal(soma__dir_list(&names, &n, dir, NULL), SOMA_OK);
        for (size_t k = 0; k < n; k++) begun |= !strncmp(names[k], "base.part-", 10);
        soma__dir_list_free(names, n);
    }
    assert_true(begun);
    assert_int_equal(kill(child, SIGINT), 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true((WIFEXITED(status) && WEXITSTATUS(status) == 1) || WIFSIGNALED(status));
    if (WIFSIGNALED(status)) return; // it came before the signal was caught: then the folder may be left
    assert_int_equal(soma__dir_list(&names, &n, dir, NULL), SOMA_OK);
    for (size_t k = 0; k < n; k++)
        if (!strncmp(names[k], "base", 4)) fail_msg("%s is left", names[k]);
    soma__dir_list_free(names, n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_same_bytes),
        cmocka_unit_test(every_tensor_has_a_purpose),
        cmocka_unit_test(it_acts_at_once),
        cmocka_unit_test(stopped_it_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
