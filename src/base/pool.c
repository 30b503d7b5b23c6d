// SPDX-License-Identifier: Apache-2.0
// Workers take items from one atomic cursor, and the caller takes them, too. A loop is over when its items are done: a worker that the
// system did not let run meanwhile is not waited for (waiting for all made two threads on a busy two-core machine 8 times slower than one).
// Between loops workers spin for a fraction of a millisecond (a graph runs hundreds of short loops), then sleep on a condition variable, so
// that an idle policy gives the machine back; a loop takes the lock only to wake those that sleep. A pool of as many threads as processors
// keeps each worker on a processor of its own. The caller's thread is not ours to place: where the system puts it on a worker's processor,
// the worker changes to the one that is free, or the two would take turns on one while the other idles.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SPIN_ROUNDS = 5000, ITEM_BITS = 26 }; // pause instructions, 15 to 45 ns each
#define ITEM_MASK (((uint64_t)1 << ITEM_BITS) - 1)

// The cursor holds loop number | items | next item in one word, so that who takes an item also learns whose it is and whether it exists.
// fn and ctx belong to the loop as long as one of its items is not done.
struct soma_pool {
    int n_threads;
    pthread_t *threads; // n_threads - 1 of them were started
    int *cpus;          // [n_threads]: the caller's place and the workers'; -1: anywhere
    pthread_mutex_t lock;
    pthread_cond_t wake;
    soma_pool_fn *fn;
    void *ctx;
    uint64_t loop;
    _Alignas(64) _Atomic uint64_t cursor;
    _Alignas(64) _Atomic int64_t done; // items of this loop
    _Atomic int sleepers;              // workers that sleep or are about to
    _Atomic bool closing;
};

typedef struct {
    soma_pool *pool;
    int index;
} worker_arg;

static void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void take_items(soma_pool *p, int thread) {
    for (;;) {
        uint64_t c = atomic_fetch_add_explicit(&p->cursor, 1, memory_order_acq_rel);
        if ((c & ITEM_MASK) >= (c >> ITEM_BITS & ITEM_MASK)) return;
        p->fn(p->ctx, (int64_t)(c & ITEM_MASK), thread);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
    }
}

static uint64_t current_loop(soma_pool *p) { return atomic_load_explicit(&p->cursor, memory_order_acquire) >> 2 * ITEM_BITS; }

// The number of a loop other than `seen`; false when the pool closes.
static bool await_loop(soma_pool *p, uint64_t *seen) {
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if (atomic_load_explicit(&p->closing, memory_order_acquire)) return false;
        if (current_loop(p) != *seen) break;
        pause_cpu();
    }
    // who sleeps says so first and then looks for a loop; who begins a loop writes it first and then looks for sleepers: one sees the other
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->cursor) >> 2 * ITEM_BITS == *seen && !atomic_load(&p->closing)) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
    *seen = current_loop(p);
    return !atomic_load(&p->closing);
}

static void *worker(void *arg) {
    worker_arg a = *(worker_arg *)arg;
    soma__free(arg);
    for (uint64_t seen = 0; await_loop(a.pool, &seen);) take_items(a.pool, a.index);
    return NULL;
}

static int processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

// The processor behind `cpu` among those that the process may use; -1: not known.
static int next_processor(int cpu) {
    cpu_set_t all;
    if (cpu < 0 || sched_getaffinity(0, sizeof all, &all) || !CPU_ISSET(cpu, &all)) return -1;
    do cpu = (cpu + 1) % CPU_SETSIZE;
    while (!CPU_ISSET(cpu, &all));
    return cpu;
}

static void place(soma_pool *p, int thread, int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    p->cpus[thread] = cpu;
    pthread_setaffinity_np(p->threads[thread - 1], sizeof one, &one); // a wish
}

static void make_room(soma_pool *p) {
    const int cpu = p->cpus[0] < 0 ? -1 : sched_getcpu();
    if (cpu == p->cpus[0] || cpu < 0) return;
    for (int i = 1; i < p->n_threads; i++)
        if (p->cpus[i] == cpu) {
            place(p, i, p->cpus[0]);
            p->cpus[0] = cpu;
            return;
        }
}

soma_status soma__pool_new(soma_pool **out, int n_threads, soma_error *err) {
    *out = NULL;
    if (n_threads < 0 || n_threads > 1024)
        return soma__fail(err, SOMA_BAD_INPUT, "%d threads: 1 to 1024 are possible, 0 means as many as processors", n_threads);
    if (n_threads == 0) n_threads = processors();
    soma_pool *p = soma__alloc(sizeof *p);
    if (!p) return soma__no_memory(err, "the thread pool");
    *p = (soma_pool){.n_threads = 1,
                     .threads = soma__calloc((size_t)n_threads, sizeof(pthread_t)),
                     .cpus = soma__calloc((size_t)n_threads, sizeof *p->cpus)};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    const bool pinned = n_threads > 1 && n_threads == processors();
    if (p->cpus)
        for (int i = 0; i < n_threads; i++) p->cpus[i] = !pinned ? -1 : i ? next_processor(p->cpus[i - 1]) : sched_getcpu();
    for (int i = 1; p->threads && p->cpus && i < n_threads; i++) {
        worker_arg *arg = soma__alloc(sizeof *arg);
        if (arg) *arg = (worker_arg){p, i};
        if (!arg || pthread_create(&p->threads[i - 1], NULL, worker, arg)) {
            soma__free(arg);
            soma__pool_free(p);
            return soma__fail(err, SOMA_NO_MEMORY, "thread %d of %d could not be started", i + 1, n_threads);
        }
        p->n_threads = i + 1;
        if (p->cpus[i] >= 0) place(p, i, p->cpus[i]);
    }
    if (!p->threads || !p->cpus) {
        soma__pool_free(p);
        return soma__no_memory(err, "the thread pool");
    }
    *out = p;
    return SOMA_OK;
}

void soma__pool_free(soma_pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->closing, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->n_threads; i++) pthread_join(p->threads[i - 1], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    soma__free(p->threads);
    soma__free(p->cpus);
    soma__free(p);
}

int soma__pool_threads(const soma_pool *pool) { return pool->n_threads; }

void soma__pool_run(soma_pool *p, int64_t n_items, soma_pool_fn *fn, void *ctx) {
    if (p->n_threads == 1 || n_items <= 1) {
        for (int64_t i = 0; i < n_items; i++) fn(ctx, i, 0);
        return;
    }
    SOMA_CHECK((uint64_t)n_items <= ITEM_MASK / 2, "a parallel loop has at most 2^25 items");
    make_room(p);
    p->fn = fn;
    p->ctx = ctx;
    p->loop++;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->cursor, p->loop << 2 * ITEM_BITS | (uint64_t)n_items << ITEM_BITS);
    if (atomic_load(&p->sleepers)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    take_items(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->done, memory_order_acquire) < n_items; spins++) {
        if (spins < SPIN_ROUNDS)
            pause_cpu();
        else
            sched_yield(); // a worker holds an item and does not run: let it
    }
}
