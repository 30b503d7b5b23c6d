// SPDX-License-Identifier: Apache-2.0
// Rotary positions for this instruction set.
#if defined(__aarch64__)
#include "device/cpu/simd_rope.h"
#endif
