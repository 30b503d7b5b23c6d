// SPDX-License-Identifier: Apache-2.0
// Sums for this instruction set.
#if defined(__aarch64__)
#include "device/cpu/simd_sum.h"
#endif
