// SPDX-License-Identifier: Apache-2.0
// The trunk that pi0's two streams share: each has weights and a width of its own, and they meet only in attention.
#include "model/pi0/pi0.h"

#include <string.h>

void pi0_precision_rules(soma_precision p, soma_precision_rule rules[PI0_RULES]) {
    const soma_precision f32 = SOMA_PRECISION_F32;
    const soma_precision_rule own[] = {
        {"*.dense", f32}, {"action_*_proj", f32}, {"state_proj", f32}, {"time_mlp_*", f32}, {"action_time_mlp_*", f32},
    };
    soma_paligemma_rules(p, rules);
    memcpy(rules + SOMA_PALIGEMMA_RULES, own, sizeof own);
}

soma_kv pi0_trunk_layer(soma_stream s[2], int i, soma_kv past, const bool keys_only[2]) {
    for (int e = 0; e < 2; e++) {
        if (!s[e].x) continue;
        soma_gemma_layer layer = soma_gemma_begin(&s[e], i);
        past = e ? soma_kv_join(past, layer.kv) : layer.kv; // [B, S + T, KV, K]
        if (!keys_only[e]) s[e].x = soma_gemma_end(&s[e], &layer, past);
    }
    return past;
}

int64_t pi0_n_cameras(const pi0_config *c, const soma_saving *saving) { return soma__saved_cameras(&c->model.info, saving); }

int64_t pi0_n_tokens(const pi0_config *c, const soma_saving *saving) { return soma__saved_tokens(&c->model.info, saving); }

int64_t pi0_prefix_len(const pi0_config *c, const soma_saving *saving) {
    int64_t side = c->vision.image / c->vision.patch;
    return pi0_n_cameras(c, saving) * side * side + pi0_n_tokens(c, saving);
}
