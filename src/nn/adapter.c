// SPDX-License-Identifier: Apache-2.0
// Low-rank pairs beside linear layers, in the two ways in which they are published. PEFT's pair is two linear layers without bias. openpi's
// belongs to an einsum over heads, so its factors keep the heads apart: towards heads every head has a product of its own; from heads (the
// attention's output) openpi's einsums sum the heads in each factor, which is not the sum of the heads' products.
#include "nn/nn.h"

#include <math.h>

// Pairs are what is trained, whatever else is frozen; so the frozen globs are not asked.
static soma_tensor *factor(const soma_scope *s, const char *name, soma_init init, int n_dims, const int64_t *shape) {
    const char *full = soma__arena_printf(&s->graph->arena, "%s%s%s", s->name, *s->name ? "." : "", name);
    if (!full) return soma__mistake(s->graph, "out of memory for a weight's name");
    return soma_weight(s->graph, full, s->precision.weight, init, n_dims, shape);
}

static soma_tensor *peft(const soma_scope *s, soma_tensor *x, int64_t in, int64_t out, int64_t r) { // x [rows, in]
    soma_init start = soma_init_normal(1 / sqrt(3 * (double)in));                                   // as spread as PEFT's uniform start
    soma_tensor *a = factor(s, "lora_A.weight", start, 2, (int64_t[]){r, in});
    soma_tensor *b = factor(s, "lora_B.weight", soma_init_zero(), 2, (int64_t[]){out, r});
    return soma_matmul(soma_matmul(x, a, NULL, s->precision.product), b, NULL, s->precision.product); // [rows, out]
}

static soma_tensor *openpi(const soma_scope *s, const soma_adapter *d, soma_tensor *x, int64_t in, int64_t out) { // x [rows, in]
    const soma_dtype product = s->precision.product;
    const soma_init start = soma_init_normal(0.01); // of both factors: the difference is not zero at the start
    const int64_t r = d->rank, H = d->n_heads, rows = x->shape[0];
    if (d->form == SOMA_ADAPTER_OPENPI) {
        soma_tensor *a = factor(s, "lora_a", start, 2, (int64_t[]){in, r}), *b = factor(s, "lora_b", start, 2, (int64_t[]){r, out});
        return soma_matmul(soma_matmul(x, soma_transpose(a), NULL, product), soma_transpose(b), NULL, product);
    }
    const bool to = d->form == SOMA_ADAPTER_OPENPI_TO_HEADS;
    if (H < 1 || (to ? out : in) % H)
        return soma__mistake(s->graph, "an adapter of %lld heads, which do not divide the layer", (long long)H);
    if (!to) {
        soma_tensor *a = factor(s, "lora_a", start, 3, (int64_t[]){H, in / H, r}),
                    *b = factor(s, "lora_b", start, 3, (int64_t[]){H, r, out});
        soma_tensor *low = soma_matmul(x, soma_transpose(soma_reshape(a, 2, (int64_t[]){in, r})), NULL, product);
        b = soma_reshape(soma_sum(b, 1), 2, (int64_t[]){r, out});
        return soma_matmul(low, soma_transpose(b), NULL, product);
    }
    soma_tensor *a = factor(s, "lora_a", start, 3, (int64_t[]){H, in, r}), *b = factor(s, "lora_b", start, 3, (int64_t[]){H, r, out / H});
    a = soma_reshape(soma_transpose(a), 2, (int64_t[]){H * r, in});
    soma_tensor *low = soma_reshape(soma_matmul(x, a, NULL, product), 3, (int64_t[]){rows, H, r});
    soma_tensor *y = soma_matmul(soma_permute(low, (int[]){1, 0, 2}), soma_transpose(b), NULL, product); // [H, rows, out/H]
    return soma_reshape(soma_permute(y, (int[]){1, 0, 2}), 2, (int64_t[]){rows, out});
}

soma_tensor *soma__add_adapter(const soma_scope *s, soma_tensor *x, soma_tensor *y) {
    const soma_adapter *found = NULL;
    for (size_t i = 0; i < s->spec->n_adapters; i++)
        if (soma__matches(s->spec->adapters[i].glob, s->name)) found = &s->spec->adapters[i];
    if (!found || s->graph->error.code != SOMA_OK) return y;
    int64_t in = x->shape[x->n_dims - 1], out = y->shape[y->n_dims - 1];
    soma_tensor *flat = soma_reshape(x, 2, (int64_t[]){soma__numel(x) / in, in});
    soma_tensor *low = found->form == SOMA_ADAPTER_PEFT ? peft(s, flat, in, out, found->rank) : openpi(s, found, flat, in, out);
    return soma_add(y, soma_affine(soma_reshape(low, y->n_dims, y->shape), found->scale, 0));
}
