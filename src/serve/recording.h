// SPDX-License-Identifier: Apache-2.0
// Every exchange as a LeRobot v3.0 dataset, for later training: observation.state, the pictures, the prompt as the task, and as `action`
// the first of the chunk that was answered. One client's requests are one episode, until it goes, resets, asks for something else, or has
// sent 128 MiB of pictures. The pictures of a dataset have one size, that of the first one that came (made even); others are fitted into
// it.
//
// A thread of its own encodes and writes, so that no robot waits for a disk. When it is a gigabyte behind, exchanges are left out and
// counted. A recording that exists is gone on with; one that fails is given up with an event, and the server goes on.
#ifndef SOMA_SERVE_RECORDING_H
#define SOMA_SERVE_RECORDING_H

#include "serve/events.h"
#include "serve/metrics.h"

#include <soma/soma.h>

typedef struct soma_recording soma_recording;

// `path`: the dataset's folder, made where it is absent. `info`, `metrics` and `events` are borrowed until close.
soma_status soma__recording_open(soma_recording **recording, const char *path, const soma_policy_info *info, double fps,
                                 soma_metrics *metrics, const soma_events *events, soma_error *err);
// All are copied. Never waits.
void soma__recording_add(soma_recording *recording, int64_t client, const soma_obs *obs, const soma_actions *actions);
void soma__recording_end(soma_recording *recording, int64_t client); // its episode
void soma__recording_close(soma_recording *recording);               // ends all episodes, writes what is there; NULL allowed

#endif
