// SPDX-License-Identifier: Apache-2.0
// The guidance itself, and the loop over the flow's steps that applies it. Formulas: LeRobot's RTC processor (openpi publishes none), and
// Black, Galliker, Levine 2025 for the gradient; time runs from 1 (noise) to 0 here, tau = 1 - t there.
#include "policy/rtc.h"

#include "base/str.h"

#include <math.h>
#include <string.h>

soma_status soma__rtc_mode(soma_rtc_mode *mode, const char *name, soma_error *err) {
    static const char *const words[] = {"guided", "gradient", "trained"};
    int found = -1;
    if (*name) SOMA_TRY(soma__name_parse(&found, words, SOMA_COUNT(words), name, "way of real-time chunking", err));
    *mode = (soma_rtc_mode)(found + 1);
    return SOMA_OK;
}

soma_status soma__rtc_schedule(soma_rtc_schedule *schedule, const char *name, soma_error *err) {
    static const char *const words[] = {"zeros", "ones", "linear", "exp"};
    int found;
    SOMA_TRY(soma__name_parse(&found, words, SOMA_COUNT(words), name, "schedule", err));
    *schedule = (soma_rtc_schedule)found;
    return SOMA_OK;
}

void soma__rtc_weights(float *w, int64_t S, soma_rtc_schedule schedule, int64_t delay, int64_t horizon) {
    const int64_t end = SOMA_MIN(horizon, S), start = SOMA_MIN(delay, end), ramp = end - start + 1;
    for (int64_t i = 0; i < S; i++) {
        const double line = i < start ? 1 : i < end ? 1 - (double)(i - start + 1) / (double)ramp : 0;
        switch (schedule) {
        case SOMA_RTC_ZEROS: w[i] = i < start; break;
        case SOMA_RTC_ONES: w[i] = i < end; break;
        case SOMA_RTC_LINEAR: w[i] = (float)line; break;
        case SOMA_RTC_EXP: w[i] = (float)(line * expm1(line) / (M_E - 1)); break;
        }
    }
}

float soma__rtc_strength(float t, float most) {
    const float tau = 1 - t;
    if (tau <= 0) return most;
    const float r = (t * t + tau * tau) / (t * t);
    return fminf(t / tau * r, most);
}

void soma__rtc_guide(float *v, const float *x, float t, const float *P, const float *w, const float *pull, float most, int64_t S,
                     int64_t A) {
    const float strength = soma__rtc_strength(t, most);
    for (int64_t i = 0; i < S * A; i++) {
        const float off = pull ? pull[i] : (P[i] - (x[i] - t * v[i])) * w[i / A];
        v[i] -= strength * off;
    }
}

// The gradient of sum w (P - guess)^2 / 2 with respect to x is - J^T (w (P - guess)): what is wanted, but for its sign.
void soma__rtc_add_pull(soma_graph *g) {
    soma_tensor *x = NULL, *v = NULL, *grad = NULL;
    for (size_t i = 0; i < g->n_tensors; i++) {
        soma_tensor *t = g->tensors[i];
        if (t->name && t->is_input && !strcmp(t->name, "x_t")) x = t;
        if (t->name && t->is_output && !strcmp(t->name, "v_t")) v = t;
    }
    if (!x || !v) {
        soma__mistake(g, "real-time chunking needs a flow: this model's step has no x_t and v_t");
        return;
    }
    const int64_t B = x->shape[0], S = x->shape[1];
    soma_tensor *time = soma_input(g, "rtc.time", SOMA_F32, 3, (int64_t[]){B, 1, 1});
    soma_tensor *target = soma_input(g, "rtc.target", SOMA_F32, 3, x->shape);
    soma_tensor *weight = soma_input(g, "rtc.weight", SOMA_F32, 3, (int64_t[]){B, S, 1});
    soma_tensor *guess = soma_sub(x, soma_mul(v, time));
    soma_tensor *off = soma_mul(soma_apply(soma_sub(target, guess), SOMA_UNARY_SQUARE), weight);
    soma_tensor *loss = soma_affine(soma_reshape(soma_sum(off, 7), 1, (int64_t[]){1}), 0.5f, 0);
    soma_gradient(loss, &x, 1, &grad);
    if (grad) soma_output(soma_affine(grad, -1, 0), "rtc.pull");
}

// ---- rows

soma_status soma__rtc_new(soma_rtc *r, int64_t n, int64_t S, int64_t A, soma_error *err) {
    const size_t values = (size_t)(n * S * A);
    *r = (soma_rtc){.n = n, .S = S, .A = A};
    r->delay = soma__calloc((size_t)n, sizeof *r->delay);
    r->most = soma__calloc((size_t)n, sizeof *r->most);
    r->weight = soma__calloc((size_t)(n * S), sizeof *r->weight);
    r->target = soma__calloc(4 * values, sizeof *r->target);
    if (!r->delay || !r->most || !r->weight || !r->target) return soma__no_memory(err, "real-time chunking");
    r->x = r->target + values;
    r->v = r->x + values;
    r->pull = r->v + values;
    return SOMA_OK;
}

void soma__rtc_free(soma_rtc *r) {
    soma__free(r->delay);
    soma__free(r->most);
    soma__free(r->weight);
    soma__free(r->target);
    *r = (soma_rtc){0};
}

static bool any(const soma_rtc *r) {
    for (int64_t i = 0; i < r->n; i++)
        if (r->delay[i] >= 0) return true;
    return false;
}

// `trained`: the steps that will have been executed are what they will have been.
static void give_prefix(const soma_rtc *r, float *x) {
    for (int64_t i = 0; i < r->n; i++)
        if (r->delay[i] > 0) memcpy(x + i * r->S * r->A, r->target + i * r->S * r->A, sizeof *x * (size_t)(r->delay[i] * r->A));
}

static soma_status denoise_trained(soma_rtc *r, soma_plan_set *s, soma_time_rule rule, float *x, soma_error *err) {
    SOMA_TRY(soma__plan_set_begin(s, rule, err));
    s->given = r->delay;
    soma_status status = SOMA_OK;
    for (int64_t k = 0; k < s->saving.steps && status == SOMA_OK; k++) {
        give_prefix(r, x);
        status = soma__plan_set_step(s, k, x, err);
    }
    s->given = NULL;
    give_prefix(r, x);
    return status;
}

soma_status soma__rtc_denoise(soma_rtc *r, soma_plan_set *s, soma_time_rule rule, float *x, soma_error *err) {
    const bool through = r->mode == SOMA_RTC_GRADIENT;
    const int64_t row = r->S * r->A;
    const size_t size = sizeof *x * (size_t)(r->n * row);
    if (r->mode == SOMA_RTC_TRAINED) return denoise_trained(r, s, rule, x, err);
    if (r->mode == SOMA_RTC_NONE || !any(r)) return soma__plan_set_denoise(s, rule, x, err);
    float times[s->saving.steps];
    const float dt = -1.0f / (float)s->saving.steps;
    soma__schedule_times(times, s->saving.steps, rule);
    SOMA_TRY(soma__plan_set_begin(s, rule, err));
    for (int64_t k = 0; k < s->saving.steps; k++) {
        memcpy(r->x, x, size);
        SOMA_TRY(soma__plan_set_step(s, k, x, err));
        SOMA_TRY(soma__frame_get(s->frames[1], "v_t", r->v, size, err));
        if (through) SOMA_TRY(soma__plan_set_pull(s, k, times[k], r->x, r->target, r->weight, r->pull, err));
        for (int64_t i = 0; i < r->n; i++) {
            if (r->delay[i] < 0) continue;
            float *v = r->v + i * row, *xt = r->x + i * row;
            soma__rtc_guide(v, xt, times[k], r->target + i * row, r->weight + i * r->S, through ? r->pull + i * row : NULL, r->most[i],
                            r->S, r->A);
            for (int64_t j = 0; j < row; j++) x[i * row + j] = xt[j] + dt * v[j];
        }
    }
    return SOMA_OK;
}
