// SPDX-License-Identifier: Apache-2.0
// What ranks agree on: parts that cover all, the first rank's error, copies that differ; and alone, without any ranks.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "thread_ranks.h"

typedef struct outcome {
    int bad[2]; // ranks that fail; -1: none
    int64_t from[MAX_RANKS], to[MAX_RANKS], sum[MAX_RANKS], max[MAX_RANKS];
    soma_status agreed[MAX_RANKS], same[MAX_RANKS], differ[MAX_RANKS];
    soma_error err[MAX_RANKS], differ_err[MAX_RANKS];
} outcome;

static void meet_all(soma_ranks *ranks, void *ctx) {
    outcome *o = ctx;
    int r = ranks->rank;
    soma__ranks_part(ranks, 10, &o->from[r], &o->to[r]);
    o->sum[r] = 1 << r;
    o->max[r] = r == 1 ? 7 : -r;
    soma__ranks_sum(ranks, &o->sum[r], 1);
    soma__ranks_max(ranks, &o->max[r], 1);
    soma_status status = SOMA_OK;
    if (r == o->bad[0] || r == o->bad[1]) status = soma__fail(&o->err[r], SOMA_IO, "file %d is torn", r);
    o->agreed[r] = soma__ranks_agree(ranks, status, r == 0 ? NULL : &o->err[r]);
    o->same[r] = soma__ranks_same(ranks, 5, "five", NULL);
    o->differ[r] = soma__ranks_same(ranks, 40 + r, "the corpus", &o->differ_err[r]);
}

static void check_count(int count) {
    outcome o = {.bad = {-1, -1}};
    run_ranks(count, meet_all, &o);
    for (int r = 0; r < count; r++) {
        assert_int_equal(o.from[r], r ? o.to[r - 1] : 0);
        assert_true(o.to[r] - o.from[r] >= 10 / count && o.to[r] - o.from[r] <= (10 + count - 1) / count);
        assert_int_equal(o.sum[r], (1 << count) - 1);
        assert_int_equal(o.max[r], count > 1 ? 7 : 0);
        assert_int_equal(o.agreed[r], SOMA_OK);
        assert_int_equal(o.same[r], SOMA_OK);
        assert_int_equal(o.differ[r], count > 1 ? SOMA_BAD_INPUT : SOMA_OK);
        if (count > 1) assert_non_null(strstr(o.differ_err[r].text, "the corpus: the ranks see different copies"));
    }
    assert_int_equal(o.to[count - 1], 10);
}

static void test_counts(void **state) {
    for (int count = 1; count <= MAX_RANKS; count++) check_count(count);
}

static void test_first_failure(void **state) {
    outcome two = {.bad = {2, 1}}, all = {.bad = {0, 1}};
    run_ranks(4, meet_all, &two);
    for (int r = 0; r < 4; r++) assert_int_equal(two.agreed[r], SOMA_IO);
    for (int r = 1; r < 4; r++) assert_string_equal(two.err[r].text, "rank 1 of 4: file 1 is torn");
    run_ranks(2, meet_all, &all); // as one process would say it; the first rank gave no place for a sentence
    assert_int_equal(all.agreed[1], SOMA_IO);
}

static void test_alone(void **state) {
    int64_t value = 3, from, to;
    soma_error err = {SOMA_IO, "torn"};
    soma__ranks_sum(NULL, &value, 1);
    soma__ranks_max(NULL, &value, 1);
    soma__ranks_part(NULL, 10, &from, &to);
    assert_int_equal(value, 3);
    assert_true(from == 0 && to == 10 && soma__ranks_first(NULL));
    assert_int_equal(soma__ranks_agree(NULL, SOMA_IO, &err), SOMA_IO);
    assert_string_equal(err.text, "torn");
    assert_int_equal(soma__ranks_same(NULL, 4, "four", &err), SOMA_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_first_failure),
        cmocka_unit_test(test_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
