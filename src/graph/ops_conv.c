// SPDX-License-Identifier: Apache-2.0
// Convolution over channels-last pictures, its transpose, and pooling. A convolution's gradient by its source is the transposed one with
// the same kernel, and the other way round; the gradient by the kernel is one op for both. What has one dimension is a picture of one row.
#include "graph/ops.h"

static bool is_picture(const soma_tensor *x) { return x->n_dims == 4 && (x->dtype == SOMA_F32 || x->dtype == SOMA_BF16); }

// Places of the window along dimension i of a picture; below 1: it does not fit.
static int64_t places(const soma_window *w, int i, int64_t length) {
    if (w->size[i] < 1 || w->stride[i] < 1 || w->pad[i] < 0) return 0;
    const int64_t room = length + 2 * (int64_t)w->pad[i] - w->size[i];
    return room < 0 ? 0 : room / w->stride[i] + 1;
}

static soma_tensor *node_of(soma_op op, soma_tensor *x, soma_tensor *second, soma_tensor *bias, const soma_window *window,
                            const int64_t shape[4]) {
    soma_tensor *t = soma__node(x->graph, op, x->dtype == SOMA_BF16 ? SOMA_BF16 : SOMA_F32, 4, shape);
    if (soma__failed(x->graph)) return t;
    t->src[0] = x;
    t->src[1] = second;
    t->src[2] = bias;
    t->p.conv.window = *window;
    return t;
}

static bool takes(soma_window *window, const soma_tensor *x, const soma_tensor *w, int channels, const soma_tensor *bias) {
    if (!is_picture(x) || w->n_dims != 4 || x->shape[3] != w->shape[channels] || w->shape[2] > INT16_MAX || w->shape[3] > INT16_MAX)
        return false;
    window->size[0] = (int32_t)w->shape[2];
    window->size[1] = (int32_t)w->shape[3];
    return !bias || (bias->n_dims == 1 && bias->shape[0] == w->shape[1 - channels]);
}

soma_tensor *soma_conv(soma_tensor *x, soma_tensor *w, soma_tensor *bias, soma_window window, soma_dtype product) {
    soma_graph *g = x->graph;
    if (soma__failed(g)) return soma__nothing(g);
    char a[96], b[96];
    if (!takes(&window, x, w, 1, bias) || !places(&window, 0, x->shape[1]) || !places(&window, 1, x->shape[2]))
        return soma__mistake(g, "conv of %s with a kernel %s", soma__shape_text(a, x), soma__shape_text(b, w));
    soma_tensor *t = node_of(SOMA_OP_CONV, x, w, bias, &window,
                             (int64_t[]){x->shape[0], places(&window, 0, x->shape[1]), places(&window, 1, x->shape[2]), w->shape[0]});
    t->p.conv.product = product;
    return t;
}

soma_tensor *soma_conv_transposed(soma_tensor *x, soma_tensor *w, soma_tensor *bias, soma_window window, const int64_t out[2],
                                  soma_dtype product) {
    soma_graph *g = x->graph;
    if (soma__failed(g)) return soma__nothing(g);
    char a[96], b[96];
    if (!takes(&window, x, w, 0, bias) || places(&window, 0, out[0]) != x->shape[1] || places(&window, 1, out[1]) != x->shape[2])
        return soma__mistake(g, "transposed conv of %s with a kernel %s to %lld x %lld", soma__shape_text(a, x), soma__shape_text(b, w),
                             (long long)out[0], (long long)out[1]);
    soma_tensor *t = node_of(SOMA_OP_CONV_TRANSPOSED, x, w, bias, &window, (int64_t[]){x->shape[0], out[0], out[1], w->shape[1]});
    t->p.conv.product = product;
    return t;
}

soma_tensor *soma_max_pool(soma_tensor *x, soma_window window) {
    soma_graph *g = x->graph;
    if (soma__failed(g)) return soma__nothing(g);
    char a[96];
    if (!is_picture(x) || !places(&window, 0, x->shape[1]) || !places(&window, 1, x->shape[2]) || window.pad[0] >= window.size[0] ||
        window.pad[1] >= window.size[1])
        return soma__mistake(g, "max_pool of %s over windows of %d x %d", soma__shape_text(a, x), window.size[0], window.size[1]);
    return node_of(SOMA_OP_MAX_POOL, x, NULL, NULL, &window,
                   (int64_t[]){x->shape[0], places(&window, 0, x->shape[1]), places(&window, 1, x->shape[2]), x->shape[3]});
}

// ---- gradients

static soma_tensor *kernel_gradient(const soma_tensor *t, soma_tensor *x, soma_tensor *dy) {
    soma_tensor *d = soma__node(t->graph, SOMA_OP_CONV_GRAD, SOMA_F32, 4, t->src[1]->shape);
    d->src[0] = x;
    d->src[1] = dy;
    d->p = t->p;
    return d;
}

static soma_tensor *bias_gradient(const soma_tensor *t, soma_tensor *dy) {
    return t->src[2] ? soma_reshape(soma_sum(dy, 7), 1, t->src[2]->shape) : NULL;
}

void soma__grad_conv(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    dsrc[0] = soma_conv_transposed(dy, t->src[1], NULL, t->p.conv.window, &t->src[0]->shape[1], t->p.conv.product);
    dsrc[1] = kernel_gradient(t, t->src[0], dy);
    dsrc[2] = bias_gradient(t, dy);
}

void soma__grad_conv_transposed(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    dsrc[0] = soma_conv(dy, t->src[1], NULL, t->p.conv.window, t->p.conv.product);
    dsrc[1] = kernel_gradient(t, dy, t->src[0]);
    dsrc[2] = bias_gradient(t, dy);
}

void soma__grad_max_pool(soma_tensor *t, soma_tensor *dy, soma_tensor **dsrc) {
    soma_tensor *x = t->src[0], *d = node_of(SOMA_OP_MAX_POOL_GRAD, x, dy, NULL, &t->p.conv.window, x->shape);
    d->dtype = SOMA_F32;
    dsrc[0] = d;
}
