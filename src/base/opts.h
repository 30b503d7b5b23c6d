// SPDX-License-Identifier: Apache-2.0
// What can be done with a list of options (soma/opts.h): defaults, JSON both ways, command line, help.
#ifndef SOMA_BASE_OPTS_H
#define SOMA_BASE_OPTS_H

#include "base/base.h"
#include "base/json.h"

#include <soma/opts.h>
#include <stdio.h>

typedef enum soma_opt_kind { SOMA_OPT_INT, SOMA_OPT_REAL, SOMA_OPT_FLAG, SOMA_OPT_TEXT_KIND } soma_opt_kind;

typedef struct soma_opt_field {
    soma_opt_kind kind;
    const char *name; // as in C and JSON: "weight_decay"; the flag is --weight-decay
    size_t offset;
    const char *help;
} soma_opt_field;

typedef struct soma_opt_table {
    const char *name; // "soma_train_opts"
    const soma_opt_field *fields;
    size_t n_fields;
    size_t size;
    const void *defaults;
} soma_opt_table;

#define SOMA_OPT_KIND_INT SOMA_OPT_INT
#define SOMA_OPT_KIND_REAL SOMA_OPT_REAL
#define SOMA_OPT_KIND_FLAG SOMA_OPT_FLAG
#define SOMA_OPT_KIND_TEXT SOMA_OPT_TEXT_KIND

// In one source file: SOMA_OPTS_DEFINE(soma_train_opts, SOMA_TRAIN_OPTS, soma_train_defaults) defines `soma_train_defaults()` and the
// table `soma_train_opts_table`. The list's X rows name `type` through the OPTS_TYPE macro that the file defines before.
#define SOMA_OPT_FIELD_ROW(kind, name, value, help) {SOMA_OPT_KIND_##kind, #name, offsetof(OPTS_TYPE, name), help},
#define SOMA_OPT_DEFAULT_ROW(kind, name, value, help) .name = value,
#define SOMA_OPTS_DEFINE_AS(scope, type, LIST, defaults_fn)                                                                      \
    static const soma_opt_field type##_fields[] = {LIST(SOMA_OPT_FIELD_ROW)};                                                    \
    static const type type##_defaults = {.cookie = SOMA_OPTS_COOKIE, LIST(SOMA_OPT_DEFAULT_ROW)};                                \
    scope const soma_opt_table type##_table = {#type, type##_fields, SOMA_COUNT(type##_fields), sizeof(type), &type##_defaults}; \
    scope type defaults_fn(void) { return type##_defaults; }
#define SOMA_OPTS_DEFINE(type, LIST, defaults_fn) SOMA_OPTS_DEFINE_AS(, type, LIST, defaults_fn)
// The same for options that one source file declares and uses alone, as the verbs do.
#define SOMA_OPTS_DEFINE_LOCAL(type, LIST, defaults_fn) SOMA_OPTS_DEFINE_AS(static, type, LIST, defaults_fn)

// Keys of `object` set fields; an unknown key is an error that lists the nearest name, a wrong type names the key. `where`: the file.
soma_status soma__opts_from_json(const soma_opt_table *t, void *opts, const json_t *object, const char *where, soma_error *err);
json_t *soma__opts_to_json(const soma_opt_table *t, const void *opts); // a new reference; NULL when memory is out

// Reads one argument of a command line: "--lr 1e-4", "--lr=1e-4", "--amp", "--no-amp". On a match *used is 1 or 2 (arguments taken), else
// 0.
soma_status soma__opts_arg(const soma_opt_table *t, void *opts, int argc, char **argv, int *used, soma_error *err);
void soma__opts_help(const soma_opt_table *t, FILE *out);
// The field that `name` (dashes or underscores) means; NULL when there is none. With a distance (start with SIZE_MAX) *nearest and
// *distance are improved when this table has a closer name, for "did you mean" over several tables.
const soma_opt_field *soma__opts_find(const soma_opt_table *t, const char *name, const char **nearest, size_t *distance);

#define SOMA_OPTS_CHECK(opts) SOMA_CHECK((opts)->cookie == SOMA_OPTS_COOKIE, "an options struct is made by its defaults function")

#endif
