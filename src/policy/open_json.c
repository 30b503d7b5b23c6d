// SPDX-License-Identifier: Apache-2.0
// Opening a policy and a pilot with options written as JSON, for callers that do not share C's structs.
#include "base/json.h"
#include "policy/policy.h"

#include <string.h>

// NULL and "" mean no options.
static soma_status read_options(const soma_opt_table *table, void *opts, const char *json, soma_error *err) {
    if (!json || !*json) return SOMA_OK;
    json_t *object;
    SOMA_TRY(soma__json_parse(&object, json, strlen(json), table->name, err));
    soma_status status = soma__opts_from_json(table, opts, object, table->name, err);
    json_decref(object);
    return status;
}

soma_status soma_policy_open_json(soma_policy **policy, const char *path, const char *options, soma_error *err) {
    *policy = NULL;
    soma_policy_opts o = soma_policy_defaults();
    SOMA_TRY(read_options(&soma_policy_opts_table, &o, options, err));
    return soma_policy_open(policy, path, &o, err);
}

soma_status soma_pilot_new_json(soma_pilot **pilot, const soma_policy *policy, const char *options, soma_error *err) {
    *pilot = NULL;
    soma_pilot_opts o = soma_pilot_defaults();
    SOMA_TRY(read_options(&soma_pilot_opts_table, &o, options, err));
    return soma_pilot_new(pilot, policy, &o, err);
}
