// SPDX-License-Identifier: Apache-2.0
// A ladder for out [M, N] = a [M, K] b [N, K]^T, from the double loop to the kernels of device/cpu, each rung with its time and its share
// of the register peak. Not built by default:
//
//     cc -O2 -D_GNU_SOURCE -Iinclude -Isrc lab/matmul.c build/libsoma_device.a build/libsoma_graph.a build/libsoma_base.a \
//        -ljansson -lpthread -lm -o matmul && ./matmul 4480 256 128
//
// AMD EPYC (Zen 4), 1 thread, peak 118 (f32) and 236 (bf16) GFLOP/s; GFLOP/s of each rung, best of 50 in one run at real-time priority on a
// busy machine (4480 x 256 x 128 is training's shape, 528 x 1024 x 2048 the prefix's, 50 x 4096 x 1024 a flow step's, the last decoding's):
//                                       4480x256x128  528x1024x2048  50x4096x1024  1x16384x2048
//     one sum after the other                  3.7           2.5            -            -      a sum waits for the one before it
//     sixteen sums side by side               30.2          31.9          24.8         13.3     vectors; each b is read again for each row
//     tiles of 6 rows, AVX2 f32              111.3          92.6          74.0         11.5     12 vectors of sums in registers
//     tiles of 6 rows, AVX-512 f32           111.3         101.8          82.4         11.2     the same peak: 512 bits take two turns
//     tiles of 6 rows, AVX-512 BF16          215.3         193.6         149.6         10.8     two products for each 32 bits
//     b packed once, AVX2 f32                103.9         105.8          95.6         14.8     b is read in order, and not written again
//     b packed once, AVX2, bf16 pairs        101.9         106.6         107.7         26.2     half the bytes; widened by shifts: with a
//     mask
//                                                                                               the sums spill, 71 in place of 104
//     b packed once, AVX-512 f32             110.0         111.8         113.6         14.2
//     b packed once, AVX-512, pairs          106.1         110.6         115.5         36.7
//     b packed once, AVX-512 BF16            215.1         219.7         228.9         37.9     one row reads 38 GB/s (part of b stays
//     cached) b packed once, AMX: not measured, no machine with AMX was at hand
// Few rows of weights that no cache holds (soma bench kernels, 256 MB of them, 2048 x 16384, the last rung, on its way up):
//                                             GB/s: 1 row  4 rows   GFLOP/s: 16 rows  51 rows
//     weights in pages of 4 KiB                      17.5    15.5               159      207      one stream stops at each page's end
//     each line fetched 1 to 8 KiB ahead             -7 %    -15 %                                 the processor is better at it: not kept
//     four panels side by side, 1 row                25.7                                          5 % slower in large pages: not kept
//     a quarter of the page after next fetched       22.4    18.4               159      207
//     weights in pages of 2 MiB                      33.0    32.3               190      209      as fast as they can be read at all (34)
//     whole tiles fetch the chunk that follows       33.0    32.3               217      218      16 rows: chunks of 128 in place of 256
// Training's factors, which no one packs before: all of a packed first and sums kept in a block, as for packed weights, was 10 % slower
// (a comes back from the third level); chunks of 192 and 256 words and blocks of 192 rows were within 1 %.
// With k = 16384 all rungs above lost a third (162 and 147 GFLOP/s for 528 and 816 rows): in pieces of 2048 of k, 213 and 205.
#include "device/cpu/packed.h"
#include "device/cpu/peak.h"

#include <stdio.h>
#include <stdlib.h>

typedef void rung(float *out, const float *a, const float *b, int64_t M, int64_t N, int64_t K);

static void one_sum(float *out, const float *a, const float *b, int64_t M, int64_t N, int64_t K) {
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            float sum = 0;
            for (int64_t k = 0; k < K; k++) sum += a[m * K + k] * b[n * K + k];
            out[m * N + n] = sum;
        }
}

typedef float lanes __attribute__((vector_size(64), aligned(4)));
__attribute__((target_clones("avx512f", "avx2", "default"))) static void sixteen_sums(float *out, const float *a, const float *b, int64_t M,
                                                                                      int64_t N, int64_t K) {
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            lanes sum = {0};
            for (int64_t k = 0; k + 16 <= K; k += 16) sum += *(const lanes *)(a + m * K + k) * *(const lanes *)(b + n * K + k);
            float total = 0;
            for (int i = 0; i < 16; i++) total += sum[i];
            for (int64_t k = K / 16 * 16; k < K; k++) total += a[m * K + k] * b[n * K + k];
            out[m * N + n] = total;
        }
}

typedef struct ladder {
    int64_t M, N, K;
    float *memory;
    soma_pool *pool;
} ladder;

static void tell(const ladder *l, const char *name, double seconds, double peak) {
    const double rate = 2.0 * (double)l->M * (double)l->N * (double)l->K / seconds;
    printf("%-32s %9.3f ms %8.1f GFLOP/s %6.1f %% of peak\n", name, seconds * 1e3, rate / 1e9, 100 * rate / peak);
}

static void climb(const ladder *l, const char *name, rung *run) {
    float *a = l->memory, *b = a + l->M * l->K, *out = b + l->N * l->K;
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        const double from = soma__seconds();
        run(out, a, b, l->M, l->N, l->K);
        best = SOMA_MIN(best, soma__seconds() - from);
    }
    tell(l, name, best, cpu_peak_flops(cpu_best_isa(), CPU_OF_F32, l->pool));
}

// `once`: b is a weight that was packed before.
static bool climb_kernel(const ladder *l, const char *name, soma_isa isa, soma_dtype product, bool once) {
    soma_graph *g;
    if (isa > cpu_best_isa() || soma_graph_new(&g, NULL)) return false;
    soma_tensor *a = soma_input(g, "a", SOMA_F32, 2, (int64_t[]){l->M, l->K}),
                *b = soma_weight(g, "b", SOMA_F32, (soma_init){0}, 2, (int64_t[]){l->N, l->K});
    soma_tensor *out = soma_matmul(a, b, NULL, product);
    a->place = 0, b->place = l->M * l->K * 4, out->place = b->place + l->N * l->K * 4;
    const soma_step step = {&out, 1};
    soma_slot slot = {.dtype = SOMA_F32, .n_dims = 2, .shape = {l->N, l->K}};
    char *packed = NULL;
    if (once) cpu_form_choose(&slot, &(const soma_tensor *){out}, 1, isa);
    if (slot.form && (packed = soma__alloc(slot.size))) {
        cpu_form_pack(&slot, packed, (char *)l->memory + b->place, SOMA_F32, isa, l->pool);
        b->form = slot.form;
        b->place = packed - (char *)l->memory;
    }
    const cpu_choice choice = packed ? cpu_fast_packed(&step, isa) : cpu_fast_matmul(&step, isa);
    cpu_run run = {.pool = l->pool, .thread_size = (choice.thread_size + 63) & ~(size_t)63};
    for (int r = 0; r < SOMA_ROLE_COUNT; r++) run.buffers[r] = (char *)l->memory;
    run.shared = soma__alloc(choice.shared_size + 64);
    run.threads_space = soma__alloc(run.thread_size * (size_t)soma__pool_threads(l->pool) + 64);
    double best = 1e9;
    for (int i = 0; i < 50 && choice.run && run.shared && run.threads_space; i++) {
        const double from = soma__seconds();
        choice.run(&run, &step);
        best = SOMA_MIN(best, soma__seconds() - from);
    }
    tell(l, name, best, cpu_peak_flops(isa, product == SOMA_BF16 ? CPU_OF_BF16 : CPU_OF_F32, l->pool));
    soma__free(run.shared);
    soma__free(run.threads_space);
    soma__free(packed);
    soma_graph_free(g);
    return true;
}

int main(int argc, char **argv) {
    ladder l = {argc > 1 ? atoll(argv[1]) : 4480, argc > 2 ? atoll(argv[2]) : 256, argc > 3 ? atoll(argv[3]) : 128};
    const int64_t n = l.M * l.K + l.N * l.K + l.M * l.N;
    l.memory = soma__calloc((size_t)n + 64, sizeof(float));
    if (!l.memory || soma__pool_new(&l.pool, argc > 4 ? atoi(argv[4]) : 1, NULL)) return 1;
    for (int64_t i = 0; i < l.M * l.K + l.N * l.K; i++) l.memory[i] = (float)(i % 17) - 8;
    climb(&l, "one sum after the other", one_sum);
    climb(&l, "sixteen sums side by side", sixteen_sums);
    climb_kernel(&l, "tiles of 6 rows, AVX2 f32", SOMA_ISA_AVX2, SOMA_F32, false);
    climb_kernel(&l, "tiles of 6 rows, AVX-512 f32", SOMA_ISA_AVX512, SOMA_F32, false);
    climb_kernel(&l, "tiles of 6 rows, AVX-512 BF16", SOMA_ISA_AVX512BF16, SOMA_BF16, false);
    climb_kernel(&l, "b packed once, AVX2 f32", SOMA_ISA_AVX2, SOMA_F32, true);
    climb_kernel(&l, "b packed once, AVX2, bf16 pairs", SOMA_ISA_AVX2, SOMA_BF16, true);
    climb_kernel(&l, "b packed once, AVX-512 f32", SOMA_ISA_AVX512, SOMA_F32, true);
    climb_kernel(&l, "b packed once, AVX-512, pairs", SOMA_ISA_AVX512, SOMA_BF16, true);
    climb_kernel(&l, "b packed once, AVX-512 BF16", SOMA_ISA_AVX512BF16, SOMA_BF16, true);
    climb_kernel(&l, "b packed once, AMX", SOMA_ISA_AMX, SOMA_BF16, true);
    soma__free(l.memory);
    soma__pool_free(l.pool);
    return 0;
}
