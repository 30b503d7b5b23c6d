// SPDX-License-Identifier: Apache-2.0
// A chain of element-wise nodes in one pass: blocks of 1024 elements are fetched from the outside tensors (converted to f32, broadcast,
// gathered from strided views), go through the nodes in a cache-sized scratch, and the last node's block is stored. A contiguous f32
// tensor is read, and an f32 result written, where it lies.
#include "device/cpu/fast.h"
#include "device/cpu/fast_elementwise.h"
#include "device/cpu/simd_convert.h"
#include "device/cpu/simd_math.h"

// ---- outside tensors

static float one(const void *p, soma_dtype dtype, int64_t i) {
    switch (dtype) {
    case SOMA_F32: return ((const float *)p)[i];
    case SOMA_BF16: return cpu_from_bf16(((const uint16_t *)p)[i]);
    case SOMA_I32: return (float)((const int32_t *)p)[i];
    default: return (float)((const uint8_t *)p)[i];
    }
}

static void fill(float *out, float x, int64_t n) {
    int64_t i = 0;
    for (; i + VW <= n; i += VW) vf_store(out + i, vf_set(x));
    for (; i < n; i++) out[i] = x;
}

// n elements, `step` apart, from number `at` on.
static void fetch_run(float *out, const operand *o, int64_t at, int64_t step, int64_t n) {
    const char *data = (const char *)o->data + at * (int64_t)soma_dtype_size(o->dtype);
    if (step == 1)
        simd_widen(out, data, o->dtype, n);
    else if (step == 0)
        fill(out, one(data, o->dtype, 0), n);
    else
        for (int64_t i = 0; i < n; i++) out[i] = one(data, o->dtype, i * step);
}

// n elements of a row of `length` that is repeated, beginning with its element `first`: once from memory, then from there.
static void fetch_repeated(float *out, const operand *o, int64_t row, int64_t step, int64_t length, int64_t first, int64_t n) {
    const int64_t head = SOMA_MIN(n, length - first), tail = SOMA_MIN(n - head, first);
    fetch_run(out, o, row + first * step, step, head);
    fetch_run(out + head, o, row, step, tail);
    for (int64_t have = head + tail, more; have < n; have += more) {
        more = SOMA_MIN(have, n - have);
        memcpy(out + have, out, (size_t)more * 4);
    }
}

// Elements [start, start + n) of the output's order into out.
static void fetch(float *out, const operand *o, int64_t start, int64_t n) {
    const int last = o->n_dims - 1;
    int64_t index[SOMA_MAX_DIMS], at = 0, rest = start;
    for (int d = last; d >= 0; d--) {
        index[d] = rest % o->shape[d];
        rest /= o->shape[d];
        at += index[d] * o->stride[d];
    }
    const int64_t step = o->stride[last];
    // rows that are repeated (the channels of a picture, say) are one run
    const bool repeated = last > 0 && o->stride[last - 1] == 0;
    while (n > 0) {
        const int64_t left = o->shape[last] - index[last];
        const int64_t run = SOMA_MIN(n, repeated ? left + (o->shape[last - 1] - index[last - 1] - 1) * o->shape[last] : left);
        at -= index[last] * step; // its row's first
        if (repeated)
            fetch_repeated(out, o, at, step, o->shape[last], index[last], run);
        else
            fetch_run(out, o, at + index[last] * step, step, run);
        out += run;
        n -= run;
        index[last] = 0; // to the next row
        if (repeated) index[last - 1] = o->shape[last - 1] - 1;
        for (int d = last - 1; d >= 0; d--) {
            at += o->stride[d];
            if (++index[d] < o->shape[d]) break;
            at -= o->shape[d] * o->stride[d];
            index[d] = 0;
        }
    }
}

// ---- nodes

#define EACH(result)                                                   \
    do {                                                               \
        int64_t i = 0;                                                 \
        for (; i + VW <= n; i += VW) {                                 \
            const vf x = vf_load(a + i), y = vf_load(b + i);           \
            (void)y;                                                   \
            vf_store(out + i, result);                                 \
        }                                                              \
        if (i < n) {                                                   \
            const int w = (int)(n - i);                                \
            const vf x = vf_load_n(a + i, w), y = vf_load_n(b + i, w); \
            (void)y;                                                   \
            vf_store_n(out + i, result, w);                            \
        }                                                              \
    } while (0)

// tanh(log(1 + e)) with e = exp(x) is e (e + 2) / (e (e + 2) + 2): no logarithm, and no cancellation where e is small. 1 above 20.
SIMD_INLINE vf squashed(vf x) {
    const vf top = vf_set(20), e = vf_exp(vf_pick(vm_less(x, top), x, top)), n = e * (e + vf_set(2));
    return n / (n + vf_set(2));
}
SIMD_INLINE vf mish_slope(vf x) {
    const vf s = squashed(x);
    return vf_fma(x * vf_sigmoid(x), vf_set(1) - s * s, s);
}

static void unary(soma_unary f, float *out, const float *a, int64_t n) {
    const float *b = a;
    const vf zero = vf_set(0);
    switch (f) {
    case SOMA_UNARY_EXP: EACH(vf_exp(x)); break;
    case SOMA_UNARY_LOG: EACH(vf_log(x)); break;
    case SOMA_UNARY_SQRT: EACH(vf_sqrt(x)); break;
    case SOMA_UNARY_SQUARE: EACH(x * x); break;
    case SOMA_UNARY_TANH: EACH(vf_tanh(x)); break;
    case SOMA_UNARY_SIGMOID: EACH(vf_sigmoid(x)); break;
    case SOMA_UNARY_SILU: EACH(x * vf_sigmoid(x)); break;
    case SOMA_UNARY_GELU: EACH(vf_gelu(x)); break;
    case SOMA_UNARY_RELU: EACH(vf_pick(vm_less(zero, x), x, zero)); break;
    case SOMA_UNARY_MISH: EACH(x * squashed(x)); break;
    case SOMA_UNARY_COUNT: break;
    }
}

SIMD_INLINE vf tanh_slope(vf x) {
    const vf t = vf_tanh(x);
    return vf_set(1) - t * t;
}
SIMD_INLINE vf sigmoid_slope(vf x) {
    const vf s = vf_sigmoid(x);
    return s * (vf_set(1) - s);
}
SIMD_INLINE vf silu_slope(vf x) {
    const vf s = vf_sigmoid(x);
    return s * vf_fma(x, vf_set(1) - s, vf_set(1));
}

static void unary_grad(soma_unary f, float *out, const float *a, const float *b, int64_t n) { // y: gradient of the result
    const vf zero = vf_set(0);
    switch (f) {
    case SOMA_UNARY_EXP: EACH(y * vf_exp(x)); break;
    case SOMA_UNARY_LOG: EACH(y / x); break;
    case SOMA_UNARY_SQRT: EACH(y * (vf_set(0.5f) / vf_sqrt(x))); break;
    case SOMA_UNARY_SQUARE: EACH(y * (x + x)); break;
    case SOMA_UNARY_TANH: EACH(y * tanh_slope(x)); break;
    case SOMA_UNARY_SIGMOID: EACH(y * sigmoid_slope(x)); break;
    case SOMA_UNARY_SILU: EACH(y * silu_slope(x)); break;
    case SOMA_UNARY_GELU: EACH(y * vf_gelu_slope(x)); break;
    case SOMA_UNARY_RELU: EACH(vf_pick(vm_less(zero, x), y, zero)); break;
    case SOMA_UNARY_MISH: EACH(y * mish_slope(x)); break;
    case SOMA_UNARY_COUNT: break;
    }
}

static void apply(const instruction *in, float *out, const float *a, const float *b, int64_t n) {
    const soma_tensor *t = in->node;
    const vf scale = vf_set(t->p.affine.scale), shift = vf_set(t->p.affine.shift);
    switch (t->op) {
    case SOMA_OP_ADD: EACH(x + y); break;
    case SOMA_OP_SUB: EACH(x - y); break;
    case SOMA_OP_MUL: EACH(x * y); break;
    case SOMA_OP_DIV: EACH(x / y); break;
    case SOMA_OP_AFFINE: EACH(vf_fma(scale, x, shift)); break;
    case SOMA_OP_UNARY: unary(t->p.unary.f, out, a, n); break;
    case SOMA_OP_UNARY_GRAD: unary_grad(t->p.unary.f, out, a, b, n); break;
    case SOMA_OP_CONSTANT: fill(out, t->p.constant.value, n); break;
    default: memmove(out, a, (size_t)n * 4); // COPY
    }
}

// ---- blocks

static void store(void *out, soma_dtype dtype, int64_t at, const float *x, int64_t n) {
    if (dtype == SOMA_BF16)
        simd_narrow((uint16_t *)out + at, dtype, x, n);
    else
        for (int64_t i = 0; i < n; i++) ((uint8_t *)out)[at + i] = (uint8_t)x[i];
}

// Results that no cache will hold go to memory past the caches: what is written is not read first.
static void stream(float *out, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + VW <= n; i += VW) vf_stream(out + i, vf_load(x + i));
    for (; i < n; i++) out[i] = x[i];
}

// head: the product's values, where the chain follows one. What was streamed wants a vf_fence() before another thread is told that it is
// there.
static void run_block(const program *p, float *slots, const float *head, int64_t start, int64_t n) {
    const float *values[MAX_VALUES];
    const bool direct_out = p->out_dtype == SOMA_F32 && !p->streams;
    for (int i = 0; i < p->n_instructions; i++) {
        const instruction *in = &p->instructions[i];
        const bool last = i + 1 == p->n_instructions;
        float *out = last && direct_out ? (float *)p->out + start : slots + in->slot * ELEMENTWISE_BLOCK;
        values[in->value] = out;
        if (!in->outside)
            apply(in, out, values[in->a], values[in->b], n);
        else if (p->head && in->outside->tensor == p->head)
            values[in->value] = head;
        else if (in->outside->direct && !last)
            values[in->value] = (const float *)in->outside->data + start;
        else
            fetch(out, in->outside, start, n);
    }
    if (p->streams)
        stream((float *)p->out + start, values[p->instructions[p->n_instructions - 1].value], n);
    else if (!direct_out)
        store(p->out, p->out_dtype, start, values[p->instructions[p->n_instructions - 1].value], n);
}

static void item(void *ctx, int64_t i, int thread) {
    const program *p = ctx;
    float *slots = (float *)(p->run->threads_space + (size_t)thread * p->run->thread_size);
    const int64_t end = SOMA_MIN(p->numel, (i + 1) * ELEMENTWISE_ITEM);
    for (int64_t at = i * ELEMENTWISE_ITEM; at < end; at += ELEMENTWISE_BLOCK)
        run_block(p, slots, NULL, at, SOMA_MIN(ELEMENTWISE_BLOCK, end - at));
    if (p->streams) vf_fence();
}

void SIMD_NAME(cpu_elementwise)(const cpu_run *run, const soma_step *step) {
    program p;
    if (!cpu_program_new(&p, run, step)) return; // was refused by the chooser
    soma__pool_run(run->pool, (p.numel + ELEMENTWISE_ITEM - 1) / ELEMENTWISE_ITEM, item, &p);
}

void SIMD_NAME(cpu_tail_run)(const cpu_tail *tail, float *slots, const float *x, int64_t ld, int64_t at, int64_t rows, int64_t cols) {
    const bool one = ld == cols && tail->N == cols; // the rows lie behind one another, here and there
    for (int64_t r = 0; r < (one ? 1 : rows); r++)
        for (int64_t c = 0, n = one ? rows * cols : cols; c < n; c += ELEMENTWISE_BLOCK)
            run_block(&tail->program, slots, x + r * ld + c, at + r * tail->N + c, SOMA_MIN(ELEMENTWISE_BLOCK, n - c));
}
