// SPDX-License-Identifier: Apache-2.0
// Blocks grow from 16 KiB; a request larger than a block gets one of its own. Single-threaded, like the objects that own one.
#include "base/arena.h"

#include <stdio.h>
#include <string.h>

struct arena_block {
    struct arena_block *next;
    _Alignas(16) unsigned char bytes[];
};

void *soma__arena_alloc(soma_arena *arena, size_t size) {
    size = (size + 15) & ~(size_t)15;
    if (!arena->blocks || arena->used + size > arena->size) {
        size_t room = SOMA_MAX(size, SOMA_MAX(arena->size, (size_t)16 << 10));
        struct arena_block *block = soma__calloc(1, sizeof *block + room);
        if (!block) return NULL;
        block->next = arena->blocks;
        arena->blocks = block;
        arena->used = 0;
        arena->size = room;
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
