// SPDX-License-Identifier: Apache-2.0
// One table names every counter, so that the page and the documentation cannot miss one.
#include "serve/metrics.h"

#include <math.h>
#include <stddef.h>

// Half a millisecond to 30 s: a server's own share lies at the lower end, a large model on a slow processor at the upper.
const double soma__bucket_bounds[SOMA_BUCKETS] = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30};

void soma__histogram_add(soma_histogram *h, double seconds) {
    int i = 0;
    while (i < SOMA_BUCKETS && seconds > soma__bucket_bounds[i]) i++;
    atomic_fetch_add(&h->counts[i], 1);
    atomic_fetch_add(&h->sum_us, (unsigned long long)(SOMA_MAX(seconds, 0) * 1e6));
}

double soma__histogram_quantile(const soma_histogram *h, double q) {
    unsigned long long total = 0, below = 0;
    for (int i = 0; i <= SOMA_BUCKETS; i++) total += atomic_load(&h->counts[i]);
    for (int i = 0; i < SOMA_BUCKETS; i++) {
        unsigned long long n = atomic_load(&h->counts[i]);
        double low = i ? soma__bucket_bounds[i - 1] : 0;
        if (n && (double)(below + n) >= q * (double)total)
            return low + (soma__bucket_bounds[i] - low) * (q * (double)total - (double)below) / (double)n;
        below += n;
    }
    return total ? soma__bucket_bounds[SOMA_BUCKETS - 1] : 0;
}

void soma__summary_add(soma_summary *s, double value) {
    const unsigned long long micro = (unsigned long long)(fmin(fmax(value, 0), 1e9) * 1e6);
    atomic_fetch_add(&s->n, 1);
    atomic_fetch_add(&s->sum_micro, micro);
    if (micro > atomic_load(&s->most_micro)) atomic_store(&s->most_micro, micro);
}

static const char *const protocols[SOMA_PROTOCOLS] = {"openpi", "groot"};

// Rows of one name stand together, as the format wants it.
#define FIELD(name) offsetof(soma_metrics, name)
static const struct row {
    const char *name, *type, *help, *label; // label: what is in the braces, or NULL
    size_t field;
} rows[] = {
    {"soma_requests_total", "counter", "Whole messages that came.", "protocol=\"openpi\"", FIELD(requests[0])},
    {"soma_requests_total", NULL, NULL, "protocol=\"groot\"", FIELD(requests[1])},
    {"soma_answers_total", "counter", "Chunks of actions sent.", "protocol=\"openpi\"", FIELD(answers[0])},
    {"soma_answers_total", NULL, NULL, "protocol=\"groot\"", FIELD(answers[1])},
    {"soma_connections_total", "counter", "Clients that have connected.", "protocol=\"openpi\"", FIELD(connections[0])},
    {"soma_connections_total", NULL, NULL, "protocol=\"groot\"", FIELD(connections[1])},
    {"soma_errors_total", "counter", "Requests answered with a sentence.", "why=\"request\"", FIELD(errors)},
    {"soma_errors_total", NULL, NULL, "why=\"connection\"", FIELD(refused)},
    {"soma_errors_total", NULL, NULL, "why=\"key\"", FIELD(unauthorized)},
    {"soma_errors_total", NULL, NULL, "why=\"stall\"", FIELD(stalls)},
    {"soma_busy_total", "counter", "Requests answered with busy.", "why=\"queue\"", FIELD(busy_queue)},
    {"soma_busy_total", NULL, NULL, "why=\"wait\"", FIELD(busy_wait)},
    {"soma_busy_total", NULL, NULL, "why=\"late\"", FIELD(late)},
    {"soma_busy_total", NULL, NULL, "why=\"rate\"", FIELD(busy_rate)},
    {"soma_turns_total", "counter", "Runs of the policy, each for one request or several.", NULL, FIELD(turns)},
    {"soma_received_bytes_total", "counter", "Bytes of messages that came.", NULL, FIELD(bytes_in)},
    {"soma_sent_bytes_total", "counter", "Bytes of messages that were sent.", NULL, FIELD(bytes_out)},
    {"soma_recorded_total", "counter", "Exchanges by what became of their record.", "kept=\"yes\"", FIELD(recorded)},
    {"soma_recorded_total", NULL, NULL, "kept=\"no\"", FIELD(unrecorded)},
};

static void put_head(soma_str *out, const char *name, const char *type, const char *help) {
    soma__str_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_histogram(soma_str *out, const char *name, const char *help, const soma_histogram *h) {
    unsigned long long so_far = 0;
    put_head(out, name, "histogram", help);
    for (int i = 0; i < SOMA_BUCKETS; i++) {
        so_far += atomic_load(&h->counts[i]);
        soma__str_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, soma__bucket_bounds[i], so_far);
    }
    so_far += atomic_load(&h->counts[SOMA_BUCKETS]);
    soma__str_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name, so_far, name,
                     1e-6 * (double)atomic_load(&h->sum_us), name, so_far);
}

static void put_summary(soma_str *out, const char *name, const char *most, const char *help, const soma_summary *s) {
    put_head(out, name, "summary", help);
    soma__str_printf(out, "%s_sum %.6f\n%s_count %llu\n", name, 1e-6 * (double)atomic_load(&s->sum_micro), name, atomic_load(&s->n));
    put_head(out, most, "gauge", "The largest of these since the start.");
    soma__str_printf(out, "%s %.6f\n", most, 1e-6 * (double)atomic_load(&s->most_micro));
}

void soma__metrics_put(soma_str *out, const soma_metrics *m, bool stalled) {
    for (size_t i = 0; i < SOMA_COUNT(rows); i++) {
        const struct row *r = &rows[i];
        if (r->type) put_head(out, r->name, r->type, r->help);
        soma__str_add(out, r->name);
        if (r->label) soma__str_printf(out, "{%s}", r->label);
        soma__str_printf(out, " %llu\n", atomic_load((const atomic_ullong *)((const char *)m + r->field)));
    }
    put_head(out, "soma_clients", "gauge", "Clients that are connected.");
    for (int i = 0; i < SOMA_PROTOCOLS; i++)
        soma__str_printf(out, "soma_clients{protocol=\"%s\"} %lld\n", protocols[i], atomic_load(&m->clients[i]));
    put_head(out, "soma_waiting", "gauge", "Requests that wait for the policy.");
    soma__str_printf(out, "soma_waiting %lld\n", atomic_load(&m->waiting));
    put_head(out, "soma_stalled", "gauge", "1 while the policy has not answered for longer than the stall timeout.");
    soma__str_printf(out, "soma_stalled %d\n", stalled);
    put_head(out, "soma_up_seconds", "gauge", "Time since the start.");
    soma__str_printf(out, "soma_up_seconds %.3f\n", soma__seconds() - m->started);
    put_histogram(out, "soma_request_seconds", "From a request's last byte to its answer handed to the network.", &m->latency);
    put_histogram(out, "soma_inference_seconds", "Runs of the policy.", &m->inference);
    put_summary(out, "soma_seam", "soma_seam_most", "How far a chunk changes the action of the moment at which it takes over, robot units.",
                &m->seams);
    put_summary(out, "soma_delay_steps", "soma_delay_steps_most", "Control steps from an observation to its chunk, as clients tell.",
                &m->delays);
}
