// SPDX-License-Identifier: Apache-2.0
// Dropout for this instruction set.
#if defined(__x86_64__)
#include "device/cpu/simd_drop.h"
#endif
