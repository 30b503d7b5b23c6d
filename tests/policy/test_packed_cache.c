// SPDX-License-Identifier: Apache-2.0
// Packed weights kept between starts: they are those that packing gives, and another source, a damaged file or a missing weight is passed
// over.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "policy/packed_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>

static char dir[] = "/tmp/soma_test_packed_XXXXXX", source[128], cache[SOMA_PATH_MAX];
static soma_device *device;
static soma_graph *graph;

static void ok(soma_status status, const soma_error *err) {
    if (status != SOMA_OK) fail_msg("%s", err->text);
}

// A weight that is packed, a table, a bias, and a small weight that is copied.
static int make(void **state) {
    soma_error err = {0};
    soma_layout layout = {0};
    if (!mkdtemp(dir) || soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 2}, NULL)) return 1;
    ok(soma_graph_new(&graph, &err), &err);
    soma_tensor *x = soma_input(graph, "x", SOMA_F32, 2, (int64_t[]){5, 40}), *ids = soma_input(graph, "ids", SOMA_I32, 1, (int64_t[]){3});
    soma_tensor *w = soma_weight(graph, "fc.weight", SOMA_BF16, (soma_init){SOMA_INIT_NORMAL, 1}, 2, (int64_t[]){70, 40});
    soma_tensor *b = soma_weight(graph, "fc.bias", SOMA_BF16, (soma_init){SOMA_INIT_NORMAL, 1}, 1, (int64_t[]){70});
    soma_tensor *t = soma_weight(graph, "table.weight", SOMA_BF16, (soma_init){SOMA_INIT_NORMAL, 1}, 2, (int64_t[]){9, 40});
    soma_tensor *s = soma_weight(graph, "scale", SOMA_F32, (soma_init){SOMA_INIT_NORMAL, 1}, 2, (int64_t[]){1, 7});
    soma_output(soma_matmul(x, w, b, SOMA_BF16), "y");
    soma_output(soma_embed(t, ids), "e");
    soma_output(soma_affine(s, 2, 0), "s");
    ok(soma__layout_add(&layout, graph, SOMA_ROLE_WEIGHT, &err), &err);
    snprintf(source, sizeof source, "%s/model.safetensors", dir);
    ok(soma__params_write_random(&layout, NULL, 3, SOMA_BF16, source, NULL, NULL, &err), &err);
    soma__layout_free(&layout);
    ok(soma__packed_path(cache, dir, "", device, "bf16", &err), &err);
    return 0;
}

static int drop(void **state) {
    soma_graph_free(graph);
    soma__device_close(device);
    return soma__dir_remove(dir, NULL) != SOMA_OK;
}

static bool packs(void) { // the plain instruction set packs nothing
    if (!*cache) print_message("no kernel of this machine packs\n");
    return *cache;
}

static soma_status try_open(soma_params **p, const char *from, soma_error *err) {
    soma_safetensors *file;
    SOMA_TRY(soma__safetensors_open(&file, source, err));
    return soma__params_open_cached(p, device, (const soma_graph *const[]){graph}, 1, SOMA_ROLE_WEIGHT, file, NULL, from, err);
}
static soma_params *opened(const char *from) {
    soma_error err = {0};
    soma_params *p;
    ok(try_open(&p, from, &err), &err);
    return p;
}

static const char *at(const soma_params *p, const soma_slot *slot) { return (const char *)p->memory + slot->place; }

static void same(const soma_params *a, const soma_params *b) {
    assert_int_equal(a->layout.n_slots, b->layout.n_slots);
    for (size_t i = 0; i < a->layout.n_slots; i++) {
        assert_int_equal(a->layout.slots[i].form, b->layout.slots[i].form);
        assert_memory_equal(at(a, &a->layout.slots[i]), at(b, &b->layout.slots[i]), a->layout.slots[i].size);
    }
}

static void what_is_kept_is_what_was_packed(void **state) {
    if (!packs()) skip();
    soma_error err = {0};
    soma_params *fresh = opened(cache), *kept;
    assert_null(fresh->packed);
    assert_int_not_equal(soma__layout_find(&fresh->layout, "fc.weight")->form, 0);
    assert_int_equal(soma__layout_find(&fresh->layout, "table.weight")->form, 0);
    ok(soma__packed_write(fresh, cache, &err), &err);
    kept = opened(cache);
    assert_non_null(kept->packed);
    assert_int_equal(kept->size, 0);
    same(fresh, kept);
    assert_null(soma__safetensors_find(kept->packed, "table.weight")); // it is read where the checkpoint has it
    size_t n;
    ok(soma__packed_verify(fresh, cache, &n, &err), &err);
    assert_int_equal(n, 2); // the packed one and the scale
    soma__params_free(kept);
    soma__params_free(fresh);
}

static void flip(const char *path, long from_end) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, -from_end, SEEK_END);
    const int c = fgetc(f);
    fseek(f, -1, SEEK_CUR);
    fputc(c ^ 1, f);
    fclose(f);
}

static void leftovers_of_killed_processes_go(void **state) {
    if (!packs()) skip();
    soma_error err = {0};
    soma_params *p = opened("");
    char dead[SOMA_PATH_MAX + 32], alive[SOMA_PATH_MAX + 32];
    snprintf(dead, sizeof dead, "%s.part-%d", cache, 999999999); // beyond any process's number
    snprintf(alive, sizeof alive, "%s.part-1", cache);
    ok(soma__file_write(dead, "x", 1, &err), &err);
    ok(soma__file_write(alive, "x", 1, &err), &err);
    ok(soma__packed_write(p, cache, &err), &err);
    assert_false(soma__file_exists(dead));
    assert_true(soma__file_exists(alive));
    soma__params_free(p);
}

static void verify_names_what_differs(void **state) {
    if (!packs()) skip();
    soma_error err = {0};
    soma_params *fresh = opened("");
    size_t n;
    ok(soma__packed_write(fresh, cache, &err), &err);
    flip(cache, 64); // the scale lies last
    assert_int_equal(soma__packed_verify(fresh, cache, &n, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "scale"));
    soma__params_free(fresh);
}

static void another_source_is_packed_anew(void **state) {
    if (!packs()) skip();
    soma_error err = {0};
    soma_params *p = opened("");
    ok(soma__packed_write(p, cache, &err), &err);
    soma__params_free(p);
    const struct timespec later[2] = {{.tv_sec = 5}, {.tv_sec = 5}};
    assert_int_equal(utimensat(AT_FDCWD, source, later, 0), 0);
    p = opened(cache);
    assert_null(p->packed);
    size_t n;
    assert_int_equal(soma__packed_verify(p, cache, &n, &err), SOMA_BAD_INPUT);
    assert_non_null(strstr(err.text, "another checkpoint"));
    soma__params_free(p);
}

static void damaged_files_are_passed_over(void **state) {
    if (!packs()) skip();
    soma_error err = {0};
    soma_params *fresh = opened(""), *p;
    char *bytes;
    size_t size;
    ok(soma__packed_write(fresh, cache, &err), &err);
    ok(soma__file_read(&bytes, &size, cache, 1 << 24, &err), &err);
    for (size_t n = 0; n < size; n += n < 700 ? 13 : 997) {
        ok(soma__file_write(cache, bytes, n, &err), &err);
        p = opened(cache);
        assert_null(p->packed);
        same(fresh, p);
        soma__params_free(p);
    }
    soma__free(bytes);
    soma__params_free(fresh);
}

static void every_allocation_may_fail(void **state) {
    if (!packs()) skip();
    soma_error err = {0};
    soma_params *fresh = opened(""), *p;
    soma_status status = SOMA_NO_MEMORY;
    for (int64_t n = 0; status != SOMA_OK; n++) {
        soma__alloc_fail_after(n);
        status = soma__packed_write(fresh, cache, &err);
        soma__alloc_fail_after(-1);
        assert_true(n < 1000);
    }
    status = SOMA_NO_MEMORY;
    for (int64_t n = 0; status != SOMA_OK || !p->packed; n++) { // without the kept file it packs, or says why not
        if (status == SOMA_OK) soma__params_free(p);
        soma__alloc_fail_after(n);
        status = try_open(&p, cache, &err);
        soma__alloc_fail_after(-1);
        if (status == SOMA_OK) same(fresh, p);
        assert_true(n < 1000);
    }
    soma__params_free(p);
    soma__params_free(fresh);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_kept_is_what_was_packed),  cmocka_unit_test(verify_names_what_differs),
        cmocka_unit_test(leftovers_of_killed_processes_go), cmocka_unit_test(another_source_is_packed_anew),
        cmocka_unit_test(damaged_files_are_passed_over),    cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
