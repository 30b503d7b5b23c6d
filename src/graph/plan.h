// SPDX-License-Identifier: Apache-2.0
// From a graph to something that runs: which nodes, in which order, fused how, in which memory. A plan is const once made.
#ifndef SOMA_GRAPH_PLAN_H
#define SOMA_GRAPH_PLAN_H

#include "graph/graph.h"

// Element-wise nodes that run as one pass over memory: `nodes` in order, the last one's output is written, the others' are not (they live
// in a cache-sized block). nodes[0] may be a product (of matrices, a convolution) that the rest follows: a device runs both at once, or the
// product into the last node's memory and the rest over it. A step of a plan that is no such chain has n_nodes 1.
enum { SOMA_MAX_CHAIN = 16 };
typedef struct soma_step {
    soma_tensor **nodes;
    int n_nodes;
} soma_step;
static inline bool soma__is_product(const soma_tensor *t) {
    return t->op == SOMA_OP_MATMUL || t->op == SOMA_OP_QUANT_MATMUL || t->op == SOMA_OP_CONV || t->op == SOMA_OP_CONV_TRANSPOSED;
}
static inline bool soma__step_follows(const soma_step *s) { return s->n_nodes > 1 && soma__is_product(s->nodes[0]); } // a product?

// Named memory shared by plans: weights (soma_params) and states. The layout is by name; the memory is the device's.
typedef struct soma_slot {
    const char *name;
    soma_dtype dtype;
    int n_dims;
    int64_t shape[SOMA_MAX_DIMS];
    int64_t place; // bytes from the start of the buffer, 64-aligned
    size_t size;   // bytes that it takes there
    int form;      // 0: as published; else a form of the device's own (device.h), which only the kernels that chose it can read
    soma_init init;
    bool still; // no gradient changes it
} soma_slot;

typedef struct soma_layout {
    soma_arena arena;
    soma_slot *slots;
    size_t n_slots, capacity;
    size_t size;                      // bytes of the whole buffer
    const struct soma_layout *frozen; // of weights: where those of role FROZEN lie; NULL: there are none
} soma_layout;                        // {0} is empty and ready

// Adds the graph's leaves of `role` (WEIGHT, FROZEN or STATE) that the layout does not know yet; a known name with another shape is an
// error.
soma_status soma__layout_add(soma_layout *layout, const soma_graph *graph, soma_role role, soma_error *err);
const soma_slot *soma__layout_find(const soma_layout *layout, const char *name); // NULL when absent
int64_t soma__slot_count(const soma_slot *slot);                                 // values
void soma__layout_free(soma_layout *layout);

typedef struct soma_plan {
    soma_graph *graph; // borrowed
    soma_step *steps;
    size_t n_steps;
    size_t size[SOMA_ROLE_COUNT]; // bytes that each buffer needs
    size_t workspace;             // bytes that the device keeps for the plan's kernels
    double flops;                 // of matrix products and attention, for one run
    struct soma_device *device;
    void *device_data;
} soma_plan;

// The part that needs no device: what runs, in which order, where. On failure plan->steps may be set and is the caller's to free.
soma_status soma__plan_make(soma_plan *plan, soma_graph *graph, const soma_layout *weights, const soma_layout *states, soma_error *err);
// Checks the graph (its first mistake is returned here), removes what no output needs, fuses, places. weights and states may be NULL when
// the graph has no such leaf.
soma_status soma__plan_new(soma_plan **plan, soma_graph *graph, const soma_layout *weights, const soma_layout *states,
                           struct soma_device *device, soma_error *err);
void soma__plan_free(soma_plan *plan); // NULL allowed

// Inputs, outputs and taps by name; NULL when the plan has none of that name. Their bytes lie at ->place (through the owner) in the IO
// buffer.
const soma_tensor *soma__plan_find(const soma_plan *plan, const char *name);

// The memory of one runner of a plan, or of several plans that are run by one owner: scratch and IO are sized for each plan, weights,
// gradients and states are the owner's.
typedef struct soma_frame {
    const soma_plan *plan;
    void *buffers[SOMA_ROLE_COUNT]; // IO and SCRATCH belong to the frame; the others are borrowed
} soma_frame;
soma_status soma__frame_new(soma_frame **frame, const soma_plan *plan, void *weights, void *grads, void *states, soma_error *err);
void soma__frame_free(soma_frame *frame);
soma_status soma__frame_put(soma_frame *frame, const char *name, const void *data, size_t size, soma_error *err); // an input
soma_status soma__frame_get(const soma_frame *frame, const char *name, void *data, size_t size, soma_error *err); // an output or tap
void soma__frame_run(soma_frame *frame);

#endif
