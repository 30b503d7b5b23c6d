// SPDX-License-Identifier: Apache-2.0
// Fitting FAST: every merge and every piece of ../shared/golden/fast, any number of threads and ranks, a slow trainer of a few lines, and
// what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "format/safetensors.h"
#include "text/bpe_train.h"
#include "text/fast_fit.h"
#include "text/fast_impl.h"
#include "text/tokenizer_json.h"
#include "thread_ranks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN SOMA_SOURCE_DIR "/../shared/golden/fast/"

static soma_pool *threads(int n) {
    soma_pool *pool;
    assert_int_equal(soma__pool_new(&pool, n, NULL), SOMA_OK);
    return pool;
}

static soma_fast *fit(const double *chunks, int64_t n, int64_t T, int64_t A, double scale, int64_t vocab, int n_threads) {
    soma_fast_fit *f;
    soma_fast *fast;
    soma_error err = {0};
    soma_pool *pool = threads(n_threads);
    assert_int_equal(soma__fast_fit_new(&f, scale, NULL, &err), SOMA_OK);
    if (soma__fast_fit_add(f, chunks, n, T, A, pool, &err)) fail_msg("%s", err.text);
    if (soma__fast_fit_run(&fast, f, vocab, pool, &err)) fail_msg("%s", err.text);
    soma__fast_fit_free(f);
    soma__pool_free(pool);
    return fast;
}

// ---- the published trainer's

static void check_fitted(const char *folder, int64_t vocab, double scale) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_safetensors *st;
    soma_tokenizer_json *wanted, *got;
    soma_fast *released;
    snprintf(path, sizeof path, GOLDEN "%s/train.safetensors", folder);
    if (soma__safetensors_open(&st, path, &err)) fail_msg("%s", err.text);
    const soma_safetensor *chunks = soma__safetensors_find(st, "chunks");
    soma_fast *fast = fit(chunks->data, chunks->shape[0], chunks->shape[1], chunks->shape[2], scale, vocab, 2);
    snprintf(path, sizeof path, GOLDEN "%s", folder);
    if (soma__fast_open(&released, path, &err)) fail_msg("%s", err.text);
    assert_int_equal(soma__fast_min_token(fast), soma__fast_min_token(released));
    assert_int_equal(soma__fast_vocab(fast), soma__fast_vocab(released));
    snprintf(path, sizeof path, GOLDEN "%s/tokenizer.json", folder);
    if (soma__tokenizer_json_load(&wanted, path, &err)) fail_msg("%s", err.text);
    if (soma__tokenizer_json_parse(&got, fast->json, fast->json_len, "ours", &err)) fail_msg("%s", err.text);
    assert_int_equal(got->n_merges, wanted->n_merges);
    for (size_t i = 0; i < got->n_merges; i++) {
        const soma_merge *a = &got->merges[i], *b = &wanted->merges[i];
        if (a->left != b->left || a->right != b->right || a->merged != b->merged) fail_msg("%s: merge %zu differs", folder, i);
    }
    for (int32_t id = 0; id < soma__fast_vocab(fast); id++) {
        size_t len_a, len_b;
        const char *a = soma__tokenizer_json_piece(got, id, &len_a), *b = soma__tokenizer_json_piece(wanted, id, &len_b);
        if (!a || !b || len_a != len_b || memcmp(a, b, len_a)) fail_msg("%s: piece %d differs", folder, id);
    }
    soma__tokenizer_json_free(got);
    soma__tokenizer_json_free(wanted);
    soma__fast_close(released);
    soma__fast_close(fast);
    soma__safetensors_close(st);
}

static void test_golden(void **state) {
    if (!soma__dir_exists(GOLDEN)) skip();
    check_fitted("fit_so101_real_v30_T16_v1024_s10", 1024, 10);
    check_fitted("fit_unitree_g1_inspire_real_v21_T10_v1024_s10", 1024, 10);
    check_fitted("fit_franka_sim_internvla_v20_T10_v1024_s10", 1024, 10);
    check_fitted("fit_franka_sim_internvla_v20_T15_v2048_s20", 2048, 20);
}

// ---- a slow trainer: counts everything anew for each merge

typedef struct {
    int left, right;
} pair;

static int slow_train(uint16_t *s, size_t *n, int n_tokens, int vocab, pair *merges) {
    int n_merges = 0;
    static int64_t counts[128][128];
    for (; n_tokens < vocab; n_tokens++) {
        int best_a = 0, best_b = 0;
        memset(counts, 0, sizeof counts);
        for (size_t i = 0; i + 1 < *n; i++)
            if (s[i] != SOMA_BPE_BREAK && s[i + 1] != SOMA_BPE_BREAK) counts[s[i]][s[i + 1]]++;
        // as the trainer counts a run: "aaa" holds the pair twice
        for (int a = 0; a < n_tokens; a++)
            for (int b = 0; b < n_tokens; b++)
                if (counts[a][b] > counts[best_a][best_b]) best_a = a, best_b = b;
        if (counts[best_a][best_b] < 2) break;
        size_t w = 0;
        for (size_t i = 0; i < *n;) {
            bool hit = i + 1 < *n && s[i] == best_a && s[i + 1] == best_b;
            s[w++] = hit ? (uint16_t)n_tokens : s[i];
            i += hit ? 2 : 1;
        }
        *n = w;
        merges[n_merges++] = (pair){best_a, best_b};
    }
    return n_merges;
}

// Random texts, long runs among them. Where no text is made in two ways (the published trainer is peculiar then), the slow one agrees.
static void test_slow_trainer(void **state) {
    soma_rng rng = soma__rng(21);
    int compared = 0;
    for (int round = 0; round < 60; round++) {
        size_t n = 0, room = 200 + (size_t)soma__rng_below(&rng, 60000);
        uint16_t *a = malloc(room * sizeof *a), *b = malloc(room * sizeof *b);
        int n_symbols = 2 + round % 12;
        while (n + 1 < room) {
            uint16_t symbol = (uint16_t)soma__rng_below(&rng, (uint64_t)n_symbols);
            for (size_t run = soma__rng_below(&rng, 4) ? 1 : soma__rng_below(&rng, 30); run-- > 0 && n + 1 < room;) a[n++] = symbol;
            if (soma__rng_below(&rng, 40) == 0) a[n++] = SOMA_BPE_BREAK;
        }
        a[room - 1] = SOMA_BPE_BREAK;
        memcpy(b, a, room * sizeof *a);
        pair merges[128];
        size_t left = room;
        soma_bpe_corpus corpus = {a, room};
        soma_bpe_trained trained;
        soma_error err = {0};
        soma_pool *pool = threads(1 + round % 3);
        if (soma__bpe_train(&trained, &corpus, n_symbols, 100, 2, pool, NULL, &err)) fail_msg("%s", err.text);
        int n_merges = slow_train(b, &left, n_symbols, 100, merges);
        bool once = (size_t)(trained.n_tokens - n_symbols) == trained.n_merges;
        for (size_t i = 0; once && i < trained.n_merges; i++)
            if (i >= (size_t)n_merges || trained.merges[i].left != merges[i].left || trained.merges[i].right != merges[i].right)
                fail_msg("round %d: merge %zu of %d", round, i, n_merges);
        compared += once;
        soma__free(trained.merges);
        soma__pool_free(pool);
        free(a);
        free(b);
    }
    assert_true(compared > 30);
}

// ---- any number of threads, and refusals

static double *smooth_chunks(int n, int T, int A) {
    soma_rng rng = soma__rng(17);
    double *x = malloc((size_t)(n * T * A) * sizeof *x);
    for (int i = 0; i < n; i++)
        for (int a = 0; a < A; a++) {
            double at = 0.5 * soma__rng_normal(&rng), speed = 0.05 * soma__rng_normal(&rng);
            for (int t = 0; t < T; t++, at += speed) x[(i * T + t) * A + a] = at + 0.02 * soma__rng_normal(&rng);
        }
    return x;
}

static void test_threads(void **state) {
    double *x = smooth_chunks(3000, 12, 5);
    soma_fast *one = fit(x, 3000, 12, 5, 20, 700, 1);
    assert_int_equal(soma__fast_vocab(one), 700);
    for (int n = 2; n <= 4; n++) {
        soma_fast *many = fit(x, 3000, 12, 5, 20, 700, n);
        assert_int_equal(many->json_len, one->json_len);
        assert_memory_equal(many->json, one->json, one->json_len);
        soma__fast_close(many);
    }
    soma__fast_close(one);
    free(x);
}

// ---- any number of ranks

typedef struct team {
    const double *chunks; // [n, T, A]
    int64_t n, T, A, vocab;
    soma_pool *pools[MAX_RANKS];
    soma_fast *fast[MAX_RANKS];
    soma_status status[MAX_RANKS];
    soma_error err[MAX_RANKS];
} team;

// The first rank of several has no chunks, the others have shares of different size; all say whether they have added them, as callers do.
static void fit_share(soma_ranks *ranks, void *ctx) {
    team *t = ctx;
    int r = ranks->rank, last = ranks->count - 1;
    soma_fast_fit *f = NULL;
    soma_error *err = &t->err[r];
    int64_t from = last ? t->n * r * (r - 1) / (last * (last + 1)) : 0, to = last ? t->n * r * (r + 1) / (last * (last + 1)) : t->n;
    soma_status status = soma__fast_fit_new(&f, 20, ranks, err);
    if (status == SOMA_OK && to > from)
        status = soma__fast_fit_add(f, t->chunks + from * t->T * t->A, to - from, t->T, t->A, t->pools[r], err);
    status = soma__ranks_agree(ranks, status, err);
    if (status == SOMA_OK) status = soma__fast_fit_run(&t->fast[r], f, t->vocab, t->pools[r], err);
    t->status[r] = status;
    soma__fast_fit_free(f);
}

static void close_all(team *t) {
    for (int r = 0; r < MAX_RANKS; r++) {
        soma__fast_close(t->fast[r]);
        t->fast[r] = NULL;
    }
}

static void test_ranks(void **state) {
    team t = {.chunks = smooth_chunks(3000, 12, 5), .n = 3000, .T = 12, .A = 5, .vocab = 700};
    soma_fast *one = fit(t.chunks, 3000, 12, 5, 20, 700, 1);
    for (int r = 0; r < MAX_RANKS; r++) t.pools[r] = threads(1 + r % 2);
    for (int count = 1; count <= 5; count++) {
        run_ranks(count, fit_share, &t);
        for (int r = 0; r < count; r++) {
            if (t.status[r]) fail_msg("rank %d of %d: %s", r, count, t.err[r].text);
            assert_int_equal(t.fast[r]->json_len, one->json_len);
            assert_memory_equal(t.fast[r]->json, one->json, one->json_len);
            assert_int_equal(soma__fast_min_token(t.fast[r]), soma__fast_min_token(one));
        }
        close_all(&t);
    }
    t.vocab = 3; // refused on all, in the words of one
    run_ranks(3, fit_share, &t);
    for (int r = 0; r < 3; r++)
        if (t.status[r] != SOMA_BAD_INPUT || strncmp(t.err[r].text, "the quantised", 13)) fail_msg("rank %d: %s", r, t.err[r].text);
    for (int r = 0; r < MAX_RANKS; r++) soma__pool_free(t.pools[r]);
    soma__fast_close(one);
    free((void *)t.chunks);
}

// Whichever rank is out of memory, all end, and with the same answer.
static void test_ranks_no_memory(void **state) {
    team t = {.chunks = smooth_chunks(20, 4, 2), .n = 20, .T = 4, .A = 2, .vocab = 200};
    int failed = 0;
    for (int r = 0; r < 3; r++) t.pools[r] = threads(1);
    for (int n = 0; n < 500; n += 3) {
        soma__alloc_fail_after(n);
        run_ranks(3, fit_share, &t);
        soma__alloc_fail_after(-1);
        for (int r = 0; r < 3; r++) {
            assert_int_equal(t.status[r], t.status[0]);
            assert_true((t.status[r] == SOMA_OK) == (t.fast[r] != NULL));
            if (t.status[r] && (t.status[r] != SOMA_NO_MEMORY || strncmp(t.err[r].text, "rank ", 5))) fail_msg("%s", t.err[r].text);
        }
        failed += t.status[0] != SOMA_OK;
        close_all(&t);
    }
    assert_in_range(failed, 30, 166);
    for (int r = 0; r < 3; r++) soma__pool_free(t.pools[r]);
    free((void *)t.chunks);
}

// Short words of any class: many groups of chunks end with a word of one symbol, which is left out, beside the next group's first.
static void test_threads_short_words(void **state) {
    enum { CHUNKS = 256 * 60 };
    soma_rng rng = soma__rng(4);
    double *x = malloc(CHUNKS * 2 * sizeof *x);
    for (int i = 0; i < CHUNKS * 2; i++) x[i] = soma__rng_uniform(&rng) - 0.5;
    soma_fast *one = fit(x, CHUNKS, 1, 2, 120, 300, 1);
    for (int round = 0; round < 5; round++) {
        soma_fast *many = fit(x, CHUNKS, 1, 2, 120, 300, 4);
        assert_int_equal(many->json_len, one->json_len);
        assert_memory_equal(many->json, one->json, one->json_len);
        soma__fast_close(many);
    }
    soma__fast_close(one);
    free(x);
}

static void expect(soma_status status, const soma_error *err, const char *says) {
    if (status == SOMA_OK || !strstr(err->text, says)) fail_msg("status %d, \"%s\" lacks \"%s\"", (int)status, err->text, says);
}

static void test_refused(void **state) {
    soma_fast_fit *f;
    soma_fast *fast;
    soma_error err = {0};
    soma_pool *pool = threads(1);
    double *x = smooth_chunks(10, 4, 2);
    expect(soma__fast_fit_new(&f, 0, NULL, &err), &err, "scale is 0");
    assert_int_equal(soma__fast_fit_new(&f, 10, NULL, &err), SOMA_OK);
    expect(soma__fast_fit_run(&fast, f, 100, pool, &err), &err, "no chunks");
    expect(soma__fast_fit_add(f, x, 10, 0, 2, pool, &err), &err, "0 steps");
    x[5 * 8] = NAN;
    expect(soma__fast_fit_add(f, x, 10, 4, 2, pool, &err), &err, "chunk 5 holds");
    x[5 * 8] = 1e6;
    expect(soma__fast_fit_add(f, x, 10, 4, 2, pool, &err), &err, "not normalised");
    x[5 * 8] = 100;
    assert_int_equal(soma__fast_fit_add(f, x, 10, 4, 2, pool, &err), SOMA_OK);
    assert_int_equal(soma__fast_fit_size(f).chunks, 10);
    expect(soma__fast_fit_run(&fast, f, 1, pool, &err), &err, "a vocabulary of 1;");
    expect(soma__fast_fit_run(&fast, f, 100, pool, &err), &err, "more than a vocabulary of 100");
    soma__fast_fit_free(f);
    free(x);
    soma__pool_free(pool);
}

static void test_no_memory(void **state) {
    double *x = smooth_chunks(20, 4, 2);
    soma_pool *pool = threads(1);
    int failed = 0;
    for (int n = 0; n < 200; n++) {
        soma_fast_fit *f = NULL;
        soma_fast *fast = NULL;
        soma_error err = {0};
        soma__alloc_fail_after(n);
        soma_status status = soma__fast_fit_new(&f, 10, NULL, &err);
        if (status == SOMA_OK) status = soma__fast_fit_add(f, x, 20, 4, 2, pool, &err);
        if (status == SOMA_OK) status = soma__fast_fit_run(&fast, f, 200, pool, &err);
        soma__alloc_fail_after(-1);
        if (status != SOMA_OK && status != SOMA_NO_MEMORY) fail_msg("%s", err.text);
        assert_true((status == SOMA_OK) == (fast != NULL));
        failed += status != SOMA_OK;
        soma__fast_close(fast);
        soma__fast_fit_free(f);
    }
    assert_in_range(failed, 30, 199);
    soma__pool_free(pool);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),  cmocka_unit_test(test_slow_trainer),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_threads_short_words),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_ranks),   cmocka_unit_test(test_ranks_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
