// SPDX-License-Identifier: Apache-2.0
// Which instruction set a set of features permits, and which kernels that set takes: a machine that lacks one feature, forged here, never
// gets a kernel that was compiled for it. (That compiled code keeps to its set: tests/compile/masked.sh.)
#include "fast_harness.h"

#include "device/cpu/fast.h"
#include "device/cpu/fast_attention.h"
#include "device/cpu/fast_matmul.h"
#include "device/cpu/fast_quant.h"

#if defined(__aarch64__)
static const struct {
    uint32_t missing;
    soma_isa left;
} masks[] = {{CPU_HAS_NEON, SOMA_ISA_PLAIN}, {CPU_HAS_DOTPROD, SOMA_ISA_NEON}, {CPU_HAS_BF16, SOMA_ISA_NEONDOT}};
#else
static const struct {
    uint32_t missing;
    soma_isa left;
} masks[] = {{CPU_HAS_AVX, SOMA_ISA_PLAIN},           {CPU_HAS_FMA, SOMA_ISA_PLAIN},           {CPU_HAS_AVX2, SOMA_ISA_PLAIN},
             {CPU_KEEPS_YMM, SOMA_ISA_PLAIN},         {CPU_HAS_AVX512F, SOMA_ISA_AVX2},        {CPU_HAS_AVX512DQ, SOMA_ISA_AVX2},
             {CPU_HAS_AVX512BW, SOMA_ISA_AVX2},       {CPU_HAS_AVX512VL, SOMA_ISA_AVX2},       {CPU_KEEPS_ZMM, SOMA_ISA_AVX2},
             {CPU_HAS_AVX512VNNI, SOMA_ISA_AVX512},   {CPU_HAS_AVX512BF16, SOMA_ISA_AVX512},   {CPU_HAS_AMX_TILE, SOMA_ISA_AVX512BF16},
             {CPU_HAS_AMX_BF16, SOMA_ISA_AVX512BF16}, {CPU_HAS_AMX_INT8, SOMA_ISA_AVX512BF16}, {CPU_KEEPS_TILES, SOMA_ISA_AVX512BF16}};
#endif

// A feature is missing alone, or with all that the later sets add; nothing else decides.
static void one_feature_masked(void **state) {
    uint32_t known = 0;
    assert_int_equal(cpu_isa_of(CPU_HAS_ALL), SOMA_ISA_COUNT - 1);
    assert_int_equal(cpu_isa_of(0), SOMA_ISA_PLAIN);
    for (size_t i = 0; i < SOMA_COUNT(masks); i++) {
        known |= masks[i].missing;
        assert_int_equal(cpu_isa_of(CPU_HAS_ALL & ~masks[i].missing), masks[i].left);
        uint32_t later = 0;
        for (int isa = masks[i].left + 2; isa < SOMA_ISA_COUNT; isa++) later |= cpu_isa_needs((soma_isa)isa);
        assert_int_equal(cpu_isa_of(CPU_HAS_ALL & ~masks[i].missing & ~later), masks[i].left);
        assert_int_equal(cpu_isa_of(masks[i].missing), masks[i].left == SOMA_ISA_PLAIN && masks[i].missing == cpu_isa_needs(1));
    }
    assert_int_equal(known, CPU_HAS_ALL); // every feature has its line
}

// Every set is what its needs and those of the sets before it permit, and no more.
static void every_set_is_reached(void **state) {
    uint32_t features = 0;
    for (int isa = 0; isa < SOMA_ISA_COUNT; isa++) {
        features |= cpu_isa_needs((soma_isa)isa);
        assert_int_equal(cpu_isa_of(features), isa);
        soma_isa named;
        const soma_status status = cpu_isa_parse(&named, cpu_isa_name((soma_isa)isa), NULL);
        assert_int_equal(status, isa <= (int)cpu_best_isa() ? SOMA_OK : SOMA_UNSUPPORTED);
        if (status == SOMA_OK) assert_int_equal(named, isa);
        assert_true(!cpu_isa_forms((soma_isa)isa) == (isa == SOMA_ISA_PLAIN));
    }
    assert_int_equal(features, CPU_HAS_ALL);
    soma_isa none;
    assert_int_equal(cpu_isa_parse(&none, "mmx", NULL), SOMA_BAD_INPUT);
}

static cpu_kernel *norm_of(soma_isa isa) { return CPU_KERNEL_PICK(isa, cpu_rms_norm); }

// The kernels of each set, by name: whatever is chosen was compiled for this set or one before it.
static void kernels_of_each_set(void **state) {
    assert_null(cpu_gemm_of(SOMA_ISA_PLAIN, SOMA_BF16));
    assert_null(cpu_quant_of(SOMA_ISA_PLAIN));
    assert_null(norm_of(SOMA_ISA_PLAIN));
#if defined(__aarch64__)
    assert_true(norm_of(SOMA_ISA_NEON) == cpu_rms_norm_neon);
    assert_true(cpu_gemm_of(SOMA_ISA_NEON, SOMA_BF16) == &cpu_gemm_neon && cpu_gemm_of(SOMA_ISA_NEONDOT, SOMA_BF16) == &cpu_gemm_neon);
    assert_true(cpu_gemm_of(SOMA_ISA_NEONBF16, SOMA_BF16) == &cpu_gemm_neonbf16 &&
                cpu_gemm_of(SOMA_ISA_NEONBF16, SOMA_F32) == &cpu_gemm_neon);
    assert_true(cpu_quant_of(SOMA_ISA_NEON) == &cpu_quant_neon && cpu_quant_of(SOMA_ISA_NEONDOT) == &cpu_quant_neondot);
#elif defined(__x86_64__)
    assert_true(norm_of(SOMA_ISA_AVX2) == cpu_rms_norm_avx2);
    assert_true(norm_of(SOMA_ISA_AVX512) == cpu_rms_norm_avx512);
    assert_true(cpu_gemm_of(SOMA_ISA_AVX2, SOMA_BF16) == &cpu_gemm_avx2 && cpu_gemm_of(SOMA_ISA_AVX512, SOMA_BF16) == &cpu_gemm_avx512);
    assert_true(cpu_gemm_of(SOMA_ISA_AVX512BF16, SOMA_BF16) == &cpu_gemm_avx512bf16);
    assert_true(cpu_gemm_of(SOMA_ISA_AMX, SOMA_F32) == &cpu_gemm_avx512);
    assert_true(cpu_quant_of(SOMA_ISA_AVX2) == &cpu_quant_avx2 && cpu_quant_of(SOMA_ISA_AVX512) == &cpu_quant_avx2);
    assert_true(cpu_quant_of(SOMA_ISA_AVX512BF16) == &cpu_quant_avx512bf16 && cpu_quant_of(SOMA_ISA_AMX) == &cpu_quant_avx512bf16);
#endif
}

// A step's kernel is told the device's set, not the machine's best: the same plan on each set takes panels of that set's width.
static void a_device_keeps_to_its_set(void **state) {
    for (soma_isa isa = SOMA_ISA_PLAIN; isa <= cpu_best_isa(); isa++) {
        soma_device *d;
        char wanted[24];
        assert_int_equal(soma__device_open(&d, "cpu", &(soma_device_opts){.threads = 1, .isa = cpu_isa_name(isa)}, NULL), SOMA_OK);
        snprintf(wanted, sizeof wanted, "cpu %s, 1 ", cpu_isa_name(isa));
        assert_true(!strncmp(d->kind->info(d), wanted, strlen(wanted)));
        soma__device_close(d);
    }
}

int main(void) {
    printf("this machine: %s\n", cpu_isa_name(cpu_best_isa()));
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_feature_masked), cmocka_unit_test(every_set_is_reached),
                                       cmocka_unit_test(kernels_of_each_set), cmocka_unit_test(a_device_keeps_to_its_set)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
