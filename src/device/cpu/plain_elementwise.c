// SPDX-License-Identifier: Apache-2.0
// The specification of element-wise ops: each output element is worked out from the chain's last node down, in float.
#include "device/cpu/drop.h"
#include "device/cpu/plain.h"

// tanh(log(1 + exp(x))), of which 1 is all that is left above 20
static float squashed(float x) { return x > 20 ? 1 : tanhf(log1pf(expf(x))); }

static float unary(soma_unary f, float x) {
    switch (f) {
    case SOMA_UNARY_EXP: return expf(x);
    case SOMA_UNARY_LOG: return logf(x);
    case SOMA_UNARY_SQRT: return sqrtf(x);
    case SOMA_UNARY_SQUARE: return x * x;
    case SOMA_UNARY_TANH: return tanhf(x);
    case SOMA_UNARY_SIGMOID: return 1 / (1 + expf(-x));
    case SOMA_UNARY_SILU: return x / (1 + expf(-x));
    case SOMA_UNARY_GELU: return 0.5f * x * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    case SOMA_UNARY_RELU: return x > 0 ? x : 0;
    case SOMA_UNARY_MISH: return x * squashed(x);
    case SOMA_UNARY_COUNT: break;
    }
    return 0;
}

static float unary_slope(soma_unary f, float x) {
    float s;
    switch (f) {
    case SOMA_UNARY_EXP: return expf(x);
    case SOMA_UNARY_LOG: return 1 / x;
    case SOMA_UNARY_SQRT: return 0.5f / sqrtf(x);
    case SOMA_UNARY_SQUARE: return 2 * x;
    case SOMA_UNARY_TANH: return 1 - tanhf(x) * tanhf(x);
    case SOMA_UNARY_SIGMOID: s = 1 / (1 + expf(-x)); return s * (1 - s);
    case SOMA_UNARY_SILU: s = 1 / (1 + expf(-x)); return s * (1 + x * (1 - s));
    case SOMA_UNARY_GELU: {
        float t = tanhf(0.7978845608f * (x + 0.044715f * x * x * x));
        return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 3 * 0.044715f * x * x);
    }
    case SOMA_UNARY_RELU: return x > 0 ? 1 : 0;
    case SOMA_UNARY_MISH: s = squashed(x); return s + x * (1 - s * s) / (1 + expf(-x));
    case SOMA_UNARY_COUNT: break;
    }
    return 0;
}

static float value(const cpu_run *run, const soma_step *step, const soma_tensor *t, const int64_t *index, int n_dims);

// A source is worked out when it belongs to the chain and loaded when it does not.
static float source(const cpu_run *run, const soma_step *step, const soma_tensor *t, const int64_t *index, int n_dims) {
    for (int i = 0; i + 1 < step->n_nodes; i++)
        if (step->nodes[i] == t) return value(run, step, t, index, n_dims);
    return plain_load(cpu_at(run, t), t->dtype, plain_offset(t, index, n_dims));
}

static float value(const cpu_run *run, const soma_step *step, const soma_tensor *t, const int64_t *index, int n_dims) {
    if (t->op == SOMA_OP_CONSTANT) return t->p.constant.value;
    float x = source(run, step, t->src[0], index, n_dims);
    float y = t->src[1] ? source(run, step, t->src[1], index, n_dims) : 0;
    switch (t->op) {
    case SOMA_OP_ADD: return x + y;
    case SOMA_OP_SUB: return x - y;
    case SOMA_OP_MUL: return x * y;
    case SOMA_OP_DIV: return x / y;
    case SOMA_OP_AFFINE: return t->p.affine.scale * x + t->p.affine.shift;
    case SOMA_OP_UNARY: return unary(t->p.unary.f, x);
    case SOMA_OP_UNARY_GRAD: return y * unary_slope(t->p.unary.f, x);
    default: return x; // COPY
    }
}

void plain_elementwise(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[step->n_nodes - 1];
    void *out = cpu_at(run, t);
    int64_t index[SOMA_MAX_DIMS] = {0}, i = 0;
    do plain_save(out, t->dtype, i++, value(run, step, t, index, t->n_dims));
    while (plain_next(index, t->shape, t->n_dims));
}

void plain_dropout(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    const cpu_drop drop = cpu_drop_of(run, t->src[1], t->p.drop);
    const void *from = cpu_at(run, x);
    void *out = cpu_at(run, t);
    int64_t index[SOMA_MAX_DIMS] = {0}, i = 0;
    do {
        plain_save(out, t->dtype, i, cpu_dropped(&drop, (uint32_t)i, plain_load(from, x->dtype, plain_offset(x, index, t->n_dims))));
        i++;
    } while (plain_next(index, t->shape, t->n_dims));
}
