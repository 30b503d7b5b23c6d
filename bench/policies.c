// SPDX-License-Identifier: Apache-2.0
// soma bench policy of several families or dtypes: one after the other, each as policy.c measures it, and their table.
#include "bench/bench.h"

#include <stdio.h>
#include <string.h>

// The n-th of a list "a,b,c"; false behind the last.
static bool item_of(char out[SOMA_OPT_TEXT], const char *list, int n) {
    for (; n > 0 && list; n--) list = (list = strchr(list, ',')) ? list + 1 : NULL;
    if (!list) return false;
    snprintf(out, SOMA_OPT_TEXT, "%.*s", (int)strcspn(list, ","), list);
    return true;
}

soma_status soma__bench_policies(json_t **out, const soma_bench_opts *o, const soma_bench_policy_opts *p, soma_error *err) {
    *out = NULL;
    if (!strchr(o->family, ',') && !strchr(o->dtype, ',')) return soma__bench_policy(out, o, p, err);
    if (*p->policy) return soma__fail(err, SOMA_BAD_INPUT, "a table of families or dtypes is made of random weights: --random");
    json_t *rows = json_array();
    soma_status status = SOMA_OK;
    soma_bench_opts one = *o;
    for (int f = 0; status == SOMA_OK && item_of(one.family, o->family, f); f++)
        for (int d = 0; status == SOMA_OK && item_of(one.dtype, o->dtype, d); d++) {
            json_t *row;
            status = soma__bench_policy(&row, &one, p, err);
            if (status == SOMA_OK) json_array_append_new(rows, row);
        }
    if (status == SOMA_OK) *out = json_pack("{s:s, s:O}", "what", "policies", "policies", rows);
    json_decref(rows);
    return status;
}

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }
static const char *text(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

void soma__bench_policies_print(const json_t *result) {
    const json_t *rows = json_object_get(result, "policies");
    size_t i;
    json_t *r;
    if (!rows) {
        soma__bench_policy_print(result);
        return;
    }
    const json_t *first = json_array_get(rows, 0), *machine = json_object_get(first, "machine");
    printf("random weights on %s, %s, %.0f threads; a step is one of the flow or one written token\n", text(machine, "processor"),
           text(machine, "isa"), real(machine, "threads"));
    printf("  %-10s %-6s %6s %5s %7s %8s %9s %9s %9s %8s %9s %11s %8s %9s %8s\n", "family", "dtype", "tokens", "steps", "load s", "first s",
           "chunk s", "p99 s", "prefix s", "step ms", "limit s", "of limit", "read ms", "of read", "GB");
    json_array_foreach(rows, i, r)
        printf("  %-10s %-6s %6.0f %5.0f %7.2f %8.3f %9.4f %9.4f %9.4f %8.2f %9.4f %10.1f%% %8.2f %8.1f%% %8.2f%s\n", text(r, "family"),
               text(r, "dtype"), real(r, "tokens"), real(r, "steps"), real(r, "load_s"), real(r, "first_chunk_s"),
               real(r, "chunk_median_s"), real(r, "chunk_p99_s"), real(r, "prefix_s"), 1e3 * real(r, "step_s"), real(r, "limit_s"),
               100 * real(r, "limit_share"), 1e3 * real(r, "step_limit_s"), 100 * real(r, "step_limit_s") / real(r, "step_s"),
               real(r, "peak_memory_bytes") / 1e9, json_is_true(json_object_get(r, "disturbed")) ? "  disturbed" : "");
}
