// SPDX-License-Identifier: Apache-2.0
// What a run would need, before it begins: the same graphs are built and planned as in a run, without memory for them.
#include "train/trainer.h"

#include <math.h>
#include <string.h>

// ---- what this machine makes of a matrix product: the best of a few, on the run's own device and dtype

static soma_status measure_products(double *flops, soma_device *device, soma_dtype product, soma_error *err) {
    enum { ROWS = 512, WIDTH = 1024, TIMES = 3 };
    soma_graph *graph = NULL;
    soma_plan *plan = NULL;
    soma_frame *frame = NULL;
    soma_status status = soma_graph_new(&graph, err);
    if (status == SOMA_OK) {
        soma_tensor *a = soma_input(graph, "a", SOMA_F32, 2, (int64_t[]){ROWS, WIDTH}),
                    *b = soma_input(graph, "b", SOMA_F32, 2, (int64_t[]){WIDTH, WIDTH});
        soma_output(soma_matmul(a, b, NULL, product), "y");
        status = soma__plan_new(&plan, graph, NULL, NULL, device, err);
    }
    if (status == SOMA_OK) status = soma__frame_new(&frame, plan, NULL, NULL, NULL, err);
    double best = INFINITY;
    for (int i = 0; i <= TIMES && status == SOMA_OK; i++) {
        double started = soma__seconds();
        soma__frame_run(frame);
        if (i) best = fmin(best, soma__seconds() - started); // the first run warms up
    }
    if (status == SOMA_OK) *flops = plan->flops / best;
    soma__frame_free(frame);
    soma__plan_free(plan);
    soma_graph_free(graph);
    return status;
}

// ---- passes

static soma_status add_pass(soma_train_need *need, soma_trainer *t, int64_t draws, bool training, double *flops, soma_error *err) {
    soma_pass pass;
    soma_status status = soma__pass_plan(&pass, t, t->o.batch / t->o.accumulate, draws, training, err);
    if (status == SOMA_OK) {
        need->intermediates += pass.plan->size[SOMA_ROLE_SCRATCH];
        need->inputs += 2 * pass.plan->size[SOMA_ROLE_IO]; // as they come, and as the graph has them
        need->workspace += pass.plan->workspace;
        need->graphs += pass.graph->n_tensors * (sizeof(soma_tensor) + sizeof(soma_step) + 4 * sizeof(void *));
        *flops = pass.plan->flops;
    }
    soma__pass_free(&pass);
    return status;
}

static int64_t values_in(const soma_layout *layout) {
    int64_t n = 0;
    for (size_t i = 0; i < layout->n_slots; i++) n += (int64_t)(layout->slots[i].size / soma_dtype_size(layout->slots[i].dtype));
    return n;
}

static size_t data_size(const soma_trainer *t) {
    double pictures = 0, side = soma__trainer_picture_side(t);
    for (int c = 0; c < t->robot.n_cameras; c++) {
        const soma_feature *f = &t->data->features[t->camera_features[c]];
        pictures += (double)t->data->frames_present * (side > 0 ? side * side : (double)(f->shape[0] * f->shape[1])) * 3;
    }
    soma_loader_opts o = soma__loader_defaults();
    double limit = t->o.cache > 0 ? t->o.cache * (1 << 30) : (double)o.cache_size;
    double vectors = (double)(t->data->frames_present * (t->robot.n_state + t->robot.n_actions)) * sizeof(float);
    return (size_t)(fmin(pictures, limit) + fmin(vectors, (double)o.vectors_size));
}

static soma_status fill(soma_train_need *need, soma_trainer *t, soma_layout *frozen, soma_error *err) {
    const soma_train_opts *o = &t->o;
    const soma_layout *trained = &t->params->layout;
    double flops = 0, other, rate;
    need->values_trained = values_in(trained);
    need->values_frozen = values_in(frozen);
    need->trained = need->gradients = trained->size;
    need->moments = 2 * trained->size;
    need->average = o->ema > 0 ? trained->size : 0;
    if (o->accumulate > 1) need->gradients += trained->size;
    need->frozen = frozen->size;
    SOMA_TRY(add_pass(need, t, o->draws, true, &flops, err));
    if (o->mean_steps) SOMA_TRY(add_pass(need, t, 1, true, &other, err));
    if (t->n_heldout) SOMA_TRY(add_pass(need, t, o->draws, false, &other, err));
    need->intermediates += soma__optimiser_scratch(trained, o->accumulate > 1);
    SOMA_TRY(measure_products(&rate, t->device, strcmp(o->dtype, "f32") ? SOMA_BF16 : SOMA_F32, err));
    need->total = need->trained + need->frozen + need->gradients + need->moments + need->average + need->intermediates + need->inputs +
                  need->workspace + need->graphs;
    need->data = data_size(t);
    need->steps = o->steps;
    need->gflop_per_step = flops * (double)o->accumulate / 1e9;
    need->gflop_per_second = rate / 1e9;
    need->seconds_per_step = need->gflop_per_step / need->gflop_per_second;
    return SOMA_OK;
}

soma_status soma_train_plan(soma_train_need *need, const soma_train_opts *opts, soma_error *err) {
    soma_trainer t;
    soma_layout frozen = {0};
    soma_graph *graph = NULL;
    *need = (soma_train_need){0};
    SOMA_TRY(soma__trainer_prepare(&t, opts, false, NULL, err));
    soma_device_opts d = {.threads = (int)t.o.threads, .isa = t.o.isa};
    soma_status status = soma__device_open(&t.device, "cpu", &d, err);
    if (status == SOMA_OK) status = soma__trainer_graph(&graph, &t, err);
    if (status == SOMA_OK) status = soma__params_lay_out(&t.params, t.device, (const soma_graph *const *)&graph, 1, err);
    if (status == SOMA_OK) status = soma__layout_add(&frozen, graph, SOMA_ROLE_FROZEN, err);
    if (status == SOMA_OK) {
        t.params->layout.frozen = &frozen;
        status = fill(need, &t, &frozen, err);
    }
    soma_graph_free(graph);
    soma__layout_free(&frozen);
    soma__trainer_close(&t);
    return status;
}
