// SPDX-License-Identifier: Apache-2.0
// Normalisation, its file, and relative actions: against openpi's own transforms, and against wrong files.
#include "golden/golden.h"
#include "transform/check.h"

#include "transform/delta.h"
#include "transform/normalise.h"

#include <unistd.h>

static const double mean[] = {1, -2, 0}, std[] = {0.5, 2, 0}, q01[] = {-1, -4, 0}, q99[] = {3, 0, 0}, low[] = {-2, -5, 7},
                    high[] = {4, 1, 7}, q10[] = {0, -3, 2}, q90[] = {2, -1, 2};
static const soma_norm full = {"state", 3, mean, std, q01, q99, low, high, q10, q90};

static soma_norm_stats *make(const soma_norm *norms, size_t n) {
    soma_norm_stats *stats;
    soma_error err = {0};
    if (soma__norm_stats_new(&stats, norms, n, "here", &err)) fail_msg("%s", err.text);
    return stats;
}

static void test_formulas(void **state) {
    static const struct {
        soma_norm_rule rule;
        double in[3], out[3];
        bool exact_inverse;
    } cases[] = {
        {SOMA_NORM_IDENTITY, {5, 6, 7}, {5, 6, 7}, true},
        {SOMA_NORM_ZSCORE, {2, 0, 1e-6}, {1 / (0.5 + 1e-6), 2 / (2 + 1e-6), 1}, true},
        {SOMA_NORM_QUANTILE, {3, -2, 0}, {4 / (4 + 1e-6) * 2 - 1, 2 / (4 + 1e-6) * 2 - 1, -1}, true},
        {SOMA_NORM_MEAN_STD, {2, 0, 0}, {1 / (0.5 + 1e-8), 2 / (2 + 1e-8), 0}, false},
        {SOMA_NORM_QUANTILES, {3, -2, 1e-8}, {1, 0, 1}, true},
        {SOMA_NORM_MIN_MAX, {4, -5, 7}, {1, -1, -1}, true},
        {SOMA_NORM_QUANTILE10, {2, -1.5, 2}, {1, 0.5, -1}, true},
    };
    assert_int_equal(SOMA_COUNT(cases), SOMA_NORM_COUNT);
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        double x[3];
        memcpy(x, cases[i].in, sizeof x);
        soma__norm_apply(&full, cases[i].rule, x, 1, 3);
        check_f64(soma__norm_rule_name(cases[i].rule), x, cases[i].out, 3, cases[i].rule < SOMA_NORM_MEAN_STD ? 1e-14 : 1e-7);
        soma__norm_undo(&full, cases[i].rule, x, 1, 3);
        check_f64(soma__norm_rule_name(cases[i].rule), x, cases[i].in, 3,
                  cases[i].exact_inverse && cases[i].rule < SOMA_NORM_MEAN_STD ? 1e-14 : 1e-7);
        soma_norm_rule again;
        assert_int_equal(soma__norm_rule_parse(&again, soma__norm_rule_name(cases[i].rule), NULL), SOMA_OK);
        assert_int_equal(again, cases[i].rule);
    }
    soma_norm_rule rule;
    soma_error err = {0};
    assert_int_equal(soma__norm_rule_parse(&rule, "zscore", &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "openpi_zscore"));
}

// Rows are independent, a shorter vector uses the first statistics, and the padding of a wider one is treated by each project's rule.
static void test_widths(void **state) {
    double x[4] = {1, -2, 2, 0}, padded[10] = {0, 0, 0, 5, -1, 0, 0, 0, 5, -1};
    soma__norm_apply(&full, SOMA_NORM_QUANTILES, x, 2, 2);
    assert_float_equal(x[0], 0, 1e-15);
    assert_float_equal(x[2], 0.5, 1e-15);
    soma__norm_undo(&full, SOMA_NORM_ZSCORE, padded, 2, 5);
    for (int r = 0; r < 2; r++) {
        assert_true(padded[r * 5] == 1 && padded[r * 5 + 1] == -2);
        assert_true(padded[r * 5 + 3] == 5 * (1 + 1e-6) && padded[r * 5 + 4] == -(1 + 1e-6));
    }
    padded[3] = 5;
    soma__norm_undo(&full, SOMA_NORM_QUANTILE, padded, 1, 5);
    assert_true(padded[3] == 5);
}

static void test_find(void **state) {
    const soma_norm bare = {.key = "actions", .size = 2, .mean = mean, .std = std};
    const soma_norm both[] = {full, bare};
    soma_norm_stats *stats = make(both, 2);
    const soma_norm *norm;
    soma_error err = {0};
    assert_int_equal(soma__norm_find(&norm, stats, "actions", SOMA_NORM_ZSCORE, 2, &err), SOMA_OK);
    assert_ptr_not_equal(norm->mean, mean); // a copy
    assert_true(norm->mean[1] == -2);
    assert_int_equal(soma__norm_find(&norm, stats, "state", SOMA_NORM_MIN_MAX, 3, &err), SOMA_OK);
    assert_int_equal(soma__norm_find(&norm, stats, "actions", SOMA_NORM_QUANTILE, 2, &err), SOMA_NOT_FOUND);
    assert_string_equal(err.text, "here: actions.q01 is missing, which the rule openpi_quantile needs");
    assert_int_equal(soma__norm_find(&norm, stats, "actions", SOMA_NORM_ZSCORE, 3, &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, "here: actions has statistics of 2 values; 3 are to be normalised");
    // statistics that are too long: openpi cuts them, LeRobot does not
    assert_int_equal(soma__norm_find(&norm, stats, "state", SOMA_NORM_QUANTILE, 2, &err), SOMA_OK);
    assert_int_equal(soma__norm_find(&norm, stats, "state", SOMA_NORM_QUANTILES, 2, &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, "here: state has statistics of 3 values; 2 are to be normalised");
    assert_int_equal(soma__norm_find(&norm, stats, "action", SOMA_NORM_ZSCORE, 2, &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "\"action\""));
    assert_null(norm);
    soma__norm_stats_free(stats);
}

static void test_bad_files(void **state) {
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"{\"norm_stats\": {\"state\": {\"mean\": [NaN], \"std\": [1]}}}", "line 1, column"},
        {"{\"state\": {\"mean\": [1], \"std\": [1]}}", "no object \"norm_stats\""},
        {"{\"norm_stats\": {\"state\": 7}}", "norm_stats.state is not an object"},
        {"{\"norm_stats\": {\"state\": {\"mean\": [1]}}}", "state.std is missing"},
        {"{\"norm_stats\": {\"state\": {\"std\": [1], \"mean\": null}}}", "state.mean is missing"},
        {"{\"norm_stats\": {\"state\": {\"mean\": [], \"std\": []}}}", "state.mean must be a list"},
        {"{\"norm_stats\": {\"state\": {\"mean\": 1, \"std\": 1}}}", "state.mean must be a list"},
        {"{\"norm_stats\": {\"state\": {\"mean\": [1, 2], \"std\": [1]}}}", "state.std has 1 values, the list before it 2"},
        {"{\"norm_stats\": {\"state\": {\"mean\": [1, null], \"std\": [1, 1]}}}", "state.mean[1] is not a number"},
        {"{\"norm_stats\": {\"state\": {\"mean\": [1, 2], \"std\": [1, -1]}}}", "state.std[1] is -1, below 0"},
        {"{\"norm_stats\": {\"state\": {\"mean\": [1], \"std\": [1], \"q01\": [2], \"q99\": [1]}}}",
         "state: q01 and q99 are in the wrong order at [0]"},
        {"{\"norm_stats\": {\"state\": {\"mean\": [1], \"std\": [1], \"min\": [2], \"max\": [1]}}}", "min and max"},
        {"[]", "no object \"norm_stats\""},
        {"{", "not valid JSON"},
    };
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        soma_norm_stats *stats = (soma_norm_stats *)1;
        soma_error err = {0};
        assert_int_not_equal(soma__norm_stats_parse(&stats, cases[i].json, strlen(cases[i].json), "x/norm_stats.json", &err), SOMA_OK);
        assert_null(stats);
        if (!strstr(err.text, cases[i].says) || strncmp(err.text, "x/norm_stats.json", 17)) fail_msg("case %zu: %s", i, err.text);
    }
    soma_norm_stats *stats;
    soma_error err = {0};
    const double broken[] = {1, NAN, 0};
    soma_norm bad = full;
    bad.q99 = broken;
    assert_int_equal(soma__norm_stats_new(&stats, &bad, 1, "new", &err), SOMA_BAD_INPUT);
    assert_string_equal(err.text, "new: state.q99[1] is not a finite number");
    assert_int_equal(soma__norm_stats_read(&stats, "/nonexistent/norm_stats.json", &err), SOMA_NOT_FOUND);
}

static char warned[300];
static int n_warned;
static void on_log(void *user, soma_log_level level, const char *text) {
    if (level == SOMA_LOG_WARN) n_warned++, snprintf(warned, sizeof warned, "%s", text);
}

static void test_write_and_read(void **state) {
    const soma_norm bare = {.key = "actions", .size = 2, .mean = mean, .std = std};
    static const double still[] = {0, 0};
    const soma_norm hand = {.key = "hand", .size = 2, .mean = still, .std = still};
    const soma_norm both[] = {full, bare, hand};
    char path[] = "/tmp/soma_norm_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    soma_error err = {0};
    soma_norm_stats *stats = make(both, 3), *read;
    assert_int_equal(soma__norm_stats_write(stats, path, &err), SOMA_OK);
    soma_log_set(on_log, NULL);
    if (soma__norm_stats_read(&read, path, &err)) fail_msg("%s", err.text);
    soma_log_set(NULL, NULL);
    assert_int_equal(n_warned, 1); // one line for both keys
    assert_non_null(strstr(warned, "std is 0"));
    assert_non_null(strstr(warned, ": state[2], hand[0], hand[1]"));
    const soma_norm *norm;
    assert_int_equal(soma__norm_find(&norm, read, "state", SOMA_NORM_MIN_MAX, 3, &err), SOMA_OK);
    assert_memory_equal(norm->q99, q99, sizeof q99);
    assert_memory_equal(norm->max, high, sizeof high);
    assert_int_equal(soma__norm_find(&norm, read, "actions", SOMA_NORM_ZSCORE, 2, &err), SOMA_OK);
    assert_null(norm->q01);
    soma__norm_stats_free(stats);
    soma__norm_stats_free(read);
    unlink(path);
}

static void test_no_memory(void **state) {
    int failed = 0;
    for (int n = 0; n < 12; n++) {
        soma_norm_stats *stats;
        soma_error err = {0};
        soma__alloc_fail_after(n);
        soma_status made = soma__norm_stats_new(&stats, &full, 1, "here", &err);
        soma__alloc_fail_after(-1);
        assert_true(made == SOMA_OK || made == SOMA_NO_MEMORY);
        failed += made != SOMA_OK;
        soma__norm_stats_free(stats);
    }
    assert_in_range(failed, 2, 11);
}

static void test_delta(void **state) {
    const int runs[] = {2, -1};
    bool mask[8];
    assert_int_equal(soma__delta_mask(mask, 8, runs, 2), 3);
    assert_true(mask[0] && mask[1] && !mask[2]);
    assert_int_equal(soma__delta_mask(mask, 1, runs, 2), 3); // says what it needs, writes what fits
    const double pose[] = {10, 20, 30};
    double x[] = {11, 22, 33, 44, 12, 24, 36, 48};
    const double wanted[] = {1, 2, 33, 44, 2, 4, 36, 48};
    soma__delta_mask(mask, 8, runs, 2);
    soma__delta_apply(x, 2, 4, pose, mask, 3);
    assert_memory_equal(x, wanted, sizeof x);
    soma__delta_undo(x, 2, 4, pose, mask, 3);
    assert_true(x[0] == 11 && x[5] == 24 && x[6] == 36);
}

// ---- against openpi

static void check_rule(const soma_safetensors *st, const char *robot, const soma_norm *norm, soma_norm_rule rule, const char *in,
                       const char *out, bool undo) {
    char name[80];
    int64_t n;
    snprintf(name, sizeof name, "%s.%s.%s", robot, in, norm->key);
    float *x = golden_get(st, name, SOMA_F32, &n);
    int width = (int)soma__safetensors_find(st, name)->shape[soma__safetensors_find(st, name)->n_dims - 1];
    snprintf(name, sizeof name, "%s.%s.%s", robot, out, norm->key);
    assert_true(x && n == golden_find(st, name)->n_values && n % width == 0);
    double *y = malloc((size_t)n * sizeof *y);
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i];
        // on f32 input numpy rounds (x + 1) / 2 to f32 before the statistics make it f64: give the same number to our f64 formula
        if (undo && rule == SOMA_NORM_QUANTILE && i % width < norm->size) y[i] = (double)((x[i] + 1.0f) / 2.0f) * 2 - 1;
    }
    if (undo)
        soma__norm_undo(norm, rule, y, n / width, width);
    else
        soma__norm_apply(norm, rule, y, n / width, width);
    golden_hold(st, name, "-", SOMA_F64, y, GOLDEN_EACH, 1e-12);
    free(x);
    free(y);
}

static void test_golden_norm(void **state) {
    soma_safetensors *st = golden_open("preprocess/norm.safetensors");
    static const char *const robots[] = {"d7", "d8", "d14"}, *const keys[] = {"state", "actions"},
                             *const lists[] = {"mean", "std", "q01", "q99"};
    for (size_t r = 0; r < 3; r++)
        for (size_t k = 0; k < 2; k++) {
            double *values[4];
            int64_t n = 0;
            for (size_t l = 0; l < 4; l++) {
                char name[80];
                snprintf(name, sizeof name, "%s.stats.%s.%s", robots[r], keys[k], lists[l]);
                values[l] = golden_get(st, name, SOMA_F64, &n);
                assert_non_null(values[l]);
            }
            soma_norm norm = {.key = keys[k], .size = (int)n, .mean = values[0], .std = values[1], .q01 = values[2], .q99 = values[3]};
            check_rule(st, robots[r], &norm, SOMA_NORM_ZSCORE, "in", "zscore", false);
            check_rule(st, robots[r], &norm, SOMA_NORM_QUANTILE, "in", "quantile", false);
            check_rule(st, robots[r], &norm, SOMA_NORM_ZSCORE, "short_in", "short_zscore", false);
            check_rule(st, robots[r], &norm, SOMA_NORM_QUANTILE, "short_in", "short_quantile", false);
            check_rule(st, robots[r], &norm, SOMA_NORM_ZSCORE, "un_in", "unzscore", true);
            check_rule(st, robots[r], &norm, SOMA_NORM_QUANTILE, "un_in", "unquantile", true);
            for (size_t l = 0; l < 4; l++) free(values[l]);
        }
    soma__safetensors_close(st);
}

static void check_delta(const soma_safetensors *st, const char *robot, const bool *mask, int n_mask, const char *suffix) {
    char name[80];
    int64_t n, n_pose, n_steps;
    snprintf(name, sizeof name, "%s.state%s", robot, suffix);
    double *pose = golden_get(st, name, SOMA_F64, &n_pose);
    snprintf(name, sizeof name, "%s.actions%s", robot, suffix);
    double *x = golden_get(st, name, SOMA_F64, &n);
    n_steps = soma__safetensors_find(st, name)->shape[0];
    assert_true(pose && x && n_pose >= n_mask);
    int width = (int)(n / n_steps);
    if (!*suffix) {
        snprintf(name, sizeof name, "%s.delta", robot);
        double *y = malloc((size_t)n * sizeof *y);
        memcpy(y, x, (size_t)n * sizeof *y);
        soma__delta_apply(y, n_steps, width, pose, mask, n_mask);
        golden_hold(st, name, "-", SOMA_F64, y, GOLDEN_MAX, 0);
        free(y);
    }
    soma__delta_undo(x, n_steps, width, pose, mask, n_mask);
    snprintf(name, sizeof name, "%s.absolute%s", robot, suffix);
    golden_hold(st, name, "-", SOMA_F64, x, GOLDEN_MAX, 0);
    free(pose);
    free(x);
}

static void test_golden_delta(void **state) {
    soma_safetensors *st = golden_open("preprocess/delta.safetensors");
    static const struct {
        const char *robot;
        int runs[4], n_runs;
    } robots[] = {{"aloha", {6, -1, 6, -1}, 4}, {"droid", {7, -1}, 2}, {"libero", {6, -1}, 2}};
    for (size_t r = 0; r < SOMA_COUNT(robots); r++) {
        bool mask[32];
        char name[80];
        int n_mask = soma__delta_mask(mask, 32, robots[r].runs, robots[r].n_runs);
        snprintf(name, sizeof name, "%s.mask", robots[r].robot);
        assert_int_equal(golden_find(st, name)->n_values, n_mask);
        golden_hold(st, name, "-", SOMA_BOOL, mask, GOLDEN_MAX, 0);
        check_delta(st, robots[r].robot, mask, n_mask, "");
        check_delta(st, robots[r].robot, mask, n_mask, "32");
    }
    soma__safetensors_close(st);
}

// norm_stats.json as others wrote them, through a round trip of our own.
static void test_real_files(void **state) {
    static const struct {
        const char *path;
        int n_state, n_actions;
    } files[] = {{GOLDEN "../data/openpi/libero_norm_stats/physical-intelligence/libero/norm_stats.json", 8, 7},
                 {GOLDEN "../data/openpi/humanoid_norm_stats/norm_stats.json", 32, 24}};
    for (size_t f = 0; f < SOMA_COUNT(files); f++) {
        if (!soma__file_exists(files[f].path)) skip();
        char copy[] = "/tmp/soma_real_norm_XXXXXX";
        close(mkstemp(copy));
        soma_norm_stats *stats, *again;
        const soma_norm *norm, *same;
        soma_error err = {0};
        if (soma__norm_stats_read(&stats, files[f].path, &err)) fail_msg("%s", err.text);
        assert_int_equal(soma__norm_stats_write(stats, copy, &err), SOMA_OK);
        assert_int_equal(soma__norm_stats_read(&again, copy, &err), SOMA_OK);
        for (int k = 0; k < 2; k++) {
            const char *key = k ? "actions" : "state";
            int size = k ? files[f].n_actions : files[f].n_state;
            if (soma__norm_find(&norm, stats, key, SOMA_NORM_QUANTILE, size, &err)) fail_msg("%s", err.text);
            assert_int_equal(norm->size, size);
            assert_int_equal(soma__norm_find(&same, again, key, SOMA_NORM_QUANTILE, size, &err), SOMA_OK);
            assert_memory_equal(norm->q01, same->q01, (size_t)size * sizeof(double));
            assert_memory_equal(norm->std, same->std, (size_t)size * sizeof(double));
        }
        soma__norm_stats_free(stats);
        soma__norm_stats_free(again);
        unlink(copy);
    }
    // OpenVLA's layout under the same file name is told apart
    soma_norm_stats *stats;
    soma_error err = {0};
    assert_int_equal(soma__norm_stats_read(&stats, GOLDEN "../data/openpi/oxe_norm_stats_nora/norm_stats.json", &err), SOMA_NOT_FOUND);
    assert_non_null(strstr(err.text, "no object \"norm_stats\""));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),       cmocka_unit_test(test_widths),      cmocka_unit_test(test_find),
        cmocka_unit_test(test_bad_files),      cmocka_unit_test(test_no_memory),   cmocka_unit_test(test_delta),
        cmocka_unit_test(test_write_and_read), cmocka_unit_test(test_golden_norm), cmocka_unit_test(test_golden_delta),
        cmocka_unit_test(test_real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
