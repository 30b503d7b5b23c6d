// SPDX-License-Identifier: Apache-2.0
// Dropout of a row. The hash is a dozen integer operations, which the compiler puts on vectors itself.
#include "device/cpu/drop.h"
#include "device/cpu/simd.h"

void SIMD_NAME(cpu_drop_row)(float *y, const float *x, int64_t n, const cpu_drop *d, uint32_t first) {
    const cpu_drop own = *d;
    for (int64_t i = 0; i < n; i++) y[i] = cpu_dropped(&own, first + (uint32_t)i, x[i]);
}
