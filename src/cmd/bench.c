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
    print_machine(r);
    printf("%.0f parameters, batch %.0f x %.0f draws, %.3f GFLOP per sample (forward, backward; matrix products and attention)\n",
           real(r, "parameters"), real(r, "batch"), real(r, "draws"), real(r, "gflop_per_sample"));
    printf("step %.1f ms (%.1f to %.1f), %.1f samples/s, %.1f GFLOP/s = %.1f %% of the peak; memory reads %.1f GB/s\n",
           1e3 * at(r, "seconds", 0), 1e3 * at(r, "seconds", 1), 1e3 * at(r, "seconds", 2), real(r, "samples_per_second"),
           real(r, "gflop_per_second"), 100 * real(r, "share_of_peak"), real(r, "memory_gb_per_second"));
    soma__bench_profile_print(json_object_get(r, "profile"), 0.01);
}

static void print_kernels(const json_t *r) {
    print_machine(r);
    soma__bench_kernels_print(r);
}

// ---- what can be measured

typedef struct options {
    soma_bench_opts all;
    soma_bench_policy_opts policy;
    soma_bench_fast_opts fast;
    soma_bench_text_opts text;
    soma_bench_data_opts data;
    soma_bench_loader_opts loader;
    soma_bench_serve_opts serve;
    soma_bench_record_opts record;
} options;

static soma_status bench_machine(json_t **out, const options *o, soma_error *err) { return soma__bench_peaks(out, &o->all, err); }
static soma_status bench_kernels(json_t **out, const options *o, soma_error *err) { return soma__bench_kernels(out, &o->all, err); }
static soma_status bench_policy(json_t **out, const options *o, soma_error *err) {
    return soma__bench_policies(out, &o->all, &o->policy, err);
}
static soma_status bench_train(json_t **out, const options *o, soma_error *err) { return soma__bench_train(out, &o->all, err); }
static soma_status bench_fast(json_t **out, const options *o, soma_error *err) { return soma__bench_fast(out, &o->all, &o->fast, err); }
static soma_status bench_text(json_t **out, const options *o, soma_error *err) { return soma__bench_text(out, &o->all, &o->text, err); }
static soma_status bench_data(json_t **out, const options *o, soma_error *err) { return soma__bench_data(out, &o->all, &o->data, err); }

static soma_status bench_loader(json_t **out, const options *o, soma_error *err) {
    return soma__bench_loader(out, &o->all, &o->loader, err);
}

static soma_status bench_serve(json_t **out, const options *o, soma_error *err) {
    return soma__bench_serve(out, &o->all, &o->serve, o->policy.policy, err);
}
static soma_status bench_record(json_t **out, const options *o, soma_error *err) { return soma__bench_record(out, &o->record, err); }

static const struct subject {
    const char *name;
    soma_status (*measure)(json_t **out, const options *o, soma_error *err);
    void (*print)(const json_t *result);
} subjects[] = {
    {"train", bench_train, print_train},
    {"machine", bench_machine, soma__bench_peaks_print},
    {"kernels", bench_kernels, print_kernels},
    {"policy", bench_policy, soma__bench_policies_print},
    {"fast", bench_fast, soma__bench_fast_print},
    {"text", bench_text, soma__bench_text_print},
    {"data", bench_data, soma__bench_data_print},
    {"loader", bench_loader, soma__bench_loader_print},
    {"serve", bench_serve, soma__bench_serve_print},
    {"record", bench_record, soma__bench_record_print},
};

static int run(int argc, char **argv) {
    options o = {bench_defaults(),
                 soma__bench_policy_defaults(),
                 soma__bench_fast_defaults(),
                 soma__bench_text_defaults(),
                 soma__bench_data_defaults(),
                 soma__bench_loader_defaults(),
                 soma__bench_serve_defaults(),
                 soma__bench_record_defaults()};
    soma_cmd cmd = {
        .usage = "[train|machine|kernels|policy|fast|text|data|loader|serve|record] [options]",
        .about = "Measures a training step (train, the default), single kernels or a policy's chunk against the machine's own limit,\n"
                 "measured in the same run; that limit alone (machine); FAST, the tokenizer of actions; a tokenizer of text;\n"
                 "statistics and the opening of large datasets (data); the loader that feeds a trainer; recording; or a server\n"
                 "of a policy: what it adds to a call, what requests cost together, many clients against a deadline (serve).\n\n"
                 "Examples:\n  soma bench\n  soma bench machine\n  soma bench kernels --dtype f32\n"
                 "  soma bench policy --family pi0 --preset base --random --profile\n"
                 "  soma bench policy --family pi0,pi05,pi0_fast --preset base --random --dtype bf16,int8\n"
                 "  soma bench fast --tokenizer tokenizer\n"
                 "  soma bench text --text-tokenizer tokenizer.json --text book.txt\n"
                 "  soma bench data --threads 1 --repeats 3\n"
                 "  soma bench loader --data demonstrations --workers 2\n"
                 "  soma bench serve --policy run/best --clients 8 --rate 10\n",
        .has_json = true,
        .max_words = 1,
        .groups = {{&soma_bench_opts_table, &o.all, "options"},
                   {&soma_bench_policy_opts_table, &o.policy, "policy"},
                   {&soma_bench_fast_opts_table, &o.fast, "fast"},
                   {&soma_bench_text_opts_table, &o.text, "text"},
                   {&soma_bench_data_opts_table, &o.data, "data"},
                   {&soma_bench_loader_opts_table, &o.loader, "loader"},
                   {&soma_bench_serve_opts_table, &o.serve, "serve"},
                   {&soma_bench_record_opts_table, &o.record, "record"}}};
    int code;
    if (!soma__cmd_parse(&cmd, argc, argv, &code)) return code;
    const struct subject *subject = subjects;
    while (cmd.n_words && subject < subjects + SOMA_COUNT(subjects) && strcmp(cmd.words[0], subject->name)) subject++;
    if (subject == subjects + SOMA_COUNT(subjects))
        return soma__cmd_usage(&cmd,
                               "\"%s\" cannot be measured; train, machine, kernels, policy, fast, text, data, loader, serve and record can",
                               cmd.words[0]);
    soma_error err = {0};
    json_t *result;
    if (subject->measure(&result, &o, &err)) return soma__cmd_fail(&cmd, &err);
    if (cmd.json) return soma__cmd_print_json(&cmd, result);
    subject->print(result);
    json_decref(result);
    return SOMA_EXIT_OK;
}

const soma_verb soma__verb_bench = {"bench", "measure speed against the machine's limit", run};
