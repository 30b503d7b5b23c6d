// SPDX-License-Identifier: Apache-2.0
// What the tests of this folder share: arrays that must agree, value by value.
#ifndef SOMA_TESTS_TRANSFORM_CHECK_H
#define SOMA_TESTS_TRANSFORM_CHECK_H

#include "golden/golden.h"

static inline void check_f64(const char *name, const double *got, const double *wanted, int64_t n, double relative) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - wanted[i]) <= relative * fmax(1, fabs(wanted[i]))))
            fail_msg("%s[%lld]: %.17g, wanted %.17g", name, (long long)i, got[i], wanted[i]);
}

static inline void check_f32(const char *name, const float *got, const float *wanted, int64_t n, double tolerance) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - wanted[i]) <= tolerance))
            fail_msg("%s[%lld]: %.9g, wanted %.9g", name, (long long)i, got[i], wanted[i]);
}

#endif
