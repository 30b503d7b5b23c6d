// SPDX-License-Identifier: Apache-2.0
// soma bench: how fast, and how near to what the machine can do.
#include "bench/bench.h"
#include "cmd/cmd.h"

#include <string.h>

#define OPTS_TYPE soma_bench_opts
SOMA_OPTS_DEFINE_LOCAL(soma_bench_opts, SOMA_BENCH_OPTS, bench_defaults)
#undef OPTS_TYPE

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }
static const char *text(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }
static double at(const json_t *object, const char *key, size_t i) {
    return json_number_value(json_array_get(json_object_get(object, key), i));
}

static void print_machine(const json_t *r) {
    const json_t *m = json_object_get(r, "machine");
    printf("%s on %s, %s, %.0f threads; register peak %.0f GFLOP/s (%s)\n", text(r, "what"), text(m, "processor"), text(m, "isa"),
           real(m, "threads"), real(r, "peak_gflop_per_second"), text(r, "dtype"));
}

static void print_train(const json_t *r) {
    printf("%.0f parameters, batch %.0f x %.0f draws, %.3f GFLOP per sample (forward, backward; matrix products and attention)\n",
           real(r, "parameters"), real(r, "batch"), real(r, "draws"), real(r, "gflop_per_sample"));
    printf("step %.1f ms (%.1f to %.1f), %.1f samples/s, %.1f GFLOP/s = %.1f %% of the peak; memory reads %.1f GB/s\n",
           1e3 * at(r, "seconds", 0), 1e3 * at(r, "seconds", 1), 1e3 * at(r, "seconds", 2), real(r, "samples_per_second"),
           real(r, "gflop_per_second"), 100 * real(r, "share_of_peak"), real(r, "memory_gb_per_second"));
    const char *op;
    json_t *row;
    printf("  %-18s %6s %6s %9s\n", "op", "steps", "plain", "ms");
    json_object_foreach(json_object_get(r, "ops"), op, row)
        printf("  %-18s %6.0f %6.0f %9.2f\n", op, real(row, "steps"), real(row, "plain"), real(row, "ms"));
}

static void print_kernels(const json_t *r) {
    size_t i;
    json_t *row;
    printf("  %-20s %6s %6s %6s %10s %10s %10s %8s\n", "kernel", "M", "N", "K", "us", "fastest", "GFLOP/s", "of peak");
    json_array_foreach(json_object_get(r, "kernels"), i, row) printf(
        "  %-20s %6.0f %6.0f %6.0f %10.1f %10.1f %10.1f %7.1f%%\n", text(row, "kernel"), real(row, "M"), real(row, "N"), real(row, "K"),
        1e6 * at(row, "seconds", 0), 1e6 * at(row, "seconds", 1), real(row, "gflop_per_second"), 100 * real(row, "share_of_peak"));
}

static int run(int argc, char **argv) {
    soma_bench_opts o = bench_defaults();
    soma_bench_fast_opts f = soma__bench_fast_defaults();
    soma_bench_text_opts t = soma__bench_text_defaults();
    soma_cmd cmd = {
        .usage = "[train|kernels|fast|text] [options]",
        .about =
            "Measures a training step (train, the default) or single kernels against the machine's own limit, measured in the same run;\n"
            "or FAST, the tokenizer of actions; or a tokenizer of text.\n\n"
            "Examples:\n  soma bench\n  soma bench kernels --dtype f32\n  soma bench fast --tokenizer tokenizer\n"
            "  soma bench text --text-tokenizer tokenizer.json --text book.txt\n",
        .has_json = true,
        .max_words = 1,
        .groups = {
            {&soma_bench_opts_table, &o, "options"}, {&soma_bench_fast_opts_table, &f, "fast"}, {&soma_bench_text_opts_table, &t, "text"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    const char *what = cmd.n_words ? cmd.words[0] : "train";
    bool kernels = !strcmp(what, "kernels"), fast = !strcmp(what, "fast"), words = !strcmp(what, "text");
    if (!kernels && !fast && !words && strcmp(what, "train"))
        return soma__cmd_usage(&cmd, "\"%s\" cannot be measured; train, kernels, fast and text can", what);
    soma_error err = {0};
    json_t *result;
    if (fast    ? soma__bench_fast(&result, &o, &f, &err)
        : words ? soma__bench_text(&result, &o, &t, &err)
                : (kernels ? soma__bench_kernels : soma__bench_train)(&result, &o, &err))
        return soma__cmd_fail(&cmd, &err);
    if (cmd.json) return soma__cmd_print_json(&cmd, result);
    if (fast)
        soma__bench_fast_print(result);
    else if (words)
        soma__bench_text_print(result);
    else {
        print_machine(result);
        (kernels ? print_kernels : print_train)(result);
    }
    json_decref(result);
    return SOMA_EXIT_OK;
}

const soma_verb soma__verb_bench = {"bench", "measure speed against the machine's limit", run};
