// SPDX-License-Identifier: Apache-2.0
// Scopes: names, and the precision and adapters that belong to them. Looked up by glob, so that a family's config says in a few lines
// what stays f32, and no layer knows.
#include "nn/nn.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>

static bool matches(const char *glob, const char *name) { return fnmatch(glob, name, 0) == 0; }

static soma_precision precision_of(const soma_scope_spec *spec, const char *name) {
    soma_precision found = SOMA_PRECISION_F32;
    for (size_t i = 0; i < spec->n_rules; i++)
        if (matches(spec->rules[i].glob, name)) found = spec->rules[i].precision;
    return found;
}

soma_scope soma_scope_root(soma_graph *graph, const soma_scope_spec *spec) {
    return (soma_scope){.graph = graph, .name = "", .precision = precision_of(spec, ""), .spec = spec};
}

const soma_scope *soma_scope_in(const soma_scope *s, const char *format, ...) {
    char part[256];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(part, sizeof part, format, args);
    va_end(args);
    SOMA_CHECK(len > 0 && (size_t)len < sizeof part, "a scope's name has 1 to 255 bytes");
    soma_scope *inner = soma__arena_alloc(&s->graph->arena, sizeof *inner);
    char *name = soma__arena_printf(&s->graph->arena, "%s%s%s", s->name, *s->name ? "." : "", part);
    if (!inner || !name) {
        if (s->graph->error.code == SOMA_OK) soma__no_memory(&s->graph->error, "a scope's name");
        return s;
    }
    *inner = (soma_scope){.graph = s->graph, .name = name, .precision = precision_of(s->spec, name), .spec = s->spec};
    return inner;
}

soma_tensor *soma_scope_weight(const soma_scope *s, const char *name, soma_init init, int n_dims, const int64_t *shape) {
    char full[512];
    int len = snprintf(full, sizeof full, "%s%s%s", s->name, *s->name ? "." : "", name);
    SOMA_CHECK(len > 0 && (size_t)len < sizeof full, "a weight's name has 1 to 511 bytes");
    soma_tensor *w = soma_weight(s->graph, full, s->precision.weight, init, n_dims, shape);
    if (w == &s->graph->nothing) return w;
    for (size_t i = 0; i < s->spec->n_frozen; i++)
        if (matches(s->spec->frozen[i], full)) w->trainable = false;
    return w;
}

// The adapter's part of a linear layer: adds to y, or gives y back where no adapter belongs.
static soma_tensor *add_adapter(const soma_scope *s, soma_tensor *x, soma_tensor *y, int64_t in, int64_t out) {
    const soma_adapter *found = NULL;
    for (size_t i = 0; i < s->spec->n_adapters; i++)
        if (matches(s->spec->adapters[i].glob, s->name)) found = &s->spec->adapters[i];
    if (!found) return y;
    soma_tensor *a = soma_scope_weight(s, "lora_A.weight", soma_init_normal(1 / sqrt((double)in)), 2, (int64_t[]){found->rank, in});
    soma_tensor *b = soma_scope_weight(s, "lora_B.weight", soma_init_zero(), 2, (int64_t[]){out, found->rank});
    a->trainable = b->trainable = true; // the pair is what is trained, whatever else is frozen
    soma_tensor *low = soma_matmul(soma_matmul(x, a, NULL, s->precision.product), b, NULL, s->precision.product); // [.., out]
    return soma_add(y, soma_affine(low, found->alpha / (float)found->rank, 0));
}

soma_tensor *soma_linear_init(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, bool bias, soma_init init) {
    const soma_scope *at = soma_scope_in(s, "%s", name);
    int64_t in = x->shape[x->n_dims - 1];
    soma_tensor *w = soma_scope_weight(at, "weight", init, 2, (int64_t[]){out, in});
    soma_tensor *b = bias ? soma_scope_weight(at, "bias", soma_init_zero(), 1, &out) : NULL;
    x = soma_cast(x, at->precision.activation);
    return add_adapter(at, x, soma_matmul(x, w, b, at->precision.product), in, out);
}

soma_tensor *soma_linear(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, bool bias) {
    int64_t in = x->shape[x->n_dims - 1];
    return soma_linear_init(s, name, x, out, bias, soma_init_normal(1 / sqrt((double)in)));
}

soma_init soma_init_zero(void) { return (soma_init){.kind = SOMA_INIT_ZERO}; }
soma_init soma_init_one(void) { return (soma_init){.kind = SOMA_INIT_ONE}; }
soma_init soma_init_normal(double std) { return (soma_init){.kind = SOMA_INIT_NORMAL, .std = (float)std}; }
