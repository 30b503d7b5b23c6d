// SPDX-License-Identifier: Apache-2.0
// GR00T's protocol: ZeroMQ's framing (format/zmtp.h) around msgpack maps (serve/groot_map.h) on a port of its own. One connection is one
// pilot. A request that cannot be answered gets {"error": sentence} and the connection goes on, as with the reference server; only what
// cannot be read any further ends it. "kill", with which the reference server lets any client end it, is refused.
#include "serve/inside.h"

#include <string.h>

// ---- messages

static void put_status(soma_str *out) {
    soma__msg_put_map(out, 2);
    soma__msg_put_str(out, "status");
    soma__msg_put_str(out, "ok");
    soma__msg_put_str(out, "message");
    soma__msg_put_str(out, "Server is running"); // the reference's words
}

static soma_status take(soma_server *s, soma_client *c, soma_error *err) {
    SOMA_TRY(soma__groot_read(&c->groot, c->message, err));
    const soma_groot_request *r = &c->groot;
    if (!soma__keys_have(&s->keys, r->token ? r->token : "", r->token_size)) {
        atomic_fetch_add(&s->metrics.unauthorized, 1);
        return soma__fail(err, SOMA_BAD_INPUT, "Unauthorized: this server wants one of its keys as \"api_token\"");
    }
    if (r->endpoint == SOMA_GROOT_ACT) return SOMA_OK;
    if (r->endpoint == SOMA_GROOT_KILL) return soma__fail(err, SOMA_UNSUPPORTED, "a client cannot end this server; whoever started it can");
    soma__answer_begin(&c->answer);
    if (r->endpoint == SOMA_GROOT_PING) put_status(&c->answer);
    if (r->endpoint == SOMA_GROOT_CONFIG) soma__groot_put_config(&c->answer, &s->modality, s->policy.info.horizon);
    if (r->endpoint == SOMA_GROOT_RESET) {
        soma__msg_put_map(&c->answer, 0);
        c->reset = true;
    }
    soma__client_answer(s, c, true);
    return SOMA_OK;
}

static soma_status observe(soma_server *s, soma_client *c, soma_obs *obs, soma_error *err) {
    return soma__groot_observe(obs, &s->modality, &s->policy.info, &c->groot, &c->arena, err);
}

static void put_actions(soma_server *s, soma_client *c, const soma_actions *a, double infer_ms) {
    soma__groot_put_actions(&c->answer, &s->modality, a, c->groot.nested, infer_ms);
}

// ---- the network

// The lead goes where the room before the message is, so that frame and message are one write.
static int write_message(soma_client *c, const soma_str *message) {
    unsigned char lead[11], *body = (unsigned char *)message->text + LWS_PRE;
    size_t size = message->len - LWS_PRE, from = soma__zmtp_lead(lead, size), n = sizeof lead - from;
    _Static_assert(LWS_PRE >= sizeof lead, "a message has room for its lead");
    memcpy(body - n, lead + from, n);
    return lws_write(c->wsi, body - n, size + n, LWS_WRITE_RAW) < (int)(size + n) ? -1 : 0;
}

static int end(soma_client *c, enum lws_close_status code, const char *reason) { return -1; }

// A pickle is no msgpack, and its sentence is not the parser's.
static void on_message(soma_server *s, soma_client *c) {
    const char *pickle = soma__groot_pickle(c->incoming.text, c->incoming.len);
    if (pickle)
        soma__client_complain(s, c, "%s", pickle);
    else
        soma__client_whole(s, c);
}

// Up to a message that has to wait: what is behind it waits with it.
static void feed(soma_server *s, soma_client *c, const unsigned char *bytes, size_t len) {
    while (len && !c->whole && !c->complaint[0]) {
        soma_error error = {0};
        soma_zmtp_found found = soma__zmtp_feed(&c->zmtp, &bytes, &len, &c->incoming, &error);
        if (found == SOMA_ZMTP_REFUSED) soma__client_complain(s, c, "%s", error.text);
        if (found == SOMA_ZMTP_MESSAGE) on_message(s, c);
        if (found == SOMA_ZMTP_PING) {
            c->pong_size = soma__zmtp_pong(c->pong, c->zmtp.head, c->zmtp.n_head);
            lws_callback_on_writable(c->wsi);
        }
    }
    if (c->whole && !c->complaint[0]) soma__str_add_bytes(&c->stash, bytes, len);
    c->midway = c->complaint[0] || c->zmtp.stage != SOMA_ZMTP_TRAFFIC || soma__zmtp_midway(&c->zmtp);
    if (c->midway && !c->started) c->started = c->heard;
    if (!c->midway && !c->whole) c->started = 0;
}

static void receive(soma_server *s, soma_client *c, const unsigned char *bytes, size_t len) {
    c->heard = soma__seconds();
    if (c->stash.len + len > (size_t)s->opts.max_message || c->stash.failed)
        soma__client_complain(s, c, "more came behind a request that is not answered yet than this server keeps");
    feed(s, c, bytes, len);
}

static void resume(soma_server *s, soma_client *c) {
    soma_str stash = c->stash;
    c->stash = (soma_str){0};
    feed(s, c, (const unsigned char *)stash.text, stash.len);
    soma__str_free(&stash);
}

const soma_protocol soma__groot = {.index = 1,
                                   .name = "groot",
                                   .take = take,
                                   .observe = observe,
                                   .put_actions = put_actions,
                                   .put_sentence = soma__groot_put_error,
                                   .resume = resume,
                                   .forgives = true,
                                   .write = write_message,
                                   .end = end};

static int writeable(soma_server *s, soma_client *c) {
    unsigned char room[LWS_PRE + SOMA_ZMTP_HEAD];
    if (!c->greeted) {
        soma_str greeting = {0};
        soma__zmtp_put_greeting(&greeting, "REP");
        bool ok = !greeting.failed;
        size_t size = greeting.len;
        if (ok) memcpy(room + LWS_PRE, greeting.text, size);
        soma__str_free(&greeting);
        c->greeted = true;
        lws_callback_on_writable(c->wsi);
        return ok && lws_write(c->wsi, room + LWS_PRE, size, LWS_WRITE_RAW) == (int)size ? 0 : -1;
    }
    if (!c->pong_size) return soma__client_write(s, c);
    size_t size = c->pong_size;
    memcpy(room + LWS_PRE, c->pong, size);
    c->pong_size = 0;
    lws_callback_on_writable(c->wsi);
    return lws_write(c->wsi, room + LWS_PRE, size, LWS_WRITE_RAW) == (int)size ? 0 : -1;
}

static int adopt(soma_server *s, soma_client **session, struct lws *wsi) {
    if (s->draining || soma__server_full(s)) {
        atomic_fetch_add(&s->metrics.refused, 1);
        return -1;
    }
    int result = soma__client_connected(s, session, wsi, &soma__groot);
    if (!result) (*session)->midway = true; // until the handshake is done
    return result;
}

int soma__groot_event(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t len) {
    soma_server *s = lws_context_user(lws_get_context(wsi));
    soma_client **c = session;
    switch (reason) {
    case LWS_CALLBACK_RAW_ADOPT: return adopt(s, c, wsi);
    case LWS_CALLBACK_RAW_RX: receive(s, *c, in, len); return 0;
    case LWS_CALLBACK_RAW_WRITEABLE: return writeable(s, *c);
    case LWS_CALLBACK_TIMER: soma__client_tick(s, *c); return 0;
    case LWS_CALLBACK_RAW_CLOSE:
        if (c && *c) soma__client_disconnected(s, *c);
        return 0;
    default: return 0;
    }
}
