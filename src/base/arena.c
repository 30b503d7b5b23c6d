// SPDX-License-Identifier: Apache-2.0
// Blocks double from 16 KiB to 1 MiB. A request that would waste a good part of a block gets one of its own, behind the newest, which stays
// in use. Single-threaded, like the objects that own one.
#include "base/arena.h"

#include <stdio.h>
#include <string.h>

struct arena_block {
    struct arena_block *next;
    _Alignas(16) unsigned char bytes[];
};

enum { FIRST_BLOCK = 16 << 10, LARGEST_BLOCK = 1 << 20 };

static struct arena_block *new_block(size_t room) { return soma__calloc(1, sizeof(struct arena_block) + room); }

void *soma__arena_alloc(soma_arena *arena, size_t size) {
    if (size > PTRDIFF_MAX / 2) return NULL;
    size = (size + 15) & ~(size_t)15;
    if (!arena->blocks || size > arena->size - arena->used) {
        size_t room = SOMA_MIN(SOMA_MAX(arena->size * 2, (size_t)FIRST_BLOCK), (size_t)LARGEST_BLOCK);
        bool own = size > room / 4;
        struct arena_block *block = new_block(own ? size : room);
        if (!block) return NULL;
        if (own && arena->blocks) {
            block->next = arena->blocks->next;
            arena->blocks->next = block;
            return block->bytes;
        }
        block->next = arena->blocks;
        arena->blocks = block;
        arena->used = 0;
        arena->size = own ? size : room;
    }
    void *p = arena->blocks->bytes + arena->used;
    arena->used += size;
    return p;
}

char *soma__arena_strdup(soma_arena *arena, const char *s) {
    size_t size = strlen(s) + 1;
    char *copy = soma__arena_alloc(arena, size);
    return copy ? memcpy(copy, s, size) : NULL;
}

char *soma__arena_printf(soma_arena *arena, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = len < 0 ? NULL : soma__arena_alloc(arena, (size_t)len + 1);
    if (text) vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    return text;
}

void soma__arena_free(soma_arena *arena) {
    for (struct arena_block *block = arena->blocks, *next; block; block = next) {
        next = block->next;
        soma__free(block);
    }
    *arena = (soma_arena){0};
}
