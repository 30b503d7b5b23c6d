// SPDX-License-Identifier: Apache-2.0
// Real-time chunking: a chunk that continues the one before. While a policy works, the robot goes on with the chunk that it has; when the
// new one arrives, its first steps must agree with what was done meanwhile. So the flow is drawn towards the old chunk's steps that are
// left: fully where they will have been executed, less and less behind.
//
// guided    LeRobot's: the flow's guess of the chunk, x - t v, is drawn towards the old one directly
// gradient  Black et al. 2025: the same difference, carried back through the network by a vector-Jacobian product
// trained   a net that has learned it: the steps that will have been executed are given, at time 0, and the others follow from them
//
// P is the old chunk in the model's own values, moved so that its row 0 is the step of this observation.
#ifndef SOMA_POLICY_RTC_H
#define SOMA_POLICY_RTC_H

#include "policy/plan_set.h"

typedef enum soma_rtc_mode { SOMA_RTC_NONE, SOMA_RTC_GUIDED, SOMA_RTC_GRADIENT, SOMA_RTC_TRAINED } soma_rtc_mode;
typedef enum soma_rtc_schedule { SOMA_RTC_ZEROS, SOMA_RTC_ONES, SOMA_RTC_LINEAR, SOMA_RTC_EXP } soma_rtc_schedule;

// name "": none.
soma_status soma__rtc_mode(soma_rtc_mode *mode, const char *name, soma_error *err);
soma_status soma__rtc_schedule(soma_rtc_schedule *schedule, const char *name, soma_error *err);

// w [S]: how much each step of P binds. 1 for the `delay` steps that will have been executed; down to 0 at `horizon`, as the schedule says.
void soma__rtc_weights(float *w, int64_t S, soma_rtc_schedule schedule, int64_t delay, int64_t horizon);
// How strongly the flow is drawn at time t in (0, 1]; at most `most`.
float soma__rtc_strength(float t, float most);
// v [S, A], the velocity at x [S, A] and time t, becomes the guided one. pull [S, A]: P - guess, carried back through the network and
// weighted; NULL: as it is, which is LeRobot's form.
void soma__rtc_guide(float *v, const float *x, float t, const float *P, const float *w, const float *pull, float most, int64_t S,
                     int64_t A);

// Adds to a graph of the program DENOISE what `gradient` needs: the inputs "rtc.time" [B, 1, 1], "rtc.target" [B, S, A], "rtc.weight"
// [B, S, 1] and the output "rtc.pull" [B, S, A].
void soma__rtc_add_pull(soma_graph *denoise);

// The working memory of n rows. Filled row by row, then given to soma__rtc_denoise.
typedef struct soma_rtc {
    int64_t n, S, A;
    soma_rtc_mode mode;
    int64_t *delay;      // [n]; -1: the row continues nothing
    float *most;         // [n]
    float *target;       // [n, S, A]
    float *weight;       // [n, S]
    float *x, *v, *pull; // [n, S, A]
} soma_rtc;
soma_status soma__rtc_new(soma_rtc *rtc, int64_t n, int64_t S, int64_t A, soma_error *err);
void soma__rtc_free(soma_rtc *rtc); // {0} allowed
// soma__plan_set_denoise, guided row by row.
soma_status soma__rtc_denoise(soma_rtc *rtc, soma_plan_set *set, soma_time_rule rule, float *x, soma_error *err);

#endif
