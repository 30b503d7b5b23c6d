// SPDX-License-Identifier: Apache-2.0
// Flags are written with dashes, C fields and JSON keys with underscores; both name the same field. Refuses unknown names and values that
// do not fit, always with the name in the sentence.
#include "base/opts.h"
#include "base/str.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *at(void *opts, const soma_opt_field *f) { return (char *)opts + f->offset; }

// "weight_decay" == "weight-decay": flags are written with dashes, JSON keys with underscores
static bool same_name(const char *field, const char *given, size_t len) {
    if (strlen(field) != len) return false;
    for (size_t i = 0; i < len; i++)
        if (field[i] != given[i] && !(field[i] == '_' && given[i] == '-')) return false;
    return true;
}

static const soma_opt_field *find(const soma_opt_table *t, const char *name, size_t len) {
    for (size_t i = 0; i < t->n_fields; i++)
        if (same_name(t->fields[i].name, name, len)) return &t->fields[i];
    return NULL;
}

static soma_status set_text(char *out, const char *value, const char *name, const char *where, soma_error *err) {
    if (strlen(value) >= SOMA_OPT_TEXT)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s: the text is longer than %d bytes", where, name, SOMA_OPT_TEXT - 1);
    strcpy(out, value);
    return SOMA_OK;
}

const soma_opt_field *soma__opts_find(const soma_opt_table *t, const char *name, const char **nearest, size_t *distance) {
    for (size_t i = 0; distance && i < t->n_fields; i++) {
        size_t d = soma__str_distance(name, t->fields[i].name);
        if (d < *distance) {
            *distance = d;
            *nearest = t->fields[i].name;
        }
    }
    return find(t, name, strlen(name));
}

static soma_status unknown_key(const soma_opt_table *t, const char *key, const char *where, soma_error *err) {
    const char *nearest = NULL;
    size_t distance = SIZE_MAX;
    soma__opts_find(t, key, &nearest, &distance);
    if (!nearest || !soma__str_near(key, distance)) return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is not an option here", where, key);
    return soma__fail(err, SOMA_BAD_INPUT, "%s: \"%s\" is not an option here; did you mean \"%s\"?", where, key, nearest);
}

soma_status soma__opts_from_json(const soma_opt_table *t, void *opts, const json_t *object, const char *where, soma_error *err) {
    if (!json_is_object(object)) return soma__fail(err, SOMA_BAD_INPUT, "%s: the options must be a JSON object", where);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)object, key, v) {
        const soma_opt_field *f = find(t, key, strlen(key));
        if (!f) return unknown_key(t, key, where, err);
        switch (f->kind) {
        case SOMA_OPT_INT: SOMA_TRY(soma__json_int(at(opts, f), object, key, INT64_MIN, INT64_MAX, where, err)); break;
        case SOMA_OPT_REAL: SOMA_TRY(soma__json_real(at(opts, f), object, key, where, err)); break;
        case SOMA_OPT_FLAG: SOMA_TRY(soma__json_bool(at(opts, f), object, key, where, err)); break;
        case SOMA_OPT_TEXT_KIND: {
            const char *text;
            SOMA_TRY(soma__json_string(&text, object, key, where, err));
            SOMA_TRY(set_text(at(opts, f), text, key, where, err));
        }
        }
    }
    return SOMA_OK;
}

json_t *soma__opts_to_json(const soma_opt_table *t, const void *opts) {
    json_t *object = json_object();
    for (size_t i = 0; object && i < t->n_fields; i++) {
        const soma_opt_field *f = &t->fields[i];
        const void *p = at((void *)opts, f);
        json_t *v = NULL;
        switch (f->kind) {
        case SOMA_OPT_INT: v = json_integer(*(const int64_t *)p); break;
        case SOMA_OPT_REAL: v = json_real(*(const double *)p); break;
        case SOMA_OPT_FLAG: v = json_boolean(*(const bool *)p); break;
        case SOMA_OPT_TEXT_KIND: v = json_string(p); break;
        }
        if (json_object_set_new(object, f->name, v)) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static soma_status set_number(const soma_opt_field *f, void *opts, const char *value, soma_error *err) {
    char *end;
    errno = 0;
    if (f->kind == SOMA_OPT_INT)
        *(int64_t *)at(opts, f) = strtoll(value, &end, 10);
    else
        *(double *)at(opts, f) = strtod(value, &end);
    bool finite = f->kind == SOMA_OPT_INT || isfinite(*(double *)at(opts, f)); // JSON has no "inf" and no "nan"
    if (!errno && end != value && !*end && finite) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "--%s: \"%s\" is not a %snumber", f->name, value, f->kind == SOMA_OPT_INT ? "whole " : "");
}

soma_status soma__opts_arg(const soma_opt_table *t, void *opts, int argc, char **argv, int *used, soma_error *err) {
    *used = 0;
    if (argc < 1 || strncmp(argv[0], "--", 2)) return SOMA_OK;
    const char *name = argv[0] + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const soma_opt_field *f = find(t, name, len);
    if (!f && !strncmp(name, "no-", 3) && !equals) {
        f = find(t, name + 3, len - 3);
        if (!f || f->kind != SOMA_OPT_FLAG) return SOMA_OK;
        *(bool *)at(opts, f) = false;
        *used = 1;
        return SOMA_OK;
    }
    if (!f) return SOMA_OK;
    if (f->kind == SOMA_OPT_FLAG && !equals) {
        *(bool *)at(opts, f) = true;
        *used = 1;
        return SOMA_OK;
    }
    const char *value = equals ? equals + 1 : argc > 1 ? argv[1] : NULL;
    if (!value) return soma__fail(err, SOMA_BAD_INPUT, "--%s needs a value", f->name);
    *used = equals ? 1 : 2;
    if (f->kind == SOMA_OPT_TEXT_KIND) return set_text(at(opts, f), value, f->name, "command line", err);
    if (f->kind != SOMA_OPT_FLAG) return set_number(f, opts, value, err);
    bool yes = !strcmp(value, "true") || !strcmp(value, "1"), no = !strcmp(value, "false") || !strcmp(value, "0");
    if (!yes && !no) return soma__fail(err, SOMA_BAD_INPUT, "--%s: \"%s\" is neither true nor false", f->name, value);
    *(bool *)at(opts, f) = yes;
    return SOMA_OK;
}

void soma__opts_help(const soma_opt_table *t, FILE *out) {
    for (size_t i = 0; i < t->n_fields; i++) {
        const soma_opt_field *f = &t->fields[i];
        const void *p = (const char *)t->defaults + f->offset;
        char flag[64], value[80] = "";
        snprintf(flag, sizeof flag, "--%s", f->name);
        for (char *c = flag; *c; c++)
            if (*c == '_') *c = '-';
        switch (f->kind) {
        case SOMA_OPT_INT: snprintf(value, sizeof value, "%lld", (long long)*(const int64_t *)p); break;
        case SOMA_OPT_REAL: snprintf(value, sizeof value, "%g", *(const double *)p); break;
        case SOMA_OPT_FLAG: snprintf(value, sizeof value, "%s", *(const bool *)p ? "yes" : "no"); break;
        case SOMA_OPT_TEXT_KIND: snprintf(value, sizeof value, "%.60s", (const char *)p); break;
        }
        fprintf(out, "  %-24s %s%s%s%s\n", flag, f->help, *value ? " [" : "", value, *value ? "]" : "");
    }
}
