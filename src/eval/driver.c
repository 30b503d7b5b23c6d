// SPDX-License-Identifier: Apache-2.0
// The four drivers. What they share is small: memory per seat, and a plan that fits the task.
#include "eval/driver.h"

#include "policy/policy.h"

#include <math.h>
#include <string.h>

void soma__driver_close(soma_driver *d) {
    if (d->close) d->close(d->ctx);
    *d = (soma_driver){0};
}

static soma_status check_plan(const soma_actions *plan, const soma_task *task, const char *who, soma_error *err) {
    if (plan->n_actions == task->n_actions && plan->horizon >= 1) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s gives actions [%d, %d]; %s takes %d values", who, plan->horizon, plan->n_actions, task->name,
                      task->n_actions);
}

// A policy's chunk is of one rate; at another, the arm would go too fast or too slow.
static soma_status check_rate(double rate, const soma_task *task, const char *who, soma_error *err) {
    if (!(rate > 0) || fabs(rate - task->rate) < 1e-6 * rate) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s acts %g times a second and %s is driven at %g Hz: --rate %g", who, rate, task->name,
                      task->rate, rate);
}

// ---- a policy in this process

typedef struct {
    const soma_policy *policy;
    const soma_task *task;
    soma_pilot_opts opts;
    soma_policy_info info;
    int n_seats;
    soma_pilot **pilots, **called; // [n_seats]; those of this call
    soma_obs *obs;                 // of this call, cameras filtered
    soma_actions *plans;
} pilots;

static void pilots_close(void *ctx) {
    pilots *p = ctx;
    for (int i = 0; p->pilots && i < p->n_seats; i++) soma_pilot_free(p->pilots[i]);
    soma__free(p->pilots);
    soma__free(p->called);
    soma__free(p->obs);
    soma__free(p->plans);
    soma__free(p);
}

static soma_status pilots_begin(void *ctx, int seat, soma_error *err) {
    pilots *p = ctx;
    soma_pilot_free(p->pilots[seat]);
    p->pilots[seat] = NULL;
    return soma_pilot_new(&p->pilots[seat], p->policy, &p->opts, err);
}

static bool knows_camera(const soma_policy_info *info, const char *camera) {
    for (int i = 0; i < info->n_cameras; i++)
        if (!strcmp(info->camera_names[i], camera)) return true;
    return false;
}

// The seat's observation, less the cameras that the policy does not know.
static soma_obs known_to(const pilots *p, const soma_seat *seat) {
    soma_obs obs = seat->obs;
    obs.n_images = 0;
    for (int c = 0; c < seat->obs.n_images; c++)
        if (knows_camera(&p->info, seat->obs.images[c].camera)) obs.images[obs.n_images++] = seat->obs.images[c];
    return obs;
}

static soma_status pilots_see(void *ctx, soma_seat *seat, soma_error *err) {
    const pilots *p = ctx;
    const soma_obs obs = known_to(p, seat);
    return soma_pilot_see(p->pilots[seat->index], &obs, err);
}

static soma_status pilots_act(void *ctx, soma_seat **seats, int n, soma_error *err) {
    pilots *p = ctx;
    for (int i = 0; i < n; i++) {
        p->called[i] = p->pilots[seats[i]->index];
        p->obs[i] = known_to(p, seats[i]);
    }
    SOMA_TRY(soma_policy_act_many(p->policy, n, p->called, p->obs, p->plans, err));
    for (int i = 0; i < n; i++) {
        seats[i]->plan = p->plans[i];
        seats[i]->plan.model_ms /= n; // told for the whole batch
    }
    return SOMA_OK;
}

soma_status soma__driver_policy(soma_driver *driver, const soma_policy *policy, const soma_pilot_opts *opts, const soma_task *task,
                                int seats, soma_error *err) {
    soma_policy_info info = soma_policy_describe(policy);
    if (info.n_state != task->n_state || info.n_actions != task->n_actions) {
        return soma__fail(err, SOMA_BAD_INPUT, "the policy is for a robot with %d state and %d action values; %s has %d and %d",
                          info.n_state, info.n_actions, task->name, task->n_state, task->n_actions);
    }
    SOMA_TRY(check_rate(info.rate, task, "the policy", err));
    pilots *p = soma__calloc(1, sizeof *p);
    if (!p) return soma__no_memory(err, "the pilots");
    size_t n = (size_t)seats;
    *p = (pilots){.policy = policy, .task = task, .opts = *opts, .info = info, .n_seats = seats};
    p->pilots = soma__calloc(n, sizeof *p->pilots);
    p->called = soma__calloc(n, sizeof *p->called);
    p->obs = soma__calloc(n, sizeof *p->obs);
    p->plans = soma__calloc(n, sizeof *p->plans);
    if (!p->pilots || !p->called || !p->obs || !p->plans) {
        pilots_close(p);
        return soma__no_memory(err, "the pilots");
    }
    *driver = (soma_driver){.name = "policy", .seats = seats, .ctx = p, .begin = pilots_begin, .act = pilots_act, .close = pilots_close};
    if (soma__policy_model(policy)->info.history) driver->see = pilots_see;
    return SOMA_OK;
}

// ---- a policy behind a server

typedef struct {
    const char *address;
    soma_wire_opts opts;
    const soma_task *task;
    int n_seats;
    soma_wire **wires; // [n_seats]
} wires;

static void wires_close(void *ctx) {
    wires *w = ctx;
    for (int i = 0; w->wires && i < w->n_seats; i++) soma__wire_close(w->wires[i]);
    soma__free(w->wires);
    soma__free(w);
}

static soma_status wires_begin(void *ctx, int seat, soma_error *err) {
    wires *w = ctx;
    soma__wire_close(w->wires[seat]);
    w->wires[seat] = NULL;
    return soma__wire_connect(&w->wires[seat], w->address, &w->opts, err);
}

static soma_status wires_act(void *ctx, soma_seat **seats, int n, soma_error *err) {
    wires *w = ctx;
    for (int i = 0; i < n; i++) {
        SOMA_TRY(soma__wire_infer(w->wires[seats[i]->index], &seats[i]->obs, &seats[i]->plan, err));
        SOMA_TRY(check_plan(&seats[i]->plan, w->task, w->address, err));
    }
    return SOMA_OK;
}

// What soma's server says of its policy; openpi's says nothing.
static double server_rate(const soma_wire *wire) {
    const soma_msg *rate = soma__msg_get(soma__wire_metadata(wire), "control_frequency");
    return rate && soma__msg_n_numbers(rate) == 1 ? soma__msg_number(rate, 0) : 0;
}

soma_status soma__driver_server(soma_driver *driver, const char *address, const soma_wire_opts *opts, const soma_task *task, int seats,
                                soma_error *err) {
    wires *w = soma__calloc(1, sizeof *w);
    if (!w) return soma__no_memory(err, "the connections");
    *w = (wires){address, *opts, task, seats, soma__calloc((size_t)seats, sizeof *w->wires)};
    soma_status status = w->wires ? wires_begin(w, 0, err) : soma__no_memory(err, "the connections"); // is anybody there?
    if (status == SOMA_OK) status = check_rate(server_rate(w->wires[0]), task, address, err);
    if (status == SOMA_OK)
        *driver = (soma_driver){.name = "server", .seats = seats, .ctx = w, .begin = wires_begin, .act = wires_act, .close = wires_close};
    else
        wires_close(w);
    return status;
}

// ---- the baselines

typedef struct {
    const soma_task *task;
    float *actions; // [seats, n_actions]
} baseline;

static void baseline_close(void *ctx) {
    baseline *b = ctx;
    soma__free(b->actions);
    soma__free(b);
}

static soma_status expert_act(void *ctx, soma_seat **seats, int n, soma_error *err) {
    (void)err;
    baseline *b = ctx;
    for (int i = 0; i < n; i++) {
        float *action = b->actions + (size_t)seats[i]->index * b->task->n_actions;
        b->task->expert(seats[i]->env, action);
        seats[i]->plan = (soma_actions){action, 1, b->task->n_actions, 0, NULL};
    }
    return SOMA_OK;
}

static soma_status hold_act(void *ctx, soma_seat **seats, int n, soma_error *err) {
    (void)err;
    baseline *b = ctx;
    for (int i = 0; i < n; i++) {
        float *action = b->actions + (size_t)seats[i]->index * b->task->n_actions;
        memcpy(action, seats[i]->obs.state, b->task->n_actions * sizeof *action);
        seats[i]->plan = (soma_actions){action, 1, b->task->n_actions, 0, NULL};
    }
    return SOMA_OK;
}

static soma_status baseline_new(soma_driver *driver, const soma_task *task, int seats, soma_driver like, soma_error *err) {
    baseline *b = soma__calloc(1, sizeof *b);
    if (!b) return soma__no_memory(err, "a baseline");
    *b = (baseline){task, soma__calloc((size_t)seats * task->n_actions, sizeof(float))};
    if (!b->actions) {
        baseline_close(b);
        return soma__no_memory(err, "a baseline");
    }
    *driver = like;
    driver->seats = seats;
    driver->ctx = b;
    driver->close = baseline_close;
    return SOMA_OK;
}

soma_status soma__driver_expert(soma_driver *driver, const soma_task *task, int seats, soma_error *err) {
    return baseline_new(driver, task, seats, (soma_driver){.name = "expert", .blind = true, .act = expert_act}, err);
}

soma_status soma__driver_hold(soma_driver *driver, const soma_task *task, int seats, soma_error *err) {
    if (task->n_state != task->n_actions)
        return soma__fail(err, SOMA_BAD_INPUT, "%s has %d state values and %d actions: its state cannot be held", task->name, task->n_state,
                          task->n_actions);
    return baseline_new(driver, task, seats, (soma_driver){.name = "hold", .act = hold_act}, err);
}
