// SPDX-License-Identifier: Apache-2.0
// Models out of configs that stand in a test, configs that must be refused, and the arrays that a batch becomes.
#ifndef SOMA_TESTS_MODEL_CONFIGS_H
#define SOMA_TESTS_MODEL_CONFIGS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/family.h"

#include <string.h>

static inline void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

static inline json_t *parse(const char *text) {
    json_t *json = NULL;
    soma_error err = {0};
    ok(soma__json_parse(&json, text, strlen(text), "the config", &err), &err);
    return json;
}

static inline soma_status model_of(soma_model **model, const char *text, soma_error *err) {
    json_t *config = parse(text);
    soma_status status = soma__model_new(model, config, "the config", err);
    json_decref(config);
    return status;
}

static inline soma_model *good(const char *text) {
    soma_model *model = NULL;
    soma_error err = {0};
    ok(model_of(&model, text, &err), &err);
    return model;
}

// Refused, with a sentence that names the config and holds these words.
typedef struct wrong_config {
    const char *text, *words;
} wrong_config;
static inline void hold_wrong(const wrong_config *wrong, size_t n) {
    for (size_t i = 0; i < n; i++) {
        soma_model *m = NULL;
        soma_error err = {0};
        if (model_of(&m, wrong[i].text, &err) == SOMA_OK) fail_msg("%s was taken", wrong[i].text);
        assert_null(m);
        if (!strstr(err.text, wrong[i].words) || !strstr(err.text, "the config")) fail_msg("%s: %s", wrong[i].text, err.text);
    }
}

static inline void hold_round_trip(const soma_model *m) {
    soma_model *again = NULL;
    soma_error err = {0};
    json_t *first = m->family->config(m);
    ok(soma__model_new(&again, first, "the config", &err), &err);
    json_t *second = m->family->config(again);
    assert_true(json_equal(first, second));
    json_decref(first);
    json_decref(second);
    soma__model_free(again);
}

static inline void hold_i32(const soma_feed *feed, const char *name, const int32_t *wanted, size_t n) {
    const soma_feed_array *a = soma__feed_find(feed, name);
    assert_non_null(a);
    assert_int_equal(a->size, n * sizeof *wanted);
    for (size_t i = 0; i < n; i++)
        if (((const int32_t *)a->data)[i] != wanted[i])
            fail_msg("%s[%zu] is %d, not %d", name, i, ((const int32_t *)a->data)[i], wanted[i]);
}

#endif
