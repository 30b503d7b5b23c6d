// SPDX-License-Identifier: Apache-2.0
// Workers take items from one atomic counter. Between loops they spin for a few microseconds (a graph runs thousands of short loops), then
// sleep on a condition variable, so that an idle policy gives the machine back.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SPIN_ROUNDS = 20000 }; // about 50 us of pause instructions

struct soma_pool {
    int n_threads;
    pthread_t *threads; // n_threads - 1 of them were started
    pthread_mutex_t lock;
    pthread_cond_t wake;
    soma_pool_fn *fn;
    void *ctx;
    int64_t n_items;
    _Alignas(64) _Atomic int64_t next;
    _Alignas(64) _Atomic uint32_t round; // odd: closing
    _Alignas(64) _Atomic int running;    // workers that have not finished this round
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
    for (int64_t i; (i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->n_items;) p->fn(p->ctx, i, thread);
}

static uint32_t await_round(soma_pool *p, uint32_t seen) {
    uint32_t now;
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        now = atomic_load_explicit(&p->round, memory_order_acquire);
        if (now != seen) return now;
        pause_cpu();
    }
    pthread_mutex_lock(&p->lock);
    while ((now = atomic_load(&p->round)) == seen) pthread_cond_wait(&p->wake, &p->lock);
    pthread_mutex_unlock(&p->lock);
    return now;
}

static void *worker(void *arg) {
    worker_arg a = *(worker_arg *)arg;
    soma__free(arg);
    uint32_t seen = 0;
    while (!((seen = await_round(a.pool, seen)) & 1)) {
        take_items(a.pool, a.index);
        atomic_fetch_sub_explicit(&a.pool->running, 1, memory_order_release);
    }
    return NULL;
}

static void start_round(soma_pool *p, uint32_t step) {
    pthread_mutex_lock(&p->lock); // the lock orders us against a worker that is about to sleep
    atomic_fetch_add_explicit(&p->round, step, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

static int processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

soma_status soma__pool_new(soma_pool **out, int n_threads, soma_error *err) {
    *out = NULL;
    if (n_threads < 0 || n_threads > 1024)
        return soma__fail(err, SOMA_BAD_INPUT, "%d threads: 1 to 1024 are possible, 0 means as many as processors", n_threads);
    if (n_threads == 0) n_threads = processors();
    soma_pool *p = soma__alloc(sizeof *p);
    if (!p) return soma__no_memory(err, "the thread pool");
    *p = (soma_pool){.n_threads = 1, .threads = soma__calloc((size_t)n_threads, sizeof(pthread_t))};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int i = 1; p->threads && i < n_threads; i++) {
        worker_arg *arg = soma__alloc(sizeof *arg);
        if (arg) *arg = (worker_arg){p, i};
        if (!arg || pthread_create(&p->threads[i - 1], NULL, worker, arg)) {
            soma__free(arg);
            soma__pool_free(p);
            return soma__fail(err, SOMA_NO_MEMORY, "thread %d of %d could not be started", i + 1, n_threads);
        }
        p->n_threads = i + 1;
    }
    if (!p->threads) {
        soma__pool_free(p);
        return soma__no_memory(err, "the thread pool");
    }
    *out = p;
    return SOMA_OK;
}

void soma__pool_free(soma_pool *p) {
    if (!p) return;
    start_round(p, 1);
    for (int i = 1; i < p->n_threads; i++) pthread_join(p->threads[i - 1], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    soma__free(p->threads);
    soma__free(p);
}

int soma__pool_threads(const soma_pool *pool) { return pool->n_threads; }

void soma__pool_run(soma_pool *p, int64_t n_items, soma_pool_fn *fn, void *ctx) {
    if (p->n_threads == 1 || n_items <= 1) {
        for (int64_t i = 0; i < n_items; i++) fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->n_items = n_items;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->running, p->n_threads - 1, memory_order_relaxed);
    start_round(p, 2);
    take_items(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->running, memory_order_acquire) > 0; spins++) {
        if (spins < SPIN_ROUNDS) pause_cpu();
        else sched_yield(); // more threads than processors: let the others finish
    }
}
