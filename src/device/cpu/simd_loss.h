// SPDX-License-Identifier: Apache-2.0
// Cross-entropy and its gradient on vectors, a row of logits at a time. Sums go over blocks, which are added in double: a vocabulary has
// hundreds of thousands of entries.
#include "device/cpu/fast.h"
#include "device/cpu/simd_convert.h"
#include "device/cpu/simd_math.h"

#include <math.h>
#include <string.h>

enum { LOSS_BLOCK = 2048 }; // values added up in f32

typedef struct loss {
    const float *logits, *dy;
    const int32_t *targets;
    float *out;
    int64_t n, V;
} loss;

// log sum exp; *top is the largest.
static double log_sum(const float *x, int64_t V, float *top) {
    vf largest = vf_set(-__builtin_inff());
    SIMD_EACH(i, w, V) largest = vf_max(largest, w == VW ? vf_load(x + i) : vf_pick(vm_first((int)w), vf_get(x + i, (int)w), largest));
    *top = vf_largest(largest);
    double all = 0;
    for (int64_t from = 0; from < V; from += LOSS_BLOCK) {
        const float *p = x + from;
        const int64_t n = SOMA_MIN(LOSS_BLOCK, V - from);
        vf sum = vf_set(0);
        SIMD_EACH(i, w, n) {
            const vf e = vf_exp_below(vf_get(p + i, (int)w) - vf_set(*top));
            sum += w == VW ? e : vf_pick(vm_first((int)w), e, vf_set(0));
        }
        all += (double)vf_sum(sum);
    }
    return (double)*top + log(all);
}

static void loss_item(void *ctx, int64_t r, int thread) {
    const loss *l = ctx;
    const float *x = l->logits + r * l->V;
    const int32_t id = l->targets[r];
    float top;
    l->out[r] = id < 0 || id >= l->V ? 0 : (float)(log_sum(x, l->V, &top) - (double)x[id]);
}

void SIMD_NAME(cpu_cross_entropy)(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    loss l = {.logits = cpu_at(run, t->src[0]), .targets = cpu_at(run, t->src[1]), .out = cpu_at(run, t)};
    l.n = soma__numel(t);
    l.V = t->src[0]->shape[t->src[0]->n_dims - 1];
    soma__pool_run(run->pool, l.n, loss_item, &l);
}

static void loss_grad_item(void *ctx, int64_t r, int thread) {
    const loss *l = ctx;
    const float *x = l->logits + r * l->V;
    float *out = l->out + r * l->V, top;
    const int32_t id = l->targets[r];
    const float dy = id < 0 || id >= l->V ? 0 : l->dy[r];
    if (dy == 0) {
        memset(out, 0, (size_t)l->V * sizeof *out);
        return;
    }
    const double all = log_sum(x, l->V, &top);
    const vf largest = vf_set(top), scale = vf_set((float)((double)dy * exp((double)top - all)));
    SIMD_EACH(i, w, l->V) vf_put(out + i, vf_exp_below(vf_get(x + i, (int)w) - largest) * scale, (int)w);
    out[id] -= dy;
}

void SIMD_NAME(cpu_cross_entropy_grad)(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    loss l = {.logits = cpu_at(run, t->src[0]), .targets = cpu_at(run, t->src[1]), .dy = cpu_at(run, t->src[2]), .out = cpu_at(run, t)};
    l.V = t->shape[t->n_dims - 1];
    l.n = soma__numel(t) / l.V;
    soma__pool_run(run->pool, l.n, loss_grad_item, &l);
}
