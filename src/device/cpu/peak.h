// SPDX-License-Identifier: Apache-2.0
// What this machine could do at best, measured in a fraction of a second: the yardstick of `soma bench`.
#ifndef SOMA_DEVICE_CPU_PEAK_H
#define SOMA_DEVICE_CPU_PEAK_H

#include "device/cpu/cpu.h"

// Floating-point operations per second of multiply-adds that touch registers only, all threads of the pool at once; `product` F32 or BF16
// (an instruction set without bf16 products multiplies in f32). 0 where there is no fast kernel for `isa`.
double cpu_peak_flops(soma_isa isa, soma_dtype product, soma_pool *pool);

// Bytes per second of reading memory that no cache holds, all threads at once; 0 when memory is out.
double cpu_peak_bytes(soma_pool *pool);

// One thread's loop of `rounds` rounds; returns operations done (peak_*.c).
double cpu_peak_loop_avx2(int64_t rounds), cpu_peak_loop_avx512(int64_t rounds), cpu_peak_loop_avx512bf16(int64_t rounds);

#endif
