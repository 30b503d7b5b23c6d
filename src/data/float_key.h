// SPDX-License-Identifier: Apache-2.0
// Floats as whole numbers of the same order, and back: what sorting, counting and halving work on. NaN has no place in it.
#ifndef SOMA_DATA_FLOAT_KEY_H
#define SOMA_DATA_FLOAT_KEY_H

#include <stdint.h>
#include <string.h>

static inline uint32_t soma__float_key(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u); // below zero all bits turn, above it the sign alone
}

static inline float soma__key_float(uint32_t key) {
    uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#endif
