// SPDX-License-Identifier: Apache-2.0
// Opening and closing a server, and the sockets' thread.
#include "serve/inside.h"

#include "base/file.h"
#include "format/wire.h"

#include <netdb.h>
#include <string.h>

#define OPTS_TYPE soma_server_opts
SOMA_OPTS_DEFINE(soma_server_opts, SOMA_SERVER_OPTS, soma__server_defaults)
#undef OPTS_TYPE

enum { READ_SIZE = 1 << 16, HTTP_SECONDS = 10, SPARE_SOCKETS = 64 /* health checks and refusals */ };

// ---- the sockets' thread

void soma__server_take_done(soma_server *s) {
    pthread_mutex_lock(&s->mutex);
    soma_client *c = s->done;
    s->done = NULL;
    pthread_mutex_unlock(&s->mutex);
    for (soma_client *next; c; c = next) {
        next = c->queued;
        soma__client_done(s, c);
    }
}

// A policy that does not come back cannot be helped; its clients can be told, and whoever watches /healthz.
static void watch(soma_server *s) {
    double seconds = soma__turns_stalled(s);
    if (seconds > 0 && !s->stalled) {
        soma__event(s->events, SOMA_LOG_ERROR, "stalled", json_pack("{s:f}", "seconds", seconds), "the policy has not answered for %.0f s",
                    seconds);
        for (soma_client *c = s->clients; c; c = c->next)
            if (c->busy && !c->complaint[0]) {
                atomic_fetch_add(&s->metrics.stalls, 1);
                soma__client_complain(s, c, "the policy has not answered for %.0f s", seconds);
            }
    } else if (seconds == 0 && s->stalled) {
        soma__event(s->events, SOMA_LOG_WARN, "recovered", NULL, "the policy answers again");
    }
    s->stalled = seconds > 0;
}

static void *run_sockets(void *arg) {
    soma_server *s = arg;
    double until = 0;
    for (;;) {
        lws_service(s->context, 0);
        watch(s);
        pthread_mutex_lock(&s->mutex);
        bool stop = s->stop;
        pthread_mutex_unlock(&s->mutex);
        if (!stop) continue;
        if (!s->draining) {
            s->draining = true;
            until = soma__seconds() + s->opts.drain_timeout;
            for (soma_client *c = s->clients; c; c = c->next) lws_callback_on_writable(c->wsi);
        }
        if (!s->clients || soma__seconds() > until) return NULL; // the clients' timers wake us meanwhile
    }
}

// ---- listening

// libwebsockets takes interfaces and numeric addresses; names are looked up here. `numeric` stays "" where all addresses are meant.
static soma_status find_address(char numeric[NI_MAXHOST], bool *loopback, const char *host, soma_error *err) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    numeric[0] = 0;
    *loopback = false;
    if (!strcmp(host, "0.0.0.0")) return SOMA_OK;
    int problem = getaddrinfo(host, NULL, &hints, &found);
    if (!problem) problem = getnameinfo(found->ai_addr, found->ai_addrlen, numeric, NI_MAXHOST, NULL, 0, NI_NUMERICHOST);
    if (found) freeaddrinfo(found);
    *loopback = !strncmp(numeric, "127.", 4) || !strcmp(numeric, "::1");
    return problem ? soma__fail(err, SOMA_BAD_INPUT, "host \"%.200s\": %s", host, gai_strerror(problem)) : SOMA_OK;
}

static const struct lws_protocols websockets[] = {
    {.name = "soma", .callback = soma__openpi_event, .per_session_data_size = sizeof(soma_client *), .rx_buffer_size = READ_SIZE}, {0}};
static const struct lws_protocols zeromq[] = {
    {.name = "groot", .callback = soma__groot_event, .per_session_data_size = sizeof(soma_client *), .rx_buffer_size = READ_SIZE}, {0}};

static soma_status listen_on(soma_server *s, int *bound, struct lws_context_creation_info *info, int64_t port, soma_error *err) {
    info->port = (int)port;
    struct lws_vhost *vhost = lws_create_vhost(s->context, info);
    if (!vhost)
        return soma__fail(err, SOMA_IO, "cannot listen on %s port %lld: is another server using the port%s?", s->opts.host, (long long)port,
                          info->ssl_cert_filepath ? ", or do the certificate and its key not belong together" : "");
    *bound = lws_get_vhost_listen_port(vhost);
    return SOMA_OK;
}

static soma_status open_sockets(soma_server *s, soma_error *err) {
    // dead peers are found by pings, timed as in the reference server, and where there are none by the system
    static const lws_retry_bo_t pings = {.secs_since_valid_ping = 20, .secs_since_valid_hangup = 40};
    const soma_server_opts *o = &s->opts;
    char address[NI_MAXHOST];
    bool encrypted = o->tls_cert[0] != 0;
    SOMA_TRY(find_address(address, &s->loopback, o->host, err));
    if (encrypted && o->groot_port >= 0 && !s->loopback)
        return soma__fail(err, SOMA_BAD_INPUT,
                          "GR00T's ZeroMQ is not encrypted: with --tls-cert it is served on the loopback address alone, not on %s",
                          o->host);
    struct lws_context_creation_info info = {
        .iface = address[0] ? address : NULL,
        .protocols = websockets,
        .vhost_name = "websocket",
        .user = s,
        .timeout_secs = HTTP_SECONDS,
        .pt_serv_buf_size = READ_SIZE,
        .fd_limit_per_thread = (unsigned)o->max_clients + SPARE_SOCKETS,
        .retry_and_idle_policy = &pings,
        .ka_time = 20,
        .ka_probes = 4,
        .ka_interval = 5,
        .ssl_cert_filepath = encrypted ? o->tls_cert : NULL,
        .ssl_private_key_filepath = encrypted ? o->tls_key : NULL,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND |
                   (encrypted ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT | LWS_SERVER_OPTION_DISABLE_OS_CA_CERTS : 0) |
                   (strchr(address, ':') ? 0 : LWS_SERVER_OPTION_DISABLE_IPV6)};
    s->context = lws_create_context(&info);
    if (!s->context) return soma__fail(err, SOMA_IO, "libwebsockets cannot start");
    SOMA_TRY(listen_on(s, &s->port, &info, o->port, err));
    if (o->groot_port < 0) return SOMA_OK;
    info.protocols = zeromq;
    info.vhost_name = "zeromq";
    info.ssl_cert_filepath = info.ssl_private_key_filepath = NULL;
    info.options |= LWS_SERVER_OPTION_ADOPT_APPLY_LISTEN_ACCEPT_CONFIG;
    info.listen_accept_role = "raw-skt";
    info.listen_accept_protocol = "groot";
    return listen_on(s, &s->groot_port, &info, o->groot_port, err);
}

// ---- opening and closing

static soma_status pack_metadata(soma_server *s, soma_error *err) {
    const char *text = s->policy.info.metadata_json ? s->policy.info.metadata_json : "{}";
    SOMA_TRY(soma__json_parse(&s->metadata, text, strlen(text), "the policy's metadata", err));
    soma__answer_begin(&s->greeting);
    soma__msg_put_json(&s->greeting, s->metadata);
    if (!json_is_object(s->metadata)) return soma__fail(err, SOMA_BAD_INPUT, "the policy's metadata is not a JSON object");
    return s->greeting.failed ? soma__no_memory(err, "the metadata") : SOMA_OK;
}

static soma_status in_range(const char *name, int64_t value, int64_t low, int64_t high, soma_error *err) {
    if (value >= low && value <= high) return SOMA_OK;
    return soma__fail(err, SOMA_BAD_INPUT, "%s: wanted %lld to %lld, found %lld", name, (long long)low, (long long)high, (long long)value);
}

static soma_status check_opts(const soma_server_opts *o, soma_error *err) {
    SOMA_OPTS_CHECK(o);
    SOMA_TRY(in_range("port", o->port, 0, 65535, err));
    SOMA_TRY(in_range("groot_port", o->groot_port, -1, 65535, err));
    SOMA_TRY(in_range("max_clients", o->max_clients, 1, 10000, err));
    SOMA_TRY(in_range("max_message, bytes", o->max_message, 1024, 1 << 30, err));
    SOMA_TRY(in_range("max_image, pixels", o->max_image, 1, 16384, err));
    SOMA_TRY(in_range("max_queue", o->max_queue, 1, 10000, err));
    if (!(o->message_timeout > 0)) return soma__fail(err, SOMA_BAD_INPUT, "message_timeout: wanted seconds above 0");
    if (!(o->stall_timeout > 0)) return soma__fail(err, SOMA_BAD_INPUT, "stall_timeout: wanted seconds above 0");
    if (!(o->max_wait >= 0) || !(o->max_rate >= 0) || !(o->drain_timeout >= 0))
        return soma__fail(err, SOMA_BAD_INPUT, "max_wait, max_rate and drain_timeout: wanted 0 or more");
    if (!o->tls_cert[0] != !o->tls_key[0]) return soma__fail(err, SOMA_BAD_INPUT, "tls_cert and tls_key go together");
    const char *const files[] = {o->tls_cert, o->tls_key};
    for (int i = 0; i < 2; i++)
        if (files[i][0] && !soma__file_exists(files[i])) return soma__fail(err, SOMA_NOT_FOUND, "%s: there is no such file", files[i]);
    return SOMA_OK;
}

static soma_status start(soma_server *s, soma_error *err) {
    SOMA_TRY(check_opts(&s->opts, err));
    SOMA_TRY(pack_metadata(s, err));
    SOMA_TRY(soma__modality_read(&s->modality, &s->policy.info, s->opts.modality, err));
    if (s->opts.api_key_file[0]) SOMA_TRY(soma__keys_read(&s->keys, s->opts.api_key_file, err));
    const soma_policy_info *info = &s->policy.info;
    double fps = s->opts.record_fps > 0 ? s->opts.record_fps : info->rate > 0 ? info->rate : 10;
    if (s->opts.record[0]) SOMA_TRY(soma__recording_open(&s->recording, s->opts.record, info, fps, &s->metrics, s->events, err));
    SOMA_TRY(soma__live_new(&s->live, info, err));
    soma__lws_setup();
    SOMA_TRY(open_sockets(s, err));
    soma__turns_begin(s);
    s->has_inference = !pthread_create(&s->inference, NULL, soma__turns_run, s);
    s->has_sockets = s->has_inference && !pthread_create(&s->sockets, NULL, run_sockets, s);
    if (!s->has_sockets) return soma__fail(err, SOMA_IO, "the server's threads cannot start");
    soma__event(s->events, SOMA_LOG_INFO, "listening",
                json_pack("{s:s, s:i, s:i}", "host", s->opts.host, "port", s->port, "groot_port", s->groot_port), "listening on %s port %d",
                s->opts.host, s->port);
    return SOMA_OK;
}

soma_status soma__server_open(soma_server **server, const soma_server_policy *policy, const soma_server_opts *opts,
                              const soma_events *events, soma_error *err) {
    soma_server *s = soma__calloc(1, sizeof *s);
    if (!s) return soma__no_memory(err, "a server");
    s->policy = *policy;
    s->opts = opts ? *opts : soma__server_defaults();
    s->events = events;
    s->metrics.started = soma__seconds();
    s->line_end = &s->line;
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
int soma__server_groot_port(const soma_server *s) { return s->groot_port; }

void soma__server_close(soma_server *s) {
    if (!s) return;
    if (s->has_sockets) {
        soma__event(s->events, SOMA_LOG_INFO, "draining", NULL, "the server ends: requests in the line are answered, no others are taken");
        pthread_mutex_lock(&s->mutex);
        s->stop = true;
        s->paused = false; // what waits is answered
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->mutex);
        lws_cancel_service(s->context);
        pthread_join(s->sockets, NULL);
    }
    // The turn that runs may still wake the sockets' thread, so the context outlives it.
    if (s->has_inference) {
        pthread_mutex_lock(&s->mutex);
        s->finish = true;
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->mutex);
        pthread_join(s->inference, NULL);
    }
    if (s->context) lws_context_destroy(s->context); // every client is now in one of the lists
    soma__turns_free(s);
    soma__recording_close(s->recording);
    soma__live_free(s->live);
    soma__event(s->events, SOMA_LOG_INFO, "stopped", NULL, "the server has ended");
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->mutex);
    soma__str_free(&s->greeting);
    json_decref(s->metadata);
    soma__keys_free(&s->keys);
    soma__free(s);
}
