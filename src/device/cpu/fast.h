// SPDX-License-Identifier: Apache-2.0
// Small helpers of the fast kernels' choosers.
#ifndef SOMA_DEVICE_CPU_FAST_H
#define SOMA_DEVICE_CPU_FAST_H

#include "device/cpu/cpu.h"

static inline size_t cpu_align(size_t size) { return (size + 63) & ~(size_t)63; }
static inline int64_t cpu_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The kernel of one op for an instruction set: the build of it for AVX-512, AVX2 or NEON. NULL (decline) where there is none.
#if defined(__x86_64__)
#define CPU_DECLARE(type, name) type name##_avx2, name##_avx512
#define CPU_KERNEL_PICK(isa, name) ((isa) >= SOMA_ISA_AVX512 ? name##_avx512 : (isa) >= SOMA_ISA_AVX2 ? name##_avx2 : NULL)
#elif defined(__aarch64__)
#define CPU_DECLARE(type, name) type name##_neon
#define CPU_KERNEL_PICK(isa, name) ((isa) >= SOMA_ISA_NEON ? name##_neon : NULL)
#else
#define CPU_DECLARE(type, name) extern int name##_is_not_here
#define CPU_KERNEL_PICK(isa, name) NULL
#endif
#define CPU_KERNEL_DECLARE(name) CPU_DECLARE(cpu_kernel, name)

CPU_KERNEL_DECLARE(cpu_elementwise);
CPU_KERNEL_DECLARE(cpu_rms_norm);
CPU_KERNEL_DECLARE(cpu_rms_norm_grad);
CPU_KERNEL_DECLARE(cpu_layer_norm);
CPU_KERNEL_DECLARE(cpu_layer_norm_grad);
CPU_KERNEL_DECLARE(cpu_rope);
CPU_KERNEL_DECLARE(cpu_sum);
CPU_KERNEL_DECLARE(cpu_adamw);
CPU_KERNEL_DECLARE(cpu_cross_entropy);
CPU_KERNEL_DECLARE(cpu_cross_entropy_grad);

// Rows of D values that a norm gives to one thread at once; its gradient's sums over rows are cut likewise.
static inline int64_t cpu_norm_group(int64_t D) { return D >= 8192 ? 1 : 8192 / D; }

#endif
