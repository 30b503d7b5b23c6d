// SPDX-License-Identifier: Apache-2.0
// Plain matrix product, optimiser step and time embedding.
#include "device/cpu/plain.h"

static float rounded(float x, soma_dtype product) { return product == SOMA_BF16 ? cpu_from_bf16(cpu_to_bf16(x)) : x; }

void plain_matmul(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *a = t->src[0], *b = t->src[1], *bias = t->src[2];
    const void *pa = cpu_at(run, a), *pb = cpu_at(run, b), *pc = bias ? cpu_at(run, bias) : NULL;
    void *out = cpu_at(run, t);
    int n = t->n_dims;
    int64_t index[SOMA_MAX_DIMS] = {0}, K = a->shape[n - 1], sa = a->stride[n - 1], sb = b->stride[b->n_dims - 1], o = 0;
    soma_dtype product = t->p.matmul.product;
    do {
        int64_t at = 0, bt = index[n - 1] * b->stride[b->n_dims - 2];
        for (int i = 0; i < n - 1; i++) at += index[i] * a->stride[i];
        for (int i = 0; b->n_dims > 2 && i < n - 2; i++) bt += index[i] * b->stride[i];
        double sum = pc ? plain_load(pc, bias->dtype, index[n - 1] * bias->stride[0]) : 0;
        for (int64_t k = 0; k < K; k++)
            sum +=
                (double)rounded(plain_load(pa, a->dtype, at + k * sa), product) * rounded(plain_load(pb, b->dtype, bt + k * sb), product);
        plain_save(out, t->dtype, o++, (float)sum);
    } while (plain_next(index, t->shape, n));
}

void plain_time_embed(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    const float *time = cpu_at(run, t->src[0]);
    float *out = cpu_at(run, t);
    int64_t half = t->shape[1] / 2;
    for (int64_t b = 0; b < t->shape[0]; b++)
        for (int64_t i = 0; i < half; i++) {
            double period = t->p.time.min_period * pow(t->p.time.max_period / t->p.time.min_period, (double)i / (double)(half - 1));
            double angle = 6.283185307179586 / period * (double)time[b * t->src[0]->stride[0]];
            out[b * 2 * half + i] = (float)sin(angle);
            out[b * 2 * half + half + i] = (float)cos(angle);
        }
}

void plain_adamw(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    float *w = cpu_at(run, t->src[0]), *m = cpu_at(run, t->src[2]), *v = cpu_at(run, t->src[3]);
    float *ema = t->src[4] ? cpu_at(run, t->src[4]) : NULL;
    const float *g = cpu_at(run, t->src[1]), *s = cpu_at(run, t->src[5]), *gscale = cpu_at(run, t->src[6]);
    float lr = s[0], beta1 = s[1], beta2 = s[2], eps = s[3], decay = s[4], c1 = s[5], c2 = s[6], d = s[7];
    int64_t n = soma__numel(t->src[0]);
    for (int64_t i = 0; i < n; i++) {
        float gi = g[i] * gscale[0];
        m[i] = beta1 * m[i] + (1 - beta1) * gi;
        v[i] = beta2 * v[i] + (1 - beta2) * gi * gi;
        w[i] -= lr * (m[i] * c1 / (sqrtf(v[i] * c2) + eps) + decay * w[i]);
        if (ema) ema[i] = d * ema[i] + (1 - d) * w[i];
    }
    *(float *)cpu_at(run, t) = 0;
}
