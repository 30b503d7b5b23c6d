// SPDX-License-Identifier: Apache-2.0
// soma bench serve: what the server adds to the bare policy call, over loopback with a plain client; what requests cost together; and
// many clients against a deadline: at a fixed rate, at a share of what the batches could serve, and beyond that.
//
// Added is a request's time as its client sees it less the time inside the policy in that very request, so that the policy's own spread is
// no part of it: packing the observation, both ways through the network, parsing, turns, the answer.
#include "bench/bench.h"

#include "bench/serve_client.h"

#include "base/file.h"
#include "base/rng.h"
#include "cmd/cmd_init.h"
#include "format/wire.h"
#include "policy/policy.h"
#include "serve/events.h"
#include "serve/server.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OPTS_TYPE soma_bench_serve_opts
SOMA_OPTS_DEFINE(soma_bench_serve_opts, SOMA_BENCH_SERVE_OPTS, soma__bench_serve_defaults)
#undef OPTS_TYPE

enum { SIDE = 224, BATCHES = 8, MAX_CLIENTS = 256, WARM = 5, OVERLOAD_SECONDS = 10, MOST_RUNS = 200 };
static const double BEYOND = 1.5, ON_TIME = 0.95; // demand in parts of capacity; the server's --max-wait in parts of the deadline
static const double BATCH_SECONDS = 1;            // for which a batch of each size is repeated

typedef struct subject {
    const soma_bench_serve_opts *o;
    soma_policy *policy;
    soma_server_pilots pilots;
    soma_server_policy inner; // what the server's policy stands on
    soma_obs obs;
    uint8_t *pixels; // [cameras, SIDE, SIDE, 3]
    float *state;
    double inside, inside_sum;           // seconds of the last turn, and of all since a load began
    char folder[64];                     // of the made-up policy; "": none
    double batch[BATCHES + 1], capacity; // seconds of n together, the median; requests a second at best, by the mean
} subject;

// ---- opening

// Where none is given: a nano policy with random weights that looks at three pictures at their full size. Its chunk takes 18 ms on one core
// of a Zen 4.
static soma_status make_policy(subject *s, char path[SOMA_PATH_MAX], const soma_bench_opts *all, soma_error *err) {
    static const char sizes[] = "{\"camera_order\": [\"base\", \"left\", \"right\"], \"vision\": {\"image_size\": 224}}";
    char model[SOMA_PATH_MAX];
    snprintf(s->folder, sizeof s->folder, "/tmp/soma_bench_XXXXXX");
    if (!mkdtemp(s->folder)) return soma__fail(err, SOMA_IO, "/tmp: no folder for a policy can be made");
    SOMA_TRY(soma__path_join(path, s->folder, "policy", err));
    SOMA_TRY(soma__path_join(model, s->folder, "model.json", err));
    SOMA_TRY(soma__file_write(model, sizes, strlen(sizes), err));
    return soma__cmd_init_random(path, all->family, all->preset, *all->model ? all->model : model, 0, err);
}

static soma_status open_subject(subject *s, const soma_bench_opts *all, const char *policy, soma_error *err) {
    char path[SOMA_PATH_MAX];
    soma_policy_opts po = soma_policy_defaults();
    snprintf(path, sizeof path, "%s", policy);
    if (!*policy) SOMA_TRY(make_policy(s, path, all, err));
    snprintf(po.dtype, sizeof po.dtype, "%s", all->dtype);
    snprintf(po.isa, sizeof po.isa, "%s", all->isa);
    po.threads = all->threads;
    SOMA_TRY(soma_policy_open(&s->policy, path, &po, err));
    const soma_policy_info info = soma_policy_describe(s->policy);
    s->pixels = soma__alloc((size_t)SOMA_MAX(info.n_cameras, 1) * SIDE * SIDE * 3);
    s->state = soma__calloc((size_t)SOMA_MAX(info.n_state, 1), sizeof *s->state);
    if (!s->pixels || !s->state) return soma__no_memory(err, "an observation");
    soma_rng rng = soma__rng(1);
    for (int i = 0; i < info.n_cameras * SIDE * SIDE * 3; i++) s->pixels[i] = (uint8_t)soma__rng_u64(&rng);
    s->obs = (soma_obs){.state = s->state, .n_state = info.n_state, .n_images = info.n_cameras};
    for (int c = 0; c < info.n_cameras; c++)
        s->obs.images[c] = (soma_image){info.camera_names[c], s->pixels + (size_t)c * SIDE * SIDE * 3, SIDE, SIDE};
    s->pilots = (soma_server_pilots){.policy = s->policy, .opts = soma_pilot_defaults()};
    s->inner = soma__server_pilots(&s->pilots);
    return SOMA_OK;
}

static void close_subject(subject *s) {
    soma_policy_close(s->policy);
    soma__free(s->pixels);
    soma__free(s->state);
    if (*s->folder) soma__dir_remove(s->folder, NULL);
}

// ---- the policy within the server, timed

static soma_status open_pilot(void *ctx, void **pilot, soma_error *err) {
    subject *s = ctx;
    return s->inner.open(s->inner.ctx, pilot, err);
}

static double cost(const void *ctx, int waiting, double left, int *first) {
    const subject *s = ctx;
    return s->inner.cost(s->inner.ctx, waiting, left, first);
}

static void timed_act(void *ctx, int n, void *const *pilots, const soma_obs *obs, soma_actions *actions, soma_error *errors) {
    subject *s = ctx;
    const double start = soma__seconds();
    s->inner.act(s->inner.ctx, n, pilots, obs, actions, errors);
    s->inside = soma__seconds() - start; // read by the client when its answer has come, before its next request
    s->inside_sum += s->inside;
}

static void tell_nobody(void *user, soma_log_level level, const char *name, const json_t *fields, const char *sentence) {}

static soma_status serve(soma_server **server, subject *s, double max_wait, soma_error *err) {
    static const soma_events silent = {NULL, tell_nobody};
    soma_server_policy policy = s->inner;
    soma_server_opts o = soma__server_defaults();
    policy.ctx = s;
    policy.open = open_pilot;
    policy.cost = cost;
    policy.act = timed_act;
    o.port = 0;
    o.max_clients = MAX_CLIENTS;
    o.max_wait = max_wait;
    return soma__server_open(server, &policy, &o, &silent, err);
}

// ---- what is measured

// In milliseconds; sorts the seconds. 0 where there are none.
static double quantile(double *seconds, int64_t n, double q) {
    if (n) soma__bench_spread(seconds, n);
    return n ? 1e3 * seconds[SOMA_MIN(n - 1, (int64_t)(q * (double)n))] : 0;
}

static soma_status measure_bare(subject *s, double *seconds, soma_error *err) {
    soma_pilot *pilot;
    soma_actions a;
    SOMA_TRY(soma_pilot_new(&pilot, s->policy, &s->pilots.opts, err));
    soma_status status = SOMA_OK;
    for (int64_t i = -WARM; i < s->o->requests && status == SOMA_OK; i++) {
        const double start = soma__seconds();
        status = soma_pilot_act(pilot, &s->obs, &a, err);
        if (i >= 0) seconds[i] = soma__seconds() - start;
    }
    soma_pilot_free(pilot);
    return status;
}

static soma_status measure_added(subject *s, double *added, soma_error *err) {
    soma_server *server = NULL;
    soma_bench_client client = {.fd = -1};
    soma_str message = {0};
    soma_status status = serve(&server, s, 0, err);
    if (status == SOMA_OK) status = soma__bench_client_open(&client, soma__server_port(server), err);
    for (int64_t i = -WARM; i < s->o->requests && status == SOMA_OK; i++) {
        const double start = soma__seconds();
        message.len = 0;
        soma__wire_put_obs(&message, &s->obs);
        soma__bench_client_mask(&message);
        status = soma__bench_client_call(&client, &message, err);
        if (i >= 0) added[i] = soma__seconds() - start - s->inside;
    }
    soma__bench_client_close(&client);
    soma__str_free(&message);
    soma__server_close(server);
    return status;
}

// n together, again and again: what can be served in the long run is told by the mean, where a median leaves out the machine's slow
// moments.
static soma_status measure_batch(subject *s, int n, soma_pilot *const *pilots, const soma_obs *obs, soma_error *err) {
    double seconds[MOST_RUNS], sum = 0;
    soma_actions actions[BATCHES];
    int64_t runs = 0;
    SOMA_TRY(soma_policy_act_many(s->policy, n, pilots, obs, actions, err)); // makes the plans
    while (runs < MOST_RUNS && sum < BATCH_SECONDS) {
        const double start = soma__seconds();
        SOMA_TRY(soma_policy_act_many(s->policy, n, pilots, obs, actions, err));
        sum += seconds[runs++] = soma__seconds() - start;
    }
    s->batch[n] = soma__bench_spread(seconds, runs).median;
    s->capacity = fmax(s->capacity, (double)(n * runs) / sum);
    return SOMA_OK;
}

static soma_status measure_batches(subject *s, soma_error *err) {
    soma_pilot *pilots[BATCHES] = {0};
    soma_obs obs[BATCHES];
    soma_status status = SOMA_OK;
    for (int n = 1; n <= BATCHES && status == SOMA_OK; n++) {
        obs[n - 1] = s->obs;
        status = soma_pilot_new(&pilots[n - 1], s->policy, &s->pilots.opts, err);
        if (status == SOMA_OK) status = measure_batch(s, n, pilots, obs, err);
    }
    for (int n = 0; n < BATCHES; n++) soma_pilot_free(pilots[n]);
    return status == SOMA_OK ? soma__server_pilots_measure(&s->pilots, BATCHES, err) : status;
}

// ---- clients at a rate

typedef struct client {
    const subject *s;
    const soma_str *message; // masked: the clients take little of the processor that they share with the server
    soma_bench_client connection;
    pthread_t thread;
    double period, phase, seconds; // a request every `period`, first after `phase`
    double *took;                  // [room] seconds of each answered request
    double worst[2];               // of the first and the second half of the time
    int64_t room, sent, unsent, answered, busy, misses;
    soma_error error;
} client;

static void sleep_until(double moment) {
    const double left = moment - soma__seconds();
    if (left <= 0) return;
    struct timespec t = {.tv_sec = (time_t)left, .tv_nsec = (long)(1e9 * (left - floor(left)))};
    nanosleep(&t, NULL);
}

// A request is sent late while the one before has no answer, and not at all when its successor is due.
static void *run_client(void *arg) {
    client *c = arg;
    const double begin = soma__seconds() + c->phase, deadline = 1e-3 * c->s->o->deadline_ms;
    for (int64_t k = 0; k * c->period < c->seconds; k++) {
        const double due = begin + (double)k * c->period;
        if (soma__seconds() > due + c->period) {
            c->unsent++;
            continue;
        }
        sleep_until(due);
        const double start = soma__seconds();
        const soma_status status = soma__bench_client_call(&c->connection, c->message, &c->error);
        const double took = soma__seconds() - start;
        c->sent++;
        if (status == SOMA_BUSY)
            c->busy++;
        else if (status != SOMA_OK)
            return NULL;
        else {
            if (c->answered < c->room) c->took[c->answered++] = took;
            c->misses += took > deadline;
        }
        double *worst = &c->worst[k * c->period > c->seconds / 2];
        *worst = fmax(*worst, took);
        c->error = (soma_error){0};
    }
    return NULL;
}

// The clients' figures as one object.
static json_t *load_json(const subject *s, client *clients, int64_t n, double rate, double seconds) {
    client sum = {0};
    for (int64_t i = 0; i < n; i++) sum.room += clients[i].answered;
    sum.took = soma__calloc((size_t)sum.room + 1, sizeof *sum.took);
    for (int64_t i = 0; i < n && sum.took; i++) {
        const client *c = &clients[i];
        memcpy(sum.took + sum.answered, c->took, sizeof *c->took * (size_t)c->answered);
        sum.answered += c->answered;
        sum.sent += c->sent;
        sum.unsent += c->unsent;
        sum.busy += c->busy;
        sum.misses += c->misses;
        for (int h = 0; h < 2; h++) sum.worst[h] = fmax(sum.worst[h], c->worst[h]);
    }
    if (!sum.took) return NULL;
    const double p50 = quantile(sum.took, sum.answered, 0.5), p99 = quantile(sum.took, sum.answered, 0.99);
    soma__free(sum.took);
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "clients", (json_int_t)n, "rate",
                     rate, "seconds", seconds, "deadline_ms", s->o->deadline_ms, "demand_per_s", (double)n * rate, "share_of_capacity",
                     (double)n * rate / s->capacity, "sent", (json_int_t)sum.sent, "answered", (json_int_t)sum.answered, "busy",
                     (json_int_t)sum.busy, "misses", (json_int_t)sum.misses, "unsent", (json_int_t)sum.unsent, "policy_ms",
                     1e3 * s->inside_sum / (double)SOMA_MAX(sum.answered, 1), "p50_ms", p50, "p99_ms", p99, "worst_first_half_ms",
                     1e3 * sum.worst[0], "worst_second_half_ms", 1e3 * sum.worst[1]);
}

static soma_status connect_clients(client *clients, int64_t n, const subject *s, const soma_str *message, int port, double rate,
                                   double seconds, soma_error *err) {
    soma_rng rng = soma__rng(2);
    for (int64_t i = 0; i < n; i++) {
        clients[i].s = s;
        clients[i].message = message;
        clients[i].period = 1 / rate;
        clients[i].seconds = seconds;
        clients[i].room = (int64_t)ceil(rate * seconds) + 1;
        clients[i].phase = soma__rng_uniform(&rng) / rate;
        clients[i].took = soma__calloc((size_t)clients[i].room, sizeof *clients[i].took);
        if (!clients[i].took) return soma__no_memory(err, "the clients");
        SOMA_TRY(soma__bench_client_open(&clients[i].connection, port, err));
        const soma_status status = soma__bench_client_call(&clients[i].connection, message, err); // its pilot is made
        if (status != SOMA_OK && status != SOMA_BUSY) return status;
    }
    return SOMA_OK;
}

static soma_status measure_load(json_t **out, subject *s, int64_t n, double rate, double seconds, soma_error *err) {
    soma_server *server = NULL;
    soma_str message = {0};
    soma__wire_put_obs(&message, &s->obs);
    soma__bench_client_mask(&message);
    client *clients = soma__calloc((size_t)n, sizeof *clients);
    for (int64_t i = 0; clients && i < n; i++) clients[i].connection.fd = -1;
    // the deadline is the client's: the way there and back is part of it
    soma_status status =
        clients && !message.failed ? serve(&server, s, ON_TIME * 1e-3 * s->o->deadline_ms, err) : soma__no_memory(err, "the clients");
    if (status == SOMA_OK) status = connect_clients(clients, n, s, &message, soma__server_port(server), rate, seconds, err);
    int64_t running = 0;
    s->inside_sum = 0;
    while (status == SOMA_OK && running < n && !pthread_create(&clients[running].thread, NULL, run_client, &clients[running])) running++;
    if (status == SOMA_OK && running < n) status = soma__fail(err, SOMA_IO, "%lld clients: the system has no more threads", (long long)n);
    for (int64_t i = 0; i < running; i++) pthread_join(clients[i].thread, NULL);
    for (int64_t i = 0; i < running && status == SOMA_OK; i++)
        if (clients[i].error.code) {
            *err = clients[i].error;
            status = err->code;
        }
    if (status == SOMA_OK && !(*out = load_json(s, clients, n, rate, seconds))) status = soma__no_memory(err, "the result");
    for (int64_t i = 0; clients && i < n; i++) {
        soma__bench_client_close(&clients[i].connection);
        soma__free(clients[i].took);
    }
    soma__free(clients);
    soma__str_free(&message);
    soma__server_close(server);
    return status;
}

// The load that was asked for, a share of capacity, and more than there is: clients of the same rate, but many more.
static soma_status measure_loads(json_t *result, subject *s, soma_error *err) {
    const soma_bench_serve_opts *o = s->o;
    const int64_t n = o->clients, many = (int64_t)fmin(ceil(BEYOND * s->capacity / o->rate), MAX_CLIENTS);
    const struct {
        const char *name;
        int64_t clients;
        double rate, seconds;
    } loads[] = {{"load", n, o->rate, o->seconds},
                 {"share", n, o->share * s->capacity / (double)n, o->seconds},
                 {"overload", SOMA_MAX(many, n), BEYOND * s->capacity / (double)SOMA_MAX(many, n), fmin(o->seconds, OVERLOAD_SECONDS)}};
    for (size_t i = 0; i < SOMA_COUNT(loads); i++) {
        json_t *load = NULL;
        if (!(loads[i].rate > 0) || !(loads[i].seconds > 0)) continue;
        SOMA_TRY(measure_load(&load, s, loads[i].clients, loads[i].rate, loads[i].seconds, err));
        if (json_object_set_new(result, loads[i].name, load)) return soma__no_memory(err, "the result");
    }
    return SOMA_OK;
}

// ---- all

static soma_status measure(json_t *result, subject *s, soma_error *err) {
    const int64_t n = s->o->requests;
    double *seconds = soma__calloc((size_t)(2 * n), sizeof *seconds);
    json_t *batch = json_array();
    soma_status status = seconds && batch ? measure_bare(s, seconds, err) : soma__no_memory(err, "the requests");
    if (status == SOMA_OK) status = measure_added(s, seconds + n, err);
    if (status == SOMA_OK) status = measure_batches(s, err);
    if (status == SOMA_OK) status = measure_loads(result, s, err);
    for (int i = 1; i <= BATCHES && status == SOMA_OK; i++) json_array_append_new(batch, json_real(1e3 * s->batch[i]));
    const bool whole = status == SOMA_OK && !json_object_set_new(result, "bare_p50_ms", json_real(quantile(seconds, n, 0.5))) &&
                       !json_object_set_new(result, "bare_p99_ms", json_real(quantile(seconds, n, 0.99))) &&
                       !json_object_set_new(result, "added_p50_ms", json_real(quantile(seconds + n, n, 0.5))) &&
                       !json_object_set_new(result, "added_p99_ms", json_real(quantile(seconds + n, n, 0.99))) &&
                       !json_object_set_new(result, "images", json_integer(s->obs.n_images)) &&
                       !json_object_set_new(result, "side", json_integer(SIDE)) &&
                       !json_object_set_new(result, "requests", json_integer(n)) && !json_object_set(result, "batch_ms", batch) &&
                       !json_object_set_new(result, "capacity_per_s", json_real(s->capacity)) &&
                       !json_object_set_new(result, "together", json_integer(s->pilots.largest));
    if (status == SOMA_OK && !whole) status = soma__no_memory(err, "the result");
    json_decref(batch);
    soma__free(seconds);
    return status;
}

soma_status soma__bench_serve(json_t **out, const soma_bench_opts *all, const soma_bench_serve_opts *o, const char *policy,
                              soma_error *err) {
    *out = NULL;
    if (o->requests < 1 || o->clients < 1 || o->clients > MAX_CLIENTS || !(o->rate > 0) || !(o->share >= 0) || !(o->deadline_ms > 0))
        return soma__fail(err, SOMA_BAD_INPUT, "1 request or more, 1 to %d clients, a rate and a deadline above 0, a share of 0 or more",
                          MAX_CLIENTS);
    subject s = {.o = o};
    json_t *result = json_object();
    soma_status status = result ? open_subject(&s, all, policy, err) : soma__no_memory(err, "the result");
    if (status == SOMA_OK) status = measure(result, &s, err);
    if (status == SOMA_OK &&
        (json_object_set_new(result, "what", json_string(*policy ? policy : "serve")) ||
         json_object_set_new(result, "machine", soma__bench_machine(soma__policy_device(s.policy), (int)all->threads))))
        status = soma__no_memory(err, "the result");
    close_subject(&s);
    if (status == SOMA_OK)
        *out = result;
    else
        json_decref(result);
    return status;
}

static double real(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

static void print_load(const char *name, const json_t *l) {
    if (!l) return;
    printf(
        "%s: %.0f clients at %.1f Hz for %.0f s, %.0f %% of capacity, deadline %.0f ms: %.0f sent, %.0f answered, %.0f busy, %.0f misses, "
        "%.0f unsent; %.1f ms of the policy for an answer; p50 %.1f, p99 %.1f ms; longest %.1f ms in the first half, %.1f in the second\n",
        name, real(l, "clients"), real(l, "rate"), real(l, "seconds"), 100 * real(l, "share_of_capacity"), real(l, "deadline_ms"),
        real(l, "sent"), real(l, "answered"), real(l, "busy"), real(l, "misses"), real(l, "unsent"), real(l, "policy_ms"),
        real(l, "p50_ms"), real(l, "p99_ms"), real(l, "worst_first_half_ms"), real(l, "worst_second_half_ms"));
}

void soma__bench_serve_print(const json_t *r) {
    const json_t *m = json_object_get(r, "machine"), *batch = json_object_get(r, "batch_ms");
    printf("%s on %s, %s\n", json_string_value(json_object_get(r, "what")), json_string_value(json_object_get(m, "processor")),
           json_string_value(json_object_get(m, "isa")));
    printf("bare policy call p50 %.3f ms, p99 %.3f ms; the server adds p50 %.3f ms, p99 %.3f ms (%.0f pictures of %.0f x %.0f, %.0f "
           "requests)\n",
           real(r, "bare_p50_ms"), real(r, "bare_p99_ms"), real(r, "added_p50_ms"), real(r, "added_p99_ms"), real(r, "images"),
           real(r, "side"), real(r, "side"), real(r, "requests"));
    printf("together, ms:");
    for (size_t i = 0; i < json_array_size(batch); i++) printf(" %zu: %.2f", i + 1, json_number_value(json_array_get(batch, i)));
    printf("; at best %.1f a second; the server takes up to %.0f at once\n", real(r, "capacity_per_s"), real(r, "together"));
    static const char *const loads[] = {"load", "share", "overload"};
    for (size_t i = 0; i < SOMA_COUNT(loads); i++) print_load(loads[i], json_object_get(r, loads[i]));
}
