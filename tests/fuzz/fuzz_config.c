// SPDX-License-Identifier: Apache-2.0
// Any bytes as each of the JSON files that come with a checkpoint: options, a model's config, norm_stats.json, vocab.json, a robot, and
// LeRobot's features.
#include "base/opts.h"
#include "model/family.h"
#include "policy/robot.h"
#include "text/text.h"
#include "transform/normalise.h"

#include <soma/soma.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_OPTS(X)                 \
    X(TEXT, device, "cpu", "a text") \
    X(INT, threads, 0, "a count")    \
    X(REAL, lr, 5e-5, "a number")    \
    X(FLAG, amp, true, "a switch")
SOMA_OPTS_DECLARE(fuzz_opts, FUZZ_OPTS)
#define OPTS_TYPE fuzz_opts
SOMA_OPTS_DEFINE_LOCAL(fuzz_opts, FUZZ_OPTS, fuzz_defaults)

// Options read from any object and written out read back.
static void options(const json_t *root) {
    fuzz_opts opts = fuzz_defaults(), again = fuzz_defaults();
    soma_error err = {0};
    if (soma__opts_from_json(&fuzz_opts_table, &opts, root, "bytes", &err)) {
        if (!err.text[0]) abort();
        return;
    }
    json_t *out = soma__opts_to_json(&fuzz_opts_table, &opts);
    if (!out || soma__opts_from_json(&fuzz_opts_table, &again, out, "bytes", &err)) abort();
    json_decref(out);
}

static void model(const json_t *root) {
    soma_model *made;
    soma_error err = {0};
    if (soma__model_new(&made, root, "bytes", &err) == SOMA_OK)
        soma__model_free(made);
    else if (!err.text[0])
        abort();
}

// A checkpoint's tensors, as sure of themselves as the config: what the one does not say is taken from the other.
static int some_shape(const void *ctx, const char *name, int64_t shape[SOMA_MAX_DIMS]) {
    const int n = (int)(strlen(name) % 5);
    if (strstr(name, "layers.3") || n == 4) return -1;
    for (int i = 0; i < n; i++) shape[i] = (int64_t)strlen(name) * (i + 1) % 97;
    return n;
}
static soma_shapes some_shapes(void *ctx, const soma_family *family) { return (soma_shapes){some_shape, NULL}; }

static void recognise(const json_t *root) {
    json_t *config = json_is_object(root) ? json_deep_copy(root) : NULL;
    soma_error err = {0};
    if (!config) return;
    if (soma__model_recognise(config, some_shapes, NULL, "bytes", &err) == SOMA_OK)
        model(config);
    else if (!err.text[0])
        abort();
    json_decref(config);
}

// A robot that was read is written, and read again as it was.
static void robot(const json_t *root) {
    static const soma_model stub = {.info = {.type = "pi0", .state_input = true, .form = SOMA_PROMPT_PI0}};
    static soma_robot r, again;
    soma_error err = {0};
    if (soma__robot_read(&r, root, &stub, "bytes", &err)) {
        if (!strstr(err.text, "bytes")) abort();
        return;
    }
    json_t *out = soma__robot_json(&r), *second;
    if (!out || soma__robot_read(&again, out, &stub, "bytes", &err) || !(second = soma__robot_json(&again)) || !json_equal(out, second))
        abort();
    json_decref(out);
    json_decref(second);
}

static void lerobot(json_t *root) {
    json_t *made = NULL;
    soma_error err = {0};
    if (soma__robot_from_lerobot(&made, root, "/nonexistent", &err) == SOMA_OK)
        robot(made);
    else if (made || !err.text[0])
        abort();
    json_decref(made);
}

static void stats(const char *json, size_t size) {
    soma_norm_stats *read;
    const soma_norm *norm;
    soma_error err = {0};
    double values[8] = {0};
    if (soma__norm_stats_parse(&read, json, size, "bytes", &err)) {
        if (read || !strstr(err.text, "bytes")) abort();
        return;
    }
    for (int rule = 0; rule < SOMA_NORM_COUNT; rule++)
        if (soma__norm_find(&norm, read, "state", (soma_norm_rule)rule, 2, &err) == SOMA_OK) {
            soma__norm_apply(norm, (soma_norm_rule)rule, values, 4, 2);
            soma__norm_undo(norm, (soma_norm_rule)rule, values, 1, 8);
        }
    soma__norm_stats_free(read);
}

static void vocabulary(const char *json, size_t size) {
    soma_text *text;
    soma_error err = {0};
    int32_t ids[8];
    size_t n;
    if (soma__text_open_bytes(&text, json, size, "bytes.json", &err)) {
        if (text || !strstr(err.text, "bytes")) abort();
        return;
    }
    soma_str s = {0};
    if (soma__text_encode(text, "touch the red cube", true, ids, 8, &n, &err) || soma__text_decode(text, ids, SOMA_MIN(n, 8), &s, &err))
        abort();
    soma__str_free(&s);
    soma__text_close(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *root;
    soma_error err = {0};
    if (soma__json_parse(&root, (const char *)data, size, "bytes", &err) == SOMA_OK) {
        options(root);
        model(root);
        recognise(root);
        robot(root);
        lerobot(root);
    } else if (!err.text[0])
        abort();
    json_decref(root);
    stats((const char *)data, size);
    vocabulary((const char *)data, size);
    return 0;
}
