// SPDX-License-Identifier: Apache-2.0
// Products of packed weights against a double loop: odd sizes, gapped and transposed first factors, all forms and instruction sets. The
// bits depend neither on the threads (harness_all) nor on the other rows. And which weights are packed at all.
#include "fast_harness.h"

#include "device/cpu/packed.h"

typedef struct job {
    soma_dtype stored, kept, product; // of the file, of the slot
    int64_t M, N, K;
    int a_view; // 0 as is, 1 a transposed view, 2 rows with a gap
    bool with_bias;
} job;

static soma_slot slot_of(const soma_tensor *w) {
    soma_slot slot = {.name = "w", .dtype = w->dtype, .n_dims = w->n_dims, .size = (size_t)soma__numel(w) * soma_dtype_size(w->dtype)};
    memcpy(slot.shape, w->shape, sizeof slot.shape);
    return slot;
}

static float stored(const void *data, soma_dtype dtype, int64_t i) {
    return dtype == SOMA_F32 ? ((const float *)data)[i] : cpu_from_bf16(((const uint16_t *)data)[i]);
}
static double rounded(double x, bool round) { return round ? (double)cpu_from_bf16(cpu_to_bf16((float)x)) : x; }

typedef struct bench {
    harness h;
    soma_tensor *a, *w, *bias, *out;
    void *data, *packed;
} bench;

static bench bench_of(const job *j, soma_isa isa) {
    bench b = {.h = harness_open()};
    b.a = j->a_view == 1   ? soma_transpose(harness_input(&b.h, SOMA_F32, SHAPE(j->K, j->M)))
          : j->a_view == 2 ? soma_slice(harness_input(&b.h, SOMA_F32, SHAPE(j->M, j->K + 6)), 1, 3, j->K)
                           : harness_input(&b.h, SOMA_F32, SHAPE(j->M, j->K));
    b.w = soma_weight(b.h.g, "w", j->kept, (soma_init){0}, SHAPE(j->N, j->K));
    b.bias = j->with_bias ? harness_input(&b.h, SOMA_F32, SHAPE(j->N)) : NULL;
    b.out = soma_matmul(b.a, b.w, b.bias, j->product);
    soma_slot slot = slot_of(b.w);
    cpu_form_choose(&slot, &(const soma_tensor *){b.out}, 1, isa);
    assert_int_not_equal(slot.form, CPU_FORM_PUBLISHED);
    harness_place(&b.h);
    harness_fill(&b.h, soma__owner(b.a), 1, 1);
    if (b.bias) harness_fill(&b.h, b.bias, 3, 1);
    b.w->form = slot.form;
    b.w->place = 0;
    b.data = soma__alloc((size_t)(j->N * j->K) * 4);
    b.packed = soma__alloc(slot.size);
    assert_true(b.data && b.packed);
    soma_rng rng = soma__rng(2);
    for (int64_t i = 0; i < j->N * j->K; i++) {
        const float x = (float)soma__rng_normal(&rng);
        if (j->stored == SOMA_F32)
            ((float *)b.data)[i] = x;
        else
            ((uint16_t *)b.data)[i] = cpu_to_bf16(x);
    }
    soma_pool *pool;
    assert_int_equal(soma__pool_new(&pool, 2, NULL), SOMA_OK);
    memset(b.packed, 0x7e, slot.size);
    cpu_form_pack(&slot, b.packed, b.data, j->stored, isa, pool);
    soma__pool_free(pool);
    b.h.run.buffers[SOMA_ROLE_WEIGHT] = b.packed;
    return b;
}

static void bench_close(bench *b) {
    soma__free(b->data);
    soma__free(b->packed);
    harness_close(&b->h);
}

static void check_values(bench *b, const job *j, soma_isa isa) {
    const bool round_a = j->product == SOMA_BF16, round_b = round_a || j->kept == SOMA_BF16;
    const int64_t n = j->M * j->N, stride = n > 20000 ? 97 : 1;
    for (int64_t i = 0; i < n; i += stride) {
        double sum = b->bias ? harness_get(&b->h, b->bias, i % j->N) : 0, size = fabs(sum);
        for (int64_t k = 0; k < j->K; k++) {
            const double x = rounded(harness_get(&b->h, b->a, i / j->N * j->K + k), round_a);
            const double y = rounded((double)stored(b->data, j->stored, i % j->N * j->K + k), round_b);
            sum += x * y, size += fabs(x * y);
        }
        const double got = harness_get(&b->h, b->out, i);
        if (!(fabs(got - sum) <= size * 4e-7 + 1e-30))
            fail_msg("isa %s %dx%dx%d [%d]: %g, wanted %g", cpu_isa_name(isa), (int)j->M, (int)j->N, (int)j->K, (int)i, got, sum);
    }
}

static void check(const job *j) {
    for (soma_isa isa = SOMA_ISA_PLAIN + 1; isa <= cpu_best_isa(); isa++) {
        const size_t size = (size_t)(j->M * j->N) * 4;
        float *first = soma__alloc(size);
        assert_non_null(first);
        bench b = bench_of(j, isa);
        for (int threads = 1; threads <= HARNESS_THREADS; threads++) {
            memset(harness_data(&b.h, b.out), 0x7e, size);
            assert_true(harness_run(&b.h, cpu_fast_packed, b.out, isa, threads));
            if (threads == 1)
                memcpy(first, harness_data(&b.h, b.out), size);
            else
                assert_memory_equal(first, harness_data(&b.h, b.out), size);
        }
        check_values(&b, j, isa);
        bench_close(&b);
        soma__free(first);
    }
}

static const soma_dtype kinds[][3] = {{SOMA_F32, SOMA_F32, SOMA_F32},   {SOMA_BF16, SOMA_F32, SOMA_F32},
                                      {SOMA_F32, SOMA_F32, SOMA_BF16},  {SOMA_BF16, SOMA_BF16, SOMA_F32},
                                      {SOMA_F32, SOMA_BF16, SOMA_BF16}, {SOMA_BF16, SOMA_BF16, SOMA_BF16}};

static void sizes(void **state) {
    const int64_t shapes[][3] = {{1, 1, 1},      {1, 70, 33},    {2, 5, 1000},   {3, 64, 64},   {5, 17, 7},   {6, 64, 256}, {7, 65, 31},
                                 {51, 130, 513}, {97, 130, 129}, {200, 16, 300}, {33, 300, 65}, {395, 3, 77}, {12, 100, 2}};
    for (size_t i = 0; i < SOMA_COUNT(shapes); i++) {
        if (shapes[i][0] * shapes[i][1] * shapes[i][2] > HARNESS_TERMS) continue;
        for (size_t kind = 0; kind < SOMA_COUNT(kinds); kind++)
            for (int view = 0; view < 3; view++) {
                const job j = {kinds[kind][0], kinds[kind][1], kinds[kind][2], shapes[i][0], shapes[i][1], shapes[i][2], view, i & 1};
                check(&j);
            }
    }
}

// Rows are cut into groups, contractions into chunks: every element is one sum, so that a row of a batch is the row alone.
static void a_row_does_not_know_the_others(void **state) {
    for (size_t kind = 0; kind < SOMA_COUNT(kinds); kind++)
        for (soma_isa isa = SOMA_ISA_PLAIN + 1; isa <= cpu_best_isa(); isa++) {
            const job many = {kinds[kind][0], kinds[kind][1], kinds[kind][2], 203, 67, 700, 0, true};
            job one = many;
            one.M = 1;
            bench b = bench_of(&many, isa), c = bench_of(&one, isa);
            assert_true(harness_run(&b.h, cpu_fast_packed, b.out, isa, 2));
            for (int64_t r = 0; r < many.M; r += 11) {
                memcpy(harness_data(&c.h, c.a), (float *)harness_data(&b.h, b.a) + r * many.K, (size_t)many.K * 4);
                assert_true(harness_run(&c.h, cpu_fast_packed, c.out, isa, 1));
                assert_memory_equal(harness_data(&c.h, c.out), (float *)harness_data(&b.h, b.out) + r * many.N, (size_t)many.N * 4);
            }
            bench_close(&b);
            bench_close(&c);
        }
}

// A packed table gives the rows that the published one has; an id outside of it a row of zeros.
static void tables(void **state) {
    const int32_t ids[] = {0, 129, -1, 63, 64, 130, 5, 15, 16, 1000000};
    const soma_dtype dtypes[] = {SOMA_F32, SOMA_BF16};
    for (size_t d = 0; d < SOMA_COUNT(dtypes); d++)
        for (soma_isa isa = SOMA_ISA_PLAIN + 1; isa <= cpu_best_isa(); isa++) {
            const job j = {dtypes[d], dtypes[d], dtypes[d], 1, 130, 37, 0, false};
            bench b = bench_of(&j, isa);
            harness h = harness_open();
            soma_tensor *w = soma_weight(h.g, "w", dtypes[d], (soma_init){0}, SHAPE(130, 37)),
                        *which = harness_input(&h, SOMA_I32, SHAPE(10));
            soma_tensor *rows = soma_embed(w, which), *product = soma_matmul(harness_input(&h, SOMA_F32, SHAPE(2, 37)), w, NULL, dtypes[d]);
            soma_slot slot = slot_of(w);
            cpu_form_choose(&slot, &(const soma_tensor *){rows}, 1, isa); // a table alone stays
            assert_int_equal(slot.form, CPU_FORM_PUBLISHED);
            cpu_form_choose(&slot, (const soma_tensor *[]){rows, product}, 2, isa);
            assert_int_equal(slot.form, b.w->form);
            harness_place(&h);
            w->place = 0;
            w->form = slot.form;
            h.run.buffers[SOMA_ROLE_WEIGHT] = b.packed;
            memcpy(harness_data(&h, which), ids, sizeof ids);
            assert_true(harness_run(&h, cpu_packed_embed, rows, isa, 2));
            for (int64_t i = 0; i < 370; i++) {
                const int32_t id = ids[i / 37];
                const float want = id >= 0 && id < 130 ? stored(b.data, dtypes[d], id * 37 + i % 37) : 0;
                assert_float_equal((float)harness_get(&h, rows, i), want, 0);
            }
            harness_close(&h);
            bench_close(&b);
        }
}

// A weight that anything else reads stays as published.
static void what_is_packed(void **state) {
    const soma_isa isa = cpu_best_isa();
    if (isa == SOMA_ISA_PLAIN) skip();
    harness h = harness_open();
    soma_tensor *x = harness_input(&h, SOMA_F32, SHAPE(3, 8));
    soma_tensor *w = soma_weight(h.g, "w", SOMA_BF16, (soma_init){0}, SHAPE(8, 2, 4)), *flat = soma_reshape(w, 2, (int64_t[]){8, 8});
    const soma_tensor *product = soma_matmul(x, flat, NULL, SOMA_BF16), *other = soma_matmul(x, flat, NULL, SOMA_F32);
    const soma_tensor *turned = soma_matmul(x, soma_transpose(flat), NULL, SOMA_BF16), *first = soma_matmul(flat, x, NULL, SOMA_BF16);
    const soma_tensor *part = soma_matmul(x, soma_slice(flat, 0, 0, 4), NULL, SOMA_BF16);
    assert_string_equal(h.g->error.text, "");
    const soma_tensor *uses[][2] = {{product, other}, {product, turned}, {product, first}, {product, part}};
    for (size_t i = 0; i < SOMA_COUNT(uses); i++) {
        soma_slot slot = slot_of(w);
        cpu_form_choose(&slot, uses[i], 2, isa);
        assert_int_equal(slot.form, CPU_FORM_PUBLISHED);
        cpu_form_choose(&slot, uses[i], 0, isa);
        assert_int_equal(slot.form, CPU_FORM_PUBLISHED);
        cpu_form_choose(&slot, uses[i], 1, isa);
        assert_int_equal(slot.form, CPU_FORM_PAIRS);
    }
    soma_graph_free(h.g);
}

// A plan over packed weights whose graph was not among those that chose the forms: what reads a weight otherwise is refused by a sentence,
// what reads it as they do runs.
static soma_tensor *use_of(int use, soma_tensor *x, soma_tensor *w, soma_tensor *other) {
    const soma_dtype product = w->dtype;
    switch (use) {
    case 0: return soma_matmul(x, w, NULL, product);
    case 1: return soma_matmul(x, soma_transpose(w), NULL, product);
    case 2: return soma_matmul(x, soma_slice(w, 0, 4, 4), NULL, product);
    case 3: return soma_matmul(x, soma_reshape(w, 2, (int64_t[]){4, 16}), NULL, product);
    case 4: return soma_matmul(w, x, NULL, product);
    case 5: return soma_matmul(w, w, NULL, product);
    case 6: return soma_matmul(w, other, NULL, product);
    case 7: return soma_matmul(x, w, NULL, w->dtype == SOMA_F32 ? SOMA_BF16 : SOMA_F32);
    case 8: return soma_quant_matmul(x, w, NULL, SOMA_QUANT_I8);
    case 9: return soma_add(x, w);
    case 10: return soma_embed(w, soma_input(w->graph, "ids", SOMA_I32, SHAPE(3)));
    default: return soma_embed(soma_slice(w, 0, 4, 4), soma_input(w->graph, "ids", SOMA_I32, SHAPE(3)));
    }
}
static void other_uses(void **state) {
    if (cpu_best_isa() == SOMA_ISA_PLAIN) skip();
    soma_device *device;
    assert_int_equal(soma__device_open(&device, "cpu", &(soma_device_opts){.threads = 1}, NULL), SOMA_OK);
    for (int use = 0; use < 24; use++) {
        const soma_dtype dtype = use < 12 ? SOMA_BF16 : SOMA_F32;
        soma_graph *graphs[2];
        soma_layout layout = {0};
        for (int i = 0; i < 2; i++) {
            assert_int_equal(soma_graph_new(&graphs[i], NULL), SOMA_OK);
            const int64_t width = i && use % 12 == 3 ? 16 : 8;
            soma_tensor *x = soma_input(graphs[i], "x", SOMA_F32, SHAPE(8, width));
            soma_tensor *w = soma_weight(graphs[i], "w", dtype, (soma_init){0}, SHAPE(8, 8));
            soma_tensor *other = soma_weight(graphs[i], "other", dtype, (soma_init){0}, SHAPE(8, 8));
            soma_output(use_of(i ? use % 12 : 0, x, w, other), "out");
            assert_string_equal(graphs[i]->error.text, "");
            assert_int_equal(soma__layout_add(&layout, graphs[i], SOMA_ROLE_WEIGHT, NULL), SOMA_OK);
        }
        assert_int_equal(soma__choose_forms(device, &layout, &(const soma_graph *){graphs[0]}, 1, SOMA_ROLE_WEIGHT, NULL), SOMA_OK);
        assert_int_not_equal(soma__layout_find(&layout, "w")->form, CPU_FORM_PUBLISHED);
        soma_plan *plan;
        soma_error err = {0};
        const bool reads = use % 12 == 0 || use % 12 == 10 || use == 7; // a weight of bf16 is a factor of an f32 product, too
        if ((soma__plan_new(&plan, graphs[1], &layout, NULL, device, &err) == SOMA_OK) != reads) fail_msg("use %d: %s", use, err.text);
        if (!reads)
            assert_string_equal(err.text, "w was packed for products that only read it, and a graph has another use for it");
        else
            soma__plan_free(plan);
        for (int i = 0; i < 2; i++) soma_graph_free(graphs[i]);
        soma__layout_free(&layout);
    }
    soma__device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(a_row_does_not_know_the_others), cmocka_unit_test(tables),
                                       cmocka_unit_test(what_is_packed), cmocka_unit_test(other_uses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
