// SPDX-License-Identifier: Apache-2.0
// SQL over a dataset: both tables, columns that are lists, only what is asked for, errors that tell the place, failed allocations.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "data/query.h"
#include "toy_dataset.h"

#include <stdlib.h>

static char dir[] = "/tmp/soma_query_XXXXXX";
static soma_dataset *d;

static int n_frames(int e) { return 3 + e; }
static const char *task(int e) { return e == 1 ? "wave" : "point"; }
static void frame(int e, int f, float *state, float *action, uint8_t *picture) {
    for (int k = 0; k < 2; k++) {
        state[k] = (float)(e * 100 + f * 10 + k);
        action[k] = -state[k];
    }
    picture[0] = 1;
}

static int setup(void **state) {
    static const char *const names[] = {"left", "right"};
    const toy_dataset toy = {.n_state = 2,
                             .n_actions = 2,
                             .side = 32,
                             .fps = 10,
                             .names = names,
                             .episodes = 3,
                             .n_frames = n_frames,
                             .task = task,
                             .frame = frame};
    return !mkdtemp(dir) || write_toy_dataset(&toy, dir, NULL) || soma__dataset_open(&d, dir, NULL);
}

static int teardown(void **state) {
    soma__dataset_close(d);
    return soma__dir_remove(dir, NULL);
}

static soma_table *ask(const char *question, bool as_text) {
    soma_table *t;
    soma_error err = {0};
    if (soma__dataset_query(&t, d, question, as_text, &err)) fail_msg("%s", err.text);
    return t;
}

static void answers(void **state) {
    soma_table *t = ask("SELECT task, count(*) AS n, sum(frames) AS frames FROM episodes GROUP BY task ORDER BY task;", true);
    assert_int_equal(t->n_rows, 2);
    assert_string_equal(t->columns[0].texts[0].data, "point");
    assert_string_equal(t->columns[1].texts[0].data, "2");
    assert_string_equal(t->columns[2].texts[0].data, "8");
    soma__table_free(t);
    t = ask("SELECT episode, max(action[2]) AS most, min(\"observation.state\"[1]) AS least FROM frames GROUP BY episode ORDER BY episode "
            "-- end",
            false);
    assert_int_equal(t->n_rows, 3);
    for (int e = 0; e < 3; e++) {
        assert_true(t->columns[0].numbers[e] == e);
        assert_true(t->columns[1].numbers[e] == -(e * 100 + 1));
        assert_true(t->columns[2].numbers[e] == e * 100);
    }
    soma__table_free(t);
    t = ask("SELECT * FROM frames ORDER BY episode, frame", false);
    assert_int_equal(t->n_rows, 3 + 4 + 5);
    const soma_column *position = soma__table_column(t, "observation.state");
    assert_non_null(position);
    assert_true(position->list && position->starts[12] == 24 && position->numbers[23] == 241);
    assert_non_null(soma__table_column(t, "timestamp"));
    soma__table_free(t);
}

static void refusals(void **state) {
    static const struct {
        const char *question, *says;
    } bad[] = {{"SELECT nothing FROM frames", "nothing"},
               {"DROP TABLE episodes", "syntax error"},
               {"SELECT 1) ; DROP TABLE episodes; SELECT (1", "one SELECT"},
               {"", ""}};
    for (size_t i = 0; i < SOMA_COUNT(bad); i++) {
        soma_table *t;
        soma_error err = {0};
        assert_int_equal(soma__dataset_query(&t, d, bad[i].question, false, &err), SOMA_BAD_INPUT);
        assert_null(t);
        assert_non_null(strstr(err.text, bad[i].says));
    }
}

static void failed_allocations(void **state) {
    for (int n = 0;; n += 7) { // each try starts a database
        soma_table *t;
        soma_error err = {0};
        soma__alloc_fail_after(n);
        soma_status status = soma__dataset_query(&t, d, "SELECT * FROM frames", false, &err);
        soma__alloc_fail_after(-1);
        soma__table_free(t);
        if (status == SOMA_OK) break;
        assert_int_equal(status, SOMA_NO_MEMORY);
        assert_true(n < 2000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers), cmocka_unit_test(refusals), cmocka_unit_test(failed_allocations)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
