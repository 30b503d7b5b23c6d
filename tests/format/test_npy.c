// SPDX-License-Identifier: Apache-2.0
// .npy: written and read back, as NumPy writes it, and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "format/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_round_trip(void **state) {
    char dir[] = "/tmp/soma_npy_XXXXXX", path[64];
    double values[6] = {1, -2, 3.5, 0, 1e300, 6};
    int64_t shape[] = {1, 2, 3};
    soma_file_map map;
    soma_npy a;
    soma_error err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/x.npy", dir);
    assert_int_equal(soma__npy_write(path, SOMA_F64, shape, 3, values, &err), SOMA_OK);
    assert_int_equal(soma__file_map(&map, path, &err), SOMA_OK);
    assert_int_equal(map.size % 64, sizeof values); // the data begins at a multiple of 64, as NumPy has it
    if (soma__npy_parse(&a, map.data, map.size, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(a.dtype, SOMA_F64);
    assert_int_equal(a.n_dims, 3);
    assert_int_equal(a.n_values, 6);
    assert_memory_equal(a.shape, shape, sizeof shape);
    assert_memory_equal(a.data, values, sizeof values);
    soma__file_unmap(&map);
    assert_int_equal(soma__dir_remove(dir, &err), SOMA_OK);
}

static soma_status parse(const char *header, size_t n_bytes, soma_npy *a, soma_error *err) {
    static char file[512];
    size_t len = strlen(header);
    memset(file, 0, sizeof file);
    memcpy(file, "\x93NUMPY\x01\x00", 8);
    file[8] = (char)len;
    memcpy(file + 10, header, len);
    return soma__npy_parse(a, file, 10 + len + n_bytes, "x.npy", err);
}

static void test_headers(void **state) {
    soma_npy a;
    soma_error err = {0};
    assert_int_equal(parse("{'shape': (2,), 'descr': '<f4', 'fortran_order': False}\n", 8, &a, &err), SOMA_OK); // any order
    assert_int_equal(a.n_values, 2);
    assert_int_equal(parse("{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n", 1, &a, &err), SOMA_OK);
    assert_int_equal(a.n_dims, 0);
    assert_int_equal(parse("{'descr': '<i8', 'fortran_order': False, 'shape': (0, 3), }\n", 0, &a, &err), SOMA_OK);
    static const struct {
        const char *header, *says;
    } cases[] = {
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", "little-endian"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", "Fortran order"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "8 bytes behind the header"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "cannot be read"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 2), }", "cannot be read"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999), }", "cannot be read"},
        {"{'descr': '<f4', 'fortran_order': False, }", "cannot be read"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "cannot be read"},
        {"hello", "cannot be read"},
    };
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        assert_int_not_equal(parse(cases[i].header, 8, &a, &err), SOMA_OK);
        if (!strstr(err.text, cases[i].says) || !strstr(err.text, "x.npy")) fail_msg("case %zu: %s", i, err.text);
    }
    assert_int_equal(soma__npy_parse(&a, "PK", 2, "x.npy", &err), SOMA_BAD_INPUT);
    assert_int_equal(soma__npy_parse(&a, "\x93NUMPY\x01\x00\xff\xff", 10, "x.npy", &err), SOMA_BAD_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_headers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
