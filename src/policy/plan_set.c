// SPDX-License-Identifier: Apache-2.0
// Making and running a set. What a run needs is allocated here, so that running allocates nothing.
#include "policy/plan_set.h"
#include "policy/rtc.h"

enum { PULL = 3 }; // which plan

soma_saving soma__saving_whole(const soma_model_info *info) {
    return (soma_saving){.cameras = (1u << info->n_cameras) - 1, .tokens = soma__prompt_room(info), .steps = info->n_steps};
}

soma_status soma__set_graphs(soma_graph *graphs[SOMA_SET_PLANS], int *n, const soma_model *model, const soma_build *like,
                             const soma_saving *saving, soma_error *err) {
    const soma_program programs[SOMA_SET_PLANS] = {SOMA_PROGRAM_ENCODE, soma__step_program(&model->info), SOMA_PROGRAM_SCHEDULE,
                                                   SOMA_PROGRAM_DENOISE};
    *n = model->info.answer.max ? 2 : 3 + like->pull; // a chunk that is written has no schedule
    for (int i = 0; i < *n; i++) {
        SOMA_TRY(soma_graph_new(&graphs[i], err));
        soma_build b = *like;
        b.program = programs[i];
        b.saving = saving;
        model->family->build(model, &b, graphs[i]);
        if (i == PULL) soma__rtc_add_pull(graphs[i]);
    }
    return SOMA_OK;
}

static soma_status compile(soma_plan_set *s, const soma_model *model, const soma_build *like, const soma_params *params,
                           const soma_params *frozen, soma_error *err) {
    SOMA_TRY(soma__set_graphs(s->graphs, &s->n, model, like, &s->saving, err));
    for (int i = 0; i < s->n; i++) SOMA_TRY(soma__layout_add(&s->states, s->graphs[i], SOMA_ROLE_STATE, err));
    SOMA_TRY(s->device->kind->alloc(s->device, &s->state_memory, s->states.size, err));
    for (int i = 0; i < s->n; i++) {
        SOMA_TRY(soma__plan_new(&s->plans[i], s->graphs[i], &params->layout, &s->states, s->device, err));
        SOMA_TRY(soma__frame_new(&s->frames[i], s->plans[i], params->memory, NULL, s->state_memory, err));
        if (frozen) s->frames[i]->buffers[SOMA_ROLE_FROZEN] = frozen->memory;
    }
    return SOMA_OK;
}

soma_status soma__plan_set_new(soma_plan_set **out, soma_device *device, const soma_model *model, const soma_build *like,
                               const soma_saving *saving, const soma_params *params, const soma_params *frozen, soma_error *err) {
    soma_plan_set *s = *out = soma__calloc(1, sizeof *s);
    if (!s) return soma__no_memory(err, "a policy's plans");
    s->saving = *saving;
    s->device = device;
    s->batch = like->batch;
    soma_status status = compile(s, model, like, params, frozen, err);
    if (status == SOMA_OK) return SOMA_OK;
    soma__plan_set_free(s);
    *out = NULL;
    return status;
}

void soma__plan_set_free(soma_plan_set *s) {
    if (!s) return;
    for (int i = 0; i < SOMA_SET_PLANS; i++) {
        soma__frame_free(s->frames[i]);
        soma__plan_free(s->plans[i]);
        soma_graph_free(s->graphs[i]);
    }
    if (s->state_memory) s->device->kind->free(s->device, s->state_memory);
    soma__layout_free(&s->states);
    soma__free(s);
}

soma_status soma__plan_set_feed(soma_plan_set *s, const soma_feed *feed, soma_error *err) {
    for (int i = 0; i < s->n; i++)
        for (size_t k = 0; k < feed->n_arrays; k++) {
            const soma_feed_array *a = &feed->arrays[k];
            if (soma__plan_find(s->plans[i], a->name)) SOMA_TRY(soma__frame_put(s->frames[i], a->name, a->data, a->size, err));
        }
    return SOMA_OK;
}

// Once per schedule: what depends on the times alone.
static soma_status schedule(soma_plan_set *s, soma_time_rule rule, soma_error *err) {
    if (s->scheduled && s->rule == rule) return SOMA_OK;
    s->scheduled = true;
    s->rule = rule;
    if (!soma__plan_find(s->plans[2], "time")) return SOMA_OK; // of this family nothing depends on times
    float times[s->saving.steps + 1];                          // the last: actions that are given
    soma__schedule_times(times, s->saving.steps, rule);
    times[s->saving.steps] = 0;
    SOMA_TRY(soma__frame_put(s->frames[2], "time", times, sizeof *times * (size_t)soma__numel(soma__plan_find(s->plans[2], "time")), err));
    soma__frame_run(s->frames[2]);
    return SOMA_OK;
}

soma_status soma__plan_set_begin(soma_plan_set *s, soma_time_rule rule, soma_error *err) {
    const float dt = -1.0f / (float)s->saving.steps;
    SOMA_TRY(schedule(s, rule, err));
    soma__frame_run(s->frames[0]);
    return soma__plan_find(s->plans[1], "dt") ? soma__frame_put(s->frames[1], "dt", &dt, sizeof dt, err) : SOMA_OK;
}

// Which row of the schedule each observation, or each of its actions, is at.
static soma_status put_step(soma_plan_set *s, soma_frame *f, int64_t k, soma_error *err) {
    const soma_tensor *step = soma__plan_find(f->plan, "step");
    if (!step) return SOMA_OK; // one step, which is like no other
    const int64_t n = soma__numel(step), each = n / s->batch;
    int32_t which[n];
    for (int64_t i = 0; i < n; i++) which[i] = (int32_t)(s->given && i % each < s->given[i / each] ? s->saving.steps : k);
    return soma__frame_put(f, "step", which, sizeof which, err);
}

soma_status soma__plan_set_step(soma_plan_set *s, int64_t k, float *x, soma_error *err) {
    soma_frame *step = s->frames[1];
    const size_t size = sizeof *x * (size_t)soma__numel(soma__plan_find(step->plan, "x_t"));
    SOMA_TRY(soma__frame_put(step, "x_t", x, size, err));
    SOMA_TRY(put_step(s, step, k, err));
    soma__frame_run(step);
    return soma__frame_get(step, "x_next", x, size, err);
}

soma_status soma__plan_set_pull(soma_plan_set *s, int64_t k, float time, const float *x, const float *target, const float *weight,
                                float *pull, soma_error *err) {
    soma_frame *f = s->frames[PULL];
    SOMA_CHECK(f, "a set with a pull is built with one");
    const soma_tensor *x_t = soma__plan_find(f->plan, "x_t");
    const size_t size = sizeof *x * (size_t)soma__numel(x_t), rows = sizeof *x * (size_t)(x_t->shape[0] * x_t->shape[1]);
    float times[s->batch];
    for (int64_t i = 0; i < s->batch; i++) times[i] = time;
    SOMA_TRY(soma__frame_put(f, "x_t", x, size, err));
    SOMA_TRY(put_step(s, f, k, err));
    SOMA_TRY(soma__frame_put(f, "rtc.time", times, sizeof times, err));
    SOMA_TRY(soma__frame_put(f, "rtc.target", target, size, err));
    SOMA_TRY(soma__frame_put(f, "rtc.weight", weight, rows, err));
    soma__frame_run(f);
    return soma__frame_get(f, "rtc.pull", pull, size, err);
}

soma_status soma__plan_set_denoise(soma_plan_set *s, soma_time_rule rule, float *x, soma_error *err) {
    SOMA_TRY(soma__plan_set_begin(s, rule, err));
    for (int64_t k = 0; k < s->saving.steps; k++) SOMA_TRY(soma__plan_set_step(s, k, x, err));
    return SOMA_OK;
}
