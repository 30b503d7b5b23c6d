// SPDX-License-Identifier: Apache-2.0
// The compiled plans of a policy for so many observations at once and one saving (family.h: soma_saving): encode, then denoise or decode,
// and what is computed once per schedule. A plan has fixed shapes, so that each set of cameras and length of prompt has a set of its own.
#ifndef SOMA_POLICY_PLAN_SET_H
#define SOMA_POLICY_PLAN_SET_H

#include "policy/params.h"
#include "policy/schedule.h"

enum { SOMA_SET_PLANS = 4 }; // encode; denoise or decode; schedule, where the chunk is denoised; denoise with its pull (rtc.h)

typedef struct soma_plan_set {
    struct soma_plan_set *next; // the owner's list
    soma_saving saving;
    soma_device *device; // borrowed
    int64_t batch;
    int n;
    soma_graph *graphs[SOMA_SET_PLANS];
    soma_plan *plans[SOMA_SET_PLANS];
    soma_frame *frames[SOMA_SET_PLANS];
    soma_layout states;
    void *state_memory;
    bool scheduled; // by this rule
    soma_time_rule rule;
    const int64_t *given; // [B] of nets with a time per action: how many first actions are at time 0 already; NULL: none
} soma_plan_set;

// The saving that leaves nothing out, for the model's own number of flow steps.
soma_saving soma__saving_whole(const soma_model_info *info);
// Builds the graphs of a set; returns how many through *n. `like`: precision, pictures, adapters. On failure some may be set.
soma_status soma__set_graphs(soma_graph *graphs[SOMA_SET_PLANS], int *n, const soma_model *model, const soma_build *like,
                             const soma_saving *saving, soma_error *err);
// frozen: weights of the role FROZEN, NULL for none.
soma_status soma__plan_set_new(soma_plan_set **set, soma_device *device, const soma_model *model, const soma_build *like,
                               const soma_saving *saving, const soma_params *params, const soma_params *frozen, soma_error *err);
void soma__plan_set_free(soma_plan_set *set); // NULL allowed

soma_status soma__plan_set_feed(soma_plan_set *set, const soma_feed *feed, soma_error *err);
// Euler steps from the noise x [B, S, A] at time 1 to actions at time 0, in place; the inputs were fed.
soma_status soma__plan_set_denoise(soma_plan_set *set, soma_time_rule rule, float *x, soma_error *err);
// Its parts: encodes what was fed; takes step k. Between steps the last velocity is the step's output "v_t".
soma_status soma__plan_set_begin(soma_plan_set *set, soma_time_rule rule, soma_error *err);
soma_status soma__plan_set_step(soma_plan_set *set, int64_t k, float *x, soma_error *err);
// Of a set with a pull: what draws x, at step k and its time, towards the target [B, S, A] by weights [B, S]. pull [B, S, A].
soma_status soma__plan_set_pull(soma_plan_set *set, int64_t k, float time, const float *x, const float *target, const float *weight,
                                float *pull, soma_error *err);

#endif
