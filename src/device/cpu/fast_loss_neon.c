// SPDX-License-Identifier: Apache-2.0
// Cross-entropy for this instruction set.
#if defined(__aarch64__)
#include "device/cpu/simd_loss.h"
#endif
