// SPDX-License-Identifier: Apache-2.0
// Foreign JSON is hostile: duplicate keys are refused, jansson's own depth limit holds, sizes are bounded by the file reader.
#include "base/json.h"
#include "base/file.h"

#include <math.h>
#include <string.h>

enum { JSON_MAX_SIZE = 512 << 20 };

soma_status soma__json_parse(json_t **value, const char *text, size_t len, const char *where, soma_error *err) {
    json_error_t e;
    *value = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    if (*value) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: line %d, column %d: not valid JSON: %s", where, e.line, e.column, e.text);
}

soma_status soma__json_load(json_t **value, const char *path, soma_error *err) {
    char *text;
    size_t len;
    *value = NULL;
    SOMA_TRY(soma__file_read(&text, &len, path, JSON_MAX_SIZE, err));
    soma_status status = soma__json_parse(value, text, len, path, err);
    soma__free(text);
    return status;
}

soma_status soma__json_save(const json_t *value, const char *path, soma_error *err) {
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    if (!text) return soma__fail(err, SOMA_NO_MEMORY, "%s: the JSON value could not be written out", path);
    soma_status status = soma__file_write(path, text, strlen(text), err);
    free(text);
    return status;
}

soma_status soma__json_get(const json_t **out, const json_t *object, const char *key, const char *where, soma_error *err) {
    *out = json_object_get(object, key);
    if (*out) return SOMA_OK;
    return soma__fail(err, SOMA_NOT_FOUND, "%s: the key \"%s\" is missing", where, key);
}

static soma_status wrong_type(soma_error *err, const char *where, const char *key, const char *wanted) {
    return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" must be %s", where, key, wanted);
}

soma_status soma__json_string(const char **out, const json_t *object, const char *key, const char *where, soma_error *err) {
    const json_t *v;
    SOMA_TRY(soma__json_get(&v, object, key, where, err));
    *out = json_string_value(v);
    return *out ? SOMA_OK : wrong_type(err, where, key, "a string");
}

soma_status soma__json_int(int64_t *out, const json_t *object, const char *key, int64_t min, int64_t max, const char *where,
                           soma_error *err) {
    const json_t *v;
    SOMA_TRY(soma__json_get(&v, object, key, where, err));
    double real = json_number_value(v);
    if (!json_is_number(v) || (json_is_real(v) && (floor(real) != real || fabs(real) > 0x1p53)))
        return wrong_type(err, where, key, "a whole number");
    int64_t value = json_is_integer(v) ? (int64_t)json_integer_value(v) : (int64_t)real;
    if (value < min || value > max)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is %lld, allowed are %lld to %lld", where, key, (long long)value, (long long)min,
                          (long long)max);
    *out = value;
    return SOMA_OK;
}

soma_status soma__json_real(double *out, const json_t *object, const char *key, const char *where, soma_error *err) {
    const json_t *v;
    SOMA_TRY(soma__json_get(&v, object, key, where, err));
    if (!json_is_number(v)) return wrong_type(err, where, key, "a number");
    *out = json_number_value(v);
    return SOMA_OK;
}

soma_status soma__json_bool(bool *out, const json_t *object, const char *key, const char *where, soma_error *err) {
    const json_t *v;
    SOMA_TRY(soma__json_get(&v, object, key, where, err));
    if (!json_is_boolean(v)) return wrong_type(err, where, key, "true or false");
    *out = json_is_true(v);
    return SOMA_OK;
}
