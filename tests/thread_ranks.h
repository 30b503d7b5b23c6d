// SPDX-License-Identifier: Apache-2.0
// Ranks that are threads of one test: what runs over MPI runs here, too, under the sanitizers and with allocations that fail. Ranks that
// make different calls, which over MPI would hang, end the program with a sentence.
#ifndef SOMA_TESTS_THREAD_RANKS_H
#define SOMA_TESTS_THREAD_RANKS_H

#include "base/ranks.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANKS = 8 };

typedef struct rank_group {
    int count;
    pthread_barrier_t barrier;
    struct {
        char call;
        void *data;
        size_t n;
    } calls[MAX_RANKS];
} rank_group;

typedef struct thread_rank {
    soma_ranks ranks; // first, so that the calls find the rest
    rank_group *group;
    void (*run)(soma_ranks *ranks, void *ctx);
    void *ctx;
    pthread_t thread;
} thread_rank;

// Everybody is here with the same call: the first rank does it for all.
static void meet(soma_ranks *ranks, char call, void *data, size_t n, int owner) {
    rank_group *g = ((thread_rank *)ranks)->group;
    g->calls[ranks->rank].call = call;
    g->calls[ranks->rank].data = data;
    g->calls[ranks->rank].n = n;
    pthread_barrier_wait(&g->barrier);
    for (int r = 0; r < g->count && ranks->rank == 0; r++) {
        if (g->calls[r].call != call || g->calls[r].n != n) {
            fprintf(stderr, "rank %d calls %c of %zu, rank 0 calls %c of %zu\n", r, g->calls[r].call, g->calls[r].n, call, n);
            abort();
        }
        if (call == 'b' && r != owner) memcpy(g->calls[r].data, g->calls[owner].data, n);
    }
    for (size_t i = 0; i < n && call != 'b' && ranks->rank == 0; i++) {
        int64_t all = ((int64_t *)data)[i];
        for (int r = 1; r < g->count; r++) {
            int64_t value = ((int64_t *)g->calls[r].data)[i];
            all = call == '+' ? all + value : SOMA_MAX(all, value);
        }
        for (int r = 0; r < g->count; r++) ((int64_t *)g->calls[r].data)[i] = all;
    }
    pthread_barrier_wait(&g->barrier);
}

static void thread_sum(soma_ranks *ranks, int64_t *values, size_t n) { meet(ranks, '+', values, n, 0); }
static void thread_max(soma_ranks *ranks, int64_t *values, size_t n) { meet(ranks, '>', values, n, 0); }
static void thread_share(soma_ranks *ranks, void *data, size_t size, int owner) { meet(ranks, 'b', data, size, owner); }

static void *start_rank(void *arg) {
    thread_rank *r = arg;
    r->run(&r->ranks, r->ctx);
    return NULL;
}

// Returns when every rank has returned. Checks belong behind it: cmocka fails on its own thread alone.
static void run_ranks(int count, void (*run)(soma_ranks *ranks, void *ctx), void *ctx) {
    rank_group group = {.count = count};
    thread_rank ranks[MAX_RANKS];
    pthread_barrier_init(&group.barrier, NULL, (unsigned)count);
    for (int r = 0; r < count; r++) {
        ranks[r] = (thread_rank){{r, count, thread_sum, thread_max, thread_share}, &group, run, ctx, 0};
        if (pthread_create(&ranks[r].thread, NULL, start_rank, &ranks[r])) abort();
    }
    for (int r = 0; r < count; r++) pthread_join(ranks[r].thread, NULL);
    pthread_barrier_destroy(&group.barrier);
}

#endif
