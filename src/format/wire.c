// SPDX-License-Identifier: Apache-2.0
// The caller's thread and the connection's thread share one mailbox: a request going out, a message come in, or the failure that ended it.
#include "format/wire.h"

#include <errno.h>
#include <libwebsockets.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ANSWER = 64 << 20, RETRY_US = 100000, READ_SIZE = 1 << 16 };

struct soma_wire {
    soma_wire_opts opts;
    char uri[1100], host[512], path[512]; // uri: for sentences
    int port;
    bool encrypted;
    double deadline; // of connecting, soma__seconds
    struct lws_context *context;
    pthread_t thread;
    bool has_thread;

    // the connection's thread only
    struct lws *wsi;
    lws_sorted_usec_list_t retry;
    soma_str incoming;

    // the mailbox
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool quit, asking, answered;
    soma_str outgoing, answer; // outgoing: LWS_PRE bytes of room, then the request
    soma_error failure;        // code SOMA_OK: none yet; the first one stays
    soma_error busy;           // instead of one answer

    // the caller's thread only
    soma_arena metadata_arena, answer_arena;
    soma_str metadata_bytes, answer_bytes;
    const soma_msg *metadata;
    float *actions;
    size_t actions_room;
};

soma_wire_opts soma__wire_defaults(void) { return (soma_wire_opts){.connect_timeout = 10, .answer_timeout = 120}; }

// ---- libwebsockets' log

static void log_line(int level, const char *line) {
    int len = (int)strcspn(line, "\n");
    soma__log(SOMA_LOG_WARN, "libwebsockets: %.*s", len, line); // what matters becomes a soma_error as well
}

static void set_log(void) { lws_set_log_level(LLL_ERR, log_line); }

void soma__lws_setup(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_log);
}

// ---- the connection's thread

static void fail(soma_wire *w, soma_status code, const char *format, ...) SOMA_PRINTF(3, 4);
static void fail(soma_wire *w, soma_status code, const char *format, ...) {
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&w->mutex);
    if (!w->failure.code) soma__fail(&w->failure, code, "%.80s: %s", w->uri, text);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

static void try_connect(lws_sorted_usec_list_t *sul) {
    soma_wire *w = lws_container_of(sul, soma_wire, retry);
    struct lws_client_connect_info i = {.context = w->context,
                                        .address = w->host,
                                        .host = w->host,
                                        .origin = w->host,
                                        .port = w->port,
                                        .path = w->path,
                                        .ssl_connection = w->encrypted ? LCCSCF_USE_SSL : 0,
                                        .ietf_version_or_minus_one = -1,
                                        .local_protocol_name = "soma",
                                        .pwsi = &w->wsi};
    // a failure is told through LWS_CALLBACK_CLIENT_CONNECTION_ERROR
    lws_client_connect_via_info(&i);
}

static void refused(soma_wire *w, struct lws *wsi, const char *why) {
    w->wsi = NULL;
    unsigned status = lws_http_client_http_response(wsi);
    if (status) {
        fail(w, SOMA_IO, "the server answered with HTTP status %u instead of a websocket", status);
    } else if (soma__seconds() + 1e-6 * RETRY_US < w->deadline) {
        lws_sul_schedule(w->context, 0, &w->retry, try_connect, RETRY_US);
    } else {
        fail(w, SOMA_IO, "no connection: %s; is the server running there?", why ? why : "refused");
    }
}

// A text frame is an error of the server, openpi's with a traceback: its end says what happened.
static void server_error(soma_wire *w) {
    const soma_str *s = &w->incoming;
    size_t len = s->len, skip = len > 700 ? len - 700 : 0;
    while (len > skip && strchr("\r\n ", s->text[len - 1])) len--;
    fail(w, SOMA_IO, "the server says: %s%.*s", skip ? "..." : "", (int)(len - skip), s->text + skip);
}

// True: the text says that this one request was not taken.
static bool server_busy(soma_wire *w) {
    static const char word[] = "busy: ";
    size_t n = sizeof word - 1;
    if (w->incoming.len < n || memcmp(w->incoming.text, word, n)) return false;
    pthread_mutex_lock(&w->mutex);
    bool asked = w->asking && !w->answered;
    if (asked) {
        soma__fail(&w->busy, SOMA_BUSY, "%.80s: %.*s", w->uri, (int)SOMA_MIN(w->incoming.len - n, 700u), w->incoming.text + n);
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->mutex);
    w->incoming.len = 0;
    return asked;
}

static int receive(soma_wire *w, struct lws *wsi, const void *bytes, size_t len) {
    size_t announced = w->incoming.len + len + lws_remaining_packet_payload(wsi);
    if (announced > MAX_ANSWER) {
        fail(w, SOMA_BAD_INPUT, "the server announces a message of %zu bytes; at most %d are taken", announced, MAX_ANSWER);
        return -1;
    }
    soma__str_add_bytes(&w->incoming, bytes, len);
    if (w->incoming.failed) {
        fail(w, SOMA_NO_MEMORY, "out of memory for the server's answer");
        return -1;
    }
    if (lws_remaining_packet_payload(wsi) || !lws_is_final_fragment(wsi)) return 0;
    if (!lws_frame_is_binary(wsi)) {
        if (server_busy(w)) return 0;
        server_error(w);
        return -1;
    }
    pthread_mutex_lock(&w->mutex);
    bool unasked = w->answered || !w->asking;
    if (!unasked) {
        soma_str free_one = w->answer;
        w->answer = w->incoming;
        w->incoming = free_one;
        w->incoming.len = 0;
        w->answered = true;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->mutex);
    if (unasked) fail(w, SOMA_BAD_INPUT, "the server sent a message that was not asked for");
    return unasked ? -1 : 0;
}

static int send_request(soma_wire *w, struct lws *wsi) {
    pthread_mutex_lock(&w->mutex);
    int result = 0;
    if (w->outgoing.len > LWS_PRE) {
        size_t size = w->outgoing.len - LWS_PRE;
        result = lws_write(wsi, (unsigned char *)w->outgoing.text + LWS_PRE, size, LWS_WRITE_BINARY) < (int)size;
        w->outgoing.len = 0;
    }
    pthread_mutex_unlock(&w->mutex);
    return result ? -1 : 0;
}

// `at`: where libwebsockets builds the request's headers, moved on; `room` bytes are left.
static int add_key(const soma_wire *w, struct lws *wsi, unsigned char **at, size_t room) {
    char value[300];
    if (!w->opts.api_key) return 0;
    int n = snprintf(value, sizeof value, "Api-Key %s", w->opts.api_key);
    return n >= (int)sizeof value ||
           lws_add_http_header_by_token(wsi, WSI_TOKEN_HTTP_AUTHORIZATION, (unsigned char *)value, n, at, *at + room);
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len) {
    soma_wire *w = lws_context_user(lws_get_context(wsi));
    switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER: return add_key(w, wsi, in, len) ? -1 : 0;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR: refused(w, wsi, in); return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE: return receive(w, wsi, in, len);
    case LWS_CALLBACK_CLIENT_WRITEABLE: return send_request(w, wsi);
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE: // `in`: two bytes of code, then the reason
        if (len > 2) fail(w, SOMA_IO, "the server closed the connection: %.*s", (int)len - 2, (const char *)in + 2);
        return 0;
    case LWS_CALLBACK_CLIENT_CLOSED:
        w->wsi = NULL;
        fail(w, SOMA_IO, "the server closed the connection");
        return 0;
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED: // the caller's thread has a request, or wants us to end
        if (w->wsi) lws_callback_on_writable(w->wsi);
        return 0;
    default: return 0;
    }
}

static const struct lws_protocols protocols[] = {{.name = "soma", .callback = on_event, .rx_buffer_size = READ_SIZE}, {0}};

static void *serve(void *arg) {
    soma_wire *w = arg;
    try_connect(&w->retry);
    for (bool quit = false; !quit;) {
        lws_service(w->context, 0);
        pthread_mutex_lock(&w->mutex);
        quit = w->quit;
        pthread_mutex_unlock(&w->mutex);
    }
    return NULL;
}

// ---- the caller's thread

// Waits for the message that was asked for, or for the failure. On success the bytes are in `message`.
static soma_status wait_message(soma_wire *w, soma_str *message, double seconds, const char *what, soma_error *err) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double whole = floor(seconds);
    until.tv_sec += (time_t)whole;
    until.tv_nsec += (long)((seconds - whole) * 1e9);
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&w->mutex);
    int late = 0;
    while (!w->answered && !w->failure.code && !w->busy.code && late != ETIMEDOUT)
        late = pthread_cond_timedwait(&w->changed, &w->mutex, &until);
    if (!w->answered && !w->failure.code && !w->busy.code)
        soma__fail(&w->failure, SOMA_IO, "%.80s: no %s within %g s", w->uri, what, seconds);
    bool ok = w->answered;
    if (ok) {
        soma_str free_one = *message;
        *message = w->answer;
        w->answer = free_one;
        w->answered = w->asking = false;
    }
    soma_error *why = w->failure.code ? &w->failure : &w->busy;
    soma_status status = ok ? SOMA_OK : why->code;
    if (!ok && err) *err = *why;
    if (!ok) w->asking = false;
    w->busy.code = SOMA_OK;
    pthread_mutex_unlock(&w->mutex);
    return status;
}

// After a malformed answer nothing that follows can be trusted.
static soma_status distrust(soma_wire *w, soma_error *err) {
    soma__fail_in(err, "%.80s: the server's answer", w->uri);
    fail(w, err->code, "closed after an answer that could not be used");
    return err->code;
}

static soma_status parse_address(soma_wire *w, const char *address, soma_error *err) {
    w->encrypted = !strncmp(address, "wss://", 6);
    const char *rest = w->encrypted ? address + 6 : strncmp(address, "ws://", 5) ? address : address + 5;
    bool bracket = *rest == '['; // an IPv6 address
    size_t len = bracket ? strcspn(++rest, "]") : strcspn(rest, ":/");
    const char *after = rest + len + (bracket && rest[len]);
    w->port = 8000;
    char *end = (char *)after;
    if (*after == ':') w->port = (int)strtol(after + 1, &end, 10);
    if (!len || len >= sizeof w->host || (*after == ':' && end == after + 1) || w->port < 1 || w->port > 65535 || (*end && *end != '/') ||
        strlen(end) >= sizeof w->path)
        return soma__fail(err, SOMA_BAD_INPUT, "\"%.200s\" is not an address: wanted ws://HOST:PORT or HOST:PORT", address);
    memcpy(w->host, rest, len);
    strcpy(w->path, *end ? end : "/");
    snprintf(w->uri, sizeof w->uri, bracket ? "%s://[%s]:%d%s" : "%s://%s:%d%s", w->encrypted ? "wss" : "ws", w->host, w->port,
             *end ? end : "");
    return SOMA_OK;
}

static soma_status start(soma_wire *w, soma_error *err) {
    soma__lws_setup();
    struct lws_context_creation_info info = {.port = CONTEXT_PORT_NO_LISTEN,
                                             .protocols = protocols,
                                             .user = w,
                                             .pt_serv_buf_size = READ_SIZE,
                                             .fd_limit_per_thread = 16,
                                             .options = w->encrypted ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT : 0,
                                             .client_ssl_ca_filepath = w->encrypted ? w->opts.tls_ca : NULL,
                                             .connect_timeout_secs = (unsigned)fmax(1, ceil(w->opts.connect_timeout))};
    w->context = lws_create_context(&info);
    if (!w->context) return soma__fail(err, SOMA_IO, "%.80s: libwebsockets cannot start", w->uri);
    w->deadline = soma__seconds() + w->opts.connect_timeout;
    w->asking = true; // the metadata comes by itself
    if (pthread_create(&w->thread, NULL, serve, w)) return soma__fail(err, SOMA_IO, "%.80s: no thread for the connection", w->uri);
    w->has_thread = true;
    SOMA_TRY(wait_message(w, &w->metadata_bytes, w->opts.connect_timeout + 0.5, "metadata", err));
    soma_error local;
    err = err ? err : &local;
    if (soma__msg_parse(&w->metadata, &w->metadata_arena, w->metadata_bytes.text, w->metadata_bytes.len, true, err))
        return distrust(w, err);
    if (w->metadata->kind == SOMA_MSG_MAP) return SOMA_OK;
    soma__fail(err, SOMA_BAD_INPUT, "the metadata is not a map");
    return distrust(w, err);
}

soma_status soma__wire_connect(soma_wire **wire, const char *address, const soma_wire_opts *opts, soma_error *err) {
    soma_wire *w = soma__calloc(1, sizeof *w);
    if (!w) return soma__no_memory(err, "a connection");
    w->opts = opts ? *opts : soma__wire_defaults();
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&w->mutex, NULL);
    soma_status status = parse_address(w, address, err);
    if (status == SOMA_OK) status = start(w, err);
    if (status) {
        soma__wire_close(w);
        return status;
    }
    *wire = w;
    return SOMA_OK;
}

void soma__wire_close(soma_wire *w) {
    if (!w) return;
    if (w->has_thread) {
        pthread_mutex_lock(&w->mutex);
        w->quit = true;
        pthread_mutex_unlock(&w->mutex);
        lws_cancel_service(w->context);
        pthread_join(w->thread, NULL);
    }
    if (w->context) lws_context_destroy(w->context);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->mutex);
    soma__str_free(&w->incoming);
    soma__str_free(&w->outgoing);
    soma__str_free(&w->answer);
    soma__str_free(&w->metadata_bytes);
    soma__str_free(&w->answer_bytes);
    soma__arena_free(&w->metadata_arena);
    soma__arena_free(&w->answer_arena);
    soma__free(w->actions);
    soma__free(w);
}

const soma_msg *soma__wire_metadata(const soma_wire *w) { return w->metadata; }

static soma_status post(soma_wire *w, const soma_str *request, soma_error *err) {
    static const char room[LWS_PRE];
    pthread_mutex_lock(&w->mutex);
    if (w->failure.code && err) *err = w->failure;
    soma_status status = w->failure.code;
    if (!status) {
        w->outgoing.len = 0;
        soma__str_add_bytes(&w->outgoing, room, LWS_PRE);
        soma__str_add_bytes(&w->outgoing, request->text, request->len);
        if (request->failed || w->outgoing.failed) {
            status = soma__no_memory(err, "a request");
            soma__str_free(&w->outgoing);
        }
        w->asking = !status;
    }
    pthread_mutex_unlock(&w->mutex);
    if (!status) lws_cancel_service(w->context);
    return status;
}

soma_status soma__wire_call(soma_wire *w, const soma_str *request, const soma_msg **answer, soma_error *err) {
    soma_error local;
    err = err ? err : &local;
    SOMA_TRY(post(w, request, err));
    SOMA_TRY(wait_message(w, &w->answer_bytes, w->opts.answer_timeout, "answer", err));
    soma__arena_free(&w->answer_arena);
    if (soma__msg_parse(answer, &w->answer_arena, w->answer_bytes.text, w->answer_bytes.len, true, err)) return distrust(w, err);
    return SOMA_OK;
}

void soma__wire_put_obs(soma_str *out, const soma_obs *obs) {
    soma__msg_put_map(out, (size_t)obs->n_images + 2 + (obs->executed ? 2 : 0));
    for (int i = 0; i < obs->n_images; i++) {
        const soma_image *image = &obs->images[i];
        int64_t shape[3] = {image->height, image->width, 3};
        char key[256];
        snprintf(key, sizeof key, "observation/%s", image->camera);
        soma__msg_put_str(out, key);
        soma__msg_put_ndarray(out, "|u1", 3, shape, image->pixels, (size_t)(shape[0] * shape[1] * 3));
    }
    soma__msg_put_str(out, "observation/state");
    soma__msg_put_ndarray(out, "<f4", 1, (int64_t[]){obs->n_state}, obs->state, (size_t)obs->n_state * sizeof(float));
    soma__msg_put_str(out, "prompt");
    soma__msg_put_str(out, obs->prompt ? obs->prompt : "");
    if (!obs->executed) return; // it continues no chunk
    soma__msg_put_str(out, "executed");
    soma__msg_put_int(out, obs->executed);
    soma__msg_put_str(out, "delay");
    soma__msg_put_int(out, obs->delay);
}

static soma_status read_actions(soma_wire *w, const soma_msg *answer, soma_actions *actions, soma_error *err) {
    const soma_msg *m = soma__msg_get(answer, "actions");
    char found[200] = "nothing";
    if (m) soma__msg_describe(found, m);
    const soma_msg_ndarray *a = m && m->kind == SOMA_MSG_NDARRAY ? m->array : NULL;
    if (!a || a->type == 'U' || a->n_dims != 2 || a->n_values < 1)
        return soma__fail(err, SOMA_BAD_INPUT, "\"actions\": wanted an ndarray [horizon, actions], found %s", found);
    if (!soma__grow((void **)&w->actions, &w->actions_room, (size_t)a->n_values, sizeof(float))) return soma__no_memory(err, "actions");
    for (int64_t i = 0; i < a->n_values; i++) {
        w->actions[i] = (float)soma__msg_number(m, i);
        if (!isfinite(w->actions[i]))
            return soma__fail(err, SOMA_BAD_INPUT, "\"actions\" [%lld, %lld] is not a finite number", (long long)(i / a->shape[1]),
                              (long long)(i % a->shape[1]));
    }
    const soma_msg *timing = soma__msg_get(soma__msg_get(answer, "policy_timing"), "infer_ms");
    *actions = (soma_actions){.values = w->actions,
                              .horizon = (int)a->shape[0],
                              .n_actions = (int)a->shape[1],
                              .model_ms = timing && soma__msg_n_numbers(timing) == 1 ? soma__msg_number(timing, 0) : 0};
    return SOMA_OK;
}

soma_status soma__wire_infer(soma_wire *w, const soma_obs *obs, soma_actions *actions, soma_error *err) {
    soma_error local;
    err = err ? err : &local;
    soma_str request = {0};
    soma__wire_put_obs(&request, obs);
    const soma_msg *answer;
    soma_status status = soma__wire_call(w, &request, &answer, err);
    soma__str_free(&request);
    if (status == SOMA_OK && read_actions(w, answer, actions, err)) status = distrust(w, err);
    return status;
}
