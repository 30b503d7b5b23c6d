// SPDX-License-Identifier: Apache-2.0
// Which values dropout takes: a hash of (key, place of the op, place of the value), so that a step's masks are never kept, and the backward
// pass, another number of threads and a resumed run drop the same. One definition for the plain kernels and the fast ones.
#ifndef SOMA_DEVICE_CPU_DROP_H
#define SOMA_DEVICE_CPU_DROP_H

#include "base/rng.h"
#include "device/cpu/fast.h"

typedef struct cpu_drop {
    uint32_t key[2], limit; // a value goes where its hash's upper 31 bits are below the limit
    float scale;            // of what stays
} cpu_drop;

static inline cpu_drop cpu_drop_of(const cpu_run *run, const soma_tensor *key, soma_drop_place place) {
    const int32_t *k = cpu_at(run, key);
    const soma_rng all = {.key = (uint64_t)(uint32_t)k[1] << 32 | (uint32_t)k[0]};
    soma_rng own = soma__rng_fold(&all, (uint64_t)place.place);
    const uint64_t bits = soma__rng_u64(&own);
    return (cpu_drop){
        .key = {(uint32_t)bits, (uint32_t)(bits >> 32)}, .limit = (uint32_t)((double)place.rate * 0x1p31), .scale = 1 / (1 - place.rate)};
}

static inline uint32_t cpu_drop_mix(uint32_t h) { // the finaliser of MurmurHash3 (Appleby 2011)
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

// Value x at place i, which counts modulo 2^32.
static inline float cpu_dropped(const cpu_drop *d, uint32_t i, float x) {
    return cpu_drop_mix(cpu_drop_mix(i + d->key[0]) ^ d->key[1]) >> 1 < d->limit ? 0 : x * d->scale;
}

// y [n] of x [n], which may be y, from place `first` on.
typedef void cpu_drop_row(float *y, const float *x, int64_t n, const cpu_drop *d, uint32_t first);
#if defined(__x86_64__)
cpu_drop_row cpu_drop_row_avx2, cpu_drop_row_avx512;
#elif defined(__aarch64__)
cpu_drop_row cpu_drop_row_neon;
#endif

#endif
