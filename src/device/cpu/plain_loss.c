// SPDX-License-Identifier: Apache-2.0
// Plain cross-entropy and its gradient. A target outside the vocabulary counts for nothing: loss 0, gradient 0.
#include "device/cpu/plain.h"

typedef struct {
    const void *data;
    soma_dtype dtype;
    int64_t at, stride, V; // the row's first value
} row;

static row row_of(const cpu_run *run, const soma_tensor *logits, int64_t r) {
    int last = logits->n_dims - 1;
    return (row){cpu_at(run, logits), logits->dtype, plain_row(logits, r), logits->stride[last], logits->shape[last]};
}

static double logit(const row *r, int64_t i) { return (double)plain_load(r->data, r->dtype, r->at + i * r->stride); }

// log sum exp, with the largest taken out
static double log_sum(const row *r) {
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < r->V; i++) top = fmax(top, logit(r, i));
    for (int64_t i = 0; i < r->V; i++) sum += exp(logit(r, i) - top);
    return top + log(sum);
}

// The value of t, which has one per row of the logits, for row r.
static int64_t value_at(const soma_tensor *t, int64_t r) {
    int64_t at = 0;
    for (int i = t->n_dims - 1; i >= 0; r /= t->shape[i--]) at += r % t->shape[i] * t->stride[i];
    return at;
}

void plain_cross_entropy(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *targets = t->src[1];
    const int32_t *target = cpu_at(run, targets);
    float *out = cpu_at(run, t);
    int64_t n = soma__numel(t);
    for (int64_t r = 0; r < n; r++) {
        row x = row_of(run, t->src[0], r);
        int32_t id = target[value_at(targets, r)];
        out[r] = id < 0 || id >= x.V ? 0 : (float)(log_sum(&x) - logit(&x, id));
    }
}

// d/dlogit_i = dy (softmax_i - [i is the target])
void plain_cross_entropy_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *targets = t->src[1], *dys = t->src[2];
    const int32_t *target = cpu_at(run, targets);
    const void *dy = cpu_at(run, dys);
    float *out = cpu_at(run, t);
    int64_t n = soma__numel(targets);
    for (int64_t r = 0; r < n; r++) {
        row x = row_of(run, t->src[0], r);
        int32_t id = target[value_at(targets, r)];
        double scale = id < 0 || id >= x.V ? 0 : (double)plain_load(dy, dys->dtype, value_at(dys, r)), all = scale != 0 ? log_sum(&x) : 0;
        for (int64_t i = 0; i < x.V; i++) out[r * x.V + i] = scale != 0 ? (float)(scale * (exp(logit(&x, i) - all) - (i == id))) : 0;
    }
}
