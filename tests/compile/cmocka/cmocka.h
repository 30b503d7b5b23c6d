// SPDX-License-Identifier: Apache-2.0
// As much of cmocka as the tests of kernels use, in one header: for another architecture, where cmocka itself is not installed. It prints
// cmocka's lines, so that scripts/test.sh counts the cases. The first failure of a case ends it; no mocks, no fixtures.
#ifndef TESTS_COMPILE_CMOCKA_H
#define TESTS_COMPILE_CMOCKA_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};
#define cmocka_unit_test(f) \
    (struct CMUnitTest) { #f, f }

enum { CMOCKA_FAILED = 1, CMOCKA_SKIPPED };
static jmp_buf cmocka_case;

#define skip() longjmp(cmocka_case, CMOCKA_SKIPPED)
#define fail_msg(...) \
    (printf("[  ERROR   ] --- "), printf(__VA_ARGS__), printf("\n%s:%d: error\n", __FILE__, __LINE__), longjmp(cmocka_case, CMOCKA_FAILED))
#define fail() fail_msg("fail")

#define assert_true(x)                           \
    do {                                         \
        if (!(x)) fail_msg("not so: %s", "" #x); \
    } while (0)
#define assert_false(x) assert_true(!(x))
#define assert_null(x) assert_true(!(x))
#define assert_non_null(x) assert_true(x)
#define assert_int_not_equal(a, b) assert_true((long long)(a) != (long long)(b))
#define assert_in_range(x, low, high) assert_true((long long)(x) >= (long long)(low) && (long long)(x) <= (long long)(high))
#define assert_memory_equal(a, b, size) assert_true(!memcmp(a, b, size))
#define assert_float_equal(a, b, most) assert_true(fabs((double)(a) - (double)(b)) <= (double)(most))
#define assert_int_equal(a, b)                                                                  \
    do {                                                                                        \
        const long long is_ = (long long)(a), wanted_ = (long long)(b);                         \
        if (is_ != wanted_) fail_msg("%s is %lld, and %s is %lld", "" #a, is_, "" #b, wanted_); \
    } while (0)
#define assert_string_equal(a, b)                                                 \
    do {                                                                          \
        const char *is_ = (a), *wanted_ = (b);                                    \
        if (strcmp(is_, wanted_)) fail_msg("\"%s\" is not \"%s\"", is_, wanted_); \
    } while (0)

#define print_message printf

static inline int cmocka_try(const struct CMUnitTest *test) { // 0, CMOCKA_FAILED or CMOCKA_SKIPPED
    void *state = NULL;
    const int how = setjmp(cmocka_case);
    if (!how) test->run(&state);
    return how;
}

#define cmocka_run_group_tests(tests, before, after) cmocka_run(tests, sizeof(tests) / sizeof *(tests))
static inline int cmocka_run(const struct CMUnitTest *tests, size_t n) {
    static const char *const words[] = {"      OK", " FAILED ", " SKIPPED"}, *const lists[] = {" PASSED ", " FAILED ", " SKIPPED"};
    int count[3] = {0}, *how = calloc(n + 1, sizeof *how);
    if (!how) return CMOCKA_FAILED;
    for (size_t i = 0; i < n; i++) {
        printf("[ RUN      ] %s\n", tests[i].name);
        fflush(stdout);
        count[how[i] = cmocka_try(&tests[i])]++;
        printf("[ %s ] %s\n", words[how[i]], tests[i].name);
    }
    printf("[ %s ] %d test(s).\n", lists[0], count[0]);
    for (int kind = CMOCKA_SKIPPED; kind >= CMOCKA_FAILED; kind--) {
        if (!count[kind]) continue;
        printf("[ %s ] %d test(s), listed below:\n", lists[kind], count[kind]);
        for (size_t i = 0; i < n; i++)
            if (how[i] == kind) printf("[ %s ] %s\n", lists[kind], tests[i].name);
    }
    free(how);
    return count[CMOCKA_FAILED];
}

#endif
