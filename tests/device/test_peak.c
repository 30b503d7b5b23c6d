// SPDX-License-Identifier: Apache-2.0
// The yardstick: only what the instruction set has is offered, each kind does what it says, and more than an instruction set's own never
// counts.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device/cpu/peak.h"

#include <string.h>

static void kinds_belong_to_their_instruction_set(void **state) {
    for (int k = 0; k < CPU_MULTIPLIES; k++) assert_false(cpu_multiply_here((cpu_multiply)k, SOMA_ISA_PLAIN));
#if defined(__aarch64__)
    assert_false(cpu_multiply_here(CPU_BYTES_NEON, SOMA_ISA_NEON));
    assert_false(cpu_multiply_here(CPU_DOT_NEON, SOMA_ISA_NEONDOT));
#else
    assert_false(cpu_multiply_here(CPU_FMA_AVX512, SOMA_ISA_AVX2));
    assert_false(cpu_multiply_here(CPU_VNNI_AVX512, SOMA_ISA_AVX2));
    assert_false(cpu_multiply_here(CPU_DOT_BF16, SOMA_ISA_AVX512));
    assert_false(cpu_multiply_here(CPU_TILE_BF16, SOMA_ISA_AVX512BF16));
    assert_false(cpu_multiply_here(CPU_TILE_INT8, SOMA_ISA_AVX2));
#endif
}

static void every_kind_here_runs(void **state) {
    for (int k = 0; k < CPU_MULTIPLIES; k++)
        if (cpu_multiply_here((cpu_multiply)k, cpu_best_isa())) assert_true(cpu_multiply_loop((cpu_multiply)k, 64) > 0);
}

static void every_byte_is_read(void **state) {
    enum { SIZE = 64 << 10 };
    char *memory = soma__alloc(SIZE);
    for (int isa = SOMA_ISA_PLAIN; isa <= (int)cpu_best_isa(); isa++)
        for (int four = 0; four < 2; four++) {
            memset(memory, 0, SIZE);
            assert_true(cpu_read_loop(memory, SIZE, four, (soma_isa)isa) == 0);
            for (size_t at = 0; at < SIZE; at += 64 * 61) { // the first word of a line, anywhere
                memory[at] = 1;
                assert_true(cpu_read_loop(memory, SIZE, four, (soma_isa)isa) != 0);
                memory[at] = 0;
            }
        }
    soma__free(memory);
}

static void nothing_without_a_kernel(void **state) {
    soma_pool *pool;
    assert_int_equal(soma__pool_new(&pool, 1, NULL), SOMA_OK);
    assert_true(cpu_peak_flops(SOMA_ISA_PLAIN, CPU_OF_F32, pool) == 0);
    for (size_t size = 1000; size < 2000000; size *= 40) { // also sets smaller than a page or a piece
        assert_true(cpu_peak_read(size, false, pool) > 0);
        assert_true(cpu_peak_read(size, true, pool) > 0);
    }
    soma__pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_belong_to_their_instruction_set),
        cmocka_unit_test(every_kind_here_runs),
        cmocka_unit_test(every_byte_is_read),
        cmocka_unit_test(nothing_without_a_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
