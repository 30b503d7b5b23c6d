// SPDX-License-Identifier: Apache-2.0
// The quantised matrix product's tiles for this instruction set.
#if defined(__aarch64__)
#include "device/cpu/simd_quant.h"
#endif
