// SPDX-License-Identifier: Apache-2.0
// The graph's bookkeeping: nodes, leaves, names, the first mistake. Read ops.h and ops_*.c next.
#include "graph/ops.h"

#include <stdio.h>

const soma_op_info soma__ops[SOMA_OP_COUNT] = {
#define NAME(op, word) [SOMA_OP_##op] = {.name = word, OP_##op},
#define OP_LEAF .grad = NULL
#define OP_VIEW .grad = soma__grad_view
#define OP_CONSTANT .elementwise = true
#define OP_ADD .grad = soma__grad_add, .elementwise = true
#define OP_SUB .grad = soma__grad_sub, .elementwise = true
#define OP_MUL .grad = soma__grad_mul, .elementwise = true
#define OP_DIV .grad = soma__grad_div, .elementwise = true
#define OP_AFFINE .grad = soma__grad_affine, .elementwise = true
#define OP_UNARY .grad = soma__grad_unary, .elementwise = true
#define OP_UNARY_GRAD .elementwise = true
#define OP_COPY .grad = soma__grad_copy, .elementwise = true
#define OP_CONCAT .grad = soma__grad_concat
#define OP_PAD .grad = soma__grad_pad
#define OP_SUM .grad = soma__grad_sum
#define OP_MATMUL .grad = soma__grad_matmul
#define OP_QUANT_MATMUL .grad = NULL
#define OP_EMBED .grad = soma__grad_embed
#define OP_EMBED_GRAD .grad = NULL
#define OP_RMS_NORM .grad = soma__grad_rms_norm
#define OP_RMS_NORM_GRAD .grad = NULL
#define OP_LAYER_NORM .grad = soma__grad_layer_norm
#define OP_LAYER_NORM_GRAD .grad = NULL
#define OP_ROPE .grad = soma__grad_rope
#define OP_ATTENTION .grad = soma__grad_attention
#define OP_ATTENTION_GRAD .grad = NULL
#define OP_TIME_EMBED .grad = NULL
#define OP_CROSS_ENTROPY .grad = soma__grad_cross_entropy
#define OP_CROSS_ENTROPY_GRAD .grad = NULL
#define OP_CONV .grad = soma__grad_conv
#define OP_CONV_TRANSPOSED .grad = soma__grad_conv_transposed
#define OP_CONV_GRAD .grad = NULL
#define OP_MAX_POOL .grad = soma__grad_max_pool
#define OP_MAX_POOL_GRAD .grad = NULL
#define OP_SOFTMAX .grad = soma__grad_softmax
#define OP_DROPOUT .grad = soma__grad_dropout
#define OP_STORE .effect = true
#define OP_ADAMW .effect = true
    SOMA_OP_LIST(NAME)};
_Static_assert(SOMA_OP_COUNT == 37, "a new op needs a row above, a builder, a plain kernel and rows in tests/ops");

const char *soma__op_name(soma_op op) { return (unsigned)op < SOMA_OP_COUNT ? soma__ops[op].name : "unknown op"; }

soma_status soma_graph_new(soma_graph **out, soma_error *err) {
    soma_graph *g = *out = soma__calloc(1, sizeof *g);
    if (!g) return soma__no_memory(err, "a graph");
    g->nothing = (soma_tensor){.graph = g, .n_dims = 1, .shape = {1}, .stride = {1}, .place = -1};
    return SOMA_OK;
}

void soma_graph_free(soma_graph *g) {
    if (!g) return;
    soma__arena_free(&g->arena);
    soma__free(g->tensors);
    soma__free(g);
}

bool soma__failed(const soma_graph *g) { return g->error.code != SOMA_OK; }

soma_tensor *soma__mistake(soma_graph *g, const char *format, ...) {
    if (soma__failed(g)) return &g->nothing;
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    soma__fail(&g->error, SOMA_BAD_GRAPH, "%s%s%s", text, g->near ? ", built after the weight " : "", g->near ? g->near : "");
    return &g->nothing;
}

char *soma__shape_text(char out[96], const soma_tensor *t) {
    size_t n = 0;
    out[n++] = '[';
    for (int i = 0; i < t->n_dims && n < 80; i++) n += (size_t)snprintf(out + n, 96 - n, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    snprintf(out + n, 96 - n, "]");
    return out;
}

int64_t soma__numel(const soma_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= t->shape[i];
    return n;
}

bool soma__is_contiguous(const soma_tensor *t) {
    int64_t expected = 1;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != expected) return false;
        expected *= t->shape[i];
    }
    return true;
}

bool soma__same_shape(const soma_tensor *a, const soma_tensor *b) {
    return a->n_dims == b->n_dims && !memcmp(a->shape, b->shape, sizeof(int64_t) * (size_t)a->n_dims);
}

soma_tensor *soma__node(soma_graph *g, soma_op op, soma_dtype dtype, int n_dims, const int64_t *shape) {
    if (soma__failed(g)) return &g->nothing;
    if (n_dims < 1 || n_dims > SOMA_MAX_DIMS)
        return soma__mistake(g, "%s: %d dimensions, possible are 1 to %d", soma__op_name(op), n_dims, SOMA_MAX_DIMS);
    int64_t numel = 1;
    for (int i = 0; i < n_dims; i++) {
        if (shape[i] < 1 || numel > (INT64_MAX >> 8) / shape[i])
            return soma__mistake(g, "%s: dimension %d has length %lld", soma__op_name(op), i, (long long)shape[i]);
        numel *= shape[i];
    }
    soma_tensor *t = soma__arena_alloc(&g->arena, sizeof *t);
    if (!t || !SOMA_PUSH_ROOM(g->tensors, g->n_tensors, g->capacity)) {
        soma__fail(&g->error, SOMA_NO_MEMORY, "out of memory for a graph of %zu tensors", g->n_tensors);
        return &g->nothing;
    }
    *t = (soma_tensor){.op = op,
                       .dtype = dtype,
                       .n_dims = n_dims,
                       .graph = g,
                       .near = g->near,
                       .id = (int)g->n_tensors,
                       .segment = g->segment,
                       .place = -1};
    int64_t stride = 1;
    for (int i = n_dims - 1; i >= 0; i--) {
        t->shape[i] = shape[i];
        t->stride[i] = stride;
        stride *= shape[i];
    }
    return g->tensors[g->n_tensors++] = t;
}

// ---- leaves

static const char *keep_name(soma_graph *g, const char *name) {
    char *copy = soma__arena_strdup(&g->arena, name);
    if (!copy) soma__fail(&g->error, SOMA_NO_MEMORY, "out of memory for a tensor's name");
    return copy ? copy : "";
}

static bool is_weight(soma_role role) { return role == SOMA_ROLE_WEIGHT || role == SOMA_ROLE_FROZEN; }

static soma_tensor *find_leaf(soma_graph *g, soma_role role, const char *name) {
    for (size_t i = 0; i < g->n_tensors; i++) {
        soma_tensor *t = g->tensors[i];
        bool alike = t->role == role || (is_weight(t->role) && is_weight(role));
        if (t->op == SOMA_OP_LEAF && alike && !strcmp(t->name, name)) return t;
    }
    return NULL;
}

static soma_tensor *leaf(soma_graph *g, soma_role role, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape) {
    if (soma__failed(g)) return &g->nothing;
    soma_tensor *known = find_leaf(g, role, name);
    if (known) {
        soma_tensor asked = {.n_dims = n_dims};
        memcpy(asked.shape, shape, sizeof *shape * (size_t)n_dims);
        char a[96], b[96];
        if (!soma__same_shape(known, &asked) || known->dtype != dtype)
            return soma__mistake(g, "%s is used as %s %s and as %s %s", name, soma_dtype_name(known->dtype), soma__shape_text(a, known),
                                 soma_dtype_name(dtype), soma__shape_text(b, &asked));
        return known;
    }
    soma_tensor *t = soma__node(g, SOMA_OP_LEAF, dtype, n_dims, shape);
    if (soma__failed(g)) return t;
    t->role = role;
    t->name = keep_name(g, name);
    return t;
}

soma_tensor *soma_input(soma_graph *g, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape) {
    soma_tensor *t = leaf(g, SOMA_ROLE_IO, name, dtype, n_dims, shape);
    t->is_input = true;
    return t;
}

soma_tensor *soma_state(soma_graph *g, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape) {
    return leaf(g, SOMA_ROLE_STATE, name, dtype, n_dims, shape);
}

static soma_tensor *weight(soma_graph *g, soma_role role, const char *name, soma_dtype dtype, soma_init init, int n_dims,
                           const int64_t *shape) {
    soma_tensor *t = leaf(g, role, name, dtype, n_dims, shape);
    if (soma__failed(g)) return t;
    t->init = init;
    g->near = t->name;
    return t;
}

soma_tensor *soma_weight(soma_graph *g, const char *name, soma_dtype dtype, soma_init init, int n_dims, const int64_t *shape) {
    return weight(g, SOMA_ROLE_WEIGHT, name, dtype, init, n_dims, shape);
}

soma_tensor *soma_frozen(soma_graph *g, const char *name, soma_dtype dtype, soma_init init, int n_dims, const int64_t *shape) {
    return weight(g, SOMA_ROLE_FROZEN, name, dtype, init, n_dims, shape);
}

void soma_checkpoint(soma_graph *g, bool begin) { g->segment = begin ? ++g->n_segments : 0; }

soma_tensor *soma_constant(soma_graph *g, float value, int n_dims, const int64_t *shape) {
    soma_tensor *t = soma__node(g, SOMA_OP_CONSTANT, SOMA_F32, n_dims, shape);
    t->p.constant.value = value;
    return t;
}

void soma_output(soma_tensor *t, const char *name) {
    soma_graph *g = t->graph;
    if (soma__failed(g)) return;
    if (t->op == SOMA_OP_LEAF || t->base || t->is_output || t->role != SOMA_ROLE_SCRATCH) { // memory that is not its own
        soma_tensor *copy = soma__node(g, SOMA_OP_COPY, t->dtype, t->n_dims, t->shape);
        copy->src[0] = t;
        t = copy;
    }
    if (soma__failed(g)) return;
    t->is_output = true;
    t->role = SOMA_ROLE_IO;
    t->name = keep_name(g, name);
}

soma_tensor *soma_tap(soma_tensor *t, const char *format, ...) {
    if (!t->graph->keep_taps || soma__failed(t->graph)) return t;
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    soma_output(t, name);
    return t;
}

void soma_graph_dump(const soma_graph *g, void (*line)(void *user, const char *text), void *user) {
    for (size_t i = 0; i < g->n_tensors; i++) {
        const soma_tensor *t = g->tensors[i];
        char text[512], shape[96];
        int n = snprintf(text, sizeof text, "%4d %-14s %-4s %s", t->id, soma__op_name(t->op), soma_dtype_name(t->dtype),
                         soma__shape_text(shape, t));
        for (int s = 0; s < SOMA_MAX_SRC && n < 400; s++)
            if (t->src[s]) n += snprintf(text + n, sizeof text - (size_t)n, " %%%d", t->src[s]->id);
        if (t->name) snprintf(text + n, sizeof text - (size_t)n, "  %.100s", t->name);
        line(user, text);
    }
}
