// SPDX-License-Identifier: Apache-2.0
// The quantisation report as a table, one column per dtype, or as JSON.
#include "cmd/cmd_quant.h"
#include "cmd/cmd_obs.h"
#include "policy/policy.h"
#include "policy/quant_report.h"

#include <stdio.h>

static json_t *report_json(const soma_quant_report *r, const soma_cmd_quant *o) {
    json_t *rows = json_array();
    for (int i = 0; i < SOMA_QUANT_DTYPES; i++) {
        const soma_quant_row *row = &r->rows[i];
        json_t *velocity = json_array();
        for (int64_t k = 0; k < r->steps; k++) json_array_append_new(velocity, json_real(row->velocity[k]));
        json_t *one = json_pack("{s:s, s:I, s:f, s:f}", "dtype", row->dtype, "weights_size", (json_int_t)row->size, "prefix_keys",
                                row->keys, "prefix_values", row->values);
        json_object_set_new(one, r->steps ? "velocity" : "logits", r->steps ? velocity : json_real(row->logits));
        if (r->steps)
            json_object_set_new(one, "chunk", json_real(row->chunk));
        else
            json_decref(velocity);
        json_array_append_new(rows, one);
    }
    return json_pack("{s:s, s:I, s:I, s:f, s:I, s:o}", "policy", o->policy, "layers", (json_int_t)r->layers, "steps", (json_int_t)r->steps,
                     "outliers", o->outliers, "channels", (json_int_t)r->n_channels, "dtypes", rows);
}

typedef double pick(const soma_quant_row *row, int64_t k);
static double keys_of(const soma_quant_row *row, int64_t k) { return row->keys; }
static double values_of(const soma_quant_row *row, int64_t k) { return row->values; }
static double velocity_of(const soma_quant_row *row, int64_t k) { return row->velocity[k]; }
static double chunk_of(const soma_quant_row *row, int64_t k) { return row->chunk; }
static double logits_of(const soma_quant_row *row, int64_t k) { return row->logits; }

static void print_line(const soma_quant_report *r, const char *title, pick *of, int64_t k) {
    printf("%-26s", title);
    for (int i = 1; i < SOMA_QUANT_DTYPES; i++) printf(" %9.5f", of(&r->rows[i], k));
    printf("\n");
}

static void print_report(const soma_quant_report *r, const soma_cmd_quant *o) {
    if (r->n_channels) printf("%lld output channels of the layers' matrices were made 30 times as large\n", (long long)r->n_channels);
    printf("%-26s", "relative L2 against f32");
    for (int i = 1; i < SOMA_QUANT_DTYPES; i++) printf(" %9s", r->rows[i].dtype);
    printf("\n");
    print_line(r, "prefix keys", keys_of, 0);
    print_line(r, "prefix values", values_of, 0);
    for (int64_t k = 0; k < r->steps; k++) {
        char title[64];
        snprintf(title, sizeof title, "velocity, step %lld", (long long)k + 1);
        print_line(r, title, velocity_of, k);
    }
    print_line(r, r->steps ? "chunk of actions" : "first token's logits", r->steps ? chunk_of : logits_of, 0);
    printf("%-26s", "weights, MB");
    for (int i = 1; i < SOMA_QUANT_DTYPES; i++) printf(" %9.1f", (double)r->rows[i].size / 1e6);
    printf("   (f32 %.1f)\n", (double)r->rows[0].size / 1e6);
    if (!*o->obs) printf("The observation was made up. What a trained policy loses is told by one that it knows: --obs\n");
}

// The observation is asked for in the policy's own terms: its cameras.
static soma_status open_obs(soma_cmd_obs *obs, const soma_cmd_quant *o, soma_error *err) {
    soma_policy *policy;
    soma_policy_opts po = soma_policy_defaults();
    if (!*o->obs) return SOMA_OK;
    SOMA_TRY(soma_policy_open(&policy, o->policy, &po, err));
    const soma_policy_info info = soma_policy_describe(policy);
    soma_status status = soma__cmd_obs_open(obs, o->obs, o->episode, o->frame, &info, err);
    soma_policy_close(policy);
    return status;
}

int soma__cmd_quant_report(const soma_cmd *cmd, const soma_cmd_quant *o) {
    soma_error err = {0};
    soma_device *device = NULL;
    soma_cmd_obs obs = {0};
    soma_quant_report r = {0};
    const soma_device_opts d = {.threads = (int)o->threads, .isa = o->isa};
    soma_status status = open_obs(&obs, o, &err);
    const soma_quant_opts q = {.obs = *o->obs ? &obs.obs : NULL, .outliers = o->outliers, .seed = o->seed};
    if (status == SOMA_OK) status = soma__device_open(&device, "cpu", &d, &err);
    if (status == SOMA_OK) status = soma__quant_report(&r, o->policy, &q, device, &err);
    int code = SOMA_EXIT_OK;
    if (status != SOMA_OK)
        code = soma__cmd_fail(cmd, &err);
    else if (cmd->json)
        code = soma__cmd_print_json(cmd, report_json(&r, o));
    else
        print_report(&r, o);
    soma__quant_report_free(&r);
    soma__cmd_obs_close(&obs);
    soma__device_close(device);
    return code;
}
