// SPDX-License-Identifier: Apache-2.0
// Plain rotary positions and attention. One query head at a time, the whole row of scores in the thread's workspace.
#include "device/cpu/drop.h"
#include "device/cpu/plain.h"

void plain_rope(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0], *pos = t->src[1];
    const void *from = cpu_at(run, x);
    const int32_t *p = cpu_at(run, pos);
    void *out = cpu_at(run, t);
    int64_t B = x->shape[0], T = x->shape[1], H = x->shape[2], K = x->shape[3], o = 0;
    for (int64_t b = 0; b < B; b++)
        for (int64_t i = 0; i < T; i++)
            for (int64_t h = 0; h < H; h++, o += K)
                for (int64_t j = 0; j < K / 2; j++) {
                    // as the references round it: at position 800 another last bit of the frequency turns an f32 key by 1e-4
                    float angle = (float)p[b * pos->stride[0] + i * pos->stride[1]] * (1 / powf(t->p.rope.theta, 2 * (float)j / (float)K));
                    float c = cosf(angle), s = (float)t->p.rope.sign * sinf(angle);
                    int64_t at = b * x->stride[0] + i * x->stride[1] + h * x->stride[2];
                    float x1 = plain_load(from, x->dtype, at + j * x->stride[3]),
                          x2 = plain_load(from, x->dtype, at + (j + K / 2) * x->stride[3]);
                    plain_save(out, t->dtype, o + j, x1 * c - x2 * s);
                    plain_save(out, t->dtype, o + j + K / 2, x2 * c + x1 * s);
                }
}

typedef struct {
    const soma_tensor *q, *k, *v;
    const void *pq, *pk, *pv;
    const soma_tensor *q_block, *k_block;
    const int32_t *bq, *bk;
    int64_t B, T, H, S, KV, K;
    float scale;
    bool round, drops;
    cpu_drop drop;
} attention;

static attention open_attention(const cpu_run *run, const soma_tensor *t) {
    const soma_tensor *q = t->src[0], *k = t->src[1], *v = t->src[2];
    const soma_tensor *key = t->src[7];
    return (attention){q,
                       k,
                       v,
                       cpu_at(run, q),
                       cpu_at(run, k),
                       cpu_at(run, v),
                       t->src[3],
                       t->src[4],
                       cpu_at(run, t->src[3]),
                       cpu_at(run, t->src[4]),
                       q->shape[0],
                       q->shape[1],
                       q->shape[2],
                       k->shape[1],
                       k->shape[2],
                       q->shape[3],
                       t->p.attention.scale,
                       t->p.attention.product == SOMA_BF16,
                       key,
                       key ? cpu_drop_of(run, key, t->p.attention.drop) : (cpu_drop){{0}, 0, 0}};
}

static float load(const attention *a, const soma_tensor *t, const void *data, int64_t b, int64_t i, int64_t h, int64_t d) {
    float x = plain_load(data, t->dtype, b * t->stride[0] + i * t->stride[1] + h * t->stride[2] + d * t->stride[3]);
    return a->round ? cpu_from_bf16(cpu_to_bf16(x)) : x;
}

// The probabilities of query (b, i, h) over all keys; all zero when it sees none.
static void probabilities(const attention *a, int64_t b, int64_t i, int64_t h, float *p) {
    int64_t kv = h / (a->H / a->KV);
    int32_t mine = a->bq[b * a->q_block->stride[0] + i * a->q_block->stride[1]];
    float top = -INFINITY;
    for (int64_t j = 0; j < a->S; j++) {
        p[j] = -INFINITY;
        if (a->bk[b * a->k_block->stride[0] + j * a->k_block->stride[1]] > mine) continue;
        double dot = 0;
        for (int64_t d = 0; d < a->K; d++) dot += (double)load(a, a->q, a->pq, b, i, h, d) * load(a, a->k, a->pk, b, j, kv, d);
        p[j] = (float)dot * a->scale;
        top = fmaxf(top, p[j]);
    }
    double sum = 0;
    for (int64_t j = 0; j < a->S; j++) sum += p[j] = p[j] == -INFINITY ? 0 : expf(p[j] - top);
    for (int64_t j = 0; sum > 0 && j < a->S; j++) p[j] = (float)(p[j] / sum);
}

// What of key j's probability (or of its gradient) takes part for query (b, i, h).
static float dropped(const attention *a, int64_t b, int64_t i, int64_t h, int64_t j, float p) {
    return a->drops ? cpu_dropped(&a->drop, (uint32_t)(((b * a->H + h) * a->T + i) * a->S + j), p) : p;
}

void plain_attention(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0];
    attention a = open_attention(run, t);
    float *p = (float *)run->shared;
    void *out = cpu_at(run, t);
    int64_t o = 0;
    for (int64_t b = 0; b < a.B; b++)
        for (int64_t i = 0; i < a.T; i++)
            for (int64_t h = 0; h < a.H; h++) {
                probabilities(&a, b, i, h, p);
                for (int64_t d = 0; d < a.K; d++) {
                    double sum = 0;
                    for (int64_t j = 0; j < a.S; j++)
                        if (p[j] > 0) sum += (double)dropped(&a, b, i, h, j, p[j]) * load(&a, a.v, a.pv, b, j, h / (a.H / a.KV), d);
                    plain_save(out, t->dtype, o++, (float)sum);
                }
            }
}

// With P the probabilities and M what dropout makes of them: dV = M(P)^T dO; dP = M(dO V^T); dS = P (dP - sum_j P dP); dQ = scale dS K; dK
// = scale dS^T Q
void plain_attention_grad(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *dout = t->src[5];
    attention a = open_attention(run, t);
    const void *pd = cpu_at(run, dout);
    float *p = (float *)run->shared, *dp = p + a.S;
    float *dq = cpu_at(run, t), *dk = dq + soma__numel(a.q), *dv = dk + soma__numel(a.k);
    memset(dq, 0, (size_t)soma__numel(t) * sizeof *dq);
    for (int64_t b = 0; b < a.B; b++)
        for (int64_t i = 0; i < a.T; i++)
            for (int64_t h = 0; h < a.H; h++) {
                int64_t kv = h / (a.H / a.KV), iq = ((b * a.T + i) * a.H + h) * a.K;
                probabilities(&a, b, i, h, p);
                double mean = 0;
                for (int64_t j = 0; j < a.S; j++) {
                    double dot = 0;
                    for (int64_t d = 0; p[j] > 0 && d < a.K; d++)
                        dot += (double)load(&a, dout, pd, b, i, h, d) * load(&a, a.v, a.pv, b, j, kv, d);
                    dp[j] = dropped(&a, b, i, h, j, (float)dot);
                    mean += (double)dp[j] * p[j];
                }
                for (int64_t j = 0; j < a.S; j++) {
                    if (!(p[j] > 0)) continue;
                    float ds = p[j] * (dp[j] - (float)mean) * a.scale, seen = dropped(&a, b, i, h, j, p[j]);
                    int64_t ik = ((b * a.S + j) * a.KV + kv) * a.K;
                    for (int64_t d = 0; d < a.K; d++) {
                        dq[iq + d] += ds * load(&a, a.k, a.pk, b, j, kv, d);
                        dk[ik + d] += ds * load(&a, a.q, a.pq, b, i, h, d);
                        dv[ik + d] += seen * load(&a, dout, pd, b, i, h, d);
                    }
                }
            }
}
