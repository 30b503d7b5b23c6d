// SPDX-License-Identifier: Apache-2.0
// The register peak of this instruction set.
#if defined(__x86_64__)
#include "device/cpu/simd_peak.h"
#endif
