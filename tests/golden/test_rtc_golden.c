// SPDX-License-Identifier: Apache-2.0
// Real-time chunking against LeRobot's own processor: the weights of every schedule, and its guided loops over a toy flow, step by step.
// The same toy as a graph shows that the gradient's form is the guided one carried through the flow's Jacobian.
#include "golden/golden.h"

#include "base/json.h"
#include "base/rng.h"
#include "policy/published.h"
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

// ---- whole nets: LeRobot's pi0 and pi0.5 on the goldens' small weights

typedef struct net {
    soma_published c;
    soma_device *device;
    soma_params *params;
    soma_plan_set *set;
    soma_batch batch;
    soma_feed feed;
    soma_rtc rtc;
    float *images, *x, *noise, *prev; // images [B, C, 3, H, W]
    uint8_t *camera;                  // [B, C]
    int left;                         // rows of prev
} net;

static void must(soma_status status, const soma_error *err) {
    if (status) fail_msg("%s", err->text);
}

// The pictures camera by camera become [B, C, ..].
static void read_pictures(net *n, const soma_safetensors *in) {
    const soma_model_info *info = &n->c.model->info;
    const size_t each = (size_t)(3 * info->image_size * info->image_size), B = (size_t)n->batch.n, C = (size_t)info->n_cameras;
    assert_non_null(n->images = malloc(B * C * each * sizeof *n->images));
    assert_non_null(n->camera = malloc(B * C));
    for (size_t c = 0; c < C; c++) {
        char name[96];
        snprintf(name, sizeof name, "image.%s", info->cameras[c]);
        float *one = golden_floats(golden_find(in, name));
        snprintf(name, sizeof name, "image_mask.%s", info->cameras[c]);
        const uint8_t *mask = golden_find(in, name)->data;
        for (size_t b = 0; b < B; b++) {
            memcpy(n->images + (b * C + c) * each, one + b * each, each * sizeof *one);
            n->camera[b * C + c] = mask[b];
        }
        free(one);
    }
}

static net net_open(const char *folder, int given_max, bool pull) {
    char path[SOMA_PATH_MAX], file[96];
    net n = {0};
    soma_error err = {0};
    snprintf(file, sizeof file, "%s/inputs.safetensors", folder);
    soma_safetensors *in = golden_open(file);
    must(soma__published_open(&n.c, golden_path(path, folder), &err), &err);
    if (given_max) json_object_set_new(n.c.config, "rtc_training_max_delay", json_integer(given_max));
    must(soma__published_model(&n.c, &err), &err);
    must(soma__device_open(&n.device, "cpu", &(soma_device_opts){.threads = 1, .isa = "plain"}, &err), &err);
    const soma_model_info *info = &n.c.model->info;
    n.batch = (soma_batch){.n = golden_find(in, "tokens")->shape[0], .image_dtype = SOMA_F32};
    const int64_t B = n.batch.n;
    int64_t count;
    read_pictures(&n, in);
    n.batch.images = n.images;
    n.batch.image_mask = n.camera;
    n.batch.tokens = golden_get(in, "tokens", SOMA_I32, &count);
    n.batch.token_mask = golden_get(in, "token_mask", SOMA_U8, &count);
    n.batch.state = golden_floats(golden_find(in, "state"));
    n.noise = golden_floats(golden_find(in, "noise"));
    n.x = malloc(sizeof *n.x * (size_t)(B * info->horizon * info->action_dim));
    const soma_saving saving = soma__batch_saving(info, &n.batch, info->n_steps);
    soma_build like = soma__build_defaults(SOMA_PROGRAM_ENCODE, B);
    like.image = SOMA_F32;
    like.pull = pull;
    soma_graph *graphs[SOMA_SET_PLANS] = {0};
    int n_graphs;
    must(soma__set_graphs(graphs, &n_graphs, n.c.model, &like, &saving, &err), &err);
    must(soma__published_params(&n.params, &n.c, n.device, (const soma_graph *const *)graphs, (size_t)n_graphs, &err), &err);
    for (int i = 0; i < SOMA_SET_PLANS; i++) soma_graph_free(graphs[i]);
    must(soma__plan_set_new(&n.set, n.device, n.c.model, &like, &saving, n.params, NULL, &err), &err);
    n.batch.saving = &saving;
    must(n.c.model->family->prepare(n.c.model, &n.batch, &n.feed, &err), &err);
    must(soma__plan_set_feed(n.set, &n.feed, &err), &err);
    must(soma__rtc_new(&n.rtc, B, info->horizon, info->action_dim, &err), &err);
    soma__safetensors_close(in);
    return n;
}

static void net_close(net *n) {
    soma__rtc_free(&n->rtc);
    soma__feed_free(&n->feed);
    soma__plan_set_free(n->set);
    soma__params_free(n->params);
    soma__device_close(n->device);
    soma__published_close(&n->c);
    free(n->images);
    free(n->camera);
    free((void *)n->batch.tokens);
    free((void *)n->batch.token_mask);
    free((void *)n->batch.state);
    free(n->noise);
    free(n->prev);
    free(n->x);
}

// One chunk that continues `prev` [B, left, fewer dimensions], which is padded with zeros.
static void continue_from(net *n, const soma_safetensor *prev, soma_rtc_mode mode, soma_rtc_schedule schedule, int delay, int horizon) {
    soma_rtc *r = &n->rtc;
    soma_error err = {0};
    float *old = golden_floats(prev);
    const int64_t left = prev->shape[1], dims = prev->shape[2];
    r->mode = mode;
    memset(r->target, 0, sizeof *r->target * (size_t)(r->n * r->S * r->A));
    for (int64_t i = 0; i < r->n; i++) {
        r->delay[i] = delay;
        r->most[i] = 10;
        soma__rtc_weights(r->weight + i * r->S, r->S, schedule, delay, SOMA_MIN(horizon, left));
        for (int64_t s = 0; s < left; s++)
            memcpy(r->target + (i * r->S + s) * r->A, old + (i * left + s) * dims, sizeof *old * (size_t)dims);
    }
    memcpy(n->x, n->noise, sizeof *n->x * (size_t)(r->n * r->S * r->A));
    must(soma__rtc_denoise(r, n->set, SOMA_TIME_LEROBOT, n->x, &err), &err);
    free(old);
}

static void hold_guided(const char *folder) {
    char file[96];
    snprintf(file, sizeof file, "%s/outputs_lerobot.safetensors", folder);
    soma_safetensors *st = golden_open(file);
    net n = net_open(folder, 0, false);
    const soma_safetensor *prev = golden_find(st, "rtc.prev_chunk");
    continue_from(&n, prev, SOMA_RTC_GUIDED, SOMA_RTC_LINEAR, 2, 6);
    golden_hold(st, "rtc.guided_LINEAR.d2.e6", "plain", SOMA_F32, n.x, GOLDEN_MAX, 2e-5);
    continue_from(&n, prev, SOMA_RTC_GUIDED, SOMA_RTC_EXP, 2, 6);
    golden_hold(st, "rtc.guided_EXP.d2.e6", "plain", SOMA_F32, n.x, GOLDEN_MAX, 2e-5);
    net_close(&n);
    soma__safetensors_close(st);
}

static void pi0_guided(void **state) { hold_guided("pi0_tiny"); }
static void pi05_guided(void **state) { hold_guided("pi05_tiny"); }

static void pi05_trained(void **state) {
    soma_safetensors *st = golden_open("pi05_tiny/outputs_lerobot.safetensors");
    net n = net_open("pi05_tiny", 4, false);
    continue_from(&n, golden_find(st, "rtc.prev_chunk"), SOMA_RTC_TRAINED, SOMA_RTC_LINEAR, 3, 10);
    golden_hold(st, "rtc.trained.d3", "plain", SOMA_F32, n.x, GOLDEN_MAX, 2e-5);
    n.rtc.delay[0] = n.rtc.delay[1] = -1; // nothing is given: as a net that has not learned it
    memcpy(n.x, n.noise, sizeof *n.x * (size_t)(n.rtc.n * n.rtc.S * n.rtc.A));
    soma_error err = {0};
    must(soma__rtc_denoise(&n.rtc, n.set, SOMA_TIME_LEROBOT, n.x, &err), &err);
    golden_hold(st, "actions", "plain", SOMA_F32, n.x, GOLDEN_MAX, 2e-5);
    net_close(&n);
    soma__safetensors_close(st);
}

// The gradient's pull against differences of the guess itself: (J^T w (P - guess)) d = w (P - guess) . J d for any d.
static void pull_is_the_jacobian(void **state) {
    char path[SOMA_PATH_MAX];
    soma_error err = {0};
    soma_safetensors *st = golden_open("pi0_tiny/outputs_lerobot.safetensors");
    net n = net_open(strrchr(golden_path(path, "pi0_tiny"), '/') + 1, 0, true);
    continue_from(&n, golden_find(st, "rtc.prev_chunk"), SOMA_RTC_GRADIENT, SOMA_RTC_EXP, 2, 6);
    const soma_rtc *r = &n.rtc;
    const size_t N = (size_t)(r->n * r->S * r->A), size = N * sizeof(float);
    const float t = 0.7f, h = 1e-2f;
    float *x = malloc(size), *d = malloc(size), *v[3] = {malloc(size), malloc(size), malloc(size)}, *pull = malloc(size);
    soma_rng rng = soma__rng(1);
    soma__rng_normals(&rng, d, N);
    must(soma__plan_set_pull(n.set, 3, t, n.noise, r->target, r->weight, pull, &err), &err);
    for (int k = 0; k < 3; k++) { // at x, x + h d, x - h d
        for (size_t i = 0; i < N; i++) x[i] = n.noise[i] + (k == 0 ? 0 : k == 1 ? h : -h) * d[i];
        must(soma__plan_set_step(n.set, 3, x, &err), &err);
        must(soma__frame_get(n.set->frames[1], "v_t", v[k], size, &err), &err);
    }
    double left = 0, right = 0, alone = 0;
    for (size_t i = 0; i < N; i++) {
        const double off = ((double)r->target[i] - (n.noise[i] - (double)t * v[0][i])) * r->weight[i / (size_t)r->A];
        left += (double)pull[i] * d[i];
        right += off * (d[i] - (double)t * (v[1][i] - (double)v[2][i]) / (2 * (double)h));
        alone += off * d[i];
    }
    print_message("pull . d = %.6f, by differences %.6f; without the network's part %.6f\n", left, right, alone);
    if (!(fabs(left - right) < 1e-3 * fabs(right))) fail_msg("the pull is off");
    assert_true(fabs(left - alone) > 1e-2 * fabs(right)); // it is not the identity's
    for (int k = 0; k < 3; k++) free(v[k]);
    free(x);
    free(d);
    free(pull);
    net_close(&n);
    soma__safetensors_close(st);
}

// Learning to continue: the time of what is given is 0, and the loss is over the rest.
static void pi05_learns_to_continue(void **state) {
    soma_error err = {0};
    soma_safetensors *st = golden_open("pi05_tiny/outputs_lerobot.safetensors"), *in = golden_open("pi05_tiny/inputs.safetensors");
    net n = net_open("pi05_tiny", 4, false);
    const int64_t B = n.batch.n, H = n.rtc.S, D = n.rtc.A;
    const uint8_t *given = golden_find(st, "rtc.train_prefix_mask")->data;
    float *t = golden_floats(golden_find(in, "train_time")), *time = malloc(sizeof *time * (size_t)(B * H)),
          *actions = golden_floats(golden_find(in, "actions")), *loss = malloc(sizeof *loss * (size_t)(B * H * D));
    for (int64_t i = 0; i < B * H; i++) time[i] = given[i] ? 0 : t[i / H];
    n.batch.saving = NULL;
    n.batch.draws = 1;
    n.batch.actions = actions;
    n.batch.noise = n.noise;
    n.batch.time = time;
    soma_graph *graph;
    soma_plan *plan;
    soma_frame *frame;
    must(soma_graph_new(&graph, &err), &err);
    graph->keep_taps = true;
    soma_build b = soma__build_defaults(SOMA_PROGRAM_TRAIN, B);
    b.image = SOMA_F32;
    n.c.model->family->build(n.c.model, &b, graph);
    must(soma__plan_new(&plan, graph, &n.params->layout, NULL, n.device, &err), &err);
    must(soma__frame_new(&frame, plan, n.params->memory, NULL, NULL, &err), &err);
    must(n.c.model->family->prepare(n.c.model, &n.batch, &n.feed, &err), &err);
    for (size_t i = 0; i < n.feed.n_arrays; i++) {
        const soma_feed_array *a = &n.feed.arrays[i];
        if (soma__plan_find(plan, a->name)) must(soma__frame_put(frame, a->name, a->data, a->size, &err), &err);
    }
    soma__frame_run(frame);
    must(soma__frame_get(frame, "train.loss_elementwise", loss, sizeof *loss * (size_t)(B * H * D), &err), &err);
    float mean;
    must(soma__frame_get(frame, "loss", &mean, sizeof mean, &err), &err);
    double sum = 0;
    int64_t free_values = 0;
    for (int64_t i = 0; i < B * H * D; i++) {
        if (given[i / D]) continue;
        sum += loss[i];
        free_values++;
    }
    golden_hold(st, "rtc.train_prefix_mask_loss_elementwise", "plain", SOMA_F32, loss, GOLDEN_MAX, 1e-4);
    assert_true(fabs(sum / (double)free_values - mean) < 1e-5 * mean);
    soma__frame_free(frame);
    soma__plan_free(plan);
    soma_graph_free(graph);
    free(t);
    free(time);
    free(actions);
    free(loss);
    net_close(&n);
    soma__safetensors_close(st);
    soma__safetensors_close(in);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_weights),        cmocka_unit_test(test_guided_loops),
                                       cmocka_unit_test(pi0_guided),          cmocka_unit_test(pi05_guided),
                                       cmocka_unit_test(pi05_trained),        cmocka_unit_test(pi05_learns_to_continue),
                                       cmocka_unit_test(pull_is_the_jacobian)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
