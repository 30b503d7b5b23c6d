// SPDX-License-Identifier: Apache-2.0
// Where a plan's time goes: the steps of a profile, those of one op and one shape together, the longest first.
#include "bench/bench.h"

#include "base/str.h"
#include "graph/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct line {
    soma_op op;
    char shape[96];
    int steps, plain;
    double seconds, flops;
} line;

static int longest(const void *a, const void *b) {
    const line *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

// Products as M x N x K; attention as queries x keys x heads x head size; the rest by what they write.
static double describe(char shape[96], const soma_tensor *t) {
    if (t->op == SOMA_OP_MATMUL || t->op == SOMA_OP_QUANT_MATMUL) {
        const int64_t K = t->src[0]->shape[t->src[0]->n_dims - 1], N = t->shape[t->n_dims - 1], all = soma__numel(t);
        snprintf(shape, 96, "%lld x %lld x %lld", (long long)(all / N), (long long)N, (long long)K);
        return 2 * (double)all * (double)K;
    }
    if (t->op == SOMA_OP_ATTENTION) {
        const int64_t keys = t->src[1]->shape[1];
        snprintf(shape, 96, "%lld x %lld x %lld x %lld", (long long)(t->shape[0] * t->shape[1]), (long long)keys, (long long)t->shape[2],
                 (long long)t->shape[3]);
        return 4 * (double)soma__numel(t) * (double)keys;
    }
    soma__shape_text(shape, t);
    return 0;
}

json_t *soma__bench_profile(const soma_plan *plan, int64_t runs) {
    line *rows = soma__calloc(plan->n_steps + 1, sizeof *rows);
    size_t n = 0;
    for (size_t i = 0; rows && i < plan->n_steps; i++) {
        const soma_tensor *t = plan->steps[i].nodes[0];
        char shape[96];
        bool plain;
        const double flops = describe(shape, t), seconds = cpu_profile_step(plan, i, &plain) / (double)runs;
        size_t at = 0;
        while (at < n && (rows[at].op != t->op || strcmp(rows[at].shape, shape))) at++;
        if (at == n) {
            rows[n].op = t->op;
            strcpy(rows[n++].shape, shape);
        }
        rows[at].steps++;
        rows[at].plain += plain;
        rows[at].seconds += seconds;
        rows[at].flops += flops;
    }
    if (n) qsort(rows, n, sizeof *rows, longest);
    json_t *list = rows ? json_array() : NULL;
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:i, s:i, s:f, s:f}", "op", soma__op_name(rows[i].op), "shape", rows[i].shape, "steps",
                                        rows[i].steps, "plain", rows[i].plain, "ms", 1e3 * rows[i].seconds, "flops", rows[i].flops));
    soma__free(rows);
    return list;
}

static double real(const json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }
static const char *text(const json_t *row, const char *key) { return json_string_value(json_object_get(row, key)); }

void soma__bench_profile_print(const json_t *rows, double least_share) {
    double all = 0, rest = 0;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) all += real(row, "ms");
    printf("  %-16s %-26s %6s %10s %7s %9s\n", "op", "shape", "steps", "ms", "share", "GFLOP/s");
    json_array_foreach(rows, i, row) {
        const double ms = real(row, "ms"), flops = real(row, "flops");
        if (ms < least_share * all) {
            rest += ms;
            continue;
        }
        printf("  %-16s %-26s %6.0f %10.3f %6.1f%%", text(row, "op"), text(row, "shape"), real(row, "steps"), ms, 100 * ms / all);
        if (flops > 0) printf(" %9.1f", flops / 1e6 / ms);
        printf("%s\n", real(row, "plain") > 0 ? "  plain kernel" : "");
    }
    printf("  %-16s %-26s %6s %10.3f %6.1f%%\n  %-16s %-26s %6s %10.3f\n", "smaller ones", "", "", rest, 100 * rest / all, "all", "", "",
           all);
}
