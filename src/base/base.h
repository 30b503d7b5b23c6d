// SPDX-License-Identifier: Apache-2.0
// What every source file of the library includes: the error helper, the log helper, memory that a test can make fail.
#ifndef SOMA_BASE_BASE_H
#define SOMA_BASE_BASE_H

#include <soma/base.h>

#include <stdarg.h>

#define SOMA_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define SOMA_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SOMA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define SOMA_MAX(a, b) ((a) > (b) ? (a) : (b))

// Fills *err (NULL allowed) and returns `code`, so that a caller writes `return soma__fail(err, SOMA_IO, "%s: ...", path)`.
soma_status soma__fail(soma_error *err, soma_status code, const char *format, ...) SOMA_PRINTF(3, 4);
// Puts "prefix: " in front of the text already in *err, keeps its code and returns it.
soma_status soma__fail_in(soma_error *err, const char *format, ...) SOMA_PRINTF(2, 3);
// `what`: "the episode table"; the text becomes "out of memory for the episode table".
soma_status soma__no_memory(soma_error *err, const char *what);

// `return` on failure; for functions without anything to release.
#define SOMA_TRY(call)                          \
    do {                                        \
        soma_status status_ = (call);           \
        if (status_ != SOMA_OK) return status_; \
    } while (0)

void soma__log(soma_log_level level, const char *format, ...) SOMA_PRINTF(2, 3);

// ---- memory: as malloc and its family, NULL when there is none. All of the library's own allocations pass here, so that a test can
// make the n-th fail and a hot path can be shown to make none.
void *soma__alloc(size_t size);                // 64-byte aligned, contents undefined
void *soma__calloc(size_t count, size_t size); // zeroed; NULL when count*size overflows
void *soma__alloc_zeroed(size_t size);         // 64-byte aligned, zeroed; what is never touched of a large one costs nothing
void *soma__realloc(void *p, size_t size);
char *soma__strdup(const char *s); // NULL in, NULL out
void soma__free(void *p);          // NULL allowed

// The bytes will be read soon: a mapped file's pages are fetched in one go, which costs a third of one fault after the other.
void soma__memory_want(const void *p, size_t size);
// The bytes will all be written and then read again and again: they are put into pages of 2 MiB while the system has such at hand, which
// are read at 34 GB/s where small ones are at 23 (one core, in one stream). Asked after the writing, too, the system changes the rest when
// it has time. Contents are kept. A wish.
void soma__memory_large(void *p, size_t size);
// Test hooks. After `n` more allocations of this process (-1: never) the next one fails, once.
void soma__alloc_fail_after(int64_t n);
uint64_t soma__alloc_count(void); // how many allocations this process has made

// Appends to a growing array kept as (pointer, count, capacity); false when memory is out.
bool soma__grow(void **items, size_t *capacity, size_t needed, size_t item_size);
#define SOMA_PUSH_ROOM(items, count, capacity) soma__grow((void **)&(items), &(capacity), (size_t)(count) + 1, sizeof *(items))

double soma__seconds(void); // monotonic clock, seconds

#endif
