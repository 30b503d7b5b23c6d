// SPDX-License-Identifier: Apache-2.0
// Norms and their gradients against the plain kernels.
#include "fast_harness.h"

static void check(int64_t B, int64_t T, int64_t D, bool gap, bool layer, bool with_w, soma_dtype dtype) {
    harness h = harness_open();
    soma_tensor *x = gap ? soma_slice(harness_input(&h, dtype, SHAPE(B, T + 2, D)), 1, 1, T) : harness_input(&h, dtype, SHAPE(B, T, D));
    soma_tensor *w = with_w ? harness_input(&h, dtype, SHAPE(D)) : NULL, *b = harness_input(&h, SOMA_F32, SHAPE(D));
    soma_tensor *dy = harness_input(&h, SOMA_F32, SHAPE(B, T, D)), *grad = harness_input(&h, SOMA_F32,
                                                                                         SHAPE(B * T * D + (layer    ? 2
                                                                                                            : with_w ? 1
                                                                                                                     : 0) *
                                                                                                               D));
    soma_tensor *y = layer ? soma_layer_normalise(x, w, b, 1e-6f) : soma_rms_normalise(x, w, 1e-6f);
    harness_place(&h);
    harness_fill(&h, soma__owner(x), 1, 3);
    if (w) harness_fill(&h, w, 2, 1);
    harness_fill(&h, b, 3, 1);
    harness_fill(&h, dy, 4, 1);
    harness_against_plain(&h, y, layer ? cpu_fast_layer_norm : cpu_fast_rms_norm, dtype == SOMA_BF16 ? 0x1p-7f : 3e-6f);
    soma_tensor node = *grad;
    node.op = layer ? SOMA_OP_LAYER_NORM_GRAD : SOMA_OP_RMS_NORM_GRAD;
    node.src[0] = x, node.src[1] = w, node.src[2] = dy, node.p = y->p;
    harness_against_plain(&h, &node, layer ? cpu_fast_layer_norm_grad : cpu_fast_rms_norm_grad, 3e-5f);
    harness_close(&h);
}

static void all(void **state) {
    const int64_t widths[] = {1, 7, 16, 48, 128, 333};
    for (size_t i = 0; i < SOMA_COUNT(widths); i++)
        for (int k = 0; k < 8; k++) {
            check(3, 70, widths[i], k & 1, k & 2, true, k & 4 ? SOMA_BF16 : SOMA_F32);
            if (!(k & 2)) check(2, 33, widths[i], k & 1, false, false, k & 4 ? SOMA_BF16 : SOMA_F32);
        }
    check(1, 2, 9000, false, true, true, SOMA_F32);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
