// SPDX-License-Identifier: Apache-2.0
// The thread pool: every item exactly once, for any number of threads and items, awake or asleep, and results that do not tell how many
// threads.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/pool.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { MAX_ITEMS = 5000 };

typedef struct {
    atomic_int count[MAX_ITEMS];
    atomic_int bad_thread;
    int n_threads;
    double out[MAX_ITEMS];
} work;

static void touch(void *ctx, int64_t item, int thread) {
    work *w = ctx;
    atomic_fetch_add(&w->count[item], 1);
    if (thread < 0 || thread >= w->n_threads) atomic_store(&w->bad_thread, 1);
    double sum = 0;
    for (int i = 1; i < 20; i++) sum += 1.0 / (double)(item + i);
    w->out[item] = sum;
}

static soma_pool *pool_of(int n_threads) {
    soma_pool *pool;
    soma_error err = {0};
    if (soma__pool_new(&pool, n_threads, &err)) fail_msg("%s", err.text);
    return pool;
}

static void every_item_once(void **state) {
    static work w;
    static double reference[MAX_ITEMS];
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 64, 1000, MAX_ITEMS, 5, 2, 1, 0};
    for (int threads = 1; threads <= 4; threads++) {
        soma_pool *pool = pool_of(threads);
        assert_int_equal(soma__pool_threads(pool), threads);
        for (size_t s = 0; s < SOMA_COUNT(sizes); s++) {
            memset(&w, 0, sizeof w);
            w.n_threads = threads;
            soma__pool_run(pool, sizes[s], touch, &w);
            for (int i = 0; i < MAX_ITEMS; i++) assert_int_equal(atomic_load(&w.count[i]), i < sizes[s]);
            assert_int_equal(atomic_load(&w.bad_thread), 0);
            if (sizes[s] != MAX_ITEMS) continue;
            if (threads == 1) memcpy(reference, w.out, sizeof reference);
            assert_memory_equal(reference, w.out, sizeof reference);
        }
        soma__pool_free(pool);
    }
}

static void many_short_rounds(void **state) {
    static work w;
    memset(&w, 0, sizeof w);
    w.n_threads = 3;
    soma_pool *pool = pool_of(3);
    enum { ROUNDS = 2000 };
    for (int i = 0; i < ROUNDS; i++) soma__pool_run(pool, 4, touch, &w);
    for (int i = 0; i < 4; i++) assert_int_equal(atomic_load(&w.count[i]), ROUNDS);
    soma__pool_free(pool);
}

static void sleepers_wake(void **state) {
    static work w;
    memset(&w, 0, sizeof w);
    w.n_threads = 4;
    soma_pool *pool = pool_of(4);
    for (int i = 0; i < 10; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); // 20 ms: far beyond the spinning
        soma__pool_run(pool, 100, touch, &w);
    }
    for (int i = 0; i < 100; i++) assert_int_equal(atomic_load(&w.count[i]), 10);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    soma__pool_free(pool); // while they sleep
}

// Between calls the machine is given back: a pool that waits takes next to nothing of the processors.
static void waiting_costs_nothing(void **state) {
    static work w;
    w.n_threads = 4;
    soma_pool *pool = pool_of(4);
    soma__pool_run(pool, 100, touch, &w);
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL); // the spinning ends
    const clock_t before = clock();
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    const double seconds = (double)(clock() - before) / CLOCKS_PER_SEC; // of all threads
    soma__pool_free(pool);
    assert_true(seconds < 0.02);
}

typedef struct {
    atomic_int processors; // that a worker may run on; 0: none has said so
} placed;

static void tell_place(void *ctx, int64_t item, int thread) {
    placed *p = ctx;
    cpu_set_t set;
    if (thread && !sched_getaffinity(0, sizeof set, &set)) atomic_store(&p->processors, CPU_COUNT(&set));
    for (int i = 0; i < 2000 && !atomic_load(&p->processors); i++) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

// A pool of as many threads as processors keeps each worker on one; a pool of any other size leaves them to the system.
static void workers_are_pinned(void **state) {
    soma_pool *all = pool_of(0), *other = pool_of(soma__pool_threads(all) + 1);
    placed in_all = {0}, in_other = {0};
    soma__pool_run(other, 100, tell_place, &in_other);
    assert_int_equal(atomic_load(&in_other.processors), soma__pool_threads(all));
    if (soma__pool_threads(all) > 1) {
        soma__pool_run(all, 100, tell_place, &in_all);
        assert_int_equal(atomic_load(&in_all.processors), 1);
    }
    soma__pool_free(all);
    soma__pool_free(other);
}

typedef struct {
    soma_pool *inner[4];
    atomic_int total;
} nest;

static void count_one(void *ctx, int64_t item, int thread) { atomic_fetch_add(&((nest *)ctx)->total, 1); }
static void run_inner(void *ctx, int64_t item, int thread) {
    nest *n = ctx;
    soma__pool_run(n->inner[thread], item, count_one, n);
}

// One pool must not be entered twice, but an item may drive another pool: environments step in parallel, each with its own threads.
static void pools_nest(void **state) {
    nest n = {0};
    for (int i = 0; i < 4; i++) n.inner[i] = pool_of(1 + i % 2);
    soma_pool *outer = pool_of(4);
    soma__pool_run(outer, 50, run_inner, &n);
    assert_int_equal(atomic_load(&n.total), 50 * 49 / 2);
    soma__pool_free(outer);
    for (int i = 0; i < 4; i++) soma__pool_free(n.inner[i]);
}

static void refusals(void **state) {
    soma_pool *pool;
    soma_error err = {0};
    assert_int_equal(soma__pool_new(&pool, -1, &err), SOMA_BAD_INPUT);
    assert_int_equal(soma__pool_new(&pool, 100000, &err), SOMA_BAD_INPUT);
    assert_null(pool);
    for (int n = 0; n < 3; n++) { // the pool, its list of threads, the first thread's argument
        soma__alloc_fail_after(n);
        assert_int_equal(soma__pool_new(&pool, 3, &err), SOMA_NO_MEMORY);
        assert_null(pool);
        soma__alloc_fail_after(-1);
    }
    soma__pool_free(NULL);
    pool = pool_of(0);
    assert_true(soma__pool_threads(pool) >= 1);
    uint64_t before = soma__alloc_count();
    static work w;
    w.n_threads = soma__pool_threads(pool);
    soma__pool_run(pool, 100, touch, &w);
    assert_int_equal(soma__alloc_count(), before); // running allocates nothing
    soma__pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_item_once),
                                       cmocka_unit_test(many_short_rounds),
                                       cmocka_unit_test(sleepers_wake),
                                       cmocka_unit_test(waiting_costs_nothing),
                                       cmocka_unit_test(workers_are_pinned),
                                       cmocka_unit_test(pools_nest),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
