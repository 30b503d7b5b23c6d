// SPDX-License-Identifier: Apache-2.0
// A server of the toy policy for one test, and clients of it.
#ifndef TESTS_SERVE_TOY_SERVER_H
#define TESTS_SERVE_TOY_SERVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "format/wire.h"
#include "serve/raw_socket.h"
#include "serve/toy_policy.h"

#include <stdio.h>

typedef struct fixture {
    soma_server *server;
    int port, groot_port;
} fixture;

static soma_error err;
static soma_wire_opts quick = {.connect_timeout = 5, .answer_timeout = 10};

static inline void toy_start(fixture *f, soma_server_opts o) {
    o.port = 0;
    err = (soma_error){0};
    n_opened = n_closed = n_acts = 0;
    if (soma__server_open(&f->server, &toy, &o, NULL, &err)) fail_msg("%s", err.text);
    f->port = soma__server_port(f->server);
    f->groot_port = soma__server_groot_port(f->server);
}

static inline void toy_stop(fixture *f) {
    soma__server_close(f->server);
    assert_int_equal(n_opened, n_closed); // every pilot was freed
}

static inline soma_status toy_try(soma_wire **w, const fixture *f, const char *scheme) {
    char address[64];
    snprintf(address, sizeof address, "%s://localhost:%d", scheme, f->port);
    *w = NULL;
    return soma__wire_connect(w, address, &quick, &err);
}

static inline soma_wire *toy_join(const fixture *f) {
    soma_wire *w;
    if (toy_try(&w, f, "ws")) fail_msg("%s", err.text);
    return w;
}

static inline soma_status toy_ask(soma_wire *w, const char *prompt) {
    soma_actions a;
    soma_obs obs = look(prompt);
    return soma__wire_infer(w, &obs, &a, &err);
}

// A GET; its status, and the whole answer in `text`.
static inline int toy_get(int port, const char *path, const char *header, char *text, size_t room) {
    char ask[600];
    int status = 0, n = snprintf(ask, sizeof ask, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", path, header);
    int fd = raw_connect(port);
    size_t len = 0;
    raw_send(fd, ask, (size_t)n);
    for (ssize_t got; len + 1 < room && (got = recv(fd, text + len, room - len - 1, 0)) > 0;) len += (size_t)got;
    text[len] = 0;
    close(fd);
    sscanf(text, "HTTP/1.%*d %d", &status);
    return status;
}

#endif
