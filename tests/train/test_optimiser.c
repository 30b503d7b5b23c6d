// SPDX-License-Identifier: Apache-2.0
// The schedule against openpi's own values, and a step through the optimiser's plans: accumulation, norm, clipping.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/optimiser.h"

#include <math.h>

static void test_schedule(void **state) {
    // openpi's cosine: warm-up 1000, peak 2.5e-5, end 2.5e-6 at 30000
    const struct {
        int64_t step;
        double lr;
    } known[] = {{0, 2.498e-08}, {500, 1.251e-05}, {1000, 2.5e-05}, {15500, 1.375e-05}, {30000, 2.5e-06}};
    for (size_t i = 0; i < SOMA_COUNT(known); i++)
        assert_float_equal(soma__lr_at(known[i].step, 30000, 1000, 2.5e-5, 2.5e-6) / known[i].lr, 1, 1e-3);
    assert_float_equal(soma__lr_at(0, 10, 0, 1, 0.1), 1, 1e-12);
}

static void test_step(void **state) {
    soma_graph *g;
    soma_device *device;
    soma_params *params;
    soma_optimiser *o;
    soma_error err;
    assert_int_equal(soma_graph_new(&g, &err), SOMA_OK);
    soma_output(soma_affine(soma_weight(g, "a", SOMA_F32, (soma_init){SOMA_INIT_ONE, 0}, 1, (int64_t[]){3}), 1, 0), "y");
    assert_int_equal(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1}, &err), SOMA_OK);
    assert_int_equal(soma__params_new(&params, device, (const soma_graph *const *)&g, 1, &err), SOMA_OK);
    assert_int_equal(soma__optimiser_new(&o, device, &params->layout, true, true, &err), SOMA_OK);
    float *w = soma__optimiser_array(o, "w"), *grad = soma__optimiser_array(o, "g");
    const float gradient[] = {3, 0, 4};
    for (int i = 0; i < 3; i++) {
        w[i] = 1;
        grad[i] = gradient[i];
    }
    soma__optimiser_accumulate(o);
    soma__optimiser_accumulate(o);
    soma_adamw_step s = {.step = 1, .lr = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .grad_scale = 0.5};
    assert_float_equal(soma__optimiser_update(o, &s), 5, 1e-6); // |(3, 0, 4)|, the mean of the two passes
    // the first step's direction is the sign; clipping changes the moments: (3, 0, 4) / 5
    assert_float_equal(w[0], 0.9, 1e-6);
    assert_float_equal(w[1], 1, 1e-6);
    assert_float_equal(((float *)soma__optimiser_array(o, "m"))[2], 0.1 * 0.8, 1e-6);
    assert_float_equal(((float *)soma__optimiser_array(o, "v"))[0], 0.05 * 0.36, 1e-6);
    assert_float_equal(((float *)soma__optimiser_array(o, "acc"))[0], 0, 0);
    soma__optimiser_free(o);
    soma__params_free(params);
    soma__device_close(device);
    soma_graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_schedule), cmocka_unit_test(test_step)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
