// SPDX-License-Identifier: Apache-2.0
// A client from its first byte to its last, whatever it speaks. Everything here runs in the sockets' thread.
#include "serve/inside.h"

#include <stdio.h>
#include <string.h>

static const double QUIET = 0.5; // seconds without a byte after which a refused client has stopped sending

// the reference server's words
static const char close_reason[] = "Internal server error. Traceback included in previous frame.";

void soma__answer_begin(soma_str *answer) {
    static const char room[LWS_PRE];
    answer->len = 0;
    soma__str_add_bytes(answer, room, LWS_PRE);
}

// ---- coming and going

bool soma__server_full(soma_server *s) {
    pthread_mutex_lock(&s->mutex);
    bool full = s->n_clients >= s->opts.max_clients;
    pthread_mutex_unlock(&s->mutex);
    return full;
}

static json_t *who(const soma_client *c) {
    return json_pack("{s:I, s:s, s:s}", "client", (json_int_t)c->id, "peer", c->peer, "protocol", c->protocol->name);
}

int soma__client_connected(soma_server *s, soma_client **session, struct lws *wsi, const soma_protocol *protocol) {
    soma_client *c = soma__calloc(1, sizeof *c);
    if (!c) return -1;
    *session = c;
    c->protocol = protocol;
    c->id = ++s->last_id;
    c->wsi = wsi;
    c->heard = soma__seconds();
    c->zmtp.max_message = (size_t)s->opts.max_message;
    c->next = s->clients;
    s->clients = c;
    lws_get_peer_simple(wsi, c->peer, sizeof c->peer);
    pthread_mutex_lock(&s->mutex);
    s->n_clients++;
    pthread_mutex_unlock(&s->mutex);
    atomic_fetch_add(&s->metrics.connections[protocol->index], 1);
    atomic_fetch_add(&s->metrics.clients[protocol->index], 1);
    soma__event(s->events, SOMA_LOG_INFO, "connected", who(c), "client %lld (%s) connected from %s", (long long)c->id, protocol->name,
                c->peer);
    lws_set_timer_usecs(wsi, SOMA_TICK_US);
    lws_callback_on_writable(wsi);
    return 0;
}

void soma__client_disconnected(soma_server *s, soma_client *c) {
    soma_client **at = &s->clients;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    c->wsi = NULL;
    atomic_fetch_sub(&s->metrics.clients[c->protocol->index], 1);
    soma__event(s->events, SOMA_LOG_INFO, "disconnected", who(c), "client %lld (%s) has gone", (long long)c->id, c->peer);
    pthread_mutex_lock(&s->mutex);
    c->gone = true;
    pthread_mutex_unlock(&s->mutex);
    if (!c->busy) soma__turns_leave(s, c);
}

// ---- refusing

void soma__client_complain(soma_server *s, soma_client *c, const char *format, ...) {
    if (c->complaint[0]) return;
    c->patience = soma__seconds() + s->opts.message_timeout;
    va_list args;
    va_start(args, format);
    vsnprintf(c->complaint, sizeof c->complaint, format, args);
    va_end(args);
    soma__str_free(&c->incoming);
    atomic_fetch_add(&s->metrics.refused, 1);
    soma__event(s->events, SOMA_LOG_WARN, "refused", who(c), "client %lld (%s) was refused: %s", (long long)c->id, c->peer, c->complaint);
    lws_callback_on_writable(c->wsi);
}

bool soma__client_too_large(soma_server *s, soma_client *c, size_t announced) {
    if (announced <= (size_t)s->opts.max_message) return false;
    soma__client_complain(s, c, "a message of at least %zu bytes was announced; this server takes at most %lld", announced,
                          (long long)s->opts.max_message);
    return true;
}

// ---- requests and answers

void soma__client_answer(soma_server *s, soma_client *c, bool text) {
    if (c->answer.failed) {
        soma__str_free(&c->answer);
        soma__client_complain(s, c, "out of memory for an answer");
        return;
    }
    c->text = text;
    c->answered = true;
    c->owed = soma__seconds();
    lws_callback_on_writable(c->wsi);
}

// A request that is not answered with actions. Busy is no fault of the client's, and of a protocol that forgives no fault ends the
// connection: the sentence is the answer.
static void refuse_request(soma_server *s, soma_client *c, soma_status code, const char *text) {
    char sentence[sizeof c->complaint];
    snprintf(sentence, sizeof sentence, "%s: %s", soma_status_word(code), text);
    bool busy = code == SOMA_BUSY;
    if (!busy) atomic_fetch_add(&s->metrics.errors, 1);
    if (!busy && !c->protocol->forgives) {
        soma__client_complain(s, c, "%s", sentence);
        return;
    }
    soma__event(s->events, busy ? SOMA_LOG_INFO : SOMA_LOG_WARN, busy ? "busy" : "error", who(c), "client %lld (%s): %s", (long long)c->id,
                c->peer, sentence);
    soma__answer_begin(&c->answer);
    c->protocol->put_sentence(&c->answer, sentence);
    soma__client_answer(s, c, true);
}

// What the request in `request` may be answered with at once; SOMA_OK: it is in the line, or its answer is ready.
static soma_status begin_request(soma_server *s, soma_client *c, soma_error *err) {
    if (!soma__bucket_take(&c->bucket, s->opts.max_rate, c->received)) {
        atomic_fetch_add(&s->metrics.busy_rate, 1);
        return soma__fail(err, SOMA_BUSY, "a client may send %g requests a second", s->opts.max_rate);
    }
    double stalled = soma__turns_stalled(s);
    if (stalled > 0) return soma__fail(err, SOMA_IO, "the policy has not answered for %.0f s", stalled);
    soma__arena_free(&c->arena);
    SOMA_TRY(soma__msg_parse(&c->message, &c->arena, c->request.text, c->request.len, true, err));
    SOMA_TRY(c->protocol->take(s, c, err));
    if (c->answered) return SOMA_OK;
    c->busy = true;
    soma_status status = soma__turns_submit(s, c, err);
    if (status) c->busy = false;
    return status;
}

static void take_request(soma_server *s, soma_client *c) {
    soma_error error = {0};
    soma_str free_one = c->request;
    c->request = c->incoming;
    c->incoming = free_one;
    c->incoming.len = 0;
    c->received = soma__seconds();
    c->started = 0;
    atomic_fetch_add(&s->metrics.requests[c->protocol->index], 1);
    atomic_fetch_add(&s->metrics.bytes_in, c->request.len);
    if (begin_request(s, c, &error)) refuse_request(s, c, error.code, error.text);
}

// The request before must be answered first; until then the message waits, and the client with it.
void soma__client_whole(soma_server *s, soma_client *c) {
    if (s->draining) {
        c->incoming.len = 0;
        return;
    }
    if (c->busy || c->answered) {
        c->whole = true;
        lws_rx_flow_control(c->wsi, 0);
        return;
    }
    take_request(s, c);
}

void soma__client_done(soma_server *s, soma_client *c) {
    c->busy = false;
    soma__arena_free(&c->arena);
    if (!c->wsi) {
        soma__turns_leave(s, c);
        return;
    }
    if (c->complaint[0]) return;
    if (c->error.code)
        refuse_request(s, c, c->error.code, c->error.text);
    else
        soma__client_answer(s, c, false);
}

// ---- writing: one frame per call, as libwebsockets wants it

static int write_complaint(soma_client *c) {
    soma__answer_begin(&c->incoming); // it is free: what comes is dropped
    c->protocol->put_sentence(&c->incoming, c->complaint);
    c->closing = c->text = true;
    lws_callback_on_writable(c->wsi);
    int result = c->incoming.failed ? -1 : c->protocol->write(c, &c->incoming);
    soma__str_free(&c->incoming);
    return result;
}

static bool still_sending(const soma_client *c) {
    double now = soma__seconds();
    return c->midway && now < c->patience && now - c->heard < QUIET;
}

static int write_answer(soma_server *s, soma_client *c) {
    c->answered = false;
    int result = c->protocol->write(c, &c->answer);
    double seconds = soma__seconds() - c->received;
    c->prev_total_ms = 1e3 * seconds;
    atomic_fetch_add(&s->metrics.bytes_out, c->answer.len - LWS_PRE);
    if (!c->text) {
        atomic_fetch_add(&s->metrics.answers[c->protocol->index], 1);
        soma__histogram_add(&s->metrics.latency, seconds);
    }
    if (s->draining) lws_callback_on_writable(c->wsi); // for the goodbye
    if (!c->whole || s->draining) return result;
    c->whole = false;
    take_request(s, c);
    if (c->protocol->resume) c->protocol->resume(s, c);
    if (!c->whole) lws_rx_flow_control(c->wsi, 1);
    return result;
}

int soma__client_write(soma_server *s, soma_client *c) {
    if (c->closing && still_sending(c)) return 0;
    if (c->closing) return c->protocol->end(c, LWS_CLOSE_STATUS_UNEXPECTED_CONDITION, close_reason);
    if (c->complaint[0]) return write_complaint(c);
    if (c->answered) return write_answer(s, c);
    if (s->draining && !c->busy) return c->protocol->end(c, LWS_CLOSE_STATUS_GOINGAWAY, "the server ends");
    return 0;
}

// ---- time: messages that stand still, answers that nobody takes

void soma__client_tick(soma_server *s, soma_client *c) {
    lws_set_timer_usecs(c->wsi, SOMA_TICK_US);
    double now = soma__seconds();
    if (c->closing) lws_callback_on_writable(c->wsi);
    if (c->answered && now - c->owed > s->opts.message_timeout) {
        soma__event(s->events, SOMA_LOG_WARN, "refused", who(c), "client %lld (%s) has not taken its answer for %g s", (long long)c->id,
                    c->peer, s->opts.message_timeout);
        lws_set_timeout(c->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
        return;
    }
    bool partial = !c->whole && (c->midway || c->incoming.len > 0);
    if (c->complaint[0] || !partial) return;
    if (!c->started) c->started = now;
    if (now - c->started > s->opts.message_timeout)
        soma__client_complain(s, c, "a message was not whole after %g s: %zu bytes of it have come", s->opts.message_timeout,
                              c->incoming.len);
}
