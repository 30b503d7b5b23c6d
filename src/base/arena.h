// SPDX-License-Identifier: Apache-2.0
// A bump arena: many small things that live and die together (a graph's tensors, a parsed header, a dataset's names).
#ifndef SOMA_BASE_ARENA_H
#define SOMA_BASE_ARENA_H

#include "base/base.h"

typedef struct soma_arena {
    struct arena_block *blocks;
    size_t used, size; // of the newest block
} soma_arena;          // {0} is empty and ready

void *soma__arena_alloc(soma_arena *arena, size_t size); // zeroed, 16-byte aligned; NULL when memory is out
char *soma__arena_strdup(soma_arena *arena, const char *s);
char *soma__arena_printf(soma_arena *arena, const char *format, ...) SOMA_PRINTF(2, 3);
void soma__arena_free(soma_arena *arena); // releases all, leaves it empty and ready

#endif
