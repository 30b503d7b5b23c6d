// SPDX-License-Identifier: Apache-2.0
// The Wilson interval against its closed form in exact cases and against its defining equation.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "eval/rate.h"

#include <math.h>

static void near(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.12g is not %.12g", a, b);
}

// The ends of the interval are the p with |hits/n - p| = z sqrt(p (1 - p) / n).
static void ends_solve_the_score_equation(void **state) {
    const double z = 1.959963984540054;
    for (int64_t n = 1; n <= 200; n += 7) {
        for (int64_t k = 0; k <= n; k++) {
            soma_rate r = soma__rate(k, n);
            double ends[2] = {r.low, r.high};
            assert_true(r.low <= r.rate && r.rate <= r.high && r.low >= 0 && r.high <= 1 && r.n == n);
            for (int i = 0; i < 2; i++) {
                if ((k == 0 && i == 0) || (k == n && i == 1)) continue; // held at 0 and 1
                near(fabs(r.rate - ends[i]), z * sqrt(ends[i] * (1 - ends[i]) / (double)n), 1e-12);
            }
        }
    }
}

static void known_values(void **state) {
    soma_rate none = soma__rate(0, 10), all = soma__rate(10, 10), half = soma__rate(50, 100), unknown = soma__rate(0, 0);
    assert_true(none.low == 0 && all.high == 1);
    near(none.high, 0.2775327998628892, 1e-12); // z^2 / (n + z^2)
    near(all.low, 1 - none.high, 1e-12);
    near(half.low, 0.4038315303659956, 1e-12);
    near(half.high, 0.5961684696340044, 1e-12);
    assert_true(unknown.low == 0 && unknown.high == 1 && unknown.n == 0);
}

static void json_there_and_back(void **state) {
    soma_rate r = soma__rate(83, 100), back = {0};
    json_t *file = json_pack("{s:o}", "success", soma__rate_json(r));
    assert_int_equal(soma__rate_read(&back, file, "success", "r.json", NULL), SOMA_OK);
    assert_memory_equal(&r, &back, sizeof r);
    soma_error err = {0};
    assert_int_equal(soma__rate_read(&back, file, "prompted", "r.json", &err), SOMA_NOT_FOUND);
    json_decref(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_solve_the_score_equation),
        cmocka_unit_test(known_values),
        cmocka_unit_test(json_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
