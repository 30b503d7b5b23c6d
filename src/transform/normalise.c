// SPDX-License-Identifier: Apache-2.0
// Every rule is x -> (x - shift) / scale, some then mapped from [0, 1] to [-1, 1]; so a rule is the pair (shift, scale) per dimension, and
// the loops know no rules. Formulas: facts on openpi's transforms.py and LeRobot's normalize_processor.py.
#include "transform/normalise.h"

#include "base/arena.h"
#include "base/json.h"
#include "base/str.h"

#include <math.h>
#include <string.h>

enum { MAX_SIZE = 1 << 16 }; // values of one key: far above any robot

struct soma_norm_stats {
    soma_arena arena;
    const char *where;
    soma_norm *norms;
    size_t n;
};

static const struct {
    const char *name;
    size_t offset;
} lists[] = {
    {"mean", offsetof(soma_norm, mean)}, {"std", offsetof(soma_norm, std)}, {"q01", offsetof(soma_norm, q01)},
    {"q99", offsetof(soma_norm, q99)},   {"min", offsetof(soma_norm, min)}, {"max", offsetof(soma_norm, max)},
    {"q10", offsetof(soma_norm, q10)},   {"q90", offsetof(soma_norm, q90)},
};

static const double **list_of(soma_norm *norm, size_t i) { return (const double **)((char *)norm + lists[i].offset); }

static const char *const rule_names[] = {
#define NAME(code, name) name,
    SOMA_NORM_LIST(NAME)
#undef NAME
};

const char *soma__norm_rule_name(soma_norm_rule rule) {
    SOMA_CHECK((unsigned)rule < SOMA_NORM_COUNT, "a rule is one of soma_norm_rule");
    return rule_names[rule];
}

soma_status soma__norm_rule_parse(soma_norm_rule *rule, const char *name, soma_error *err) {
    int index;
    SOMA_TRY(soma__name_parse(&index, rule_names, SOMA_NORM_COUNT, name, "rule of normalisation", err));
    *rule = (soma_norm_rule)index;
    return SOMA_OK;
}

// ---- statistics

// The rule that `low` stays at or under `high`, where both are there.
static soma_status check_order(const soma_norm *n, const double *low, const double *high, const char *names, const char *where,
                               soma_error *err) {
    for (int i = 0; low && high && i < n->size; i++)
        if (low[i] > high[i])
            return soma__fail(err, SOMA_BAD_INPUT, "%s: %s: %s are in the wrong order at [%d]: %g and %g", where, n->key, names, i, low[i],
                              high[i]);
    return SOMA_OK;
}

static soma_status check(soma_norm *n, const char *where, soma_error *err) {
    if (n->size < 1 || n->size > MAX_SIZE)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s: statistics of %d values; 1 to %d can be read", where, n->key, n->size, MAX_SIZE);
    for (size_t k = 0; k < SOMA_COUNT(lists); k++) {
        const double *list = *list_of(n, k);
        for (int i = 0; list && i < n->size; i++)
            if (!isfinite(list[i]))
                return soma__fail(err, SOMA_BAD_INPUT, "%s: %s.%s[%d] is not a finite number", where, n->key, lists[k].name, i);
    }
    for (int i = 0; n->std && i < n->size; i++)
        if (n->std[i] < 0) return soma__fail(err, SOMA_BAD_INPUT, "%s: %s.std[%d] is %g, below 0", where, n->key, i, n->std[i]);
    SOMA_TRY(check_order(n, n->q01, n->q99, "q01 and q99", where, err));
    SOMA_TRY(check_order(n, n->q10, n->q90, "q10 and q90", where, err));
    return check_order(n, n->min, n->max, "min and max", where, err);
}

// One line for all dimensions that never moved.
static void warn_still(const soma_norm_stats *s) {
    soma_str list = {0};
    for (size_t k = 0; k < s->n; k++)
        for (int i = 0; s->norms[k].std && i < s->norms[k].size; i++)
            if (s->norms[k].std[i] == 0) soma__str_printf(&list, "%s%s[%d]", list.len ? ", " : "", s->norms[k].key, i);
    if (list.len && !list.failed)
        soma__log(SOMA_LOG_WARN, "%s: std is 0, it never moved in the data, a value beside its mean becomes huge: %s", s->where, list.text);
    soma__str_free(&list);
}

soma_status soma__norm_stats_new(soma_norm_stats **stats, const soma_norm *norms, size_t n_norms, const char *where, soma_error *err) {
    *stats = NULL;
    soma_norm_stats *s = soma__calloc(1, sizeof *s);
    if (!s) return soma__no_memory(err, "the statistics");
    soma_status status = SOMA_OK;
    s->where = soma__arena_strdup(&s->arena, where);
    s->norms = soma__arena_alloc(&s->arena, (n_norms + 1) * sizeof *s->norms);
    bool ok = s->where && s->norms;
    for (; ok && s->n < n_norms && status == SOMA_OK; s->n++) {
        soma_norm *to = &s->norms[s->n];
        *to = norms[s->n];
        status = check(to, where, err);
        for (size_t k = 0; k < SOMA_COUNT(lists) && status == SOMA_OK; k++) {
            const double **list = list_of(to, k);
            if (!*list) continue;
            double *copy = soma__arena_alloc(&s->arena, (size_t)to->size * sizeof *copy);
            if (copy) memcpy(copy, *list, (size_t)to->size * sizeof *copy);
            ok = ok && copy;
            *list = copy;
        }
        to->key = soma__arena_strdup(&s->arena, to->key);
        ok = ok && to->key;
    }
    if (!ok && status == SOMA_OK) status = soma__no_memory(err, "the statistics");
    if (status == SOMA_OK) {
        warn_still(s);
        *stats = s;
    } else
        soma__norm_stats_free(s);
    return status;
}

void soma__norm_stats_free(soma_norm_stats *stats) {
    if (!stats) return;
    soma__arena_free(&stats->arena);
    soma__free(stats);
}

// One list of numbers into *out; absent or null: NULL. The first list found sets norm->size.
static soma_status read_list(const double **out, soma_norm *norm, const json_t *list, const char *name, soma_arena *arena,
                             const char *where, soma_error *err) {
    if (!list || json_is_null(list)) return SOMA_OK;
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n < 1 || n > MAX_SIZE)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s.%s must be a list of 1 to %d numbers", where, norm->key, name, MAX_SIZE);
    if (norm->size && (size_t)norm->size != n)
        return soma__fail(err, SOMA_BAD_INPUT, "%s: %s.%s has %zu values, the list before it %d", where, norm->key, name, n, norm->size);
    norm->size = (int)n;
    double *values = soma__arena_alloc(arena, n * sizeof *values);
    if (!values) return soma__no_memory(err, "the statistics");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_number(v)) return soma__fail(err, SOMA_BAD_INPUT, "%s: %s.%s[%zu] is not a number", where, norm->key, name, i);
        values[i] = json_number_value(v);
    }
    *out = values;
    return SOMA_OK;
}

static soma_status read_norms(soma_norm_stats **stats, json_t *root, soma_arena *arena, const char *where, soma_error *err) {
    json_t *all = json_object_get(root, "norm_stats"), *entry;
    const char *key;
    if (!json_is_object(all))
        return soma__fail(err, SOMA_NOT_FOUND, "%s: no object \"norm_stats\": not a norm_stats.json as openpi writes it", where);
    size_t n = 0;
    soma_norm *norms = soma__arena_alloc(arena, (json_object_size(all) + 1) * sizeof *norms);
    if (!norms) return soma__no_memory(err, "the statistics");
    json_object_foreach(all, key, entry) {
        soma_norm *norm = &norms[n++];
        norm->key = key;
        if (!json_is_object(entry)) return soma__fail(err, SOMA_BAD_INPUT, "%s: norm_stats.%.60s is not an object", where, key);
        for (size_t k = 0; k < SOMA_COUNT(lists); k++)
            SOMA_TRY(read_list(list_of(norm, k), norm, json_object_get(entry, lists[k].name), lists[k].name, arena, where, err));
        if (!norm->mean || !norm->std) // said here, before "statistics of 0 values"
            return soma__fail(err, SOMA_NOT_FOUND, "%s: %s.%s is missing", where, key, norm->mean ? "std" : "mean");
    }
    return soma__norm_stats_new(stats, norms, n, where, err);
}

static soma_status read_root(soma_norm_stats **stats, json_t *root, const char *where, soma_error *err) {
    soma_arena arena = {0};
    soma_status status = read_norms(stats, root, &arena, where, err);
    soma__arena_free(&arena);
    json_decref(root);
    return status;
}

soma_status soma__norm_stats_parse(soma_norm_stats **stats, const char *json, size_t len, const char *where, soma_error *err) {
    json_t *root;
    *stats = NULL;
    SOMA_TRY(soma__json_parse(&root, json, len, where, err));
    return read_root(stats, root, where, err);
}

soma_status soma__norm_stats_read(soma_norm_stats **stats, const char *path, soma_error *err) {
    json_t *root;
    *stats = NULL;
    SOMA_TRY(soma__json_load(&root, path, err));
    return read_root(stats, root, path, err);
}

// openpi wants q01 and q99 to be there, as null when unknown.
static json_t *norm_json(const soma_norm *norm) {
    json_t *entry = json_object();
    bool ok = entry != NULL;
    for (size_t k = 0; ok && k < SOMA_COUNT(lists); k++) {
        const double *list = *list_of((soma_norm *)norm, k);
        if (!list && lists[k].name[0] != 'q') continue;
        json_t *values = list ? json_array() : json_null();
        for (int i = 0; ok && list && i < norm->size; i++) ok = json_array_append_new(values, json_real(list[i])) == 0;
        ok = json_object_set_new(entry, lists[k].name, values) == 0 && ok;
    }
    if (ok) return entry;
    json_decref(entry);
    return NULL;
}

soma_status soma__norm_stats_write(const soma_norm_stats *stats, const char *path, soma_error *err) {
    json_t *all = json_object(), *root = NULL;
    bool ok = all != NULL;
    for (size_t i = 0; ok && i < stats->n; i++) ok = json_object_set_new(all, stats->norms[i].key, norm_json(&stats->norms[i])) == 0;
    if (ok) root = json_pack("{s:O}", "norm_stats", all);
    soma_status status = root ? soma__json_save(root, path, err) : soma__no_memory(err, "the statistics' JSON");
    json_decref(root);
    json_decref(all);
    return status;
}

// ---- use

// The lists that a rule reads.
static void needed_lists(soma_norm_rule rule, const char **first, const char **second) {
    *first = *second = NULL;
    if (rule == SOMA_NORM_ZSCORE || rule == SOMA_NORM_MEAN_STD) *first = "mean", *second = "std";
    if (rule == SOMA_NORM_QUANTILE || rule == SOMA_NORM_QUANTILES) *first = "q01", *second = "q99";
    if (rule == SOMA_NORM_MIN_MAX) *first = "min", *second = "max";
    if (rule == SOMA_NORM_QUANTILE10) *first = "q10", *second = "q90";
}

// LeRobot's rules: computed in f32, statistics of exactly the vector's width.
static bool is_lerobot(soma_norm_rule rule) { return rule >= SOMA_NORM_MEAN_STD; }

soma_status soma__norm_find(const soma_norm **norm, const soma_norm_stats *stats, const char *key, soma_norm_rule rule, int size,
                            soma_error *err) {
    const char *first, *second;
    *norm = NULL;
    needed_lists(rule, &first, &second);
    for (size_t i = 0; i < stats->n; i++) {
        soma_norm *n = &stats->norms[i];
        if (strcmp(n->key, key)) continue;
        for (size_t k = 0; first && k < SOMA_COUNT(lists); k++)
            if ((!strcmp(lists[k].name, first) || !strcmp(lists[k].name, second)) && !*list_of(n, k))
                return soma__fail(err, SOMA_NOT_FOUND, "%s: %s.%s is missing, which the rule %s needs", stats->where, key, lists[k].name,
                                  soma__norm_rule_name(rule));
        if (first && (n->size < size || (is_lerobot(rule) && n->size != size)))
            return soma__fail(err, SOMA_BAD_INPUT, "%s: %s has statistics of %d values; %d are to be normalised", stats->where, key,
                              n->size, size);
        *norm = n;
        return SOMA_OK;
    }
    return soma__fail(err, SOMA_NOT_FOUND, "%s: norm_stats has no key \"%s\"", stats->where, key);
}

typedef struct affine {
    double shift, scale;
} affine;

// Dimension i of a rule. `undo` tells apart LeRobot's z-score, which divides by std + 1e-8 but multiplies by std.
static affine rule_at(const soma_norm *n, soma_norm_rule rule, bool undo, int i) {
    const double *low = n->q01, *high = n->q99;
    if (rule == SOMA_NORM_MIN_MAX) low = n->min, high = n->max;
    if (rule == SOMA_NORM_QUANTILE10) low = n->q10, high = n->q90;
    switch (rule) {
    case SOMA_NORM_ZSCORE: return i < n->size ? (affine){n->mean[i], n->std[i] + 1e-6} : (affine){0, 1 + 1e-6};
    case SOMA_NORM_QUANTILE: return (affine){low[i], high[i] - low[i] + 1e-6};
    case SOMA_NORM_MEAN_STD: return (affine){(float)n->mean[i], (float)n->std[i] + (undo ? 0 : 1e-8f)};
    case SOMA_NORM_QUANTILES:
    case SOMA_NORM_MIN_MAX:
    case SOMA_NORM_QUANTILE10: {
        float range = (float)high[i] - (float)low[i];
        return (affine){(float)low[i], range == 0 ? 1e-8f : range};
    }
    default: return (affine){0, 1};
    }
}

// Whether [0, 1] is mapped to [-1, 1] at the end.
static bool is_two_sided(soma_norm_rule rule) {
    return rule == SOMA_NORM_QUANTILE || rule == SOMA_NORM_QUANTILES || rule == SOMA_NORM_MIN_MAX || rule == SOMA_NORM_QUANTILE10;
}

static double forward(affine a, soma_norm_rule rule, double x) {
    bool two = is_two_sided(rule);
    if (is_lerobot(rule)) {
        float y = ((float)x - (float)a.shift) / (float)a.scale;
        return two ? y * 2 - 1 : y;
    }
    double y = (x - a.shift) / a.scale;
    return two ? y * 2 - 1 : y;
}

static double backward(affine a, soma_norm_rule rule, double y) {
    bool two = is_two_sided(rule);
    if (is_lerobot(rule)) {
        float product = (two ? ((float)y + 1) / 2 : (float)y) * (float)a.scale;
        return product + (float)a.shift;
    }
    return (two ? (y + 1) / 2 : y) * a.scale + a.shift;
}

// How many dimensions the rule touches.
static int touched(const soma_norm *norm, soma_norm_rule rule, bool undo, int width) {
    SOMA_CHECK(undo || rule == SOMA_NORM_IDENTITY || width <= norm->size, "statistics cover what is normalised: see soma__norm_find");
    if (rule == SOMA_NORM_IDENTITY) return 0;
    return rule == SOMA_NORM_ZSCORE ? width : SOMA_MIN(width, norm->size);
}

void soma__norm_apply(const soma_norm *norm, soma_norm_rule rule, double *values, int64_t n_rows, int width) {
    for (int i = 0, n = touched(norm, rule, false, width); i < n; i++) {
        affine a = rule_at(norm, rule, false, i);
        for (int64_t r = 0; r < n_rows; r++) values[r * width + i] = forward(a, rule, values[r * width + i]);
    }
}

void soma__norm_undo(const soma_norm *norm, soma_norm_rule rule, double *values, int64_t n_rows, int width) {
    for (int i = 0, n = touched(norm, rule, true, width); i < n; i++) {
        affine a = rule_at(norm, rule, true, i);
        for (int64_t r = 0; r < n_rows; r++) values[r * width + i] = backward(a, rule, values[r * width + i]);
    }
}
