// SPDX-License-Identifier: Apache-2.0
// openpi's low-rank einsums against soma_linear with an adapter: queries, keys and values, the attention's output (heads are summed in each
// factor), the feed-forward (no scaling), with the plain and the rank-stabilised scale. Folded into the base weights, a pair gives the
// same; without pairs, what the file calls base.
#include "golden/golden.h"

#include "device/device.h"
#include "nn/nn.h"
#include "policy/adapter.h"

enum { B = 2, T = 5, D = 24, N = 4, H = 6, M = 40, R = 3 };
static const double tolerance = 1e-5; // the case's README

typedef enum { PAIRS, FOLDED, BASE } lora_use;
static const char *const uses[] = {"pairs", "folded", "base"};

typedef struct {
    soma_safetensors *file;
    soma_device *device;
    soma_graph *graph;
    soma_layout layout;
    soma_plan *plan;
    soma_frame *frame;
    char *weights;
    soma_adapter adapters[4];
    lora_use use;
} job;

static float *tensor(const job *j, const char *name) { return golden_floats(golden_find(j->file, name)); }

static void open_job(job *j, lora_use use) {
    soma_error err = {0};
    *j = (job){.use = use, .file = golden_open("lora/lora.safetensors")};
    if (soma__device_open(&j->device, "cpu", &(soma_device_opts){.threads = 1}, &err)) fail_msg("%s", err.text);
    if (soma_graph_new(&j->graph, &err)) fail_msg("%s", err.text);
}

static void close_job(job *j) {
    soma__frame_free(j->frame);
    soma__plan_free(j->plan);
    soma__layout_free(&j->layout);
    soma_graph_free(j->graph);
    soma__device_close(j->device);
    soma__safetensors_close(j->file);
    soma__free(j->weights);
}

static float *at(job *j, const char *name) {
    const soma_slot *slot = soma__layout_find(&j->layout, name);
    return slot ? (float *)(j->weights + slot->place) : NULL;
}

static void compile_job(job *j) {
    soma_error err = {0};
    soma_status status = soma__layout_add(&j->layout, j->graph, SOMA_ROLE_WEIGHT, &err);
    j->weights = soma__calloc(1, j->layout.size);
    if (status == SOMA_OK) status = soma__plan_new(&j->plan, j->graph, &j->layout, NULL, j->device, &err);
    if (status == SOMA_OK) status = soma__frame_new(&j->frame, j->plan, j->weights, NULL, NULL, &err);
    if (status != SOMA_OK) fail_msg("%s", err.text);
}

// w of an einsum [.., in, out] part by part, into [out, in]: part p of n has the columns [p * K, (p + 1) * K) of the output.
static void set_base(job *j, const char *layer, const float *w, int64_t parts, int64_t in, int64_t K) {
    char name[64];
    snprintf(name, sizeof name, "%s.weight", layer);
    float *to = at(j, name);
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = 0; i < in; i++)
            for (int64_t k = 0; k < K; k++) to[(p * K + k) * in + i] = w[(p * in + i) * K + k];
}

// The pair: as the adapter's own weights, or folded into the base, or left out.
static void set_pair(job *j, const soma_adapter *d, int64_t in, int64_t out, const float *a, const float *b) {
    char name[64];
    if (j->use == BASE) return;
    if (j->use == FOLDED) {
        snprintf(name, sizeof name, "%s.weight", d->glob);
        soma__adapter_fold(at(j, name), d, a, b, in, out);
        return;
    }
    bool to = d->form == SOMA_ADAPTER_OPENPI_TO_HEADS, from = d->form == SOMA_ADAPTER_OPENPI_FROM_HEADS;
    snprintf(name, sizeof name, "%s.lora_a", d->glob);
    memcpy(at(j, name), a, sizeof *a * (size_t)(in * d->rank * (to ? d->n_heads : 1)));
    snprintf(name, sizeof name, "%s.lora_b", d->glob);
    memcpy(at(j, name), b, sizeof *b * (size_t)(out * d->rank * (from ? d->n_heads : 1)));
}

static void take(job *j, const char *name, float *to, size_t n) {
    soma_error err = {0};
    if (soma__frame_get(j->frame, name, to, sizeof *to * n, &err)) fail_msg("%s", err.text);
}

static void hold(const job *j, const char *tensor, const float *found) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", tensor, j->use == BASE ? "base" : "out");
    golden_hold(j->file, name, uses[j->use], SOMA_F32, found, GOLDEN_L2, tolerance);
}

static const soma_precision_rule f32 = {"*", {SOMA_F32, SOMA_F32, SOMA_F32}};

// One einsum of attention. prefix: "" or "rs_".
static void einsum(const char *prefix, const char *which, soma_adapter_form form, int64_t heads, float scale, lora_use how) {
    job j;
    open_job(&j, how);
    bool from = form == SOMA_ADAPTER_OPENPI_FROM_HEADS, kv = !strcmp(which, "kv_einsum");
    int64_t in = from ? N * H : D, out = from ? D : heads * H, parts = kv ? 2 : 1;
    char name[64], label[64];
    for (int64_t p = 0; p < parts; p++) {
        j.adapters[p] = (soma_adapter){.glob = p ? "v" : "k", .form = form, .rank = R, .n_heads = heads, .scale = scale};
    }
    const soma_scope_spec spec = {.rules = &f32, .n_rules = 1, .adapters = j.adapters, .n_adapters = how == PAIRS ? (size_t)parts : 0};
    const soma_scope root = soma_scope_root(j.graph, &spec);
    soma_tensor *x = soma_input(j.graph, "x", SOMA_F32, 3, (int64_t[]){B, T, in});
    for (int64_t p = 0; p < parts; p++) {
        snprintf(label, sizeof label, "%s%s.%lld", prefix, which, (long long)p);
        soma_output(soma_linear(&root, j.adapters[p].glob, x, out, false), label);
    }
    compile_job(&j);
    float *t[4];
    const char *const parts_of[] = {"w", "lora_a", "lora_b"};
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s.%s", prefix, which, parts_of[i]);
        t[i] = tensor(&j, name);
    }
    t[3] = tensor(&j, from ? "encoded" : "x");
    int64_t n_a = from ? in * R : heads * in * R, n_b = from ? heads * R * out : R * out;
    for (int64_t p = 0; p < parts; p++) {
        set_base(&j, j.adapters[p].glob, t[0] + p * in * out, from ? 1 : heads, in, from ? out : H);
        set_pair(&j, &j.adapters[p], in, out, t[1] + p * n_a, t[2] + p * n_b);
    }
    soma_error err = {0};
    if (soma__frame_put(j.frame, "x", t[3], sizeof(float) * (size_t)(B * T * in), &err)) fail_msg("%s", err.text);
    soma__frame_run(j.frame);
    float found[2 * B * T * N * H];
    assert_true(parts * B * T * out <= (int64_t)SOMA_COUNT(found));
    for (int64_t p = 0; p < parts; p++) {
        snprintf(label, sizeof label, "%s%s.%lld", prefix, which, (long long)p);
        take(&j, label, found + p * B * T * out, (size_t)(B * T * out));
    }
    snprintf(label, sizeof label, "%s%s", prefix, which);
    hold(&j, label, found);
    for (int i = 0; i < 4; i++) free(t[i]);
    close_job(&j);
}

static void all_einsums(lora_use how) {
    for (int rs = 0; rs < 2; rs++) {
        const char *prefix = rs ? "rs_" : "";
        float scale = rs ? 6.0f / sqrtf(R) : 2;
        einsum(prefix, "q_einsum", SOMA_ADAPTER_OPENPI_TO_HEADS, N, scale, how);
        einsum(prefix, "kv_einsum", SOMA_ADAPTER_OPENPI_TO_HEADS, 1, scale, how);
        einsum(prefix, "attn_vec_einsum", SOMA_ADAPTER_OPENPI_FROM_HEADS, N, scale, how);
    }
}

static void feed_forward(lora_use how) {
    job j;
    open_job(&j, how);
    const char *const layers[] = {"gate_proj", "up_proj", "down_proj"};
    for (int i = 0; i < 3; i++) j.adapters[i] = (soma_adapter){.glob = layers[i], .form = SOMA_ADAPTER_OPENPI, .rank = R, .scale = 1};
    const soma_scope_spec spec = {.rules = &f32, .n_rules = 1, .adapters = j.adapters, .n_adapters = how == PAIRS ? 3 : 0};
    const soma_scope root = soma_scope_root(j.graph, &spec);
    soma_output(soma_gated_mlp(&root, soma_input(j.graph, "x", SOMA_F32, 3, (int64_t[]){B, T, D}), M, SOMA_UNARY_GELU), "mlp");
    compile_job(&j);
    const char *const names[] = {"mlp.gating_einsum",
                                 "mlp.gating_einsum_lora_a",
                                 "mlp.gating_einsum_lora_b",
                                 "mlp.linear",
                                 "mlp.linear_lora_a",
                                 "mlp.linear_lora_b",
                                 "x"};
    float *t[SOMA_COUNT(names)];
    for (size_t i = 0; i < SOMA_COUNT(names); i++) t[i] = tensor(&j, names[i]);
    for (int i = 0; i < 2; i++) {
        set_base(&j, layers[i], t[0] + i * D * M, 1, D, M);
        set_pair(&j, &j.adapters[i], D, M, t[1] + i * D * R, t[2] + i * R * M);
    }
    set_base(&j, layers[2], t[3], 1, M, D);
    set_pair(&j, &j.adapters[2], M, D, t[4], t[5]);
    soma_error err = {0};
    if (soma__frame_put(j.frame, "x", t[6], sizeof(float) * B * T * D, &err)) fail_msg("%s", err.text);
    soma__frame_run(j.frame);
    float found[B * T * D];
    take(&j, "mlp", found, SOMA_COUNT(found));
    hold(&j, "mlp", found);
    for (size_t i = 0; i < SOMA_COUNT(names); i++) free(t[i]);
    close_job(&j);
}

static void test_einsums(void **state) { all_einsums(PAIRS); }
static void test_einsums_folded(void **state) { all_einsums(FOLDED); }
static void test_einsums_base(void **state) { all_einsums(BASE); }
static void test_feed_forward(void **state) { feed_forward(PAIRS); }
static void test_feed_forward_folded(void **state) { feed_forward(FOLDED); }
static void test_feed_forward_base(void **state) { feed_forward(BASE); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_einsums),      cmocka_unit_test(test_einsums_folded),      cmocka_unit_test(test_einsums_base),
        cmocka_unit_test(test_feed_forward), cmocka_unit_test(test_feed_forward_folded), cmocka_unit_test(test_feed_forward_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
