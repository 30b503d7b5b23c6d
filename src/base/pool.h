// SPDX-License-Identifier: Apache-2.0
// A thread pool for short parallel loops. Work is cut into items by shape alone, never by thread count, so results do not depend on it.
#ifndef SOMA_BASE_POOL_H
#define SOMA_BASE_POOL_H

#include "base/base.h"

typedef struct soma_pool soma_pool;
// `item` in [0, n_items); `thread` in [0, n_threads) tells which scratch memory is ours.
typedef void soma_pool_fn(void *ctx, int64_t item, int thread);

// n_threads 0: as many as the processors this process may use. The caller's thread is one of them.
soma_status soma__pool_new(soma_pool **pool, int n_threads, soma_error *err);
void soma__pool_free(soma_pool *pool);
int soma__pool_threads(const soma_pool *pool);
// Runs fn for every item and returns when all are done. Items are taken in order. One caller at a time; items must not call it again.
void soma__pool_run(soma_pool *pool, int64_t n_items, soma_pool_fn *fn, void *ctx);

#endif
