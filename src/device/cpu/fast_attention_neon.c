// SPDX-License-Identifier: Apache-2.0
// Rows of attention scores for this instruction set.
#if defined(__aarch64__)
#include "device/cpu/simd_attention.h"
#endif
