// SPDX-License-Identifier: Apache-2.0
// A pass: the training graph (or its loss alone), its memory, and how a loader's batch becomes its inputs.
#include "train/trainer.h"

#include "model/flow.h"

#include <math.h>
#include <string.h>

static void build(soma_pass *pass, soma_trainer *t, bool training) {
    soma_build b = soma__trainer_build(t, pass->n, pass->draws);
    b.dropout = training;
    t->model->family->build(t->model, &b, pass->graph);
    for (size_t i = 0; training && i < pass->graph->n_tensors; i++) {
        soma_tensor *loss = pass->graph->tensors[i];
        if (!loss->is_output || strcmp(loss->name, "loss")) continue;
        soma_backward(loss, NULL, 0, NULL);
        return;
    }
}

soma_status soma__pass_plan(soma_pass *pass, soma_trainer *t, int64_t n, int64_t draws, bool training, soma_error *err) {
    *pass = (soma_pass){.n = n, .draws = draws};
    SOMA_TRY(soma_graph_new(&pass->graph, err));
    build(pass, t, training);
    return soma__plan_new(&pass->plan, pass->graph, &t->params->layout, NULL, t->device, err);
}

soma_status soma__pass_new(soma_pass *pass, soma_trainer *t, int64_t n, int64_t draws, bool training, soma_error *err) {
    const soma_model_info *info = &t->model->info;
    const bool mean = pass->mean;
    size_t chunk = (size_t)(info->horizon * info->action_dim), N = (size_t)n, D = (size_t)draws;
    soma_status status = soma__pass_plan(pass, t, n, draws, training, err);
    pass->mean = mean;
    SOMA_TRY(status);
    SOMA_TRY(soma__frame_new(&pass->frame, pass->plan, soma__optimiser_array(t->optimiser, training ? "w" : "ema"),
                             soma__optimiser_array(t->optimiser, "g"), NULL, err));
    if (t->device->kind->reads_host) soma__memory_large(pass->frame->buffers[SOMA_ROLE_SCRATCH], pass->plan->size[SOMA_ROLE_SCRATCH]);
    if (t->still) pass->frame->buffers[SOMA_ROLE_FROZEN] = t->still->memory;
    SOMA_TRY(soma__rows_new(&pass->rows, &t->robot, t->model, n, err));
    pass->actions = soma__calloc(N * chunk, sizeof(float));
    pass->noise = soma__calloc(N * D * chunk, sizeof(float));
    pass->time = soma__calloc(N * D * (size_t)soma__flow_each(info), sizeof(float));
    pass->pad = soma__calloc(N * (size_t)info->horizon, 1);
    if (!pass->actions || !pass->noise || !pass->time || !pass->pad) return soma__no_memory(err, "a training batch");
    soma_batch *b = &pass->rows.batch;
    b->draws = draws;
    b->actions = pass->actions;
    b->noise = pass->noise;
    b->time = pass->time;
    SOMA_TRY(soma__change_room_new(&pass->room, &t->changes, t->model, err));
    if (!info->answer.max) return SOMA_OK;
    SOMA_TRY(soma__lesson_new(&pass->lesson, &t->writing, n, err));
    b->tokens = pass->lesson.tokens;
    b->token_mask = pass->lesson.mask;
    b->token_causal = pass->lesson.causal;
    b->token_loss = pass->lesson.learn;
    return SOMA_OK;
}

void soma__pass_free(soma_pass *pass) {
    soma__frame_free(pass->frame);
    soma__plan_free(pass->plan);
    soma_graph_free(pass->graph);
    soma__rows_free(&pass->rows);
    soma__feed_free(&pass->feed);
    soma__free(pass->actions);
    soma__free(pass->noise);
    soma__free(pass->time);
    soma__free(pass->pad);
    soma__lesson_free(&pass->lesson);
    soma__change_room_free(&pass->room);
    *pass = (soma_pass){0};
}

#define CHANGES (UINT64_MAX - 1) // the stream of what is changed at random, beside those of noise

static uint32_t cameras_there(const soma_trainer *t, const soma_loader_batch *batch, int64_t i) {
    uint32_t there = 0;
    for (int c = 0; c < t->robot.n_cameras; c++) there |= (uint32_t)(batch->image_present[c][i] != 0) << c;
    return there;
}

static soma_status of_frame(soma_status status, const soma_trainer *t, const soma_loader_batch *batch, int64_t i, soma_error *err) {
    if (status == SOMA_OK) return SOMA_OK;
    return soma__fail_in(err, "%s: episode %lld, frame %lld", t->data->path, (long long)batch->episode[i], (long long)batch->frame[i]);
}

// Observation `at` of a batch of the dataset of `s`, with those before it that the model looks at, into row i, as `change` says.
static soma_status fill_row(soma_trainer *t, const soma_trainer *s, soma_pass *pass, const soma_pictures *pictures,
                            const soma_loader_batch *batch, int64_t at, int64_t i, uint32_t there, const soma_change *change,
                            soma_error *err) {
    const soma_robot *r = &s->robot;
    const int64_t views = 1 + t->model->info.history;
    soma_obs obs;
    for (int64_t k = 0; k < views; k++) {
        const int64_t from = at * views + k, to = i * views + k;
        obs = (soma_obs){.prompt = soma__change_prompt(&t->changes, change, &s->data->episodes[batch->episode[at]]),
                         .state = batch->state + from * r->n_state,
                         .n_state = r->n_state};
        for (int c = 0; c < r->n_cameras; c++) {
            const uint8_t *pixels = batch->images[c] + (size_t)from * soma__pictures_size(pictures, c);
            if ((there & ~change->cameras) >> c & 1)
                obs.images[obs.n_images++] =
                    (soma_image){r->cameras[c], pixels, soma__pictures_width(pictures, c), soma__pictures_height(pictures, c)};
        }
        SOMA_TRY(of_frame(soma__robot_observe(r, &pass->rows, to, &obs, err), s, batch, at, err));
        soma__change_row(&t->changes, change, &pass->room, r, &pass->rows, to, there);
    }
    int64_t chunk = t->model->info.horizon * t->model->info.action_dim;
    soma__robot_to_model(r, t->model, obs.state, batch->actions + at * t->model->info.horizon * r->n_actions, pass->actions + i * chunk);
    memcpy(pass->pad + i * t->model->info.horizon, batch->pad + at * t->model->info.horizon, (size_t)t->model->info.horizon);
    if (!t->model->info.answer.max) return SOMA_OK;
    int64_t room = i * soma__prompt_room(&t->model->info);
    const soma_status status = soma__lesson_fill(&pass->lesson, &t->writing, i, pass->rows.tokens + room, pass->rows.token_mask + room,
                                                 pass->actions + i * chunk, err);
    return of_frame(status, s, batch, at, err);
}

// One (noise, time) pair: noise ~ N(0, 1); time = 0.999 Beta(1.5, 1) + 0.001, drawn as U^(1/1.5) (openpi).
// Of a net that learns to continue a chunk, 0 to given_max first actions are given: their time is 0 (LeRobot).
static void draw(soma_pass *pass, const soma_model_info *info, int64_t k, soma_rng rng) {
    const int64_t chunk = info->horizon * info->action_dim, each = soma__flow_each(info);
    const float t = pass->mean ? 1 : (float)(pow(soma__rng_uniform(&rng), 1 / 1.5) * 0.999 + 0.001);
    if (!pass->mean) soma__rng_normals(&rng, pass->noise + k * chunk, (size_t)chunk); // else it is zero since it was allocated
    const int64_t given = info->given_max ? (int64_t)soma__rng_below(&rng, (uint64_t)info->given_max + 1) : 0;
    for (int64_t s = 0; s < each; s++) pass->time[k * each + s] = s < given ? 0 : t;
}

soma_status soma__pass_fill(soma_trainer *t, soma_pass *pass, soma_mixture *rows, int64_t index, bool training, soma_error *err) {
    const soma_loader_batch *batch;
    int64_t at;
    int source;
    const soma_model_info *info = &t->model->info;
    soma_rng all = soma__rng(training ? (uint64_t)t->o.seed : 1), stream = soma__rng_fold(&all, (uint64_t)index);
    for (int64_t i = 0; i < pass->n; i++) {
        SOMA_TRY(soma__mixture_next(rows, index, i, &source, &batch, &at, err));
        const soma_trainer *s = source ? &t->others[source - 1] : t;
        const uint32_t there = cameras_there(s, batch, at);
        const soma_rng own = soma__rng_fold(&stream, CHANGES), row = soma__rng_fold(&own, (uint64_t)i);
        const soma_change change = training ? soma__change_draw(&t->changes, row, &s->robot, there) : (soma_change){0};
        SOMA_TRY(fill_row(t, s, pass, soma__loader_pictures(rows->loaders[source]), batch, at, i, there, &change, err));
        for (int64_t k = 0; k < pass->draws; k++)
            draw(pass, info, i * pass->draws + k, soma__rng_fold(&stream, (uint64_t)(i * pass->draws + k)));
        if (!training || !(t->o.state_noise > 0)) continue;
        soma_rng noise = soma__rng_fold(&stream, UINT32_MAX + (uint64_t)i);
        const int64_t views = 1 + info->history;
        for (int64_t v = i * views; v < (i + 1) * views; v++)
            for (int d = 0; d < s->robot.n_state && info->state_input; d++)
                pass->rows.state[v * info->state_dim + d] += (float)(t->o.state_noise * soma__rng_normal(&noise));
    }
    soma_rng rest = soma__rng_fold(&stream, UINT64_MAX);
    pass->rows.batch.seed = soma__rng_below(&rest, INT64_MAX);
    pass->rows.batch.action_pad = pass->pad;
    SOMA_TRY(t->model->family->prepare(t->model, &pass->rows.batch, &pass->feed, err));
    for (size_t i = 0; i < pass->feed.n_arrays; i++) {
        const soma_feed_array *a = &pass->feed.arrays[i];
        if (soma__plan_find(pass->plan, a->name)) SOMA_TRY(soma__frame_put(pass->frame, a->name, a->data, a->size, err));
    }
    return SOMA_OK;
}
