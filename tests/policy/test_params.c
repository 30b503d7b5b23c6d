// SPDX-License-Identifier: Apache-2.0
// Weights that stay in a mapped file: what is borrowed, what is copied, that both read the same, and that random files repeat.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "policy/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/soma_test_params_XXXXXX", path[128];
static soma_device *device;

static void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

static int make_dir(void **state) { return !mkdtemp(dir) || soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1}, NULL); }

static int remove_dir(void **state) {
    soma__device_close(device);
    return soma__dir_remove(dir, NULL) != SOMA_OK;
}

// A weight [3, 1000] of each dtype, and a norm that is always F32.
static soma_graph *graph_of(soma_dtype dtype) {
    soma_graph *g;
    soma_error err = {0};
    ok(soma_graph_new(&g, &err), &err);
    soma_weight(g, "wide.weight", dtype, (soma_init){SOMA_INIT_NORMAL, 0.5f}, 2, (int64_t[]){3, 100000});
    soma_weight(g, "norm.weight", SOMA_F32, (soma_init){SOMA_INIT_ONE, 0}, 1, (int64_t[]){7});
    return g;
}

static void write_file(soma_dtype dtype, uint64_t seed) {
    soma_error err = {0};
    soma_graph *g = graph_of(SOMA_F32);
    soma_layout layout = {0};
    ok(soma__layout_add(&layout, g, SOMA_ROLE_WEIGHT, &err), &err);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ok(soma__params_write_random(&layout, NULL, seed, dtype, path, NULL, NULL, &err), &err);
    soma__layout_free(&layout);
    soma_graph_free(g);
}

static soma_params *open_weights(soma_graph *g) {
    soma_error err = {0};
    soma_safetensors *file;
    soma_params *p;
    ok(soma__safetensors_open(&file, path, &err), &err);
    ok(soma__params_open(&p, device, (const soma_graph *const[]){g}, 1, SOMA_ROLE_WEIGHT, file, NULL, &err), &err);
    return p;
}

static const char *at(const soma_params *p, const char *name) {
    return (const char *)((intptr_t)p->memory + (intptr_t)soma__layout_find(&p->layout, name)->place);
}

static void what_fits_stays_in_the_file(void **state) {
    write_file(SOMA_BF16, 3);
    soma_graph *g = graph_of(SOMA_BF16);
    soma_params *p = open_weights(g);
    assert_ptr_equal(at(p, "wide.weight"), soma__safetensors_find(p->file, "wide.weight")->data);
    assert_int_equal(p->size, 64); // the norm alone is copied, and converted
    const float *norm = (const float *)at(p, "norm.weight");
    for (int i = 0; i < 7; i++) assert_float_equal(norm[i], 1, 0);
    soma__params_free(p);
    soma_graph_free(g);
}

static void borrowed_and_copied_weights_are_the_same(void **state) {
    write_file(SOMA_F32, 4);
    soma_error err = {0};
    soma_graph *g = graph_of(SOMA_F32);
    soma_params *borrowed = open_weights(g), *copied;
    soma_safetensors *file;
    assert_int_equal(borrowed->size, 0);
    ok(soma__params_new(&copied, device, (const soma_graph *const[]){g}, 1, &err), &err);
    ok(soma__safetensors_open(&file, path, &err), &err);
    ok(soma__params_load(copied, file, NULL, &err), &err);
    soma__safetensors_close(file);
    assert_memory_equal(at(borrowed, "wide.weight"), at(copied, "wide.weight"), 4 * 300000);
    char again[160]; // a policy's weights can be written again wherever they lie
    snprintf(again, sizeof again, "%s/again.safetensors", dir);
    ok(soma__params_save(borrowed, NULL, again, NULL, &err), &err);
    char *a, *b;
    size_t n, m;
    ok(soma__file_read(&a, &n, path, 1 << 24, &err), &err);
    ok(soma__file_read(&b, &m, again, 1 << 24, &err), &err);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    soma__free(a);
    soma__free(b);
    soma__params_free(borrowed);
    soma__params_free(copied);
    soma_graph_free(g);
}

// The same values as an initialiser's, whatever the pieces in which they are made.
static void random_files_are_initialisers(void **state) {
    write_file(SOMA_F32, 5);
    soma_error err = {0};
    soma_graph *g = graph_of(SOMA_F32);
    soma_params *file = open_weights(g), *memory;
    ok(soma__params_new(&memory, device, (const soma_graph *const[]){g}, 1, &err), &err);
    ok(soma__params_init(memory, 5, &err), &err);
    assert_memory_equal(at(file, "wide.weight"), at(memory, "wide.weight"), 4 * 300000);
    ok(soma__params_init(memory, 6, &err), &err);
    assert_memory_not_equal(at(file, "wide.weight"), at(memory, "wide.weight"), 4 * 300000);
    soma__params_free(file);
    soma__params_free(memory);
    soma_graph_free(g);
}

static bool stop(void *user, int64_t done, int64_t total) { return false; }

static void stopped_writing_leaves_no_file(void **state) {
    soma_error err = {0};
    soma_graph *g = graph_of(SOMA_F32);
    soma_layout layout = {0};
    char file[160];
    ok(soma__layout_add(&layout, g, SOMA_ROLE_WEIGHT, &err), &err);
    snprintf(file, sizeof file, "%s/none.safetensors", dir);
    assert_int_equal(soma__params_write_random(&layout, NULL, 1, SOMA_BF16, file, stop, NULL, &err), SOMA_CANCELLED);
    assert_false(soma__file_exists(file));
    char **names;
    size_t n;
    ok(soma__dir_list(&names, &n, dir, &err), &err);
    for (size_t i = 0; i < n; i++) assert_null(strstr(names[i], "none"));
    soma__dir_list_free(names, n);
    soma__layout_free(&layout);
    soma_graph_free(g);
}

static void every_allocation_may_fail(void **state) {
    write_file(SOMA_BF16, 3);
    soma_graph *g = graph_of(SOMA_BF16);
    soma_status status = SOMA_NO_MEMORY;
    for (int64_t n = 0; status != SOMA_OK; n++) {
        soma_error err = {0};
        soma_safetensors *file;
        soma_params *p = NULL;
        ok(soma__safetensors_open(&file, path, &err), &err);
        soma__alloc_fail_after(n);
        status = soma__params_open(&p, device, (const soma_graph *const[]){g}, 1, SOMA_ROLE_WEIGHT, file, NULL, &err);
        soma__alloc_fail_after(-1);
        assert_true(status == SOMA_OK || *err.text);
        soma__params_free(p);
        assert_true(n < 1000);
    }
    soma_graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_stays_in_the_file),   cmocka_unit_test(borrowed_and_copied_weights_are_the_same),
        cmocka_unit_test(random_files_are_initialisers), cmocka_unit_test(stopped_writing_leaves_no_file),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
