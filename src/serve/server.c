// SPDX-License-Identifier: Apache-2.0
// The sockets' thread and the policy's thread, and the clients that travel between them.
//
// A client belongs to one thread at a time: to the sockets' thread while it is idle, receives or is answered (`busy` false), to the
// policy's thread from `submit` until it lies in `done`. Meanwhile the sockets' thread touches only what is its own: the wsi, the incoming
// bytes, the complaint. A connection that ends marks the client `gone`; the policy's thread frees it, because the pilot lives there.
#include "serve/server.h"

#include "format/msgpack.h"
#include "format/wire.h"
#include "serve/observe.h"

#include <libwebsockets.h>
#include <math.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define OPTS_TYPE soma_server_opts
SOMA_OPTS_DEFINE(soma_server_opts, SOMA_SERVER_OPTS, soma__server_defaults)
#undef OPTS_TYPE

enum { READ_SIZE = 1 << 16, TICK_US = 500000, DRAIN_SECONDS = 2, HTTP_SECONDS = 10 };
static const double QUIET = 0.5; // seconds without a byte after which a refused client has stopped sending

// the reference server's words
static const char close_reason[] = "Internal server error. Traceback included in previous frame.";

typedef struct client client;
struct client {
    client *next;
    client *queued; // the next in the queue or in `done`

    // the sockets' thread
    struct lws *wsi;
    soma_str incoming;
    bool whole;             // incoming is a whole message that waits for its turn
    double started;         // of the incoming message; 0: none
    bool greeted, closing;  // metadata sent; complaint sent
    bool busy, answered;    // with the policy's thread; the answer is ready to be written
    char complaint[1000];   // why the connection ends; "": it does not
    bool midway;            // in a message
    double heard, patience; // when bytes came last; until when a refused client's bytes are still taken
    double prev_total_ms;   // of the request before, 0: none

    // handed over with the request
    void *pilot;
    soma_str request, answer; // answer: LWS_PRE bytes of room, then the message
    soma_error error;         // instead of an answer
    double received;

    bool gone; // under the server's mutex
};

struct soma_server {
    soma_server_policy policy;
    soma_server_opts opts;
    struct lws_context *context;
    int port;
    soma_str metadata; // LWS_PRE bytes of room, then the message
    pthread_t sockets, inference;
    bool has_sockets, has_inference;

    client *clients; // with a connection; the sockets' thread only
    bool draining;   // the sockets' thread: the clients are told to leave

    pthread_mutex_t mutex;
    pthread_cond_t work;
    client *queue, **queue_end, *done;
    int n_clients;     // until they are freed
    bool stop, finish; // end of the sockets' thread; of the policy's
};

// ---- handing clients over

static void submit(soma_server *s, client *c) {
    pthread_mutex_lock(&s->mutex);
    c->queued = NULL;
    *s->queue_end = c;
    s->queue_end = &c->queued;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
}

static void free_client(soma_server *s, client *c) {
    if (c->pilot) s->policy.close(c->pilot);
    soma__str_free(&c->incoming);
    soma__str_free(&c->request);
    soma__str_free(&c->answer);
    soma__free(c);
    pthread_mutex_lock(&s->mutex);
    s->n_clients--;
    pthread_mutex_unlock(&s->mutex);
}

static void free_list(soma_server *s, client *c) {
    for (client *next; c; c = next) {
        next = c->queued;
        free_client(s, c);
    }
}

// ---- the policy's thread

static void put_timing(soma_str *out, const char *key, double infer_ms, double prev_total_ms) {
    soma__msg_put_str(out, key);
    soma__msg_put_map(out, prev_total_ms > 0 ? 2 : 1);
    soma__msg_put_str(out, "infer_ms");
    soma__msg_put_real(out, infer_ms);
    if (prev_total_ms <= 0) return;
    soma__msg_put_str(out, "prev_total_ms");
    soma__msg_put_real(out, prev_total_ms);
}

static soma_status put_answer(client *c, const soma_actions *a, double infer_ms, soma_error *err) {
    static const char room[LWS_PRE];
    int64_t n = (int64_t)a->horizon * a->n_actions;
    double *values = soma__alloc((size_t)SOMA_MAX(n, 1) * sizeof *values);
    if (!values) return soma__no_memory(err, "an answer");
    soma_status status = SOMA_OK;
    for (int64_t i = 0; i < n; i++) {
        values[i] = a->values[i];
        if (!isfinite(values[i]) && !status)
            status = soma__fail(err, SOMA_BAD_INPUT, "the policy gave an action that is not a finite number, at step %lld, dimension %lld",
                                (long long)(i / a->n_actions), (long long)(i % a->n_actions));
    }
    c->answer.len = 0;
    soma__str_add_bytes(&c->answer, room, LWS_PRE);
    soma__msg_put_map(&c->answer, 3);
    soma__msg_put_str(&c->answer, "actions");
    soma__msg_put_ndarray(&c->answer, "<f8", 2, (int64_t[]){a->horizon, a->n_actions}, values, (size_t)n * sizeof *values);
    put_timing(&c->answer, "policy_timing", a->model_ms, 0);
    put_timing(&c->answer, "server_timing", infer_ms, c->prev_total_ms);
    soma__free(values);
    if (!status && c->answer.failed) status = soma__no_memory(err, "an answer");
    return status;
}

static soma_status answer(soma_server *s, client *c, soma_arena *arena, soma_error *err) {
    const soma_msg *message;
    soma_obs obs;
    soma_actions actions = {0};
    SOMA_TRY(soma__msg_parse(&message, arena, c->request.text, c->request.len, true, err));
    double start = soma__seconds();
    SOMA_TRY(soma__observe(&obs, &s->policy.info, message, arena, err));
    if (!c->pilot) SOMA_TRY(s->policy.open(s->policy.ctx, &c->pilot, err));
    SOMA_TRY(s->policy.act(c->pilot, &obs, &actions, err));
    return put_answer(c, &actions, 1e3 * (soma__seconds() - start), err);
}

static void *run_inference(void *arg) {
    soma_server *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->mutex);
        while (!s->queue && !s->finish) pthread_cond_wait(&s->work, &s->mutex);
        client *c = s->queue;
        bool finish = s->finish, gone = c && c->gone;
        if (!finish && !(s->queue = c->queued)) s->queue_end = &s->queue;
        pthread_mutex_unlock(&s->mutex);
        if (finish) return NULL;
        if (!gone) {
            soma_arena arena = {0};
            c->error = (soma_error){0};
            answer(s, c, &arena, &c->error);
            soma__arena_free(&arena);
        }
        pthread_mutex_lock(&s->mutex);
        gone = c->gone;
        if (!gone) {
            c->queued = s->done;
            s->done = c;
        }
        pthread_mutex_unlock(&s->mutex);
        if (gone)
            free_client(s, c);
        else
            lws_cancel_service(s->context);
    }
}

// ---- the sockets' thread: one connection

// The sentence is sent and the connection closed. What the client is still sending is taken and dropped before, for a while: a socket
// closed over unread bytes is reset, and the sentence would be lost with it.
static void complain(soma_server *s, client *c, const char *format, ...) SOMA_PRINTF(3, 4);
static void complain(soma_server *s, client *c, const char *format, ...) {
    if (c->complaint[0]) return;
    c->patience = soma__seconds() + s->opts.message_timeout;
    va_list args;
    va_start(args, format);
    vsnprintf(c->complaint, sizeof c->complaint, format, args);
    va_end(args);
    soma__str_free(&c->incoming);
    soma__log(SOMA_LOG_WARN, "server: a client was refused: %s", c->complaint);
    lws_callback_on_writable(c->wsi);
}

// The whole message in `incoming` becomes the request, if the one before is answered; else it waits, and the client with it.
static void take_message(soma_server *s, client *c) {
    if (c->busy) {
        c->whole = true;
        lws_rx_flow_control(c->wsi, 0);
        return;
    }
    soma_str free_one = c->request;
    c->request = c->incoming;
    c->incoming = free_one;
    c->incoming.len = 0;
    c->received = soma__seconds();
    c->started = 0;
    c->busy = true;
    submit(s, c);
}

static bool too_large(soma_server *s, client *c, size_t announced) {
    if (announced <= (size_t)s->opts.max_message) return false;
    complain(s, c, "a message of at least %zu bytes was announced; this server takes at most %lld", announced,
             (long long)s->opts.max_message);
    return true;
}

static void receive(soma_server *s, client *c, const void *bytes, size_t len) {
    size_t rest = lws_remaining_packet_payload(c->wsi);
    c->midway = rest || !lws_is_final_fragment(c->wsi);
    c->heard = soma__seconds();
    if (c->complaint[0] && !c->midway) lws_callback_on_writable(c->wsi);
    if (c->complaint[0] || too_large(s, c, c->incoming.len + len + rest)) return;
    if (!c->started) c->started = c->heard;
    soma__str_add_bytes(&c->incoming, bytes, len);
    if (c->incoming.failed) {
        complain(s, c, "out of memory for a message");
    } else if (!lws_frame_is_binary(c->wsi)) {
        complain(s, c, "a text frame came; an observation is a binary frame with a msgpack map");
    } else if (!c->midway) {
        take_message(s, c);
    }
}

// Now and then: messages that stand still, and announcements that no byte has followed.
static void tick(soma_server *s, client *c) {
    lws_set_timer_usecs(c->wsi, TICK_US);
    if (c->closing) lws_callback_on_writable(c->wsi);
    size_t rest = lws_remaining_packet_payload(c->wsi);
    bool partial = !c->whole && (rest > 0 || c->incoming.len > 0);
    if (c->complaint[0] || !partial || too_large(s, c, c->incoming.len + rest)) return;
    double now = soma__seconds();
    if (!c->started) c->started = now;
    if (now - c->started > s->opts.message_timeout)
        complain(s, c, "a message was not whole after %g s: %zu bytes have come, at least %zu are missing", s->opts.message_timeout,
                 c->incoming.len, rest);
}

static int write_frame(client *c, const soma_str *message) {
    size_t size = message->len - LWS_PRE;
    return lws_write(c->wsi, (unsigned char *)message->text + LWS_PRE, size, LWS_WRITE_BINARY) < (int)size ? -1 : 0;
}

static int write_complaint(client *c) {
    unsigned char buffer[LWS_PRE + sizeof c->complaint];
    size_t size = strlen(c->complaint);
    memcpy(buffer + LWS_PRE, c->complaint, size);
    c->closing = true;
    lws_callback_on_writable(c->wsi);
    return lws_write(c->wsi, buffer + LWS_PRE, size, LWS_WRITE_TEXT) < (int)size ? -1 : 0;
}

static bool still_sending(const client *c) {
    double now = soma__seconds();
    return c->midway && now < c->patience && now - c->heard < QUIET;
}

static int close_with(client *c, enum lws_close_status code, const char *reason) {
    lws_close_reason(c->wsi, code, (unsigned char *)reason, strlen(reason));
    return -1;
}

// One frame per call, as libwebsockets wants it.
static int write_next(soma_server *s, client *c) {
    if (s->draining) return close_with(c, LWS_CLOSE_STATUS_GOINGAWAY, "the server ends");
    if (!c->greeted) {
        c->greeted = true;
        if (c->complaint[0] || c->answered) lws_callback_on_writable(c->wsi);
        return write_frame(c, &s->metadata);
    }
    if (c->closing && still_sending(c)) return 0;
    if (c->closing) return close_with(c, LWS_CLOSE_STATUS_UNEXPECTED_CONDITION, close_reason);
    if (c->complaint[0]) return write_complaint(c);
    if (!c->answered) return 0;
    c->answered = false;
    int result = write_frame(c, &c->answer);
    c->prev_total_ms = 1e3 * (soma__seconds() - c->received);
    if (!c->whole) return result;
    c->whole = false;
    take_message(s, c);
    lws_rx_flow_control(c->wsi, 1);
    return result;
}

static int connected(soma_server *s, client **session, struct lws *wsi) {
    client *c = soma__calloc(1, sizeof *c);
    if (!c) return -1;
    *session = c;
    c->wsi = wsi;
    c->next = s->clients;
    s->clients = c;
    pthread_mutex_lock(&s->mutex);
    s->n_clients++;
    pthread_mutex_unlock(&s->mutex);
    lws_set_timer_usecs(wsi, TICK_US);
    lws_callback_on_writable(wsi);
    return 0;
}

static void disconnected(soma_server *s, client *c) {
    client **at = &s->clients;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    c->wsi = NULL;
    pthread_mutex_lock(&s->mutex);
    c->gone = true;
    pthread_mutex_unlock(&s->mutex);
    if (!c->busy) submit(s, c);
}

// ---- the sockets' thread: all of them

static void take_done(soma_server *s) {
    pthread_mutex_lock(&s->mutex);
    client *c = s->done;
    s->done = NULL;
    pthread_mutex_unlock(&s->mutex);
    for (client *next; c; c = next) {
        next = c->queued;
        c->busy = false;
        if (!c->wsi) {
            submit(s, c); // gone since; to be freed where its pilot lives
        } else if (c->error.code) {
            complain(s, c, "%s: %s", soma_status_word(c->error.code), c->error.text);
        } else {
            c->answered = true;
            lws_callback_on_writable(c->wsi);
        }
    }
}

static int answer_http(struct lws *wsi, const char *path) {
    bool health = !strcmp(path, "/healthz");
    const char *body = health ? "OK\n" : "this is a websocket server; GET /healthz tells whether it is alive\n";
    unsigned status = health ? HTTP_STATUS_OK : 426; // 426: Upgrade Required
    size_t len = strlen(body);
    unsigned char buffer[LWS_PRE + 512], *start = buffer + LWS_PRE, *p = start, *end = buffer + sizeof buffer - 1;
    if (lws_add_http_common_headers(wsi, status, "text/plain", len, &p, end) || lws_finalize_write_http_header(wsi, start, &p, end))
        return -1;
    memcpy(start, body, len);
    if (lws_write(wsi, start, len, LWS_WRITE_HTTP_FINAL) < (int)len) return -1;
    return lws_http_transaction_completed(wsi) ? -1 : 0;
}

static int admit(soma_server *s, struct lws *wsi) {
    pthread_mutex_lock(&s->mutex);
    bool full = s->n_clients >= s->opts.max_clients;
    pthread_mutex_unlock(&s->mutex);
    if (!full) return 0;
    lws_return_http_status(wsi, HTTP_STATUS_SERVICE_UNAVAILABLE, "this server has as many clients as it takes");
    return -1;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t len) {
    soma_server *s = lws_context_user(lws_get_context(wsi));
    client **c = session;
    switch (reason) {
    case LWS_CALLBACK_HTTP: return answer_http(wsi, in);
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION: return admit(s, wsi);
    case LWS_CALLBACK_ESTABLISHED: return connected(s, c, wsi);
    case LWS_CALLBACK_RECEIVE: receive(s, *c, in, len); return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE: return write_next(s, *c);
    case LWS_CALLBACK_TIMER: tick(s, *c); return 0;
    case LWS_CALLBACK_CLOSED:
        if (c && *c) disconnected(s, *c);
        return 0;
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED: take_done(s); return 0;
    default: return 0;
    }
}

static const struct lws_protocols protocols[] = {
    {.name = "soma", .callback = on_event, .per_session_data_size = sizeof(client *), .rx_buffer_size = READ_SIZE}, {0}};

static void *run_sockets(void *arg) {
    soma_server *s = arg;
    double until = 0;
    for (;;) {
        lws_service(s->context, 0);
        pthread_mutex_lock(&s->mutex);
        bool stop = s->stop;
        pthread_mutex_unlock(&s->mutex);
        if (!stop) continue;
        if (!s->draining) {
            s->draining = true;
            until = soma__seconds() + DRAIN_SECONDS;
            for (client *c = s->clients; c; c = c->next) lws_callback_on_writable(c->wsi);
        }
        if (!s->clients || soma__seconds() > until) return NULL; // the clients' timers wake us meanwhile
    }
}

// ---- opening and closing

static soma_status pack_metadata(soma_server *s, soma_error *err) {
    static const char room[LWS_PRE];
    const char *text = s->policy.info.metadata_json ? s->policy.info.metadata_json : "{}";
    json_t *json;
    SOMA_TRY(soma__json_parse(&json, text, strlen(text), "the policy's metadata", err));
    soma__str_add_bytes(&s->metadata, room, LWS_PRE);
    soma__msg_put_json(&s->metadata, json);
    bool map = json_is_object(json);
    json_decref(json);
    if (!map) return soma__fail(err, SOMA_BAD_INPUT, "the policy's metadata is not a JSON object");
    return s->metadata.failed ? soma__no_memory(err, "the metadata") : SOMA_OK;
}

// libwebsockets takes interfaces and numeric addresses; names are looked up here. `numeric` stays "" where all addresses are meant.
static soma_status find_address(char numeric[NI_MAXHOST], const char *host, soma_error *err) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    numeric[0] = 0;
    if (!strcmp(host, "0.0.0.0")) return SOMA_OK;
    int problem = getaddrinfo(host, NULL, &hints, &found);
    if (!problem) problem = getnameinfo(found->ai_addr, found->ai_addrlen, numeric, NI_MAXHOST, NULL, 0, NI_NUMERICHOST);
    if (found) freeaddrinfo(found);
    return problem ? soma__fail(err, SOMA_BAD_INPUT, "host \"%.200s\": %s", host, gai_strerror(problem)) : SOMA_OK;
}

static soma_status listen_on(soma_server *s, soma_error *err) {
    // dead peers are found by pings, timed as in the reference server
    static const lws_retry_bo_t pings = {.secs_since_valid_ping = 20, .secs_since_valid_hangup = 40};
    char address[NI_MAXHOST];
    SOMA_TRY(find_address(address, s->opts.host, err));
    struct lws_context_creation_info info = {.port = (int)s->opts.port,
                                             .iface = address[0] ? address : NULL,
                                             .protocols = protocols,
                                             .user = s,
                                             .timeout_secs = HTTP_SECONDS,
                                             .pt_serv_buf_size = READ_SIZE,
                                             .fd_limit_per_thread = (unsigned)s->opts.max_clients + 64, // health checks and refusals
                                             .retry_and_idle_policy = &pings,
                                             .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND |
                                                        (strchr(address, ':') ? 0 : LWS_SERVER_OPTION_DISABLE_IPV6)};
    s->context = lws_create_context(&info);
    struct lws_vhost *vhost = s->context ? lws_create_vhost(s->context, &info) : NULL;
    if (!vhost)
        return soma__fail(err, SOMA_IO, "cannot listen on %s port %lld: is another server using the port?", s->opts.host,
                          (long long)s->opts.port);
    s->port = lws_get_vhost_listen_port(vhost);
    return SOMA_OK;
}

static soma_status check_opts(const soma_server_opts *o, soma_error *err) {
    SOMA_OPTS_CHECK(o);
    if (o->port < 0 || o->port > 65535) return soma__fail(err, SOMA_BAD_INPUT, "port: wanted 0 to 65535, found %lld", (long long)o->port);
    if (o->max_clients < 1 || o->max_clients > 10000)
        return soma__fail(err, SOMA_BAD_INPUT, "max_clients: wanted 1 to 10000, found %lld", (long long)o->max_clients);
    if (o->max_message < 1024 || o->max_message > 1 << 30)
        return soma__fail(err, SOMA_BAD_INPUT, "max_message: wanted 1024 bytes to 1 GiB, found %lld", (long long)o->max_message);
    if (!(o->message_timeout > 0)) return soma__fail(err, SOMA_BAD_INPUT, "message_timeout: wanted seconds above 0");
    return SOMA_OK;
}

static soma_status start(soma_server *s, soma_error *err) {
    SOMA_TRY(check_opts(&s->opts, err));
    SOMA_TRY(pack_metadata(s, err));
    soma__lws_setup();
    SOMA_TRY(listen_on(s, err));
    s->has_inference = !pthread_create(&s->inference, NULL, run_inference, s);
    s->has_sockets = s->has_inference && !pthread_create(&s->sockets, NULL, run_sockets, s);
    return s->has_sockets ? SOMA_OK : soma__fail(err, SOMA_IO, "the server's threads cannot start");
}

soma_status soma__server_open(soma_server **server, const soma_server_policy *policy, const soma_server_opts *opts, soma_error *err) {
    soma_server *s = soma__calloc(1, sizeof *s);
    if (!s) return soma__no_memory(err, "a server");
    s->policy = *policy;
    s->opts = opts ? *opts : soma__server_defaults();
    s->queue_end = &s->queue;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->work, NULL);
    soma_status status = start(s, err);
    if (status) {
        soma__server_close(s);
        return status;
    }
    *server = s;
    return SOMA_OK;
}

int soma__server_port(const soma_server *s) { return s->port; }

void soma__server_close(soma_server *s) {
    if (!s) return;
    if (s->has_sockets) {
        pthread_mutex_lock(&s->mutex);
        s->stop = true;
        pthread_mutex_unlock(&s->mutex);
        lws_cancel_service(s->context);
        pthread_join(s->sockets, NULL);
    }
    // The inference that runs may still wake the sockets' thread, so the context outlives it.
    if (s->has_inference) {
        pthread_mutex_lock(&s->mutex);
        s->finish = true;
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->mutex);
        pthread_join(s->inference, NULL);
    }
    if (s->context) lws_context_destroy(s->context); // every client is now in the queue or in `done`
    free_list(s, s->queue);
    free_list(s, s->done);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->mutex);
    soma__str_free(&s->metadata);
    soma__free(s);
}
