// SPDX-License-Identifier: Apache-2.0
// soma bench policy: a chunk of actions from made-up observations, on random weights of any size or on a checkpoint's, beside the limit
// that the machine sets: all products at the peak of the registers, and the weights that each step reads at the speed of memory.
//
// FLOPs and bytes are counted from the plans that ran. The robot's side (resizing, the prompt's text) is not part of this.
#include "bench/bench.h"
#include "bench/random_weights.h"
#include "device/cpu/peak.h"
#include "policy/decode.h"
#include "policy/packed_cache.h"
#include "policy/plan_set.h"
#include "policy/policy.h"
#include "policy/published.h"

#include <stdio.h>
#include <string.h>

#define OPTS_TYPE soma_bench_policy_opts
SOMA_OPTS_DEFINE(soma_bench_policy_opts, SOMA_BENCH_POLICY_OPTS, soma__bench_policy_defaults)
#undef OPTS_TYPE

typedef struct subject {
    const soma_bench_opts *o;
    const soma_bench_policy_opts *p;
    soma_bench_random random;
    soma_published published; // of --policy
    soma_model *model;        // of --random; else the published one's
    soma_device *device;
    soma_params *params;
    soma_plan_set *set;
    soma_feed feed;
    soma_batch batch;
    soma_saving saving;
    float *x, *logits; // [S, A]; [V]
    int32_t *ids;      // of an answer
    double flops, step_bytes;
    int64_t steps; // of the flow, or written tokens
} subject;

static const soma_model *model_of(const subject *s) { return s->model ? s->model : s->published.model; }

// ---- opening

static soma_status open_params(subject *s, const soma_graph *const *graphs, size_t n, soma_error *err) {
    if (*s->p->policy && *s->p->cache)
        SOMA_TRY(soma__packed_path(s->published.cache, s->p->policy, s->p->cache, s->device, s->o->dtype, err));
    if (*s->p->policy) return soma__published_params(&s->params, &s->published, s->device, graphs, n, err);
    soma_safetensors *file;
    soma_layout layout = {0};
    soma_status status = soma__model_weights(&layout, s->model, false, err);
    if (status == SOMA_OK) status = soma__bench_random_open(&s->random, &file, &layout, err);
    soma__layout_free(&layout);
    if (status != SOMA_OK) return status;
    return soma__params_open(&s->params, s->device, graphs, n, SOMA_ROLE_WEIGHT, file, s->model->family->aliases, err);
}

static soma_status load(subject *s, soma_error *err) {
    const soma_device_opts d = {.threads = (int)s->o->threads, .isa = s->o->isa};
    soma_graph *graphs[SOMA_SET_PLANS] = {0};
    int n = 0;
    soma_build like = soma__build_defaults(SOMA_PROGRAM_ENCODE, 1);
    SOMA_TRY(soma__policy_precision(&like.precision, s->o->dtype, err));
    SOMA_TRY(soma__device_open(&s->device, "cpu", &d, err));
    soma_status status = soma__set_graphs(graphs, &n, model_of(s), &like, &s->saving, err);
    if (status == SOMA_OK) status = open_params(s, (const soma_graph *const *)graphs, (size_t)n, err);
    for (int i = 0; i < n; i++) soma_graph_free(graphs[i]);
    return status == SOMA_OK ? soma__plan_set_new(&s->set, s->device, model_of(s), &like, &s->saving, s->params, NULL, err) : status;
}

static void subject_close(subject *s) {
    soma__plan_set_free(s->set);
    soma__params_free(s->params);
    soma__device_close(s->device);
    soma__feed_free(&s->feed);
    soma__free((void *)s->batch.images);
    soma__free((void *)s->batch.image_mask);
    soma__free((void *)s->batch.tokens);
    soma__free((void *)s->batch.token_mask);
    soma__free((void *)s->batch.state);
    soma__free((void *)s->batch.step_noise);
    soma__free(s->x);
    soma__free(s->logits);
    soma__free(s->ids);
    soma__model_free(s->model);
    soma__published_close(&s->published);
    soma__bench_random_close(&s->random);
}

// One observation: the first cameras see noise, the prompt has as many tokens as were asked for.
static soma_status observe(subject *s, soma_error *err) {
    const soma_model_info *info = &model_of(s)->info;
    const int64_t seen = 1 + info->history, pixels = seen * info->n_cameras * soma__image_pixels(info) * 3, room = soma__prompt_room(info);
    const size_t noise = info->step_noise ? (size_t)(info->n_steps * info->horizon * info->action_dim) : 0;
    const int64_t n_views = SOMA_MIN(s->p->views, info->n_cameras), n_tokens = SOMA_MIN(s->p->tokens, room);
    uint8_t *images = soma__calloc((size_t)pixels, 1), *views = soma__calloc((size_t)(seen * info->n_cameras), 1),
            *mask = soma__calloc((size_t)room + 1, 1);
    int32_t *tokens = soma__calloc((size_t)room + 1, sizeof *tokens);
    float *state = soma__calloc((size_t)(seen * info->state_dim), sizeof *state), *each = soma__calloc(noise + 1, sizeof *each);
    s->batch = (soma_batch){.n = 1,
                            .draws = 1,
                            .image_dtype = SOMA_U8,
                            .images = images,
                            .image_mask = views,
                            .tokens = tokens,
                            .token_mask = mask,
                            .state = state,
                            .step_noise = each};
    s->x = soma__calloc((size_t)(info->horizon * info->action_dim), sizeof *s->x);
    s->logits = soma__calloc((size_t)info->vocab + 1, sizeof *s->logits);
    s->ids = soma__calloc((size_t)info->answer.max + 1, sizeof *s->ids);
    if (!images || !views || !mask || !tokens || !state || !each || !s->x || !s->logits || !s->ids)
        return soma__no_memory(err, "a made-up observation");
    soma_rng rng = soma__rng(1);
    for (int64_t i = 0; i < pixels; i++) images[i] = (uint8_t)soma__rng_u64(&rng);
    soma__rng_normals(&rng, each, noise);
    for (int64_t i = 0; i < seen; i++) memset(views + i * info->n_cameras, 1, (size_t)n_views);
    memset(mask, 1, (size_t)n_tokens);
    for (int64_t i = 0; i < n_tokens; i++) tokens[i] = (int32_t)soma__rng_below(&rng, (uint64_t)info->vocab);
    s->saving = soma__batch_saving(info, &s->batch, info->n_steps);
    s->batch.saving = &s->saving;
    s->steps = info->answer.max ? SOMA_MIN(s->p->answer, info->answer.max) : info->n_steps;
    return SOMA_OK;
}

// ---- running

static soma_status run_chunk(subject *s, soma_error *err) {
    const soma_model *model = model_of(s);
    SOMA_TRY(model->family->prepare(model, &s->batch, &s->feed, err));
    SOMA_TRY(soma__plan_set_feed(s->set, &s->feed, err));
    if (!model->info.answer.max) {
        soma_rng rng = soma__rng(2);
        soma__rng_normals(&rng, s->x, (size_t)(model->info.horizon * model->info.action_dim));
        return soma__plan_set_denoise(s->set, SOMA_TIME_OPENPI, s->x, err);
    }
    int64_t n_ids = 0;
    soma_decode d = {
        .n_rows = 1, .max = s->steps, .vocab = model->info.vocab, .stop = -1, .ids = s->ids, .n_ids = &n_ids, .logits = s->logits};
    return soma__decode(&d, s->set->frames[0], s->set->frames[1], &s->feed, err);
}

static double timed_frame(subject *s, int which) {
    const double from = soma__seconds();
    soma__frame_run(s->set->frames[which]);
    return soma__seconds() - from;
}

typedef struct timings {
    double load, first;
    soma_spread chunk, prefix, step;
    double p99;
} timings;

static soma_status time_chunks(subject *s, timings *t, soma_error *err) {
    const int64_t n = s->o->repeats;
    double *seconds = soma__calloc((size_t)(3 * n), sizeof *seconds), *chunk = seconds, *prefix = seconds + n, *step = seconds + 2 * n;
    if (!seconds) return soma__no_memory(err, "the timings");
    double from = soma__seconds();
    soma_status status = run_chunk(s, err);
    t->first = soma__seconds() - from;
    for (int64_t i = 0; i < n && status == SOMA_OK; i++) { // the first chunk has warmed everything
        from = soma__seconds();
        status = run_chunk(s, err);
        chunk[i] = soma__seconds() - from;
        prefix[i] = timed_frame(s, 0);
        step[i] = timed_frame(s, 1);
    }
    t->chunk = soma__bench_spread(chunk, n);
    t->p99 = chunk[(99 * (n - 1) + 99) / 100]; // sorted by now
    t->prefix = soma__bench_spread(prefix, n);
    t->step = soma__bench_spread(step, n);
    soma__free(seconds);
    return status;
}

// Bytes of the weights that products of a plan read, as they lie in memory; each once. Tables are looked up by row and do not count.
static double weight_bytes(const soma_plan *plan, const soma_layout *layout) {
    double bytes = 0;
    for (size_t i = 0; i < layout->n_slots; i++) {
        bool read = false;
        for (size_t k = 0; k < plan->n_steps && !read; k++) {
            const soma_tensor *t = plan->steps[k].nodes[0]; // weights that a product's followers read are small
            for (int n = 0; n < SOMA_MAX_SRC && t->op != SOMA_OP_EMBED; n++) {
                const soma_tensor *owner = t->src[n] ? soma__owner(t->src[n]) : NULL;
                read |= owner && owner->role == SOMA_ROLE_WEIGHT && !strcmp(owner->name, layout->slots[i].name);
            }
        }
        if (read) bytes += (double)layout->slots[i].size;
    }
    return bytes;
}

// A line "VmHWM: 123 kB" of the process's status, in bytes.
static double peak_memory(void) {
    char line[256];
    double kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1) break;
    if (file) fclose(file);
    return kib * 1024;
}

static void forget_peak_memory(void) {
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

// ---- the limit

typedef struct peaks {
    double flops, bytes; // a second
    double worst;        // a measurement over a better one: of before and after, or what such a machine is known for
} peaks;

// The machine with AMX that the goals were told for measured this per thread when it was quiet (one and two threads).
static double known_peak(soma_isa isa, cpu_multiplied of, int threads) {
    if (of == CPU_OF_F32 || threads > 2 || !cpu_multiply_here(CPU_TILE_BF16, isa)) return 0;
    return (of == CPU_OF_INT8 ? 6.01e12 : 3.03e12) * threads;
}

static void measure_peaks(peaks *p, soma_isa isa, cpu_multiplied of, double bytes, soma_pool *pool) {
    const double flops = cpu_peak_flops(isa, of, pool), read = cpu_peak_read((size_t)bytes, false, pool);
    if (p->flops > 0) p->worst = SOMA_MIN(flops, p->flops) / SOMA_MAX(flops, p->flops);
    if (p->bytes > 0) p->worst = SOMA_MIN(p->worst, SOMA_MIN(read, p->bytes) / SOMA_MAX(read, p->bytes));
    p->flops = SOMA_MAX(p->flops, flops);
    const double known = known_peak(isa, of, soma__pool_threads(pool));
    if (known > 0) p->worst = SOMA_MIN(p->worst, p->flops / known);
    p->bytes = SOMA_MAX(p->bytes, read);
}

static json_t *result_of(const subject *s, const timings *t, const peaks *p, const char *isa, int threads) {
    const double limit = s->flops / p->flops + s->step_bytes * (double)s->steps / p->bytes;
    const soma_model *model = model_of(s);
    json_t *machine = soma__bench_machine(isa, threads);
    return json_pack(
        "{s:s, s:o, s:s, s:s, s:I, s:I, s:s, s:I, s:f, s:f, s:f, s:f, s:[f, f], s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:b}",
        "what", "policy", "machine", machine, "family", model->info.type, "weights", *s->p->policy ? s->p->policy : "random", "views",
        (json_int_t)__builtin_popcount(s->saving.cameras), "tokens", (json_int_t)s->saving.tokens, "dtype", s->o->dtype, "steps",
        (json_int_t)s->steps, "load_s", t->load, "first_chunk_s", t->first, "chunk_median_s", t->chunk.median, "chunk_p99_s", t->p99,
        "chunk_range_s", t->chunk.low, t->chunk.high, "prefix_s", t->prefix.median, "step_s", t->step.median, "flops", s->flops, "bytes",
        s->step_bytes * (double)s->steps, "limit_s", limit, "limit_share", limit / t->chunk.median, "step_limit_s",
        s->step_bytes / p->bytes, "peak_flops_per_s", p->flops, "read_bytes_per_s", p->bytes, "peak_memory_bytes", peak_memory(),
        "disturbed", p->worst < 0.9);
}

static soma_status add_profile(json_t *result, subject *s, soma_error *err) {
    static const char *const names[] = {"prefix", "step"};
    for (int i = 0; i < 2; i++) SOMA_TRY(cpu_profile_start(s->set->plans[i], err));
    SOMA_TRY(run_chunk(s, err));
    json_t *both = json_object();
    for (int i = 0; i < 2; i++) json_object_set_new(both, names[i], soma__bench_profile(s->set->plans[i], i ? s->steps : 1));
    json_object_set_new(result, "profile", both);
    return SOMA_OK;
}

static soma_status measure(json_t **out, subject *s, soma_isa isa, soma_pool *pool, soma_error *err) {
    timings t = {0};
    peaks p = {.worst = 1};
    double from = soma__seconds();
    SOMA_TRY(load(s, err));
    t.load = soma__seconds() - from;
    if (!*s->p->policy) forget_peak_memory(); // of the made-up file
    const bool mapped = s->params->packed != NULL;
    const soma_plan *const *plans = (const soma_plan *const *)s->set->plans;
    s->flops = plans[0]->flops + (double)s->steps * plans[1]->flops;
    s->step_bytes = weight_bytes(plans[1], &s->params->layout);
    measure_peaks(&p, isa, soma__bench_multiplied(s->o->dtype), s->step_bytes, pool);
    SOMA_TRY(time_chunks(s, &t, err));
    measure_peaks(&p, isa, soma__bench_multiplied(s->o->dtype), s->step_bytes, pool);
    *out = result_of(s, &t, &p, cpu_isa_name(isa), soma__pool_threads(pool));
    if (!*out || json_object_set_new(*out, "mapped", json_boolean(mapped))) return soma__no_memory(err, "the figures");
    if (s->p->profile) SOMA_TRY(add_profile(*out, s, err));
    return *s->published.cache && !mapped ? soma__packed_write(s->params, s->published.cache, err) : SOMA_OK;
}

static soma_status add_peer(json_t *result, const char *path, soma_error *err) {
    json_t *peer;
    double best;
    SOMA_TRY(soma__json_load(&peer, path, err));
    soma_status status = soma__json_real(&best, peer, "chunk_median_s", path, err);
    if (status == SOMA_OK)
        json_object_set_new(result, "times_peer", json_real(best / json_number_value(json_object_get(result, "chunk_median_s"))));
    if (status == SOMA_OK) json_object_set(result, "peer", peer);
    json_decref(peer);
    return status;
}

soma_status soma__bench_policy(json_t **out, const soma_bench_opts *o, const soma_bench_policy_opts *p, soma_error *err) {
    subject s = {.o = o, .p = p};
    soma_isa isa;
    soma_pool *pool = NULL;
    *out = NULL;
    if (!*p->policy == !p->random) return soma__fail(err, SOMA_BAD_INPUT, "a policy's folder (--policy DIR) or --random, one of the two");
    if (o->repeats < 1 || p->views < 0 || p->tokens < 1 || p->answer < 2)
        return soma__fail(err, SOMA_BAD_INPUT, "repeats and tokens are at least 1, an answer has at least 2 tokens");
    soma_status status = cpu_isa_parse(&isa, o->isa, err);
    if (status == SOMA_OK && *p->policy) status = soma__published_open(&s.published, p->policy, err);
    if (status == SOMA_OK)
        status = *p->policy ? soma__published_model(&s.published, err) : soma__model_preset(&s.model, o->family, o->preset, o->model, err);
    if (status == SOMA_OK) status = observe(&s, err);
    if (status == SOMA_OK) status = soma__pool_new(&pool, (int)o->threads, err);
    if (status == SOMA_OK) status = measure(out, &s, isa, pool, err);
    if (status == SOMA_OK && *p->peer) status = add_peer(*out, p->peer, err);
    if (status != SOMA_OK) {
        json_decref(*out);
        *out = NULL;
    }
    soma__pool_free(pool);
    subject_close(&s);
    return status;
}

// ---- the table

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }
static const char *text(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

void soma__bench_policy_print(const json_t *r) {
    const json_t *m = json_object_get(r, "machine");
    const char *part;
    json_t *rows;
    printf("%s (%s), %s, on %s, %s, %.0f threads\n", text(r, "family"), text(r, "weights"), text(r, "dtype"), text(m, "processor"),
           text(m, "isa"), real(m, "threads"));
    printf("%.0f views, %.0f tokens, %.0f steps: %.4g TFLOP, %.4g GB of weights in the steps; load %.2f s%s, first chunk %.3f s\n",
           real(r, "views"), real(r, "tokens"), real(r, "steps"), real(r, "flops") / 1e12, real(r, "bytes") / 1e9, real(r, "load_s"),
           json_is_true(json_object_get(r, "mapped")) ? " (packed before)" : "", real(r, "first_chunk_s"));
    printf("chunk %.4f s (p99 %.4f), prefix %.4f s, step %.5f s (weights alone: %.5f s)\n", real(r, "chunk_median_s"),
           real(r, "chunk_p99_s"), real(r, "prefix_s"), real(r, "step_s"), real(r, "step_limit_s"));
    printf("limit %.4f s (%.0f GFLOP/s, %.1f GB/s measured): %.1f %% of it; memory %.2f GB\n", real(r, "limit_s"),
           real(r, "peak_flops_per_s") / 1e9, real(r, "read_bytes_per_s") / 1e9, 100 * real(r, "limit_share"),
           real(r, "peak_memory_bytes") / 1e9);
    if (json_object_get(r, "times_peer"))
        printf("the peer's chunk takes %.3f s: %.2f times as long\n", real(json_object_get(r, "peer"), "chunk_median_s"),
               real(r, "times_peer"));
    if (json_is_true(json_object_get(r, "disturbed")))
        printf("disturbed: the machine's own peaks, measured before and after, differ by more than a tenth, or are that far below what it "
               "can\n");
    json_object_foreach(json_object_get(r, "profile"), part, rows) {
        printf("%s:\n", part);
        soma__bench_profile_print(rows, 0.002);
    }
}
