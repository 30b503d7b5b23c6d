// SPDX-License-Identifier: Apache-2.0
// Randomness is a value: (key, counter). The same key and counter give the same numbers on any machine and any number of threads, and a
// stream is resumed by restoring two integers.
#ifndef SOMA_BASE_RNG_H
#define SOMA_BASE_RNG_H

#include "base/base.h"

typedef struct soma_rng {
    uint64_t key, counter;
} soma_rng;

soma_rng soma__rng(uint64_t seed);
// An independent stream for item `index` (an epoch, a sample, an episode) under this one; does not advance `rng`.
soma_rng soma__rng_fold(const soma_rng *rng, uint64_t index);
uint64_t soma__rng_u64(soma_rng *rng);
double soma__rng_uniform(soma_rng *rng);                        // [0, 1), 53 bits
double soma__rng_range(soma_rng *rng, double low, double high); // [low, high)
uint64_t soma__rng_below(soma_rng *rng, uint64_t n);            // 0 .. n-1, unbiased; n > 0
double soma__rng_normal(soma_rng *rng);                         // mean 0, standard deviation 1; two draws of the counter
void soma__rng_normals(soma_rng *rng, float *out, size_t n);
void soma__rng_shuffle(soma_rng *rng, uint32_t *items, size_t n);

#endif
