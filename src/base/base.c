// SPDX-License-Identifier: Apache-2.0
// Errors, log, checks, dtypes, memory with fault injection. Refuses nothing; every other file stands on it.
#include "base/base.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

enum { LARGE_ALLOC = 1 << 20, LARGE_PAGE = 2 << 20 };
// Seconds for a large page: about what its 512 small ones take. It took 0.12 ms where free memory lay in one piece, and 4.6 ms where the
// system had to move things first.
#define LARGE_PATIENCE 1e-3

// ---- errors

const char *soma_status_word(soma_status code) {
    static const char *const words[] = {
#define WORD(code, word) word,
        SOMA_STATUS_LIST(WORD)
#undef WORD
    };
    _Static_assert(SOMA_COUNT(words) == SOMA_STATUS_COUNT, "every status has a word");
    return (unsigned)code < SOMA_STATUS_COUNT ? words[code] : "unknown status";
}

const char *soma_version(void) { return SOMA_VERSION; }

soma_status soma__fail(soma_error *err, soma_status code, const char *format, ...) {
    if (!err) return code;
    // the arguments may point into err->text itself, so the sentence is made beside it
    char text[sizeof err->text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(err->text, text, sizeof text);
    err->code = code;
    return code;
}

soma_status soma__fail_in(soma_error *err, const char *format, ...) {
    if (!err) return SOMA_BAD_INPUT;
    char prefix[400], text[sizeof err->text + 402];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    snprintf(text, sizeof text, "%s: %s", prefix, err->text);
    memcpy(err->text, text, sizeof err->text - 1);
    err->text[sizeof err->text - 1] = 0;
    return err->code;
}

soma_status soma__no_memory(soma_error *err, const char *what) { return soma__fail(err, SOMA_NO_MEMORY, "out of memory for %s", what); }

// ---- contract

static void check_default(const char *file, int line, const char *sentence) {
    fprintf(stderr, "soma: %s:%d: %s\n", file, line, sentence);
    abort();
}

static soma_check_handler *check_handler = check_default;

void soma_check_set_handler(soma_check_handler *handler) { check_handler = handler ? handler : check_default; }

void soma_check_failed(const char *file, int line, const char *sentence) {
    check_handler(file, line, sentence);
    abort(); // a handler that returns would leave the library in a state it promised to exclude
}

// ---- log

static struct {
    soma_log_fn *fn;
    void *user;
} logger;

void soma_log_set(soma_log_fn *fn, void *user) {
    logger.fn = fn;
    logger.user = user;
}

void soma__log(soma_log_level level, const char *format, ...) {
    if (!logger.fn) return;
    char text[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    logger.fn(logger.user, level, text);
}

// ---- dtypes

static const struct {
    size_t size;
    const char *name;
} dtypes[] = {
#define ROW(name, size, word) {size, word},
    SOMA_DTYPE_LIST(ROW)
#undef ROW
};

size_t soma_dtype_size(soma_dtype dtype) {
    SOMA_CHECK((unsigned)dtype < SOMA_DTYPE_COUNT, "a dtype is one of soma_dtype");
    return dtypes[dtype].size;
}

const char *soma_dtype_name(soma_dtype dtype) { return (unsigned)dtype < SOMA_DTYPE_COUNT ? dtypes[dtype].name : "unknown dtype"; }

// ---- memory

static _Atomic int64_t alloc_left = -1; // -1: never fail
static _Atomic uint64_t alloc_total;

static bool alloc_refused(void) {
    atomic_fetch_add_explicit(&alloc_total, 1, memory_order_relaxed);
    if (atomic_load_explicit(&alloc_left, memory_order_relaxed) < 0) return false;
    return atomic_fetch_sub(&alloc_left, 1) == 0;
}

void soma__alloc_fail_after(int64_t n) { atomic_store(&alloc_left, n); }
uint64_t soma__alloc_count(void) { return atomic_load(&alloc_total); }

void *soma__alloc(size_t size) {
    if (alloc_refused() || size > PTRDIFF_MAX - 64) return NULL;
    return aligned_alloc(64, (SOMA_MAX(size, (size_t)1) + 63) & ~(size_t)63);
}

void *soma__calloc(size_t count, size_t size) {
    if (alloc_refused() || (size && count > PTRDIFF_MAX / size)) return NULL;
    return calloc(SOMA_MAX(count, (size_t)1), SOMA_MAX(size, (size_t)1));
}

static char *first_page(const void *p, uintptr_t page) { return (char *)(((uintptr_t)p + page - 1) & ~(page - 1)); }

// A page that is given back is there again, zeroed, when it is touched.
static bool zero_pages(char *p, size_t size) {
#if defined(__linux__)
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    char *from = first_page(p, page), *to = first_page(p + size + 1, page) - page;
    if (size < LARGE_ALLOC || madvise(from, (size_t)(to - from), MADV_DONTNEED)) return false;
    memset(p, 0, (size_t)(from - p));
    memset(to, 0, (size_t)(p + size - to));
    return true;
#else
    return false;
#endif
}

void *soma__alloc_zeroed(size_t size) {
    void *p = soma__alloc(size);
    if (p && !zero_pages(p, size)) memset(p, 0, size);
    return p;
}

void soma__memory_want(const void *p, size_t size) {
#if defined(__linux__) && defined(MADV_POPULATE_READ)
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    char *from = first_page((const char *)p + 1, page) - page;
    madvise(from, (size_t)((const char *)p + size - from), MADV_POPULATE_READ); // a wish
#endif
}

void soma__memory_large(void *p, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE) && defined(MADV_POPULATE_WRITE)
    char *from = first_page(p, LARGE_PAGE), *to = (char *)p + size;
    const double started = soma__seconds();
    for (int n = 0; to - from >= LARGE_PAGE; from += LARGE_PAGE, n++)
        if (soma__seconds() - started > LARGE_PATIENCE * (n + 20) || madvise(from, LARGE_PAGE, MADV_HUGEPAGE) ||
            madvise(from, LARGE_PAGE, MADV_POPULATE_WRITE))
            return;
#endif
}

void *soma__realloc(void *p, size_t size) {
    if (alloc_refused() || size > PTRDIFF_MAX) return NULL;
    return realloc(p, SOMA_MAX(size, (size_t)1));
}

char *soma__strdup(const char *s) {
    if (!s) return NULL;
    size_t size = strlen(s) + 1;
    char *copy = soma__alloc(size);
    if (copy) memcpy(copy, s, size);
    return copy;
}

void soma__free(void *p) { free(p); }

bool soma__grow(void **items, size_t *capacity, size_t needed, size_t item_size) {
    if (needed <= *capacity) return true;
    size_t room = SOMA_MAX(needed, *capacity < 8 ? (size_t)8 : *capacity * 2);
    if (room > PTRDIFF_MAX / item_size) return false;
    void *grown = soma__realloc(*items, room * item_size);
    if (!grown) return false;
    *items = grown;
    *capacity = room;
    return true;
}

double soma__seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
