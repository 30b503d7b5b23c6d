// SPDX-License-Identifier: Apache-2.0
// What the two kinds of trace share: the run, its inputs, its graphs, and what is kept of them.
#ifndef SOMA_POLICY_TRACE_RUN_H
#define SOMA_POLICY_TRACE_RUN_H

#include "policy/params.h"
#include "policy/schedule.h"
#include "policy/trace.h"

typedef struct soma_trace_run {
    const soma_trace_opts *o;
    soma_trace *out;
    soma_device *device;
    soma_model *model;
    const soma_safetensors *in;
    soma_precision precision;
    soma_time_rule time;
    soma_arena arena;         // the batches' arrays
    soma_batch batch, lesson; // what is observed and, in training, learned
    const float *noise;       // NULL: no sampling
    const int32_t *follow;    // what is to be decoded, whatever is likeliest; NULL: what is
    bool train;               // there is something to learn
    soma_graph *encode, *step, *learn;
    soma_params *params;
    soma_layout states;
    void *state_memory;
} soma_trace_run;

typedef struct soma_trace_runner {
    soma_plan *plan;
    soma_frame *frame;
} soma_trace_runner;

// ---- what comes out. `data` is to be filled, NULL where only names are asked for.
soma_status soma__trace_take(soma_trace_run *r, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape, void **data,
                             soma_error *err);
soma_status soma__trace_take_floats(soma_trace_run *r, const char *name, int n_dims, const int64_t *shape, const float *values,
                                    soma_error *err);
// An output or tap of the frame's plan under another name.
soma_status soma__trace_take_as(soma_trace_run *r, const soma_frame *f, const char *from, const char *name, soma_error *err);
// All taps whose name begins, or does not begin, with `prefix`.
soma_status soma__trace_take_taps(soma_trace_run *r, const soma_frame *f, const char *prefix, bool begins, soma_error *err);
// The gradient of every weight, as "<prefix>.<weight>", prefix "": the weight's name alone; the norm of all, as train.grad_global_norm.
soma_status soma__trace_take_grads(soma_trace_run *r, const char *grads, const char *prefix, soma_error *err);
soma_status soma__trace_take_norm(soma_trace_run *r, const char *grads, soma_error *err);

// ---- what goes in
void *soma__trace_room(soma_trace_run *r, size_t size, soma_error *err); // as long as the run
// The input `name` with this shape as f32 or, for integer dtypes, as it is told by `dtype` (I32 or U8). names_only: zeros.
soma_status soma__trace_input(soma_trace_run *r, const void **out, const char *name, soma_dtype dtype, int n_dims, const int64_t *shape,
                              soma_error *err);
soma_status soma__trace_read_images(soma_trace_run *r, soma_error *err); // into the batch, which knows n

// ---- graphs and weights
soma_status soma__trace_build(soma_trace_run *r, soma_graph **graph, soma_program program, int64_t rows, bool whole, soma_error *err);
// A checkpoint that was trained here has no weights for what its graphs never compute: then a trace does without it, too.
soma_status soma__trace_load(soma_trace_run *r, const char *folder, soma_error *err);
soma_status soma__trace_states(soma_trace_run *r, soma_error *err); // memory for what ENCODE leaves to the next program
void soma__trace_drop_graphs(soma_trace_run *r);
soma_status soma__trace_open(soma_trace_run *r, soma_trace_runner *x, soma_graph *graph, void *grads, const soma_feed *feed,
                             soma_error *err);
void soma__trace_run_plan(soma_trace_run *r, soma_trace_runner *x); // nothing where only names are asked for
void soma__trace_close(soma_trace_runner *x);

// ---- a family that writes its chunk as tokens (trace_written.c)
soma_status soma__trace_written_inputs(soma_trace_run *r, soma_error *err);
soma_status soma__trace_written(soma_trace_run *r, soma_error *err); // after everything was loaded

#endif
