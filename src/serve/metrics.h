// SPDX-License-Identifier: Apache-2.0
// What a server has done so far, as Prometheus reads it. Counters are atomic: both threads add, any may read.
#ifndef SOMA_SERVE_METRICS_H
#define SOMA_SERVE_METRICS_H

#include "base/str.h"

#include <stdatomic.h>

enum { SOMA_BUCKETS = 15, SOMA_PROTOCOLS = 2 }; // openpi, groot

// Seconds; bucket i counts what took at most soma__bucket_bounds[i], the last one everything.
typedef struct soma_histogram {
    atomic_ullong counts[SOMA_BUCKETS + 1];
    atomic_ullong sum_us;
} soma_histogram;
extern const double soma__bucket_bounds[SOMA_BUCKETS];

// Numbers that are seen one after the other. One thread adds.
typedef struct soma_summary {
    atomic_ullong n, sum_micro, most_micro; // millionths
} soma_summary;

typedef struct soma_metrics {
    double started;                                                        // soma__seconds
    atomic_ullong requests[SOMA_PROTOCOLS], answers[SOMA_PROTOCOLS];       // whole messages come; chunks of actions sent
    atomic_ullong connections[SOMA_PROTOCOLS];                             // since the start
    atomic_ullong errors, busy_queue, busy_wait, busy_rate, refused, late; // sentences instead of actions, by why
    atomic_ullong unauthorized, stalls, turns, recorded, unrecorded;
    atomic_ullong bytes_in, bytes_out;
    atomic_llong clients[SOMA_PROTOCOLS], waiting; // now
    soma_histogram latency;                        // from a request's last byte to its answer handed to the network
    soma_histogram inference;                      // turns
    soma_summary seams, delays; // of clients that tell how far they have executed (docs/chunks.md): robot units, control steps
} soma_metrics;

void soma__histogram_add(soma_histogram *h, double seconds);
double soma__histogram_quantile(const soma_histogram *h, double q); // seconds, interpolated within a bucket; 0: nothing counted
void soma__summary_add(soma_summary *s, double value);              // 0 or more
// Prometheus' text format 0.0.4; `stalled` is told as a gauge.
void soma__metrics_put(soma_str *out, const soma_metrics *m, bool stalled);

#endif
