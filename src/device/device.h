// SPDX-License-Identifier: Apache-2.0
// A device runs plans. It is told the whole plan, so that it may capture it; one graph runs on one device and nothing falls back silently.
#ifndef SOMA_DEVICE_DEVICE_H
#define SOMA_DEVICE_DEVICE_H

#include "graph/plan.h"

#include <stdio.h>

typedef struct soma_device soma_device;

typedef struct soma_device_opts {
    int threads;     // 0: as many as processors
    const char *isa; // cpu: a name of cpu/isa.c ("plain", "avx2", "neon" ...); NULL or "": the best there is
} soma_device_opts;

typedef struct soma_device_kind {
    const char *name; // "cpu"
    bool reads_host;  // weights may stay in the host's memory, such as a mapped file
    soma_status (*open)(soma_device **device, const soma_device_opts *opts, soma_error *err);
    void (*close)(soma_device *device);
    const char *(*info)(const soma_device *device);                                         // one line: "cpu avx512bf16, 2 threads"
    soma_status (*alloc)(soma_device *device, void **memory, size_t size, soma_error *err); // 64-byte aligned, zeroed
    void (*free)(soma_device *device, void *memory);
    void (*put)(soma_device *device, void *memory, const void *host, size_t size);
    void (*get)(soma_device *device, void *host, const void *memory, size_t size);
    // The name of the forms below: instruction set and layout version. Packed weights are kept between starts under it; NULL: they are not.
    const char *(*forms)(const soma_device *device);
    // Weights that are only read may lie in a form that the device's kernels read faster than the published one; NULL: there is none.
    // choose_form sets slot->form and slot->size, or leaves them, by dtypes, the weight's shape and the instruction set alone; readers:
    // every node that reads the weight, of all graphs over it. pack writes the weight in its form; data: as published, of any dtype of
    // graphs, aligned, in the host's memory.
    void (*choose_form)(const soma_device *device, soma_slot *slot, const soma_tensor *const *readers, size_t n_readers);
    void (*pack)(soma_device *device, const soma_slot *slot, void *memory, const void *data, soma_dtype dtype);
    bool (*has)(const soma_device *device, const soma_tensor *t);                  // can it run this op on these shapes and dtypes
    soma_status (*prepare)(soma_device *device, soma_plan *plan, soma_error *err); // chooses kernels; fills plan->device_data
    void (*release)(soma_device *device, soma_plan *plan);
    // buffers[role]: base addresses on the device. Does not allocate. Runs of one device do not overlap: the device has one lock.
    void (*run)(soma_device *device, const soma_plan *plan, void *const buffers[SOMA_ROLE_COUNT]);
} soma_device_kind;

struct soma_device {
    const soma_device_kind *kind;
};

extern const soma_device_kind soma__device_cpu;
soma_status soma__device_open(soma_device **device, const char *name, const soma_device_opts *opts, soma_error *err);
void soma__device_close(soma_device *device); // NULL allowed
// Lets the device choose a form for each weight of the layout by what reads it in `graphs`, which are all that will be planned over it.
soma_status soma__choose_forms(soma_device *device, soma_layout *layout, const soma_graph *const *graphs, size_t n_graphs, soma_role role,
                               soma_error *err);

#endif
