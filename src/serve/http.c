// SPDX-License-Identifier: Apache-2.0
// What a browser, a health check or Prometheus may GET on the websocket's port: one row per path. A row's `put` fills the body; a page of
// static bytes is a row, too. All but /healthz want a key when keys are configured.
#include "serve/inside.h"

#include <stdlib.h>
#include <string.h>

// ---- who may

bool soma__http_allowed(soma_server *s, struct lws *wsi) {
    static const char form[] = "Api-Key ";
    char header[sizeof form + SOMA_KEY_SIZE] = "";
    if (!s->keys.n) return true;
    int len = lws_hdr_copy(wsi, header, sizeof header, WSI_TOKEN_HTTP_AUTHORIZATION);
    size_t skip = sizeof form - 1;
    if (len > (int)skip && !strncasecmp(header, form, skip) && soma__keys_have(&s->keys, header + skip, (size_t)len - skip)) return true;
    atomic_fetch_add(&s->metrics.unauthorized, 1);
    soma__event(s->events, SOMA_LOG_WARN, "unauthorized", NULL, "a client came without one of the server's keys");
    lws_return_http_status(wsi, HTTP_STATUS_UNAUTHORIZED, "this server wants the header \"Authorization: Api-Key KEY\"");
    return false;
}

// ---- what there is

static unsigned put_health(soma_server *s, soma_str *body) {
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

// What clients of the websocket are told on connecting, and what the policy wants and gives.
static unsigned put_metadata(soma_server *s, soma_str *body) {
    const soma_policy_info *i = &s->policy.info;
    json_t *all =
        json_pack("{s:s, s:i, s:i, s:i, s:f, s:o, s:o, s:O}", "family", i->family ? i->family : "", "horizon", i->horizon, "n_actions",
                  i->n_actions, "n_state", i->n_state, "rate", i->rate, "cameras", list(i->camera_names, i->n_cameras), "state_keys",
                  list(i->state_keys, i->n_state_keys), "metadata", s->metadata);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    if (text)
        soma__str_add(body, text);
    else
        body->failed = true;
    free(text);
    return HTTP_STATUS_OK;
}

static unsigned put_metrics(soma_server *s, soma_str *body) {
    soma__metrics_put(body, &s->metrics, soma__turns_stalled(s) > 0);
    return HTTP_STATUS_OK;
}

static const struct page {
    const char *path, *type;
    bool open;                                       // without a key
    unsigned (*put)(soma_server *s, soma_str *body); // returns the status
} pages[] = {
    {"/healthz", "text/plain", true, put_health},
    {"/metadata", "application/json", false, put_metadata},
    {"/metrics", "text/plain; version=0.0.4", false, put_metrics},
};

// ---- answering

static int send_body(struct lws *wsi, unsigned status, const char *type, const soma_str *body) {
    unsigned char head[LWS_PRE + 1024], *start = head + LWS_PRE, *at = start, *end = head + sizeof head;
    size_t size = body->len - LWS_PRE;
    if (lws_add_http_common_headers(wsi, status, type, size, &at, end) || lws_finalize_write_http_header(wsi, start, &at, end)) return -1;
    if (lws_write(wsi, (unsigned char *)body->text + LWS_PRE, size, LWS_WRITE_HTTP_FINAL) < (int)size) return -1;
    return lws_http_transaction_completed(wsi) ? -1 : 0;
}

int soma__http_get(soma_server *s, struct lws *wsi, const char *path) {
    for (size_t i = 0; i < SOMA_COUNT(pages); i++) {
        const struct page *p = &pages[i];
        if (strcmp(path, p->path)) continue;
        if (!p->open && !soma__http_allowed(s, wsi)) return -1;
        soma_str body = {0};
        soma__answer_begin(&body);
        unsigned status = p->put(s, &body);
        int result = body.failed ? -1 : send_body(wsi, status, p->type, &body);
        soma__str_free(&body);
        return result;
    }
    if (!soma__http_allowed(s, wsi)) return -1;
    lws_return_http_status(wsi, 426 /* Upgrade Required */, "this is a websocket server");
    return lws_http_transaction_completed(wsi) ? -1 : 0;
}
