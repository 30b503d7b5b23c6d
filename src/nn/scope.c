// SPDX-License-Identifier: Apache-2.0
// Scopes: names, and the precision and adapters that belong to them. Looked up by glob, so that a family's config says in a few lines
// what stays f32, and no layer knows.
#include "nn/nn.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>

bool soma__matches(const char *glob, const char *name) { return fnmatch(glob, name, 0) == 0; }

static soma_precision precision_of(const soma_scope_spec *spec, const char *name) {
    soma_precision found = SOMA_PRECISION_F32;
    for (size_t i = 0; i < spec->n_rules; i++)
        if (soma__matches(spec->rules[i].glob, name)) found = spec->rules[i].precision;
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
    bool frozen = false;
    for (size_t i = 0; i < s->spec->n_frozen; i++) frozen |= soma__matches(s->spec->frozen[i], full);
    if (!frozen) return soma_weight(s->graph, full, s->precision.weight, init, n_dims, shape);
    // kept as its products round it anyway: half the memory, and a bf16 file is read in place
    soma_dtype dtype = s->precision.product == SOMA_BF16 ? SOMA_BF16 : s->precision.weight;
    return soma_frozen(s->graph, full, dtype, init, n_dims, shape);
}

soma_tensor *soma_scope_still(const soma_scope *s, const char *name, soma_init init, int n_dims, const int64_t *shape) {
    soma_tensor *t = soma_scope_weight(s, name, init, n_dims, shape);
    if (s->graph->error.code == SOMA_OK) t->still = t->role == SOMA_ROLE_WEIGHT;
    return t;
}

void soma_scope_block(const soma_scope *s) {
    if (s->spec->recompute) soma_checkpoint(s->graph, true);
}

void soma_scope_blocks_end(const soma_scope *s) { soma_checkpoint(s->graph, false); }

soma_tensor *soma_linear_init(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, bool bias, soma_init init) {
    const soma_scope *at = soma_scope_in(s, "%s", name);
    int64_t in = x->shape[x->n_dims - 1];
    soma_tensor *w = soma_scope_weight(at, "weight", init, 2, (int64_t[]){out, in});
    soma_tensor *b = bias ? soma_scope_weight(at, "bias", soma_init_zero(), 1, &out) : NULL;
    x = soma_cast(x, at->precision.activation);
    soma_tensor *y = at->precision.quant ? soma_quant_matmul(x, w, b, at->precision.quant) : soma_matmul(x, w, b, at->precision.product);
    return soma__add_adapter(at, x, y);
}

soma_tensor *soma_linear(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, bool bias) {
    int64_t in = x->shape[x->n_dims - 1];
    return soma_linear_init(s, name, x, out, bias, soma_init_normal(1 / sqrt((double)in)));
}

soma_init soma_init_zero(void) { return (soma_init){.kind = SOMA_INIT_ZERO}; }
soma_init soma_init_one(void) { return (soma_init){.kind = SOMA_INIT_ONE}; }
soma_init soma_init_normal(double std) { return (soma_init){.kind = SOMA_INIT_NORMAL, .std = (float)std}; }
