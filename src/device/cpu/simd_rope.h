// SPDX-License-Identifier: Apache-2.0
// Rotary positions: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), the halves of a head. Frequencies are worked out once, cosines and
// sines once for each token, for all heads.
#include "device/cpu/fast.h"
#include "device/cpu/simd_convert.h"
#include "device/cpu/simd_math.h"

#include <math.h>

enum { ROPE_TOKENS = 32 }; // taken by a thread at once

typedef struct rope {
    const cpu_run *run;
    const soma_tensor *x, *pos, *out;
    float *frequency; // [K / 2]
} rope;

static void turns(const rope *r, float position, float *cosine, float *sine, int64_t half) {
    const vf sign = vf_set((float)r->out->p.rope.sign);
    SIMD_EACH(j, w, half) {
        vf s, c;
        vf_sincos(vf_get(r->frequency + j, (int)w) * vf_set(position), &s, &c);
        vf_put(sine + j, s * sign, (int)w);
        vf_put(cosine + j, c, (int)w);
    }
    if (fabsf(position) > VF_MAX_ANGLE)
        for (int64_t j = 0; j < half; j++) {
            cosine[j] = cosf(position * r->frequency[j]);
            sine[j] = (float)r->out->p.rope.sign * sinf(position * r->frequency[j]);
        }
}

static void rope_item(void *ctx, int64_t item, int thread) {
    const rope *r = ctx;
    const soma_tensor *x = r->x, *pos = r->pos;
    const int64_t T = x->shape[1], H = x->shape[2], K = x->shape[3], half = K / 2, n = x->shape[0] * T;
    float *cosine = (float *)(r->run->threads_space + (size_t)thread * r->run->thread_size), *sine = cosine + half, *in = sine + half,
          *turned = in + K;
    const int64_t x_size = (int64_t)soma_dtype_size(x->dtype), end = SOMA_MIN(n, (item + 1) * ROPE_TOKENS);
    for (int64_t t = item * ROPE_TOKENS; t < end; t++) {
        const int64_t b = t / T, i = t % T;
        turns(r, (float)((const int32_t *)cpu_at(r->run, pos))[b * pos->stride[0] + i * pos->stride[1]], cosine, sine, half);
        for (int64_t h = 0; h < H; h++) {
            const void *from = (const char *)cpu_at(r->run, x) + (b * x->stride[0] + i * x->stride[1] + h * x->stride[2]) * x_size;
            char *to = (char *)cpu_at(r->run, r->out) + (t * H + h) * K * (int64_t)soma_dtype_size(r->out->dtype);
            const float *p = from;
            float *o = r->out->dtype == SOMA_F32 ? (float *)to : turned;
            if (x->dtype != SOMA_F32) simd_widen(in, from, x->dtype, K), p = in;
            SIMD_EACH(j, w, half) {
                const vf c = vf_get(cosine + j, (int)w), s = vf_get(sine + j, (int)w);
                const vf x1 = vf_get(p + j, (int)w), x2 = vf_get(p + half + j, (int)w);
                vf_put(o + j, x1 * c - x2 * s, (int)w);
                vf_put(o + half + j, x2 * c + x1 * s, (int)w);
            }
            simd_narrow(to, r->out->dtype, o, K);
        }
    }
}

void SIMD_NAME(cpu_rope)(const cpu_run *run, const soma_step *step) {
    const soma_tensor *t = step->nodes[0], *x = t->src[0];
    rope r = {run, x, t->src[1], t, (float *)run->shared};
    const int64_t K = x->shape[3];
    for (int64_t j = 0; j < K / 2; j++) r.frequency[j] = 1 / powf(t->p.rope.theta, 2 * (float)j / (float)K); // rounded as plain
    soma__pool_run(run->pool, cpu_ceil(x->shape[0] * x->shape[1], ROPE_TOKENS), rope_item, &r);
}
