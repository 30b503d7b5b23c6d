// SPDX-License-Identifier: Apache-2.0
// Element-wise chains for this instruction set.
#if defined(__aarch64__)
#include "device/cpu/simd_elementwise.h"
#endif
