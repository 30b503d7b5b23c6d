// SPDX-License-Identifier: Apache-2.0
// Runs one fast kernel on tensors that a graph's builders made, without planner or device: every tensor that owns memory gets a place in
// one block, the workspace is exactly as large as the chooser asked for and fenced with a pattern that must survive.
#ifndef TESTS_DEVICE_FAST_HARNESS_H
#define TESTS_DEVICE_FAST_HARNESS_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/pool.h"
#include "base/rng.h"
#include "device/cpu/cpu.h"

#include <math.h>
#include <string.h>

typedef struct harness {
    soma_graph *g;
    char *memory;
    cpu_run run;
} harness;

#define SHAPE(...) \
    ((int[]){(int)SOMA_COUNT(((int64_t[]){__VA_ARGS__}))})[0], (const int64_t[]) { __VA_ARGS__ }

static inline harness harness_open(void) {
    harness h = {0};
    assert_int_equal(soma_graph_new(&h.g, NULL), SOMA_OK);
    return h;
}

static inline soma_tensor *harness_input(harness *h, soma_dtype dtype, int n_dims, const int64_t *shape) {
    static int serial;
    char name[32];
    snprintf(name, sizeof name, "x%d", serial++);
    return soma_input(h->g, name, dtype, n_dims, shape);
}

// An emulated processor (tests/compile/neon.sh) is a hundred times slower: kernels run with one thread there, and a product of more than so
// many terms is left out. tests/ops has threads and larger ones.
#if defined(SOMA_EMULATED)
enum { HARNESS_THREADS = 1, HARNESS_TERMS = 1 << 17 };
#else
enum { HARNESS_THREADS = 3, HARNESS_TERMS = 1 << 30 };
#endif

// After the last builder: gives every owner its place, 64 bytes of fence behind each.
static inline void harness_place(harness *h) {
    assert_string_equal(h->g->error.text, "");
    size_t size = 64;
    for (size_t i = 0; i < h->g->n_tensors; i++) {
        soma_tensor *t = h->g->tensors[i];
        if (t->base) continue;
        t->place = (int64_t)size;
        size += (((size_t)soma__numel(t) * soma_dtype_size(t->dtype) + 63) & ~(size_t)63) + 64;
    }
    h->memory = soma__alloc(size);
    assert_non_null(h->memory);
    memset(h->memory, 0x7e, size);
    for (int r = 0; r < SOMA_ROLE_COUNT; r++) h->run.buffers[r] = h->memory;
}

static inline void *harness_data(harness *h, const soma_tensor *t) { return cpu_at(&h->run, t); }

static inline void harness_fill(harness *h, const soma_tensor *t, uint64_t seed, float scale) { // normals; owners only
    soma_rng rng = soma__rng(seed);
    const int64_t n = soma__numel(t);
    for (int64_t i = 0; i < n; i++) {
        const float x = (float)soma__rng_normal(&rng) * scale;
        if (t->dtype == SOMA_F32)
            ((float *)harness_data(h, t))[i] = x;
        else if (t->dtype == SOMA_BF16)
            ((uint16_t *)harness_data(h, t))[i] = cpu_to_bf16(x);
        else if (t->dtype == SOMA_I32)
            ((int32_t *)harness_data(h, t))[i] = (int32_t)soma__rng_below(&rng, 1000) - 500;
        else
            ((uint8_t *)harness_data(h, t))[i] = (uint8_t)soma__rng_below(&rng, 256);
    }
}

// Element number `i` (row-major over the shape) of a tensor with any strides.
static inline double harness_get(harness *h, const soma_tensor *t, int64_t i) {
    int64_t at = 0;
    for (int d = t->n_dims - 1; d >= 0; i /= t->shape[d--]) at += i % t->shape[d] * t->stride[d];
    const void *p = harness_data(h, t);
    switch (t->dtype) {
    case SOMA_F32: return (double)((const float *)p)[at];
    case SOMA_BF16: return (double)cpu_from_bf16(((const uint16_t *)p)[at]);
    case SOMA_I32: return ((const int32_t *)p)[at];
    default: return ((const uint8_t *)p)[at];
    }
}

// Runs the chooser's kernel; false when it declines. The last node's output and nothing else changes.
static inline bool harness_run_step(harness *h, cpu_chooser *choose, const soma_step *step, soma_isa isa, int threads) {
    const cpu_choice choice = choose(step, isa);
    if (!choice.run) return false;
    soma_pool *pool = NULL;
    assert_int_equal(soma__pool_new(&pool, threads, NULL), SOMA_OK);
    const size_t thread_size = (choice.thread_size + 63) & ~(size_t)63, total = thread_size * (size_t)threads;
    unsigned char *shared = soma__alloc(choice.shared_size + 64), *own = soma__alloc(total + 64);
    assert_non_null(shared);
    assert_non_null(own);
    memset(shared, 0xab, choice.shared_size + 64);
    memset(own, 0xab, total + 64);
    h->run.isa = isa;
    h->run.pool = pool;
    h->run.shared = (char *)shared;
    h->run.threads_space = (char *)own;
    h->run.thread_size = thread_size;
    choice.run(&h->run, step);
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(shared[choice.shared_size + i], 0xab);
        assert_int_equal(own[total + i], 0xab);
    }
    const soma_tensor *out = step->nodes[step->n_nodes - 1];
    const unsigned char *behind = (unsigned char *)harness_data(h, out) + (size_t)soma__numel(out) * soma_dtype_size(out->dtype);
    for (size_t i = 0; i < 64 && !out->base; i++) assert_int_equal(behind[i], 0x7e);
    soma__free(shared);
    soma__free(own);
    soma__pool_free(pool);
    return true;
}
static inline bool harness_run(harness *h, cpu_chooser *choose, soma_tensor *node, soma_isa isa, int threads) {
    return harness_run_step(h, choose, &(soma_step){&node, 1}, isa, threads);
}

static inline void harness_close(harness *h) {
    soma__free(h->memory);
    soma_graph_free(h->g);
}

// Runs with 1, 2 and 3 threads (HARNESS_THREADS) on every instruction set this machine has and hands each result to `check`; the bits must
// not depend on the threads. Returns how many instruction sets took the step.
typedef void harness_check(harness *h, const soma_tensor *out, soma_isa isa, void *user);
static inline int harness_all(harness *h, cpu_chooser *choose, const soma_step *step, harness_check *check, void *user) {
    const soma_tensor *out = step->nodes[step->n_nodes - 1];
    const size_t size = (size_t)soma__numel(out) * soma_dtype_size(out->dtype);
    char *first = soma__alloc(size + 1);
    int taken = 0;
    for (soma_isa isa = SOMA_ISA_PLAIN + 1; isa <= cpu_best_isa(); isa++) {
        bool took = false;
        for (int threads = 1; threads <= HARNESS_THREADS; threads++) {
            memset(harness_data(h, out), 0x7e, size);
            if (!harness_run_step(h, choose, step, isa, threads)) break;
            if (threads == 1)
                memcpy(first, harness_data(h, out), size), took = true;
            else
                assert_memory_equal(first, harness_data(h, out), size);
        }
        if (took) check(h, out, isa, user), taken++;
    }
    soma__free(first);
    return taken;
}

// Runs a node's plain kernel and holds the fast one against it: |difference| <= tolerance * (1 + |value|).
typedef struct harness_wanted {
    const float *values;
    float tolerance;
} harness_wanted;
static inline void harness_compare(harness *h, const soma_tensor *out, soma_isa isa, void *user) {
    const harness_wanted *w = user;
    for (int64_t i = 0; i < soma__numel(out); i++) {
        const float got = (float)harness_get(h, out, i), want = w->values[i];
        if (!(fabsf(got - want) <= w->tolerance * (1 + fabsf(want))))
            fail_msg("isa %s, [%d]: %g, wanted %g", cpu_isa_name(isa), (int)i, (double)got, (double)want);
    }
}
static inline void harness_against_plain(harness *h, soma_tensor *node, cpu_chooser *choose, float tolerance) {
    float *values = soma__alloc((size_t)soma__numel(node) * 4);
    const soma_step step = {&node, 1};
    cpu_plain[node->op](&h->run, &step);
    for (int64_t i = 0; i < soma__numel(node); i++) values[i] = (float)harness_get(h, node, i);
    harness_wanted w = {values, tolerance};
    assert_int_equal(harness_all(h, choose, &step, harness_compare, &w), cpu_best_isa());
    soma__free(values);
}

#endif
