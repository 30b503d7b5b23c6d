// SPDX-License-Identifier: Apache-2.0
// Cross-entropy over a vocabulary: one op, because a softmax written out in element-wise ops overflows or needs a maximum of its own.
#include "graph/ops.h"

soma_tensor *soma_cross_entropy(soma_tensor *logits, soma_tensor *targets) {
    soma_graph *g = logits->graph;
    if (soma__failed(g)) return soma__nothing(g);
    int n = logits->n_dims - 1;
    char a[96], b[96];
    if (n < 1 || targets->dtype != SOMA_I32 || targets->n_dims != n ||
        memcmp(targets->shape, logits->shape, sizeof *logits->shape * (size_t)n))
        return soma__mistake(g, "cross_entropy of logits %s with targets %s %s", soma__shape_text(a, logits),
                             soma_dtype_name(targets->dtype), soma__shape_text(b, targets));
    soma_tensor *t = soma__node(g, SOMA_OP_CROSS_ENTROPY, SOMA_F32, n, targets->shape);
    t->src[0] = logits;
    t->src[1] = targets;
    return t;
}

void soma__grad_cross_entropy(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *d = soma__node(t->graph, SOMA_OP_CROSS_ENTROPY_GRAD, SOMA_F32, t->src[0]->n_dims, t->src[0]->shape);
    d->src[0] = t->src[0];
    d->src[1] = t->src[1];
    d->src[2] = dy;
    dsrc[0] = d;
}
