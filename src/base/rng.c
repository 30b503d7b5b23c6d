// SPDX-License-Identifier: Apache-2.0
// A counter through two rounds of the splitmix64 finaliser, keyed before and between: passes the tests that a simulator and an initialiser
// need, four lines, no state beyond the counter.
#include "base/rng.h"

#include <math.h>

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u; // constants: Steele, Lea, Flood 2014 (splitmix64)
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

soma_rng soma__rng(uint64_t seed) { return (soma_rng){.key = mix(seed + 0x9e3779b97f4a7c15u)}; }

soma_rng soma__rng_fold(const soma_rng *rng, uint64_t index) { return (soma_rng){.key = mix(rng->key ^ mix(index + 0x632be59bd9b4e019u))}; }

uint64_t soma__rng_u64(soma_rng *rng) {
    uint64_t z = mix(rng->key + 0x9e3779b97f4a7c15u * ++rng->counter);
    return mix(z ^ rng->key);
}

double soma__rng_uniform(soma_rng *rng) { return (double)(soma__rng_u64(rng) >> 11) * 0x1p-53; }

double soma__rng_range(soma_rng *rng, double low, double high) { return low + (high - low) * soma__rng_uniform(rng); }

uint64_t soma__rng_below(soma_rng *rng, uint64_t n) {
    SOMA_CHECK(n > 0, "a random index needs at least one choice");
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x; // reject the tail that would favour small numbers
    do x = soma__rng_u64(rng);
    while (x >= limit);
    return x % n;
}

double soma__rng_normal(soma_rng *rng) {
    double u = 1.0 - soma__rng_uniform(rng), v = soma__rng_uniform(rng); // u in (0, 1]: its logarithm is finite
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void soma__rng_normals(soma_rng *rng, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = (float)soma__rng_normal(rng);
}

void soma__rng_shuffle(soma_rng *rng, uint32_t *items, size_t n) {
    for (size_t i = n; i > 1; i--) {
        size_t j = soma__rng_below(rng, i);
        uint32_t kept = items[i - 1];
        items[i - 1] = items[j];
        items[j] = kept;
    }
}
