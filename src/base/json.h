// SPDX-License-Identifier: Apache-2.0
// jansson, with errors that name the file and the key. Foreign JSON passes here: duplicate keys, depth and size are limited.
// Getters: a missing key gives SOMA_NOT_FOUND, a key of another type SOMA_BAD_INPUT. `where` is the file's name, for the sentence.
#ifndef SOMA_BASE_JSON_H
#define SOMA_BASE_JSON_H

#include "base/base.h"

#include <jansson.h>

soma_status soma__json_load(json_t **value, const char *path, soma_error *err); // release with json_decref
soma_status soma__json_parse(json_t **value, const char *text, size_t len, const char *where, soma_error *err);
soma_status soma__json_save(const json_t *value, const char *path, soma_error *err); // indented, atomic

soma_status soma__json_get(const json_t **out, const json_t *object, const char *key, const char *where, soma_error *err);
soma_status soma__json_string(const char **out, const json_t *object, const char *key, const char *where, soma_error *err); // borrowed
soma_status soma__json_int(int64_t *out, const json_t *object, const char *key, int64_t min, int64_t max, const char *where,
                           soma_error *err);
soma_status soma__json_real(double *out, const json_t *object, const char *key, const char *where, soma_error *err);
soma_status soma__json_bool(bool *out, const json_t *object, const char *key, const char *where, soma_error *err);

#endif
