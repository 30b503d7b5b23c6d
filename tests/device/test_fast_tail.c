// SPDX-License-Identifier: Apache-2.0
// What a plan lets follow a product in its step, against the plain kernels one after the other: every kind of product, odd sizes, every
// instruction set. The fast kernels take the whole step, the bits depend on the threads in no way and, of packed weights, not on the other
// rows. What may not be taken along is not.
#include "fast_harness.h"

#include "device/cpu/packed.h"

enum { GATED, GELU, RESIDUAL, SCALED, TWICE, AFFINE, LONG, ROUNDED, CHAINS, READ_AGAIN = CHAINS, SEEN, ALL_CHAINS };
enum { PUBLISHED, PACKED, QUANT_I8, QUANT_I8W, QUANT_I4W, CONVOLVED, PRODUCTS };

typedef struct job {
    int chain, product;
    soma_dtype kind;
    int64_t M, N, K;
} job;

static soma_tensor *product_of(const job *j, soma_tensor *x, const char *name, soma_tensor *bias) {
    const soma_init none = {0};
    if (j->product == CONVOLVED) { // the channels of a row of M pixels, three of them at once
        soma_tensor *w = soma_weight(x->graph, name, SOMA_F32, none, SHAPE(j->N, j->K, 1, 3));
        const soma_window window = {.stride = {1, 1}, .pad = {0, 1}};
        soma_tensor *y = soma_conv(soma_reshape(x, 4, (int64_t[]){1, 1, j->M, j->K}), w, bias, window, j->kind);
        return y;
    }
    soma_tensor *w = soma_weight(x->graph, name, SOMA_F32, none, SHAPE(j->N, j->K));
    if (j->product >= QUANT_I8) return soma_quant_matmul(x, w, bias, (soma_quant)(SOMA_QUANT_I8 + j->product - QUANT_I8));
    return soma_matmul(x, w, bias, j->kind);
}

static void build(const job *j, soma_graph *g) {
    soma_tensor *x = soma_input(g, "x", SOMA_F32, SHAPE(j->M, j->K)), *row = soma_input(g, "row", SOMA_F32, SHAPE(j->N));
    soma_tensor *half = soma_cast(soma_input(g, "half", SOMA_F32, SHAPE(j->N)), SOMA_BF16);
    soma_tensor *gate = j->chain == GATED ? soma_apply(product_of(j, x, "gate", NULL), SOMA_UNARY_GELU) : NULL;
    soma_tensor *y = product_of(j, x, "w", j->M % 2 ? row : NULL);
    soma_tensor *skip = soma_input(g, "skip", SOMA_F32, y->n_dims, y->shape);
    soma_tensor *out = NULL;
    switch (j->chain) {
    case GATED: out = soma_mul(gate, y); break;
    case GELU: out = soma_apply(y, SOMA_UNARY_GELU); break;
    case RESIDUAL: out = soma_add(skip, y); break;
    case SCALED: out = soma_add(skip, soma_mul(y, row)); break;
    case TWICE: out = soma_mul(y, y); break;
    case AFFINE: out = soma_add(soma_mul(y, half), row); break;
    case LONG: out = soma_mul(soma_apply(soma_affine(soma_add(soma_mul(y, half), row), 0.1f, 1), SOMA_UNARY_SILU), skip); break;
    case ROUNDED: out = soma_cast(soma_add(skip, y), SOMA_BF16); break;
    case READ_AGAIN: out = soma_add(soma_add(skip, y), soma_sum(y, 1u << (y->n_dims - 1))); break;
    case SEEN:
        soma_output(y, "y");
        out = soma_add(skip, y);
        break;
    }
    soma_output(soma_cast(out, SOMA_F32), "out");
    assert_string_equal(g->error.text, "");
}

static void put(soma_frame *f, const char *name, uint64_t seed, int64_t from, int64_t n) { // values [from, from + n) of a stream
    soma_rng rng = soma__rng(seed);
    float *values = soma__alloc((size_t)(from + n) * 4);
    assert_non_null(values);
    soma__rng_normals(&rng, values, (size_t)(from + n));
    soma__frame_put(f, name, values + from, (size_t)n * 4, NULL); // an input that this chain does not read is not there
    soma__free(values);
}

// The values of the rows that begin with row `from`; *whole: whether the fast kernels took the product with what follows.
static void run(float *out, const job *j, soma_isa isa, int threads, int64_t from, bool *whole) {
    soma_device *d;
    soma_graph *g;
    soma_plan *plan;
    soma_frame *f;
    soma_error err = {0};
    soma_layout layout = {0};
    void *memory;
    assert_int_equal(soma__device_open(&d, "cpu", &(soma_device_opts){.threads = threads, .isa = cpu_isa_name(isa)}, &err), SOMA_OK);
    assert_int_equal(soma_graph_new(&g, &err), SOMA_OK);
    build(j, g);
    assert_int_equal(soma__layout_add(&layout, g, SOMA_ROLE_WEIGHT, &err), SOMA_OK);
    if (j->product != PUBLISHED)
        assert_int_equal(soma__choose_forms(d, &layout, (const soma_graph *const *)&g, 1, SOMA_ROLE_WEIGHT, &err), SOMA_OK);
    layout.size = 0;
    for (size_t i = 0; i < layout.n_slots; i++) {
        layout.slots[i].place = (int64_t)layout.size;
        layout.size += (layout.slots[i].size + 63) & ~(size_t)63;
    }
    assert_int_equal(d->kind->alloc(d, &memory, layout.size, &err), SOMA_OK);
    for (size_t i = 0; i < layout.n_slots; i++) {
        const soma_slot *slot = &layout.slots[i];
        const size_t n = (size_t)soma__slot_count(slot);
        float *values = soma__alloc(n * 4);
        assert_non_null(values);
        soma_rng rng = soma__rng(100 + i);
        soma__rng_normals(&rng, values, n);
        if (slot->form)
            d->kind->pack(d, slot, (char *)memory + slot->place, values, SOMA_F32);
        else
            memcpy((char *)memory + slot->place, values, n * 4);
        soma__free(values);
    }
    if (soma__plan_new(&plan, g, &layout, NULL, d, &err)) fail_msg("%s", err.text);
    *whole = false;
    for (size_t i = 0; i < plan->n_steps; i++)
        if (soma__step_follows(&plan->steps[i])) {
            const soma_op op = plan->steps[i].nodes[0]->op;
            cpu_chooser *choose = op == SOMA_OP_QUANT_MATMUL ? cpu_fast_quant_matmul
                                  : op != SOMA_OP_MATMUL     ? cpu_fast_conv
                                  : layout.slots[0].form     ? cpu_fast_packed
                                                             : cpu_fast_matmul;
            *whole = choose(&plan->steps[i], isa).run != NULL;
        }
    assert_int_equal(soma__frame_new(&f, plan, memory, NULL, NULL, &err), SOMA_OK);
    put(f, "x", 1, from * j->K, j->M * j->K);
    put(f, "skip", 2, from * j->N, j->M * j->N);
    put(f, "row", 3, 0, j->N);
    put(f, "half", 4, 0, j->N);
    soma__frame_run(f);
    const soma_tensor *t = soma__plan_find(plan, "out");
    assert_int_equal(soma__frame_get(f, "out", out, (size_t)soma__numel(t) * 4, &err), SOMA_OK);
    soma__frame_free(f);
    soma__plan_free(plan);
    d->kind->free(d, memory);
    soma__layout_free(&layout);
    soma_graph_free(g);
    soma__device_close(d);
}

static void check(const job *j, bool follows) {
    const int64_t n = j->M * j->N;
    // narrow blocks leave what reads other rows to a pass of its own
    const bool taken = follows && (j->product == PUBLISHED || j->M == 1 || j->chain == GELU || j->chain == TWICE || j->chain == AFFINE);
    float *want = soma__calloc((size_t)(3 * n), 4), *got = want + n, *alone = got + n;
    assert_non_null(want);
    bool whole;
    run(want, j, SOMA_ISA_PLAIN, 1, 0, &whole);
    assert_false(whole);
    for (soma_isa isa = SOMA_ISA_PLAIN + 1; isa <= cpu_best_isa(); isa++) {
        for (int threads = 1; threads <= HARNESS_THREADS; threads++) {
            run(threads == 1 ? got : alone, j, isa, threads, 0, &whole);
            assert_int_equal(whole, taken);
            if (threads > 1) assert_memory_equal(got, alone, (size_t)n * 4);
        }
        const float tolerance = (j->chain == ROUNDED ? 8e-3f : 1e-4f) * (j->chain == TWICE ? 20 : 1);
        for (int64_t i = 0; i < n; i++)
            if (!(fabsf(got[i] - want[i]) <= tolerance * (1 + fabsf(want[i]))))
                fail_msg("isa %s, chain %d after product %d, %dx%dx%d [%d]: %g, wanted %g", cpu_isa_name(isa), j->chain, j->product,
                         (int)j->M, (int)j->N, (int)j->K, (int)i, (double)got[i], (double)want[i]);
        const bool rows_are_own = j->product != PUBLISHED && j->product != CONVOLVED;
        const job one = {j->chain, j->product, j->kind, 1, j->N, j->K};
        for (int64_t r = 0; rows_are_own && j->M % 2 && r < j->M; r += 50) { // an odd number of rows has the bias, as one has
            run(alone, &one, isa, 1, r, &whole);
            assert_memory_equal(alone, got + r * j->N, (size_t)j->N * 4);
        }
    }
    soma__free(want);
}

static const int64_t sizes[][3] = {{1, 70, 33}, {3, 5, 40}, {51, 130, 65}, {97, 64, 34}, {6, 300, 16}, {200, 17, 70}};

static void every_product(void **state) {
    for (int product = 0; product < PRODUCTS; product++)
        for (int chain = 0; chain < CHAINS; chain++)
            for (size_t i = 0; i < SOMA_COUNT(sizes); i++) {
                const soma_dtype kind = (product + chain + (int)i) % 2 ? SOMA_F32 : SOMA_BF16;
                if (sizes[i][0] * sizes[i][1] * sizes[i][2] > HARNESS_TERMS / 8) continue;
                check(&(job){chain, product, kind, sizes[i][0], sizes[i][1], sizes[i][2]}, true);
            }
}

static void what_does_not_follow(void **state) {
    const int chains[] = {READ_AGAIN, SEEN};
    for (size_t i = 0; i < SOMA_COUNT(chains); i++)
        for (int product = 0; product <= QUANT_I8; product++) check(&(job){chains[i], product, SOMA_F32, 13, 70, 33}, false);
}

// Contractions in pieces (which are summed in the result's place), in parts, and results that are written past the caches.
static void long_ones(void **state) {
#if defined(SOMA_EMULATED)
    skip();
#else
    check(&(job){SCALED, PACKED, SOMA_BF16, 70, 65, 2500}, true);
    check(&(job){AFFINE, PACKED, SOMA_BF16, 70, 65, 2500}, true);
    check(&(job){SCALED, PUBLISHED, SOMA_F32, 70, 65, 2500}, true);
    check(&(job){RESIDUAL, PACKED, SOMA_F32, 2048, 2064, 3}, true);
    check(&(job){RESIDUAL, QUANT_I8, SOMA_F32, 2048, 2064, 3}, true);
    check(&(job){RESIDUAL, PUBLISHED, SOMA_F32, 2048, 2064, 3}, true);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_product), cmocka_unit_test(what_does_not_follow),
                                       cmocka_unit_test(long_ones)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
