// SPDX-License-Identifier: Apache-2.0
// Joint conventions: ALOHA's gripper against openpi's own functions, flips and scales by hand, and the ways there and back.
#include "golden/golden.h"

#include "transform/form.h"

static void test_affine(void **state) {
    const soma_form forms[] = {{0}, {SOMA_FORM_AFFINE, -1, 0}, {SOMA_FORM_AFFINE, 0.5, 3}, {SOMA_FORM_SAME, 9, 9}};
    double x[] = {1, 2, 4, 8};
    soma__form_state(forms, x, 4);
    assert_true(x[0] == 1 && x[1] == -2 && x[2] == 5 && x[3] == 8);
    soma__form_actions_out(forms, x, 4);
    assert_true(x[0] == 1 && x[1] == 2 && x[2] == 4 && x[3] == 8);
    soma__form_actions_in(forms, x, 3);
    assert_true(x[1] == -2 && x[2] == 5);
}

static void test_gripper(void **state) {
    const soma_form forms[] = {{.kind = SOMA_FORM_ALOHA_GRIPPER}};
    for (double v = -0.5; v < 1.5; v += 0.125) {
        double x = v;
        soma__form_actions_in(forms, &x, 1);
        assert_true(x == soma__aloha_gripper_in(v));
        soma__form_actions_out(forms, &x, 1);
        assert_float_equal(x, v, 1e-15);
        soma__form_state(forms, &x, 1);
        assert_true(isfinite(x)); // the arcsine's argument is clipped: no opening is refused
    }
    // by hand: closed, the fingers are 18.44 mm apart
    double sine = (0.022 * 0.022 + 0.01844 * 0.01844 - 0.036 * 0.036) / (2 * 0.022 * 0.01844);
    assert_float_equal(soma__aloha_gripper_angle(0), (asin(sine) - 0.5476) / (1.6296 - 0.5476), 1e-15);
}

static void test_golden_gripper(void **state) {
    soma_safetensors *st = golden_open("preprocess/robots.safetensors");
    static const struct {
        const char *name;
        double (*f)(double);
    } cases[] = {{"gripper.to_angular", soma__aloha_gripper_angle},
                 {"gripper.from_angular", soma__aloha_gripper_out},
                 {"gripper.from_angular_inv", soma__aloha_gripper_in}};
    int64_t n;
    double *in = golden_get(st, "gripper.lin", SOMA_F64, &n), *out = malloc((size_t)n * sizeof *out);
    assert_true(in && n == 301);
    for (size_t i = 0; i < SOMA_COUNT(cases); i++) {
        for (int64_t k = 0; k < n; k++) out[k] = cases[i].f(in[k]);
        golden_hold(st, cases[i].name, "-", SOMA_F64, out, GOLDEN_EACH, 1e-12);
    }
    free(in);
    free(out);
    soma__safetensors_close(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_affine), cmocka_unit_test(test_gripper),
                                       cmocka_unit_test(test_golden_gripper)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
