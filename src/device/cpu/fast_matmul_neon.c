// SPDX-License-Identifier: Apache-2.0
// The matrix product's tiles for this instruction set.
#if defined(__aarch64__)
#include "device/cpu/simd_matmul.h"
#endif
