// SPDX-License-Identifier: Apache-2.0
// Open addressing with linear steps; 16 bytes per slot, so that a search touches one cache line and then the bytes it finds.
#include "text/piece_map.h"

#include <string.h>

// Eight bytes at a time: words are short, and a byte-wise hash would cost as much as the rest of a search.
static uint32_t hash_of(const char *s, size_t len) {
    const uint64_t k = 0x9e3779b97f4a7c15u; // 2^64 over the golden ratio
    uint64_t h = len * k, word;
    for (; len >= 8; s += 8, len -= 8) {
        memcpy(&word, s, 8);
        h = (h ^ word) * k;
        h ^= h >> 32;
    }
    word = 0;
    if (len >= 4) {
        uint32_t first, last;
        memcpy(&first, s, 4);
        memcpy(&last, s + len - 4, 4);
        word = (uint64_t)first << 32 | last;
    } else if (len) {
        word = (uint64_t)(unsigned char)s[0] << 16 | (uint64_t)(unsigned char)s[len / 2] << 8 | (unsigned char)s[len - 1];
    }
    h = (h ^ word) * k;
    return (uint32_t)(h >> 32) ^ (uint32_t)(h >> 15);
}

void soma__piece_map_free(soma_piece_map *map) {
    soma__free(map->slots);
    soma__str_free(&map->bytes);
    *map = (soma_piece_map){0};
}

// The slot where this piece is, or the empty one where it belongs. n_slots > 0.
static soma_piece_slot *slot_of(const soma_piece_map *map, const char *piece, size_t len, uint32_t hash) {
    for (size_t i = hash & (map->n_slots - 1);; i = (i + 1) & (map->n_slots - 1)) {
        soma_piece_slot *slot = &map->slots[i];
        if (slot->value < 0 || (slot->hash == hash && slot->len == len && !memcmp(map->bytes.text + slot->offset, piece, len))) return slot;
    }
}

bool soma__piece_map_reserve(soma_piece_map *map, size_t n) {
    size_t n_slots = SOMA_MAX(map->n_slots, (size_t)16);
    while (n_slots / 2 < n) n_slots *= 2;
    if (n_slots == map->n_slots) return true;
    soma_piece_slot *slots = soma__alloc(n_slots * sizeof *slots);
    if (!slots) return false;
    for (size_t i = 0; i < n_slots; i++) slots[i] = (soma_piece_slot){.value = -1};
    for (size_t k = 0; k < map->n_slots; k++) {
        if (map->slots[k].value < 0) continue;
        size_t i = map->slots[k].hash & (n_slots - 1);
        while (slots[i].value >= 0) i = (i + 1) & (n_slots - 1);
        slots[i] = map->slots[k];
    }
    soma__free(map->slots);
    map->slots = slots;
    map->n_slots = n_slots;
    return true;
}

const soma_piece_slot *soma__piece_map_put(soma_piece_map *map, const char *piece, size_t len, int32_t value) {
    if (!soma__piece_map_reserve(map, map->n + 1) || len > UINT32_MAX - 1 - map->bytes.len) return NULL;
    uint32_t hash = hash_of(piece, len);
    soma_piece_slot *slot = slot_of(map, piece, len, hash);
    if (slot->value >= 0) return slot;
    size_t offset = map->bytes.len;
    soma__str_add_bytes(&map->bytes, piece, len);
    if (map->bytes.failed) return NULL;
    *slot = (soma_piece_slot){hash, (uint32_t)offset, (uint32_t)len, value};
    map->n++;
    return slot;
}

int32_t soma__piece_map_find(const soma_piece_map *map, const char *piece, size_t len) {
    return map->n ? slot_of(map, piece, len, hash_of(piece, len))->value : -1;
}
