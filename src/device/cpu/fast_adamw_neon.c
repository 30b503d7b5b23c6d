// SPDX-License-Identifier: Apache-2.0
// The optimiser's step for this instruction set.
#if defined(__aarch64__)
#include "device/cpu/simd_adamw.h"
#endif
