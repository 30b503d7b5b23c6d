// SPDX-License-Identifier: Apache-2.0
// 64-bit FNV-1a: for keys and for the determinism checks, not against an adversary.
#ifndef SOMA_BASE_HASH_H
#define SOMA_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define SOMA_HASH_START 0xcbf29ce484222325u

static inline uint64_t soma__hash(uint64_t hash, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

#endif
