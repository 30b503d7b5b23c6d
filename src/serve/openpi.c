// SPDX-License-Identifier: Apache-2.0
// openpi's protocol. After connecting a client gets the policy's metadata; then every binary message is an observation (serve/observe.h)
// and is answered with {"actions": f8 [S, A], "policy_timing": {"infer_ms"}, "server_timing": {"infer_ms", "prev_total_ms" from the second
// on}}. What cannot be answered gets a text frame with one sentence, and the connection is closed with code 1011; "busy: ..." is a text
// frame after which the connection goes on.
#include "serve/inside.h"

#include "serve/observe.h"

#include <string.h>

// ---- messages

static soma_status take(soma_server *s, soma_client *c, soma_error *err) { return SOMA_OK; }

static soma_status observe(soma_server *s, soma_client *c, soma_obs *obs, soma_error *err) {
    return soma__observe(obs, &s->policy.info, c->message, &c->arena, err);
}

static void put_timing(soma_str *out, const char *key, double infer_ms, double prev_total_ms) {
    soma__msg_put_str(out, key);
    soma__msg_put_map(out, prev_total_ms > 0 ? 2 : 1);
    soma__msg_put_str(out, "infer_ms");
    soma__msg_put_real(out, infer_ms);
    if (prev_total_ms <= 0) return;
    soma__msg_put_str(out, "prev_total_ms");
    soma__msg_put_real(out, prev_total_ms);
}

static void put_actions(soma_server *s, soma_client *c, const soma_actions *a, double infer_ms) {
    size_t n = (size_t)a->horizon * (size_t)a->n_actions;
    double *values = soma__arena_alloc(&c->arena, n * sizeof *values);
    if (!values) {
        c->answer.failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++) values[i] = a->values[i];
    soma__msg_put_map(&c->answer, 3 + c->held);
    if (c->held) {
        soma__msg_put_str(&c->answer, "hold");
        soma__msg_put_json(&c->answer, json_true());
    }
    soma__msg_put_str(&c->answer, "actions");
    soma__msg_put_ndarray(&c->answer, "<f8", 2, (int64_t[]){a->horizon, a->n_actions}, values, n * sizeof *values);
    put_timing(&c->answer, "policy_timing", a->model_ms, 0);
    put_timing(&c->answer, "server_timing", infer_ms, c->prev_total_ms);
}

static void put_sentence(soma_str *answer, const char *sentence) { soma__str_add(answer, sentence); }

// ---- the network

static int write_message(soma_client *c, const soma_str *message) {
    size_t size = message->len - LWS_PRE;
    enum lws_write_protocol kind = c->text ? LWS_WRITE_TEXT : LWS_WRITE_BINARY;
    return lws_write(c->wsi, (unsigned char *)message->text + LWS_PRE, size, kind) < (int)size ? -1 : 0;
}

static int end(soma_client *c, enum lws_close_status code, const char *reason) {
    lws_close_reason(c->wsi, code, (unsigned char *)reason, strlen(reason));
    return -1;
}

const soma_protocol soma__openpi = {.index = 0,
                                    .name = "openpi",
                                    .take = take,
                                    .observe = observe,
                                    .put_actions = put_actions,
                                    .put_sentence = put_sentence,
                                    .write = write_message,
                                    .end = end};

static void receive(soma_server *s, soma_client *c, const void *bytes, size_t len) {
    size_t rest = lws_remaining_packet_payload(c->wsi);
    c->midway = rest || !lws_is_final_fragment(c->wsi);
    c->heard = soma__seconds();
    if (c->complaint[0] && !c->midway) lws_callback_on_writable(c->wsi);
    if (c->complaint[0] || soma__client_too_large(s, c, c->incoming.len + len + rest)) return;
    if (!c->started) c->started = c->heard;
    soma__str_add_bytes(&c->incoming, bytes, len);
    if (c->incoming.failed)
        soma__client_complain(s, c, "out of memory for a message");
    else if (!lws_frame_is_binary(c->wsi))
        soma__client_complain(s, c, "a text frame came; an observation is a binary frame with a msgpack map");
    else if (!c->midway)
        soma__client_whole(s, c);
}

// libwebsockets tells of a frame with its first bytes; one that is announced and not followed by any is looked for here.
static void tick(soma_server *s, soma_client *c) {
    size_t rest = lws_remaining_packet_payload(c->wsi);
    if (rest > 0 && !c->whole) c->midway = true;
    if (rest > 0 && !c->whole && !c->complaint[0]) soma__client_too_large(s, c, c->incoming.len + rest);
    soma__client_tick(s, c);
}

static int writeable(soma_server *s, soma_client *c) {
    if (c->greeted) return soma__client_write(s, c);
    c->greeted = true;
    if (c->complaint[0] || c->answered || s->draining) lws_callback_on_writable(c->wsi);
    return write_message(c, &s->greeting);
}

static int admit(soma_server *s, struct lws *wsi) {
    if (!soma__http_allowed(s, wsi)) return -1;
    if (!s->draining && !soma__server_full(s)) return 0;
    atomic_fetch_add(&s->metrics.refused, 1);
    return soma__http_refuse(wsi, HTTP_STATUS_SERVICE_UNAVAILABLE,
                             s->draining ? "this server ends" : "this server has as many clients as it takes");
}

int soma__openpi_event(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t len) {
    soma_server *s = lws_context_user(lws_get_context(wsi));
    soma_client **c = session;
    switch (reason) {
    case LWS_CALLBACK_HTTP: return soma__http_request(s, wsi, in);
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION: return admit(s, wsi);
    case LWS_CALLBACK_ESTABLISHED: return soma__client_connected(s, c, wsi, &soma__openpi);
    case LWS_CALLBACK_RECEIVE: receive(s, *c, in, len); return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE: return writeable(s, *c);
    case LWS_CALLBACK_TIMER: tick(s, *c); return 0;
    case LWS_CALLBACK_CLOSED:
        if (c && *c) soma__client_disconnected(s, *c);
        return 0;
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED: soma__server_take_done(s); return 0;
    default: return 0;
    }
}
