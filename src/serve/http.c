// SPDX-License-Identifier: Apache-2.0
// What a browser, a health check or Prometheus may ask on the websocket's port: one row per path, whose `put` fills the body. All but
// /healthz want a key when keys are configured.
#include "serve/inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- who may

// A program sends the key as openpi's clients do; a browser, asked for a password, sends it as one, under any name.
static bool has_key(const soma_server *s, struct lws *wsi) {
    static const char api_key[] = "Api-Key ", basic[] = "Basic ";
    char header[SOMA_KEY_SIZE * 2] = "", plain[SOMA_KEY_SIZE * 2];
    const int len = lws_hdr_copy(wsi, header, sizeof header, WSI_TOKEN_HTTP_AUTHORIZATION);
    if (len <= 0) return false;
    if (!strncasecmp(header, api_key, sizeof api_key - 1))
        return soma__keys_have(&s->keys, header + sizeof api_key - 1, (size_t)len - (sizeof api_key - 1));
    if (strncasecmp(header, basic, sizeof basic - 1)) return false;
    const int n = lws_b64_decode_string(header + sizeof basic - 1, plain, sizeof plain);
    const char *colon = n > 0 ? memchr(plain, ':', (size_t)n) : NULL;
    return colon && soma__keys_have(&s->keys, colon + 1, (size_t)(plain + n - colon - 1));
}

// Written here, because libwebsockets answers a request for a websocket as HTTP/1.0, which Python's clients take for no HTTP at all.
int soma__http_refuse(struct lws *wsi, unsigned status, const char *sentence) {
    static const struct {
        unsigned status;
        const char *words, *header;
    } known[] = {{401, "Unauthorized", "www-authenticate: Basic realm=\"soma: a key of this server as the password\"\r\n"},
                 {403, "Forbidden", ""},
                 {405, "Method Not Allowed", ""},
                 {426, "Upgrade Required", "upgrade: websocket\r\n"},
                 {503, "Service Unavailable", ""}};
    size_t i = 0;
    while (i + 1 < SOMA_COUNT(known) && known[i].status != status) i++;
    unsigned char text[LWS_PRE + 1024];
    int n = snprintf((char *)text + LWS_PRE, sizeof text - LWS_PRE,
                     "HTTP/1.1 %u %s\r\n%scontent-type: text/plain\r\ncontent-length: %zu\r\nconnection: close\r\n\r\n%s", status,
                     known[i].words, known[i].header, strlen(sentence), sentence);
    lws_write(wsi, text + LWS_PRE, (size_t)SOMA_MIN(n, (int)(sizeof text - LWS_PRE - 1)), LWS_WRITE_HTTP_FINAL);
    return -1;
}

bool soma__http_allowed(soma_server *s, struct lws *wsi) {
    if (!s->keys.n || has_key(s, wsi)) return true;
    atomic_fetch_add(&s->metrics.unauthorized, 1);
    soma__event(s->events, SOMA_LOG_WARN, "unauthorized", NULL, "a client came without one of the server's keys");
    soma__http_refuse(wsi, HTTP_STATUS_UNAUTHORIZED, "this server wants the header \"Authorization: Api-Key KEY\"");
    return false;
}

// A page of another site must not look or press buttons through somebody's browser. Its scripts cannot send a header of their own here,
// because no permission is ever given; and a name that was bent to this machine's address is not one of this machine's names.
static bool from_here(const soma_server *s, struct lws *wsi, bool post) {
    static const char header[] = "x-soma:";
    char host[300] = "";
    if (post && lws_hdr_custom_length(wsi, header, sizeof header - 1) <= 0) return false;
    if (!s->loopback) return true;
    lws_hdr_copy(wsi, host, sizeof host, WSI_TOKEN_HOST);
    char *port = strrchr(host, ':');
    if (port && !strchr(port, ']')) *port = 0;
    return !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "[::1]") || !strcmp(host, s->opts.host);
}

// ---- what there is

static unsigned put_health(soma_server *s, struct lws *wsi, soma_str *body) {
    if (s->draining) {
        soma__str_add(body, "the server ends\n");
        return HTTP_STATUS_SERVICE_UNAVAILABLE;
    }
    double stalled = soma__turns_stalled(s);
    if (stalled > 0) {
        soma__str_printf(body, "the policy has not answered for %.0f s\n", stalled);
        return HTTP_STATUS_SERVICE_UNAVAILABLE;
    }
    soma__str_add(body, "OK\n");
    return HTTP_STATUS_OK;
}

static json_t *list(const char *const *names, int n) {
    json_t *array = json_array();
    for (int i = 0; array && i < n; i++) json_array_append_new(array, json_string(names[i]));
    return array;
}

static void put_json(soma_str *body, json_t *value) { // takes it
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    if (text)
        soma__str_add(body, text);
    else
        body->failed = true;
    free(text);
}

static json_t *about_policy(const soma_policy_info *i) {
    return json_pack("{s:s, s:i, s:i, s:i, s:f, s:o, s:o}", "family", i->family ? i->family : "", "horizon", i->horizon, "n_actions",
                     i->n_actions, "n_state", i->n_state, "rate", i->rate, "cameras", list(i->camera_names, i->n_cameras), "state_keys",
                     list(i->state_keys, i->n_state_keys));
}

// What clients of the websocket are told on connecting, and what the policy wants and gives.
static unsigned put_metadata(soma_server *s, struct lws *wsi, soma_str *body) {
    json_t *all = about_policy(&s->policy.info);
    if (all) json_object_set(all, "metadata", s->metadata);
    put_json(body, all);
    return HTTP_STATUS_OK;
}

static unsigned put_metrics(soma_server *s, struct lws *wsi, soma_str *body) {
    soma__metrics_put(body, &s->metrics, soma__turns_stalled(s) > 0);
    return HTTP_STATUS_OK;
}

// ---- the page

static int64_t argument(struct lws *wsi, const char *name) { // -1: it is not there, or no number
    char text[32];
    const char *value = lws_get_urlarg_by_name(wsi, name, text, sizeof text);
    char *end;
    if (!value || !*value) return -1;
    const long long n = strtoll(value, &end, 10);
    return *end ? -1 : n;
}

static unsigned put_page(soma_server *s, struct lws *wsi, soma_str *body) {
    soma__str_add_bytes(body, soma__serve_page, soma__serve_page_size);
    return HTTP_STATUS_OK;
}

static json_t *latency(const soma_histogram *h) {
    json_t *bounds = json_array(), *counts = json_array();
    for (int i = 0; i < SOMA_BUCKETS; i++) json_array_append_new(bounds, json_real(soma__bucket_bounds[i]));
    for (int i = 0; i <= SOMA_BUCKETS; i++) json_array_append_new(counts, json_integer((json_int_t)atomic_load(&h->counts[i])));
    return json_pack("{s:o, s:o, s:f, s:f}", "bounds_s", bounds, "counts", counts, "p50_s", soma__histogram_quantile(h, 0.5), "p99_s",
                     soma__histogram_quantile(h, 0.99));
}

static unsigned put_live(soma_server *s, struct lws *wsi, soma_str *body) {
    const soma_metrics *m = &s->metrics;
    json_t *all = soma__live_json(s->live, argument(wsi, "client="));
    unsigned long long answers = 0,
                       busy = atomic_load(&m->busy_queue) + atomic_load(&m->busy_wait) + atomic_load(&m->busy_rate) + atomic_load(&m->late);
    for (int i = 0; i < SOMA_PROTOCOLS; i++) answers += atomic_load(&m->answers[i]);
    json_t *state = json_pack("{s:o, s:b, s:b, s:b, s:f, s:I, s:I, s:I, s:o}", "policy", about_policy(&s->policy.info), "held",
                              atomic_load(&s->held), "paused", soma__server_paused(s), "stalled", s->stalled, "uptime_s",
                              soma__seconds() - m->started, "answers", (json_int_t)answers, "busy", (json_int_t)busy, "errors",
                              (json_int_t)atomic_load(&m->errors), "latency", latency(&m->latency));
    if (all && json_object_update(all, state)) {
        json_decref(all);
        all = NULL;
    }
    json_decref(state);
    put_json(body, all);
    return HTTP_STATUS_OK;
}

static unsigned put_picture(soma_server *s, struct lws *wsi, soma_str *body) {
    const int64_t camera = argument(wsi, "camera=");
    if (soma__live_picture_put(s->live, argument(wsi, "client="), (int)SOMA_MIN(camera, SOMA_MAX_CAMERAS), body)) return HTTP_STATUS_OK;
    soma__str_add(body, "there is no such picture; ask /live first\n");
    return HTTP_STATUS_NOT_FOUND;
}

static unsigned put_hold(soma_server *s, struct lws *wsi, soma_str *body) {
    soma__server_hold(s, true);
    return HTTP_STATUS_OK;
}
static unsigned put_release(soma_server *s, struct lws *wsi, soma_str *body) {
    soma__server_hold(s, false);
    return HTTP_STATUS_OK;
}
static unsigned put_pause(soma_server *s, struct lws *wsi, soma_str *body) {
    soma__server_pause(s, true);
    return HTTP_STATUS_OK;
}
static unsigned put_resume(soma_server *s, struct lws *wsi, soma_str *body) {
    soma__server_pause(s, false);
    return HTTP_STATUS_OK;
}

static const struct page {
    const char *path, *type;
    enum { OPEN, KEY, OWN, BUTTON } kind; // for everybody; with a key; also only from a page of this server; the same as a POST
    unsigned (*put)(soma_server *s, struct lws *wsi, soma_str *body); // returns the status
} pages[] = {
    {"/healthz", "text/plain", OPEN, put_health},
    {"/metadata", "application/json", KEY, put_metadata},
    {"/metrics", "text/plain; version=0.0.4", KEY, put_metrics},
    {"/", "text/html; charset=utf-8", KEY, put_page},
    {"/live", "application/json", OWN, put_live},
    {"/live/picture", "application/octet-stream", OWN, put_picture},
    {"/hold", "text/plain", BUTTON, put_hold},
    {"/release", "text/plain", BUTTON, put_release},
    {"/pause", "text/plain", BUTTON, put_pause},
    {"/resume", "text/plain", BUTTON, put_resume},
};

// ---- answering

static int send_body(struct lws *wsi, unsigned status, const char *type, const soma_str *body) {
    unsigned char head[LWS_PRE + 1024], *start = head + LWS_PRE, *at = start, *end = head + sizeof head;
    size_t size = body->len - LWS_PRE;
    if (lws_add_http_common_headers(wsi, status, type, size, &at, end) || lws_finalize_write_http_header(wsi, start, &at, end)) return -1;
    if (lws_write(wsi, (unsigned char *)body->text + LWS_PRE, size, LWS_WRITE_HTTP_FINAL) < (int)size) return -1;
    return lws_http_transaction_completed(wsi) ? -1 : 0;
}

int soma__http_request(soma_server *s, struct lws *wsi, const char *path) {
    const bool post = lws_hdr_total_length(wsi, WSI_TOKEN_POST_URI) > 0;
    for (size_t i = 0; i < SOMA_COUNT(pages); i++) {
        const struct page *p = &pages[i];
        if (strcmp(path, p->path)) continue;
        if (p->kind != OPEN && !soma__http_allowed(s, wsi)) return -1;
        if (post != (p->kind == BUTTON)) return soma__http_refuse(wsi, HTTP_STATUS_METHOD_NOT_ALLOWED, post ? "GET this" : "POST this");
        if (p->kind >= OWN && !from_here(s, wsi, post))
            return soma__http_refuse(wsi, HTTP_STATUS_FORBIDDEN,
                                     "this is for pages of this server; a program adds the header \"X-Soma: 1\" to a POST");
        soma_str body = {0};
        soma__answer_begin(&body);
        unsigned status = p->put(s, wsi, &body);
        int result = body.failed ? -1 : send_body(wsi, status, p->type, &body);
        soma__str_free(&body);
        return result;
    }
    if (!soma__http_allowed(s, wsi)) return -1;
    return soma__http_refuse(wsi, 426, "this is a websocket server, and there is no page of this name");
}
