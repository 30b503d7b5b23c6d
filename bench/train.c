// SPDX-License-Identifier: Apache-2.0
// One training step of a model on made-up inputs: what it costs, where the time goes, and its share of what the processor's registers can
// do.
#include "bench/bench.h"
#include "device/cpu/peak.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

static soma_status fill(soma_trainer *t, soma_error *err) {
    const soma_model_info *info = &t->model->info;
    soma_pass *p = &t->pass;
    soma_rng rng = soma__rng(1);
    int64_t pixels = p->n * info->n_cameras * info->image_size * info->image_size * 3, rows = p->n * p->draws;
    for (int64_t i = 0; i < pixels; i++) ((uint8_t *)p->rows.images)[i] = (uint8_t)soma__rng_u64(&rng);
    memset(p->rows.image_mask, 1, (size_t)(p->n * info->n_cameras));
    for (int64_t i = 0; i < p->n * info->max_tokens; i++) {
        p->rows.tokens[i] = (int32_t)soma__rng_below(&rng, (uint64_t)info->vocab);
        p->rows.token_mask[i] = i % info->max_tokens < 8;
    }
    soma__rng_normals(&rng, p->noise, (size_t)(rows * info->horizon * info->action_dim));
    soma__rng_normals(&rng, p->actions, (size_t)(p->n * info->horizon * info->action_dim));
    for (int64_t i = 0; i < rows; i++) p->time[i] = (float)soma__rng_uniform(&rng);
    SOMA_TRY(t->model->family->prepare(t->model, &p->rows.batch, &p->feed, err));
    for (size_t i = 0; i < p->feed.n_arrays; i++) {
        const soma_feed_array *a = &p->feed.arrays[i];
        if (soma__plan_find(p->plan, a->name)) SOMA_TRY(soma__frame_put(p->frame, a->name, a->data, a->size, err));
    }
    return SOMA_OK;
}

static soma_status measure(json_t **out, soma_trainer *t, const soma_bench_opts *o, soma_error *err) {
    double *seconds = soma__calloc((size_t)o->repeats, sizeof *seconds);
    soma_pool *pool = NULL;
    soma_isa isa;
    soma_status status = seconds ? cpu_isa_parse(&isa, o->isa, err) : soma__no_memory(err, "the timings");
    if (status == SOMA_OK) status = soma__pool_new(&pool, (int)o->threads, err);
    if (status == SOMA_OK) {
        double peak = cpu_peak_flops(isa, soma__bench_multiplied(o->dtype), pool), bytes = cpu_peak_read(SOMA_BENCH_EXPERT, false, pool);
        soma__frame_run(t->pass.frame); // warm
        status = cpu_profile_start(t->pass.plan, err);
        for (int64_t i = 0; i < o->repeats; i++) {
            double started = soma__seconds();
            soma__frame_run(t->pass.frame);
            soma__optimiser_accumulate(t->optimiser);
            soma__optimiser_update(
                t->optimiser,
                &(soma_adamw_step){.step = i + 1, .lr = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .grad_scale = 1});
            seconds[i] = soma__seconds() - started;
        }
        soma_spread s = soma__bench_spread(seconds, o->repeats);
        double flops = t->pass.plan->flops;
        *out = json_pack("{s:s, s:o, s:s, s:I, s:I, s:I, s:f, s:[f, f, f], s:f, s:f, s:f, s:f, s:f, s:o}", "what", "training step",
                         "machine", soma__bench_machine(cpu_isa_name(isa), soma__pool_threads(pool)), "dtype", o->dtype, "parameters",
                         (json_int_t)(t->params->layout.size / sizeof(float)), "batch", (json_int_t)t->pass.n, "draws",
                         (json_int_t)t->pass.draws, "gflop_per_sample", flops / 1e9 / (double)t->pass.n, "seconds", s.median, s.low, s.high,
                         "samples_per_second", (double)t->pass.n / s.median, "gflop_per_second", flops / 1e9 / s.median,
                         "peak_gflop_per_second", peak / 1e9, "share_of_peak", peak > 0 ? flops / s.median / peak : 0,
                         "memory_gb_per_second", bytes / 1e9, "profile", soma__bench_profile(t->pass.plan, o->repeats));
        if (!*out && status == SOMA_OK) status = soma__no_memory(err, "the figures");
    }
    soma__pool_free(pool);
    soma__free(seconds);
    return status;
}

soma_status soma__bench_train(json_t **out, const soma_bench_opts *o, soma_error *err) {
    *out = NULL;
    if (o->batch < 1 || o->draws < 1 || o->repeats < 1) return soma__fail(err, SOMA_BAD_INPUT, "batch, draws and repeats are at least 1");
    soma_trainer t = {.o = soma_train_defaults()};
    strcpy(t.o.dtype, o->dtype);
    soma_device_opts d = {.threads = (int)o->threads, .isa = o->isa};
    soma_status status = soma__model_preset(&t.model, o->family, o->preset, o->model, err);
    if (status == SOMA_OK) status = soma__device_open(&t.device, "cpu", &d, err);
    if (status == SOMA_OK) status = soma__trainer_weights(&t, err);
    if (status == SOMA_OK) status = soma__pass_new(&t.pass, &t, o->batch, o->draws, true, err);
    if (status == SOMA_OK) status = fill(&t, err);
    if (status == SOMA_OK) status = measure(out, &t, o, err);
    soma__trainer_close(&t);
    return status;
}
