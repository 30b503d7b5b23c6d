// SPDX-License-Identifier: Apache-2.0
// soma bench machine: what the processor and its memory could do at best, for each number of threads. Everything else that `soma bench`
// tells is a share of these.
#include "bench/bench.h"
#include "device/cpu/peak.h"

#include <stdio.h>
#include <string.h>

static const char *const words[] = {[CPU_OF_F32] = "f32", [CPU_OF_BF16] = "bf16", [CPU_OF_INT8] = "int8"};

cpu_multiplied soma__bench_multiplied(const char *dtype) {
    return !strcmp(dtype, "f32") ? CPU_OF_F32 : !strcmp(dtype, "int8") ? CPU_OF_INT8 : CPU_OF_BF16;
}

// A level of memory and the bytes that stand for it: half of a cache, so that it holds them beside other things.
typedef struct memory_level {
    const char *name;
    size_t size;
    bool own; // of each core
} memory_level;

static bool read_line(const char *path, const char *format, void *out) {
    FILE *file = fopen(path, "r");
    const bool ok = file && fscanf(file, format, out) == 1;
    if (file) fclose(file);
    return ok;
}

// Of the first processor's data cache of this level. (sysconf's third level is the whole package's, also where a core sees a part of it.)
static size_t half(int level, size_t otherwise) {
    for (int i = 0; i < 8; i++) {
        char path[96], type[32] = "";
        long found = 0, kib = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        if (!read_line(path, "%ld", &found) || found != level) continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
        if (!read_line(path, "%31s", type) || type[0] == 'I') continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        if (read_line(path, "%ldK", &kib) && kib > 0) return (size_t)kib * 512;
    }
    return otherwise / 2;
}

static json_t *measure(soma_isa isa, soma_pool *pool) {
    const memory_level levels[] = {{"L1", half(1, 32 << 10), true},
                                   {"L2", half(2, 1 << 20), true},
                                   {"L3", half(3, 16 << 20), false},
                                   {"expert", SOMA_BENCH_EXPERT, false}};
    json_t *multiply = json_array(), *read = json_array();
    for (int k = 0; k < CPU_MULTIPLIES; k++)
        if (cpu_multiply_here((cpu_multiply)k, isa))
            json_array_append_new(multiply, json_pack("{s:s, s:s, s:f}", "of", words[cpu_multiply_of((cpu_multiply)k)], "kind",
                                                      cpu_multiply_name((cpu_multiply)k), "gop_per_second",
                                                      cpu_peak_multiply((cpu_multiply)k, pool) / 1e9));
    for (size_t i = 0; i < SOMA_COUNT(levels); i++)
        json_array_append_new(read, json_pack("{s:s, s:I, s:f}", "level", levels[i].name, "size", (json_int_t)levels[i].size,
                                              "gb_per_second", cpu_peak_read(levels[i].size, levels[i].own, pool) / 1e9));
    return json_pack("{s:i, s:o, s:o}", "threads", soma__pool_threads(pool), "multiply", multiply, "read", read);
}

soma_status soma__bench_peaks(json_t **out, const soma_bench_opts *o, soma_error *err) {
    soma_isa isa;
    soma_pool *pool;
    *out = NULL;
    SOMA_TRY(cpu_isa_parse(&isa, o->isa, err));
    SOMA_TRY(soma__pool_new(&pool, (int)o->threads, err));
    const int most = soma__pool_threads(pool);
    soma__pool_free(pool);
    json_t *list = json_array();
    soma_status status = SOMA_OK;
    for (int n = 1; n <= most && status == SOMA_OK; n++) {
        status = soma__pool_new(&pool, n, err);
        if (status != SOMA_OK) break;
        json_array_append_new(list, measure(isa, pool));
        soma__pool_free(pool);
    }
    if (status == SOMA_OK) {
        *out = json_pack("{s:s, s:o, s:O}", "what", "machine", "machine", soma__bench_machine(cpu_isa_name(isa), most), "peaks", list);
        if (!*out) status = soma__no_memory(err, "the figures");
    }
    json_decref(list);
    return status;
}

// One row per kind or level, one column per number of threads.
static void print_rows(const json_t *peaks, const char *key, const char *first, const char *second, const char *unit, const char *figure) {
    size_t i, n;
    json_t *row, *one;
    const json_t *rows = json_object_get(json_array_get(peaks, 0), key);
    json_array_foreach(rows, i, row) {
        const json_t *name = json_object_get(row, second);
        printf("  %-8s", json_string_value(json_object_get(row, first)));
        if (json_is_string(name))
            printf(" %-14s", json_string_value(name));
        else
            printf(" %9.0f KiB ", json_number_value(name) / 1024);
        json_array_foreach(peaks, n, one)
            printf(" %10.1f", json_number_value(json_object_get(json_array_get(json_object_get(one, key), i), figure)));
        printf("  %s\n", unit);
    }
}

void soma__bench_peaks_print(const json_t *result) {
    const json_t *machine = json_object_get(result, "machine"), *peaks = json_object_get(result, "peaks");
    printf("%s, %s\n  %-23s", json_string_value(json_object_get(machine, "processor")), json_string_value(json_object_get(machine, "isa")),
           "threads");
    for (size_t n = 0; n < json_array_size(peaks); n++) printf(" %10zu", n + 1);
    printf("\n");
    print_rows(peaks, "multiply", "of", "kind", "Gop/s", "gop_per_second");
    print_rows(peaks, "read", "level", "size", "GB/s", "gb_per_second");
}
