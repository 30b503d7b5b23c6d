// SPDX-License-Identifier: Apache-2.0
// The trunk that pi0's two streams share: each has weights and a width of its own, and they meet only in attention.
#include "model/pi0/pi0.h"

#include <string.h>

void pi0_precision_rules(soma_precision p, soma_precision_rule rules[PI0_RULES]) {
    const soma_precision norms = {SOMA_F32, p.activation, SOMA_F32}, f32 = SOMA_PRECISION_F32;
    const soma_precision_rule all[PI0_RULES] = {
        {"*", p},
        {"*layernorm*", norms},
        {"*.norm", norms},
        {"*.dense", f32},
        {"*.embeddings*", f32},
        {"action_*_proj", f32},
        {"state_proj", f32},
        {"time_mlp_*", f32},
        {"action_time_mlp_*", f32},
    };
    memcpy(rules, all, sizeof all);
}

soma_normed pi0_norm(const soma_scope *s, const char *name, soma_tensor *x, soma_tensor *cond, double eps) {
    if (cond) return soma_ada_rms_norm(s, name, x, cond, (float)eps);
    return (soma_normed){soma_rms_norm(s, name, x, (float)eps), NULL};
}

static soma_tensor *residual(soma_tensor *x, soma_tensor *y, soma_tensor *gate) { return soma_add(x, gate ? soma_mul(y, gate) : y); }

// [prefix | own] along the tokens. One prefix row serves the R suffix rows that were drawn for it.
static soma_tensor *join(soma_tensor *prefix, soma_tensor *own) {
    if (prefix->n_dims != 4 || own->n_dims != 4) return own; // an earlier mistake
    int64_t B = prefix->shape[0], R = own->shape[0] / B, S = prefix->shape[1], T = own->shape[1], KV = own->shape[2], K = own->shape[3];
    soma_tensor *shared = soma_expand(soma_reshape(prefix, 5, (int64_t[]){B, 1, S, KV, K}), 5, (int64_t[]){B, R, S, KV, K});
    soma_tensor *mine = soma_reshape(own, 5, (int64_t[]){B, R, T, KV, K});
    return soma_reshape(soma_concat((soma_tensor *[]){shared, mine}, 2, 2), 4, (int64_t[]){B * R, S + T, KV, K});
}

pi0_kv pi0_trunk_layer(const pi0_config *c, pi0_stream s[2], int i, pi0_kv past, bool keys_only) {
    for (int e = 0; e < 2; e++) {
        if (!s[e].x) continue;
        const pi0_stack *z = s[e].c;
        const soma_scope *in = soma_scope_in(s[e].scope, "layers.%d", i), *attn = soma_scope_in(in, "self_attn");
        soma_normed h = pi0_norm(in, "input_layernorm", s[e].x, s[e].cond, c->rms_eps); // [B, T, D]
        soma_tensor *k = soma_heads(soma_linear(attn, "k_proj", h.y, z->n_kv_heads * z->head_dim, false), z->n_kv_heads);
        soma_tensor *v = soma_heads(soma_linear(attn, "v_proj", h.y, z->n_kv_heads * z->head_dim, false), z->n_kv_heads);
        k = soma_rope(k, s[e].pos, c->rope_theta); // [B, T, KV, K]
        if (e == 0)
            past = (pi0_kv){k, v};
        else
            k = join(past.k, k), v = join(past.v, v); // [B, S + T, KV, K]
        if (e == 0 && keys_only) continue;

        soma_tensor *q = soma_heads(soma_linear(attn, "q_proj", h.y, z->n_heads * z->head_dim, false), z->n_heads);
        soma_tensor *a = soma_attention(attn, soma_rope(q, s[e].pos, c->rope_theta), k, v, s[e].mask); // [B, T, H, K]
        soma_tensor *x = residual(s[e].x, soma_linear(attn, "o_proj", soma_merge_heads(a), z->width, false), h.gate);
        h = pi0_norm(in, "post_attention_layernorm", x, s[e].cond, c->rms_eps);
        s[e].x = residual(x, soma_gated_mlp(soma_scope_in(in, "mlp"), h.y, z->mlp), h.gate); // [B, T, D]
    }
    return past;
}
