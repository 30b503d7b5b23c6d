// SPDX-License-Identifier: Apache-2.0
// Norms for this instruction set.
#if defined(__aarch64__)
#include "device/cpu/simd_norm.h"
#endif
