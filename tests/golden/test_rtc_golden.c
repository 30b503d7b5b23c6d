// SPDX-License-Identifier: Apache-2.0
// Real-time chunking against LeRobot's own processor: the weights of every schedule, and its guided loops over a toy flow, step by step.
// The same toy as a graph shows that the gradient's form is the guided one carried through the flow's Jacobian.
#include "golden/golden.h"

#include "base/json.h"
#include "policy/rtc.h"

enum { S = 10, A = 6, MAX_STEPS = 64 };
#define TOLERANCE 1e-5 // the golden's README

typedef struct toy {
    float *M, *W, *noise; // [S, S], [A, A], [S, A]
} toy;

// v = tanh(M (x W) + t)
static void velocity(const toy *m, const float *x, float t, float *v) {
    float xw[S][A];
    for (int i = 0; i < S; i++)
        for (int k = 0; k < A; k++) {
            double sum = 0;
            for (int j = 0; j < A; j++) sum += (double)x[i * A + j] * m->W[j * A + k];
            xw[i][k] = (float)sum;
        }
    for (int i = 0; i < S; i++)
        for (int k = 0; k < A; k++) {
            double sum = 0;
            for (int j = 0; j < S; j++) sum += (double)m->M[i * S + j] * xw[j][k];
            v[i * A + k] = tanhf((float)sum + t);
        }
}

static toy open_toy(const soma_safetensors *st) {
    return (toy){golden_floats(golden_find(st, "toy.M")), golden_floats(golden_find(st, "toy.W")),
                 golden_floats(golden_find(st, "toy.noise"))};
}

static void close_toy(toy *m) {
    free(m->M);
    free(m->W);
    free(m->noise);
}

static soma_rtc_schedule schedule_of(const char *word) {
    char lower[16] = {0};
    soma_rtc_schedule schedule;
    for (size_t i = 0; word[i] && i < sizeof lower - 1; i++) lower[i] = (char)(word[i] | 0x20);
    assert_int_equal(soma__rtc_schedule(&schedule, lower, NULL), SOMA_OK);
    return schedule;
}

static void test_weights(void **state) {
    soma_safetensors *st = golden_open("rtc/rtc.safetensors");
    int n = 0;
    for (size_t i = 0; i < soma__safetensors_count(st); i++) {
        const soma_safetensor *t = soma__safetensors_at(st, i);
        char word[16];
        int delay, horizon, steps;
        if (sscanf(t->name, "weights.%15[A-Z].d%d.e%d.T%d", word, &delay, &horizon, &steps) != 4) continue;
        float w[MAX_STEPS];
        assert_true(steps <= MAX_STEPS && t->n_values == steps);
        soma__rtc_weights(w, steps, schedule_of(word), delay, horizon);
        golden_hold(st, t->name, "plain", SOMA_F32, w, GOLDEN_MAX, TOLERANCE);
        n++;
    }
    assert_true(n > 0);
    soma__safetensors_close(st);
}

static void run_case(const soma_safetensors *st, const toy *m, int index, const json_t *c) {
    char name[64];
    const int delay = (int)json_integer_value(json_object_get(c, "inference_delay")),
              horizon = (int)json_integer_value(json_object_get(c, "execution_horizon")),
              left = (int)json_integer_value(json_object_get(c, "prev_len")),
              steps = (int)json_integer_value(json_object_get(c, "num_steps"));
    const float most = (float)json_number_value(json_object_get(c, "max_guidance_weight"));
    float w[S], P[S * A] = {0}, x[S * A], v[S * A], times[MAX_STEPS];
    snprintf(name, sizeof name, "case%d.prev", index);
    float *prev = golden_floats(golden_find(st, name));
    memcpy(P, prev, sizeof *P * (size_t)(left * A));
    memcpy(x, m->noise, sizeof x);
    soma__rtc_weights(w, S, schedule_of(json_string_value(json_object_get(c, "schedule"))), delay, SOMA_MIN(horizon, left));
    soma__schedule_times(times, steps, SOMA_TIME_LEROBOT);
    for (int k = 0; k < steps; k++) {
        velocity(m, x, times[k], v);
        soma__rtc_guide(v, x, times[k], P, w, NULL, most, S, A);
        snprintf(name, sizeof name, "case%d.step%d.v", index, k);
        golden_hold(st, name, "plain", SOMA_F32, v, GOLDEN_MAX, TOLERANCE);
        for (int i = 0; i < S * A; i++) x[i] += -1.0f / (float)steps * v[i];
    }
    snprintf(name, sizeof name, "case%d.actions", index);
    golden_hold(st, name, "plain", SOMA_F32, x, GOLDEN_MAX, TOLERANCE);
    free(prev);
}

static void test_guided_loops(void **state) {
    soma_safetensors *st = golden_open("rtc/rtc.safetensors");
    char path[SOMA_PATH_MAX];
    json_t *config;
    soma_error err;
    if (soma__json_load(&config, golden_path(path, "rtc/config.json"), &err)) fail_msg("%s", err.text);
    toy m = open_toy(st);
    const json_t *cases = json_object_get(config, "cases");
    assert_true(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++) run_case(st, &m, (int)i, json_array_get(cases, i));
    close_toy(&m);
    json_decref(config);
    soma__safetensors_close(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_weights), cmocka_unit_test(test_guided_loops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
