// SPDX-License-Identifier: Apache-2.0
// Convolutional layers, and what stands between them. Both norms are made of other ops: a frozen batch norm is a scale and a shift for each
// channel; a group norm is a layer norm over a group's channels and places.
#include "nn/conv.h"

#include <math.h>
#include <stdio.h>

soma_tensor *soma_tap_picture(soma_tensor *x, const char *format, ...) {
    if (!x->graph->keep_taps || x->n_dims < 3) return x;
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const bool row = x->n_dims == 3;
    soma_tap(row ? soma_transpose(x) : soma_permute(x, (int[]){0, 3, 1, 2}), "%s", name);
    return x;
}

// ---- convolutions

soma_tensor *soma_conv_2d(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, int size, int stride, int pad, bool bias) {
    const soma_scope *at = soma_scope_in(s, "%s", name);
    const int64_t shape[] = {out, x->shape[x->n_dims - 1], size, size};
    soma_tensor *w = soma_scope_weight(at, "weight", soma_init_normal(sqrt(2.0 / (double)(out * size * size))), 4, shape);
    soma_tensor *b = bias ? soma_scope_weight(at, "bias", soma_init_zero(), 1, &out) : NULL;
    const soma_window window = {.stride = {stride, stride}, .pad = {pad, pad}};
    return soma_conv(soma_cast(x, at->precision.activation), w, b, window, at->precision.product);
}

// [N, T, C] as a picture of one row.
static soma_tensor *as_row(soma_tensor *x) {
    if (x->n_dims != 3) return soma__mistake(x->graph, "a row is [N, T, C]");
    return soma_reshape(x, 4, (int64_t[]){x->shape[0], 1, x->shape[1], x->shape[2]});
}

static soma_tensor *conv_1d(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, int size, int stride, int pad, bool up) {
    const soma_scope *at = soma_scope_in(s, "%s", name);
    x = as_row(x);
    const int64_t C = x->shape[x->n_dims - 1], shape[] = {up ? C : out, up ? out : C, size};
    const double fan_in = (double)(C * size) / (up ? stride : 1); // of each of an upward step's places, a part meets it
    soma_tensor *w = soma_scope_weight(at, "weight", soma_init_normal(1 / sqrt(fan_in)), 3, shape);
    soma_tensor *b = soma_scope_weight(at, "bias", soma_init_zero(), 1, &out);
    w = soma_reshape(w, 4, (int64_t[]){shape[0], shape[1], 1, size});
    x = soma_cast(x, at->precision.activation);
    const soma_window window = {.stride = {1, stride}, .pad = {0, pad}};
    soma_tensor *y =
        up ? soma_conv_transposed(x, w, b, window, (int64_t[]){1, (x->shape[2] - 1) * stride - 2 * pad + size}, at->precision.product)
           : soma_conv(x, w, b, window, at->precision.product);
    if (y->n_dims != 4) return y; // an earlier mistake
    return soma_reshape(y, 3, (int64_t[]){y->shape[0], y->shape[2], y->shape[3]});
}

soma_tensor *soma_conv_1d(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, int size, int stride, int pad) {
    return conv_1d(s, name, x, out, size, stride, pad, false);
}

soma_tensor *soma_conv_1d_up(const soma_scope *s, const char *name, soma_tensor *x, int64_t out, int size, int stride, int pad) {
    return conv_1d(s, name, x, out, size, stride, pad, true);
}

// ---- norms

soma_tensor *soma_group_norm(const soma_scope *s, const char *name, soma_tensor *x, int64_t groups, float eps) {
    const soma_scope *at = soma_scope_in(s, "%s", name);
    const int64_t C = x->shape[x->n_dims - 1], N = x->shape[0], places = soma__numel(x) / (N * C);
    soma_tensor *w = soma_scope_weight(at, "weight", soma_init_one(), 1, &C), *b = soma_scope_weight(at, "bias", soma_init_zero(), 1, &C);
    if (groups < 1 || C % groups) return soma__mistake(s->graph, "%lld channels in %lld groups", (long long)C, (long long)groups);
    const int64_t each = places * (C / groups);
    soma_tensor *h = soma_reshape(x, 4, (int64_t[]){N, places, groups, C / groups});
    h = soma_reshape(soma_permute(h, (int[]){0, 2, 1, 3}), 3, (int64_t[]){N, groups, each});
    h = soma_layer_normalise(h, soma_constant(s->graph, 1, 1, &each), soma_constant(s->graph, 0, 1, &each), eps);
    h = soma_permute(soma_reshape(h, 4, (int64_t[]){N, groups, places, C / groups}), (int[]){0, 2, 1, 3}); // [N, places, G, C/G]
    const int64_t own[] = {groups, C / groups};
    h = soma_add(soma_mul(h, soma_reshape(w, 2, own)), soma_reshape(b, 2, own));
    return soma_reshape(h, x->n_dims, x->shape);
}

soma_tensor *soma_frozen_batch_norm(const soma_scope *s, const char *name, soma_tensor *x, float eps) {
    const soma_scope *at = soma_scope_in(s, "%s", name);
    const int64_t *C = &x->shape[x->n_dims - 1];
    soma_tensor *w = soma_scope_still(at, "weight", soma_init_one(), 1, C), *b = soma_scope_still(at, "bias", soma_init_zero(), 1, C);
    soma_tensor *mean = soma_scope_still(at, "running_mean", soma_init_zero(), 1, C),
                *var = soma_scope_still(at, "running_var", soma_init_one(), 1, C);
    soma_tensor *scale = soma_div(w, soma_apply(soma_affine(var, 1, eps), SOMA_UNARY_SQRT)); // [C]
    return soma_add(soma_mul(x, scale), soma_sub(b, soma_mul(mean, scale)));
}

// ---- ResNet

typedef struct resnet {
    const soma_scope *s;
    const soma_resnet_config *c;
    const char *taps;
} resnet;

static soma_tensor *norm(const resnet *r, const soma_scope *s, const char *name, soma_tensor *x) {
    if (!r->c->group) return soma_frozen_batch_norm(s, name, x, r->c->eps);
    return soma_group_norm(s, name, x, x->shape[x->n_dims - 1] / r->c->group, r->c->eps);
}

static soma_tensor *block(const resnet *r, const soma_scope *s, soma_tensor *x, int64_t width, int stride) {
    soma_tensor *h = soma_apply(norm(r, s, "bn1", soma_conv_2d(s, "conv1", x, width, 3, stride, 1, false)), SOMA_UNARY_RELU);
    h = norm(r, s, "bn2", soma_conv_2d(s, "conv2", h, width, 3, 1, 1, false));
    if (stride != 1 || x->shape[x->n_dims - 1] != width) {
        const soma_scope *down = soma_scope_in(s, "downsample");
        x = norm(r, down, "1", soma_conv_2d(down, "0", x, width, 1, stride, 0, false));
    }
    return soma_apply(soma_add(h, x), SOMA_UNARY_RELU);
}

static soma_tensor *tap(const resnet *r, soma_tensor *x, const char *module) {
    return r->taps ? soma_tap_picture(x, "%s.%s", r->taps, module) : x;
}

soma_tensor *soma_resnet(const soma_scope *s, soma_tensor *x, const soma_resnet_config *c, const char *taps) {
    const resnet r = {s, c, taps};
    const char *const stem[] = {c->numbered ? "0" : "conv1", c->numbered ? "1" : "bn1", c->numbered ? "3" : "maxpool"};
    if (x->n_dims != 4 || x->shape[3] != 3) return soma__mistake(s->graph, "a ResNet takes pictures [N, H, W, 3]");
    x = tap(&r, soma_conv_2d(s, stem[0], x, c->widths[0], 7, 2, 3, false), stem[0]);
    x = tap(&r, norm(&r, s, stem[1], x), stem[1]);
    x = soma_max_pool(soma_apply(x, SOMA_UNARY_RELU), (soma_window){{3, 3}, {2, 2}, {1, 1}});
    tap(&r, x, stem[2]);
    for (int i = 0; i < SOMA_RESNET_STAGES; i++) {
        char stage[16], module[48];
        snprintf(stage, sizeof stage, c->numbered ? "%d" : "layer%d", c->numbered ? i + 4 : i + 1);
        soma_scope_block(s);
        for (int64_t k = 0; k < c->blocks[i]; k++) {
            x = block(&r, soma_scope_in(s, "%s.%d", stage, (int)k), x, c->widths[i], i && !k ? 2 : 1);
            snprintf(module, sizeof module, "%s.%d", stage, (int)k);
            if (!c->numbered) tap(&r, x, module);
        }
        tap(&r, x, stage);
    }
    soma_scope_blocks_end(s);
    return x;
}

int64_t soma_resnet_side(int64_t side) {
    for (int i = 0; i < 5; i++) side = (side + 1) / 2;
    return side;
}
