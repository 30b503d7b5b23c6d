// SPDX-License-Identifier: Apache-2.0
// The CPU device: chooses a kernel for each step once, sizes the workspace, runs the steps in order. A plan's run allocates nothing.
#include "device/cpu/cpu.h"
#include "device/cpu/packed.h"
#include "device/cpu/plain.h"

#include <pthread.h>
#include <stdio.h>

cpu_kernel *const cpu_plain[SOMA_OP_COUNT] = {
    [SOMA_OP_CONSTANT] = plain_elementwise,
    [SOMA_OP_ADD] = plain_elementwise,
    [SOMA_OP_SUB] = plain_elementwise,
    [SOMA_OP_MUL] = plain_elementwise,
    [SOMA_OP_DIV] = plain_elementwise,
    [SOMA_OP_AFFINE] = plain_elementwise,
    [SOMA_OP_UNARY] = plain_elementwise,
    [SOMA_OP_UNARY_GRAD] = plain_elementwise,
    [SOMA_OP_COPY] = plain_elementwise,
    [SOMA_OP_CONCAT] = plain_concat,
    [SOMA_OP_PAD] = plain_pad,
    [SOMA_OP_SUM] = plain_sum,
    [SOMA_OP_MATMUL] = plain_matmul,
    [SOMA_OP_QUANT_MATMUL] = plain_quant_matmul,
    [SOMA_OP_EMBED] = plain_embed,
    [SOMA_OP_EMBED_GRAD] = plain_embed_grad,
    [SOMA_OP_RMS_NORM] = plain_rms_norm,
    [SOMA_OP_RMS_NORM_GRAD] = plain_rms_norm_grad,
    [SOMA_OP_LAYER_NORM] = plain_layer_norm,
    [SOMA_OP_LAYER_NORM_GRAD] = plain_layer_norm_grad,
    [SOMA_OP_ROPE] = plain_rope,
    [SOMA_OP_ATTENTION] = plain_attention,
    [SOMA_OP_ATTENTION_GRAD] = plain_attention_grad,
    [SOMA_OP_TIME_EMBED] = plain_time_embed,
    [SOMA_OP_CROSS_ENTROPY] = plain_cross_entropy,
    [SOMA_OP_CROSS_ENTROPY_GRAD] = plain_cross_entropy_grad,
    [SOMA_OP_CONV] = plain_conv,
    [SOMA_OP_CONV_TRANSPOSED] = plain_conv_transposed,
    [SOMA_OP_CONV_GRAD] = plain_conv_grad,
    [SOMA_OP_MAX_POOL] = plain_max_pool,
    [SOMA_OP_MAX_POOL_GRAD] = plain_max_pool_grad,
    [SOMA_OP_SOFTMAX] = plain_softmax,
    [SOMA_OP_DROPOUT] = plain_dropout,
    [SOMA_OP_STORE] = plain_store,
    [SOMA_OP_ADAMW] = plain_adamw,
};

static cpu_chooser *const choosers[SOMA_OP_COUNT] = {
    [SOMA_OP_CONSTANT] = cpu_fast_elementwise,
    [SOMA_OP_ADD] = cpu_fast_elementwise,
    [SOMA_OP_SUB] = cpu_fast_elementwise,
    [SOMA_OP_MUL] = cpu_fast_elementwise,
    [SOMA_OP_DIV] = cpu_fast_elementwise,
    [SOMA_OP_AFFINE] = cpu_fast_elementwise,
    [SOMA_OP_UNARY] = cpu_fast_elementwise,
    [SOMA_OP_UNARY_GRAD] = cpu_fast_elementwise,
    [SOMA_OP_COPY] = cpu_fast_elementwise,
    [SOMA_OP_CONCAT] = cpu_fast_concat,
    [SOMA_OP_PAD] = cpu_fast_pad,
    [SOMA_OP_SUM] = cpu_fast_sum,
    [SOMA_OP_MATMUL] = cpu_fast_matmul,
    [SOMA_OP_QUANT_MATMUL] = cpu_fast_quant_matmul,
    [SOMA_OP_EMBED] = cpu_fast_embed,
    [SOMA_OP_EMBED_GRAD] = cpu_fast_embed_grad,
    [SOMA_OP_RMS_NORM] = cpu_fast_rms_norm,
    [SOMA_OP_RMS_NORM_GRAD] = cpu_fast_rms_norm_grad,
    [SOMA_OP_LAYER_NORM] = cpu_fast_layer_norm,
    [SOMA_OP_LAYER_NORM_GRAD] = cpu_fast_layer_norm_grad,
    [SOMA_OP_ROPE] = cpu_fast_rope,
    [SOMA_OP_ATTENTION] = cpu_fast_attention,
    [SOMA_OP_ATTENTION_GRAD] = cpu_fast_attention_grad,
    [SOMA_OP_CROSS_ENTROPY] = cpu_fast_cross_entropy,
    [SOMA_OP_CROSS_ENTROPY_GRAD] = cpu_fast_cross_entropy_grad,
    [SOMA_OP_CONV] = cpu_fast_conv,
    [SOMA_OP_CONV_TRANSPOSED] = cpu_fast_conv,
    [SOMA_OP_CONV_GRAD] = cpu_fast_conv_grad,
    [SOMA_OP_MAX_POOL] = cpu_fast_max_pool,
    [SOMA_OP_MAX_POOL_GRAD] = cpu_fast_max_pool_grad,
    [SOMA_OP_DROPOUT] = cpu_fast_dropout,
    [SOMA_OP_STORE] = cpu_fast_store,
    [SOMA_OP_ADAMW] = cpu_fast_adamw,
};

typedef struct {
    soma_device device;
    soma_isa isa;
    soma_pool *pool;
    pthread_mutex_t lock; // one run at a time: the pool has one caller
    char info[96];
} cpu_device;

typedef struct {
    cpu_kernel *run;
    soma_step step;
    size_t of; // the plan's step; where no kernel does a product and what follows it at once, two parts are one step
} part;

typedef struct {
    size_t shared_size, thread_size;
    char *workspace; // shared, then one part per thread
    double *seconds; // per step of the plan, while a profile is taken; else NULL
    size_t n_parts;
    part parts[];
} cpu_plan;

static soma_status cpu_open(soma_device **out, const soma_device_opts *opts, soma_error *err) {
    *out = NULL;
    soma_isa isa;
    SOMA_TRY(cpu_isa_parse(&isa, opts->isa, err));
    cpu_device *d = soma__calloc(1, sizeof *d);
    if (!d) return soma__no_memory(err, "the CPU device");
    *d = (cpu_device){.device.kind = &soma__device_cpu, .isa = isa};
    soma_status status = soma__pool_new(&d->pool, opts->threads, err);
    if (status != SOMA_OK) {
        soma__free(d);
        return status;
    }
    pthread_mutex_init(&d->lock, NULL);
    snprintf(d->info, sizeof d->info, "cpu %s, %d thread%s", cpu_isa_name(isa), soma__pool_threads(d->pool),
             soma__pool_threads(d->pool) > 1 ? "s" : "");
    *out = &d->device;
    return SOMA_OK;
}

static void cpu_close(soma_device *device) {
    cpu_device *d = (cpu_device *)device;
    soma__pool_free(d->pool);
    pthread_mutex_destroy(&d->lock);
    soma__free(d);
}

static const char *cpu_info(const soma_device *device) { return ((const cpu_device *)device)->info; }

static soma_status cpu_alloc(soma_device *device, void **memory, size_t size, soma_error *err) {
    *memory = soma__alloc_zeroed(size);
    return *memory ? SOMA_OK : soma__fail(err, SOMA_NO_MEMORY, "out of memory for %zu bytes of tensors", size);
}

static void cpu_free(soma_device *device, void *memory) { soma__free(memory); }
static void cpu_put(soma_device *device, void *memory, const void *host, size_t size) { memcpy(memory, host, size); }
static void cpu_get(soma_device *device, void *host, const void *memory, size_t size) { memcpy(host, memory, size); }
static bool cpu_has(const soma_device *device, const soma_tensor *t) { return t->dtype <= SOMA_U8 && cpu_plain[t->op]; }

static const char *cpu_forms(const soma_device *device) { return cpu_isa_forms(((const cpu_device *)device)->isa); }

static void cpu_choose_form(const soma_device *device, soma_slot *slot, const soma_tensor *const *readers, size_t n_readers) {
    const soma_isa isa = ((const cpu_device *)device)->isa;
    if (isa != SOMA_ISA_PLAIN) cpu_form_choose(slot, readers, n_readers, isa);
}

static void cpu_pack(soma_device *device, const soma_slot *slot, void *memory, const void *data, soma_dtype dtype) {
    const cpu_device *d = (const cpu_device *)device;
    cpu_form_pack(slot, memory, data, dtype, d->isa, d->pool);
}

static const soma_tensor *packed_source(const soma_step *step) { // a weight that the step reads and that is not as published; NULL: none
    for (int i = 0; i < step->n_nodes; i++)
        for (int s = 0; s < SOMA_MAX_SRC; s++)
            if (step->nodes[i]->src[s] && soma__owner(step->nodes[i]->src[s])->form) return soma__owner(step->nodes[i]->src[s]);
    return NULL;
}

static cpu_choice choose_packed(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0];
    if (t->op == SOMA_OP_CONV || t->op == SOMA_OP_CONV_TRANSPOSED) return cpu_reads_kernel(t) ? cpu_fast_conv(step, isa) : (cpu_choice){0};
    cpu_chooser *chooser = t->op == SOMA_OP_MATMUL         ? cpu_fast_packed
                           : t->op == SOMA_OP_QUANT_MATMUL ? cpu_fast_quant_matmul
                           : t->op == SOMA_OP_EMBED        ? cpu_packed_embed
                                                           : NULL;
    return chooser && cpu_reads_whole(t, t->op == SOMA_OP_EMBED ? 0 : 1) ? chooser(step, isa) : (cpu_choice){0};
}

static cpu_choice choose(const soma_step *step, soma_isa isa) {
    const soma_tensor *t = step->nodes[0];
    if (soma__step_follows(step) && packed_source(&(soma_step){step->nodes + 1, step->n_nodes - 1})) return (cpu_choice){0};
    if (packed_source(step)) return choose_packed(step, isa);
    cpu_choice c = {0};
    if (isa != SOMA_ISA_PLAIN && choosers[t->op]) c = choosers[t->op](step, isa);
    if (c.run || soma__step_follows(step)) return c;
    c = (cpu_choice){.run = cpu_plain[t->op]};
    if (t->op == SOMA_OP_ATTENTION || t->op == SOMA_OP_ATTENTION_GRAD) c.shared_size = 2 * sizeof(float) * (size_t)t->src[1]->shape[1];
    return c;
}

// False when no kernel takes the step.
static bool add_part(cpu_plan *p, const soma_step *step, size_t of, soma_isa isa) {
    const cpu_choice c = choose(step, isa);
    if (!c.run && soma__step_follows(step))
        return add_part(p, &(soma_step){step->nodes, 1}, of, isa) && add_part(p, &(soma_step){step->nodes + 1, step->n_nodes - 1}, of, isa);
    p->parts[p->n_parts++] = (part){c.run, *step, of};
    p->shared_size = SOMA_MAX(p->shared_size, (c.shared_size + 63) & ~(size_t)63);
    p->thread_size = SOMA_MAX(p->thread_size, (c.thread_size + 63) & ~(size_t)63);
    return c.run != NULL;
}

static soma_status cpu_prepare(soma_device *device, soma_plan *plan, soma_error *err) {
    cpu_device *d = (cpu_device *)device;
    cpu_plan *p = plan->device_data = soma__calloc(1, sizeof *p + 2 * plan->n_steps * sizeof *p->parts);
    if (!p) return soma__no_memory(err, "a plan's kernels");
    for (size_t i = 0; i < plan->n_steps; i++)
        if (!add_part(p, &plan->steps[i], i, d->isa))
            return soma__fail(err, SOMA_UNSUPPORTED, "%s was packed for products that only read it, and a graph has another use for it",
                              packed_source(&p->parts[p->n_parts - 1].step)->name);
    plan->workspace = p->shared_size + p->thread_size * (size_t)soma__pool_threads(d->pool);
    p->workspace = soma__alloc_zeroed(plan->workspace);
    return p->workspace ? SOMA_OK : soma__no_memory(err, "a plan's workspace");
}

static void cpu_release(soma_device *device, soma_plan *plan) {
    cpu_plan *p = plan->device_data;
    soma__free(p->workspace);
    soma__free(p->seconds);
    soma__free(p);
}

static void cpu_run_plan(soma_device *device, const soma_plan *plan, void *const buffers[SOMA_ROLE_COUNT]) {
    cpu_device *d = (cpu_device *)device;
    const cpu_plan *p = plan->device_data;
    cpu_run run = {.isa = d->isa,
                   .pool = d->pool,
                   .shared = p->workspace,
                   .threads_space = p->workspace + p->shared_size,
                   .thread_size = p->thread_size};
    for (int r = 0; r < SOMA_ROLE_COUNT; r++) run.buffers[r] = buffers[r];
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < p->n_parts; i++) {
        const part *now = &p->parts[i];
        double started = p->seconds ? soma__seconds() : 0;
        now->run(&run, &now->step);
        if (p->seconds) p->seconds[now->of] += soma__seconds() - started;
    }
    pthread_mutex_unlock(&d->lock);
}

soma_status cpu_profile_start(soma_plan *plan, soma_error *err) {
    cpu_plan *p = plan->device_data;
    if (!p->seconds) p->seconds = soma__calloc(plan->n_steps, sizeof *p->seconds);
    return p->seconds ? SOMA_OK : soma__no_memory(err, "a profile");
}

double cpu_profile_step(const soma_plan *plan, size_t step, bool *plain) {
    const cpu_plan *p = plan->device_data;
    *plain = false;
    for (size_t i = 0; i < p->n_parts; i++) *plain |= p->parts[i].of == step && p->parts[i].run == cpu_plain[p->parts[i].step.nodes[0]->op];
    return p->seconds ? p->seconds[step] : 0;
}

const soma_device_kind soma__device_cpu = {
    .name = "cpu",
    .reads_host = true,
    .open = cpu_open,
    .close = cpu_close,
    .info = cpu_info,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .put = cpu_put,
    .get = cpu_get,
    .forms = cpu_forms,
    .choose_form = cpu_choose_form,
    .pack = cpu_pack,
    .has = cpu_has,
    .prepare = cpu_prepare,
    .release = cpu_release,
    .run = cpu_run_plan,
};
