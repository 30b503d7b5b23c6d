// SPDX-License-Identifier: Apache-2.0
// Records what a robot sends: what `soma record --server` serves in a policy's place. Over openpi's websocket every message is one frame,
//
//     an observation as for a policy (serve/observe.h), and "action" or "actions": the numbers that the robot was sent
//
// and is answered with {"episodes", "frames" (of the open episode), "left_out"}. "end": true ends the episode behind the message's frame,
// "drop": true forgets it; a message with one of these and no action is no frame. The prompt of an episode's last frame that has one is its
// task. The first message says what a frame is: which cameras of which sizes, how many numbers; later ones must be like it.
//
// One client records at a time; others are told that it is busy. The open episode of a client that goes is dropped, since nobody said that
// it was done. A frame that is refused is not recorded; what was recorded stays.
#ifndef SOMA_SERVE_COLLECT_H
#define SOMA_SERVE_COLLECT_H

#include "serve/server.h"

#include <soma/record.h>

typedef struct soma_collector soma_collector; // the server's second thread's, while it serves

typedef struct soma_collect_opts {
    const char *path, *robot_type; // borrowed until close
    double fps;
    bool resume;
} soma_collect_opts;

// Makes nothing yet: the dataset begins with the first frame. Refuses a folder that is in use, unless opts.resume.
soma_status soma__collector_open(soma_collector **collector, const soma_collect_opts *opts, soma_error *err);
soma_server_policy soma__collector_policy(soma_collector *collector); // `collector` outlives the server
// After the server: finishes the dataset. Without a frame there is none.
soma_status soma__collector_finish(soma_collector *collector, soma_recorder_counts *counts, soma_error *err);
void soma__collector_close(soma_collector *collector); // NULL allowed

#endif
