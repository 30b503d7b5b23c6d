// SPDX-License-Identifier: Apache-2.0
// From the bytes of a piece to a number, by hashing. The map keeps the bytes; pieces may hold zeros. Nothing is ever taken out.
#ifndef SOMA_TEXT_PIECE_MAP_H
#define SOMA_TEXT_PIECE_MAP_H

#include "base/base.h"
#include "base/str.h"

typedef struct soma_piece_slot {
    uint32_t hash, offset, len; // offset into bytes
    int32_t value;              // -1: empty
} soma_piece_slot;

typedef struct soma_piece_map {
    soma_piece_slot *slots; // a power of two of them, at most half in use
    size_t n_slots, n;
    soma_str bytes;
} soma_piece_map; // {0} is empty and ready

void soma__piece_map_free(soma_piece_map *map);              // leaves it empty and ready
bool soma__piece_map_reserve(soma_piece_map *map, size_t n); // room for n pieces in all; false when memory is out
// The slot of this piece, or NULL when memory is out. `value` is stored where the piece is new; *slot tells what is there now. The slot is
// borrowed until the next put.
const soma_piece_slot *soma__piece_map_put(soma_piece_map *map, const char *piece, size_t len, int32_t value);
int32_t soma__piece_map_find(const soma_piece_map *map, const char *piece, size_t len); // -1 when absent

#endif
