// SPDX-License-Identifier: Apache-2.0
// Which action is sent when, from chunks that were asked for at one moment and arrive at a later one. Knows no clock, no policy and no
// thread: moments are told in control steps since the episode began, so that the same code runs in simulated time (eval/rollout.c), in real
// time (drive.c) and behind a socket. What each way of executing does is told in docs/chunks.md.
#ifndef SOMA_POLICY_TIMELINE_H
#define SOMA_POLICY_TIMELINE_H

#include "base/opts.h"

#include <soma/soma.h>

extern const soma_opt_table soma_chunk_opts_table;

typedef struct soma_timeline soma_timeline;

// horizon: the longest chunk that may arrive, in control steps. delay: what is expected of the first chunk, in control steps.
soma_status soma__timeline_new(soma_timeline **line, const soma_chunk_opts *opts, int horizon, int n_actions, double delay,
                               soma_error *err);
void soma__timeline_free(soma_timeline *line);  // NULL allowed
void soma__timeline_reset(soma_timeline *line); // a new episode, at moment 0; what was measured stays

// Is a chunk to be asked for, from an observation of this moment? Never while one is under way.
bool soma__timeline_wants(const soma_timeline *line, double now);
// A delay to expect as long as none was measured.
void soma__timeline_expect(soma_timeline *line, double delay);
// It was asked for: what the observation is to say of it (soma_obs.executed and .delay).
void soma__timeline_ask(soma_timeline *line, double now, int *executed, int *delay);
// It is there: values [n, n_actions], copied; n at most the horizon.
void soma__timeline_arrive(soma_timeline *line, double now, const float *values, int n);
void soma__timeline_lost(soma_timeline *line); // it will not come
// The action of this moment [n_actions], between two steps the mean of their actions by distance. False: no chunk has one, and the last
// action stands (at first: zeros).
bool soma__timeline_action(soma_timeline *line, double now, float *action);
soma_chunk_report soma__timeline_read(const soma_timeline *line);
// What two timelines measured, as one; the last values are `more`'s.
void soma__chunk_report_add(soma_chunk_report *sum, soma_chunk_report more);

#endif
