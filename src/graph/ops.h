// SPDX-License-Identifier: Apache-2.0
// What the op files share: the table of gradients, checks that stick, and the shape arithmetic.
#ifndef SOMA_GRAPH_OPS_H
#define SOMA_GRAPH_OPS_H

#include "graph/graph.h"

#include <string.h>

// Builds the gradients of a node's sources from the gradient dy of its output; entries stay NULL where nothing flows.
typedef void soma_grad_fn(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc);

typedef struct soma_op_info {
    const char *name;
    soma_grad_fn *grad; // NULL: not differentiable
    bool elementwise;   // may be part of a chain
    bool effect;        // writes memory that outlives the run: never removed, never moved
} soma_op_info;
extern const soma_op_info soma__ops[SOMA_OP_COUNT];

soma_grad_fn soma__grad_view, soma__grad_add, soma__grad_sub, soma__grad_mul, soma__grad_div, soma__grad_affine, soma__grad_unary,
    soma__grad_copy, soma__grad_concat, soma__grad_pad, soma__grad_sum, soma__grad_matmul, soma__grad_embed, soma__grad_rms_norm,
    soma__grad_layer_norm, soma__grad_rope, soma__grad_attention, soma__grad_cross_entropy, soma__grad_conv, soma__grad_conv_transposed,
    soma__grad_max_pool, soma__grad_softmax, soma__grad_dropout;

// A part of a flat packed result, with a shape of its own.
soma_tensor *soma__part(soma_tensor *packed, int64_t start, int n_dims, const int64_t *shape);
// Sums x over the dimensions that broadcasting added or stretched, down to the shape of `like`.
soma_tensor *soma__sum_to(soma_tensor *x, const soma_tensor *like);
bool soma__same_shape(const soma_tensor *a, const soma_tensor *b);
bool soma__drop_fits(soma_graph *g, soma_drop drop); // key and rate are what a dropout takes; else a mistake is kept
bool soma__failed(const soma_graph *g);              // builders return early once a mistake stuck

static inline soma_tensor *soma__nothing(soma_graph *g) { return &g->nothing; }

#endif
