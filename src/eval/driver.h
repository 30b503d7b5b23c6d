// SPDX-License-Identifier: Apache-2.0
// Who drives an environment: a policy in this process, a policy behind a server, the scripted expert, or nobody. One driver serves several
// seats; a seat is one robot's timeline.
#ifndef SOMA_EVAL_DRIVER_H
#define SOMA_EVAL_DRIVER_H

#include "env/task.h"
#include "format/wire.h"

#include <soma/soma.h>

typedef struct soma_seat {
    int index;           // in [0, seats)
    const soma_env *env; // for the expert's eyes only
    soma_obs obs;        // what a policy sees; without pictures where the driver is blind
    soma_actions plan;   // what act fills in: borrowed from the driver until the seat's next act
} soma_seat;

typedef struct soma_driver {
    const char *name;
    bool blind; // needs no pictures
    int seats;  // how many it was made for
    void *ctx;
    soma_status (*begin)(void *ctx, int seat, soma_error *err);               // an episode begins in this seat; NULL: nothing to do
    soma_status (*act)(void *ctx, soma_seat **seats, int n, soma_error *err); // for these seats at once
    // What the seat sees in a control step without a chunk; NULL: nobody looks back. Different seats' may run at once.
    soma_status (*see)(void *ctx, soma_seat *seat, soma_error *err);
    void (*close)(void *ctx); // NULL: nothing to do
} soma_driver;

// Each checks that sizes fit the task. Release with soma__driver_close.
// `policy` is borrowed; every episode gets a pilot of its own made with `opts`. Cameras that the policy does not know are left out.
soma_status soma__driver_policy(soma_driver *driver, const soma_policy *policy, const soma_pilot_opts *opts, const soma_task *task,
                                int seats, soma_error *err);
// `address` and `opts` as soma__wire_connect takes them; the texts are borrowed. Every episode is a connection of its own, which is how a
// client of openpi's protocol starts anew.
soma_status soma__driver_server(soma_driver *driver, const char *address, const soma_wire_opts *opts, const soma_task *task, int seats,
                                soma_error *err);
soma_status soma__driver_expert(soma_driver *driver, const soma_task *task, int seats, soma_error *err);
// Sends the arm where it is: what success is worth that needs no action. Tasks whose state and action are the same quantities.
soma_status soma__driver_hold(soma_driver *driver, const soma_task *task, int seats, soma_error *err);
void soma__driver_close(soma_driver *driver); // {0} allowed

#endif
