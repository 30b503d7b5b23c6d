// SPDX-License-Identifier: Apache-2.0
// Plain convolution, its transpose and its gradient, pooling, softmax: every place of the window by itself, sums in double.
#include "device/cpu/plain.h"

static float rounded(float x, soma_dtype product) { return product == SOMA_BF16 ? cpu_from_bf16(cpu_to_bf16(x)) : x; }

typedef struct {
    const void *data;
    const soma_tensor *t;
    soma_dtype product;
} picture;

static picture picture_of(const cpu_run *run, const soma_tensor *t, soma_dtype product) {
    return (picture){t ? cpu_at(run, t) : NULL, t, product};
}

static double at(const picture *p, int64_t i, int64_t j, int64_t k, int64_t l) {
    const int64_t *s = p->t->stride;
    return rounded(plain_load(p->data, p->t->dtype, i * s[0] + j * s[1] + k * s[2] + l * s[3]), p->product);
}

static bool inside(int64_t i, int64_t length) { return i >= 0 && i < length; }

void plain_conv(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *bias = t->src[2];
    const soma_window *v = &t->p.conv.window;
    const picture x = picture_of(run, t->src[0], t->p.conv.product), w = picture_of(run, t->src[1], t->p.conv.product);
    const int64_t H = x.t->shape[1], W = x.t->shape[2], C = x.t->shape[3];
    int64_t i[SOMA_MAX_DIMS] = {0}, o = 0;
    do {
        double sum = bias ? plain_load(cpu_at(run, bias), bias->dtype, i[3] * bias->stride[0]) : 0;
        for (int64_t a = 0; a < v->size[0]; a++)
            for (int64_t b = 0; b < v->size[1]; b++) {
                const int64_t y = i[1] * v->stride[0] + a - v->pad[0], z = i[2] * v->stride[1] + b - v->pad[1];
                if (!inside(y, H) || !inside(z, W)) continue;
                for (int64_t c = 0; c < C; c++) sum += at(&x, i[0], y, z, c) * at(&w, i[3], c, a, b);
            }
        plain_save(cpu_at(run, t), t->dtype, o++, (float)sum);
    } while (plain_next(i, t->shape, 4));
}

// A place of the result gets, by each place (a, b) of the window, from the pixel whose window lies so, if there is one.
void plain_conv_transposed(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *bias = t->src[2];
    const soma_window *v = &t->p.conv.window;
    const picture x = picture_of(run, t->src[0], t->p.conv.product), w = picture_of(run, t->src[1], t->p.conv.product);
    const int64_t H = x.t->shape[1], W = x.t->shape[2], O = x.t->shape[3];
    int64_t i[SOMA_MAX_DIMS] = {0}, o = 0;
    do {
        double sum = bias ? plain_load(cpu_at(run, bias), bias->dtype, i[3] * bias->stride[0]) : 0;
        for (int64_t a = 0; a < v->size[0]; a++)
            for (int64_t b = 0; b < v->size[1]; b++) {
                const int64_t y = i[1] + v->pad[0] - a, z = i[2] + v->pad[1] - b;
                if (y % v->stride[0] || z % v->stride[1] || !inside(y / v->stride[0], H) || !inside(z / v->stride[1], W)) continue;
                for (int64_t c = 0; c < O; c++) sum += at(&x, i[0], y / v->stride[0], z / v->stride[1], c) * at(&w, c, i[3], a, b);
            }
        plain_save(cpu_at(run, t), t->dtype, o++, (float)sum);
    } while (plain_next(i, t->shape, 4));
}

void plain_conv_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    const soma_window *v = &t->p.conv.window;
    const picture x = picture_of(run, t->src[0], t->p.conv.product), dy = picture_of(run, t->src[1], t->p.conv.product);
    const int64_t H = x.t->shape[1], W = x.t->shape[2];
    float *out = cpu_at(run, t);
    int64_t i[SOMA_MAX_DIMS] = {0};
    do {
        double sum = 0;
        for (int64_t n = 0; n < dy.t->shape[0]; n++)
            for (int64_t j = 0; j < dy.t->shape[1]; j++)
                for (int64_t k = 0; k < dy.t->shape[2]; k++) {
                    const int64_t y = j * v->stride[0] + i[2] - v->pad[0], z = k * v->stride[1] + i[3] - v->pad[1];
                    if (inside(y, H) && inside(z, W)) sum += at(&x, n, y, z, i[1]) * at(&dy, n, j, k, i[0]);
                }
        *out++ = (float)sum;
    } while (plain_next(i, t->shape, 4));
}

// The largest value of the window at i, and the first place [2] that has it; a NaN counts as larger than all.
static float largest(const picture *x, const soma_window *v, const int64_t i[4], int64_t place[2]) {
    bool any = false;
    float top = 0;
    for (int64_t a = 0; a < v->size[0]; a++)
        for (int64_t b = 0; b < v->size[1]; b++) {
            const int64_t y = i[1] * v->stride[0] + a - v->pad[0], z = i[2] * v->stride[1] + b - v->pad[1];
            if (!inside(y, x->t->shape[1]) || !inside(z, x->t->shape[2])) continue;
            const float value = (float)at(x, i[0], y, z, i[3]);
            if (any && !(value > top) && !isnan(value)) continue;
            any = true;
            top = value;
            place[0] = y;
            place[1] = z;
        }
    return top;
}

void plain_max_pool(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    const picture x = picture_of(run, t->src[0], SOMA_F32);
    int64_t i[SOMA_MAX_DIMS] = {0}, place[2], o = 0;
    do plain_save(cpu_at(run, t), t->dtype, o++, largest(&x, &t->p.conv.window, i, place));
    while (plain_next(i, t->shape, 4));
}

void plain_max_pool_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    const picture x = picture_of(run, t->src[0], SOMA_F32), dy = picture_of(run, t->src[1], SOMA_F32);
    float *out = cpu_at(run, t);
    int64_t i[SOMA_MAX_DIMS] = {0}, place[2];
    memset(out, 0, sizeof *out * (size_t)soma__numel(t));
    do {
        largest(&x, &t->p.conv.window, i, place);
        out[((i[0] * t->shape[1] + place[0]) * t->shape[2] + place[1]) * t->shape[3] + i[3]] += (float)at(&dy, i[0], i[1], i[2], i[3]);
    } while (plain_next(i, dy.t->shape, 4));
}

void plain_softmax(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    const void *data = cpu_at(run, x);
    const int64_t D = t->shape[t->n_dims - 1], s = x->stride[x->n_dims - 1], n = soma__numel(t) / D;
    float *out = cpu_at(run, t);
    for (int64_t r = 0; r < n; r++, out += D) {
        const int64_t row = plain_row(x, r);
        double top = -INFINITY, sum = 0;
        for (int64_t d = 0; d < D; d++) top = fmax(top, plain_load(data, x->dtype, row + d * s));
        for (int64_t d = 0; d < D; d++) sum += exp(plain_load(data, x->dtype, row + d * s) - top);
        for (int64_t d = 0; d < D; d++) out[d] = (float)(exp(plain_load(data, x->dtype, row + d * s) - top) / sum);
    }
}
